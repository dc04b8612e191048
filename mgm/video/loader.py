"""Batches of clips for training and testing.

A training clip depends only on (run seed, epoch, sample), and on the number of its repeat under
repeated augmentation. `sample` is a video's position in the given sequence. Batch k depends only on
(run seed, k). Other clips of the batch, workers, the cache and the step at which a run was resumed
do not matter.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count, product
from typing import NamedTuple

import numpy as np
import torch

from mgm.errors import NoMotion, UserError
from mgm.rng import clip_seed, generator
from mgm.spec import CODEC, Augment, Clips, Guidance, Method, Views
from mgm.video.clip import Crop, Motion, cut_frames
from mgm.video.planes import no_planes
from mgm.video.read import Cache, Source, open_track, read_pixels, read_planes
from mgm.video.ring import Arrays, Waits, read_batches
from mgm.video.track import Track
from mgm.video.transform import (
    ClipAugmentation,
    random_crop,
    test_crop,
    training_indices,
    view_indices,
)
from mgm.video.videos import Video

NO_AUGMENT = Augment()
# Clips of a part of a batch, which a worker reads at once. A batch has at most MOST_PARTS parts.
PIECE, MOST_PARTS = 8, 128
PIXELS = ("frames_BTHWC", "luma_BTHW", "chroma_BT2HW", "place_B6")


class Batch(NamedTuple):
    """A batch of B clips.

    Args:
        frames_BTHWC: uint8 RGB. It is empty if the batch has planes.
        seed_B: int64, the clip's `clip_seed`, from which `mgm.masking` draws its mask.
        label_B: int64.
        sample_B: int64, the video's position. The scores of a video's test views are averaged.
        weight_B: float32, the weight of the clip's loss. It is 0 for a training video that could
            not be read, which has frames of zeros. Otherwise it is 1.
        motion_BSHW: float32 magnitude per slot that guides masks. None for unguided masks.
        masked_BL: True for hidden tokens.
        luma_BTHW, chroma_BT2HW, place_B6: the planes (`mgm.video.planes`).
    """

    frames_BTHWC: torch.Tensor
    seed_B: torch.Tensor
    label_B: torch.Tensor
    sample_B: torch.Tensor
    weight_B: torch.Tensor
    motion_BSHW: torch.Tensor | None = None
    masked_BL: torch.Tensor | None = None
    luma_BTHW: torch.Tensor | None = None
    chroma_BT2HW: torch.Tensor | None = None
    place_B6: torch.Tensor | None = None

    @property
    def planes(self) -> tuple[torch.Tensor, ...]:
        """Return luma, chroma and place of the planes, or nothing without planes."""
        given = self.luma_BTHW, self.chroma_BT2HW, self.place_B6
        return tuple(x for x in given if x is not None)

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """Return the batch with `change` applied to each of its tensors."""
        fields = self._asdict().items()
        changed = {name: change(x) for name, x in fields if isinstance(x, torch.Tensor)}
        return self._replace(**changed)  # type: ignore[arg-type]


class Plan(NamedTuple):
    """What a clip is, before any pixel is read.

    Args:
        sample: the video's position.
        index_T: its frames.
        crop: of them.
        seed: of the clip's mask and augmentation.
    """

    sample: int
    index_T: np.ndarray
    crop: Crop
    seed: int


# Maps the motions of clips (none if tracks do not guide), their frames (B, T, H, W, C) and seed_B
# to masked_BL, and motion_BSHW or None.
Masking = Callable[[Sequence[Motion], np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]


def training_loader(
    videos: Sequence[Video],
    clips: Clips,
    seed: int,
    batch: int,
    first_step: int = 0,
    *,
    guide: Guidance | None = None,
    mask: Masking | None = None,
    augment: Augment = NO_AUGMENT,
    share: tuple[int, int] = (0, 1),
    workers: int = 0,
    cache_mb: float = 0,
    planes: bool = False,
    pin: bool = False,
    waits: Waits = lambda seconds: None,
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
        guide: what guides the masks. None: nothing.
        mask: computes the masks, where clips are read, since hundreds of small operations would
            take a GPU longer. None: there are none.
        augment: repeats, RandAugment and random erasing. The last two need `mask` None, since they
            do not change motion.
        share: (i, n): this process reads part i of n, from 0.
        workers: number of processes that decode. 0: this process decodes. Batches are the same.
        cache_mb: keep decoded videos in memory, up to so many megabytes. Each worker has its own
            cache, with an equal share. Batches are the same.
        planes: write clips as decoded, for `mgm.video.planes.frames_of`. This needs crops of
            `clips.crop` "multiscale", and no cache, augmentation or guide "difference".
        pin, waits: see `mgm.video.ring.read_batches`.

    Raises:
        NoMotion: a video has no track of the guide's motion, or a damaged one.
    """
    if guide == "shuffled" and len(videos) < 2:
        raise UserError(
            "mask.guidance is shuffled, which needs 2 training videos, and there is 1; add videos"
        )
    if mask and (augment.rand or augment.erasing):
        raise ValueError("RandAugment and random erasing do not change motion; draw no masks")
    cache = Cache(cache_mb / max(workers, 1))
    batches = _TrainingBatches(
        videos, clips, seed, batch, guide, mask, augment, share, cache, planes
    )
    size = len(batches.own) * batches.repeats
    parts, example = len(batches.parts), batches.example()
    for arrays, _ in read_batches(
        batches.fill, count(first_step), parts, size, example, workers, waits, pin
    ):
        yield Batch(**{name: torch.from_numpy(array) for name, array in arrays.items()})


