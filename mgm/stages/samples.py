"""Clips to look at: the arrays of Figures 5 to 8.

A run of stage `sample` writes arrays.npz, and `mgm.report.clips` draws it, on a machine without the
data.
"""

from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import numpy as np

from mgm.data.index import Video
from mgm.errors import UserError
from mgm.files import replacing
from mgm.masking import Grid, make_boxes
from mgm.results.run import own_spec
from mgm.rng import clip_seed, generator
from mgm.spec import Mask, Pretrain, Sample, mask_info
from mgm.stages.coverage import guide_of, masks_of, middle_clip, usual_masks
from mgm.stages.saliency import read_boxes
from mgm.video.clip import Clip
from mgm.video.motion import Motion

if TYPE_CHECKING:
    from mgm.models import MAE
    from mgm.stages.run import RunContext

CLIPS = {"5": 1, "6": 1, "7": 4, "8": 2}
Arrays = dict[str, Any]


def sample(spec: Sample, run: "RunContext") -> dict[str, float]:
    """Write arrays.npz of the spec's figure. Return no metrics.

    The figure shows the middle clips of test videos that are drawn from the run's seed. In the
    names of arrays, N is a mask, K an object, P a run, and B a clip, if there are several.

    - 5: frames_SHWC, index_S. motion_SHW2: (dx, dy) in pixels per frame, the mean over a slot's
      frames; has_motion_S. magnitude_SHW: its size, as masks see it. Of every mask or row of the
      spec names_N, ratio_N, masked_NSHW and boxes_NS4: (centre x, centre y, width, height) in
      patches, NaN for a mask without boxes.
    - 6: the same for the run's own mask. objects_SK4: (top, left, bottom, right) of up to K boxes,
      as shares of the clip's sides, NaN without one. attention_SHW: sums to 1. query_3: slot, row
      and column of the token that attends.
    - 7: frames_BSHWC, index_BS, attention_BSHW, query_B3 and class_B.
    - 8: frames_BSHWC, index_BS, class_B, and of each run names_P, ratio_P, masked_BPSHW and
      reconstructed_BPSHWC (`mgm.models.reconstruct`).
    """
    runs = [_parent(spec, run, run_id) for run_id in spec.parents]
    tests, of_clips = run.index.test, list[Arrays]()
    left = [*range(len(tests))]
    for clip in range(min(CLIPS[spec.figure], len(left))):
        seed = clip_seed(spec.seed, 0, -1 - clip)
        number = left.pop(generator(seed, "sample").integers(len(left)))
        # The next clip is of another class, if there is one.
        others = [n for n in left if tests[n].label != tests[number].label]
        left = others or left
        of_clips.append(_arrays(spec, run, number, seed, runs))
    arrays = of_clips[0]
    if spec.figure in ("7", "8"):
        arrays = {}
        for key in of_clips[0]:
            name, _, suffix = key.partition("_")
            arrays[f"{name}_B{suffix}"] = np.stack([own[key] for own in of_clips])
    if spec.figure == "8":
        arrays["names_P"] = np.array([trained.mask.name for trained, _ in runs])
        arrays["ratio_P"] = np.array([trained.mask.ratio for trained, _ in runs])
    with replacing(run.folder / "arrays.npz") as temporary:
        np.savez_compressed(temporary, **arrays)
    return {}


def _parent(spec: Sample, run: "RunContext", run_id: str) -> "tuple[Pretrain, MAE]":
    """Return a pretraining run's spec and model."""
    from mgm.models import build_mae, load_weights

    trained = own_spec(run.results / run_id)
    if not isinstance(trained, Pretrain):
        raise UserError(f"{spec.run_id}: {run_id} is no pretraining run")
    if spec.figure in ("6", "7") and trained.model.divided:
        raise UserError(
            f"{spec.run_id}: {run_id} is a TimeSformer, whose attention is divided; figure "
            f"{spec.figure} shows that of a ViT"
        )
    model = build_mae(trained)
    load_weights(model, run.weights(run_id))
    return trained, model.to(run.device).eval()


