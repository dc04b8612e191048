"""Batches of clips for training and testing.

A training clip depends only on (run seed, epoch, sample), and on the number of its repeat under
repeated augmentation. `sample` is a video's position in the given sequence. Batch k depends only on
(run seed, k). Other clips of the batch, workers, the cache and the step at which a run was resumed
do not matter.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mgm.errors import NoMotion, UserError, require_room
from mgm.rng import clip_seed, generator
from mgm.spec import (
    Augment,
    Clips,
    Method,
    Views,
)
from mgm.video.clip import Box, Clip, Motion
from mgm.video.read import Cache, read, read_motion
from mgm.video.transform import (
    ClipAugmentation,
    random_box,
    test_box,
    training_indices,
    view_indices,
)
from mgm.video.videos import Video

NO_AUGMENT = Augment()
# Clips that a worker sends at once, and how many such pieces it prepares. Whole batches of 1,024
# clips from 16 workers would be 81 GB of shared memory.
PIECE, PREFETCHED = 32, 2


class Batch(NamedTuple):
    """A batch of B clips.

    Args:
        frames_BTHWC: uint8 RGB.
        motion_BSHW: float32 magnitude per slot that guides masks (`BatchOptions.masks`). None for
            unguided masks.
        seed_B: int64, the clip's `clip_seed`, from which `mgm.masking` draws its mask.
        label_B: int64.
        sample_B: int64, the video's position. The scores of a video's test views are averaged.
        weight_B: float32, the weight of the clip's loss. It is 0 for a training video that could
            not be read, which has frames of zeros. Otherwise it is 1.
        target_BC: float32, the share of each class in mixed clips (`mgm.training.mix`).
        masked_BL: True for hidden tokens (`BatchOptions.masks`).
    """

    frames_BTHWC: torch.Tensor
    motion_BSHW: torch.Tensor | None
    seed_B: torch.Tensor
    label_B: torch.Tensor
    sample_B: torch.Tensor
    weight_B: torch.Tensor
    target_BC: torch.Tensor | None = None
    masked_BL: torch.Tensor | None = None

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """Return the batch with `change` applied to each of its tensors."""
        fields = self._asdict().items()
        changed = {name: change(x) for name, x in fields if isinstance(x, torch.Tensor)}
        return self._replace(**changed)  # type: ignore[arg-type]


# Maps clips and their seeds to masked_BL, and motion_BSHW or None.
Masks = Callable[[Sequence[Clip], Sequence[int]], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class BatchOptions:
    """The contents of batches, and how they are read.

    Args:
        motion: the motion that is read from the videos' tracks. None: none.
        shuffled: each clip has the motion of another video.
        masks: returns masked_BL and motion_BSHW of clips and their seeds. They are computed where
            clips are read, since hundreds of small operations would take a GPU longer.
        augment: repeats, RandAugment and random erasing, for training. RandAugment and random
            erasing need masks None, since they do not change motion.
        workers: number of processes that decode. 0: this process decodes. Batches are the same.
        cache: keeps decoded videos in memory. Each worker has its own, with an equal share of the
            megabytes. Batches are the same.
        share: (i, n): this process reads part i of n, from 0.
    """

    motion: Method | None = None
    shuffled: bool = False
    masks: Masks | None = None
    augment: Augment = NO_AUGMENT
    workers: int = 0
    cache: Cache | None = None
    share: tuple[int, int] = (0, 1)


NO_MASKS = BatchOptions()


def training_loader(
    videos: Sequence[Video],
    clips: Clips,
    seed: int,
    batch: int,
    first_step: int = 0,
    how: BatchOptions = NO_MASKS,
) -> Iterator[Batch]:
    """Yield this process's training batches without end, starting at `first_step`.

    Each epoch is a permutation of the videos. Step k takes positions k * batch to (k + 1) * batch
    of the sequence of all epochs. Several processes read equal parts of a batch, in order. A video
    that cannot be read stays in the batch with weight 0. The training loop counts such videos.

    With repeated augmentation, a video has `augment.repeats` successive clips in the batch, all of
    the same frames, as in VideoMAE. Each has its own crop, flip and augmentation. The first is the
    same clip as without repeats.

    Args:
        videos: the training split.
        clips: frames, size, sampling, crop and flip.
        seed: the run's seed.
        batch: videos per step.
        how: motion, augmentation, and how batches are read.

    Raises:
        NoMotion: a video has no track of `how.motion`, or a damaged one.
    """
    if how.shuffled and len(videos) < 2:
        raise UserError(
            "mask.guidance is shuffled, which needs 2 training videos, and there is 1; add videos"
        )
    if how.masks and (how.augment.rand or how.augment.erasing):
        raise ValueError("RandAugment and random erasing do not change motion; draw no masks")
    dataset = _TrainingBatches(videos, clips, how, batch, seed)
    parts = dataset.pieces if how.workers else [dataset.own]
    _require_shared_memory(how.workers, clips, len(parts[0]) * dataset.repeats)
    items = ((step, part) for step in itertools.count(first_step) for part in parts)
    pieces = map(_raised, load(dataset, items, how.workers, pin=len(parts) == 1))
    if len(parts) == 1:
        return pieces
    return _joined(pieces, len(parts), len(dataset.own) * dataset.repeats)


def test_loader(
    videos: Sequence[Video],
    clips: Clips,
    views: Views,
    batch: int,
    how: BatchOptions = NO_MASKS,
    failed: dict[int, UserError] | None = None,
) -> Iterator[Batch]:
    """Yield all test views of all videos, in order. A video's views are successive.

    A video has `views.temporal` x `views.spatial` clips, and is decoded once. A batch has at most
    `batch` clips, of whole videos, but at least one video. With `how.share` (i, n), every n-th
    batch is yielded, starting at the i-th. So batches and scores do not depend on the number of
    processes.

    Args:
        failed: gets {position: error} of the videos that cannot be read, which have no views. None:
            the first such error is raised.
    """
    dataset = _TestBatches(videos, clips, how, batch, views)
    number, count = how.share
    _require_shared_memory(how.workers, clips, max(batch, views.temporal * views.spatial))
    for own, errors in load(dataset, range(number, len(dataset), count), how.workers):
        if failed is not None:
            failed |= errors
        elif errors:
            raise next(iter(errors.values()))
        if own:
            yield own


def _raised(item: Batch | UserError) -> Batch:
    if isinstance(item, UserError):
        raise item
    return item


def _joined(pieces: Iterator[Batch], count: int, clips: int) -> Iterator[Batch]:
    """Join every `count` pieces to a batch of `clips` clips, in pinned memory if there is a GPU.

    Only one piece is held at a time, since each of its tensors is an open file.
    """
    pin = torch.cuda.is_available()
    while True:
        start = 0
        for number in range(count):
            piece = next(pieces)
            if number == 0:
                whole = piece.map(lambda x: x.new_empty((clips, *x.shape[1:]), pin_memory=pin))
            stop = start + len(piece.seed_B)
            for into, tensor in zip(whole, piece):
                if isinstance(into, torch.Tensor) and isinstance(tensor, torch.Tensor):
                    into[start:stop].copy_(tensor)
            start = stop
        yield whole


def _require_shared_memory(workers: int, clips: Clips, count: int) -> None:
    """Check that the clips that workers prepare fit, `count` at a time.

    Otherwise a worker would die of SIGBUS.
    """
    place = Path("/dev/shm")
    # Other systems than Linux have none.
    if not workers or not place.exists():
        return
    require_room(
        place,
        (PREFETCHED * workers + 1) * count * clips.frames * clips.size**2 * 3,
        f"room for clips from {workers} workers",
        "lower --workers, or enlarge it (docker run --shm-size)",
    )


def load(dataset: Dataset, items: Iterable, workers: int, pin: bool = True) -> Iterator[Any]:
    """Return an iterator over `dataset[item]` of each item, in order, read by worker processes.

    Args:
        workers: 0: this process reads.
        pin: copy tensors to pinned memory if there is a GPU.
    """
    loader = DataLoader(
        dataset,
        sampler=items,
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=pin and torch.cuda.is_available(),
        prefetch_factor=PREFETCHED if workers else None,
        # Without its own generator, its start would draw from the global one. Then the dropout of a
        # resumed run would differ.
        generator=torch.Generator(),
    )
    return iter(loader)


def _zeros(shape: tuple[int, ...]) -> torch.Tensor:
    """Return zeros, uint8. A worker has them in shared memory, so that sending copies nothing."""
    if get_worker_info() is None:
        return torch.from_numpy(np.zeros(shape, np.uint8))
    storage = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def _unchanged(item):
    return item


@dataclass(eq=False)
class _Batches(Dataset):
    """A dataset of batches."""

    videos: Sequence[Video]
    clips: Clips
    how: BatchOptions
    batch: int

    @cached_property
    def cache(self) -> Cache:
        """Return this worker's cache of decoded videos."""
        cache, workers = self.how.cache or Cache(0), self.how.workers
        return Cache(cache.megabytes / workers) if workers else cache

    def collate(
        self,
        clips: Sequence[Clip],
        samples: Sequence[int],
        seeds: Sequence[int],
        failed: Collection[int] = (),
    ) -> Batch:
        """Return a batch of clips.

        Args:
            failed: numbers of the clips that could not be read.
        """
        size = self.clips.size
        frames = _zeros((len(clips), self.clips.frames, size, size, 3))
        frames_BTHWC = frames.numpy()
        for b, clip in enumerate(clips):
            frames_BTHWC[b] = clip.frames_THWC
        masks = self.how.masks
        masked_BL, motion_BSHW = masks(clips, seeds) if masks else (None, None)
        return Batch(
            frames,
            None if motion_BSHW is None else torch.from_numpy(motion_BSHW),
            torch.tensor(seeds),
            torch.tensor([self.videos[sample].label for sample in samples]),
            torch.tensor(samples),
            torch.tensor([float(b not in failed) for b in range(len(clips))]),
            masked_BL=None if masked_BL is None else torch.from_numpy(masked_BL),
        )


