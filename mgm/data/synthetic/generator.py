"""Generate sets of short H.264 videos.

`mgm.data.synthetic.drawing` draws the videos. In kind ssv2, left and right are labels, so these
videos must not be flipped. In the other kinds a flipped video keeps its label. Every machine
encodes the same pixels. The bytes of the files may differ between versions of x264.

    OUT/generated.json          the parameters. Written first. It shows that mgm made OUT/videos
    OUT/videos/ID.mp4           ids count from 100000 (train) and 200000 (test). Kinds ucf101 and
                                hmdb51 have ID.avi, as their published sets
    OUT/tracks/                 see `mgm.data.tracks`
    OUT/boxes.npz               ID -> (frames, sprites, 4) float32: top, left, bottom, right in
                                pixels
    OUT/index.csv, index.json   index.json is written last, when the set is complete
"""

import os
import shutil
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from mgm.data.index import SPLITS, Index, Video, read_index, write_index
from mgm.data.opening import fault, in_processes
from mgm.data.synthetic import drawing, people
from mgm.data.synthetic.params import Kind, Synthetic
from mgm.data.tracks import make_tracks, missing_tracks
from mgm.errors import UserError
from mgm.reading import read_arrays
from mgm.results.lock import folder_lock
from mgm.spec import GENERATED

GOP = 12


def generate(params: Synthetic, out: Path, processes: int = 1) -> Index:
    """Draw the set into folder `out`, and its tracks, unless they are there already.

    An interrupted call leaves no index.json. The next call starts from the beginning.

    Raises:
        UserError: `out` holds videos that this generator did not draw, or another process is
            drawing there.
    """
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        known = _finished(params, out)
        index = known or _generate(params, out, processes)
        for name, reason in make_tracks(index, missing_tracks(index), processes=processes):
            raise UserError(f"{out / name}: {reason}")
        return known or write_index(index, out)


def _generate(params: Synthetic, out: Path, processes: int) -> Index:
    videos = out / "videos"
    mark = out / "generated.json"
    if videos.exists() and not mark.exists():
        raise UserError(
            f"{videos}: holds videos that `mgm prepare synthetic` did not draw; choose another "
            "--out"
        )
    (out / "index.json").unlink(missing_ok=True)
    mark.write_text(params.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if videos.exists():
        shutil.rmtree(videos)
    videos.mkdir()
    np.savez(out / "boxes.npz", allow_pickle=False, **_draw_all(params, videos, processes))
    return _index(params, out)


def load_boxes(out: Path) -> dict[str, NDArray[np.float32]]:
    """Return {stem of a video's path: bounding boxes (frames, sprites, 4)}.

    A box is top, left, bottom and right in pixels, clipped to the frame.
    """
    return read_arrays(out / "boxes.npz")


def encode(pictures: NDArray[np.uint8], fps: int, path: Path, layout: str) -> None:
    """Write H.264 with two B-frames between P-frames.

    A frame has one reference in each direction. Vectors have blocks of at least 8 x 8 pixels.

    Args:
        pictures: frames of PyAV's pixel format `layout`, such as gray or yuv420p.
    """
    frames = [av.VideoFrame.from_ndarray(picture, format=layout) for picture in pictures]
    options = {
        "preset": "ultrafast",
        "crf": "18",
        "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=2:b-adapt=0:"
        "b-pyramid=none:ref=1:weightp=0:weightb=0:"
        "partitions=p8x8,b8x8:me=hex:merange=16:subme=2:rc-lookahead=0:threads=1",
    }
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _yuv420(frames_THWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert RGB frames to yuv420p planes, one below the other: (frames, size * 3 / 2, size).

    BT.601 is computed in integers, since swscale's rounding may vary between machines.
    """
    count, size = frames_THWC.shape[:2]
    red, green, blue = np.moveaxis(frames_THWC.astype(np.int32), -1, 0)
    luma = (66 * red + 129 * green + 25 * blue + 128 >> 8) + 16
    red, green, blue = (
        rows[..., ::2] + rows[..., 1::2]
        for rows in (plane[:, ::2] + plane[:, 1::2] for plane in (red, green, blue))
    )
    chroma_u = (-38 * red - 74 * green + 112 * blue + 512 >> 10) + 128
    chroma_v = (112 * red - 94 * green - 18 * blue + 512 >> 10) + 128
    chroma = [plane.reshape(count, size // 4, size) for plane in (chroma_u, chroma_v)]
    return np.concatenate([luma, *chroma], axis=1).astype(np.uint8)


def _draw_some(
    params: Synthetic, videos: Path, task: tuple[str, range]
) -> list[tuple[str, NDArray[np.float32]]]:
    split, indices = task
    layout: Any = people if params.layout == "people" else drawing
    drawn = []
    for index in indices:
        scene = layout.scene(params, split, index)
        path = videos / video_name(params.kind, split, index)
        encode(_yuv420(layout.draw(params, scene)), params.fps, path, "yuv420p")
        drawn.append((path.stem, layout.boxes(params, scene)))
    return drawn


def _draw_all(params: Synthetic, videos: Path, processes: int) -> dict[str, NDArray[np.float32]]:
    """Draw every video, and return {stem: its boxes}. The result does not depend on `processes`."""
    tasks = [
        (split, range(count)[start : start + 40])
        for split, count in params.counts.items()
        for start in range(0, count, 40)
    ]
    drawn = in_processes(partial(_draw_some, params, videos), tasks, processes)
    return dict(sorted(chain.from_iterable(drawn)))


def _index(params: Synthetic, out: Path) -> Index:
    root = Path(os.path.abspath(out))
    facts = (params.frames, float(params.fps), params.size, params.size, "h264", True)
    videos = []
    for split, count in params.counts.items():
        for index in range(count):
            name = f"videos/{video_name(params.kind, split, index)}"
            path, track = root / name, str(root / "tracks" / name)
            own = path.stem, *facts, path.stat().st_size
            videos.append(Video(str(path), index % params.classes, split, *own, track))
    note = (
        f"{GENERATED} (seed {params.seed}), split as drawn: {params.train_per_class} train and "
        f"{params.test_per_class} test per class"
    )
    return Index(root, params.names, tuple(videos), (), params.digest, note)


def _finished(params: Synthetic, out: Path) -> Index | None:
    """Return the set's index if `out` holds exactly this set, and it is complete."""
    try:
        index = read_index(out)
    except UserError:
        return None
    whole = (
        index.digest == params.digest
        and (out / "boxes.npz").is_file()
        and not any(map(fault, index.videos))
    )
    return index if whole else None


def video_name(kind: Kind, split: str, index: int) -> str:
    """Return a video's name, which counts from 100000 (train) or 200000 (test)."""
    suffix = ".avi" if kind in ("ucf101", "hmdb51") else ".mp4"
    return f"{100_000 * (1 + SPLITS.index(split)) + index}{suffix}"
