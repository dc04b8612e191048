"""Clips to look at: the arrays of Figures 5 to 8, and the picture of `mgm show`.

A run of stage `sample` writes arrays.npz, and `mgm.report.clips` draws it, on a machine without the
data. `mgm show` needs neither torch nor matplotlib.
"""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgm.data.index import Video, read_index, spread
from mgm.errors import UserError, valid
from mgm.files import replacing
from mgm.masking import Grid, make_boxes
from mgm.rng import clip_seed, generator
from mgm.spec import Clips, Mask, Pretrain, Sample, mask_info, read_spec
from mgm.stages.coverage import (
    enlarged,
    hidden_motion,
    hidden_shares,
    masks_of,
    middle_clip,
    usual_masks,
)
from mgm.stages.saliency import read_boxes
from mgm.video.clip import Clip, resize
from mgm.video.track import Track
from mgm.video.transform import view_indices

if TYPE_CHECKING:
    from mgm.models import MAE
    from mgm.stages.run import RunContext

CLIPS = {"5": 1, "6": 1, "7": 4, "8": 2}
Arrays = dict[str, Any]


# --- Figures 5 to 8 ---


def sample(spec: Sample, run: "RunContext") -> dict[str, float]:
    """Write arrays.npz of the spec's figure. Return no metrics.

    The figure shows the middle clips of test videos that are drawn from the run's seed. In the
    names of arrays, N is a mask, K an object, P a run, and B a clip, if there are several.

    - 5: frames_SHWC, index_S. motion_SHW2: (dx, dy) in pixels per frame, the mean over a slot's
      frames; has_motion_S. magnitude_SHW: what guides the masks. Of every mask names_N, ratio_N,
      masked_NSHW and boxes_NS4: (centre x, centre y, width, height) in patches, NaN for a mask
      without boxes.
    - 6: the same for the run's own mask. objects_SK4: (top, left, bottom, right) of up to K boxes,
      as shares of the clip's sides, NaN without one. attention_SHW: sums to 1. query_3: slot, row
      and column of the token that attends.
    - 7: frames_BSHWC, index_BS, attention_BSHW, query_B3 and class_B.
    - 8: frames_BSHWC, index_BS, class_B, and of each run names_P, ratio_P, masked_BPSHW and
      reconstructed_BPSHWC (`mgm.models.reconstruct`).
    """
    runs = [_parent(spec, run, run_id) for run_id in spec.parents]
    videos, of_clips = list(run.index.test), []
    for clip in range(min(CLIPS[spec.figure], len(videos))):
        seed = clip_seed(spec.seed, 0, -1 - clip)
        video = videos.pop(generator(seed, "sample").integers(len(videos)))
        of_clips.append(_arrays(spec, run, video, seed, runs))
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

    trained = read_spec(run.results / run_id)
    if not isinstance(trained, Pretrain) or trained.mask.guidance != "vectors":
        raise UserError(f"{spec.run_id}: {run_id} is no pretraining run guided by motion vectors")
    model = build_mae(trained)
    load_weights(model, run.weights(run_id))
    return trained, model.to(run.device).eval()


