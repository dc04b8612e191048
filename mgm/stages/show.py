"""`mgm show`: a moving picture of a video, its motion vectors and what masks hide of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from mgm.errors import UserError, valid
from mgm.masking import Grid
from mgm.results.atomic import atomic_write
from mgm.spec import MASKS, Mask
from mgm.stages.guidance import clip_mask, hidden_pixels
from mgm.stages.measure.visible import shares
from mgm.study.recipes import MASK_RATIO
from mgm.video.clip import Clip
from mgm.video.decode import probe_video, read_clip
from mgm.video.motion import CELL

NAMES = ("block", "tube", "mgm")
TITLES = {"block": "Random block", "tube": "Random tube", "mgm": "MGM"}
FRAMES, TUBELET, PATCHES = 16, 2, 14  # of the paper's ViT; patches along the short side
COLOURS = 192
FPS = 10  # slow enough to follow a box
WIDE = {1: 560, 2: 400, 3: 320, 4: 260}  # pixels of a panel, by columns
MARGIN, GAP, HEAD, FOOT = 20, 20, 28, 30  # pixels
PAPER, INK, QUIET, HIDDEN = "#ffffff", "#1b2330", "#667085", (208, 212, 219)
ARROW, SHADOW = "#ffb000", "#201400"
GHOST = 0.12  # of a hidden patch's brightness that shows through
# Pixels of the picture: from arrow to arrow, and the shortest and longest arrow.
STEP, SHORTEST, LONGEST = 16, 3.5, 26.0
ARROW_S = 6  # an arrow is so many times longer than the motion per frame
FINE = 2  # drawn larger by this factor, then scaled down


def show(
    video: Path,
    out: Path,
    names: Sequence[str] = NAMES,
    seed: int = 0,
    start: int | None = None,
    stride: int = 0,
    ratio: float | None = None,
) -> str:
    """Draw 16 frames of a video with their vectors, and a panel per mask.

    Masks are drawn over the whole frame, on patches of a fourteenth of its short side.

    Args:
        out: a .gif, or a .png of the clip's middle frame.
        names: of masks. Without motion vectors, guided masks are left out.
        seed: of the masks.
        start: the first frame. Default: the clip is in the video's middle.
        stride: frames from one to the next. 0: 2, as in the paper on SSv2, or 1 in a short video.
        ratio: share of the patches that are hidden. Default: as in each mask's paper.

    Returns:
        Lines: what each mask leaves visible, and the next command.
    """
    if out.suffix not in (".gif", ".png"):
        raise UserError(f"{out}: the picture is a .gif, or a .png of one frame; name it so")
    with valid("--masks: "):
        masks = [
            Mask(name=name, ratio=ratio or MASK_RATIO.get(name, 0.75), cells="max")
            for name in names
        ]
    info = probe_video(video)
    stride = stride or min(max((info.frames - (start or 0) - 1) // (FRAMES - 1), 1), 2)
    span = (FRAMES - 1) * stride + 1
    start = max(info.frames - span, 0) // 2 if start is None else start
    if start + span > info.frames:
        raise UserError(
            f"{video}: a clip of {FRAMES} frames from frame {start} spans {span}, and the video "
            f"has {info.frames}"
        )
    clip = read_clip(video, start + stride * np.arange(FRAMES), info.has_vectors)
    lines = []
    if not info.has_vectors:
        masks = [mask for mask in masks if not MASKS[mask.name].guided]
        lines.append(f"codec {info.codec} has no motion vectors, so there are only unguided masks")
    short = min(clip.height, clip.width)
    grid = Grid(
        FRAMES // TUBELET,
        *(round(PATCHES * side / short) for side in (clip.height, clip.width)),
    )
    title = "Motion vectors" if info.has_vectors else "Frames"
    panels = [(title, video.name, np.zeros((grid.slots, grid.height, grid.width), bool))]
    for mask in masks:
        masked_SHW = clip_mask(clip, mask, grid, TUBELET, stride, seed)
        texture, moving = (
            "none" if np.isnan(share) else f"{100 * share:.0f} %"
            for share in shares(clip.frames_THWC, masked_SHW)[:2]
        )
        name = f"{TITLES.get(mask.name, mask.name)} hides {100 * mask.ratio:.0f} %"
        panels.append((name, f"Visible: {texture} of texture, {moving} of motion", masked_SHW))
        lines.append(f"{name:<25}visible: {texture} of textured patches, {moving} of moving energy")
    with atomic_write(out) as temporary:
        if out.suffix == ".png":
            _picture(clip, panels, FRAMES // 2).save(temporary)
        else:
            _write_gif(temporary, [_picture(clip, panels, at) for at in range(FRAMES)])
    return "\n".join(
        [*lines, f"wrote {out}; next: mgm prepare folder --source VIDEOS --out data/mine"]
    )


def _picture(clip: Clip, panels: Sequence[tuple[str, str, np.ndarray]], at: int) -> Image.Image:
    """Draw frame number `at` of all panels: a title, the frame and a caption each."""
    # Two of four wide frames stand side by side, and all of others.
    wide = len(panels) == 4 and clip.width > 1.1 * clip.height
    columns = 2 if wide else min(len(panels), 4)
    width = WIDE[columns]
    height = round(width * clip.height / clip.width)
    rows = -(-len(panels) // columns)
    size = (
        2 * MARGIN + columns * (width + GAP) - GAP,
        2 * MARGIN + rows * (HEAD + height + FOOT) - MARGIN // 2,
    )
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    large, small = ImageFont.load_default(17), ImageFont.load_default(13)
    frame = Image.fromarray(clip.frames_THWC[at])
    for number, (title, caption, masked_SHW) in enumerate(panels):
        left = MARGIN + number % columns * (width + GAP)
        top = MARGIN + number // columns * (HEAD + height + FOOT)
        draw.text((left, top), title, INK, large)
        shown = frame.resize((width, height), Image.Resampling.LANCZOS)
        if number:
            shown = _hidden(shown, masked_SHW[at // TUBELET])
        elif clip.has_motion_T.any():
            shown = _with_arrows(frame, (width, height), _speed(clip, at))
        picture.paste(shown, (left, top + HEAD))
        draw.text((left, top + HEAD + height + 5), caption, QUIET, small)
    return picture


def _write_gif(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Write a moving picture that repeats without end, with one palette for all frames.

    Pixels that do not change have the same colour, so that they take no space.
    """
    every = np.concatenate([np.asarray(picture)[::3, ::3] for picture in pictures])
    palette = Image.fromarray(every).quantize(COLOURS, dither=Image.Dither.NONE)
    # Arrows have too few pixels for a colour of their own, and the ground must be white.
    fixed = [ImageColor.getrgb(colour) for colour in (ARROW, SHADOW, PAPER)]
    palette.putpalette([*(palette.getpalette() or [])[: 3 * COLOURS], *np.ravel(fixed).tolist()])
    frames = []
    for picture in pictures:
        index_HW = np.array(picture.quantize(palette=palette, dither=Image.Dither.NONE))
        for number, colour in enumerate(fixed, COLOURS):
            index_HW[(np.asarray(picture) == colour).all(2)] = number
        frames.append(Image.fromarray(index_HW, "P"))
        frames[-1].putpalette(palette.getpalette() or [])
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000 // FPS, loop=0)


