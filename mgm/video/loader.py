"""Batches of clips for training and testing.

A training clip depends only on (run seed, epoch, sample), and on the number of its repeat under
repeated augmentation. `sample` is a video's position in the given sequence. Batch k depends only on
(run seed, k). Other clips of the batch, workers, the cache and the step at which a run was resumed
do not matter.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch

from mgm.errors import NoMotion, UserError
from mgm.rng import clip_seed, generator
from mgm.spec import (
    Augment,
    Clips,
    Method,
    Views,
)
from mgm.video.clip import Box, Clip, Motion
from mgm.video.read import Cache, read, read_motion
from mgm.video.ring import Arrays, Waits, read_batches
from mgm.video.transform import (
    ClipAugmentation,
    random_box,
    test_box,
    training_indices,
    view_indices,
)
from mgm.video.videos import Video

NO_AUGMENT = Augment()
# Clips of a part of a batch, which a worker reads at once. A batch has at most MOST_PARTS parts.
PIECE, MOST_PARTS = 8, 128


class Batch(NamedTuple):
    """A batch of B clips.

    Args:
        frames_BTHWC: uint8 RGB.
        seed_B: int64, the clip's `clip_seed`, from which `mgm.masking` draws its mask.
        label_B: int64.
        sample_B: int64, the video's position. The scores of a video's test views are averaged.
        weight_B: float32, the weight of the clip's loss. It is 0 for a training video that could
            not be read, which has frames of zeros. Otherwise it is 1.
        motion_BSHW: float32 magnitude per slot that guides masks (`BatchOptions.masks`). None for
            unguided masks.
        target_BC: float32, the share of each class in mixed clips (`mgm.training.mix`).
        masked_BL: True for hidden tokens (`BatchOptions.masks`).
    """

    frames_BTHWC: torch.Tensor
    seed_B: torch.Tensor
    label_B: torch.Tensor
    sample_B: torch.Tensor
    weight_B: torch.Tensor
    motion_BSHW: torch.Tensor | None = None
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
        pin, waits: see `mgm.video.ring.read_batches`.
    """

    motion: Method | None = None
    shuffled: bool = False
    masks: Masks | None = None
    augment: Augment = NO_AUGMENT
    workers: int = 0
    cache: Cache | None = None
    share: tuple[int, int] = (0, 1)
    pin: bool = False
    waits: Waits = lambda seconds: None


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
    batches = _TrainingBatches(videos, clips, how, batch, seed)
    size = len(batches.own) * batches.repeats
    for own, _ in batches.read(itertools.count(first_step), len(batches.parts), size):
        yield own


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
    batches = _TestBatches(videos, clips, how, batch, views)
    number, count = how.share
    own = range(number, len(batches), count)
    largest = batches.group * views.temporal * views.spatial
    for whole, [(clips_read, errors)] in batches.read(own, 1, largest):
        if failed is not None:
            failed |= errors
        elif errors:
            raise next(iter(errors.values()))
        if clips_read:
            yield whole.map(itemgetter(slice(clips_read)))


class Plan(NamedTuple):
    """What a clip is, before any pixel is read.

    Args:
        sample: the video's position.
        index_T: its frames.
        box: the crop of them.
        seed: of the clip's mask and augmentation.
    """

    sample: int
    index_T: np.ndarray
    box: Box
    seed: int