class _TrainingBatches:
    """Batches of training clips. A part is some places of a step's batch."""

    def __init__(
        self,
        videos: Sequence[Video],
        clips: Clips,
        seed: int,
        batch: int,
        guide: Guidance | None,
        mask: Masking | None,
        augment: Augment,
        share: tuple[int, int],
        cache: Cache,
        planes: bool,
    ):
        self.videos, self.clips, self.seed, self.batch = videos, clips, seed, batch
        self.guide, self.mask, self.cache, self.planes = guide, mask, cache, planes
        self.method = track_method(guide)
        # With shuffled guidance, a clip's motion is of another video.
        self.own_method = None if guide == "shuffled" else self.method
        self.repeats, (number, processes) = augment.repeats, share
        self.own = range(number * batch // processes, (number + 1) * batch // processes)
        per_part = max(PIECE // self.repeats, -(-len(self.own) // MOST_PARTS), 1)
        starts = self.own[::per_part]
        self.parts = [range(start, min(start + per_part, self.own.stop)) for start in starts]
        self.augmentation = ClipAugmentation(augment) if augment.rand or augment.erasing else None
        # (epoch, its permutation) of the last call, which the next step most likely needs again.
        self._order = (-1, np.empty(0, np.int64))

    def example(self) -> dict[str, np.ndarray]:
        """Return the arrays of one clip, of zeros without motion."""
        arrays, size = no_clip(self.clips), self.clips.size
        if self.mask:
            still = Motion.none(self.clips.frames, size, size).cut(Crop(0, 0, size, size), size)
            masked_BL, motion_BSHW = self.mask([still], arrays["frames_BTHWC"], arrays["seed_B"])
            arrays["masked_BL"] = masked_BL
            if motion_BSHW is not None:
                arrays["motion_BSHW"] = motion_BSHW
        if self.planes:
            arrays |= no_planes(self.clips) | {"frames_BTHWC": np.empty((1, 0, 0, 0, 3), np.uint8)}
        return arrays

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
        first = self.plan(sample, clip_seed(self.seed, epoch, sample))
        plans = [first]
        for repeat in range(1, self.repeats):
            again = self.plan(sample, clip_seed(first.seed, repeat, sample))
            plans.append(again._replace(index_T=first.index_T))
        return plans

    def plan(self, sample: int, seed: int) -> Plan:
        """Draw the frames and the crop of a clip of this seed."""
        video, rng = self.videos[sample], generator(seed, "sample")
        index_T = training_indices(self.clips, video.frames, rng)
        return Plan(sample, index_T, random_crop(self.clips, video.height, video.width, seed), seed)

    def fill(self, arrays: Arrays, step: int, part: int) -> None:
        """Write the clips of some places of a step's batch.

        First come their plans, then motion and masks. Pixels come last, unless they guide masks.
        """
        places = self.parts[part]
        clips = [self.plans(step, place) for place in places]
        plans = [plan for repeats in clips for plan in repeats]
        start = (places.start - self.own.start) * self.repeats
        own = {name: array[start : start + len(plans)] for name, array in arrays.items()}
        own["seed_B"][:] = [plan.seed for plan in plans]
        own["sample_B"][:] = [plan.sample for plan in plans]
        own["label_B"][:] = [self.videos[plan.sample].label for plan in plans]
        sources = [
            self.cache.find(self.videos[repeats[0].sample], self.own_method) for repeats in clips
        ]
        if self.guide != "difference":
            motions = list[Motion]()
            if self.method:
                for repeats, source in zip(clips, sources):
                    motions += [self.motion(plan, source) for plan in repeats]
            self.write_masks(motions, own)
        for number, (repeats, source) in enumerate(zip(clips, sources)):
            part_of = slice(number * self.repeats, (number + 1) * self.repeats)
            pixels = {name: own[name][part_of] for name in own if name in PIXELS}
            own["weight_B"][part_of] = 1
            try:
                self.write_pixels(repeats, source, pixels)
            except NoMotion:
                raise
            except UserError:
                own["weight_B"][part_of] = 0
                for array in pixels.values():
                    array[:] = 0
                if self.planes:
                    pixels["place_B6"][:, 2:4] = self.clips.size
        if self.guide == "difference":
            self.write_masks([], own)

    def motion(self, plan: Plan, source: Source) -> Motion:
        """Return the motion under a clip's crop.

        With shuffled guidance, it is that of a training clip of another video, drawn from the
        clip's seed, with its own start, crop and flip. So the clip still depends only on (run seed,
        epoch, sample).
        """
        if self.guide == "shuffled":
            other = int(generator(plan.seed, "guide").integers(len(self.videos) - 1))
            # Skip the clip's own video. The others are equally likely.
            other += other >= plan.sample
            plan = self.plan(other, clip_seed(plan.seed, 0, other))
            source = self.cache.find(self.videos[other], self.method)
        moving, video = source[1], self.videos[plan.sample]
        assert moving is not None
        return moving[plan.index_T].cut(plan.crop, self.clips.size, (video.height, video.width))

    def write_masks(self, motions: Sequence[Motion], own: Arrays) -> None:
        """Write the masks of clips, and what guides them."""
        if self.mask:
            masked_BL, motion_BSHW = self.mask(motions, own["frames_BTHWC"], own["seed_B"])
            own["masked_BL"][:] = masked_BL
            if motion_BSHW is not None:
                own["motion_BSHW"][:] = motion_BSHW

    def write_pixels(self, plans: Sequence[Plan], source: Source, pixels: Arrays) -> None:
        """Write the pixels, or the planes, of clips of the same frames.

        RandAugment applies to whole frames, before the crop, and random erasing after it.
        """
        video, index_T, size = self.videos[plans[0].sample], plans[0].index_T, self.clips.size
        whole_THWC, moving = source
        track = moving if isinstance(moving, Track) else None
        out_VTHWC = pixels["frames_BTHWC"]
        if whole_THWC is None and not self.augmentation:
            wanted = [index_T] * len(plans), [plan.crop for plan in plans], size
            if self.planes:
                read_planes(video, track, *wanted, pixels)
            else:
                read_pixels(video, track, *wanted, out_VTHWC)
            return
        if whole_THWC is None:
            (shown_THWC,) = read_pixels(video, track, [index_T], None, 0)
        else:
            shown_THWC = whole_THWC[index_T]
        for plan, out_THWC in zip(plans, out_VTHWC):
            frames_THWC, rng = shown_THWC, generator(plan.seed, "augment")
            if self.augmentation:
                frames_THWC = self.augmentation.rand(frames_THWC, rng)
            frames_THWC = cut_frames(frames_THWC, plan.crop, size, (video.height, video.width))
            if self.augmentation:
                frames_THWC = self.augmentation.erase(frames_THWC, rng)
            out_THWC[:] = frames_THWC


def test_loader(
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

    A video has `views.temporal` x `views.spatial` clips, and is decoded once. A batch has at most
    `batch` clips, of whole videos, but at least one video.

    Args:
        workers: see `training_loader`.
        share: (i, n): every n-th batch is yielded, starting at the i-th. So batches and scores do
            not depend on the number of processes.
        failed: gets {position: error} of the videos that cannot be read, which have no views. None:
            the first such error is raised.
    """
    per_video = views.temporal * views.spatial
    group = max(batch // per_video, 1)

    def fill(arrays: Arrays, number: int, _: int) -> tuple[int, dict[int, UserError]]:
        """Write a whole batch. Return the number of its clips, and the videos' errors."""
        start, errors = 0, dict[int, UserError]()
        for sample in range(len(videos))[number * group : (number + 1) * group]:
            video, part = videos[sample], slice(start, start + per_video)
            frames, crops = zip(*test_views(video, clips, views))
            try:
                track = open_track(video, None)
                read_pixels(video, track, frames, crops, clips.size, arrays["frames_BTHWC"][part])
            except UserError as error:
                errors[sample] = error
                continue
            arrays["seed_B"][part] = clip_seed(0, 0, sample)
            arrays["sample_B"][part], arrays["label_B"][part] = sample, video.label
            arrays["weight_B"][part] = 1
            start = part.stop
        return start, errors

    number, processes = share
    own = range(number, -(-len(videos) // group), processes)
    for arrays, [(read, errors)] in read_batches(
        fill, own, 1, group * per_video, no_clip(clips), workers
    ):
        if failed is not None:
            failed |= errors
        elif errors:
            raise next(iter(errors.values()))
        if read:
            yield Batch(**{name: torch.from_numpy(x[:read]) for name, x in arrays.items()})


def test_views(video: Video, clips: Clips, views: Views) -> list[tuple[np.ndarray, Crop]]:
    """Return frames and crop of a video's test views: each spatial view of each temporal view."""
    crops = [
        test_crop(video.height, video.width, view, views.spatial, clips.size)
        for view in range(views.spatial)
    ]
    frames = [
        view_indices(clips, video.frames, view, views.temporal) for view in range(views.temporal)
    ]
    return list(product(frames, crops))


def no_clip(clips: Clips) -> dict[str, np.ndarray]:
    """Return the arrays of one clip, of zeros."""
    arrays: dict[str, np.ndarray] = {
        name: np.zeros(1, np.int64) for name in ("seed_B", "label_B", "sample_B")
    }
    arrays["weight_B"] = np.zeros(1, np.float32)
    arrays["frames_BTHWC"] = np.zeros((1, clips.frames, clips.size, clips.size, 3), np.uint8)
    return arrays


def track_method(guide: Guidance | None) -> Method | None:
    """Return the method of the track that guides masks, if one does."""
    if guide is None or guide == "difference":
        return None
    return "codec" if guide in CODEC else guide  # type: ignore[return-value]
