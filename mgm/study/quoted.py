"""All quoted numbers; no other module quotes one.

`quoted.csv` has the numbers of the paper's Tables 1-4, and those of its text that we measure too.
Compute plans use the peaks of GPUs and published training times. Sizes are from published lists.
"""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mgm.spec import PUBLISHED

# FLOP/s of dense 16-bit matrix products, from NVIDIA's data sheets of the SXM modules.
PEAK = {
    "v100": 125e12,  # fp16; it has no bf16
    "a100": 312e12,
    "h100": 989e12,  # printed 1,979 with sparsity
    "h200": 989e12,  # as above
    # Cards, from their data sheets: with float32 accumulation and without sparsity.
    "rtx4090": 165.2e12,
    "a5000": 111.1e12,
}
MEMORY_GB = {"v100": 32, "a100": 80, "h100": 80, "h200": 141, "rtx4090": 24, "a5000": 24}


class PublishedTime(NamedTuple):
    """A published pretraining time."""

    source: str
    gpu: str
    gpus: int
    hours: float
    epochs: int
    dataset: str = "k400"
    ratio: float = 0.9


# 583 GPU hours on four cards; VideoMAE's own code took 995 on the same machine.
AVION = PublishedTime("AVION, README.md: VideoMAE ViT-B, K400, ratio 0.9", "a5000", 4, 583 / 4, 800)
# Its authors name the hours. 8 GPUs are the question's; their type is our assumption.
VIDEOMAE_UCF101 = PublishedTime(
    "MCG-NJU/VideoMAE, issue 48 (V100 assumed): ViT-B, UCF101, ratio 0.75",
    "v100",
    8,
    30.0,
    3200,
    "ucf101",
    0.75,
)
VIDEOMAE = PublishedTime("MCG-NJU/VideoMAE, issue 5: ViT-B, K400, ratio 0.9", "v100", 64, 27.0, 800)


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
