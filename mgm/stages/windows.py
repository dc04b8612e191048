"""Windows of long videos: a clip every N seconds, for `mgm embed` and `mgm predict`.

A file is read in parts, each in one pass that starts at the key frame before it. Memory depends on
the part's length, not on the file's. Each part is written when it is done, so that the same command
continues after a stop.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mgm.console import track
from mgm.data.index import Video
from mgm.errors import UserError
from mgm.models.weights_file import weights_digest
from mgm.spec import ApplyOptions, Clips
from mgm.stages.apply import NOT_FINITE, Parts, Trained, content_key, require_some
from mgm.stages.job import computed
from mgm.video import probe_video
from mgm.video.clip import cut_frames
from mgm.video.decode import frame_times
from mgm.video.read import open_pass
from mgm.video.transform import test_box

T = TypeVar("T")
PART = 256  # windows per part
CLIPS = 16  # windows per forward pass
LONGEST_S = 12 * 3600  # files with longer durations are refused as damaged


@dataclass(frozen=True)
class Windows:
    """The positions of windows.

    Attributes:
        every_s: seconds from the start of a window to the start of the next.
        window_s: length of a window in seconds. 0: the clip's frames at their stride.
    """

    every_s: float
    window_s: float = 0.0

    def span(self, clips: Clips, fps: float) -> int:
        """Return the number of frames that a window spans, at a constant frame rate."""
        return round(self.window_s * fps) or (clips.frames - 1) * clips.stride + 1

    def frames(self, clips: Clips, fps: float, time_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first frame of each window (N,), and all its frames (N, T).

        Args:
            time_M: when each frame is shown, in seconds.
        """
        span, frames = self.span(clips, fps), len(time_M)
        last = max(frames - span, 0)
        if self.window_s:
            last = min(last, int(_frame_at(time_M[-1:] + 1 / fps - self.window_s, time_M)[0]))
        count = int(time_M[last] / self.every_s + 1e-3) + 1
        start_N = np.minimum(_frame_at(np.arange(count) * self.every_s, time_M), last)
        if self.window_s:
            offset_T = np.linspace(0, (span - 1) / fps, clips.frames)
            return start_N, _frame_at(time_M[start_N][:, None] + offset_T, time_M)
        index_NT = start_N[:, None] + clips.stride * np.arange(clips.frames)
        return start_N, np.minimum(index_NT, frames - 1)


def _frame_at(seconds: np.ndarray, time_M: np.ndarray) -> np.ndarray:
    """Return the frames nearest to these times."""
    place: np.ndarray = np.interp(seconds, time_M, np.arange(len(time_M)))
    # Halves are rounded as at a constant frame rate.
    return place.round(6).round().astype(np.int64)


def find_windows(how: ApplyOptions) -> Windows | None:
    """Return the windows that the command line asks for, or None for views of whole videos."""
    return Windows(how.every, how.window) if how.every else None


def apply_windows(
    compute: Callable[[Tensor], Tensor],
    trained: Trained,
    videos: Mapping[str, Video],
    windows: Windows,
    out: Path,
    dtype: type = np.float32,
) -> tuple[Iterator[tuple[pd.DataFrame, np.ndarray]], list[tuple[str, str]]]:
    """Compute every window of every video, in parts next to the output.

    Args:
        compute: maps uint8 frames (B, T, H, W, C) to (B, ...).

    Returns:
        The windows in order, which are read part by part: their columns path, start and end (in
        seconds), and their values (N, ...). Then (name, reason) of the videos that could not be
        read.

    Raises:
        UserError: existing parts are of other weights or windows, mgm did not make their folder, or
            no video could be read.
    """
    shapes = [trained.clips.model_dump_json(), trained.model.model_dump_json()]
    settings = [weights_digest(trained.weights), np.dtype(dtype).name, asdict(windows), *shapes]
    parts = Parts(out, settings)
    places, failed = list[tuple[str, str]](), dict[str, str]()
    for name, video in track(videos.items(), "videos", len(videos)):
        digest = hashlib.sha256(content_key(name, video).encode()).hexdigest()[:16]
        own_places = list[tuple[str, str]]()
        try:
            start_N, end_N, index_NT = _plan(name, video, windows, trained.clips)
            for start in range(0, len(start_N), PART):
                own, part = slice(start, start + PART), f"{digest}-{start:08d}"
                known = parts.load(part)
                if known is None or len(known["value_N"]) != len(start_N[own]):
                    value_N = _values(compute, trained, video.path, index_NT[own])
                    if not np.isfinite(value_N).all():
                        raise UserError(NOT_FINITE)
                    columns = {"start_N": start_N[own], "end_N": end_N[own]}
                    parts.save(part, **columns, value_N=value_N.astype(dtype))
                own_places.append((name, part))
            places += own_places
        except UserError as error:
            failed[name] = str(error)
    require_some(places, out, list(failed.items()))
    return (_read(parts, *place) for place in places), list(failed.items())


