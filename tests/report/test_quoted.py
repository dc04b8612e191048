"""The paper's numbers, checked against totals counted by hand in its text."""

import csv
from collections import Counter
from pathlib import Path

from mgm.study import quoted as module
from mgm.study.quoted import reported

ROWS = list(
    csv.DictReader(
        Path(module.__file__).with_name("quoted.csv").read_text(encoding="utf-8").splitlines()
    )
)


def test_every_number_of_every_table_once():
    keys = [(row["table"], row["row"], row["column"]) for row in ROWS]
    assert len(keys) == len(set(keys)) == len(reported())
    assert Counter(row["table"] for row in ROWS) == {
        "1": 57,
        "2a": 12,
        "2b": 12,
        "2c": 9,
        "2d": 9,
        "3": 6,
        "4a": 3,
        "4b": 2,
        "4c": 2,
        "4d": 4,
        "4e": 6,
        "measured": 5,
    }
    assert Counter(row["column"] for row in ROWS if row["table"] == "1") == {
        "SSv2": 19,
        "K400": 18,
        "GFLOPs": 20,
    }
    assert {row["table"] for row in ROWS if None in row} == set()  # no line has a comma too many


def test_sums_and_spots():
    """Column sums and single numbers are those of the paper's text."""
    paper = reported()

    def total(table, column):
        return round(
            sum(value for (name, _, at), value in paper.items() if (name, at) == (table, column)), 1
        )

    assert total("4e", "SSv2") == 390.8
    assert total("2a", "UCF") == 380.3
    assert total("2d", "Diving48") == 34.1
    assert total("3", "HMDB14 → UCF7") == 237.2
    assert paper["1", "MGM, SSv2, 2400", "SSv2"] == 72.1
    assert paper["1", "MGM, K400, 800", "K400"] == 80.8
    assert paper["1", "VideoMAE, K400, 800", "K400"] == 80.0
    assert paper["1", "MAM2, K400, 800", "K400"] == 82.3
    assert paper["2b", "MGM + SSv2 Finetune", "Diving48"] == 83.4
    assert paper["4d", "Mini-K200", "K400"] == 78.2
    assert ("1", "ST-MAE, SSv2, 1600", "SSv2") not in paper  # printed as N/A
