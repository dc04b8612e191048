"""Every "x [a, b]" in README and docs is a number that a report shows, and tables are generated."""

import re
import runpy
from pathlib import Path

import pytest

from mgm.report.cells import cells, differences, verdicts
from mgm.results.frame import load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "results.md"]
NUMBER = re.compile(r"-?\d+\.\d \[-?\d+\.\d, -?\d+\.\d\]")


@pytest.fixture(scope="module")
def shown() -> set[str]:
    """Return the means and intervals of all that the published studies show."""
    texts = set()
    for file in sorted((ROOT / "results").glob("*.csv.xz")):
        published = load(file.name.removesuffix(".csv.xz"), ROOT / "results")
        for study in published.studies.values():
            own = published.frame[published.frame.study == study.study]
            judged = verdicts(own, study, published.frozen) if study.predictions else cells(own)
            for table in (cells(own), differences(own, study), judged):
                for mean, low, high in zip(table["mean"], table.low, table.high):
                    texts.add(f"{mean:.1f} [{low:.1f}, {high:.1f}]".replace("-0.0", "0.0"))
    return texts


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_of_a_page_are_those_of_the_results(page, shown):
    # Generated tables have a test of their own.
    text = re.sub(r"<!-- \w+ -->.*?<!-- end -->", "", page.read_text(), flags=re.DOTALL)
    numbers = set(NUMBER.findall(text))
    assert page.name == "README.md" or numbers
    assert numbers <= shown, numbers - shown


def test_tables_of_scale_mini_are_those_of_its_results():
    for page, text in runpy.run_path(str(ROOT / "docs/tables.py"))["pages"]().items():
        assert page.read_text() == text, "python docs/tables.py"
