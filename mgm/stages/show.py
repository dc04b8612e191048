"""`mgm show`: a picture of a video's motion, and what masks hide of it.

It needs neither torch nor matplotlib.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mgm.data.index import read_index, spread
from mgm.errors import UserError, valid
from mgm.files import replacing
from mgm.masking import Grid, mask_clips
from mgm.spec import Clips, Mask, mask_info
from mgm.stages.coverage import enlarged, hidden_motion, hidden_shares, masks_of
from mgm.video.clip import Clip
from mgm.video.crop import resize
from mgm.video.transform import view_indices

FRAMES, TUBELET, PATCHES = 16, 2, 14  # of the paper's ViT; patches along the short side
TITLES = {"block": "Random block", "tube": "Random tube", "mgm": "MGM"}
PLACES = 256  # random places of a block
LONGEST = 16  # times its short side that a frame may be long
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
        masks = [Mask(name=name) for name in names]
    masks = [mask.model_copy(update={"ratio": mask_info(mask.name).ratio}) for mask in masks]
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
    short, long = sorted((clip.height, clip.width))
    if long > LONGEST * short:
        sides = f"{clip.width} x {clip.height}"
        raise UserError(f"{source}: has frames of {sides} pixels, too long to be shown; crop them")
    rows, columns = (round(PATCHES * side / short) for side in (clip.height, clip.width))
    grid = Grid(FRAMES // TUBELET, rows, columns)
    guides = [clip.known] * len(masks)
    masked_NSHW = masks_of(guides, masks, grid, TUBELET, clips.stride, seed=0)
    shares = hidden_shares(clip, masked_NSHW, TUBELET).tolist()
    lines = [_line(*own) for own in zip(masks, shares)]
    share_of = {mask.name: share for mask, share in zip(masks, shares)}
    if share_of.get("block", 0) >= share_of.get("mgm", 101):
        lines.append(_middle(clip, masks[names.index("block")], grid))
    draw(clip, masks, masked_NSHW, out)
    if about.interlaced:
        share = f"{about.interlaced:.0%} of its pictures are interlaced"
        lines.append(f"warning: {share}, so vertical motion may be wrong; deinterlace it first")
    return [*lines, f"wrote {out}"]


def _clips(frames: int) -> Clips:
    """Return the clips of a video: every second frame as in the paper on SSv2, if it has enough."""
    return Clips(frames=FRAMES, stride=2 if frames > 2 * (FRAMES - 1) else 1)


def _line(mask: Mask, share: float) -> str:
    moving = "; nothing moves" if np.isnan(share) else f" and {share:.0f} % of the moving pixels"
    name = TITLES.get(mask.name, mask.name)
    return f"{name:<14}hides {100 * mask.ratio:.0f} % of the patches{moving}"


def _middle(clip: Clip, block: Mask, grid: Grid) -> str:
    """Return why a random block hides as much of a clip's motion as MGM."""
    seed_B = np.arange(PLACES)
    masked_BL, _ = mask_clips(block, grid, [clip.known] * PLACES, seed_B, TUBELET, 1)
    always_SHW = masked_BL.all(0).reshape(grid.slots, grid.height, grid.width)
    share, moving = 100 * always_SHW.mean(), hidden_shares(clip, always_SHW[None], TUBELET)[0]
    return (
        f"A random block hides the middle wherever it lies: {share:.0f} % of the patches, with "
        f"{moving:.0f} % of the moving pixels"
    )


def draw(clip: Clip, masks: Sequence[Mask], masked_NSHW: np.ndarray, out: Path) -> None:
    """Draw a clip's motion and what masks hide, as a moving .gif or as a .png of four frames."""
    from PIL import Image

    height = round(PANEL * clip.height / clip.width)
    frames_THWC = np.stack([resize(frame, height, PANEL) for frame in clip.frames_THWC])
    motion_SHW2 = clip.known.mean_velocity(TUBELET)
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
