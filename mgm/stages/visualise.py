"""`mgm visualise`: compute the arrays of the figures that show clips.

`mgm.report.figures.draw` draws them, on a machine without the data.
"""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import torch

from mgm.data.index import Index, Video
from mgm.errors import UserError
from mgm.masking import Grid, make_boxes
from mgm.models import MAE, attention_map, build_mae, load_weights, reconstruct
from mgm.rng import clip_seed, generator
from mgm.spec import MASKS, Clips, Mask, Method, Model, Pretrain, Visualise, read_spec
from mgm.stages.guidance import clip_mask, every_mask, slot_motion
from mgm.stages.job import Job, moving_videos
from mgm.stages.measure.saliency import read_boxes
from mgm.video.clip import Clip, Crop
from mgm.video.read import read
from mgm.video.transform import view_indices

PARENTS = {"5": 0, "6": 1, "7": 1, "8": 2}
CLIPS = {"5": 1, "6": 1, "7": 4, "8": 2}


@torch.inference_mode()
def visualise(job: Job[Visualise]) -> dict[str, Any]:
    """Write arrays.npz of the spec's figure.

    The figure shows the middle clips of test videos that are drawn from the run's seed.
    """
    spec = job.spec
    if len(spec.parents) != PARENTS[spec.figure]:
        raise UserError(
            f"{spec.run_id}: figure {spec.figure} shows {PARENTS[spec.figure]} pretraining runs, "
            f"and parents has {len(spec.parents)}; correct parents"
        )
    runs = [_parent(job, run_id) for run_id in spec.parents]
    of_clips = [_arrays(job, video, seed, runs) for video, seed in _choose(spec, job.index)]
    arrays = _stack(of_clips) if spec.figure in ("7", "8") else of_clips[0]
    if spec.figure == "8":
        arrays["names_P"] = np.array([trained.mask.name for trained, _ in runs])
        arrays["ratio_P"] = np.array([trained.mask.ratio for trained, _ in runs])
    if runs:
        arrays["parents_P"] = np.array(spec.parents)
    np.savez_compressed(job.folder / "arrays.npz", **arrays)
    return {}


def masks_on_a_clip(
    clip: Clip, index_T: np.ndarray, clips: Clips, model: Model, masks: Sequence[Mask], seed: int
) -> dict[str, Any]:
    """Return a clip's frames and motion, with masks.

    Args:
        clip: the centre crop of a video's middle clip.
        index_T: its frames' numbers.
        clips: size and sampling of the clip.
        model: tubelet and patch, which make the token grid.
        masks: N masks.
        seed: the masks' seed.

    Returns:
        frames_SHWC: uint8, the first frame of each slot. index_S: its number in the video.
        motion_SHW2: (dx, dy) in pixels per frame, the mean over a slot's frames. magnitude_SHW: the
            magnitude that guides the last mask that looks for the largest, as Figure 5's MGM.
            has_motion_S.
        names_N, ratio_N, masked_NSHW, and boxes_NS4: (centre x, centre y, width, height) in
            patches, NaN for a mask without boxes.
    """
    tubelet = model.tubelet
    has_mv_T = clip.has_motion_T
    speed_THW2 = clip.motion_THW2 / clip.distance_THW[..., None] * has_mv_T[:, None, None, None]
    guide = next((mask for mask in reversed(masks) if MASKS[mask.name].largest), masks[0])
    speed_STHW2 = speed_THW2.reshape(-1, tubelet, *speed_THW2.shape[1:])
    return {
        **_frames(clip, index_T, tubelet),
        "motion_SHW2": speed_STHW2.mean(1, dtype=np.float32),
        "magnitude_SHW": clip.known.magnitude(
            tubelet, guide.distance, guide.compensate, guide.cells
        ),
        "has_motion_S": has_mv_T.reshape(-1, tubelet).any(1),
        **_masks(clip, clips, model, masks, seed),
    }


def _arrays(
    job: Job[Visualise], video: Video, seed: int, runs: list[tuple[Pretrain, MAE]]
) -> dict[str, Any]:
    """Return what the spec's figure shows of one clip, with its source.

    - 5: the arrays of `masks_on_a_clip`, for every mask.
    - 6: the same for the run's own mask, and attention. objects_SK4: (top, left, bottom, right) of
      up to K objects, as shares of the clip's sides. NaN without an object. K = 0 if the video has
      no boxes (`mgm.stages.measure.saliency` describes their file). attention_SHW: sums to 1.
      query_3: slot, row and column of the token that attends.
    - 7: frames_SHWC, index_S, attention_SHW, query_3 and class.
    - 8: frames_SHWC, index_S, class, and of each run masked_PSHW and reconstructed_PSHWC
      (`mgm.models.reconstruct`).
    """
    spec = job.spec
    figure = job.spec.figure
    tubelet = job.spec.model.tubelet
    index_T = view_indices(spec.clips, video.frames, view=0, views=1)
    crops = [Crop.centre(video.height, video.width)]
    method: Method | None = None if figure == "7" else "codec"
    (clip,) = read(video, [index_T], crops, spec.clips.size, method)
    masks = [trained.mask for trained, _ in runs] or every_mask(spec.mask)
    if figure in ("5", "6"):
        arrays = masks_on_a_clip(clip, index_T, spec.clips, spec.model, masks, seed)
    else:
        arrays = _frames(clip, index_T, tubelet) | {"class": job.index.classes[video.label]}
    if figure == "6":
        arrays["objects_SK4"] = _objects(job, video, index_T[::tubelet], crops[0])
    if figure in ("6", "7"):
        arrays |= _attention(runs[0][1], clip)
    if figure == "8":
        frames_BTHWC = torch.from_numpy(clip.frames_THWC)[None].to(job.device)
        masked_PSHW = _masks(clip, spec.clips, spec.model, masks, seed)["masked_NSHW"]
        masked_P1L = torch.from_numpy(masked_PSHW).flatten(1)[:, None].to(job.device)
        completed = [
            reconstruct(model, frames_BTHWC, masked_BL)[0, ::tubelet].cpu()
            for (_, model), masked_BL in zip(runs, masked_P1L)
        ]
        arrays |= {"masked_PSHW": masked_PSHW, "reconstructed_PSHWC": np.stack(completed)}
    return arrays | {"source": job.index.name(video)}


