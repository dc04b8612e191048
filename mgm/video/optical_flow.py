"""Optical flow as guidance: motion from frame t-1 to frame t, one vector per 8 x 8 cell, in a
sidecar beside the video.

`clip.mp4.dis.npy` holds (T, H, W, 2) float16 for method "dis": (dx, dy) in pixels of the decoded
frame, forward in time; a cell has the mean over those of its pixels that lie in the frame. It
describes the frames that `read_clip` returns under the same indices, whatever the codec. Row 0 is
zero, for nothing comes before it; a row is NaN where its frame or the one before does not decode.
Neither is motion information.

Like the codec's vectors, a frame's motion lies where things are in *that* frame: it is the flow
from t back to t-1, its sign turned.

- "raft-small": torchvision's RAFT-small, as the paper uses (Table 4b), with its 12 updates.
- "dis": OpenCV's DIS, preset medium, on grey frames.

Frames whose short side is below 128 pixels (RAFT allows no less) or 64 (DIS: its patches of 8 are
too few) are enlarged to it, and their flow is scaled back. Both see frames padded at the right and
the bottom, by repeating the edge, to the multiples of 8 that RAFT asks for.

Only estimating flow needs OpenCV or torch; reading it does not.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mgm.errors import UserError
from mgm.reading import regular
from mgm.results.files import atomic_write
from mgm.spec import Flow
from mgm.video.decode import probe_video, read_frames
from mgm.video.motion import CELL, cells
from mgm.video.shard_reader import shard_of

SHORT = {"raft-small": 128, "dis": 64}  # pixels of the short side that an estimator sees, at least
PIXELS = 8 * 240 * 320  # of a batch of pairs, at most, unless one pair has more

Estimate = Callable[
    [np.ndarray], np.ndarray
]  # K + 1 frames in a row, KHWC uint8 -> their K flows, (K, H, W, 2) float32, see `motions`


class NoFlow(UserError):
    """A video has no sidecar, or one that does not fit it:

    no accident of one clip, so no reason to go on without.
    """


def sidecar(path: str | Path, method: Flow) -> Path:
    """Name the place of a video's flow.

    Raises:
        NoFlow: the video is in a shard.
    """
    if shard_of(path):
        raise NoFlow(
            f"{path}: flow lies beside files, and this is a shard; name the folder of the files' index (its `source`) in its place"
        )
    return Path(f"{path}.{method}.npy")


def read_flow(
    path: str | Path, method: Flow, index_T: np.ndarray, shape: tuple[int, int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The motion of chosen frames of a video, from its sidecar.

    Args:
        path: the video.
        method: which sidecar.
        index_T: frames, counted as `read_clip` counts them.
        shape: frames and cells (T, H, W) that the sidecar must have, where the caller knows.

    Returns:
        motion_THW2: float32, pixels from the frame before; zero where there is no motion
            information.
        has_motion_T: whether there is. The distance to the frame before is 1.

    Raises:
        NoFlow: there is no sidecar, it is no such array, or its shape is another.
    """
    whole_THW2, index_T = open_flow(path, method, shape), np.asarray(index_T, np.int64)
    if len(index_T) and index_T.max() >= len(whole_THW2):
        raise NoFlow(
            f"{sidecar(path, method)}: has {len(whole_THW2)} frames, frame {index_T.max()} was asked for; {_again(method)}"
        )
    motion_THW2 = whole_THW2[index_T].astype(np.float32)
    has_motion_T = (index_T > 0) & ~np.isnan(motion_THW2[:, 0, 0, 0])
    return np.where(has_motion_T[:, None, None, None], motion_THW2, np.float32(0)), has_motion_T


