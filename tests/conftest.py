"""What every test gets: two host devices, a compilation cache kept between runs, and keys of its own."""

import gc
import itertools
import os
import zlib
from pathlib import Path

# Before JAX starts.
CACHE = Path(__file__).parents[1] / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# LLVM does not optimize, and there is one thread for everything: two processes share two cores.
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_multi_thread_eigen=false"

import numpyro  # noqa: E402

numpyro.set_host_device_count(2)

import jax  # noqa: E402
import pytest  # noqa: E402


def pytest_configure(config):
    """All but the long suite compile more than they compute: LLVM does not optimize, which halves a first run.

    XLA's own passes run as for users; what differs is how the machine code is generated, so a float by rounding. The
    long tests (`make test-statistical`) run what users run.
    """
    if config.option.markexpr != "statistical":
        os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}"


def pytest_collection_finish():
    """What was imported stays: the garbage collector need not look through it, and through the rest less often."""
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


FINISHED = itertools.count(1)
MOST_MAPS = 55_000  # of the 65,530 memory maps that Linux gives a process


def pytest_runtest_logfinish():
    """Compiled programs hold memory maps, and a compilation beyond their limit crashes: in time, all are forgotten."""
    maps = Path("/proc/self/maps")
    if next(FINISHED) % 10 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture
def key(request):
    """A key that depends on the test's name alone: the same in every run, different in every test."""
    return jax.random.key(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def x64():
    """Double precision within the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _no_global_state():
    """No test, and nothing that a test calls, leaves JAX configured differently."""
    before = {name: getattr(jax.config, name) for name in ("jax_enable_x64", "jax_default_matmul_precision")}
    yield
    after = {name: getattr(jax.config, name) for name in before}
    for name, value in before.items():
        jax.config.update(name, value)
    assert after == before
