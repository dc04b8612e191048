"""The paper's tables: no line has changed since it was compared with the text of the paper."""

import hashlib

import pytest

from mgm.report.cells import printed
from mgm.study.expand import expand
from mgm.study.scales import load_suite
from mgm.study.schema import PAPER

# The start of the SHA-256 of each table's lines, which were compared with the paper's text, without
# citations and marks of footnotes. A hash guards a printed number against a slip of the hand.
HASHES = {
    "table1": "15e351cab120",
    "table2a": "f2127f74c90d",
    "table2b": "13e8274e053f",
    "table2c": "8a2e4b27fcc9",
    "table2d": "2733813a49ba",
    "table3": "70f04cb56165",
    "table4a": "29a0c5a6839d",
    "table4b": "35ed68879f60",
    "table4c": "02dce4ae36e7",
    "table4d": "27d57b9b3146",
    "table4e": "8f0b1657b757",
}
# Marks of Table 4e, which the text does not have: temporal propagation, spatial continuity.
MARKS = {
    "Random Block": ("static", "dense"),
    "SMM (Sparse)": ("simulated", "sparse"),
    "Random Tube": ("static", "sparse"),
    "MGM (Sparse)": ("motion", "sparse"),
    "SMM (Dense)": ("simulated", "dense"),
    "MGM (Dense)": ("motion", "dense"),
}


def test_each_table_is_there():
    tables = {path.stem for path in PAPER.glob("table*.csv")}
    assert tables == {*HASHES}


@pytest.mark.parametrize("key", HASHES)
def test_each_line_is_the_papers(key):
    table = printed(key)
    own = table[[name for name in table.columns if not name.endswith(": ours")]]
    lines = [
        " ".join(value for value in line if value not in ("", "✓"))
        for line in own.itertuples(index=False, name=None)
    ]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12] == HASHES[key]


def test_table_4e_has_its_marks():
    table = printed("table4e").set_index("Mask")
    for mask, (time, space) in MARKS.items():
        marked = [name.split(": ")[1] for name, value in table.loc[mask].items() if value == "✓"]
        assert marked == [time, space]


def test_each_of_our_cells_is_of_the_study_that_has_the_table():
    suite = load_suite("paper")
    studies = {key: study for study in suite.studies for key in study.views}
    cells = expand(suite.studies, suite.scale).cells
    known = {*cells[["study", "dataset", "row", "column"]].itertuples(index=False, name=None)}
    wanted = 0
    for key in HASHES:
        for name, column in printed(key).items():
            for cell in filter(None, column if name.endswith(": ours") else ()):
                dataset, rest = cell.split("/", 1)
                place = (studies[key].study, dataset, *rest.rsplit("/", 1))
                assert place in known, place
                # The view shows what the table has, so its target runs it.
                assert studies[key].views[key].has(*place[1:]), place
                wanted += 1
    assert wanted == 78
