"""Training clips and test views as functions: of a video, and of numbers that say which clip.

A training clip depends only on (run seed, epoch, sample), and on the number of its repeat under
repeated augmentation. `sample` is a video's position in the given sequence. Other clips of the
batch, workers, and the step at which a run was resumed do not matter.

A video that cannot be read, pixels or motion, has clips of weight 0, and changes no other clip.
"""

from collections.abc import Iterable, Sequence
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
from mgm.video.track import Track
from mgm.video.transform import random_crop, training_indices, view_crop, view_indices

Arrays = dict[str, np.ndarray]
NO_GRID, NO_AUGMENT = Grid(0, 0, 0), Augment()
PLANES = ("luma_BTHW", "chroma_BT2HW", "place_B5")


@dataclass
class Training:
    """What the training clips of a run depend on, besides epoch and sample.

    Attributes:
        videos: the training split.
        seed: the run's seed.
        mask, grid, tubelet: the masks of the clips. None: no masks.
        augment: repeats, RandAugment and random erasing. With the latter two, clips are whole
            frames and draws, for `mgm.video.augment.augmented`.
        planes: clips are as decoded, for `mgm.video.planes.frames_of`.
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
        self.guided, self.method = info.guided, mask.method if mask else "codec"
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


def training_clips(of: Training, numbers: Iterable[int], out: Arrays) -> dict[int, UserError]:
    """Write training clips to `out`.

    With repeated augmentation, a video has `augment.repeats` successive clips, all of the same
    frames, as in VideoMAE. Each has its own crop, flip, augmentation and mask. The first is the
    same clip as without repeats.

    Args:
        numbers: of the videos, in the sequence of all epochs.
        out: as many rows of `of.blank` as there are clips.

    Returns:
        {sample: why} of the videos that cannot be read.
    """
    repeats, motions, lost = of.augment.repeats, list[Motion](), dict[int, UserError]()
    for row, number in enumerate(numbers):
        epoch, position = divmod(number, len(of.videos))
        sample = int(_order(of.seed, epoch, len(of.videos))[position])
        own = {name: x[row * repeats : (row + 1) * repeats] for name, x in out.items()}
        video, first = of.videos[sample], clip_seed(of.seed, epoch, sample)
        seeds = [first, *(clip_seed(first, repeat, sample) for repeat in range(1, repeats))]
        index_T = training_indices(of.clips, video.frames, generator(first, "sample"))
        crops = [random_crop(of.clips, video.height, video.width, seed) for seed in seeds]
        own["seed_B"][:], own["sample_B"][:], own["label_B"][:] = seeds, sample, video.label
        own["weight_B"][:] = 1
        try:
            track = video.read_track()
            with video.named():
                _write_pixels(of, video.path, track, index_T, seeds, crops, own)
        except UserError as error:
            lost[sample] = error
            own["weight_B"][:] = 0
            for name in own.keys() & {"frames_BTHWC", *PLANES, *WHOLE}:
                own[name][:] = of.blank[name]
        for repeat, (seed, crop) in enumerate(zip(seeds, crops) if of.guided else ()):
            guide = sample, index_T, crop
            if of.mask and of.mask.guidance == "shuffled":
                guide = _clip_of_another(of, sample, seed)
            try:
                motions.append(_motion(of, *guide))
            except UserError as error:
                lost[guide[0]] = error
                own["weight_B"][repeat] = 0
                none = Motion.none(len(index_T), video.height, video.width)
                motions.append(none.under(crop, of.clips.size))
    if of.mask:
        out["masked_BL"][:], magnitude_BSHW = mask_clips(
            of.mask, of.grid, motions, out["seed_B"], of.tubelet, of.clips.stride
        )
        if magnitude_BSHW is not None:
            out["guide_hidden_B"][:] = guide_hidden(out["masked_BL"], magnitude_BSHW, of.grid)
    return lost


def _write_pixels(
    of: Training,
    path: str,
    track: Track,
    index_T: np.ndarray,
    seeds: Sequence[int],
    crops: Sequence[Crop],
    own: Arrays,
) -> None:
    """Write the pixels of a video's clips: of the same frames, each with its own crop."""
    size, index_VT = of.clips.size, [index_T] * len(crops)
    if of.planes:
        read_planes(path, track, index_VT, crops, {name: own[name] for name in PLANES})
    elif not of.augmentation:
        read_clips(path, track, index_VT, crops, size, own["frames_BTHWC"])
    else:
        height, width = track.facts.height, track.facts.width
        whole_VTPC = own["whole_BTPC"][:, :, : height * width]
        whole_VTHWC = whole_VTPC.reshape(*whole_VTPC.shape[:2], height, width, 3)
        read_clips(path, track, index_VT, None, 0, whole_VTHWC)
        for row, (seed, crop) in enumerate(zip(seeds, crops)):
            into, rng = {name: x[row] for name, x in own.items()}, generator(seed, "augment")
            of.augmentation.draw(rng, (height, width), crop, size, into)


def _clip_of_another(of: Training, sample: int, seed: int) -> tuple[int, np.ndarray, Crop]:
    """Return the sample, the frames and the crop of a training clip of another video.

    They are drawn from the seed of the clip whose mask it guides.
    """
    other = another(seed, sample, len(of.videos))
    video, seed = of.videos[other], clip_seed(seed, 0, other)
    index_T = training_indices(of.clips, video.frames, generator(seed, "sample"))
    return other, index_T, random_crop(of.clips, video.height, video.width, seed)


def _motion(of: Training, sample: int, index_T: np.ndarray, crop: Crop) -> Motion:
    """Return the motion of a video's frames under a crop."""
    video = of.videos[sample]
    shown = video.height, video.width
    track = video.read_track(of.method)
    with video.named():
        return track.motion(index_T, crop, of.clips.size, shown)


def view_clips(video: Video, clips: Clips, views: Views, out_VTHWC: np.ndarray) -> None:
    """Write the pixels of a video's test views. Each of its frames is decoded once."""
    index_VT, crops = zip(*views_of(video, clips, views))
    track = video.read_track()
    with video.named():
        read_clips(video.path, track, index_VT, crops, clips.size, out_VTHWC)


def views_of(video: Video, clips: Clips, views: Views) -> list[tuple[np.ndarray, Crop]]:
    """Return frames and crop of a video's test views: each spatial view of each temporal view."""
    height, width, spatial, temporal = video.height, video.width, views.spatial, views.temporal
    crops = [view_crop(height, width, view, spatial) for view in range(spatial)]
    frames = [view_indices(clips, video.frames, view, temporal) for view in range(temporal)]
    return list(product(frames, crops))


def guide_hidden(masked_BL: np.ndarray, magnitude_BSHW: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the share of the guiding motion that each clip's mask hides: (B,).

    For a clip without motion, it is the share of hidden tokens.
    """
    pooled = F.adaptive_avg_pool2d(torch.from_numpy(magnitude_BSHW), (grid.height, grid.width))
    motion_BL = pooled.flatten(1).numpy()
    motion_BL = np.where(motion_BL.sum(1, keepdims=True) > 0, motion_BL, 1)
    return (motion_BL * masked_BL).sum(1) / motion_BL.sum(1)