def open_flow(
    path: str | Path, method: Flow, shape: tuple[int, int, int] | None = None
) -> np.ndarray:
    """A video's whole sidecar, not yet read from disk:

    (T, H, W, 2) float16. Arguments and errors are those of `read_flow`.
    """
    file = sidecar(path, method)
    try:
        flow_THW2 = np.load(regular(file), mmap_mode="r")
    except FileNotFoundError:
        raise NoFlow(
            f"{file}: no such file, but guidance {method} needs it; {_again(method)}"
        ) from None
    except (ValueError, EOFError, OSError) as error:
        raise NoFlow(
            f"{file}: cannot be read as an array ({error}); delete it, then {_again(method)}"
        ) from None
    if flow_THW2.dtype != np.float16 or flow_THW2.ndim != 4 or flow_THW2.shape[3] != 2:
        raise NoFlow(
            f"{file}: is {flow_THW2.dtype} of shape {flow_THW2.shape}, not float16 of (T, H, W, 2); delete it, then {_again(method)}"
        )
    if shape is not None and flow_THW2.shape[:3] != tuple(shape):
        has, wants = (
            "{} frames of {} x {} cells".format(*dims) for dims in (flow_THW2.shape, shape)
        )
        raise NoFlow(f"{file}: has {has}, the video {wants}; {_again(method)}")
    return flow_THW2


def _again(method: Flow) -> str:
    return f"run `mgm flow INDEX_DIR --method {method}`, INDEX_DIR being the folder that `mgm prepare` made"


def write_flow(
    path: str | Path, method: Flow, estimate: Estimate, shape: tuple[int, int, int] | None = None
) -> Path:
    """Estimate the flow of a whole video and write its sidecar, which appears whole or not at all.
    Memory does not grow with the video.

    Args:
        path: the video.
        method: names the sidecar.
        estimate: `estimator(method, ...)`.
        shape: frames and cells (T, H, W) of the video; looked up where not given.

    Raises:
        UserError: the video cannot be read, changes its size, or is not of that shape.
    """
    if shape is None:
        info = probe_video(path)
        shape = info.frames, cells(info.height), cells(info.width)
    file = sidecar(path, method)
    unknown = np.full((*shape[1:], 2), np.nan, np.float16).tobytes()
    try:
        with atomic_write(file) as temporary, open(temporary, "wb") as out:
            np.lib.format.write_array_header_1_0(
                out, {"descr": "<f2", "fortran_order": False, "shape": (*shape, 2)}
            )
            rows = 0
            for t, motion_HW2 in motions(path, estimate):
                if t >= shape[0] or motion_HW2.shape[:2] != shape[1:]:
                    here = "frame {} of {} x {} cells".format(t, *motion_HW2.shape)
                    raise UserError(
                        f"{path}: {here} where {shape[0]} frames of {shape[1]} x {shape[2]} are listed; run `mgm prepare` again"
                    )
                out.write(unknown * (t - rows) + motion_HW2.astype("<f2").tobytes())
                rows = t + 1
            out.write(unknown * (shape[0] - rows))
    except OSError as error:
        raise UserError(
            f"{file}: cannot be written beside the video ({error.strerror}); make room, or the folder writable"
        ) from None
    return file


def motions(path: str | Path, estimate: Estimate) -> Iterator[tuple[int, np.ndarray]]:
    """(t, motion_HW2) of a video's frames in order, float32, one vector per cell: frame 0 with
    zeros, then every frame that decodes and follows one that does."""
    frames, last = list[np.ndarray](), -1  # a row without gaps, and the number of its last frame
    for t, frame_HWC in read_frames(path):
        if t != last + 1 or (len(frames) - 1) * frame_HWC.shape[0] * frame_HWC.shape[1] >= PIXELS:
            yield from _estimated(frames, last, estimate)
            frames = frames[-1:] if t == last + 1 else []
        if t == 0:
            yield 0, np.zeros((cells(frame_HWC.shape[0]), cells(frame_HWC.shape[1]), 2), np.float32)
        frames.append(frame_HWC)
        last = t
    yield from _estimated(frames, last, estimate)