def _hidden(frame: Image.Image, masked_HW: np.ndarray) -> Image.Image:
    """Cover hidden patches with a quiet grey, through which a little of the frame shows."""
    (hidden_HW,) = hidden_pixels(masked_HW[None], 1, frame.height, frame.width)
    ghost = Image.blend(
        Image.new("RGB", frame.size, HIDDEN), frame.convert("L").convert("RGB"), GHOST
    )
    return Image.composite(ghost, frame, Image.fromarray(hidden_HW))


def _speed(clip: Clip, at: int) -> np.ndarray:
    """Return the mean (dx, dy) of a frame's slot, in pixels per frame, per cell."""
    slot = slice(at // TUBELET * TUBELET, (at // TUBELET + 1) * TUBELET)
    informed = max(int(clip.has_motion_T[slot].sum()), 1)
    return (clip.motion_THW2[slot] / clip.distance_THW[slot][..., None]).sum(0) / informed


def _with_arrows(frame: Image.Image, size: tuple[int, int], speed_HW2: np.ndarray) -> Image.Image:
    """Scale a frame and draw an arrow per block of cells, along their mean velocity."""
    scale = FINE * size[0] / frame.width
    drawn = frame.resize((FINE * size[0], FINE * size[1]), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(drawn)
    step = max(round(FINE * STEP / (scale * CELL)), 1)
    rows, columns = (side // step for side in speed_HW2.shape[:2])
    blocks = speed_HW2[: rows * step, : columns * step].reshape(rows, step, columns, step, 2)
    mean_HW2 = blocks.mean((1, 3))
    for row, column in np.ndindex(rows, columns):
        shift = ARROW_S * scale * mean_HW2[row, column]
        length = float(np.hypot(*shift))
        if length < FINE * SHORTEST:
            continue
        unit = shift / length
        half = unit * min(length, FINE * LONGEST) / 2
        middle = (np.array([column, row]) + 0.5) * step * CELL * scale
        side, barb = np.array([-unit[1], unit[0]]), min(FINE * 4.5, 0.5 * length)
        tip = middle + half
        head = [tip - barb * (unit + 0.6 * side), tip, tip - barb * (unit - 0.6 * side)]
        for colour, wide in ((SHADOW, 3 * FINE), (ARROW, round(1.5 * FINE))):
            draw.line([*(middle - half), *tip], colour, wide)
            draw.line([x for point in head for x in point], colour, wide, joint="curve")
    return drawn.resize(size, Image.Resampling.LANCZOS)
