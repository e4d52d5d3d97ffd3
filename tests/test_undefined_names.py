"""Every name that a file uses is defined in it: the linter cannot tell, for jaxtyping's shapes look like names."""

import builtins
import symtable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "docs", "examples", "models", "numpyro_inverse", "tests", "tools", "training")
BUILTIN = {*dir(builtins), "__file__", "__name__", "__doc__"}


def undefined(source: str) -> set[str]:
    """Names that some scope of a module looks up outside itself, and that neither the module nor Python has."""
    scopes = [symtable.symtable(source, "source", "exec")]
    for scope in scopes:
        scopes.extend(scope.get_children())
    module = scopes[0]
    defined = {s.get_name() for s in module.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    declared = {s.get_name() for scope in scopes for s in scope.get_symbols() if s.is_declared_global()}
    used = {s.get_name() for s in module.get_symbols() if s.is_referenced()}
    used |= {s.get_name() for scope in scopes[1:] for s in scope.get_symbols() if s.is_referenced() and s.is_global()}
    return used - defined - declared - BUILTIN


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(x: 'Float[Array, \"n k\"]'): return [y for y in x]", set()),
        ("import a\nclass B:\n    c = a\n    def d(self): return B, len, (lambda e: e)", set()),
        ("def f():\n    global g\n    g = 1\ndef h(): return g", set()),
        ("def f(): return Path('x')", {"Path"}),
        ("class A:\n    b = 1\n    def c(self): return b", {"b"}),
        ("print(late)\nif False:\n    early = late", {"late"}),
    ],
)
def test_finds_what_is_undefined_and_nothing_else(source, names):
    assert undefined(source) == names


def test_no_file_of_the_repository_uses_an_undefined_name():
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    found = {path.relative_to(ROOT): names for path in files if (names := undefined(path.read_text()))}
    assert not found
