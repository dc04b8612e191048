"""Numbers that others published and a compute plan rests on: peaks of GPUs, and one measured training time."""

from typing import NamedTuple

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
