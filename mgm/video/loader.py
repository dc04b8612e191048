"""Batches of clips for training and testing.

A training clip is a function of (run seed, epoch, sample) alone (under repeated augmentation, of
its repeat too), and batch k of (run seed, k) alone: batch mates, workers, the cache and where a run
was resumed do not matter. `sample` is a video's position in the sequence the caller gives.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mgm.errors import UserError, require_few
from mgm.rng import clip_seed, generator
from mgm.spec import Augment, Clips, Distance, Guidance, Views
from mgm.video.augment import ClipAugmentation
from mgm.video.container import NoVectors
from mgm.video.crops import CropStore, StoredVideo, open_crops
from mgm.video.cut import Cut, IndexedVideo, read_cuts, read_whole
from mgm.video.decode import Clip
from mgm.video.motion import CELL, slot_displacement, slot_magnitude
from mgm.video.optical_flow import NoFlow
from mgm.video.sample import training_indices, view_indices
from mgm.video.shard_reader import NotInShard
from mgm.video.transform import Box, apply, test_box, training_box

NO_AUGMENT = Augment()


class Batch(NamedTuple):
    """Clips and what belongs to each.

    Attributes: frames_BTHWC: uint8 RGB. motion_BSHW: float32 magnitude per slot on size // 8 cells
        a side (`motion.slot_magnitude`); None where motion was not asked for. displacement_BSHW2:
        float32 (dx, dy) since the slot before, in sides of the frame; None unless asked for.
        seed_B: int64, the clip's `clip_seed`; `mgm.masking` draws its mask from it. label_B: int64.
        sample_B: int64, the video's position; the key under which test views are averaged.
        weight_B: float32, 1, or 0 for a training video that could not be read: its frames are zeros
        and its loss must not count. failed: paths of those videos. target_BC: float32 share of each
        class, once a job has mixed the batch's clips (`mgm.training.mix`); None before.
    """

    frames_BTHWC: torch.Tensor
    motion_BSHW: torch.Tensor | None
    seed_B: torch.Tensor
    label_B: torch.Tensor
    sample_B: torch.Tensor
    weight_B: torch.Tensor
    failed: tuple[str, ...]
    target_BC: torch.Tensor | None = None
    displacement_BSHW2: torch.Tensor | None = None

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """The batch with `change` applied to each of its tensors."""
        changed = {
            name: change(value)
            for name, value in self._asdict().items()
            if isinstance(value, torch.Tensor)
        }
        return self._replace(**changed)  # type: ignore[arg-type]


class Cache:
    """Whole decoded videos, kept in memory up to `megabytes`; clips cut from them are those that
    would be read from the files.

    Jobs that run one after another in a process may share one. Nothing is ever dropped: epochs
    visit every video equally often, so what came first is as good as anything.
    """

    def __init__(self, megabytes: float):
        self.megabytes, self.free = megabytes, megabytes * 1e6
        self.whole: dict[
            str, dict[Guidance | None, Clip]
        ] = {}  # by path and motion; all of a path share their frames
        self.crops: dict[tuple[str, int], CropStore] = {}  # by path and clip size

    def share_crops(self, folder: Path, videos: Sequence[StoredVideo], size: int) -> None:
        """Take centre crops of these videos from a store that all processes share."""
        known = not videos or (videos[0].path, size) in self.crops
        if not known and (store := open_crops(folder, videos, size)):
            self.crops |= {(video.path, size): store for video in videos}

    def read(self, video: IndexedVideo, index_T: np.ndarray, motion: Guidance | None) -> Clip:
        """The frames `index_T` of a video, from memory where it can be."""
        whole = self._whole(video, motion)
        return read_whole(video, index_T, motion) if whole is None else whole[index_T]

    def cut(
        self, video: IndexedVideo, cuts: Sequence[Cut], size: int, motion: Guidance | None
    ) -> list[Clip]:
        """The clips that `read_cuts` gives, from memory where they can be."""
        store = self.crops.get((video.path, size)) if motion in (None, "vectors") else None
        if store and all(cut.place(*store.shape) == (store.box, False) for cut in cuts):
            return [store.clip(video.path, cut.index_T) for cut in cuts]
        whole = self._whole(video, motion)
        if whole is None:
            return read_cuts(video, cuts, size, motion)
        boxes = [cut.place(whole.height, whole.width) for cut in cuts]
        return [apply(whole[cut.index_T], box, size, flip) for cut, (box, flip) in zip(cuts, boxes)]

    def _whole(self, video: IndexedVideo, motion: Guidance | None) -> Clip | None:
        """All of a video, if it is kept or there is room to."""
        if self._find(video, motion) is None and self.free > 0:
            self._keep(video, motion)
        return self._find(video, motion)

    def _find(self, video: IndexedVideo, motion: Guidance | None) -> Clip | None:
        kept = self.whole.get(video.path, {})
        return next(iter(kept.values()), None) if motion is None else kept.get(motion)

    def _keep(self, video: IndexedVideo, motion: Guidance | None) -> None:
        try:
            clip = read_whole(video, np.arange(video.frames), motion)
        except UserError:  # the frames that are wanted may be there all the same
            return
        size, known = clip.nbytes, self._find(video, None)
        if known is not None:
            clip, size = (
                replace(clip, frames_THWC=known.frames_THWC),
                size - known.frames_THWC.nbytes,
            )
        if size <= self.free:
            self.whole.setdefault(video.path, {})[motion] = clip
            self.free -= size
        else:
            self.free = 0  # full


@dataclass(frozen=True)
class Loading:
    """What batches hold besides frames, and how they are read.

    Args:
        motion: "vectors" reads the codec's motion vectors; a method of `mgm.video.optical_flow` reads the
            videos' sidecars, whatever the codec; "shuffled" gives each clip the codec's motion of
            another video; None reads none.
        distance: divisor of a motion vector (`Mask.distance`).
        directions: add displacement_BSHW2. It takes twice as long as motion_BSHW, and few masks
            read it.
        augment: repeats, RandAugment and random erasing, for training. The latter two need
            motion None, since motion would not follow them.
        workers: processes that decode; 0 decodes in this one. The batches are the same.
        cache: keeps decoded videos in memory; each worker has one with its share of the megabytes.
            The batches are the same.
        share: (i, n): this process reads the i-th of n parts.
    """

    motion: Guidance | None = "vectors"
    distance: Distance = "estimated"
    directions: bool = False
    augment: Augment = NO_AUGMENT
    workers: int = 0
    cache: Cache | None = None
    share: tuple[int, int] = (0, 1)

    @property
    def own_cache(self) -> Cache:
        """The cache of one worker."""
        if self.cache is None:
            return Cache(0)
        return Cache(self.cache.megabytes / self.workers) if self.workers else self.cache


WITH_MOTION, WITHOUT_MOTION = Loading(), Loading(motion=None)


def training_loader(
    videos: Sequence[IndexedVideo],
    clips: Clips,
    tubelet: int,
    seed: int,
    batch: int,
    first_step: int = 0,
    how: Loading = WITH_MOTION,
) -> Iterator[Batch]:
    """Yield training batches without end, from step `first_step` on.

    Step k takes positions k * batch to (k + 1) * batch of the epochs' permutations, laid end to
    end; of several processes, each reads an equal part of them, in order. A video that cannot be
    read keeps its place with weight 0 and is named in `Batch.failed`; the stage that trains counts
    them and stops the run above 1 %.

    Under repeated augmentation a video gives `augment.repeats` clips side by side, all of the same
    frames, as VideoMAE does: each has a crop, flip and augmentation of its own. The first is the
    clip that the video gives without repeats.

    Args:
        videos: the training split, which `sample` counts.
        clips: frames, size, sampling, crop and flip.
        tubelet: frames in a slot, for the motion's magnitude.
        seed: of the run.
        batch: videos per step.
        first_step: where to begin.
        how: motion, augmentation, and how batches are read.

    Raises:
        NoVectors: a video's codec has no motion vectors, though `how.motion` is "vectors".
        NoFlow: a video has no sidecar of the method, or one that does not fit it.
    """
    if not videos:
        raise UserError("no videos to train on: the training split is empty; check the index")
    if how.motion == "shuffled" and len(videos) < 2:
        raise UserError(
            "mask.guidance shuffled takes each clip's motion from another video, but there is one "
            "training video; add videos, or set mask.guidance to vectors"
        )
    if how.motion and (how.augment.rand or how.augment.erasing):
        raise ValueError("RandAugment and random erasing change frames alone; train without motion")
    dataset = _TrainingBatches(videos, clips, tubelet, seed, batch, how)
    return map(_raised, _load(dataset, itertools.count(first_step), how.workers))


def test_loader(
    videos: Sequence[IndexedVideo],
    clips: Clips,
    tubelet: int,
    views: Views,
    batch: int,
    how: Loading = WITHOUT_MOTION,
) -> Iterator[Batch]:
    """Yield all test views of all videos, in order, with a video's views side by side in a batch.

    A video has `views.temporal` x `views.spatial` clips and is decoded once. A batch holds as many
    whole videos as `batch` clips allow, but at least one. Under `how.share` (i, n), every n-th batch
    is yielded from the i-th on: the batches are those of one process, so scores do not depend on
    the number of processes.

    Raises:
        UserError: a video cannot be read; it is named.
    """
    dataset = _TestBatches(videos, clips, tubelet, views, batch, how)
    number, count = how.share
    return map(_raised, _load(dataset, range(number, len(dataset), count), how.workers))


def test_clips(
    video: IndexedVideo, clips: Clips, tubelet: int, views: Views, whole: Clip | None = None
) -> list[Clip]:
    """Cut a video's test views, from its decoded frames where they are at hand (`whole`)."""
    cache = Cache(0)
    if whole is not None:
        cache.whole[video.path] = {None: whole}
    how = Loading(motion=None, cache=cache)
    return _TestBatches([video], clips, tubelet, views, 1, how).clips_of(video)


