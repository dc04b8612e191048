"""Optical flow as guidance: tracks with one vector per 8 x 8 cell and frame (`mgm.video.track`).

A track of flow has (dx, dy) from frame t-1 to frame t, float16, in pixels of the decoded frame. A
cell's vector is the mean over its pixels inside the frame. Frame 0 has no motion information, since
there is no earlier frame, nor has a frame if it or the previous one does not decode.

Vectors are stored at the objects' positions in frame t, like the codec's vectors. So they are the
flow from t back to t-1, with the sign changed.

- "raft-small": torchvision's RAFT-small, as in the paper (Table 4b), with its 12 updates.
- "dis": OpenCV's DIS, preset medium, on grey frames.

Both need a short side of at least 128 (RAFT) or 64 pixels (DIS). Smaller frames are enlarged, and
their flow is scaled back. Frames are padded at the right and the bottom to multiples of 8, which
RAFT needs, by repeating the edge.

Estimating flow needs OpenCV or torch, which are optional packages; reading it does not.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mgm.errors import UserError
from mgm.reading import regular
from mgm.spec import Flow
from mgm.video.container import open_video
from mgm.video.decode import read_pictures
from mgm.video.motion import CELL, cells
from mgm.video.track import TrackWriter, pack_cells
from mgm.video.videos import Video

SHORT = {"raft-small": 128, "dis": 64}  # least pixels of the short side that an estimator sees
PIXELS = 8 * 240 * 320  # most pixels per batch of pairs, unless one pair has more

# Estimates the K flows, (K, H, W, 2) float32, of K + 1 consecutive frames, KHWC uint8.
Estimate = Callable[[np.ndarray], np.ndarray]


def write_flow(
    video: Video, file: BinaryIO, method: Flow, estimate: Estimate, weights: str = ""
) -> None:
    """Estimate the flow of a whole video, and write its track to an open binary file.

    Memory does not grow with the video's length.

    Args:
        estimate: `estimator(method, ...)`.
        weights: SHA-256 of RAFT's weights.
    """
    writer, size = TrackWriter(file), (0, 0)
    for t, motion_HW2, shown in motions(video.path, estimate):
        size = shown
        if t >= video.frames:
            raise UserError(f"has a frame {t}, and the index has {video.frames} frames")
        # Frame 0 has no earlier frame.
        writer.add(t, "", True, pack_cells(motion_HW2.astype(np.float16)) if t else b"")
    if not writer.rows:
        raise UserError("no frame decodes")
    with open_video(video.path) as source:
        facts = {"method": method, "codec": source.codec, "vectors": True, "weights": weights}
        writer.finish(source, video.frames, size, **facts)


def motions(
    path: str | Path, estimate: Estimate
) -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
    """Yield (t, motion_HW2) of a video's frames in order, float32, one vector per cell.

    And height and width of the frames.

    Frame 0 has zeros. A later frame is yielded if it and the previous one decode.
    """
    # Consecutive frames, and the index of the last one.
    frames, last = list[np.ndarray](), -1
    for picture, frame_HWC in read_pictures(path):
        t = picture.index
        if t != last + 1 or (len(frames) - 1) * frame_HWC.shape[0] * frame_HWC.shape[1] >= PIXELS:
            yield from _estimated(frames, last, estimate)
            frames = frames[-1:] if t == last + 1 else []
        if t == 0:
            height, width, _ = frame_HWC.shape
            zero_HW2 = np.zeros((cells(height), cells(width), 2), np.float32)
            yield 0, zero_HW2, (height, width)
        frames.append(frame_HWC)
        last = t
    yield from _estimated(frames, last, estimate)


def _estimated(
    frames: list[np.ndarray], last: int, estimate: Estimate
) -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
    """Yield `motions` of consecutive frames except the first. The last has index `last`."""
    if len(frames) > 1:
        height, width, _ = frames[0].shape
        for t, flow_HW2 in enumerate(estimate(np.stack(frames)), last - len(frames) + 2):
            yield t, cell_means(flow_HW2), (height, width)


def cell_means(flow_HW2: np.ndarray) -> np.ndarray:
    """Return the mean over each cell's pixels inside the frame."""
    rows, columns = (np.arange(0, side, CELL) for side in flow_HW2.shape[:2])
    sum_HW2 = np.add.reduceat(np.add.reduceat(flow_HW2, rows, 0), columns, 1)
    height_H = np.minimum(flow_HW2.shape[0] - rows, CELL)
    width_W = np.minimum(flow_HW2.shape[1] - columns, CELL)
    return sum_HW2 / (height_H[:, None] * width_W)[..., None].astype(np.float32)


