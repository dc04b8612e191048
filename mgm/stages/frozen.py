"""The one loop of a frozen model over videos: tests, probes, controls, `embed` and `predict`."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from torch import Tensor

from mgm.data.index import Video
from mgm.errors import UserError
from mgm.spec import Clips, Views
from mgm.stages.job import CLIPS, computed
from mgm.video.loader import test_loader

T = TypeVar("T")


def over_videos(
    compute: Callable[[Tensor], T],
    videos: Sequence[Video],
    clips: Clips,
    views: Views,
    *,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
    failed: dict[int, UserError] | None = None,
) -> Iterator[tuple[T, Tensor]]:
    """Yield `compute` of the frames of each batch of views, and the positions of their videos.

    Args:
        compute: maps uint8 frames (B, T, H, W, C) to any value. Without gradients.
        share: (i, n): part i of n, from 0.
        failed: see `test_loader`.
    """
    for batch in test_loader(
        videos, clips, views, CLIPS, workers=workers, share=share, failed=failed
    ):
        # The loader writes later batches into the same memory.
        yield computed(compute, batch.frames_BTHWC), batch.sample_B.clone()
