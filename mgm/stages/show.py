"""`mgm show`: the arrays of a moving picture of a video, its vectors and what masks hide of it.

`mgm.report.figures.moving` draws them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mgm.errors import UserError, valid
from mgm.masking import Grid
from mgm.spec import MASKS, Mask
from mgm.stages.guidance import clip_mask
from mgm.stages.measure.visible import shares
from mgm.study.recipes import MASK_RATIO
from mgm.video.clip import Clip, resize
from mgm.video.decode import probe_video, read_clip

TITLES = {"block": "Random block", "tube": "Random tube", "mgm": "MGM"}
FRAMES, TUBELET, PATCHES = 16, 2, 14  # of the paper's ViT; patches along the short side
WIDEST = 1280  # pixels of a frame that is measured and drawn


def show(
    video: Path,
    names: Sequence[str],
    seed: int = 0,
    start: int | None = None,
    stride: int = 0,
    ratio: float | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Return 16 frames of a video with their motion and masks, and lines on what stays visible.

    Masks are drawn over the whole frame, on patches of a fourteenth of its short side.

    Args:
        names: of masks. Without motion vectors, guided masks are left out.
        seed: of the masks.
        start: the first frame. Default: the clip is in the video's middle.
        stride: frames from one to the next. 0: 2, as in the paper on SSv2, or 1 in a short video.
        ratio: share of the patches that are hidden. Default: as in each mask's paper.

    Returns:
        frames_THWC: uint8. motion_SHW2: (dx, dy) in pixels per frame, the mean over a slot's
            frames. has_motion_S. masked_NSHW: True where mask N hides. title_P and note_P: texts
            above and below the panels, of which the first is the motion's, or the frames'.
    """
    with valid("--masks: "):
        masks = [
            Mask(name=name, ratio=ratio or MASK_RATIO.get(name, 0.75), cells="max")
            for name in names
        ]
    info = probe_video(video)
    stride = stride or min(max((info.frames - (start or 0) - 1) // (FRAMES - 1), 1), 2)
    span = (FRAMES - 1) * stride + 1
    start = max(info.frames - span, 0) // 2 if start is None else start
    if start + span > info.frames:
        raise UserError(
            f"{video}: a clip of {FRAMES} frames from frame {start} spans {span}, and the video "
            f"has {info.frames}"
        )
    clip = read_clip(video, start + stride * np.arange(FRAMES), info.has_vectors)
    frames_THWC = _small(clip.frames_THWC)
    lines = []
    if not info.has_vectors:
        masks = [mask for mask in masks if not MASKS[mask.name].guided]
        lines.append(f"codec {info.codec} has no motion vectors, so there are only unguided masks")
    short = min(clip.height, clip.width)
    grid = Grid(
        FRAMES // TUBELET,
        *(round(PATCHES * side / short) for side in (clip.height, clip.width)),
    )
    title = "Motion vectors" if info.has_vectors else "Frames"
    texts, masked_NSHW = [(title, video.name)], []
    for mask in masks:
        masked_SHW = clip_mask(clip, mask, grid, TUBELET, stride, seed)
        texture, moving = (
            "none" if np.isnan(share) else f"{100 * share:.0f} %"
            for share in shares(frames_THWC, masked_SHW)[:2]
        )
        name = f"{TITLES.get(mask.name, mask.name)} hides {100 * mask.ratio:.0f} %"
        texts.append((name, f"Visible: {texture} of texture, {moving} of motion"))
        masked_NSHW.append(masked_SHW)
        lines.append(f"{name:<25}visible: {texture} of textured patches, {moving} of moving energy")
    titles, notes = zip(*texts)
    arrays = {
        "frames_THWC": frames_THWC,
        "motion_SHW2": np.stack([_speed(clip, slot) for slot in range(grid.slots)]),
        "has_motion_S": clip.has_motion_T.reshape(grid.slots, -1).any(1),
        "masked_NSHW": np.array(masked_NSHW),
        "title_P": titles,
        "note_P": notes,
    }
    return arrays, lines


def _small(frames_THWC: np.ndarray) -> np.ndarray:
    """Return frames of at most `WIDEST` pixels. Sixteen of 8K would take 11 GB to measure."""
    factor = WIDEST / max(frames_THWC.shape[1:3])
    if factor >= 1:
        return frames_THWC
    height, width = (round(factor * side) for side in frames_THWC.shape[1:3])
    return resize(frames_THWC, height, width, antialias=True)


def _speed(clip: Clip, slot: int) -> np.ndarray:
    """Return the mean (dx, dy) of a slot, in pixels per frame, per cell."""
    frames = slice(slot * TUBELET, (slot + 1) * TUBELET)
    has_mv = max(int(clip.has_motion_T[frames].sum()), 1)
    return (clip.motion_THW2[frames] / clip.distance_THW[frames][..., None]).sum(0) / has_mv
