"""Measure cover: the share of generated movers' pixels that a mask hides.

The positions of the movers are known from drawing them, so no motion vector decides what moves,
even if the camera pans. The papers do not measure it.
"""

from typing import Any

import numpy as np
import torch

from mgm.data.index import Video
from mgm.data.synthetic.drawing import scene, tracks
from mgm.data.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.masking import Grid, make_mask
from mgm.spec import Measure
from mgm.stages.guidance import slot_motion, track_method
from mgm.stages.job import Job
from mgm.video.read import read
from mgm.video.transform import view_indices


def measure(job: Job[Measure]) -> dict[str, Any]:
    """Return `hidden`: the mean over the first test videos, in per cent.

    `spec.videos` is their number. Shuffled guidance follows the next video, which is of another
    class. Frames are read whole, with every cell of their motion, so `mask.cells` changes nothing.
    """
    drawn = job.workplace.data[job.spec.data.dataset] / "generated.json"
    if not drawn.is_file():
        raise UserError(f"{drawn}: no such file; cover is measured on generated datasets")
    params = Synthetic.model_validate_json(drawn.read_text(encoding="utf-8"))
    test, shuffled = job.index.test, job.spec.mask.guidance == "shuffled"
    shares = [
        hidden_share(
            test[number],
            tracks(params, scene(params, "test", number)),
            job.spec,
            number,
            test[(number + shuffled) % len(test)],
        )
        for number in range(min(job.spec.videos or len(test), len(test)))
    ]
    return {"hidden": float(np.mean(shares)), "videos": len(shares)}


def hidden_share(
    video: Video,
    movers: tuple[np.ndarray, np.ndarray],
    spec: Measure,
    seed: int,
    guide: Video,
) -> float:
    """Return the share of a video's movers under `spec.mask`, in per cent, in its middle clip.

    Args:
        movers: centres (x, y) of whole discs, (T, K, 2), and diameters, (T, K), in pixels. Parts
            outside the frame do not count.
        guide: the video whose motion guides the mask.
    """
    mask, tubelet = spec.mask, spec.model.tubelet
    grid, index_T = Grid(*spec.grid), view_indices(spec.clips, video.frames, view=0, views=1)
    (clip,) = read(guide, [index_T], None, 0, track_method(mask))
    motion = slot_motion([clip], mask, tubelet, spec.clips.stride)
    masked_BL = make_mask(mask, grid, motion, torch.tensor([seed]))
    y_H, x_W = np.arange(clip.height), np.arange(clip.width)
    masked_THW = masked_BL.view(grid.slots, grid.height, grid.width).numpy().repeat(tubelet, 0)
    rows_H, columns_W = y_H * grid.height // clip.height, x_W * grid.width // clip.width
    hidden_THW = masked_THW[:, rows_H][:, :, columns_W]
    centre_TK2, diameter_TK = (array[index_T] for array in movers)
    x_TK11, y_TK11 = np.moveaxis(centre_TK2, 2, 0)[..., None, None]
    across_TKHW = (x_W + 0.5 - x_TK11) ** 2 + (y_H[:, None] + 0.5 - y_TK11) ** 2
    disc_THW = (across_TKHW <= (diameter_TK[..., None, None] / 2) ** 2).any(1)
    return float(100 * (disc_THW & hidden_THW).sum() / disc_THW.sum())