def _arrays(
    spec: Sample,
    run: "RunContext",
    number: int,
    seed: int,
    runs: "Sequence[tuple[Pretrain, MAE]]",
) -> Arrays:
    """Return what the spec's figure shows of the middle clip of test video `number`."""
    video = run.index.test[number]
    clip, index_T = middle_clip(video, spec.clips)
    grid, tubelet, stride = Grid(*spec.grid), spec.model.tubelet, spec.clips.stride
    masks = [trained.mask for trained, _ in runs] or [mask for _, mask in spec.masks]
    masks = masks or usual_masks(spec.mask.jitter)
    guides = [guide_of(run.index.test, number, clip, one, spec.clips, seed) for one in masks]
    masked_NSHW = masks_of(guides, masks, grid, tubelet, stride, seed)
    arrays: Arrays = {"frames_SHWC": clip.frames_THWC[::tubelet], "index_S": index_T[::tubelet]}
    arrays["source"] = video.name
    if spec.figure in ("5", "6"):
        boxes = [_boxes(*own, grid, tubelet, seed) for own in zip(masks, guides)]
        names = [name for name, _ in spec.masks] or [mask.name for mask in masks]
        arrays |= {
            "motion_SHW2": clip.known.mean_velocity(tubelet),
            "magnitude_SHW": clip.known.magnitude(tubelet),
            "has_motion_S": clip.has_motion_T.reshape(-1, tubelet).any(1),
            "names_N": np.array(names),
            "ratio_N": np.array([mask.ratio for mask in masks]),
            "masked_NSHW": masked_NSHW,
            "boxes_NS4": np.stack(boxes),
        }
    else:
        arrays["class"] = run.index.classes[video.label]
    if spec.figure == "6":
        arrays["objects_SK4"] = _objects(run, video, index_T[::tubelet])
    if spec.figure == "8":
        arrays["masked_PSHW"] = masked_NSHW
    return arrays | _by_models([model for _, model in runs], clip, masked_NSHW, spec.figure)


def _boxes(mask: Mask, guide: Motion, grid: Grid, tubelet: int, seed: int) -> np.ndarray:
    """Return the boxes of a mask, (S, 4), NaN for a mask without boxes."""
    if not mask_info(mask.name).directional:
        drawn = make_boxes(mask, grid, guide.magnitude(tubelet)[None], np.array([seed]))
        if drawn:
            return np.concatenate(astuple(drawn)).T
    return np.full((grid.slots, 4), np.nan, np.float32)


def _by_models(models: "Sequence[MAE]", clip: Clip, masked_PSHW: np.ndarray, figure: str) -> Arrays:
    """Return the attention of the centre patch of the centre slot, or reconstructions (Figure 8).

    Reconstructions are the first frames of slots, with hidden patches as each model predicts them.
    """
    if not models:
        return {}
    import torch

    from mgm.models import attention_map, reconstruct

    encoder, device = models[0].encoder, models[0].pos_embed.device
    frames_BTHWC = torch.from_numpy(clip.frames_THWC)[None].to(device)
    with torch.inference_mode():
        if figure == "8":
            masked_PL = torch.from_numpy(masked_PSHW).flatten(1).to(device)
            made = [reconstruct(own, frames_BTHWC, x[None]) for own, x in zip(models, masked_PL)]
            made_PTHWC = torch.cat(made).cpu().numpy()
            return {"reconstructed_PSHWC": made_PTHWC[:, :: encoder.tubelet]}
        slots, rows, columns = encoder.grid
        query = slots // 2, rows // 2, columns // 2
        map_SHW = attention_map(encoder, frames_BTHWC, query)[0]
    return {"attention_SHW": map_SHW.cpu().numpy(), "query_3": np.array(query)}


def _objects(run: "RunContext", video: Video, index_S: np.ndarray) -> np.ndarray:
    """Return (S, K, 4) bounding boxes of objects in the centre crop, NaN where there is none."""
    known = run.index.drawn or (run.index.root / "boxes.csv").is_file()
    boxes = read_boxes(run.index).get(video.name, {}) if known else {}
    of_slots = [boxes.get(int(frame), np.empty((0, 4))) for frame in index_S]
    shown_SK4 = np.full((len(of_slots), max(map(len, of_slots)), 4), np.nan, np.float32)
    facts = video.read_track().facts
    height, width = facts.source_height, facts.source_width
    side = min(height, width)
    corner_4 = np.tile([(height - side) / 2, (width - side) / 2], 2)
    for shown_K4, boxes_K4 in zip(shown_SK4, of_slots):
        share_K4 = (boxes_K4 - corner_4) / side
        inside_K = (share_K4[:, 2:].clip(0, 1) > share_K4[:, :2].clip(0, 1)).all(1)
        shown_K4[: len(share_K4)] = np.where(inside_K[:, None], share_K4, np.nan)
    return shown_SK4
