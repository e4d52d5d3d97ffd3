"""Files are whole or not there, and a folder has one writer."""

import errno
import os
import subprocess
import sys

import pytest

from numpyro_inverse import _files
from numpyro_inverse._files import made_folder, sole_writer, write_atomically

WHERE = "study: `store`"


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a"
    write_atomically(path, b"one", WHERE)
    write_atomically(path, b"two", WHERE)
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, step):
    path = tmp_path / "a"
    write_atomically(path, b"one", WHERE)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match=r"study: `store`: cannot write .*No space left") as found:
        write_atomically(path, b"two", WHERE)
    assert found.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a"]


def test_the_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    steps = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (steps.append(name), real(*a)))
    write_atomically(tmp_path / "a", b"one", WHERE)
    assert steps == ["fsync", "replace", "fsync"]  # the content, its name, the folder


def test_folders(tmp_path):
    assert made_folder(tmp_path / "a" / "b", WHERE).is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="`store` must be a folder"):
        made_folder(tmp_path / "file", WHERE)
    with pytest.raises(TypeError, match="`store` must be a path; got int"):
        made_folder(5, WHERE)
    with pytest.raises(OSError, match="study: `store`: cannot write"):
        made_folder(tmp_path / "file" / "c", WHERE)


def test_one_writer_at_a_time(tmp_path):
    with sole_writer(tmp_path, WHERE):
        with pytest.raises(RuntimeError, match="study: `store`: another process writes"), sole_writer(tmp_path, WHERE):
            pass
        code = f"import importlib.util as u\ns = u.spec_from_file_location('f', {_files.__file__!r})\n"
        code += f"m = u.module_from_spec(s); s.loader.exec_module(m)\nwith m.sole_writer({str(tmp_path)!r}, 'x'): pass"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process writes" in other.stderr
    with sole_writer(tmp_path, WHERE):
        pass


def test_a_killed_writer_leaves_no_lock(tmp_path):
    code = f"import importlib.util as u, os, signal\ns = u.spec_from_file_location('f', {_files.__file__!r})\n"
    code += f"m = u.module_from_spec(s); s.loader.exec_module(m)\nwith m.sole_writer({str(tmp_path)!r}, 'x'):\n"
    code += " os.kill(os.getpid(), signal.SIGTERM)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode != 0
    with sole_writer(tmp_path, WHERE):
        pass
