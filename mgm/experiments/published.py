"""Numbers that others published and a compute plan rests on: sizes of datasets, peaks of GPUs, and one measured training time."""

from typing import NamedTuple


class Videos(NamedTuple):
    train: int
    test: int
    classes: int


VIDEOS = {
    "ssv2": Videos(168_913, 24_777, 174),  # its authors' page; its validation split is tested on
    "k400": Videos(240_000, 20_000, 400),  # the paper's 240K; VideoMAE's 20K of validation. What YouTube still has is less
    "mini-k200": Videos(80_000, 5_000, 400),  # s9xie/mini-kinetics-200's lists; classes stay K400's
    "ucf101": Videos(9_537, 3_783, 101),  # split 1's lists
    "hmdb51": Videos(3_570, 1_530, 51),  # split 1: 70 and 30 of each class
    "diving48": Videos(15_027, 1_970, 48),  # its authors' lists, version 2
    "ucf14-hmdb7": Videos(1_324, 210, 14),  # the published lists (mgm/datasets/published/lists/pda.csv.xz)
    "hmdb14-ucf7": Videos(980, 266, 14),  # as above
}

PEAK = {  # FLOP/s of dense 16-bit matrix products, from NVIDIA's data sheets of the SXM modules
    "v100": 125e12,  # fp16; it has no bf16
    "a100": 312e12,
    "h100": 989e12,  # printed 1,979 with sparsity
    "h200": 989e12,  # as above
}


class Measured(NamedTuple):
    """How long somebody's pretraining took."""

    source: str
    gpu: str
    gpus: int
    hours: float
    epochs: int


VIDEOMAE = Measured("MCG-NJU/VideoMAE, issue 5: ViT-B, K400, ratio 0.9", "v100", 64, 27.0, 800)
