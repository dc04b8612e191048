"""Windows of long videos: a clip every so many seconds, for `mgm embed` and `mgm predict`.

A file is read in parts, each by one pass from the key frame before it. Memory depends on the part,
not on the file's length. Each part is written when it is done, so that the same command continues.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mgm.console import track
from mgm.data.index import Video
from mgm.errors import UserError
from mgm.models.weights_file import weights_digest
from mgm.results import files
from mgm.spec import Clips
from mgm.stages.apply import Source
from mgm.stages.data import with_channels
from mgm.video import probe_video
from mgm.video.decode import open_reading
from mgm.video.transform import cut_frames, test_box

PART = 256  # windows between two writes
CLIPS = 16  # per forward pass
LONGEST_S = 12 * 3600  # of a file that is taken for a video


@dataclass(frozen=True)
class Windows:
    """Where windows lie.

    Attributes:
        every_s: seconds from the start of one to the start of the next.
        window_s: seconds that one spans; 0: the clip's frames at their stride.
    """

    every_s: float
    window_s: float = 0.0

    def starts(self, clips: Clips, frames: int, fps: float) -> np.ndarray:
        """Return the first frame of each window that lies in the video; at least one."""
        last = max(frames - self.span(clips, fps), 0)
        count = int(last / (self.every_s * fps)) + 1
        return np.minimum((np.arange(count) * self.every_s * fps).round(), last).astype(np.int64)

    def span(self, clips: Clips, fps: float) -> int:
        """Return how many frames a window spans."""
        return round(self.window_s * fps) or (clips.frames - 1) * clips.stride + 1

    def offsets(self, clips: Clips, fps: float) -> np.ndarray:
        """Return the (T,) frames of a window, counted from its start."""
        if not self.window_s:
            return clips.stride * np.arange(clips.frames)
        return np.linspace(0, self.span(clips, fps) - 1, clips.frames).round().astype(np.int64)


@dataclass(frozen=True)
class Part:
    """Some windows of one video: seconds of their starts and ends, and their values (N, ...)."""

    name: str
    start_N: np.ndarray
    end_N: np.ndarray
    value_N: np.ndarray


def apply_windows(
    compute: Callable[[Tensor], Tensor],
    source: Source,
    videos: Mapping[str, Video],
    windows: Windows,
    out: Path,
    dtype: type = np.float32,
) -> tuple[Iterator[Part], list[tuple[str, str]]]:
    """Compute every window of every video, in parts next to the output.

    Args:
        compute: from uint8 frames (B, T, H, W, C) to (B, ...).

    Returns:
        The parts in order, read one by one; and (name, reason) of videos that could not be read.

    Raises:
        UserError: the parts there are of other weights, windows or videos; no video could be read.
    """
    folder = out.with_name(out.name + ".parts")
    listed = hashlib.sha256("\n".join(videos).encode()).hexdigest()
    shapes = [source.clips.model_dump_json(), source.model.model_dump_json()]
    about = json.dumps([weights_digest(source.weights), listed, asdict(windows), *shapes])
    known = folder / "about.json"
    if known.exists() and known.read_text() != about:
        raise UserError(
            f"{folder}: holds parts of other weights, videos or windows; delete it, or choose "
            "another --out"
        )
    files.write(known, about)
    places, failed = list[tuple[str, Path]](), dict[str, str]()
    for place, (name, video) in enumerate(track(iter(videos.items()), "videos", len(videos))):
        try:
            plan = _plan(name, video, windows, source.clips)
            for start in range(0, len(plan.starts_N), PART):
                path = folder / f"{place:06d}-{start:08d}.npz"
                if not path.exists():
                    own = plan.starts_N[start : start + PART]
                    value_N: np.ndarray = _values(compute, source, plan, own).astype(dtype)
                    seconds = (own / plan.fps, (own + plan.span) / plan.fps)
                    with files.atomic_write(path) as temporary, temporary.open("wb") as file:
                        np.savez(file, start_N=seconds[0], end_N=seconds[1], value_N=value_N)
                places.append((name, path))
        except UserError as error:
            failed[name] = str(error)
    if not places:
        raise UserError(
            f"{out}: none of {len(videos)} videos could be read; the first: "
            f"{next(iter(failed.values()))}"
        )
    return map(_read, places), list(failed.items())


@dataclass(frozen=True)
class _Plan:
    path: str
    fps: float
    span: int
    starts_N: np.ndarray
    offset_T: np.ndarray
    frames: int


def _plan(name: str, video: Video, windows: Windows, clips: Clips) -> _Plan:
    info = probe_video(video.path)
    if not info.fps:
        raise UserError(f"{name}: says no frame rate; transcode it")
    if info.duration_s > LONGEST_S:
        raise UserError(
            f"{name}: lasts {info.duration_s / 3600:.1f} hours, and {LONGEST_S // 3600} are taken "
            "at most; cut it"
        )
    return _Plan(
        video.path,
        info.fps,
        windows.span(clips, info.fps),
        windows.starts(clips, info.frames, info.fps),
        windows.offsets(clips, info.fps),
        info.frames,
    )


def _values(
    compute: Callable[[Tensor], Tensor], source: Source, plan: _Plan, starts_N: np.ndarray
) -> np.ndarray:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    with torch.inference_mode():
        for batch_BTHWC in _batches(plan, starts_N, source.clips.size):
            frames_BTHWC = torch.from_numpy(batch_BTHWC).to(device)
            value_B = compute(with_channels(frames_BTHWC, source.model.channels))
            found.append(value_B.float().cpu().numpy())
    return np.concatenate(found)


def _batches(plan: _Plan, starts_N: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield the windows' frames, CLIPS windows at a time, from one pass over the file."""
    index_NT = np.minimum(starts_N[:, None] + plan.offset_T, plan.frames - 1)
    wanted_M = np.unique(index_NT)
    slot_of = {int(frame): place for place, frame in enumerate(wanted_M)}
    # Frames that a window still to come needs: overlapping windows share them.
    kept = dict[int, np.ndarray]()
    ready, box = 0, None
    with open_reading(plan.path, wanted_M, False) as reading:
        for place, frame_HWC in reading:
            height, width = frame_HWC.shape[:2]
            box = box or partial(test_box, height, width, 0, 1, size)()
            kept[place] = cut_frames(frame_HWC[None], box, size, False)[0]
            while ready < len(index_NT):
                own = index_NT[ready : ready + CLIPS]
                slots_BT = np.vectorize(slot_of.__getitem__)(own)
                if not all(slot in kept for slot in set(slots_BT.ravel().tolist())):
                    break
                yield np.stack([[kept[int(slot)] for slot in row] for row in slots_BT])
                ready += len(own)
                first = slot_of[int(index_NT[ready:].min())] if ready < len(index_NT) else None
                kept = {slot: x for slot, x in kept.items() if first is not None and slot >= first}


def _read(place: tuple[str, Path]) -> Part:
    name, path = place
    with np.load(path) as part:
        return Part(name, part["start_N"], part["end_N"], part["value_N"])
