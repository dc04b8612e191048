"""Measure visible: how much of what can be learnt from does a mask leave visible?

An encoder sees the visible patches alone. If a box hides the only person of a black scene, nothing
is left to learn from. The papers do not measure it.

    texture   share of the textured patches that stay visible
    motion    share of the moving energy that stays visible
    without   share of the clips in which no textured patch stays visible

A patch of 8 x 8 pixels of a frame is textured if the standard deviation of its brightness is above
`TEXTURED`. The moving energy of a pixel is the square of its change since the previous frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgm.data.index import Video
from mgm.errors import UserError
from mgm.spec import MASKS, Clips, Mask, Measure, Model
from mgm.stages.guidance import mask_options, masked
from mgm.stages.inspect import spread
from mgm.stages.job import Job
from mgm.video.loader import training_loader
from mgm.video.read import Cache

SIDE, TEXTURED = 8, 8.0  # pixels; grey levels
LEAST, MOST = 2.0, 50.0  # per cent: of texture, and of clips without
# Masks of `mgm inspect`, at the ratios of the papers.
PAPER = (
    Mask(name="block"),
    Mask(name="mgm"),
    Mask(name="tube"),
    Mask(name="tube", ratio=0.9),
)


def shares(frames_THWC: np.ndarray, masked_SHW: np.ndarray) -> tuple[float, float]:
    """Return the shares of a clip's texture and motion that a mask leaves visible.

    Args:
        frames_THWC: uint8 RGB.
        masked_SHW: True where a patch is hidden. Slots divide the frames.

    Returns:
        Two numbers from 0 to 1; NaN if no patch is textured, or nothing moves.
    """
    frames, height, width, _ = frames_THWC.shape
    slots, rows, columns = masked_SHW.shape
    row_H, column_W = np.arange(height) * rows // height, np.arange(width) * columns // width
    visible_THW = ~masked_SHW.repeat(frames // slots, 0)[:, row_H][:, :, column_W]
    grey_THW = frames_THWC @ np.array([0.299, 0.587, 0.114], np.float32)
    energy_THW = np.square(np.diff(grey_THW, axis=0, prepend=grey_THW[:1]))
    textured_TPQ = _patches(grey_THW).std((2, 4)) > TEXTURED
    visible_TPQ = _patches(visible_THW).mean((2, 4))
    with np.errstate(invalid="ignore"):
        return (
            float((textured_TPQ * visible_TPQ).sum() / np.float64(textured_TPQ.sum())),
            float((energy_THW * visible_THW).sum() / np.float64(energy_THW.sum())),
        )


def _patches(x_THW: np.ndarray) -> np.ndarray:
    """Cut into patches of 8 x 8 pixels, (T, P, 8, Q, 8). Remainders at the edge are left out."""
    frames, height, width = x_THW.shape
    down, across = height // SIDE, width // SIDE
    cut_THW = x_THW[:, : SIDE * down, : SIDE * across]
    return cut_THW.reshape(frames, down, SIDE, across, SIDE)


def visible(
    videos: Sequence[Video],
    clips: Clips,
    model: Model,
    masks: Sequence[Mask],
    seed: int = 0,
    workers: int = 0,
    cache: Cache | None = None,
) -> list[dict[str, float]]:
    """Return what each mask leaves visible in the first training clip of each video, in per cent.

    Crops and masks are those of the first epoch of a run with this seed.

    Args:
        masks: those that are guided have the same guidance.

    Returns:
        Per mask, texture and motion: means over clips. without: of the clips with texture, how many
        have none visible. clips: their number.
    """
    leading = next((mask for mask in masks if MASKS[mask.name].guided), masks[0])
    how = replace(
        mask_options(leading, clips, model, workers=workers, cache=cache),
        masks=partial(_all_masks, masks, clips, model),
    )
    batch = min(16, len(videos))
    batches = training_loader(videos, clips, seed, batch, how=how)
    side, parts = clips.size // model.patch, list[np.ndarray]()
    for clips_batch in islice(batches, -(-len(videos) // batch)):
        assert clips_batch.masked_BL is not None
        masked_BNSHW = clips_batch.masked_BL.view(batch, len(masks), -1, side, side).numpy()
        for b in np.flatnonzero(clips_batch.weight_B.numpy()):
            frames_THWC = clips_batch.frames_BTHWC[b].numpy()
            parts.append(np.array([shares(frames_THWC, own) for own in masked_BNSHW[b]]))
    # The last batch begins the next epoch.
    share_CN2 = np.array(parts[: len(videos)])
    known_C2 = np.isfinite(share_CN2[:, 0]) if parts else np.zeros((1, 2), bool)
    if not known_C2.any(0).all():
        raise UserError(f"{len(videos)} videos: no clip can be read, has texture and moves")
    numbers = []
    for share_C2 in np.moveaxis(share_CN2, 1, 0):
        texture, motion = 100 * np.nanmean(share_C2, 0)
        without = 100 * (share_C2[known_C2[:, 0], 0] == 0).mean()
        of_mask = {"texture": texture, "motion": motion, "without": without}
        numbers.append({name: float(value) for name, value in of_mask.items()})
    return [own | {"clips": len(share_CN2)} for own in numbers]


def _all_masks(
    masks: Sequence[Mask], clips: Clips, model: Model, *read_clips_and_seeds: Any
) -> tuple[Tensor, None]:
    """Return the masks of a batch of clips, (B, N, L)."""
    drawn = [masked(mask, clips, model, *read_clips_and_seeds)[0] for mask in masks]
    return torch.stack(drawn, 1), None


def describe(measured: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a line per mask, and one that warns of masks which leave nothing to learn from.

    Args:
        measured: {mask: numbers of `visible`}.
    """
    lines = [
        f"{name:<12}{own['texture']:3.0f} % of textured patches, none in {own['without']:.0f} % of "
        f"clips; {own['motion']:.0f} % of moving energy"
        for name, own in measured.items()
    ]
    empty = [name for name, own in measured.items() if leaves_nothing(own)]
    if empty:
        lines.append(f"warning: too little stays visible to learn from: {', '.join(empty)}")
    return lines


def leaves_nothing(own: Mapping[str, float]) -> bool:
    """Return whether too little stays visible to learn from."""
    return own["texture"] < LEAST or own["without"] > MOST


def measure(job: Job[Measure]) -> dict[str, Any]:
    """Measure `spec.mask` on training videos, evenly spread. `spec.videos` 0: on all."""
    spec, videos = job.spec, job.index.train
    chosen = spread(videos, spec.videos or len(videos))
    reading = job.options.workers, job.workplace.cache
    (found,) = visible(chosen, spec.clips, spec.model, [spec.mask], spec.seed, *reading)
    return found
