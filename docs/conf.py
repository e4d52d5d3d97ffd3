"""Sphinx configuration."""

from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from docutils import nodes

import numpyro_inverse

project = "numpyro_inverse"
author = "The numpyro_inverse maintainers"
release = version = numpyro_inverse.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "member-order": "bysource"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False

nitpicky = True  # see `is_trusted`

exclude_patterns = ["_build"]
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository
html_theme = "furo"
html_static_path = ["_static"]

PACKAGES = [path.stem for path in Path(__file__).parent.glob("api/numpyro_inverse.*.md")]  # one page each


def public_names() -> dict[str, str]:
    """The name under which each exported thing is documented, by where it is defined and by its last part."""
    names, short = {}, Counter()
    for package in sorted(PACKAGES):
        module = import_module(package)
        for name in dir(module):
            thing = getattr(module, name)
            if getattr(thing, "__module__", "").startswith("numpyro_inverse."):
                names[f"{thing.__module__}.{thing.__qualname__}"] = names[name] = f"{package}.{name}"
                short[name] += 1
    flat = {f"numpyro_inverse.{name}": f"numpyro_inverse.infer.{name}" for name in numpyro_inverse.__all__}
    return {name: public for name, public in names.items() if short[name] <= 1} | flat


def is_skipped(app, what, name, thing, skip, options):
    """On the page of a package there is what it exports: neither modules nor what it imports from others."""
    if what == "module":
        return isinstance(thing, ModuleType) or not getattr(thing, "__module__", "").startswith("numpyro_inverse.")
    return skip


def resolved(app, env, node, contnode):
    """A reference to something by the private module that defines it, or by its bare name from another package."""
    target = PUBLIC.get(node.get("reftarget"))
    if target is None:
        return None
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, contnode)


def is_trusted(app, domain, node):
    """What is written as a reference must be found, but for others' names: the build needs no network. The names in
    signatures are what Python makes of annotations.
    """
    root, dot, _ = node["reftarget"].partition(".")
    written = isinstance(node[0], nodes.literal)
    foreign = bool(dot) and root != "numpyro_inverse" and find_spec(root) is not None
    return True if foreign or not written else None


PUBLIC = public_names()


def page_of_example(source: str) -> str:
    """A script with `# %%` cells as a page: markdown cells are prose, the others code."""
    page = []
    for cell in ("\n" + source).split("\n# %%")[1:]:
        kind, _, body = cell.partition("\n")
        if kind.strip() == "[markdown]":
            page.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()))
        elif body.strip():
            page.append(f"````{{code-block}} python\n{body.strip()}\n````")
    return "\n\n".join(page) + "\n"


def write_examples(app):
    """The pages of the gallery's sources, anew where they have changed."""
    folder = Path(app.srcdir) / "examples"
    folder.mkdir(exist_ok=True)
    pages = {path.stem: page_of_example(path.read_text()) for path in Path(app.srcdir, "../examples").glob("*.py")}
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app):
    app.connect("builder-inited", write_examples)
    app.connect("autodoc-skip-member", is_skipped)
    app.connect("missing-reference", resolved)
    app.connect("warn-missing-reference", is_trusted)
