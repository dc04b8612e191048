"""Which frames of a video make a clip. Pure functions; T is the clip's number of frames.

Training draws from a generator, a test takes temporal view `view` of `views`. Sources: VideoMAE's
datasets (MCG-NJU/VideoMAE: kinetics.py, ssv2.py), to which the paper refers ("same as VideoMAE").

A video shorter than its span repeats its last frame (under "segments" in training its first, as
VideoMAE does), so a video of one frame gives a still clip.
"""

import numpy as np

from mgm.spec import Clips


def training_indices(clips: Clips, n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """(T,) sorted frame indices of a random training clip."""
    if clips.sampling == "stride":
        return stride(n_frames, clips.frames, clips.stride, rng, clips.start_multiple)
    if clips.sampling == "window":
        return window(n_frames, clips.frames, clips.stride, rng)
    return segments(n_frames, clips.frames, rng)


def view_indices(clips: Clips, n_frames: int, view: int, views: int) -> np.ndarray:
    """(T,) sorted frame indices of a temporal test view.

    A clip trained on a window is tested at its exact stride.
    """
    if clips.sampling == "segments":
        return segment_view(n_frames, clips.frames, view, views)
    return stride_view(n_frames, clips.frames, clips.stride, view, views)


def stride(
    n_frames: int, frames: int, step: int, rng: np.random.Generator, multiple: int = 1
) -> np.ndarray:
    """Every `step`-th frame from a random start, which is a multiple of `multiple`: pretraining."""
    starts = max(n_frames - (frames - 1) * step, 1)
    start = multiple * rng.integers(-(-starts // multiple))
    return np.minimum(start + step * np.arange(frames), n_frames - 1)


def window(n_frames: int, frames: int, step: int, rng: np.random.Generator) -> np.ndarray:
    """Evenly spaced points over a random window of frames * step:

    finetuning on K400 (kinetics.py, `loadvideo_decord`).
    """
    span = frames * step
    if n_frames > span:
        end = rng.integers(span, n_frames)
        return np.linspace(end - span, end, frames).clip(max=end - 1).astype(np.int64)
    points = np.linspace(0, n_frames, n_frames // step)
    return (
        np.append(points, np.full(frames - len(points), n_frames))
        .clip(max=n_frames - 1)
        .astype(np.int64)
    )


def segments(n_frames: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of T equal segments (TSN):

    finetuning on SSv2. Under T frames, the first frame T times (ssv2.py).
    """
    length = n_frames // frames
    if length == 0:
        return np.zeros(frames, np.int64)
    return length * np.arange(frames) + rng.integers(length, size=frames)


def stride_view(n_frames: int, frames: int, step: int, view: int, views: int) -> np.ndarray:
    """Exact stride;

    the views' starts are spread evenly over the video, a single view lies in its middle.
    """
    slack = max(-(-n_frames // step) - frames, 0)  # in steps
    start = slack // 2 if views == 1 else slack * view // (views - 1)
    return np.minimum(step * (start + np.arange(frames)), n_frames - 1)


def segment_view(n_frames: int, frames: int, view: int, views: int) -> np.ndarray:
    """A frame of each of T equal segments. Of two views the first takes the segments' starts, the
    second their mid-points (ssv2.py); of n views, view k the points k / n into them. A single view
    takes the mid-points."""
    tick = n_frames / frames
    offset = tick / 2 if views == 1 else view * tick / views
    return (offset + tick * np.arange(frames)).astype(np.int64)