def _arrays(
    spec: Sample,
    run: "RunContext",
    video: Video,
    seed: int,
    runs: "Sequence[tuple[Pretrain, MAE]]",
) -> Arrays:
    """Return what the spec's figure shows of one clip."""
    clip, index_T = middle_clip(video, spec.clips)
    grid, tubelet, stride = Grid(*spec.grid), spec.model.tubelet, spec.clips.stride
    masks = [trained.mask for trained, _ in runs] or usual_masks(spec.mask.jitter)
    masked_NSHW = masks_of(clip, masks, grid, tubelet, stride, seed)
    arrays: Arrays = {"frames_SHWC": clip.frames_THWC[::tubelet], "index_S": index_T[::tubelet]}
    arrays["source"] = video.name
    if spec.figure in ("5", "6"):
        magnitude_SHW = clip.known.magnitude(tubelet)
        arrays |= {
            "motion_SHW2": slot_motion(clip, tubelet),
            "magnitude_SHW": magnitude_SHW,
            "has_motion_S": clip.has_motion_T.reshape(-1, tubelet).any(1),
            "names_N": np.array([mask.name for mask in masks]),
            "ratio_N": np.array([mask.ratio for mask in masks]),
            "masked_NSHW": masked_NSHW,
            "boxes_NS4": np.stack([_boxes(mask, grid, magnitude_SHW, seed) for mask in masks]),
        }
    else:
        arrays["class"] = run.index.classes[video.label]
    if spec.figure == "6":
        arrays["objects_SK4"] = _objects(run, video, index_T[::tubelet])
    if spec.figure == "8":
        arrays["masked_PSHW"] = masked_NSHW
    return arrays | _by_models([model for _, model in runs], clip, masked_NSHW, spec.figure)


def _boxes(mask: Mask, grid: Grid, magnitude_SHW: np.ndarray, seed: int) -> np.ndarray:
    """Return the boxes of a mask, (S, 4), NaN for a mask without boxes."""
    if not mask_info(mask.name).directional:
        drawn = make_boxes(mask, grid, magnitude_SHW[None], np.array([seed]))
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


def slot_motion(clip: Clip, tubelet: int) -> np.ndarray:
    """Return (dx, dy) in pixels per frame, the mean over each slot's frames with motion."""
    has_mv_T = clip.has_motion_T
    speed_THW2 = clip.motion_THW2 / clip.distance_THW[..., None] * has_mv_T[:, None, None, None]
    sum_SHW2 = speed_THW2.reshape(-1, tubelet, *speed_THW2.shape[1:]).sum(1, dtype=np.float32)
    count_S = has_mv_T.reshape(-1, tubelet).sum(1).clip(min=1).astype(np.float32)
    return sum_SHW2 / count_S[:, None, None, None]


def _objects(run: "RunContext", video: Video, index_S: np.ndarray) -> np.ndarray:
    """Return (S, K, 4) bounding boxes of objects in the centre crop, NaN where there is none."""
    known = run.index.drawn or (run.index.root / "boxes.csv").is_file()
    boxes = read_boxes(run.index).get(video.name, {}) if known else {}
    of_slots = [boxes.get(int(frame), np.empty((0, 4))) for frame in index_S]
    shown_SK4 = np.full((len(of_slots), max(map(len, of_slots)), 4), np.nan, np.float32)
    facts = Track(video.track()).facts
    height, width = facts.source_height, facts.source_width
    side = min(height, width)
    corner_4 = np.tile([(height - side) / 2, (width - side) / 2], 2)
    for shown_K4, boxes_K4 in zip(shown_SK4, of_slots):
        share_K4 = (boxes_K4 - corner_4) / side
        inside_K = (share_K4[:, 2:].clip(0, 1) > share_K4[:, :2].clip(0, 1)).all(1)
        shown_K4[: len(share_K4)] = np.where(inside_K[:, None], share_K4, np.nan)
    return shown_SK4


# --- mgm show ---

FRAMES, TUBELET, PATCHES = 16, 2, 14  # of the paper's ViT; patches along the short side
TITLES = {"block": "Random block", "tube": "Random tube", "mgm": "MGM"}
SHOWN = 200  # videos of a prepared dataset that are measured
MOMENTS = range(1, FRAMES, 4)  # the frames that a .png shows
PANEL, LINE, GAP = 320, 20, 12  # pixels: width of a panel, height of a line of text, gap
INK, HIDDEN, ACCENT = "#1a1a1a", (221, 226, 234), (213, 94, 0)


