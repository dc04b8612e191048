"""A very small dataset and model, shared by the tests of jobs."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from mgm.data.synthetic.params import Synthetic
from mgm.spec import Clips, Data, Model

PARAMS = Synthetic(classes=3, train_per_class=8, test_per_class=4, size=32, frames=12)
SMALL = {
    "data": Data(dataset="ssv2", digest=PARAMS.digest),
    "clips": Clips(frames=4, size=24, stride=2, flip=False),
    "model": Model(backbone="toy", width=16, depth=2, heads=2, patch=8),
}


class Numbers(NamedTuple):
    """A batch of a toy model, as the training loop cuts it."""

    x: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Numbers":
        return Numbers(change(self.x))
