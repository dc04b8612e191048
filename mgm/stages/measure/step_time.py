"""Compare the time of a pretraining step with a tenth of the tokens visible, and with all visible.

Source: ST-MAE's abstract: more than 4x in wall-clock.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgm.masking import Grid, make_mask
from mgm.models import MAE, build_mae, reconstruction_loss
from mgm.models.vit import gather_tokens, patchify
from mgm.spec import Mask, Measure, Pretrain
from mgm.stages.job import Job, best_device
from mgm.study.recipes import PRETRAIN_OPTIM
from mgm.training.optim import build_optimiser

BATCH = 2  # clips per step
# Pairs are timed until both are reached. Tiny models need many pairs, and large ones take long.
PAIRS, SECONDS = 5, 2.0


def step_time(spec: Measure, least: int = PAIRS) -> dict[str, Any]:
    """Compare steps that hide `spec.ratio` of the tokens in tubes with steps that hide none.

    A step is forward, backward and AdamW. Both steps predict the same hidden tokens, with the same
    decoder over all tokens, from frames of noise in memory. They alternate on the same model, so
    that other programs slow both. The precision is float32 on a CPU and bf16 on a GPU. At least
    `least` pairs are timed.

    Returns:
        masked_ms, full_ms: medians; speedup: median of full / masked over pairs, with speedup_low
            and speedup_high, its quartiles; pairs.
    """
    device = best_device()
    mask = Mask(name="tube", ratio=spec.ratio)
    pretraining = Pretrain(
        data=spec.data,
        clips=spec.clips,
        model=spec.model,
        decoder=spec.decoder,
        mask=mask,
        seed=spec.seed,
    )
    model = build_mae(pretraining).to(device).train()
    optimiser = build_optimiser(model, PRETRAIN_OPTIM)
    noise = torch.Generator().manual_seed(spec.seed)
    shape = (BATCH, spec.clips.frames, spec.clips.size, spec.clips.size, 3)
    frames_BTHWC = torch.randint(0, 256, shape, dtype=torch.uint8, generator=noise).to(device)
    masked_BL = make_mask(mask, Grid(*pretraining.grid), None, torch.arange(BATCH)).to(device)
    weight_B = torch.ones(BATCH, device=device)

    def milliseconds(forward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> float:
        def loss_of() -> Tensor:
            return reconstruction_loss(*forward(frames_BTHWC, masked_BL), weight_B)

        return 1000 * step_seconds(optimiser, loss_of, device, bf16=device.type == "cuda")

    def pair() -> tuple[float, float]:
        return milliseconds(model), milliseconds(
            lambda frames, masked: see_all(model, frames, masked)
        )

    # The first steps allocate memory, so they do not count.
    pair()
    pairs, start = [pair()], time.perf_counter()
    while len(pairs) < least or time.perf_counter() - start < SECONDS:
        pairs.append(pair())
    masked_N, full_N = np.array(pairs).T
    low, speedup, high = np.quantile(full_N / masked_N, [0.25, 0.5, 0.75]).tolist()
    medians = {"masked_ms": float(np.median(masked_N)), "full_ms": float(np.median(full_N))}
    return medians | {
        "speedup": speedup,
        "speedup_low": low,
        "speedup_high": high,
        "pairs": len(pairs),
    }


def step_seconds(
    optimiser: Any, loss_of: Callable[[], Tensor], device: torch.device, bf16: bool
) -> float:
    """Return the seconds of one step: `loss_of()`, its gradients, and the optimiser."""
    _wait(device)
    start = time.perf_counter()
    optimiser.zero_grad()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss = loss_of()
    loss.backward()
    optimiser.step()
    _wait(device)
    return time.perf_counter() - start


def see_all(model: MAE, frames_BTHWC: Tensor, masked_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Run `model` with an encoder that sees the hidden tokens too.

    The decoder gets latents in place of mask tokens.
    """
    order_BL = masked_BL.byte().argsort(dim=1, stable=True)  # hidden tokens last, as in MAE
    hidden = masked_BL.shape[1] - model.visible
    patches_BLPC = patchify(frames_BTHWC, model.encoder.tubelet, model.encoder.patch)
    latent_BLD = model.encoder_to_decoder(model.encoder(patches_BLPC)) + model.pos_embed
    predicted_BMP = model.decoder(gather_tokens(latent_BLD, order_BL), hidden=hidden)
    return predicted_BMP, model.target(gather_tokens(patches_BLPC, order_BL[:, -hidden:]))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(job: Job[Measure]) -> dict[str, Any]:
    return step_time(job.spec)