def _plan(
    name: str, video: Video, windows: Windows, clips: Clips
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a video's windows: starts and ends in seconds (N,), and their frames (N, T)."""
    info = probe_video(video.path)
    if not info.fps:
        raise UserError(f"{name}: has no frame rate; transcode it")
    time_M = frame_times(video.path, info)
    if (seconds := max(info.duration_s, time_M[-1])) > LONGEST_S:
        raise UserError(
            f"{name}: lasts {seconds / 3600:.1f} hours, and the limit is {LONGEST_S // 3600}; "
            "cut it"
        )
    first_N, index_NT = windows.frames(clips, info.fps, time_M)
    # The frame that a window ends before. The last frame is shown for one frame of average length.
    bound_M = np.append(time_M, time_M[-1] + 1 / info.fps)
    return time_M[first_N], bound_M[index_NT[:, -1] + 1], index_NT


def _values(
    compute: Callable[[Tensor], Tensor], trained: Trained, path: str, index_NT: np.ndarray
) -> np.ndarray:
    values = [
        computed(compute, torch.from_numpy(batch_BTHWC), trained.model.channels).float().cpu()
        for batch_BTHWC in _ahead(_batches(path, index_NT, trained.clips.size))
    ]
    return torch.cat(values).numpy()


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield `items`. A thread computes the next item while the current one is used."""
    left = iter(items)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, left, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, left, None)
            yield item


def _batches(path: str, index_NT: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield the windows' frames, CLIPS windows at a time, from one pass over the file."""
    wanted_M, slot_NT = np.unique(index_NT, return_inverse=True)
    slot_NT = slot_NT.reshape(index_NT.shape)
    # Frames that later windows need, since overlapping windows share frames.
    kept, ready, box = dict[int, np.ndarray](), 0, None
    with open_pass(path, wanted_M, False) as decoding:
        for place, frame_HWC in decoding:
            height, width = frame_HWC.shape[:2]
            box = box or test_box(height, width, view=0, views=1, size=size)
            kept[place] = cut_frames(frame_HWC[None], box, size)[0]
            # The frames of damaged files may come out of order.
            while (slots_BT := slot_NT[ready : ready + CLIPS]).size and all(
                slot in kept for slot in np.unique(slots_BT).tolist()
            ):
                yield np.stack([[kept[slot] for slot in row] for row in slots_BT.tolist()])
                ready += len(slots_BT)
                first = slot_NT[ready:].min(initial=len(wanted_M))
                kept = {slot: x for slot, x in kept.items() if slot >= first}


def _read(parts: Parts, name: str, part: str) -> tuple[pd.DataFrame, np.ndarray]:
    if (arrays := parts.load(part)) is None:
        raise UserError(
            f"{parts.folder}: part {part} was removed or damaged while mgm ran; run the same "
            "command again"
        )
    columns = {"path": name, "start": arrays["start_N"], "end": arrays["end_N"]}
    return pd.DataFrame(columns), arrays["value_N"]
