"""Every example runs, in a setting as small as its options allow. The numbers and pictures are looked at by hand."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = {
    "calibration": ["--datasets", "20"],
    "control": ["--draws", "5"],
    "inverse_reinforcement_learning": ["--draws", "5"],
    "learned_prior": ["--draws", "3"],
    "meuse": ["--draws", "4"],
    "phase_retrieval": ["--draws", "5", "--size", "16"],
    "photograph": ["--draws", "3", "--size", "16"],
    "pinn": ["--width", "4"],
    "quickstart": ["--size", "16", "--warmup", "10", "--samples", "10"],
    "simulator": ["--simulations", "300", "--epochs", "2", "--datasets", "20"],
}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_an_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *SMALL[name], "--output", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert any(tmp_path.iterdir())


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SMALL)
