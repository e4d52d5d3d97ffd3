"""The wheel's metadata say what the code needs."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import numpyro_inverse

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Imported under an argument of the user's, who has it then.
OPTIONAL = {"baryrat", "cloudpickle", "cvxopt", "distributed", "flowjax", "matplotlib", "msgspec", "pebble", "zarr"}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def imported() -> set[str]:
    """The distributions that the package imports, anywhere in its files."""
    roots = set()
    for path in (ROOT / "numpyro_inverse").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                roots.add(node.module.split(".")[0])
    roots -= {"numpyro_inverse", *sys.stdlib_module_names}
    distributions = packages_distributions()
    return {canonicalize_name(distributions[root][0]) for root in roots}


def test_dependencies_are_what_is_imported():
    assert imported() - OPTIONAL == names(PROJECT["dependencies"])
    extras = PROJECT["optional-dependencies"]
    optional = ("dev", "examples", "cluster", "external", "meshes", "cholmod")
    offered = {name for extra in optional for name in names(extras[extra])}
    assert offered >= OPTIONAL - {"cloudpickle"}  # which comes with distributed


def test_pinned_versions_are_within_the_bounds():
    """constraints.txt has names and versions alone, and one for each requirement."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), lines
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    extras = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    for requirement in map(Requirement, PROJECT["dependencies"] + extras):
        if requirement.name != PROJECT["name"]:
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version, prereleases=True), (requirement, version)


def test_the_version_has_one_place():
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", numpyro_inverse.__version__)
    assert (Path(numpyro_inverse.__file__).parent / "py.typed").exists()
