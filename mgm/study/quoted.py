"""All quoted numbers; no other module quotes one.

`quoted.csv` has the numbers of the paper's Tables 1-4, and those of its text that we measure too.
Sizes are from published lists.
"""

import csv
from functools import cache
from pathlib import Path

from mgm.spec import PUBLISHED


def listed(dataset: str) -> tuple[int, int]:
    """Return the numbers of videos and classes in a dataset's published lists (split 1)."""
    lists = PUBLISHED[dataset]
    return lists.train + lists.test, lists.classes


@cache
def reported() -> dict[tuple[str, str, str], float]:
    """Return the paper's values by (table, row, column).

    A value is top-1 accuracy in %, unless its row or column names another quantity. A row of
    Table 1 is "method, test dataset, pretraining epochs", with "-" where the paper prints no
    epochs. The paper prints GFLOPs once per line; they belong to the line's first dataset. ST-MAE
    has no SSv2 cell, since the paper prints N/A. Other names are as the paper prints them.
    """
    return {key: value for key, (value, _) in _lines().items()}


def note(table: str, row: str, column: str) -> str:
    """Return the note of `quoted.csv` on a number; empty if there is none.

    The notes of Table 1 are "backbone; pretraining data".
    """
    return _lines().get((table, row, column), (0.0, ""))[1]


_ZOO = (
    "VideoMAE's 800 epochs on {} are from its model zoo: without repeated augmentation, {} epochs "
    "of fine-tuning"
)
# How the training of quoted baselines differs from the other rows. Sources: VideoMAE's model zoo
# (github.com/MCG-NJU/VideoMAE), ST-MAE's recipe.
FOOTNOTES = {
    ("1", "VideoMAE, K400, 800", "K400"): (
        _ZOO.format("K400", 100) + "; with repeated augmentation, 81.0"
    ),
    ("1", "VideoMAE, SSv2, 800", "SSv2"): _ZOO.format("SSv2", 50),
    ("1", "ST-MAE, K400, 1600", "K400"): (
        "ST-MAE is quoted from another recipe: repeated augmentation 4, a deeper decoder, a class "
        "token"
    ),
}


@cache
def _lines() -> dict[tuple[str, str, str], tuple[float, str]]:
    with open(Path(__file__).with_name("quoted.csv"), encoding="utf-8", newline="") as file:
        return {
            (line["table"], line["row"], line["column"]): (float(line["value"]), line["note"])
            for line in csv.DictReader(file)
        }
