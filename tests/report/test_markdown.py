"""Blocks in Markdown: written from the frames, and refused if they name what is not there."""

import re
from pathlib import Path

import pytest

from mgm.errors import UserError
from mgm.report import markdown
from mgm.report.estimates import estimate, read_results
from mgm.report.markdown import refresh
from tests.report.test_estimates import again, findings
from tests.report.test_page import page_of
from tests.study.test_study import small

ROOT = Path(__file__).parents[2]
FOUND = findings(small(dataset_seeds="5-7"))
# The page of mini is a suite's, with claims and charts between its tables.
PAGES = [
    page.stem
    for page in sorted((ROOT / "docs").glob("*.md"))
    if f"Written by `mgm report {page.stem}`" in page.read_text() and page.stem != "mini"
]


def block(what: str) -> str:
    return f"<!-- study s | {what} -->x<!-- end -->"


def test_a_block_has_the_number_of_the_frames():
    mean = f"{estimate(FOUND, 'a', 'MGM minus Tube').mean:.1f}"
    text = refresh(block("a: MGM minus Tube"), lambda name: FOUND)
    assert mean in text
    assert refresh(text, lambda name: FOUND) == text


@pytest.mark.parametrize(
    "what",
    [
        "a: Nothing",
        "a: MGM minus Nothing",
        "elsewhere: MGM",
        "a: MGM | column: Nothing",
        "nothing",
        "a: MGM | nothing",
        "a: MGM | nothing: Nothing",
    ],
)
def test_a_wrong_name_is_refused_and_nothing_is_written(what):
    with pytest.raises(UserError, match=r"block `study s \| "):
        refresh(block(what), lambda name: FOUND)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_docs_is_what_mgm_report_writes(name):
    (found,) = read_results(ROOT / "results" / name).values()
    written = (ROOT / "docs" / f"{name}.md").read_text()
    page = markdown.page(page_of(found), name)
    assert re.sub(r"!\[.*\n\n\*.*\*\n\n", "", written) == page


def test_the_page_warns_of_a_model_that_explains_less_than_its_neighbours():
    columns = {"Linear": {}, "Explained": {"stage": "measure", "name": "explained"}}
    columns["Explained"]["metric"] = "explained"
    found = findings(small(dataset_seeds="5-7", columns=columns), test=60)
    for run in found.runs[found.runs.column == "Explained"].itertuples():
        better = -1 if run.row == "MGM" else 1
        metrics = found.statuses[run.run_id].result["metrics"]
        metrics["neighbours"] = metrics["explained"] - better
    page = markdown.page(page_of(again(found)), "small")
    warned = [line for line in page.splitlines() if line.startswith("**") and "explains" in line]
    assert warned
    assert all("MGM" in line and "Tube" not in line for line in warned)
