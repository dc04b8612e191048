"""All quoted numbers; no other module quotes one.

`quoted.csv` has the numbers of the paper's Tables 1-4, and those of its text that we measure too.
"""

import csv
from functools import cache
from math import nan
from pathlib import Path
from typing import NamedTuple


class Quote(NamedTuple):
    """A number of the paper.

    Attributes:
        note: backbone and data, or where it is printed.
        line, epochs: the method of a row of Table 1, and its epochs of pretraining in all.
    """

    value: float
    note: str
    line: str = ""
    epochs: float = nan


# A study, a dataset, a row and a column.
Key = tuple[str, str, str, str]


@cache
def reported() -> dict[Key, Quote]:
    """Return the paper's numbers by study, dataset, row and column.

    A value is top-1 accuracy in %, unless its column names another quantity. A row of Table 1 is
    "METHOD, EPOCHS"; without epochs, the paper prints none. The paper prints GFLOPs once per line;
    they belong to the line's first dataset. ST-MAE has no SSv2 cell, since the paper prints N/A.
    """
    with open(Path(__file__).with_name("quoted.csv"), encoding="utf-8", newline="") as file:
        return {
            (line["study"], line["dataset"], line["row"], line["column"]): Quote(
                float(line["value"]), line["note"], line["line"], float(line["epochs"] or nan)
            )
            for line in csv.DictReader(file)
        }


def quotes(study: str) -> dict[tuple[str, str, str], Quote]:
    """Return a study's numbers by dataset, row and column, in the order of the paper."""
    return {key[1:]: quote for key, quote in reported().items() if key[0] == study}


def paper_numbers(place: str) -> dict[str, float]:
    """Return the paper's numbers in STUDY/DATASET/COLUMN, by row."""
    study, *place_in_study = place.split("/")
    return {
        row: quote.value
        for (dataset, row, column), quote in quotes(study).items()
        if [dataset, column] == place_in_study
    }


_ZOO = (
    "VideoMAE's 800 epochs on {} are from its model zoo: without repeated augmentation, {} epochs "
    "of fine-tuning"
)
# How the training of quoted baselines differs from the other rows. Sources: VideoMAE's model zoo
# (github.com/MCG-NJU/VideoMAE), ST-MAE's recipe.
FOOTNOTES: dict[Key, str] = {
    ("table1", "k400", "VideoMAE, 800", "Fine-tuned"): (
        _ZOO.format("K400", 100) + "; with repeated augmentation, 81.0"
    ),
    ("table1", "ssv2", "VideoMAE, 800", "Fine-tuned"): _ZOO.format("SSv2", 50),
    ("table1", "k400", "ST-MAE, 1600", "Fine-tuned"): (
        "ST-MAE is quoted from another recipe: repeated augmentation 4, a deeper decoder, a class "
        "token"
    ),
}
