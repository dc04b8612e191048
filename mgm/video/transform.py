"""The box that a clip is cut from, and the one function that cuts frames and motion together.

A crop is a box on the decoded frame, drawn by a pure function of a numpy generator; `apply` scales
it to the clip's size. A box need not be square, so the two components of a motion vector are scaled
separately, and magnitudes are taken after.

Each crop is scaled as VideoMAE scales it: pretraining's by Pillow, antialiased bilinear;
finetuning's by `torch.nn.functional.interpolate` and test views by OpenCV, both bilinear without
antialiasing.
"""

from dataclasses import dataclass

import numpy as np
import torch

from mgm.spec import Clips
from mgm.video.decode import Clip
from mgm.video.motion import CELL

SCALES = (1.0, 0.875, 0.75, 0.66)


@dataclass(frozen=True)
class Box:
    """A crop, in pixels of the decoded frame; whole ones, but for a test view.

    Attributes: antialias: whether scaling it down averages over all pixels. scaled: of a test view,
        for which the whole frame is scaled first: the frame's height and width then, and the crop's
        top and left.
    """

    top: float
    left: float
    height: float
    width: float
    antialias: bool = True
    scaled: tuple[int, int, int, int] | None = None

    def on(self, frame: tuple[int, ...], of: tuple[int, int] | None) -> "Box":
        """The same part of a frame of height and width `frame`, where the box is one of a frame of
        `of`; at least a pixel.
        """
        if of is None or of == frame or self.scaled:
            return self
        down, across = frame[0] / of[0], frame[1] / of[1]
        top, left = (
            min(round(self.top * down), frame[0] - 1),
            min(round(self.left * across), frame[1] - 1),
        )
        bottom, right = (
            round((self.top + self.height) * down),
            round((self.left + self.width) * across),
        )
        return Box(top, left, max(bottom - top, 1), max(right - left, 1), self.antialias)


def training_box(clips: Clips, height: int, width: int, rng: np.random.Generator) -> Box:
    """The crop `clips.crop` of a frame of `height` x `width` pixels."""
    if clips.crop == "multiscale":
        return multiscale(height, width, clips.size, rng)
    if clips.crop == "resized":
        return resized(height, width, rng)
    return test_box(height, width, 0, 1, clips.size)


def multiscale(height: int, width: int, size: int, rng: np.random.Generator) -> Box:
    """MultiScaleCrop (MCG-NJU/VideoMAE, transforms.py), pretraining's crop.

    Height and width are the short side times one of four scales each, at most one step apart; a
    side within 2 pixels of `size` becomes `size`. The box lies at one of 13 fixed places: corners,
    centre, edge mid-points, quarter points.
    """
    short = min(height, width)
    sides = [int(short * scale) for scale in SCALES]
    sides = [size if abs(side - size) < 3 and size <= short else side for side in sides]
    pairs = [(i, j) for i in range(4) for j in range(4) if abs(i - j) <= 1]
    i, j = pairs[rng.integers(len(pairs))]
    down, right = (height - sides[i]) // 4, (width - sides[j]) // 4
    places = [(row, column) for row in (0, 2, 4) for column in (0, 2, 4)] + [
        (row, column) for row in (1, 3) for column in (1, 3)
    ]
    row, column = places[rng.integers(13)]
    return Box(row * down, column * right, sides[i], sides[j])


