"""Batches of clips for training and testing, read from the store that `mgm prepare` writes.

A training clip depends only on (run seed, epoch, sample), and on the number of its repeat under
repeated augmentation. `sample` is a video's position in the given sequence. Batch k depends only on
(run seed, k). Other clips of the batch, workers and the step at which a run was resumed do not
matter.

Workers write parts of a batch into arrays that they share with this process, so nothing is collated
or copied. The arrays of a batch are valid until the next one is asked for.
"""

import atexit
import math
import mmap
import multiprocessing
import os
import signal
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import count, product
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from mgm.data.index import Video
from mgm.errors import LostWorkers, UserError
from mgm.masking import Grid, mask_clips
from mgm.rng import clip_seed, generator
from mgm.spec import Augment, Clips, Mask, Views, mask_info
from mgm.video.clip import Crop, cut
from mgm.video.motion import Motion
from mgm.video.planes import frames_of, no_planes
from mgm.video.store import SMALL, read_clips, read_planes
from mgm.video.track import Track, read_track
from mgm.video.transform import (
    ClipAugmentation,
    random_crop,
    training_indices,
    view_crop,
    view_indices,
)

Arrays = dict[str, np.ndarray]
Batch = dict[str, Tensor]
PLANES = ("luma_BTHW", "chroma_BT2HW", "place_B5")
NO_AUGMENT, NO_GRID = Augment(), Grid(0, 0, 0)
# Clips of a part of a batch, which a worker reads at once. A batch has at most MOST_PARTS parts.
PIECE, MOST_PARTS = 8, 128
AHEAD = 2  # parts that are ready or in work per worker
HANGS_S = 600  # seconds without a part after which workers are given up
# Signals that stop a run. Workers ignore them, since the run's last step may need them.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class TrainingClips(Dataset):
    """Training clips: (slot of the pool, step, part) writes some clips of a step's batch.

    Each epoch is a permutation of the videos. Step k takes positions k * batch to (k + 1) * batch
    of the sequence of all epochs. Several processes read equal parts of a batch, in order.

    With repeated augmentation, a video has `augment.repeats` successive clips in the batch, all of
    the same frames, as in VideoMAE. Each has its own crop, flip, augmentation and mask. The first
    is the same clip as without repeats.

    Args:
        videos: the training split.
        seed: the run's seed.
        batch: videos per step.
        mask, grid, tubelet: the masks of the clips. None: no masks.
        augment: repeats, RandAugment and random erasing.
        share: (i, n): this process reads part i of n, from 0.
        planes: write clips as decoded, for `mgm.video.planes.frames_of`.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        clips: Clips,
        seed: int,
        batch: int,
        *,
        mask: Mask | None = None,
        grid: Grid = NO_GRID,
        tubelet: int = 2,
        augment: Augment = NO_AUGMENT,
        share: tuple[int, int] = (0, 1),
        planes: bool = False,
    ):
        self.videos, self.clips, self.seed, self.batch = videos, clips, seed, batch
        self.mask, self.grid, self.tubelet, self.planes = mask, grid, tubelet, planes
        self.info = mask_info(mask.name if mask else "tube")
        if self.info.directional and clips.sampling == "segments":
            raise UserError("a mask that moves by strides needs clips.sampling stride or window")
        if mask and mask.guidance == "shuffled" and len(videos) < 2:
            raise UserError("mask.guidance shuffled needs two training videos, and there is one")
        self.augmentation = ClipAugmentation(augment) if augment.rand or augment.erasing else None
        self.repeats, (number, processes) = augment.repeats, share
        # This process's places in a batch.
        self.own = range(number * batch // processes, (number + 1) * batch // processes)
        self.rows = len(self.own) * self.repeats
        per_part = max(PIECE // self.repeats, -(-len(self.own) // MOST_PARTS), 1)
        starts = self.own[::per_part]
        self.parts = [range(start, min(start + per_part, self.own.stop)) for start in starts]
        self.order = lru_cache(2)(self._order)
        self.pool: list[Arrays] = []

    def example(self) -> Arrays:
        """Return the arrays of one clip, of zeros."""
        arrays = no_clip(self.clips)
        if self.planes:
            short_side = max(min(video.height, video.width) for video in self.videos)
            del arrays["frames_BTHWC"]
            arrays |= no_planes(self.clips, short_side)
        if self.mask:
            arrays["masked_BL"] = np.zeros((1, self.grid.slots * self.grid.patches), bool)
        if self.info.guided:
            arrays["coverage_B"] = np.zeros(1, np.float32)
        return arrays

    def _order(self, epoch: int) -> np.ndarray:
        """Return the epoch's permutation of the videos."""
        return generator(clip_seed(self.seed, epoch, -1), "order").permutation(len(self.videos))

    def __getitem__(self, item: tuple[int, int, int]) -> UserError | None:
        slot, step, part = item
        places = self.parts[part]
        first = (places.start - self.own.start) * self.repeats
        own, motions = part_of(self.pool[slot], first, len(places) * self.repeats), list[Any]()
        try:
            for number, place in enumerate(places):
                epoch, position = divmod(step * self.batch + place, len(self.videos))
                sample, row = int(self.order(epoch)[position]), number * self.repeats
                motions += self.write(sample, epoch, part_of(own, row, self.repeats))
            if self.mask:
                how = self.mask, self.grid, motions, own["seed_B"], self.tubelet, self.clips.stride
                own["masked_BL"][:], magnitude_BSHW = mask_clips(*how)
                if magnitude_BSHW is not None:
                    own["coverage_B"][:] = coverage(own["masked_BL"], magnitude_BSHW, self.grid)
        except UserError as error:
            return error
        return None

    def write(self, sample: int, epoch: int, own: Arrays) -> list[Motion]:
        """Write a video's clip, and its repeats: of the same frames, each with its own crop.

        Returns:
            The motion that guides each mask; nothing if the mask needs none.
        """
        video, clips, size = self.videos[sample], self.clips, self.clips.size
        first = clip_seed(self.seed, epoch, sample)
        seeds = [first, *(clip_seed(first, repeat, sample) for repeat in range(1, self.repeats))]
        own["seed_B"][:], own["sample_B"][:], own["label_B"][:] = seeds, sample, video.label
        own["weight_B"][:] = 1
        index_T = training_indices(clips, video.frames, generator(first, "sample"))
        crops = [random_crop(clips, video.height, video.width, seed) for seed in seeds]
        motions = [
            self.motion(sample, seed, index_T, crop)
            for seed, crop in zip(seeds, crops)
            if self.info.guided
        ]
        index_VT = [index_T] * self.repeats
        try:
            track = open_track(video)
            if self.planes:
                planes = {name: own[name] for name in PLANES}
                read_planes(video.path, track, index_VT, crops, planes)
            elif self.augmentation:
                [whole_THWC] = read_clips(video.path, track, [index_T], None, 0)
                for seed, crop, out_THWC in zip(seeds, crops, own["frames_BTHWC"]):
                    rng = generator(seed, "augment")
                    # RandAugment is for whole frames, random erasing for the clip.
                    drawn_THWC = self.augmentation.rand(whole_THWC, rng)
                    cut_THWC = np.stack([cut(frame, crop, size) for frame in drawn_THWC])
                    out_THWC[:] = self.augmentation.erase(cut_THWC, rng)
            else:
                read_clips(video.path, track, index_VT, crops, size, own["frames_BTHWC"])
        # The clip stays in the batch, and does not count. The training loop counts such videos.
        except UserError:
            own["weight_B"][:] = 0
            for name, nothing in self.example().items():
                if name in ("frames_BTHWC", *PLANES):
                    own[name][:] = nothing
        return motions

    def motion(self, sample: int, seed: int, index_T: np.ndarray, crop: Crop) -> Motion:
        """Return the motion under a clip's crop.

        With shuffled guidance, it is that of a training clip of another video, drawn from the
        clip's seed, with its own start, crop and flip.
        """
        assert self.mask
        if self.mask.guidance == "shuffled":
            other = int(generator(seed, "guide").integers(len(self.videos) - 1))
            # Skip the clip's own video. The others are equally likely.
            sample = other + (other >= sample)
            video, seed = self.videos[sample], clip_seed(seed, 0, sample)
            index_T = training_indices(self.clips, video.frames, generator(seed, "sample"))
            crop = random_crop(self.clips, video.height, video.width, seed)
        video = self.videos[sample]
        track = open_track(video, self.mask.method)
        small = 3 * video.frames * video.height * video.width <= SMALL
        under = crop, self.clips.size, (video.height, video.width)
        return (
            whole_motion(track)[index_T].under(*under) if small else track.motion(index_T, *under)
        )