@dataclass(eq=False)
class _TrainingBatches(_Batches):
    """Pieces of training batches. Item (step, places) is a part of the step's batch."""

    seed: int

    def __post_init__(self):
        self.repeats = self.how.augment.repeats
        number, count = self.how.share
        self.own = range(number * self.batch // count, (number + 1) * self.batch // count)
        videos = max(PIECE // self.repeats, 1)
        starts = self.own[::videos]
        self.pieces = [range(start, min(start + videos, self.own.stop)) for start in starts]
        augments = self.how.augment.rand or self.how.augment.erasing
        self.augmentation = ClipAugmentation(self.how.augment) if augments else None
        # (epoch, its permutation) of the last call, which the next step most likely needs again.
        self._order = (-1, np.empty(0, np.int64))

    def order(self, epoch: int) -> np.ndarray:
        """Return the epoch's permutation of the videos."""
        if self._order[0] != epoch:
            rng = generator(clip_seed(self.seed, epoch, -1), "order")
            self._order = (epoch, rng.permutation(len(self.videos)))
        return self._order[1]

    def __getitem__(self, item: tuple[int, range]) -> Batch | UserError:
        """Return the clips of some places of a step's batch.

        Clips that cannot be read are black, and nothing moves in them.
        """
        step, part = item
        samples, seeds, clips = list[int](), list[int](), list[Clip]()
        failed = set[int]()
        for place in part:
            epoch, position = divmod(step * self.batch + place, len(self.videos))
            sample = int(self.order(epoch)[position])
            seeds_R = self.seeds_of(epoch, sample)
            samples += [sample] * self.repeats
            seeds += seeds_R
            try:
                read_clips = self.clips_of(self.videos[sample], seeds_R)
                if self.how.shuffled:
                    guides = [self.guide(sample, seed) for seed in seeds_R]
                    pixels = [clip.frames_THWC for clip in read_clips]
                    read_clips = [Clip(*both) for both in zip(pixels, guides)]
                clips += read_clips
            except NoMotion as error:
                return error
            except UserError:
                failed |= set(range(len(clips), len(seeds)))
                clips += [self.black] * self.repeats
        return self.collate(clips, samples, seeds, failed)

    @cached_property
    def black(self) -> Clip:
        """Return a clip of zeros without motion."""
        frames, size = self.clips.frames, self.clips.size
        frames_THWC = np.zeros((frames, size, size, 3), np.uint8)
        return Clip(frames_THWC, Motion.none(frames, size, size)).cut_to(size)

    def seeds_of(self, epoch: int, sample: int) -> list[int]:
        """Return one seed per repeat: the clip's own, then seeds derived from it."""
        own = clip_seed(self.seed, epoch, sample)
        return [own, *(clip_seed(own, repeat, sample) for repeat in range(1, self.repeats))]

    def clips_of(self, video: Video, seeds_R: list[int]) -> list[Clip]:
        """Return one clip per seed, all of the same frames. With other motion, they have none."""
        index_T = self.frames(video, seeds_R[0])
        boxes, size = [self.box(seed, video) for seed in seeds_R], self.clips.size
        motion = None if self.how.shuffled else self.how.motion
        if self.augmentation is None:
            return read(video, [index_T] * len(boxes), boxes, size, motion, self.cache)
        (whole,) = read(video, [index_T], None, 0, motion, self.cache)
        return [self.augmented(whole, box, seed) for box, seed in zip(boxes, seeds_R)]

    def frames(self, video: Video, seed: int) -> np.ndarray:
        """Draw the frames of a clip."""
        return training_indices(self.clips, video.frames, generator(seed, "sample"))

    def guide(self, sample: int, seed: int) -> Motion:
        """Return the motion of a training clip of another video, drawn from the clip's seed.

        It has its own start, crop and flip. So the clip still depends only on (run seed, epoch,
        sample).
        """
        other = int(generator(seed, "guide").integers(len(self.videos) - 1))
        # Skip the clip's own video. The others are equally likely.
        other += other >= sample
        video, seed = self.videos[other], clip_seed(seed, 0, other)
        motion = read_motion(video, self.frames(video, seed), self.how.motion, self.cache)
        return motion.cut(self.box(seed, video), self.clips.size)

    def box(self, seed: int, video: Video) -> Box:
        """Draw the box that a clip is cut by."""
        return random_box(self.clips, video.height, video.width, seed)

    def augmented(self, clip: Clip, box: Box, seed: int) -> Clip:
        """Apply RandAugment to whole frames, cut the clip, and apply random erasing."""
        assert self.augmentation
        augmentation, rng = self.augmentation, generator(seed, "augment")
        clip = replace(clip, frames_THWC=augmentation.rand(clip.frames_THWC, rng))
        clip = clip.cut(box, self.clips.size)
        return replace(clip, frames_THWC=augmentation.erase(clip.frames_THWC, rng))


@dataclass(eq=False)
class _TestBatches(_Batches):
    """A dataset whose item k is a batch with all test views of the k-th group of videos."""

    views: Views

    def __post_init__(self):
        self.group = max(self.batch // (self.views.temporal * self.views.spatial), 1)

    def __len__(self) -> int:
        return -(-len(self.videos) // self.group)

    def __getitem__(self, item: int) -> tuple[Batch | None, dict[int, UserError]]:
        read_clips, samples, errors = list[Clip](), list[int](), dict[int, UserError]()
        for sample in range(len(self.videos))[item * self.group : (item + 1) * self.group]:
            try:
                read_clips += self.clips_of(self.videos[sample])
            except UserError as error:
                errors[sample] = error
            samples += [sample] * (len(read_clips) - len(samples))
        seeds = [clip_seed(0, 0, sample) for sample in samples]
        return self.collate(read_clips, samples, seeds) if read_clips else None, errors

    def clips_of(self, video: Video) -> list[Clip]:
        """Return a video's test views: each spatial view of each temporal view."""
        temporal, spatial = self.views.temporal, self.views.spatial
        frames = [
            view_indices(self.clips, video.frames, view, temporal)
            for view in range(temporal)
            for _ in range(spatial)
        ]
        sides, size = (video.height, video.width), self.clips.size
        boxes = [test_box(*sides, view, spatial, size) for view in range(spatial)] * temporal
        return read(video, frames, boxes, self.clips.size, self.how.motion, self.cache)