def resized(
    height: int, width: int, rng: np.random.Generator, area=(0.08, 1.0), ratio=(0.75, 4 / 3)
) -> Box:
    """Random resized crop:

    area uniform, width / height log-uniform; after ten tries that do not fit, the largest central
    box.
    """
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        w, h = round((pixels * aspect) ** 0.5), round((pixels / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return Box(
                int(rng.integers(height - h + 1)),
                int(rng.integers(width - w + 1)),
                h,
                w,
                antialias=False,
            )
    h, w = min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))
    return Box((height - h) // 2, (width - w) // 2, h, w, antialias=False)


def view_box(height: int, width: int, view: int, views: int) -> Box:
    """Square of the short side:

    the centre one, or spatial view `view` of three along the long side.
    """
    short, slack = min(height, width), abs(height - width)
    offset = slack // 2 if views == 1 else slack * view // (views - 1)
    return Box(offset, 0, short, short) if height > width else Box(0, offset, short, short)


def test_box(height: int, width: int, view: int, views: int, size: int) -> Box:
    """Spatial test view `view` of `views` (MCG-NJU/VideoMAE, kinetics.py):

    the frame's short side becomes `size`, then a square is cut.
    """
    tall, wide = (size * side // min(height, width) for side in (height, width))
    slack = max(tall, wide) - size
    offset = slack // 2 if views == 1 else slack * view // (views - 1)
    top, left = (offset, 0) if height > width else (0, offset)
    down, across = height / tall, width / wide
    return Box(
        top * down,
        left * across,
        size * down,
        size * across,
        antialias=False,
        scaled=(tall, wide, top, left),
    )


def apply(clip: Clip, box: Box, size: int, flip: bool) -> Clip:
    """Cut `box` out of a clip, scale it to `size` x `size` pixels, and mirror it if asked to.

    Returns:
        A clip whose frames are (T, size, size, 3), and whose motion is in pixels of the new size,
        on size // 8 cells a side that each take the vector at their centre.
    """
    motion_THW2, distance_THW = cut_motion(clip.motion_THW2, clip.distance_THW, box, size, flip)
    on_frame = box.on(clip.frames_THWC.shape[1:3], clip.size)
    return Clip(
        cut_frames(clip.frames_THWC, on_frame, size, flip),
        motion_THW2,
        distance_THW,
        clip.has_motion_T,
    )


def cut_frames(frames_THWC: np.ndarray, box: Box, size: int, flip: bool) -> np.ndarray:
    """`apply` on the frames alone."""
    if box.scaled:
        tall, wide, top, left = box.scaled
        cut_THWC = resize(frames_THWC, tall, wide, antialias=False)[
            :, top : top + size, left : left + size
        ]
    else:
        top, left, height, width = (
            int(side) for side in (box.top, box.left, box.height, box.width)
        )
        cut_THWC = resize(
            frames_THWC[:, top : top + height, left : left + width], size, size, box.antialias
        )
    return cut_THWC[:, :, ::-1] if flip else cut_THWC


def cut_motion(
    motion_THW2: np.ndarray, distance_THW: np.ndarray, box: Box, size: int, flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`apply` on the motion alone."""
    count = max(size // CELL, 1)
    centre = (np.arange(count) + 0.5) / count
    row = (box.top + centre * box.height).astype(np.int64) // CELL
    column = (box.left + centre * box.width).astype(np.int64) // CELL
    if flip:
        column = column[::-1]
    scale = np.array([(-size if flip else size) / box.width, size / box.height], np.float32)
    frames, _, width = distance_THW.shape
    cell = (row[:, None] * width + column).ravel()
    motion_TL2, distance_TL = (
        motion_THW2.reshape(frames, -1, 2).take(cell, 1),
        distance_THW.reshape(frames, -1).take(cell, 1),
    )
    return motion_TL2.reshape(frames, count, count, 2) * scale, distance_TL.reshape(
        frames, count, count
    )


def resize(frames_THWC: np.ndarray, height: int, width: int, antialias: bool) -> np.ndarray:
    """uint8 frames to `height` x `width`, bilinear; as they are where nothing needs scaling."""
    if frames_THWC.shape[1:3] == (height, width):
        return frames_THWC
    frames_TCHW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(
        0, 3, 1, 2
    )  # channels last: its fast path
    scaled = torch.nn.functional.interpolate(
        frames_TCHW, size=(height, width), mode="bilinear", antialias=antialias
    )
    return scaled.permute(0, 2, 3, 1).numpy()
