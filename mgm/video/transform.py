"""Choose a clip's frames and crop.

All random draws come from a NumPy generator that is passed in.
"""

from dataclasses import replace
from itertools import product

import numpy as np

from mgm.rng import generator
from mgm.spec import Clips
from mgm.video.crop import Crop

# --- Choose frames. T is the clip's number of frames. ---
# Source: VideoMAE's datasets (MCG-NJU/VideoMAE: kinetics.py, ssv2.py). The paper refers to them
# ("same as VideoMAE"). If the video is too short, the clip repeats its last frame. With "segments",
# a training clip repeats the first frame, as in VideoMAE.


def training_indices(clips: Clips, n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the frames of a training clip. Return their sorted indices, (T,)."""
    if clips.sampling == "stride":
        return stride(n_frames, clips.frames, clips.stride, rng)
    if clips.sampling == "window":
        return window(n_frames, clips.frames, clips.stride, rng)
    return segments(n_frames, clips.frames, rng)


def view_indices(clips: Clips, n_frames: int, view: int, views: int) -> np.ndarray:
    """Return the sorted frame indices of temporal test view `view` of `views`: (T,).

    A model trained on windows is tested at their exact stride.
    """
    if clips.sampling == "segments":
        return segment_view(n_frames, clips.frames, view, views)
    return stride_view(n_frames, clips.frames, clips.stride, view, views)


def stride(n_frames: int, frames: int, step: int, rng: np.random.Generator) -> np.ndarray:
    """Take every `step`-th frame from a random start (pretraining)."""
    start = rng.integers(max(n_frames - (frames - 1) * step, 1))
    return np.minimum(start + step * np.arange(frames), n_frames - 1)


def window(n_frames: int, frames: int, step: int, rng: np.random.Generator) -> np.ndarray:
    """Take evenly spaced frames of a random window (fine-tuning on K400).

    The window has frames * step frames. Source: kinetics.py, `loadvideo_decord`.
    """
    span = frames * step
    if n_frames > span:
        end = rng.integers(span, n_frames)
        return np.linspace(end - span, end, frames).clip(max=end - 1).astype(np.int64)
    points = np.linspace(0, n_frames, n_frames // step)
    points = np.append(points, np.full(frames - len(points), n_frames))
    return points.clip(max=n_frames - 1).astype(np.int64)


def segments(n_frames: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Take one random frame of each of T equal segments (TSN; fine-tuning on SSv2).

    If the video has fewer than T frames, the first is taken T times (ssv2.py).
    """
    length = n_frames // frames
    if length == 0:
        return np.zeros(frames, np.int64)
    return length * np.arange(frames) + rng.integers(length, size=frames)


def view_start(slack: int, view: int, views: int) -> int:
    """Return where view number `view` of `views` begins, from 0 to `slack`. One is central."""
    return slack // 2 if views == 1 else slack * view // (views - 1)


def stride_view(n_frames: int, frames: int, step: int, view: int, views: int) -> np.ndarray:
    """Take every `step`-th frame. The starts of the views are spread evenly over the video.

    A single view is in the middle.
    """
    start = view_start(max(-(-n_frames // step) - frames, 0), view, views)  # in steps
    return np.minimum(step * (start + np.arange(frames)), n_frames - 1)


def segment_view(n_frames: int, frames: int, view: int, views: int) -> np.ndarray:
    """Take one frame of each of T equal segments.

    View k of n takes the frame at the share k / n of each segment. So with two views, the first
    takes the starts and the second takes the centres (ssv2.py). A single view takes the centres.
    """
    tick = n_frames / frames
    offset = tick / 2 if views == 1 else view * tick / views
    return (offset + tick * np.arange(frames)).astype(np.int64)


# --- Choose a crop, in whole pixels ---

SCALES = (1.0, 0.875, 0.75, 0.66)


def random_crop(clips: Clips, height: int, width: int, seed: int) -> Crop:
    """Draw the training crop of a clip of this seed, mirrored half of the time if it may be."""
    rng = generator(seed, "crop")
    if clips.crop == "multiscale":
        crop = multiscale(height, width, clips.size, rng)
    elif clips.crop == "resized":
        crop = resized(height, width, rng)
    else:
        crop = view_crop(height, width)
    return replace(crop, flip=bool(clips.flip and rng.random() < 0.5))


def multiscale(height: int, width: int, size: int, rng: np.random.Generator) -> Crop:
    """Draw a crop for pretraining: MultiScaleCrop (MCG-NJU/VideoMAE, transforms.py).

    Height and width are the short side times one of four scales. The two scales are equal or
    neighbours. A side within 2 pixels of `size` becomes `size`. The box has one of 13 fixed
    positions: corners, centre, centres of edges, quarter points.
    """
    short = min(height, width)
    sides = [max(int(short * scale), 1) for scale in SCALES]
    sides = [size if abs(side - size) < 3 and size <= short else side for side in sides]
    pairs = [(i, j) for i in range(4) for j in range(4) if abs(i - j) <= 1]
    i, j = pairs[rng.integers(len(pairs))]
    down, right = (height - sides[i]) // 4, (width - sides[j]) // 4
    places = [*product((0, 2, 4), repeat=2), *product((1, 3), repeat=2)]
    row, column = places[rng.integers(13)]
    return Crop(row * down, column * right, sides[i], sides[j])


def resized(height: int, width: int, rng: np.random.Generator) -> Crop:
    """Draw a crop for fine-tuning, with uniform area and log-uniform width / height.

    After ten draws that do not fit, take the largest central box.
    """
    area, ratio = (0.08, 1.0), (0.75, 4 / 3)
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        w, h = round((pixels * aspect) ** 0.5), round((pixels / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return Crop(int(top), int(left), h, w)
    h, w = min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))
    return Crop((height - h) // 2, (width - w) // 2, h, w)


def view_crop(height: int, width: int, view: int = 0, views: int = 1) -> Crop:
    """Return spatial test view `view` of `views`: a square of the short side. One is central.

    Source: MCG-NJU/VideoMAE, kinetics.py.
    """
    side = min(height, width)
    offset = view_start(max(height, width) - side, view, views)
    top, left = (offset, 0) if height > width else (0, offset)
    return Crop(top, left, side, side)
