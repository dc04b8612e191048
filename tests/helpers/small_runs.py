"""A very small dataset and model, shared by the tests of jobs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mgm.data.synthetic.params import Synthetic
from mgm.spec import Clips, Data, Model, Optim, Pretrain, RunOptions
from mgm.training import train
from mgm.training.loop import Batches

PARAMS = Synthetic(classes=3, train_per_class=8, test_per_class=4, size=32, frames=12)
SMALL = {
    "data": Data(dataset="ssv2", digest=PARAMS.digest),
    "clips": Clips(frames=4, size=24, stride=2, flip=False),
    "model": Model(backbone="toy", width=16, depth=2, heads=2, patch=8),
}


class ToyModel(nn.Sequential):
    """Learn the sum of four numbers."""

    def __init__(self, dropout: float = 0.5):
        torch.manual_seed(0)
        super().__init__(nn.Linear(4, 8), nn.GELU(), nn.Dropout(dropout), nn.Linear(8, 1))

    def forward(self, x_B4: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = (super().forward(x_B4) - x_B4.sum(dim=1, keepdim=True)).square().mean()
        return loss, {"first": x_B4[0, 0]}


@dataclass
class Toy:
    """What the training loop takes of a small run."""

    spec: Pretrain
    model: nn.Module
    batches: Batches
    videos: int = 1000

    def train(
        self,
        folder: Path,
        options: RunOptions = RunOptions(),
        show: Callable[[str], None] = lambda line: None,
    ) -> list[str]:
        return train(self.spec, self.model, self.videos, self.batches, folder, options, show)

    def weights(self) -> Tensor:
        return torch.cat([x.detach().flatten() for x in self.model.parameters()])


def toy_spec(steps: int, **optim) -> Pretrain:
    sizes = {"batch": 8, "epochs": 10, "warmup_epochs": 1, "precision": "float32"}
    return Pretrain(**SMALL, optim=Optim(lr=0.5, min_lr=0.01, steps=steps, **sizes, **optim))


def toy_clips(step: int) -> Tensor:
    """Return the clips of a step of all processes."""
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