def _choose(spec: Visualise, index: Index) -> list[tuple[Video, int]]:
    """Draw test videos with motion vectors, each with a seed for its masks.

    The figure decides their number. If there are fewer, all are used.
    """
    guiding, chosen = moving_videos(index), []
    for clip in range(min(CLIPS[spec.figure], len(guiding))):
        seed = clip_seed(spec.seed, 0, -1 - clip)
        chosen.append((guiding.pop(generator(seed, "sample").integers(len(guiding))), seed))
    return chosen


def _parent(job: Job[Visualise], run_id: str) -> tuple[Pretrain, MAE]:
    """Return a pretraining run's spec and model, after checking its clips and model.

    They must be those of the figure. Crop and flip may differ, since a figure has centre crops and
    no mirrored clips.
    """
    spec = job.spec
    trained = read_spec(job.workplace.results / run_id)
    if not isinstance(trained, Pretrain):
        raise UserError(
            f"{spec.run_id}: parent {run_id} is a {trained.stage} run, not for figure {spec.figure}"
        )
    if trained.mask.guidance != "vectors":
        raise UserError(
            f"{spec.run_id}: parent {run_id} is guided by {trained.mask.guidance}, not by vectors"
        )
    for group in ("clips", "model"):
        wanted, theirs = getattr(spec, group), getattr(trained, group)
        for name, value in wanted:
            if name not in ("crop", "flip") and value != getattr(theirs, name):
                raise UserError(
                    f"{spec.run_id}: {group}.{name} is {value}, but parent {run_id} was trained "
                    f"with {getattr(theirs, name)}; set the parent's value"
                )
    model = build_mae(trained)
    load_weights(model, job.weights(run_id))
    return trained, model.to(job.device).eval()


def _frames(clip: Clip, index_T: np.ndarray, tubelet: int) -> dict[str, np.ndarray]:
    return {"frames_SHWC": clip.frames_THWC[::tubelet], "index_S": index_T[::tubelet]}


def _masks(
    clip: Clip, clips: Clips, model: Model, masks: Sequence[Mask], seed: int
) -> dict[str, np.ndarray]:
    side, tubelet = clips.size // model.patch, model.tubelet
    grid, boxes = Grid(clips.frames // tubelet, side, side), []
    for mask in masks:
        magnitude, shift = slot_motion(
            mask, tubelet, clips.stride, [clip.known], clip.frames_THWC[None]
        )
        drawn = make_boxes(mask, grid, magnitude, np.array([seed]), shift)
        none_S4 = np.full((grid.slots, 4), np.nan, np.float32)
        boxes.append(np.concatenate(astuple(drawn)).T if drawn else none_S4)
    masked = [clip_mask(clip, mask, grid, tubelet, clips.stride, seed) for mask in masks]
    return {
        "names_N": np.array([mask.name for mask in masks]),
        "ratio_N": np.array([mask.ratio for mask in masks]),
        "masked_NSHW": np.stack(masked),
        "boxes_NS4": np.stack(boxes),
    }


def _objects(job: Job[Visualise], video: Video, index_S: np.ndarray, crop: Crop) -> np.ndarray:
    """Return (S, K, 4) bounding boxes of objects in a video, from the file next to its index.

    Values are NaN if a frame has fewer boxes, or if a box is outside of the crop.
    """
    folder = job.workplace.data[job.spec.data.dataset]
    # Boxes are optional.
    if not any((folder / name).exists() for name in ("boxes.csv", "boxes.npz")):
        return np.empty((len(index_S), 0, 4), np.float32)
    boxes = read_boxes(folder, job.index).get(job.index.name(video), {})
    boxes_of_slot = [boxes.get(int(frame), np.empty((0, 4))) for frame in index_S]
    shown_SK4 = np.full((len(boxes_of_slot), max(map(len, boxes_of_slot)), 4), np.nan, np.float32)
    for shown_K4, boxes_K4 in zip(shown_SK4, boxes_of_slot):
        share_K4 = (boxes_K4 - np.tile([crop.top, crop.left], 2)) / np.tile(
            [crop.height, crop.width], 2
        )
        inside_K = (share_K4[:, 2:].clip(0, 1) > share_K4[:, :2].clip(0, 1)).all(1)
        shown_K4[: len(share_K4)] = np.where(inside_K[:, None], share_K4, np.nan)
    return shown_SK4


def _attention(model: MAE, clip: Clip) -> dict[str, np.ndarray]:
    """Return the attention of the centre patch of the centre slot."""
    slots, rows, columns = model.encoder.grid
    query = slots // 2, rows // 2, columns // 2
    frames_BTHWC = torch.from_numpy(clip.frames_THWC)[None].to(model.encoder.pos_embed.device)
    return {
        "attention_SHW": attention_map(model.encoder, frames_BTHWC, query)[0].cpu().numpy(),
        "query_3": np.array(query),
    }


def _stack(of_clips: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Stack the arrays of B clips. For example, frames_SHWC becomes frames_BSHWC."""
    names = {key: key.partition("_") for key in of_clips[0]}
    return {
        f"{name}_B{suffix}": np.stack([arrays[key] for arrays in of_clips])
        for key, (name, _, suffix) in names.items()
    }
