"""Every example runs, in a setting as small as its options allow. The numbers and pictures are looked at by hand."""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = {
    "calibration": ["--datasets", "20"],
    "control": ["--draws", "5"],
    "darcy": ["--draws", "5", "--warmup", "5", "--cells", "8"],
    "data_assimilation": ["--draws", "4"],
    "electron_tomography": ["--draws", "20", "--coarser", "4"],
    "hare_lynx": ["--simulations", "400", "--epochs", "2", "--draws", "10"],
    "inverse_reinforcement_learning": ["--draws", "5"],
    "learned_prior": ["--draws", "4"],
    "many_machines": ["--quick"],
    "meuse": ["--draws", "4", "--edge", "0.2", "--modes", "100"],
    "mri": ["--draws", "4", "--coarser", "6"],
    "phase_retrieval": ["--draws", "5", "--size", "16"],
    "photograph": ["--draws", "3", "--size", "16"],
    "pinn": ["--width", "4"],
    "quickstart": ["--size", "16", "--warmup", "10", "--samples", "10"],
    "simulator": ["--simulations", "300", "--epochs", "2", "--datasets", "20"],
}


def _settings():
    for name in sorted(SMALL):
        needs = {"meuse": "skgstat"}.get(name)
        marks = [pytest.mark.statistical]  # each compiles for a quarter of a minute or more
        if name == "hare_lynx":  # proposals beyond what a population survives fail, and are counted
            marks.append(pytest.mark.filterwarnings("ignore:simulate:UserWarning"))
        if name == "learned_prior":  # four draws may all be one, whose diagnostics are not numbers
            undefined = ("All-NaN", "divide by zero", "invalid value")
            marks += [pytest.mark.filterwarnings(f"ignore:{what}:RuntimeWarning") for what in undefined]
        if needs is not None:
            marks.append(pytest.mark.skipif(find_spec(needs) is None, reason=f"needs {needs}"))
        yield pytest.param(name, marks=marks, id=name)


@pytest.mark.parametrize("name", list(_settings()))
def test_an_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *SMALL[name], "--output", str(tmp_path)])
    try:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    finally:  # a script may choose its precision
        jax.config.update("jax_enable_x64", False)
        plt.close("all")
    assert any(tmp_path.iterdir())


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SMALL)