def show(source: Path, names: Sequence[str], out: Path) -> list[str]:
    """Return lines on what share of the moving pixels masks hide, and draw a picture of a file.

    Args:
        source: a video, or a folder that `mgm prepare` wrote. Of a folder nothing is drawn.
        names: of masks. Each hides the share of the patches that its paper hides.
        out: the picture: a moving .gif, or a .png with a row per mask.
    """
    with valid("--masks: "):
        known = [Mask(name=name) for name in names]
    masks = [mask.model_copy(update={"ratio": mask_info(mask.name).ratio}) for mask in known]
    if source.is_dir():
        videos = spread(read_index(source).videos, SHOWN)
        clips = _clips(int(np.median([video.frames for video in videos])))
        grid = Grid(FRAMES // TUBELET, PATCHES, PATCHES)
        share_VN = hidden_motion(videos, clips, grid, TUBELET, masks)
        return [_line(mask, share) for mask, share in zip(masks, share_VN.mean(0))]
    from mgm.video.decode import probe, read

    about = probe(source)
    clips = _clips(about.frames)
    clip = read(source, view_indices(clips, about.frames, view=0, views=1))
    short = min(clip.height, clip.width)
    rows, columns = (round(PATCHES * side / short) for side in (clip.height, clip.width))
    grid = Grid(FRAMES // TUBELET, rows, columns)
    masked_NSHW = masks_of(clip, masks, grid, TUBELET, clips.stride, seed=0)
    lines = [_line(*own) for own in zip(masks, hidden_shares(clip, masked_NSHW, TUBELET))]
    draw(clip, masks, masked_NSHW, out)
    return [*lines, f"wrote {out}"]


def _clips(frames: int) -> Clips:
    """Return the clips of a video: every second frame as in the paper on SSv2, if it has enough."""
    return Clips(frames=FRAMES, stride=2 if frames > 2 * (FRAMES - 1) else 1)


def _line(mask: Mask, share: float) -> str:
    moving = "; nothing moves" if np.isnan(share) else f" and {share:.0f} % of the moving pixels"
    name = TITLES.get(mask.name, mask.name)
    return f"{name:<14}hides {100 * mask.ratio:.0f} % of the patches{moving}"


def draw(clip: Clip, masks: Sequence[Mask], masked_NSHW: np.ndarray, out: Path) -> None:
    """Draw a clip's motion and what masks hide, as a moving .gif or as a .png of four frames."""
    from PIL import Image

    height = round(PANEL * clip.height / clip.width)
    frames_THWC = np.stack([resize(frame, height, PANEL) for frame in clip.frames_THWC])
    motion_SHW2 = slot_motion(clip, TUBELET)
    speed_SHW = np.hypot(motion_SHW2[..., 0], motion_SHW2[..., 1])
    # A few outliers do not hide the rest.
    share_SHW = (speed_SHW / max(np.quantile(speed_SHW, 0.995), 1e-9)).clip(max=1) ** 0.7
    glow_SHW = enlarged(share_SHW, height, PANEL)
    titles = [("Motion vectors", "")]
    known = {} if out.suffix == ".png" else TITLES
    titles += [(known.get(m.name, m.name), f"{100 * m.ratio:.3g} % hidden") for m in masks]
    veils_NSHW = [enlarged(masked_SHW, height, PANEL) for masked_SHW in masked_NSHW]
    panels_TP = list[list[np.ndarray]]()
    for number, frame_HWC in enumerate(frames_THWC):
        slot = number // TUBELET
        grey_HW1 = 140 + 0.45 * frame_HWC.mean(axis=2, keepdims=True)
        glow_HW1 = 0.85 * glow_SHW[slot, ..., None]
        panels = [(grey_HW1 * (1 - glow_HW1) + np.array(ACCENT) * glow_HW1).astype(np.uint8)]
        _arrows(panels[0], motion_SHW2[slot], speed_SHW.max())
        for veil_SHW in veils_NSHW:
            veil_HW1 = 0.9 * veil_SHW[slot, ..., None]
            panels.append(
                (frame_HWC * (1 - veil_HW1) + np.array(HIDDEN) * veil_HW1).astype(np.uint8)
            )
        panels_TP.append(panels)
    with replacing(out) as temporary:
        if out.suffix == ".png":
            _rows([panels_TP[number] for number in MOMENTS], titles).save(temporary)
            return
        pictures = [_page(panels, titles) for panels in panels_TP]
        # With one palette for all frames, pixels that do not change take no space.
        every = Image.fromarray(np.concatenate([np.asarray(own)[::3, ::3] for own in pictures]))
        palette = every.quantize(256, Image.Quantize.FASTOCTREE)
        first, *others = (own.quantize(palette=palette, dither=0) for own in pictures)
        first.save(temporary, save_all=True, append_images=others, loop=0, duration=100)


def _arrows(picture_HWC: np.ndarray, motion_HW2: np.ndarray, longest: float) -> None:
    """Draw the largest vector of each field of a picture. A field is a ninth of its width."""
    import cv2

    side = PANEL / 9
    scale = np.divide(picture_HWC.shape[:2], motion_HW2.shape[:2])
    speed_HW = np.hypot(motion_HW2[..., 0], motion_HW2[..., 1])
    place_HW2 = (np.moveaxis(np.indices(speed_HW.shape), 0, -1) + 0.5) * scale
    field_HW = (place_HW2 // side).astype(int) @ [100, 1]
    for field in np.unique(field_HW[speed_HW > 0.15 * longest]):
        cell = np.unravel_index(np.where(field_HW == field, speed_HW, -1).argmax(), speed_HW.shape)
        tail = place_HW2[cell][::-1]
        tip = tail + motion_HW2[cell] * side / longest
        start, end = (tuple(map(int, place.round())) for place in (tail, tip))
        cv2.arrowedLine(picture_HWC, start, end, (26, 26, 26), 1, cv2.LINE_AA, tipLength=0.35)


def _page(panels: Sequence[np.ndarray], titles: Sequence[tuple[str, str]]) -> Any:
    """Return panels, two in a row if there are more than three, with a title above each."""
    from PIL import Image, ImageDraw, ImageFont

    tall, wide = panels[0].shape[:2]
    columns = 2 if len(panels) > 3 else len(panels)
    rows, head = -(-len(panels) // columns), LINE + GAP
    page = Image.new("RGB", (columns * (wide + GAP) + GAP, rows * (tall + head) + GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for number, (panel, title) in enumerate(zip(panels, titles)):
        left = GAP + number % columns * (wide + GAP)
        top = number // columns * (tall + head) + head
        page.paste(Image.fromarray(panel), (left, top))
        pen.text((left, top - 4), ": ".join(filter(None, title)), INK, font, anchor="ls")
    return page


def _rows(panels_TP: Sequence[Sequence[np.ndarray]], titles: Sequence[tuple[str, str]]) -> Any:
    """Return a row per title, with its panels in order of time, at half their size."""
    from PIL import Image, ImageDraw, ImageFont

    tall, wide, left = panels_TP[0][0].shape[0] // 2, PANEL // 2, PANEL // 2 + GAP
    cell, row = wide + GAP // 2, max(tall, 2 * LINE + GAP) + GAP // 2
    size = left + len(panels_TP) * cell + GAP // 2, len(titles) * row + GAP // 2
    page = Image.new("RGB", size, "white")
    pen, large, small = ImageDraw.Draw(page), ImageFont.load_default(22), ImageFont.load_default(17)
    for number, (title, note) in enumerate(titles):
        top = GAP // 2 + number * row
        pen.text((GAP // 2, top + row / 2 - 4), title, INK, large, anchor="ls")
        pen.text((GAP // 2, top + row / 2 + 4), note, INK, small, anchor="lt")
        for moment, panels in enumerate(panels_TP):
            panel = Image.fromarray(panels[number]).resize((wide, tall))
            page.paste(panel, (left + moment * cell, top))
    return page.quantize(256, Image.Quantize.FASTOCTREE)
