"""Measure visible: how much of what can be learnt from does a mask leave visible?

An encoder sees the visible patches alone. If a box hides the only person of a black scene, nothing
is left to learn from. The papers do not measure it.

    texture   share of the textured patches that stay visible
    motion    share of the moving energy that stays visible
    without   share of the clips in which no textured patch stays visible
    energy    visible moving energy per pixel of the clip, in squared grey levels
    moving    share of the visible textured patches that move

A patch of 8 x 8 pixels of a frame is textured if the standard deviation of its brightness is above
`TEXTURED`. The moving energy of a pixel is the square of its change since the previous frame. A
patch moves if the root of its mean moving energy is above `MOVES`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from mgm.data.index import Video, spread
from mgm.errors import UserError
from mgm.spec import MASKS, Clips, Mask, Measure, Model
from mgm.stages.guidance import hidden_pixels, masked
from mgm.stages.job import Job
from mgm.video.loader import Batch, training_loader

SIDE = 8  # pixels
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue
TEXTURED, MOVES = 8.0, 3.0  # grey levels
LEAST, MOST = 2.0, 50.0  # per cent: of texture, and of clips without
# Masks of `mgm inspect`, as the papers train with them.
PAPER = (
    Mask(name="block"),
    Mask(name="mgm", cells="max"),
    Mask(name="tube"),
    Mask(name="tube", ratio=0.9),
)


def shares(frames_THWC: np.ndarray, masked_SHW: np.ndarray) -> tuple[float, ...]:
    """Return what a mask leaves visible of a clip.

    Args:
        frames_THWC: uint8 RGB.
        masked_SHW: True where a patch is hidden. Slots divide the frames.

    Returns:
        The visible share of the textured patches and of the moving energy, from 0 to 1; NaN if no
        patch is textured, or nothing moves. The visible moving energy per pixel of the clip. The
        number of visible textured patches, and of those that move.
    """
    frames, height, width, _ = frames_THWC.shape
    visible_THW = ~hidden_pixels(masked_SHW, frames, height, width)
    grey_THW = frames_THWC @ GREY
    energy_THW = np.square(np.diff(grey_THW, axis=0, prepend=grey_THW[:1]))
    textured_TPQ = _patches(grey_THW).std((2, 4)) > TEXTURED
    visible_TPQ = textured_TPQ * _patches(visible_THW).mean((2, 4))
    moves_TPQ = _patches(energy_THW).mean((2, 4)) > MOVES**2
    seen = np.float64((energy_THW * visible_THW).sum())
    with np.errstate(invalid="ignore"):
        return (
            float(visible_TPQ.sum() / np.float64(textured_TPQ.sum())),
            float(seen / np.float64(energy_THW.sum())),
            float(seen / energy_THW.size),
            float(visible_TPQ.sum()),
            float((visible_TPQ * moves_TPQ).sum()),
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
    cache_mb: float = 0,
) -> list[dict[str, float]]:
    """Return what each mask leaves visible in the first training clip of each video, in per cent.

    Returns:
        Per mask, texture, motion and energy: means over clips. without: of the clips with texture,
        how many have none visible. moving: over the visible textured patches of all clips; absent
        if there are none. clips: their number.
    """
    side = clips.size // model.patch
    parts = list[np.ndarray]()
    for batch in first_clips(videos, clips, model, masks, seed, workers, cache_mb):
        assert batch.masked_BL is not None
        masked_BNSHW = batch.masked_BL.unflatten(2, (-1, side, side)).numpy()
        for frames_THWC, masked_NSHW in zip(batch.frames_BTHWC.numpy(), masked_BNSHW):
            parts.append(np.array([shares(frames_THWC, own_SHW) for own_SHW in masked_NSHW]))
    clips_CN5 = np.array(parts)
    known_C5 = np.isfinite(clips_CN5[:, 0]) if parts else np.zeros((1, 5), bool)
    if not known_C5.any(0).all():
        raise UserError(f"{len(videos)} videos: no clip can be read, has texture and moves")
    numbers = []
    for clips_C5 in np.moveaxis(clips_CN5, 1, 0):
        texture, motion, energy = np.nanmean(clips_C5[:, :3], 0)
        textured, moving = clips_C5[:, 3:].sum(0)
        of_mask = {
            "texture": 100 * texture,
            "motion": 100 * motion,
            "without": 100 * (clips_C5[known_C5[:, 0], 0] == 0).mean(),
            "energy": energy,
        }
        of_mask |= {"moving": 100 * moving / textured} if textured else {}
        numbers.append({name: float(value) for name, value in of_mask.items()})
    return [of_mask | {"clips": len(clips_CN5)} for of_mask in numbers]


def first_clips(
    videos: Sequence[Video],
    clips: Clips,
    model: Model,
    masks: Sequence[Mask],
    seed: int = 0,
    workers: int = 0,
    cache_mb: float = 0,
) -> Iterator[Batch]:
    """Yield the first training clip of each video that can be read, in batches.

    Crops and masks are those of the first epoch of a run with this seed.

    Args:
        masks: those that are guided have the same guidance.

    Returns:
        Batches with every mask of a clip: masked_BL is (B, N, L).

    Raises:
        ValueError: they have not.
    """
    # The loader reads one motion per clip: a method's, of the same or of another video.
    guides = {mask.guidance for mask in masks if MASKS[mask.name].guided}
    if len(guides) > 1:
        raise ValueError("masks of one pass need the same guidance")
    count = min(16, len(videos))
    batches = training_loader(
        videos,
        clips,
        seed,
        count,
        guide=next(iter(guides), None),
        mask=partial(_all_masks, masks, clips, model),
        workers=workers,
        cache_mb=cache_mb,
    )
    for start, batch in zip(range(0, len(videos), count), batches):
        kept_B = batch.weight_B > 0
        # The rest of the last batch begins the next epoch.
        kept_B[len(videos) - start :] = False
        if kept_B.any():
            yield batch.map(itemgetter(kept_B))


def _all_masks(
    masks: Sequence[Mask], clips: Clips, model: Model, *motions_frames_and_seeds: Any
) -> tuple[np.ndarray, None]:
    """Return the masks of a batch of clips, (B, N, L)."""
    drawn = [masked(mask, clips, model, *motions_frames_and_seeds)[0] for mask in masks]
    return np.stack(drawn, 1), None


def describe(measured: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a line per mask, and one that warns of masks which leave nothing to learn from.

    Args:
        measured: {mask: numbers of `visible`}.
    """
    lines = [
        f"{name:<12}{numbers['texture']:3.0f} % of textured patches, none in "
        f"{numbers['without']:.0f} % of clips; {numbers['motion']:.0f} % of moving energy"
        for name, numbers in measured.items()
    ]
    empty = [name for name, numbers in measured.items() if leaves_nothing(numbers)]
    if empty:
        lines.append(f"warning: too little stays visible to learn from: {', '.join(empty)}")
    return lines


def leaves_nothing(numbers: Mapping[str, float]) -> bool:
    """Return whether too little stays visible to learn from."""
    return numbers["texture"] < LEAST or numbers["without"] > MOST


def measure(job: Job[Measure]) -> dict[str, Any]:
    """Measure `spec.mask` on training videos, evenly spread. `spec.videos` 0: on all."""
    spec = job.spec
    videos = job.index.train
    chosen = spread(videos, spec.videos or len(videos))
    reading = job.workers, job.options.cache_mb
    (found,) = visible(chosen, spec.clips, spec.model, [spec.mask], spec.seed, *reading)
    return found