def _estimated(
    frames: list[np.ndarray], last: int, estimate: Estimate
) -> Iterator[tuple[int, np.ndarray]]:
    """Motion of all frames but the first of a row that ends with frame `last`."""
    if len(frames) > 1:
        for t, flow_HW2 in enumerate(estimate(np.stack(frames)), last - len(frames) + 2):
            yield t, cell_means(flow_HW2)


def cell_means(flow_HW2: np.ndarray) -> np.ndarray:
    """Mean of each cell's pixels;

    of those that lie in the frame, where a cell hangs over its edge.
    """
    rows, columns = (np.arange(0, side, CELL) for side in flow_HW2.shape[:2])
    sum_HW2 = np.add.reduceat(np.add.reduceat(flow_HW2, rows, 0), columns, 1)
    height, width = (
        np.minimum(side - starts, CELL) for side, starts in zip(flow_HW2.shape, (rows, columns))
    )
    return sum_HW2 / (height[:, None] * width)[..., None].astype(np.float32)


def estimator(method: Flow, weights: Path | None = None, device: str = "cpu") -> Estimate:
    """The function that estimates flow. `weights`, as `raft_weights` returns them, and `device` are
    RAFT's.

    Raises:
        UserError: the weights do not fit.
    """
    if method == "dis":
        return _fitted(_dis(), SHORT[method])
    assert weights is not None, "raft-small needs weights; see raft_weights"
    return _fitted(_raft_small(weights, device), SHORT[method])


def _fitted(estimate: Estimate, short: int) -> Estimate:
    """`estimate`, given frames of a size that it can take (see the module's docstring)."""
    import cv2

    def fitted(frames_THWC: np.ndarray) -> np.ndarray:
        height, width = frames_THWC.shape[1:3]
        scale = max(1.0, short / min(height, width))
        tall, wide = round(height * scale), round(width * scale)
        fit = [
            cv2.resize(frame, (wide, tall), interpolation=cv2.INTER_LINEAR) if scale > 1 else frame
            for frame in frames_THWC
        ]
        fit = [
            cv2.copyMakeBorder(frame, 0, -tall % 8, 0, -wide % 8, cv2.BORDER_REPLICATE)
            for frame in fit
        ]
        flow_THW2 = estimate(np.stack(fit))[:, :tall, :wide]
        if scale == 1:
            return flow_THW2
        back = np.array([width / wide, height / tall], np.float32)
        return np.stack(
            [
                cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) * back
                for flow in flow_THW2
            ]
        )

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
    except Exception as error:  # torch.load raises whatever its unpickler met
        why = "; ".join(line.strip() for line in str(error).splitlines()[:2])
        raise UserError(
            f"{weights}: not RAFT-small's weights ({why}); give --weights a state_dict of torchvision's raft_small, such as "
            "raft_small_C_T_V2"
        ) from None
    model.requires_grad_(False).eval().to(device)

    def estimate(frames_THWC: np.ndarray) -> np.ndarray:
        frames_TCHW = (
            torch.from_numpy(frames_THWC).to(device).permute(0, 3, 1, 2).contiguous() / 127.5 - 1
        )  # as torchvision's transform
        return -model(frames_TCHW[1:], frames_TCHW[:-1])[-1].permute(0, 2, 3, 1).cpu().numpy()

    return estimate


def raft_weights(method: Flow, weights: Path | None) -> Path | None:
    """The file of the method's weights: the given one, or torchvision's own for RAFT-small,
    downloaded if need be; None for DIS.

    Raises:
        UserError: it cannot be downloaded, or the method has none.
    """
    if method == "dis":
        if weights is not None:
            raise UserError(
                f"--weights {weights}: dis has no weights; leave it out, or choose --method raft-small"
            )
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
        except Exception as error:  # no network, a proxy's page in its place, a full disk
            raise UserError(
                f"raft-small: torchvision's weights {file.name} cannot be downloaded ({type(error).__name__}: {error}); "
                f"pass --weights PATH, or put the file at {file}"
            ) from None
    return file
