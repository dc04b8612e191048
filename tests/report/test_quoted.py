"""The paper's numbers, checked against totals counted by hand in its text."""

import csv
from collections import Counter
from pathlib import Path

from mgm.study import quoted as module
from mgm.study.quoted import quotes, reported

ROWS = list(
    csv.DictReader(
        Path(module.__file__).with_name("quoted.csv").read_text(encoding="utf-8").splitlines()
    )
)


def test_every_number_of_every_table_once():
    """Tables 4a to 4c print one number three times; Figure 4b shows one of Table 4e."""
    keys = [(row["study"], row["dataset"], row["row"], row["column"]) for row in ROWS]
    assert len(keys) == len(set(keys)) == len(reported())
    assert Counter(row["study"] for row in ROWS) == {
        "table1": 57 + 1,
        "table2": 12 + 12 + 9 + 9,
        "table3": 6,
        "table4": 3 + 2 + 2 - 2 + 4,
        "table4e": 6,
        "measured": 5,
    }
    of_table1 = Counter((row["dataset"], row["column"]) for row in ROWS if row["study"] == "table1")
    assert of_table1["ssv2", "Fine-tuned"] == 19 + 1
    assert of_table1["k400", "Fine-tuned"] == 18
    assert of_table1["ssv2", "GFLOPs"] + of_table1["k400", "GFLOPs"] == 20
    assert not any(None in row for row in ROWS)  # no line has a comma too many


def test_sums_and_spots():
    """Column sums and single numbers are those of the paper's text."""

    def total(study, dataset, column):
        values = (
            quote.value
            for (at, _, of), quote in quotes(study).items()
            if (at, of) == (dataset, column)
        )
        return round(sum(values), 1)

    paper = {key: quote.value for key, quote in reported().items()}
    assert total("table4e", "ssv2", "Fine-tuned") == 390.8
    assert total("table2", "ucf101-after-k400", "Fine-tuned") == 380.3
    assert total("table2", "diving48-after-ssv2", "Linear probe") == 34.1
    assert total("table3", "hmdb14-ucf7", "Fine-tuned") == 237.2
    assert paper["table1", "ssv2", "MGM, 2400", "Fine-tuned"] == 72.1
    assert paper["table1", "k400", "MGM, 800", "Fine-tuned"] == 80.8
    assert paper["table1", "k400", "VideoMAE, 800", "Fine-tuned"] == 80.0
    assert paper["table1", "k400", "MAM2, 800", "Fine-tuned"] == 82.3
    assert paper["table2", "diving48-after-ssv2", "MGM + Finetune", "Fine-tuned"] == 83.4
    # Printed as N/A.
    assert ("table1", "ssv2", "ST-MAE, 1600", "Fine-tuned") not in paper