def estimator(method: Flow, weights: Path | None = None, device: str = "cpu") -> Estimate:
    """Return the function that estimates flow with a method.

    Args:
        weights: RAFT's weights, from `raft_weights`.
        device: RAFT's device.
    """
    if method == "dis":
        return _fitted(_dis(), SHORT[method])
    assert weights is not None, "raft-small needs weights; see raft_weights"
    return _fitted(_raft_small(weights, device), SHORT[method])


def _fitted(estimate: Estimate, short: int) -> Estimate:
    """Extend `estimate` to frames of any size, as the module's docstring describes."""
    import cv2

    def fitted(frames_THWC: np.ndarray) -> np.ndarray:
        height, width = frames_THWC.shape[1:3]
        scale = max(1.0, short / min(height, width))
        tall, wide = round(height * scale), round(width * scale)
        fit = []
        for frame in frames_THWC:
            if scale > 1:
                frame = cv2.resize(frame, (wide, tall), interpolation=cv2.INTER_LINEAR)
            border = 0, -tall % 8, 0, -wide % 8, cv2.BORDER_REPLICATE
            fit.append(cv2.copyMakeBorder(frame, *border))
        flow_THW2 = estimate(np.stack(fit))[:, :tall, :wide]
        if scale == 1:
            return flow_THW2
        back = np.array([width / wide, height / tall], np.float32)
        small = [
            cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) for flow in flow_THW2
        ]
        return np.stack(small) * back

    return fitted


def _dis() -> Estimate:
    import cv2

    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def estimate(frames_THWC: np.ndarray) -> np.ndarray:
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_THWC]
        return np.stack([-dis.calc(now, before, None) for before, now in pairwise(grey)])

    return estimate


def _raft_small(weights: Path, device: str) -> Estimate:
    import torch
    from torchvision.models.optical_flow import raft_small

    model = raft_small(weights=None)
    try:
        model.load_state_dict(torch.load(regular(weights), map_location="cpu", weights_only=True))
    except UserError:
        raise
    # torch.load may raise any exception of its unpickler.
    except Exception as error:
        why = "; ".join(line.strip() for line in str(error).splitlines()[:2])
        raise UserError(f"{weights}: not weights of torchvision's raft_small ({why})") from None
    model.requires_grad_(False).eval().to(device)

    def estimate(frames_THWC: np.ndarray) -> np.ndarray:
        frames_TCHW = torch.from_numpy(frames_THWC).to(device).permute(0, 3, 1, 2).contiguous()
        frames_TCHW = frames_TCHW / 127.5 - 1  # as in torchvision's transform
        return -model(frames_TCHW[1:], frames_TCHW[:-1])[-1].permute(0, 2, 3, 1).cpu().numpy()

    return estimate


def raft_weights(method: Flow, weights: Path | None) -> Path | None:
    """Return the file of a method's weights; None for DIS.

    The default for RAFT-small is torchvision's own file, which is downloaded if it is missing.
    """
    if method == "dis":
        if weights is not None:
            raise UserError(f"--weights {weights}: dis has no weights; leave it out")
        return None
    if weights is not None:
        return weights
    import torch
    from torchvision.models.optical_flow import Raft_Small_Weights

    url = Raft_Small_Weights.DEFAULT.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.exists():
        try:
            Raft_Small_Weights.DEFAULT.get_state_dict(progress=False, check_hash=True)
        # Examples: no network, a proxy's page instead of the file, a full disk.
        except Exception as error:
            raise UserError(
                f"raft-small: torchvision's weights {file.name} cannot be downloaded "
                f"({type(error).__name__}: {error}); pass --weights PATH, or put the file at {file}"
            ) from None
    return file
