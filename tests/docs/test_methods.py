import csv
import re
from pathlib import Path

from mgm.spec import MASKS
from mgm.study.quoted import reported

with (Path(__file__).parents[2] / "docs" / "methods.csv").open(
    encoding="utf-8", newline=""
) as file:
    ROWS = list(csv.DictReader(file))
NUMBERS = ("k400", "ssv2", "k400_linear", "ssv2_linear")


def test_every_number_has_a_source_and_every_mask_is_one_here():
    for row in ROWS:
        assert row["source"] or not any(row[name] for name in NUMBERS), row
        assert all(name in MASKS for name in re.findall("`(.+?)`", row["relation"])), row


def test_numbers_of_the_papers_table_are_those_it_prints():
    columns = {"k400": "K400", "ssv2": "SSv2"}
    ours = [row for row in ROWS if row["source"] == "MGM paper, Table 1"]
    assert len(ours) == 9
    for row in ours:
        for name, column in columns.items():
            if row[name]:
                key = ("1", f"{row['method']}, {column}, {row['epochs']}", column)
                assert reported()[key] == float(row[name])