class TestClips(Dataset):
    """Test views: (slot of the pool, batch, part) writes the views of a video.

    See `test_batches` for the arguments.
    """

    __test__ = False  # it is no test of pytest's

    def __init__(self, videos: Sequence[Video], clips: Clips, views: Views, batch: int):
        self.videos, self.clips, self.views = videos, clips, views
        self.per_video = views.temporal * views.spatial
        self.parts = range(max(batch // self.per_video, 1))
        self.rows = len(self.parts) * self.per_video
        self.pool: list[Arrays] = []

    def example(self) -> Arrays:
        return no_clip(self.clips)

    def __getitem__(self, item: tuple[int, int, int]) -> UserError | None:
        slot, number, part = item
        sample = number * len(self.parts) + part
        own = part_of(self.pool[slot], part * self.per_video, self.per_video)
        own["weight_B"][:] = 0
        if sample >= len(self.videos):
            return None
        video, size = self.videos[sample], self.clips.size
        own["sample_B"][:], own["label_B"][:] = sample, video.label
        index_VT, crops = zip(*test_views(video, self.clips, self.views))
        try:
            read_clips(video.path, open_track(video), index_VT, crops, size, own["frames_BTHWC"])
        except UserError as error:
            return error
        own["weight_B"][:] = 1
        return None


def training_batches(
    videos: Sequence[Video],
    clips: Clips,
    seed: int,
    batch: int,
    *,
    first_step: int = 0,
    workers: int = 0,
    pin: bool = False,
    **options: Any,
) -> Iterator[Batch]:
    """Yield this process's training batches without end, starting at `first_step`.

    A video that cannot be read stays in the batch with weight 0.

    Args:
        workers: number of processes that read. 0: this process reads. Batches are the same.
        pin: register the memory with CUDA, so that copies to a GPU need no other.
        options: see `TrainingClips`.

    Yields:
        frames_BTHWC uint8 RGB, or luma_BTHW, chroma_BT2HW and place_B5; label_B, sample_B (the
        video's position) and seed_B int64; weight_B float32; with masks also masked_BL, True where
        hidden, and if they are guided, coverage_B, the share of the motion under the mask.

    Raises:
        NoMotion: a video has no track of the motion that guides the mask, or a damaged one.
        LostWorkers: a worker died, or none has answered for `HANGS_S` seconds.
    """
    dataset = TrainingClips(videos, clips, seed, batch, **options)
    for arrays, errors in _batches(dataset, count(first_step), workers, pin):
        for error in filter(None, errors):
            raise error
        yield arrays


def test_batches(
    videos: Sequence[Video],
    clips: Clips,
    views: Views,
    batch: int,
    *,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
    failed: dict[int, UserError] | None = None,
) -> Iterator[Batch]:
    """Yield all test views of all videos, in order. A video's views are successive.

    A video has `views.temporal` x `views.spatial` clips, and each of its frames is decoded once. A
    batch has whole videos: at most `batch` clips, but at least one video. Rows of weight 0 are of
    no video, or of one that could not be read.

    Args:
        share: (i, n): every n-th batch is yielded, starting at the i-th. So batches and scores do
            not depend on the number of processes.
        failed: gets {position: error} of the videos that cannot be read. None: the first such
            error is raised.
    """
    dataset, (number, processes) = TestClips(videos, clips, views, batch), share
    own = range(number, -(-len(videos) // len(dataset.parts)), processes)
    for position, (arrays, errors) in zip(own, _batches(dataset, own, workers)):
        for sample, error in enumerate(errors, position * len(dataset.parts)):
            if error and failed is None:
                raise error
            if error and failed is not None:
                failed[sample] = error
        yield arrays


test_batches.__test__ = False  # type: ignore[attr-defined]


def on_device(
    batches: Iterable[Batch], size: int, device: torch.device
) -> Iterator[tuple[Batch, Batch]]:
    """Yield batches on the device, with frames instead of planes, and the same on the host.

    A GPU copies from pinned memory on a stream of its own, during the step before.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch, batch
        return
    copying = torch.cuda.Stream(device)
    for batch in batches:
        with torch.cuda.stream(copying):
            own = {name: x.to(device, non_blocking=True) for name, x in batch.items()}
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        for tensor in own.values():
            # Otherwise its memory could be reused while the step reads it.
            tensor.record_stream(computing)
        if "luma_BTHW" in own:
            own["frames_BTHWC"] = frames_of(size, *(own.pop(name) for name in PLANES))
        yield own, batch
        # The loader writes the next batches into the same memory.
        copying.synchronize()


def test_views(video: Video, clips: Clips, views: Views) -> list[tuple[np.ndarray, Crop]]:
    """Return frames and crop of a video's test views: each spatial view of each temporal view."""
    height, width, spatial, temporal = video.height, video.width, views.spatial, views.temporal
    crops = [view_crop(height, width, view, spatial) for view in range(spatial)]
    frames = [view_indices(clips, video.frames, view, temporal) for view in range(temporal)]
    return list(product(frames, crops))


def coverage(masked_BL: np.ndarray, magnitude_BSHW: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the share of each clip's motion under its mask: (B,).

    For a clip without motion, it is the share of hidden tokens.
    """
    pooled = F.adaptive_avg_pool2d(torch.from_numpy(magnitude_BSHW), (grid.height, grid.width))
    motion_BL = pooled.flatten(1).numpy()
    motion_BL = np.where(motion_BL.sum(1, keepdims=True) > 0, motion_BL, 1)
    return (motion_BL * masked_BL).sum(1) / motion_BL.sum(1)


def open_track(video: Video, method: str = "codec") -> Track:
    """Return a video's track. The last ones are kept, since small sets read them again."""
    return read_track(video.track(method))


@lru_cache(1000)
def whole_motion(track: Track) -> Motion:
    """Return the motion of all frames of a small video."""
    return track[:]


def part_of(arrays: Arrays, start: int, rows: int) -> Arrays:
    """Return some rows of arrays."""
    return {name: array[start : start + rows] for name, array in arrays.items()}


def no_clip(clips: Clips) -> Arrays:
    """Return the arrays of one clip, of zeros."""
    arrays: Arrays = {name: np.zeros(1, np.int64) for name in ("label_B", "sample_B", "seed_B")}
    arrays["weight_B"] = np.zeros(1, np.float32)
    arrays["frames_BTHWC"] = np.zeros((1, clips.frames, clips.size, clips.size, 3), np.uint8)
    return arrays


# --- The pool and its workers ---


def _batches(
    dataset: TrainingClips | TestClips, numbers: Iterable[int], workers: int, pin: bool = False
) -> Iterator[tuple[Batch, list[UserError | None]]]:
    """Yield the arrays of each batch, and the errors of its parts."""
    parts = len(dataset.parts)
    # Workers are at most so many batches ahead of the one that is used.
    slots = 2 + (AHEAD * workers - 1) // parts if workers else 1
    dataset.pool = [
        {name: _shared(dataset.rows, one) for name, one in dataset.example().items()}
        for _ in range(slots)
    ]
    tensors = [{name: torch.from_numpy(x) for name, x in own.items()} for own in dataset.pool]
    places = enumerate(numbers)
    items = ((place % slots, number, part) for place, number in places for part in range(parts))
    done = _done(dataset, items, workers, pin) if workers else map(dataset.__getitem__, items)
    for place in count():
        errors = [error for _, error in zip(range(parts), done)]
        if not errors:
            return
        yield tensors[place % slots], errors


def _shared(rows: int, one: np.ndarray) -> np.ndarray:
    """Return an array in memory that forked processes share. It is not limited by /dev/shm."""
    shape = rows, *one.shape[1:]
    return np.ndarray(shape, one.dtype, mmap.mmap(-1, max(math.prod(shape) * one.itemsize, 1)))


def _done(
    dataset: TrainingClips | TestClips, items: Iterable[Any], workers: int, pin: bool
) -> Generator[UserError | None, None, None]:
    """Let workers write the items, and yield the error of each, in order."""
    before, handler = multiprocessing.active_children(), signal.getsignal(signal.SIGCHLD)
    # Workers inherit it. OpenCV's threads do not survive a fork, so a worker cannot end them.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    # It warns of more workers than cores. Reading waits for disks.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=items,
            num_workers=workers,
            prefetch_factor=AHEAD,
            worker_init_fn=partial(_started, os.getpid()),
            multiprocessing_context="fork",
            timeout=1,
            # Otherwise it would draw from the run's generator.
            generator=torch.Generator(),
        )
        done: Any = iter(loader)
    cv2.setNumThreads(threads)
    started = [one for one in multiprocessing.active_children() if one not in before]
    # A traceback may keep this generator until Python ends, which waits for all workers.
    end = partial(_end, started)
    atexit.register(end)
    # PyTorch's handler raises when a worker dies, wherever this process is, as in an update.
    with suppress(ValueError, TypeError):  # in another thread, and where C code has set one
        signal.signal(signal.SIGCHLD, handler)
    pinned, waited = list[int](), 0
    try:
        if pin:
            pinned += [_pin(array) for own in dataset.pool for array in own.values()]
        while True:
            try:
                error = next(done)
            except StopIteration:
                return
            except RuntimeError as lost:
                waited += 1
                _require_alive(started, waited)
                if "timed out" not in str(lost):
                    raise
                continue
            waited = 0
            yield error
    finally:
        end()
        atexit.unregister(end)
        # The iterator sets an event as it ends. A killed worker can leave its lock taken for ever.
        done._workers_done_event = multiprocessing.Event()
        for address in pinned:
            torch.cuda.cudart().cudaHostUnregister(address)


def _end(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()
        worker.join()


def _require_alive(workers: Sequence[BaseProcess], waited: int) -> None:
    if dead := next((worker for worker in workers if not worker.is_alive()), None):
        raise LostWorkers(
            f"a worker process ended with {dead.exitcode}, perhaps for lack of memory; run again, "
            "with fewer --workers if so"
        )
    if waited >= HANGS_S:
        raise LostWorkers(
            f"no worker process has read a clip for {HANGS_S} s; see whether the disk answers, "
            "then run again"
        )


def _started(parent: int, worker: int) -> None:
    """Ignore the signals that stop a run, and end with the parent, even if that is killed."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  # type: ignore[attr-defined]
    if os.getppid() != parent:
        os._exit(1)


def _pin(array: np.ndarray) -> int:
    """Register memory with CUDA. Processes that are forked later cannot use it."""
    code = torch.cuda.cudart().cudaHostRegister(array.ctypes.data, array.nbytes, 0)
    torch.cuda.check_error(code)
    return array.ctypes.data
