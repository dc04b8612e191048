"""Measure coverage: the share of moving pixels that each mask hides, per slot.

The papers do not measure it, but it is the purpose of motion guidance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgm.data.index import Video
from mgm.errors import UserError
from mgm.masking import Grid, make_mask
from mgm.results.statistics import over_seeds
from mgm.rng import clip_seed
from mgm.spec import MASKS, Compensate, Mask, Measure, hidden_patches
from mgm.stages.guidance import slot_motion
from mgm.stages.job import Job
from mgm.stages.measure import choose
from mgm.study.recipes import MASK_RATIO
from mgm.video.read import Cache, read
from mgm.video.transform import test_box, view_indices

MOVES = 0.5  # pixels per slot. Less is noise, since codecs search in quarters of a pixel


def coverage(
    spec: Measure, videos: Sequence[Video], cache: Cache | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the share of moving pixels that each mask hides, at the ratio it is trained with.

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
    masks = {name: Mask(name=name, ratio=MASK_RATIO[name]) for name in MASKS}
    if spec.compensate != "none":
        masks |= {
            f"{name} {spec.compensate}": mask.model_copy(update={"compensate": spec.compensate})
            for name, mask in masks.items()
            if MASKS[name].guided and not MASKS[name].carried
        }
    parts = []
    for sample, video in enumerate(videos):
        seed_B = torch.tensor([clip_seed(spec.seed, 0, sample)])
        index_T = view_indices(spec.clips, video.frames, view=0, views=1)
        box = test_box(video.height, video.width, view=0, views=1, size=spec.clips.size)
        (clip,) = read(video, [index_T], [box], spec.clips.size, "codec", cache)
        truth = slot_motion([clip], Mask(compensate=spec.compensate), tubelet, stride)
        moving_BSL = moving_pixels(truth.magnitude_BSHW, grid, spec.model.patch, spec.compensate)
        hidden_NBS = torch.stack(
            [
                (moving_BSL * make_mask(mask, grid, motion, seed_B).view_as(moving_BSL)).sum(2)
                for mask in masks.values()
                for motion in [slot_motion([clip], mask, tubelet, stride)]
            ]
        )
        parts.append(100 * hidden_NBS / moving_BSL.sum(2))  # NaN (0 / 0) if nothing moves
    share_NBS = torch.cat(parts, dim=1).double().numpy()
    share_NBS = share_NBS[:, np.isfinite(share_NBS[0]).any(1)]
    if not share_NBS.size:
        raise UserError(f"in {len(videos)} test videos nothing moves {MOVES} pixels; choose others")
    share_NS, low_NS, high_NS = _interval(share_NBS)
    overall_N, overall_low_N, overall_high_N = (
        bound_N1[:, 0] for bound_N1 in _interval(np.nanmean(share_NBS, 2, keepdims=True))
    )
    names, ratios = list(masks), [mask.ratio for mask in masks.values()]
    hidden = [hidden_patches(mask.name, mask.ratio, grid.patches) for mask in masks.values()]
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
    motion_BSHW: Tensor, grid: Grid, patch: int, compensate: Compensate = "none"
) -> Tensor:
    """Count the moving pixels of each patch: (B, S, patches) float32.

    All pixels of a cell have its motion. The slot's median is subtracted as the camera's motion,
    unless `motion_BSHW` is compensated already.
    """
    if compensate == "none":
        median_BS = motion_BSHW.flatten(2).quantile(0.5, dim=2)
        motion_BSHW = motion_BSHW - median_BS[..., None, None]
    moves_BSHW = motion_BSHW >= MOVES
    row = torch.arange(grid.height * patch) * motion_BSHW.shape[2] // (grid.height * patch)
    column = torch.arange(grid.width * patch) * motion_BSHW.shape[3] // (grid.width * patch)
    moves_BSPQ = moves_BSHW[:, :, row][:, :, :, column]
    B, S = motion_BSHW.shape[:2]
    return (
        moves_BSPQ.view(B, S, grid.height, patch, grid.width, patch).sum((3, 5)).flatten(2).float()
    )


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
    metrics, arrays = coverage(job.spec, choose(job.index, job.spec.videos), job.workplace.cache)
    np.savez_compressed(job.folder / "arrays.npz", **arrays)
    return metrics
