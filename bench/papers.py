"""Two ratios of the papers' texts: motion vectors against optical flow, and a step that hides 90 %.

MGM, section 4.5: 80 ms per video of SSv2 against 2.5 s of RAFT-small. ST-MAE's abstract: a step is
more than 4 times faster.
"""

import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import Comparison
from peers import draw, step_seconds
from torch import Tensor

from mgm.errors import UserError
from mgm.masking import Grid, make_mask
from mgm.models import MAE, build_mae, reconstruction_loss
from mgm.models.vit import gather_tokens, patchify
from mgm.spec import Data, Mask, Pretrain
from mgm.training.efficiency import set_malloc_options
from mgm.training.optim import build_optimiser
from mgm.video.optical_flow import estimator, motions, raft_weights
from mgm.video.vectors import read_track


def papers(repeats: int, spec: Pretrain | None = None) -> Iterator[Comparison]:
    """Compare both, in CPU time. RAFT-small is left out if its weights cannot be had."""
    with tempfile.TemporaryDirectory() as folder:
        video = draw(Path(folder)).videos[0].path
        flows = {"DIS": (lambda: estimator("dis"), 0.0), "RAFT-small": (_raft, 25.0)}
        peers = {}
        for name, (make, goal) in flows.items():
            try:
                run = partial(_whole, video, make())
            except UserError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
                continue
            peers[f"{name} (paper: 31 for RAFT-small)"] = run, goal
        ours = partial(read_track, video)
        yield Comparison("a video's vectors", ours, peers, repeats, time.process_time)
    yield hidden_step(repeats, spec or Pretrain(data=Data(dataset="folder")))


def _raft():
    return estimator("raft-small", raft_weights("raft-small", None))


def _whole(video: str, estimate) -> None:
    deque(motions(video, estimate), maxlen=0)


def hidden_step(repeats: int, spec: Pretrain) -> Comparison:
    """Compare a step that hides 90 % of the tokens with one whose encoder sees all tokens.

    Both predict the same hidden tokens, with the same decoder over all tokens.
    """
    # Our jobs set these options.
    set_malloc_options()
    spec = spec.model_copy(update={"mask": Mask(name="tube")})
    model = build_mae(spec).train()
    optimiser = build_optimiser(model, spec.optim)
    clips, masked_BL = spec.clips, make_mask(spec.mask, Grid(*spec.grid), None, np.arange(1))
    masked_BL = torch.from_numpy(masked_BL)
    frames_BTHWC = torch.randint(
        0, 256, (1, clips.frames, clips.size, clips.size, 3), dtype=torch.uint8
    )

    def step(forward) -> float:
        def loss_of() -> Tensor:
            return reconstruction_loss(*forward(frames_BTHWC, masked_BL), torch.ones(1))

        return step_seconds(optimiser, loss_of, torch.device("cpu"), bf16=False)

    full = partial(step, partial(see_all, model))
    peers = {"all tokens visible (ST-MAE: more than 4)": (full, 4.0)}
    return Comparison(
        "a step at 90 %", partial(step, model.predict), peers, repeats, time.process_time
    )


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