@dataclass(eq=False)
class _Batches:
    """Batches of clips. `fill` writes a part of one, in this process or in a worker."""

    videos: Sequence[Video]
    clips: Clips
    how: BatchOptions
    batch: int

    def fill(self, arrays: Arrays, number: int, part: int) -> Any:
        """Write a part of batch `number` into its arrays."""
        raise NotImplementedError

    def read(
        self, numbers: Iterable[int], parts: int, clips: int
    ) -> Iterator[tuple[Batch, list[Any]]]:
        """Yield batches of at most `clips` clips, and the answers of their parts."""
        reading = self.how.workers, self.how.waits, self.how.pin
        for arrays, answers in read_batches(
            self.fill, numbers, parts, clips, self.example(), *reading
        ):
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            yield Batch(**tensors), answers

    @cached_property
    def cache(self) -> Cache:
        """Return this worker's cache of decoded videos."""
        cache, workers = self.how.cache or Cache(0), self.how.workers
        return Cache(cache.megabytes / workers) if workers else cache

    @cached_property
    def black(self) -> Clip:
        """Return a clip of zeros without motion."""
        frames, size = self.clips.frames, self.clips.size
        frames_THWC = np.zeros((frames, size, size, 3), np.uint8)
        return Clip(frames_THWC, Motion.none(frames, size, size)).cut_to(size)

    def collate(
        self, clips: Sequence[Clip | None], plans: Sequence[Plan], arrays: Arrays, start: int = 0
    ) -> None:
        """Write clips into the arrays of a batch, from clip `start` on, with their masks.

        Args:
            clips: None where one could not be read. It is black, and nothing moves in it.
        """
        part = slice(start, start + len(clips))
        whole = [clip or self.black for clip in clips]
        for into_THWC, clip in zip(arrays["frames_BTHWC"][part], whole):
            into_THWC[:] = clip.frames_THWC
        seeds = [plan.seed for plan in plans]
        arrays["seed_B"][part] = seeds
        arrays["sample_B"][part] = [plan.sample for plan in plans]
        arrays["label_B"][part] = [self.videos[plan.sample].label for plan in plans]
        arrays["weight_B"][part] = [clip is not None for clip in clips]
        if self.how.masks:
            masked_BL, motion_BSHW = self.how.masks(whole, seeds)
            arrays["masked_BL"][part] = masked_BL
            if motion_BSHW is not None:
                arrays["motion_BSHW"][part] = motion_BSHW

    def example(self) -> dict[str, np.ndarray]:
        """Return the arrays of one clip."""
        one = {name: np.zeros(1, np.int64) for name in ("seed_B", "label_B", "sample_B")}
        one |= {"weight_B": np.zeros(1, np.float32), "frames_BTHWC": self.black.frames_THWC[None]}
        if self.how.masks:
            masked_BL, motion_BSHW = self.how.masks([self.black], [0])
            one["masked_BL"] = masked_BL
            if motion_BSHW is not None:
                one["motion_BSHW"] = motion_BSHW
        return one


