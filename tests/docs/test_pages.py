"""The code in the documents runs: block after block of a page, in reduced size."""

from pathlib import Path

import pytest

from tests.docs.running import blocks, run

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")] if list(blocks(path.read_text())))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    for block in blocks(page.read_text()):
        run(block, namespace, str(page))
