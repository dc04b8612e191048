"""Training clips and test views as functions: of a video, and of numbers that say which clip.

A training clip depends only on (run seed, epoch, sample), and on the number of its repeat under
repeated augmentation. `sample` is a video's position in the given sequence. Other clips of the
batch, workers, and the step at which a run was resumed do not matter.

A video that cannot be read, pixels or motion, has clips of weight 0, and changes no other clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from torch.nn import functional as F

from mgm.data.index import Video
from mgm.errors import UserError
from mgm.masking import Grid, mask_clips
from mgm.rng import another, clip_seed, generator
from mgm.spec import Augment, Clips, Mask, Views, mask_info
from mgm.video.augment import WHOLE, ClipAugmentation
from mgm.video.crop import Crop
from mgm.video.motion import Motion
from mgm.video.planes import no_planes
from mgm.video.store import read_clips, read_planes
from mgm.video.track import read_track
from mgm.video.transform import random_crop, training_indices, view_crop, view_indices

Arrays = dict[str, np.ndarray]
NO_GRID, NO_AUGMENT = Grid(0, 0, 0), Augment()
PLANES = ("luma_BTHW", "chroma_BT2HW", "place_B5")


@dataclass
class Training:
    """The training clips of a run.

    With repeated augmentation, a video has `augment.repeats` successive clips, all of the same
    frames, as in VideoMAE. Each has its own crop, flip, augmentation and mask. The first is the
    same clip as without repeats.

    Attributes:
        videos: the training split.
        seed: the run's seed.
        mask, grid, tubelet: the masks of the clips. None: no masks.
        augment: repeats, RandAugment and random erasing. With the latter two, clips are whole
            frames and draws, for `mgm.video.augment.augmented`.
        planes: clips are as decoded, for `mgm.video.planes.frames_of`.
        per_video: clips per video.
        blank: the arrays of a clip of weight 0.
    """

    videos: Sequence[Video]
    clips: Clips
    seed: int
    mask: Mask | None = None
    grid: Grid = NO_GRID
    tubelet: int = 2
    augment: Augment = NO_AUGMENT
    planes: bool = False

    def __post_init__(self) -> None:
        mask, augment, videos = self.mask, self.augment, self.videos
        info = mask_info(mask.name if mask else "tube")
        if info.directional and self.clips.sampling == "segments":
            raise UserError("a mask that moves by strides needs clips.sampling stride or window")
        if mask and mask.guidance == "shuffled" and len(videos) < 2:
            raise UserError("mask.guidance shuffled needs two training videos, and there is one")
        self.per_video, self.guided = augment.repeats, info.guided
        self.method = mask.method if mask else "codec"
        # It imports optional packages, which takes seconds that workers need not take.
        self.augmentation = ClipAugmentation(augment) if augment.rand or augment.erasing else None
        self.blank = blank_clip(self.clips)
        if self.planes:
            del self.blank["frames_BTHWC"]
            short_side = max(min(video.height, video.width) for video in videos)
            self.blank |= no_planes(self.clips, short_side)
        if self.augmentation:
            del self.blank["frames_BTHWC"]
            pixels = max(video.height * video.width for video in videos)
            self.blank |= self.augmentation.blank(self.clips, pixels)
        if mask:
            self.blank["masked_BL"] = np.zeros((1, self.grid.slots * self.grid.patches), bool)
        if self.guided:
            self.blank["guide_hidden_B"] = np.zeros(1, np.float32)

    def write(self, numbers: range, out: Arrays) -> dict[int, UserError]:
        """Write clips to `out`.

        Args:
            numbers: of the videos, in the sequence of all epochs.
            out: as many rows of `blank` as there are clips.

        Returns:
            {sample: why} of the videos that cannot be read.
        """
        motions, lost = list[Motion](), dict[int, UserError]()
        for row, number in enumerate(numbers):
            epoch, place = divmod(number, len(self.videos))
            sample = int(_order(self.seed, epoch, len(self.videos))[place])
            rows = slice(row * self.per_video, (row + 1) * self.per_video)
            own = {name: x[rows] for name, x in out.items()}
            motions += self._write_video(epoch, sample, own, lost)
        if self.mask:
            out["masked_BL"][:], magnitude_BSHW = mask_clips(
                self.mask, self.grid, motions, out["seed_B"], self.tubelet, self.clips.stride
            )
            if magnitude_BSHW is not None:
                out["guide_hidden_B"][:] = guide_hidden(out["masked_BL"], magnitude_BSHW, self.grid)
        return lost

    def _write_video(
        self, epoch: int, sample: int, own: Arrays, lost: dict[int, UserError]
    ) -> list[Motion]:
        """Write a video's clips, all but the masks. Return the motions that guide these."""
        video, first, size = (
            self.videos[sample],
            clip_seed(self.seed, epoch, sample),
            self.clips.size,
        )
        seeds = [first, *(clip_seed(first, n, sample) for n in range(1, self.per_video))]
        index_T = training_indices(self.clips, video.frames, generator(first, "sample"))
        crops = [random_crop(self.clips, video.height, video.width, seed) for seed in seeds]
        own["seed_B"][:], own["sample_B"][:], own["label_B"][:] = seeds, sample, video.label
        own["weight_B"][:] = 1
        try:
            with video.named():
                self._write_pixels(video, index_T, seeds, crops, own)
        except UserError as error:
            lost[sample] = error
            own["weight_B"][:] = 0
            for name in own.keys() & {"frames_BTHWC", *PLANES, *WHOLE}:
                own[name][:] = self.blank[name]
        motions = list[Motion]()
        if not self.mask or not self.guided:
            return motions
        for place, (seed, crop) in enumerate(zip(seeds, crops)):
            guide, of_guide = sample, (index_T, crop)
            if self.mask.guidance == "shuffled":
                guide = another(seed, sample, len(self.videos))
                of_guide = self._drawn(guide, clip_seed(seed, 0, guide))
            other = self.videos[guide]
            try:
                with other.named():
                    track = read_track(other.track(self.method))
                    motions.append(track.motion(*of_guide, size, (other.height, other.width)))
            except UserError as error:
                lost[guide] = error
                own["weight_B"][place] = 0
                none = Motion.none(len(index_T), video.height, video.width)
                motions.append(none.under(crop, size))
        return motions

    def _write_pixels(
        self,
        video: Video,
        index_T: np.ndarray,
        seeds: Sequence[int],
        crops: Sequence[Crop],
        own: Arrays,
    ) -> None:
        """Write the pixels of a video's clips: of the same frames, each with its own crop."""
        where = video.path, read_track(video.track()), [index_T] * len(crops)
        size, height, width = self.clips.size, video.height, video.width
        if self.planes:
            read_planes(*where, crops, {name: own[name] for name in PLANES})
        elif not self.augmentation:
            read_clips(*where, crops, size, own["frames_BTHWC"])
        else:
            whole_VTPC = own["whole_BTPC"][:, :, : height * width]
            read_clips(*where, None, 0, whole_VTPC.reshape(*whole_VTPC.shape[:2], height, width, 3))
            for row, (seed, crop) in enumerate(zip(seeds, crops)):
                into, rng = {name: x[row] for name, x in own.items()}, generator(seed, "augment")
                self.augmentation.draw(rng, (height, width), crop, size, into)

    def _drawn(self, sample: int, seed: int) -> tuple[np.ndarray, Crop]:
        """Return the frames and the crop of a clip of this seed."""
        video = self.videos[sample]
        index_T = training_indices(self.clips, video.frames, generator(seed, "sample"))
        return index_T, random_crop(self.clips, video.height, video.width, seed)