def view_batches(
    videos: Sequence[IndexedVideo], clips: Clips, tubelet: int, views: Views, workers: int = 0
) -> Iterator[Batch | UserError]:
    """Yield one batch per video with its test views, or the error if it cannot be read."""
    dataset = _TestBatches(videos, clips, tubelet, views, 1, WITHOUT_MOTION)
    return _load(dataset, range(len(dataset)), workers)


def _raised(item: Batch | UserError) -> Batch:
    if isinstance(item, UserError):
        raise item
    return item


def _load(dataset: Dataset, steps, workers: int) -> Iterator[Batch | UserError]:
    require_few("workers", workers)
    yield from DataLoader(
        dataset,
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        # or starting it would draw from the global one, and a resumed run's dropout would differ
        generator=torch.Generator(),
    )


def _as_it_is(item):
    return item


class _TrainingBatches(Dataset):
    """Item k is the batch of step k, or a share of it."""

    def __init__(
        self,
        videos: Sequence[IndexedVideo],
        clips: Clips,
        tubelet: int,
        seed: int,
        batch: int,
        how: Loading,
    ):
        self.videos, self.clips, self.tubelet, self.seed = videos, clips, tubelet, seed
        self.batch, self.how, self.cache = batch, how, how.own_cache
        self.shuffled, self.repeats = how.motion == "shuffled", how.augment.repeats
        self.motion: Guidance | None = "vectors" if self.shuffled else how.motion
        number, count = how.share
        self.own = range(number * batch // count, (number + 1) * batch // count)
        augments = how.augment.rand or how.augment.erasing
        self.augmentation = ClipAugmentation(how.augment) if augments else None
        self._order = (
            -1,
            np.empty(0, np.int64),
        )  # the last epoch's, because the next step most likely needs it again

    def order(self, epoch: int) -> np.ndarray:
        """The epoch's permutation of the videos."""
        if self._order[0] != epoch:
            rng = generator(clip_seed(self.seed, epoch, -1), "order")
            self._order = (epoch, rng.permutation(len(self.videos)))
        return self._order[1]

    def __getitem__(self, step: int) -> Batch | UserError:
        places = [divmod(step * self.batch + place, len(self.videos)) for place in self.own]
        samples, seeds, made = list[int](), list[int](), list[Clip | None]()
        for epoch, place in places:
            sample = int(self.order(epoch)[place])
            seeds_R = self.seeds_of(epoch, sample)
            samples += [sample] * self.repeats
            seeds += seeds_R
            try:
                own = self.clips_of(self.videos[sample], seeds_R)
                if self.shuffled:
                    own = [self.misguided(clip, sample, seed) for clip, seed in zip(own, seeds_R)]
                made += own
            except (NoVectors, NoFlow, NotInShard) as error:
                return error
            except UserError:
                made += [None] * self.repeats
        return _collate(self, made, samples, seeds)

    def seeds_of(self, epoch: int, sample: int) -> list[int]:
        """One seed per repeat: the clip's own first, the others made from it."""
        own = clip_seed(self.seed, epoch, sample)
        return [own, *(clip_seed(own, repeat, sample) for repeat in range(1, self.repeats))]

    def clips_of(self, video: IndexedVideo, seeds_R: list[int]) -> list[Clip]:
        """One clip per seed, all of the same frames."""
        index_T = training_indices(self.clips, video.frames, generator(seeds_R[0], "sample"))
        if self.augmentation is None:
            return self.cache.cut(
                video,
                [Cut(index_T, partial(self.place, seed)) for seed in seeds_R],
                self.clips.size,
                self.motion,
            )
        whole = self.cache.read(video, index_T, self.motion)
        return [self.augmented(whole, seed, self.augmentation) for seed in seeds_R]

    def misguided(self, clip: Clip, sample: int, seed: int) -> Clip:
        """Return the clip with the motion of another video, drawn from the clip's seed.

        The other video gives a training clip of its own, with its own start, crop and flip. So the
        clip stays a function of (run seed, epoch, sample): batch mates do not matter. If the other
        video cannot be read, neither can the clip.
        """
        other = int(generator(seed, "guide").integers(len(self.videos) - 1))
        other += other >= sample  # every video but the clip's own, equally often
        guide = self.clips_of(self.videos[other], [clip_seed(seed, 0, other)])[0]
        names = ("motion_THW2", "distance_THW", "has_motion_T")
        return replace(clip, **{name: getattr(guide, name) for name in names})

    def place(self, seed: int, height: int, width: int) -> tuple[Box, bool]:
        """The box that a clip is cut from, and whether it is mirrored."""
        rng = generator(seed, "crop")
        box = training_box(self.clips, height, width, rng)
        return box, bool(self.clips.flip and rng.random() < 0.5)

    def augmented(self, clip: Clip, seed: int, augmentation: ClipAugmentation) -> Clip:
        """The clip of these frames: augmented whole, cropped, flipped, erased."""
        rng = generator(seed, "augment")
        clip = replace(clip, frames_THWC=augmentation.rand(clip.frames_THWC, rng))
        box, flip = self.place(seed, clip.height, clip.width)
        clip = apply(clip, box, self.clips.size, flip)
        return replace(clip, frames_THWC=augmentation.erase(clip.frames_THWC, rng))


class _TestBatches(Dataset):
    """Item k is the k-th group of whole videos."""

    def __init__(
        self,
        videos: Sequence[IndexedVideo],
        clips: Clips,
        tubelet: int,
        views: Views,
        batch: int,
        how: Loading,
    ):
        self.videos, self.clips, self.tubelet, self.views = videos, clips, tubelet, views
        self.how, self.cache = how, how.own_cache
        self.group = max(batch // (views.temporal * views.spatial), 1)

    def __len__(self) -> int:
        return -(-len(self.videos) // self.group)

    def __getitem__(self, item: int) -> Batch | UserError:
        group = range(item * self.group, min((item + 1) * self.group, len(self.videos)))
        made, samples = [], []
        for sample in group:
            try:
                views = self.clips_of(self.videos[sample])
            except UserError as error:
                return error
            made += views
            samples += [sample] * len(views)
        seeds = [clip_seed(0, 0, sample) for sample in samples]
        return _collate(self, made, samples, seeds)

    def clips_of(self, video: IndexedVideo) -> list[Clip]:
        temporal, spatial = self.views.temporal, self.views.spatial
        index_VT = np.stack(
            [view_indices(self.clips, video.frames, view, temporal) for view in range(temporal)]
        )
        cuts = [
            Cut(index_T, partial(self.place, view))
            for index_T in index_VT
            for view in range(spatial)
        ]
        return self.cache.cut(video, cuts, self.clips.size, self.how.motion)

    def place(self, view: int, height: int, width: int) -> tuple[Box, bool]:
        """The box that a spatial view is cut from; it is never mirrored."""
        return test_box(height, width, view, self.views.spatial, self.clips.size), False


def _collate(
    batches: _TrainingBatches | _TestBatches,
    made: Sequence[Clip | None],
    samples: Sequence[int],
    seeds: Sequence[int],
) -> Batch:
    """Put clips into one batch, with zeros for the videos that could not be read."""
    videos, clips, tubelet, how = batches.videos, batches.clips, batches.tubelet, batches.how
    size, cells = clips.size, max(clips.size // CELL, 1)
    frames_BTHWC = np.zeros((len(made), clips.frames, size, size, 3), np.uint8)
    motion_BSHW = (
        np.zeros((len(made), clips.frames // tubelet, cells, cells), np.float32)
        if how.motion
        else None
    )
    displacement_BSHW2 = (
        np.zeros((*motion_BSHW.shape, 2), np.float32)
        if motion_BSHW is not None and how.directions
        else None
    )
    for b, clip in enumerate(made):
        if clip is not None:
            frames_BTHWC[b] = clip.frames_THWC
            if motion_BSHW is not None:
                moved = (clip.motion_THW2, clip.divisor(how.distance), clip.has_motion_T, tubelet)
                motion_BSHW[b] = slot_magnitude(*moved)
                if displacement_BSHW2 is not None:
                    displacement_BSHW2[b] = slot_displacement(*moved, clips.stride) / size
    return Batch(
        torch.from_numpy(frames_BTHWC),
        None if motion_BSHW is None else torch.from_numpy(motion_BSHW),
        torch.tensor(seeds),
        torch.tensor([videos[sample].label for sample in samples]),
        torch.tensor(samples),
        torch.tensor([float(clip is not None) for clip in made]),
        tuple(
            dict.fromkeys(
                videos[sample].path for sample, clip in zip(samples, made) if clip is None
            )
        ),
        displacement_BSHW2=None
        if displacement_BSHW2 is None
        else torch.from_numpy(displacement_BSHW2),
    )
