"""What documents refer to is there: links, pictures, scripts. The pages of the front page are all pages."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = {ROOT / "docs" / "_build", ROOT / "docs" / "examples"}  # by `make docs`
SOURCES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/data/*.md")]
PAGES = [path for path in SOURCES if not MADE & set(path.parents)]
LINK = re.compile(r"\]\(\s*([^)\s]+)[^)]*\)")
MADE_LATER = re.compile(r"docs/_build|benchmarks/results/\w+\.json|.*NAME")  # by commands, or a placeholder
PATH = re.compile(r"(?<![\w/.-])(?:examples|benchmarks|models|training|tests|tools|docs)/[\w./-]*\w")


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def lost(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere, and the paths named in it that are not in the repository."""
    found = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            found.append(target)
    named = {path for path in PATH.findall(text) if not MADE_LATER.match(path)}
    paths = {path for path in named if not (ROOT / path).exists()}
    return found + sorted(paths)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_resolve(page):
    assert lost(page, page.read_text()) == []


def test_a_lost_link_is_found():
    page = ROOT / "docs" / "index.md"
    there = "[c](tutorial.md#the-model) `examples/mri.py` [d](https://nowhere.invalid)"
    text = f"[a](nowhere.md) [b](tutorial.md#no-such-heading) `examples/nothing.py` {there}"
    assert lost(page, text) == ["nowhere.md", "tutorial.md#no-such-heading", "examples/nothing.py"]


def test_every_page_is_on_the_front_page():
    docs = ROOT / "docs"
    trees = re.findall(r"```\{toctree\}(.*?)```", (docs / "index.md").read_text(), flags=re.DOTALL)
    entries = [line.strip() for tree in trees for line in tree.splitlines() if line.strip() and line[0] != ":"]
    listed = [re.sub(r".*<(.*)>", r"\1", entry) for entry in entries]
    assert sorted(listed) == sorted([path.stem for path in docs.glob("*.md") if path.stem != "index"] + ["api/index"])


def test_every_example_is_in_the_gallery():
    text = (ROOT / "docs" / "gallery.md").read_text()
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert set(re.findall(r"\(\.\./examples/(\w+)\.py\)", text)) == names
    pictures = {path.stem: path.stat().st_size for path in (ROOT / "docs" / "_static" / "gallery").glob("*.png")}
    assert set(pictures) <= names
    assert max(pictures.values()) <= 60_000, "pictures of the gallery are small: fewer pixels or colors"
