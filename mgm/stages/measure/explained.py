"""Measure explained: what share of the trivial loss does a pretrained model explain, and where?

The trivial loss is that of predicting zeros under the normalised target. A model with loss `l` on
some hidden patches explains the share 1 - l / (trivial loss of the same patches), in per cent. It
is negative if zeros are better. The papers do not measure it. Flat patches have next to no loss, so
a share of it says nothing: see `moving_loss`.

A hidden patch of a slot moves if the root of its mean moving energy is above `visible.MOVES`. So
pixels decide, and not motion vectors. Under a panning camera a textured ground moves too.

Two predictors without a model stand beside it. Both predict the normalised target.

    neighbours   the mean of the visible patches among the 26 around a patch in time and space
    nearest      the same place in the nearest slot where it is visible, of two the earlier one

Without such a patch they predict zeros.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mgm.data.index import Video, spread
from mgm.errors import UserError
from mgm.models import MAE, build_mae, load_weights
from mgm.models.vit import patchify
from mgm.spec import Mask, Measure, Pretrain, read_spec
from mgm.stages.job import Job, computed
from mgm.stages.measure.visible import MOVES, first_clips
from mgm.video.loader import Batch

COMMON = Mask(name="tube", ratio=0.75)
PREDICTORS, PATCHES = ("explained", "neighbours", "nearest"), ("", "_moving", "_static")


def explained(models: Sequence[MAE], batches: Iterable[Batch]) -> list[dict[str, float]]:
    """Return what each model explains under its own mask.

    Args:
        models: N models with the same target.
        batches: of the clips. Their masked_BL is (B, N, L): each model's mask.

    Returns:
        Per model, in per cent: explained, of all hidden patches; explained_moving, of those that
        move; explained_static, of the others; the same for neighbours and nearest; and moving_loss:
        the part of the trivial loss that lies on moving patches. clips: their number. A share of no
        loss is 0.
    """
    clips = 0
    sums_NPG = torch.zeros(len(models), 4, len(PATCHES), dtype=torch.float64)
    for batch in batches:
        assert batch.masked_BL is not None
        clips += len(batch.masked_BL)
        for sums_PG, model, masked_BL in zip(sums_NPG, models, batch.masked_BL.unbind(1)):
            sums_PG += computed(partial(losses, model, masked_BL), batch.frames_BTHWC)
    if not clips:
        raise UserError("no test video can be read")
    found = []
    for sums_PG in sums_NPG:
        trivial_G = sums_PG[0]
        share_PG = 100 * torch.where(trivial_G > 0, 1 - sums_PG[1:] / trivial_G, 0)
        names = [predictor + patches for predictor in PREDICTORS for patches in PATCHES]
        shares = dict(zip(names, share_PG.flatten().tolist()))
        moving = 100 * float(trivial_G[1] / trivial_G[0]) if trivial_G[0] else 0.0
        found.append(shares | {"moving_loss": moving, "clips": clips})
    return found


def losses(model: MAE, masked_BL: Tensor, frames_BTHWC: Tensor) -> Tensor:
    """Return sums of squared errors over hidden patches: (predictors, `PATCHES`) float64.

    The predictors are zeros, the model, neighbours and nearest.
    """
    encoder, masked_BL = model.encoder, masked_BL.to(frames_BTHWC.device)
    target_BLP = model.target(patchify(frames_BTHWC, encoder.tubelet, encoder.patch))
    predicted_BMP, target_BMP = model.predict(frames_BTHWC, masked_BL)
    hidden_BM = model.split(masked_BL)[1]
    without = (
        neighbours(target_BLP, masked_BL, encoder.grid),
        nearest(target_BLP, masked_BL, encoder.grid),
    )
    index_BMP = hidden_BM[..., None].expand_as(target_BMP)
    predictors = [
        torch.zeros_like(target_BMP),
        predicted_BMP.float(),
        *(x_BLP.gather(1, index_BMP) for x_BLP in without),
    ]
    moves_BM = moves(frames_BTHWC, encoder.grid).gather(1, hidden_BM)
    sums = []
    for x_BMP in predictors:
        loss_BM = (x_BMP - target_BMP).square().sum(2).double()
        moving = (loss_BM * moves_BM).sum()
        sums.append(torch.stack((loss_BM.sum(), moving, loss_BM.sum() - moving)))
    return torch.stack(sums).cpu()


def moves(frames_BTHWC: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Return which patches move, (B, L). The first frame has no change and does not count."""
    slots, rows, columns = grid
    B, T, H, W, _ = frames_BTHWC.shape
    red_BTHW, green_BTHW, blue_BTHW = frames_BTHWC.float().unbind(-1)
    grey_BTHW = 0.299 * red_BTHW + 0.587 * green_BTHW + 0.114 * blue_BTHW
    change_BTHW = F.pad(grey_BTHW.diff(dim=1).square(), (0, 0, 0, 0, 1, 0))
    cut = change_BTHW.view(B, slots, T // slots, rows, H // rows, columns, W // columns)
    count_S = torch.full((slots,), T // slots, device=frames_BTHWC.device)
    count_S[0] -= 1
    mean_BSHW = cut.mean((4, 6)).sum(2) / count_S.clamp(min=1)[:, None, None]
    return (mean_BSHW > MOVES**2).flatten(1)


def neighbours(x_BLP: Tensor, masked_BL: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Return the mean of the visible patches around each patch; zeros without one."""
    visible_BSHW = (~masked_BL).float().unflatten(1, grid)
    x_BPSHW = (x_BLP * ~masked_BL[..., None]).mT.unflatten(2, grid)

    def around(x: Tensor) -> Tensor:
        """Sum 3 x 3 x 3 patches. For a hidden patch, the one in the middle adds nothing."""
        return 27 * F.avg_pool3d(F.pad(x, (1, 1, 1, 1, 1, 1)), 3, stride=1)

    mean_BPSHW = around(x_BPSHW) / around(visible_BSHW[:, None]).round().clamp(min=1)
    return mean_BPSHW.flatten(2).mT


def nearest(x_BLP: Tensor, masked_BL: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Return each place's patch in the nearest slot where it is visible; zeros without one."""
    masked_BSN, slots = masked_BL.view(len(masked_BL), grid[0], -1), grid[0]
    x_BSNP = x_BLP.unflatten(1, (slots, -1))
    slot_S = torch.arange(slots, device=masked_BL.device)
    # Twice the distance, and one more for later slots, which lose ties.
    order_SS = 2 * (slot_S[:, None] - slot_S).abs() + (slot_S > slot_S[:, None])
    far = 2 * slots + 2
    order_BSSN = order_SS[..., None] + far * masked_BSN[:, None]
    best_BSN = order_BSSN.argmin(2)
    found_BSNP = x_BSNP.gather(1, best_BSN[..., None].expand_as(x_BSNP))
    return (found_BSNP * ~masked_BSN.all(1)[:, None, :, None]).flatten(1, 2)


def measure(job: Job[Measure]) -> dict[str, Any]:
    """Measure the parent on the first clips of test videos, cut as its training clips are.

    `spec.videos` is their number, evenly spread; 0: all.

    Returns:
        The numbers of `explained` with the parent's mask, and as common_ with `COMMON`.
    """
    spec = job.spec
    if not spec.parent:
        raise UserError(f"{spec.run_id}: has no parent; name a pretraining run")
    trained = _pretraining(job.workplace.results / spec.parent)
    trained = trained.model_copy(update={"clips": spec.clips})
    masks = [trained.mask, COMMON]
    models = list[MAE]()
    for mask in masks:
        model = build_mae(trained.model_copy(update={"mask": mask}))
        load_weights(model, job.weights(spec.parent))
        models.append(model.to(job.device).eval())
    videos: Sequence[Video] = job.index.test
    batches = first_clips(
        spread(videos, spec.videos or len(videos)),
        spec.clips,
        spec.model,
        masks,
        spec.seed,
        job.workers,
        job.options.cache_mb,
    )
    with_own, common = explained(models, batches)
    clips = common.pop("clips")
    return with_own | {f"common_{name}": value for name, value in common.items()} | {"clips": clips}


def spec_of(run: Path, videos: int) -> Measure:
    """Return the spec of this measurement of a pretraining run's folder, on its own dataset."""
    trained = _pretraining(run)
    same = trained.model_dump(include={"data", "clips", "model", "seed"})
    return Measure(name="explained", parent=run.name, videos=videos, **same)


def _pretraining(run: Path) -> Pretrain:
    trained = read_spec(run)
    if not isinstance(trained, Pretrain):
        raise UserError(f"{run}: is a {trained.stage} run; pass a pretraining run")
    return trained