@dataclass(eq=False)
class _TrainingBatches(_Batches):
    """Batches of training clips. A part is some places of a step's batch."""

    seed: int

    def __post_init__(self):
        self.repeats = self.how.augment.repeats
        number, count = self.how.share
        self.own = range(number * self.batch // count, (number + 1) * self.batch // count)
        videos = max(PIECE // self.repeats, -(-len(self.own) // MOST_PARTS), 1)
        starts = self.own[::videos]
        self.parts = [range(start, min(start + videos, self.own.stop)) for start in starts]
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

    def plans(self, step: int, place: int) -> list[Plan]:
        """Return what is read at a place of a step's batch: a clip, and its repeats.

        Repeats have the same frames, and seeds that are derived from the clip's own.
        """
        epoch, position = divmod(step * self.batch + place, len(self.videos))
        sample = int(self.order(epoch)[position])
        own = clip_seed(self.seed, epoch, sample)
        seeds = [own, *(clip_seed(own, repeat, sample) for repeat in range(1, self.repeats))]
        index_T = self.frames(sample, own)
        return [Plan(sample, index_T, self.box(sample, seed), seed) for seed in seeds]

    def frames(self, sample: int, seed: int) -> np.ndarray:
        """Draw the frames of a clip."""
        return training_indices(self.clips, self.videos[sample].frames, generator(seed, "sample"))

    def box(self, sample: int, seed: int) -> Box:
        """Draw the box that a clip is cut by."""
        return random_box(self.clips, self.videos[sample].height, self.videos[sample].width, seed)

    def fill(self, arrays: Arrays, number: int, part: int) -> None:
        """Write the clips of some places of a step's batch."""
        places = self.parts[part]
        plans, clips = list[Plan](), list[Clip | None]()
        for place in places:
            repeats = self.plans(number, place)
            plans += repeats
            try:
                clips += self.clips_of(repeats)
            except NoMotion:
                raise
            except UserError:
                clips += [None] * len(repeats)
        self.collate(clips, plans, arrays, (places.start - self.own.start) * self.repeats)

    def clips_of(self, plans: Sequence[Plan]) -> list[Clip]:
        """Read one clip per plan, all of the same frames."""
        video, size = self.videos[plans[0].sample], self.clips.size
        motion = None if self.how.shuffled else self.how.motion
        frames = [plan.index_T for plan in plans]
        if self.augmentation:
            (whole,) = read(video, frames[:1], None, 0, motion, self.cache)
            return [self.augmented(whole, plan) for plan in plans]
        clips = read(video, frames, [plan.box for plan in plans], size, motion, self.cache)
        if self.how.shuffled:
            return [Clip(clip.frames_THWC, self.guide(plan)) for clip, plan in zip(clips, plans)]
        return clips

    def guide(self, plan: Plan) -> Motion:
        """Return the motion of a training clip of another video, drawn from the clip's seed.

        It has its own start, crop and flip. So the clip still depends only on (run seed, epoch,
        sample).
        """
        other = int(generator(plan.seed, "guide").integers(len(self.videos) - 1))
        # Skip the clip's own video. The others are equally likely.
        other += other >= plan.sample
        video, seed = self.videos[other], clip_seed(plan.seed, 0, other)
        motion = read_motion(video, self.frames(other, seed), self.how.motion, self.cache)
        return motion.cut(self.box(other, seed), self.clips.size)

    def augmented(self, clip: Clip, plan: Plan) -> Clip:
        """Apply RandAugment to whole frames, cut the clip, and apply random erasing."""
        assert self.augmentation
        augmentation, rng = self.augmentation, generator(plan.seed, "augment")
        clip = replace(clip, frames_THWC=augmentation.rand(clip.frames_THWC, rng))
        clip = clip.cut(plan.box, self.clips.size)
        return replace(clip, frames_THWC=augmentation.erase(clip.frames_THWC, rng))


@dataclass(eq=False)
class _TestBatches(_Batches):
    """Batch k has all test views of the k-th group of videos."""

    views: Views

    def __post_init__(self):
        self.group = max(self.batch // (self.views.temporal * self.views.spatial), 1)

    def __len__(self) -> int:
        return -(-len(self.videos) // self.group)

    def fill(self, arrays: Arrays, number: int, part: int) -> tuple[int, dict[int, UserError]]:
        """Write a whole batch. Return the number of its clips, and the videos' errors."""
        plans, clips, errors = list[Plan](), list[Clip](), dict[int, UserError]()
        for sample in range(len(self.videos))[number * self.group : (number + 1) * self.group]:
            views = self.plans(sample)
            frames, boxes = [plan.index_T for plan in views], [plan.box for plan in views]
            read_of = self.videos[sample], frames, boxes, self.clips.size
            try:
                clips += read(*read_of, self.how.motion, self.cache)
                plans += views
            except UserError as error:
                errors[sample] = error
        self.collate(clips, plans, arrays)
        return len(clips), errors

    def plans(self, sample: int) -> list[Plan]:
        """Return a video's test views: each spatial view of each temporal view."""
        video, (temporal, spatial) = self.videos[sample], (self.views.temporal, self.views.spatial)
        boxes = [
            test_box(video.height, video.width, view, spatial, self.clips.size)
            for view in range(spatial)
        ]
        frames = [
            view_indices(self.clips, video.frames, view, temporal) for view in range(temporal)
        ]
        seed = clip_seed(0, 0, sample)
        return [Plan(sample, index_T, box, seed) for index_T, box in product(frames, boxes)]