@dataclass
class Testing:
    """The test views of videos, in order: of each temporal view, each spatial view.

    Attributes:
        strict: raise the error of a video that cannot be read. Otherwise its views have weight 0.
        per_video, blank: see `Training`.
    """

    videos: Sequence[Video]
    clips: Clips
    views: Views
    strict: bool = True

    def __post_init__(self) -> None:
        self.per_video = self.views.temporal * self.views.spatial
        self.blank = blank_clip(self.clips)

    def write(self, numbers: range, out: Arrays) -> dict[int, UserError]:
        """Write the views of videos to `out` (`Training.write`). Numbers may go beyond the last."""
        lost = dict[int, UserError]()
        out["weight_B"][:] = 0
        for row, sample in enumerate(numbers[: max(len(self.videos) - numbers.start, 0)]):
            video, rows = (
                self.videos[sample],
                slice(row * self.per_video, (row + 1) * self.per_video),
            )
            out["sample_B"][rows], out["label_B"][rows] = sample, video.label
            index_VT, crops = zip(*views_of(video, self.clips, self.views))
            try:
                # Each of its frames is decoded once.
                with video.named():
                    where = video.path, read_track(video.track()), index_VT
                    read_clips(*where, crops, self.clips.size, out["frames_BTHWC"][rows])
            except UserError as error:
                if self.strict:
                    raise
                lost[sample] = error
            else:
                out["weight_B"][rows] = 1
        return lost


def views_of(video: Video, clips: Clips, views: Views) -> list[tuple[np.ndarray, Crop]]:
    """Return frames and crop of a video's test views: each spatial view of each temporal view."""
    height, width, spatial, temporal = video.height, video.width, views.spatial, views.temporal
    crops = [view_crop(height, width, view, spatial) for view in range(spatial)]
    frames = [view_indices(clips, video.frames, view, temporal) for view in range(temporal)]
    return list(product(frames, crops))


def blank_clip(clips: Clips) -> Arrays:
    """Return the arrays of one clip without masks, of zeros."""
    arrays: Arrays = {name: np.zeros(1, np.int64) for name in ("label_B", "sample_B", "seed_B")}
    arrays["weight_B"] = np.zeros(1, np.float32)
    arrays["frames_BTHWC"] = np.zeros((1, clips.frames, clips.size, clips.size, 3), np.uint8)
    return arrays


@lru_cache(2)
def _order(seed: int, epoch: int, videos: int) -> np.ndarray:
    """Return an epoch's videos: each once."""
    return generator(clip_seed(seed, epoch, -1), "order").permutation(videos)


def guide_hidden(masked_BL: np.ndarray, magnitude_BSHW: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the share of the guiding motion that each clip's mask hides: (B,).

    For a clip without motion, it is the share of hidden tokens.
    """
    pooled = F.adaptive_avg_pool2d(torch.from_numpy(magnitude_BSHW), (grid.height, grid.width))
    motion_BL = pooled.flatten(1).numpy()
    motion_BL = np.where(motion_BL.sum(1, keepdims=True) > 0, motion_BL, 1)
    return (motion_BL * masked_BL).sum(1) / motion_BL.sum(1)
