"""Measure coverage: the share of moving pixels that each mask hides, per slot.

The papers do not measure it, but it is the purpose of motion guidance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mgm.data.index import Video
from mgm.errors import UserError
from mgm.masking import Grid
from mgm.results.statistics import over_seeds
from mgm.rng import clip_seed
from mgm.spec import MASKS, Compensate, Measure
from mgm.stages.guidance import clip_mask, every_mask, hidden_pixels
from mgm.stages.job import Job
from mgm.stages.measure import choose
from mgm.video.read import read
from mgm.video.transform import test_crop, view_indices

MOVES = 0.5  # pixels per slot. Less is noise, since codecs search in quarters of a pixel


def coverage(spec: Measure, videos: Sequence[Video]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the share of moving pixels that each mask hides, at the ratio it is trained with.

    All masks have the settings of `spec.mask`, such as its cells.

    Clips are the centre crops of each video's middle clip. A pixel moves if its motion in a slot is
    at least MOVES pixels larger than the slot's median. The median is the camera's motion if
    objects cover less than half of the frame. With `spec.compensate`, a pixel moves if its
    compensated motion is at least MOVES pixels. Then each guided mask is also measured with
    compensated motion as guidance. Slots without moving pixels do not count.

    Returns:
        metrics: coverage_<mask>, the mean over slots in per cent; videos, the number of videos with
            moving pixels.
        arrays: names_N; ratio_N; hidden_N, the per cent of a slot's patches that are hidden;
            share_NS, low_NS, high_NS: mean over clips in per cent, and its 95 % confidence
            interval, NaN if there are too few clips; overall_N, overall_low_N, overall_high_N: the
            same for a clip's mean over slots; clips_S: number of clips with moving pixels. A mask
            with compensated guidance is named "<mask> <compensate>".
    """
    grid, tubelet, stride = Grid(*spec.grid), spec.model.tubelet, spec.clips.stride
    masks = {mask.name: mask for mask in every_mask(spec.mask)}
    if spec.compensate != "none":
        masks |= {
            f"{name} {spec.compensate}": mask.model_copy(update={"compensate": spec.compensate})
            for name, mask in masks.items()
            if MASKS[name].guided and not MASKS[name].directional
        }
    parts = []
    for sample, video in enumerate(videos):
        seed = clip_seed(spec.seed, 0, sample)
        index_T = view_indices(spec.clips, video.frames, view=0, views=1)
        crop = test_crop(video.height, video.width, view=0, views=1, size=spec.clips.size)
        (clip,) = read(video, [index_T], [crop], spec.clips.size, "codec")
        magnitude_SHW = clip.known.magnitude(tubelet, compensate=spec.compensate)
        moving_SHW = moving_pixels(magnitude_SHW, spec.clips.size, spec.compensate)
        hidden_NS = []
        for mask in masks.values():
            masked_SHW = clip_mask(clip, mask, grid, tubelet, stride, seed)
            hidden_SHW = hidden_pixels(masked_SHW, grid.slots, *moving_SHW.shape[1:])
            hidden_NS.append((moving_SHW & hidden_SHW).sum((1, 2)))
        # NaN (0 / 0) if nothing moves.
        with np.errstate(invalid="ignore"):
            parts.append(100 * np.array(hidden_NS) / moving_SHW.sum((1, 2)))
    share_NBS = np.stack(parts, 1)
    share_NBS = share_NBS[:, np.isfinite(share_NBS[0]).any(1)]
    if not share_NBS.size:
        raise UserError(f"in {len(videos)} test videos nothing moves {MOVES} pixels; choose others")
    share_NS, low_NS, high_NS = _interval(share_NBS)
    overall_N, overall_low_N, overall_high_N = (
        bound_N1[:, 0] for bound_N1 in _interval(np.nanmean(share_NBS, 2, keepdims=True))
    )
    names, ratios = list(masks), [mask.ratio for mask in masks.values()]
    hidden = [mask.hidden(grid.patches) for mask in masks.values()]
    arrays = {
        "names_N": np.array(names),
        "ratio_N": np.array(ratios),
        "hidden_N": np.array([100 * count / grid.patches for count in hidden]),
        "share_NS": share_NS,
        "low_NS": low_NS,
        "high_NS": high_NS,
        "overall_N": overall_N,
        "overall_low_N": overall_low_N,
        "overall_high_N": overall_high_N,
        "clips_S": np.isfinite(share_NBS[0]).sum(0),
    }
    metrics = {f"coverage_{name}": share for name, share in zip(names, overall_N.tolist())}
    return metrics | {"videos": share_NBS.shape[1]}, arrays


def moving_pixels(
    magnitude_SHW: np.ndarray, size: int, compensate: Compensate = "none"
) -> np.ndarray:
    """Return which pixels move, (S, size, size) bool. All pixels of a cell have its motion.

    The slot's median is subtracted as the camera's motion, unless motion is compensated already.
    """
    if compensate == "none":
        magnitude_SHW = magnitude_SHW - np.median(magnitude_SHW, (1, 2), keepdims=True)
    return hidden_pixels(magnitude_SHW >= MOVES, len(magnitude_SHW), size, size)


def _interval(x_NBS: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean over clips, and the bounds of its 95 % confidence interval.

    Without a clip, the mean is NaN. With fewer than 3 clips, or equal ones, the bounds are NaN.
    """
    shares = [[x_B[np.isfinite(x_B)].tolist() or [np.nan] for x_B in x_BS.T] for x_BS in x_NBS]
    bounds_NS3 = np.array([[over_seeds(x).within(0, 100)[:3] for x in of_N] for of_N in shares])
    bounds_NS3[~np.isfinite(bounds_NS3)] = np.nan
    mean_NS, low_NS, high_NS = np.moveaxis(bounds_NS3, -1, 0)
    return mean_NS, low_NS, high_NS


def measure(job: Job[Measure]) -> dict[str, Any]:
    """Measure coverage on the run's test videos and write arrays.npz."""
    metrics, arrays = coverage(job.spec, choose(job.index, job.spec.videos))
    np.savez_compressed(job.folder / "arrays.npz", **arrays)
    return metrics
