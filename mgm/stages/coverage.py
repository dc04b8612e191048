"""Coverage: the share of moving pixels that each mask hides.

The papers do not measure it, but it is the purpose of motion guidance. `mgm show` prints it. This
module does not need torch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mgm.data.index import Video, spread
from mgm.errors import UserError
from mgm.masking import Grid, mask_clips, require_hiding
from mgm.rng import another, clip_seed
from mgm.spec import MASKS, Clips, Mask, Measure
from mgm.spec.masks import Method
from mgm.video.clip import Clip
from mgm.video.motion import Motion
from mgm.video.store import read_clips
from mgm.video.transform import view_crop, view_indices

if TYPE_CHECKING:
    from mgm.stages.run import RunContext

MOVES = 0.5  # pixels per slot. Less is noise, since codecs search in quarters of a pixel


def coverage(spec: Measure, run: "RunContext") -> dict[str, float]:
    """Return `coverage_MASK` of every mask at its usual ratio, in per cent, and `videos`.

    `videos` is the number of measured test videos in which something moves.
    """
    masks = usual_masks(spec.mask.jitter)
    share_VN = _of_test_videos(spec, run, masks)
    numbers = {f"coverage_{mask.name}": x for mask, x in zip(masks, share_VN.mean(0).tolist())}
    return numbers | {"videos": float(len(share_VN))}


def hidden(spec: Measure, run: "RunContext") -> dict[str, float]:
    """Return `hidden`, the share of moving pixels that the run's mask hides, in per cent.

    It checks what a comparison of masks changed. With shuffled guidance, another test video's
    motion guides the mask, and the video's own motion is what it hides. `videos` is as in
    `coverage`.
    """
    share_VN = _of_test_videos(spec, run, [spec.mask])
    return {"hidden": float(share_VN.mean()), "videos": float(len(share_VN))}


def _of_test_videos(spec: Measure, run: "RunContext", masks: Sequence[Mask]) -> np.ndarray:
    videos, grid = spread(run.index.test, spec.videos or len(run.index.test)), Grid(*spec.grid)
    return hidden_motion(videos, spec.clips, grid, spec.model.tubelet, masks, spec.seed)


def usual_masks(jitter: bool) -> list[Mask]:
    """Return every mask at its usual ratio."""
    return [
        Mask(name=name, ratio=info.ratio, jitter=jitter or name != "mgm")
        for name, info in MASKS.items()
    ]


def hidden_motion(
    videos: Sequence[Video],
    clips: Clips,
    grid: Grid,
    tubelet: int,
    masks: Sequence[Mask],
    seed: int = 0,
) -> np.ndarray:
    """Return the share of moving pixels that masks hide of videos, in per cent: (videos, masks).

    Clips are the centre crops of each video's middle clip. Videos in which nothing moves are left
    out.
    """
    shares = []
    for sample, video in enumerate(videos):
        clip, _ = middle_clip(video, clips)
        own_seed = clip_seed(seed, 0, sample)
        guides = [guide_of(videos, sample, clip, mask, clips, own_seed) for mask in masks]
        masked_NSHW = masks_of(guides, masks, grid, tubelet, clips.stride, own_seed)
        shares.append(hidden_shares(clip, masked_NSHW, tubelet))
    share_VN = np.array(shares).reshape(len(videos), len(masks))
    share_VN = share_VN[np.isfinite(share_VN).all(axis=1)]
    if not len(share_VN):
        raise UserError(f"in {len(videos)} videos nothing moves {MOVES} pixels; choose others")
    return share_VN


def hidden_shares(clip: Clip, masked_NSHW: np.ndarray, tubelet: int) -> np.ndarray:
    """Return the share of a clip's moving pixels that each mask hides, in per cent.

    A pixel moves if its motion in a slot, as masks see it, is at least MOVES pixels larger than the
    slot's median. The median is the camera's motion if objects cover less than half of the frame.
    Slots without moving pixels do not count.

    Returns:
        (N,): means over slots, NaN if nothing moves.
    """
    magnitude_SHW = clip.known.magnitude(tubelet)
    moving_SHW = magnitude_SHW - np.median(magnitude_SHW, axis=(1, 2), keepdims=True) >= MOVES
    kept_S = moving_SHW.any(axis=(1, 2))
    if not kept_S.any():
        return np.full(len(masked_NSHW), np.nan)
    sides = clip.frames_THWC.shape[1:3]
    moving_SHW = enlarged(moving_SHW[kept_S], *sides)
    count_S = moving_SHW.sum(axis=(1, 2))
    large_NSHW = (enlarged(masked_SHW[kept_S], *sides) for masked_SHW in masked_NSHW)
    hidden_NS = [(large_SHW & moving_SHW).sum((1, 2)) for large_SHW in large_NSHW]
    return 100 * (np.array(hidden_NS) / count_S).mean(axis=1)


def enlarged(x_SHW: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return values per patch or cell as values per pixel of a frame, (S, height, width).

    A pixel is in the patch, or in the cell, of its top left corner.
    """
    rows, columns = x_SHW.shape[1:]
    row_H, column_W = np.arange(height) * rows // height, np.arange(width) * columns // width
    return x_SHW[:, row_H][:, :, column_W]


def masks_of(
    guides: Sequence[Motion],
    masks: Sequence[Mask],
    grid: Grid,
    tubelet: int,
    stride: int,
    seed: int,
) -> np.ndarray:
    """Return what masks hide, each guided by a motion: (N, S, H, W) bool, True where hidden."""
    masked_NL = list[np.ndarray]()
    for guide, mask in zip(guides, masks, strict=True):
        require_hiding(mask, grid)
        masked_NL += [mask_clips(mask, grid, [guide], np.array([seed]), tubelet, stride)[0]]
    shape = len(masks), grid.slots, grid.height, grid.width
    return np.array(masked_NL, bool).reshape(shape)


def middle_clip(video: Video, clips: Clips) -> tuple[Clip, np.ndarray]:
    """Return the centre crop of a prepared video's middle clip, and its frames' numbers."""
    index_T = view_indices(clips, video.frames, view=0, views=1)
    crop = view_crop(video.height, video.width)
    (frames_THWC,) = read_clips(video.path, video.read_track(), index_T[None], [crop], clips.size)
    return Clip(frames_THWC, _middle_motion(video, clips)), index_T


def _middle_motion(video: Video, clips: Clips, method: Method = "codec") -> Motion:
    """Return the motion of the centre crop of a video's middle clip."""
    index_T = view_indices(clips, video.frames, view=0, views=1)
    crop, shape = view_crop(video.height, video.width), (video.height, video.width)
    return video.read_track(method).motion(index_T, crop, clips.size, shape)


def guide_of(
    videos: Sequence[Video], sample: int, clip: Clip, mask: Mask, clips: Clips, seed: int
) -> Motion:
    """Return the motion that guides a mask of video number `sample`, of which `clip` is cut.

    It is the video's own, or if shuffled, another video's.
    """
    if mask.guidance == "vectors":
        return clip.known
    if mask.guidance == "shuffled":
        if len(videos) < 2:
            raise UserError("mask.guidance shuffled needs two test videos, and there is one")
        sample = another(seed, sample, len(videos))
    return _middle_motion(videos[sample], clips, mask.method)
