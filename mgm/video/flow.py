"""Optical flow as guidance: a track with one vector per 8 x 8 cell and frame of the store.

A track of flow has (dx, dy) from frame t-1 to frame t, in pixels of the store's frames. A cell's
vector is the mean over its pixels. Frame 0 has no motion information. Vectors are stored at the
objects' positions in frame t, like the codec's vectors. So they are the flow from t back to t-1,
with the sign changed.

- "raft-small": torchvision's RAFT-small, as in the paper (Table 4b), with its 12 updates.
- "dis": OpenCV's DIS, preset medium, on grey frames.

Both need a short side of at least 128 (RAFT) or 64 pixels (DIS). Smaller frames are enlarged, and
their flow is scaled back. Frames are padded at the right and the bottom to multiples of 8, which
RAFT needs, by repeating the edge.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mgm.device import best_device
from mgm.errors import UserError
from mgm.files import replacing
from mgm.spec import Flow
from mgm.video.motion import CELL
from mgm.video.store import read_clips
from mgm.video.track import Track, TrackWriter

SHORT = {"raft-small": 128, "dis": 64}  # least pixels of the short side that an estimator sees
PAIRS = 8  # pairs of frames per batch
# Estimates the K flows, (K, H, W, 2) float32, of K + 1 consecutive frames, KHWC uint8.
Estimate = Callable[[np.ndarray], np.ndarray]


def write_flow(
    mp4: str | Path, track: Track, npz: Path, method: Flow, weights: Path | None = None
) -> None:
    """Estimate the flow of a video of the store, and write its track.

    Args:
        track: the video's track, for its facts and the places of its frames.
        weights: a file of RAFT's weights. Default: torchvision's own, which are downloaded once.
    """
    estimate, writer = estimator(method, weights), TrackWriter()
    writer.add("")
    for start in range(0, len(track) - 1, PAIRS):
        index_T = np.arange(start, min(start + PAIRS + 1, len(track)))
        (frames_THWC,) = read_clips(str(mp4), track, [index_T], None, 0)
        for flow_HW2 in flow(frames_THWC, estimate, SHORT[method]):
            writer.add("", cell_means(flow_HW2).astype(np.float16))
    facts = replace(track.facts, vectors=method)
    with replacing(npz) as temporary:
        places = {"offset": track.offset_N, "size": track.size_N, "crc": track.crc_N}
        writer.write(temporary, facts, {"time": track.time_T, **places})


def flow(frames_THWC: np.ndarray, estimate: Estimate, short: int) -> np.ndarray:
    """Return the flow from each frame's predecessor, (T - 1, H, W, 2), of frames of any size."""
    import cv2

    height, width = frames_THWC.shape[1:3]
    scale = max(1.0, short / min(height, width))
    tall, wide = round(height * scale), round(width * scale)
    border = 0, -tall % 8, 0, -wide % 8, cv2.BORDER_REPLICATE
    fit = [cv2.copyMakeBorder(cv2.resize(frame, (wide, tall)), *border) for frame in frames_THWC]
    flow_THW2 = estimate(np.stack(fit))[:, :tall, :wide]
    if scale == 1:
        return flow_THW2
    small_THW2 = [cv2.resize(x, (width, height), interpolation=cv2.INTER_AREA) for x in flow_THW2]
    return np.stack(small_THW2) * np.array([width / wide, height / tall], np.float32)


def cell_means(flow_HW2: np.ndarray) -> np.ndarray:
    """Return the mean over each cell's pixels inside the frame."""
    rows, columns = (np.arange(0, side, CELL) for side in flow_HW2.shape[:2])
    sum_HW2 = np.add.reduceat(np.add.reduceat(flow_HW2, rows, 0), columns, 1)
    height_H = np.minimum(flow_HW2.shape[0] - rows, CELL)
    width_W = np.minimum(flow_HW2.shape[1] - columns, CELL)
    return sum_HW2 / (height_H[:, None] * width_W)[..., None].astype(np.float32)


@cache
def estimator(method: Flow, weights: Path | None = None) -> Estimate:
    """Return this process's estimator of a method. RAFT runs on the GPU if there is one."""
    return _raft_small(weights) if method == "raft-small" else _dis()


def _dis() -> Estimate:
    import cv2

    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def estimate(frames_THWC: np.ndarray) -> np.ndarray:
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_THWC]
        return np.stack([-dis.calc(now, before, None) for before, now in pairwise(grey)])

    return estimate


def _raft_small(weights: Path | None) -> Estimate:
    import torch
    from torchvision.models.optical_flow import Raft_Small_Weights, raft_small

    model = raft_small()
    if weights:
        try:
            model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        # What torch raises depends on what else the file is.
        except Exception as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{weights}: are not the weights of RAFT-small ({why})") from error
    else:
        own = Raft_Small_Weights.DEFAULT
        model.load_state_dict(own.get_state_dict(progress=False, check_hash=True))
    device = best_device()
    model.requires_grad_(False).eval().to(device)

    def estimate(frames_THWC: np.ndarray) -> np.ndarray:
        frames_TCHW = torch.from_numpy(frames_THWC).to(device).permute(0, 3, 1, 2).contiguous()
        frames_TCHW = frames_TCHW / 127.5 - 1  # as in torchvision's transform
        return -model(frames_TCHW[1:], frames_TCHW[:-1])[-1].permute(0, 2, 3, 1).cpu().numpy()

    return estimate
