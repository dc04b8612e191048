"""Batches of clips (`mgm.data.clips`) for training and testing, in shared and pinned memory.

Batch k of a run depends only on (run seed, k). Workers write parts of a batch into arrays that they
share with this process, so nothing is collated or copied. The arrays of a batch are valid until the
next one is asked for.
"""

import math
import mmap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgm.console import show
from mgm.data.clips import PLANES, Testing, Training
from mgm.data.index import Video
from mgm.errors import UserError
from mgm.processes import AHEAD, in_order
from mgm.spec import Clips, Views
from mgm.video.augment import WHOLE, augmented
from mgm.video.planes import frames_of

Batch = dict[str, Tensor]
# Clips of a part of a batch, which a worker reads at once. A batch has at most MOST_PARTS parts.
PIECE, MOST_PARTS = 8, 128
# Clips that a GPU converts at once: each takes 26 MiB meanwhile, at 16 x 224 x 224 pixels.
CONVERTED = 64


@dataclass
class Reading:
    """What a run learns of its clips' reading.

    Attributes:
        failed: {sample: why} of the videos that cannot be read.
        waited_s: seconds in which there was no batch. Time of the device does not count.
    """

    failed: dict[int, UserError] = field(default_factory=dict)
    waited_s: float = 0.0


def training_batches(
    videos: Sequence[Video],
    clips: Clips,
    seed: int,
    batch: int,
    *,
    first_step: int = 0,
    share: tuple[int, int] = (0, 1),
    workers: int = 0,
    pin: bool = False,
    reading: Reading | None = None,
    **options: Any,
) -> Iterator[Batch]:
    """Yield this process's training batches without end, starting at `first_step`.

    Step k has the videos k * batch to (k + 1) * batch of the sequence of all epochs. Clips that
    cannot be read stay in the batch with weight 0.

    Args:
        batch: videos per step.
        share: (i, n): this process reads part i of n, from 0. The parts are equal, and in order.
        workers: number of processes that read. 0: this process reads. Batches are the same.
        pin: register the memory with CUDA (`_pin`), so that copies to a GPU need no other.
        reading: is told of failures, and of the time without a batch.
        options: see `Training`.

    Yields:
        frames_BTHWC uint8 RGB; or luma_BTHW, chroma_BT2HW and place_B5; or, with an augmentation,
        whole_BTPC, drawn_BN2 and place_B11; label_B, sample_B (the
        video's position) and seed_B int64; weight_B float32; with masks also masked_BL, True where
        hidden, and if they are guided, guide_hidden_B, the share of the motion under the mask.

    Raises:
        LostWorkers: a worker died, or none has answered for `mgm.processes.HANGS_S` seconds.
    """
    (number, processes), training = share, Training(videos, clips, seed, **options)
    own = range(number * batch // processes, (number + 1) * batch // processes)
    pool = Pool(training, batch, own, workers)
    return pool.batches(count(first_step), reading or Reading(), pin)


def view_batches(
    videos: Sequence[Video],
    clips: Clips,
    views: Views,
    batch: int,
    *,
    share: tuple[int, int] = (0, 1),
    workers: int = 0,
    failed: dict[int, UserError] | None = None,
) -> Iterator[Batch]:
    """Yield all test views of all videos, in order. A video's views are successive.

    A video has `views.temporal` x `views.spatial` clips. A batch has whole videos: at most `batch`
    clips, but at least one video. Rows of weight 0 are of no video, or of one that could not be
    read.

    Args:
        share: (i, n): every n-th batch is yielded, starting at the i-th. So batches and scores do
            not depend on the number of processes.
        failed: gets {position: why} of the videos that cannot be read. None: the first such error
            is raised.
    """
    testing, (number, processes) = Testing(videos, clips, views, failed is None), share
    per_batch = max(batch // testing.per_video, 1)
    own = range(number, -(-len(videos) // per_batch), processes)
    reading = Reading({} if failed is None else failed)
    return Pool(testing, per_batch, range(per_batch), workers).batches(own, reading)


def on_device(
    batches: Iterable[Batch], size: int, device: torch.device, compiled: bool = False
) -> Iterator[tuple[Batch, Batch]]:
    """Yield batches on the device, with frames (`_framed`), and the same on the host.

    A GPU copies from pinned memory on a stream of its own, during the step before. The host waits
    for these copies alone.

    Args:
        compiled: convert planes by a compiled function.
    """
    if device.type != "cuda":
        for batch in batches:
            yield _framed(batch, batch, size, frames_of), batch
        return
    convert = torch.compile(frames_of, dynamic=False) if compiled else frames_of
    copying = torch.cuda.Stream(device)
    for batch in batches:
        try:
            with torch.cuda.stream(copying):
                own = {name: x.to(device, non_blocking=True) for name, x in batch.items()}
            computing = torch.cuda.current_stream(device)
            computing.wait_stream(copying)
            for tensor in own.values():
                # Otherwise its memory could be reused while the step reads it.
                tensor.record_stream(computing)
            yield _framed(own, batch, size, convert), batch
        finally:
            # The loader writes the next batches into the same memory, or frees it.
            copying.synchronize()


def _framed(own: Batch, host: Batch, size: int, convert: Callable[..., Tensor]) -> Batch:
    """Return a batch on the device with frames instead of planes, or of what an augmentation takes.

    Args:
        host: the batch on the host.
        convert: `frames_of`, perhaps compiled.
    """
    framed = {name: x for name, x in own.items() if name not in (*PLANES, *WHOLE)}
    if "luma_BTHW" in own:
        parts = zip(*(own[name].split(CONVERTED) for name in PLANES))
        framed["frames_BTHWC"] = torch.cat([convert(size, *part) for part in parts])
    if "whole_BTPC" in own:
        framed["frames_BTHWC"] = augmented(size, own["whole_BTPC"], host)
    return framed


# --- The pool: batches in memory that workers share ---


class Pool:
    """The memory of batches. Parts of them are written by workers, or by this process.

    Args:
        clips: what writes clips.
        batch: videos per batch.
        own: this process's places in each batch.
    """

    def __init__(self, clips: Training | Testing, batch: int, own: range, workers: int):
        self.clips, self.batch, self.workers = clips, batch, workers
        per_part = max(PIECE // clips.per_video, -(-len(own) // MOST_PARTS), 1)
        self.parts = [own[first : first + per_part] for first in range(0, len(own), per_part)]
        # Workers are at most so many batches ahead of the one that is used.
        buffers = 2 + (AHEAD * workers - 1) // len(self.parts) if workers else 1
        rows, blank = len(own) * clips.per_video, clips.blank.items()
        self.arrays = [{name: _shared(rows, one) for name, one in blank} for _ in range(buffers)]

    def batches(
        self, numbers: Iterable[int], reading: Reading, pin: bool = False
    ) -> Iterator[Batch]:
        """Yield the batches of these numbers.

        Args:
            reading: is told of failures, and of the time without a batch.
        """
        items = (
            (place, number, part) for place, number in enumerate(numbers) for part in self.parts
        )
        tensors = [{name: torch.from_numpy(x) for name, x in own.items()} for own in self.arrays]
        pinned = list[int]()
        with closing(in_order(self.fill, items, self.workers)) as filled:
            try:
                for place in count():
                    asked_at = time.monotonic()
                    if not (lost := [*islice(filled, len(self.parts))]):
                        return
                    for own in lost:
                        reading.failed |= own
                    reading.waited_s += time.monotonic() - asked_at
                    # Processes that are forked later cannot use pinned memory.
                    if pin and place == 0:
                        _pin([array for arrays in self.arrays for array in arrays.values()], pinned)
                    yield tensors[place % len(tensors)]
            finally:
                for address in pinned:
                    torch.cuda.cudart().cudaHostUnregister(address)

    def fill(self, item: tuple[int, int, range]) -> dict[int, UserError]:
        """Write a part of a batch: number `number`, which is the one in this place here."""
        place, number, part = item
        first, per_video = part.start - self.parts[0].start, self.clips.per_video
        rows = slice(first * per_video, (first + len(part)) * per_video)
        out = {name: x[rows] for name, x in self.arrays[place % len(self.arrays)].items()}
        start = number * self.batch
        return self.clips.write(range(start + part.start, start + part.stop), out)


def _shared(rows: int, one: np.ndarray) -> np.ndarray:
    """Return an array in memory that forked processes share. It is not limited by /dev/shm."""
    shape = rows, *one.shape[1:]
    return np.ndarray(shape, one.dtype, mmap.mmap(-1, max(math.prod(shape) * one.itemsize, 1)))


def _pin(arrays: Iterable[np.ndarray], pinned: list[int]) -> None:
    """Register memory with CUDA, and note its addresses. If CUDA refuses, it is used as it is."""
    for array in arrays:
        code = int(torch.cuda.cudart().cudaHostRegister(array.ctypes.data, array.nbytes, 0))
        if code:
            show(f"CUDA pins no memory (error {code}): copies to the GPU wait for its steps")
            # The next call of CUDA raises the error again, and forgets it.
            with suppress(RuntimeError):
                torch.zeros(1, device="cuda")
            return
        pinned.append(array.ctypes.data)
