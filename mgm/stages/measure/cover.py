"""Measure cover: the share of generated movers' pixels that a mask hides.

The positions of the movers are known from drawing them, so no motion vector decides what moves,
even if the camera pans. The papers do not measure it.
"""

from typing import Any

import numpy as np

from mgm.data.index import Video
from mgm.data.synthetic.drawing import Scene, scene, tracks
from mgm.data.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.masking import Grid
from mgm.spec import MASKS, Measure
from mgm.stages.guidance import clip_mask, hidden_pixels
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
    test = job.index.test
    shuffled = job.spec.mask.guidance == "shuffled"
    shares = []
    for number in range(min(job.spec.videos or len(test), len(test))):
        guide = test[(number + shuffled) % len(test)]
        movers = discs(params, scene(params, "test", number))
        shares.append(hidden_share(test[number], movers, job.spec, number, guide))
    return {"hidden": float(np.mean(shares)), "videos": len(shares)}


def discs(params: Synthetic, drawn: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return the movers of a video: `tracks`, mirrored if the video is."""
    centre_TK2, diameter_TK = tracks(params, drawn)
    if drawn.mirrored:
        centre_TK2 = np.array([params.size, 0]) + np.array([-1, 1]) * centre_TK2
    return centre_TK2, diameter_TK


def hidden_share(
    video: Video,
    movers: tuple[np.ndarray, np.ndarray],
    spec: Measure,
    seed: int,
    guide: Video,
) -> float:
    """Return the share of a video's movers under `spec.mask`, in per cent, in its middle clip.

    Args:
        movers: centres (x, y), (T, K, 2), and diameters, (T, K), in pixels.
        guide: the video whose motion guides the mask.
    """
    mask = spec.mask
    tubelet = spec.model.tubelet
    grid, index_T = Grid(*spec.grid), view_indices(spec.clips, video.frames, view=0, views=1)
    (clip,) = read(guide, [index_T], None, 0, "codec" if MASKS[mask.name].guided else None)
    masked_SHW = clip_mask(clip, mask, grid, tubelet, spec.clips.stride, seed)
    hidden_THW = hidden_pixels(masked_SHW, len(index_T), *clip.frames_THWC.shape[1:3])
    y_H, x_W = map(np.arange, clip.frames_THWC.shape[1:3])
    centre_TK2, diameter_TK = (array[index_T] for array in movers)
    x_TK11, y_TK11 = np.moveaxis(centre_TK2, 2, 0)[..., None, None]
    across_TKHW = (x_W + 0.5 - x_TK11) ** 2 + (y_H[:, None] + 0.5 - y_TK11) ** 2
    disc_THW = (across_TKHW <= (diameter_TK[..., None, None] / 2) ** 2).any(1)
    return float(100 * (disc_THW & hidden_THW).sum() / disc_THW.sum())
