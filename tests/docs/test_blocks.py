"""Results in README and docs are those of the committed archives, to the digit."""

from functools import cache
from pathlib import Path
from shutil import copy

import pytest

from mgm.errors import UserError
from mgm.report.blocks import BLOCK, refresh
from mgm.report.findings import read_findings
from mgm.results.archive import ENDING, SUMS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if BLOCK.search(page.read_text())
]


@pytest.fixture(scope="module")
def findings_of(tmp_path_factory):
    """What the committed archives hold; other runs of this checkout do not count."""
    folder = tmp_path_factory.mktemp("results")
    copy(RESULTS / SUMS, folder)
    for archive in RESULTS.glob(f"*{ENDING}"):
        copy(archive, folder)
    return cache(lambda name: read_findings(folder / name))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_pages_results_are_those_of_its_studies(page, findings_of):
    text = page.read_text()
    assert refresh(text, findings_of) == text


def test_no_block_breaks_its_paragraph():
    """Markdown ends a paragraph at a line that begins with a comment, and a cell at a bar."""
    assert len(PAGES) > 5
    for page in PAGES:
        for block in BLOCK.finditer(page.read_text()):
            line = page.read_text()[: block.start()].rpartition("\n")[2]
            if not block["result"].startswith("\n"):
                assert line.strip(), (page.name, block["what"])
                assert not line.startswith("|"), (page.name, block["what"])


def test_a_block_without_an_end_is_refused_and_takes_no_text_with_it():
    with pytest.raises(UserError):
        refresh(
            "<!-- study a | verdicts -->1 holds. A line. <!-- study a | verdicts --><!-- end -->",
            {},
        )
