"""The generator: a set of short H.264 videos of what `mgm.data.synthetic.drawing` shows, laid out
as its namesake is published.

Of the kind ssv2 labels are directional: never flip them. Of the others a flipped video keeps its
label. Every machine hands the same pixels to the encoder; the bytes of the files may differ between
versions of x264.

    OUT/generated.json              what was asked for; written first, and the sign that OUT/videos
    is ours OUT/videos/                     and lists of labels and splits: see
    `mgm.data.synthetic.layouts` OUT/boxes.npz                   stem of a video -> (frames,
    sprites, 4) float32: top, left, bottom, right in pixels OUT/index.csv, index.json       ours;
    index.json is written last, without it the set is not whole
"""

import os
import shutil
from functools import partial
from itertools import chain
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from mgm.data.files import in_processes
from mgm.data.index import Index, Video, content_hash, fault, read_index, write_index
from mgm.data.synthetic.drawing import boxes, draw, scene
from mgm.data.synthetic.layouts import video_name, write_lists
from mgm.data.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.reading import read_arrays
from mgm.results.lock import folder_lock

GOP = 12


def generate(params: Synthetic, out: Path, processes: int = 1) -> Index:
    """Draw the set into folder `out`, unless it is there already. An interrupted call leaves no
    index.json; calling again starts over.

    Raises:
        UserError: `out` holds videos that this generator did not draw, or another process draws
            there.
    """
    if index := _finished(params, out):
        return index
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        return _finished(params, out) or _generate(params, out, processes)


def _generate(params: Synthetic, out: Path, processes: int) -> Index:
    videos, mark = out / "videos", out / "generated.json"
    if videos.exists() and not mark.exists():
        raise UserError(
            f"{videos}: holds videos that `mgm prepare synthetic` did not draw; choose another --out"
        )
    (out / "index.json").unlink(missing_ok=True)
    mark.write_text(params.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if videos.exists():
        shutil.rmtree(videos)
    videos.mkdir()
    np.savez(out / "boxes.npz", allow_pickle=False, **_draw_all(params, videos, processes))
    write_lists(params, out)
    index = _index(params, out)
    write_index(index, out)
    return index


def load_boxes(out: Path) -> dict[str, NDArray[np.float32]]:
    """Stem of a video's path -> (frames, sprites, 4):

    top, left, bottom, right in pixels, clipped to the frame.
    """
    try:
        return read_arrays(out / "boxes.npz")
    except UserError as error:
        raise UserError(
            f"{error}; delete the folder and run `mgm prepare synthetic` again"
        ) from None


def _encode(frames_THWC: NDArray[np.uint8], fps: int, path: Path) -> None:
    """H.264 with two B-frames between P-frames, one reference each way, and vectors down to 8 x 8
    blocks.
    """
    options = {
        "preset": "ultrafast",
        "crf": "18",
        "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=2:b-adapt=0:b-pyramid=none:ref=1:weightp=0:weightb=0:"
        "partitions=p8x8,b8x8:me=hex:merange=16:subme=2:rc-lookahead=0:threads=1",
    }
    size = frames_THWC.shape[1]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for planes in _yuv420(frames_THWC):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


def _yuv420(frames_THWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frames' planes, one below the other:

    (frames, size * 3 / 2, size). BT.601 in integers: swscale's rounding may vary.
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
    parts = [
        luma,
        chroma_u.reshape(count, size // 4, size),
        chroma_v.reshape(count, size // 4, size),
    ]
    return np.concatenate(parts, axis=1).astype(np.uint8)


def _draw_some(
    params: Synthetic, videos: Path, task: tuple[str, range]
) -> list[tuple[str, NDArray[np.float32]]]:
    split, indices = task
    drawn = []
    for index in indices:
        what = scene(params, split, index)
        path = videos / video_name(params, split, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        _encode(draw(params, what), params.fps, path)
        drawn.append((path.stem, boxes(params, what)))
    return drawn


def _draw_all(params: Synthetic, videos: Path, processes: int) -> dict[str, NDArray[np.float32]]:
    """Stem -> boxes of every video, drawn by as many processes;

    which process draws a video does not matter to it.
    """
    tasks = [
        (split, range(count)[start : start + 40])
        for split, count in params.counts.items()
        for start in range(0, count, 40)
    ]
    return dict(
        sorted(
            chain.from_iterable(in_processes(partial(_draw_some, params, videos), tasks, processes))
        )
    )


def _index(params: Synthetic, out: Path) -> Index:
    root = Path(os.path.abspath(out))
    facts = (params.frames, float(params.fps), params.size, params.size, "h264", True)
    videos = []
    for split, count in params.counts.items():
        for index in range(count):
            path = root / "videos" / video_name(params, split, index)
            row = (
                str(path),
                index % params.classes,
                split,
                path.stem,
                *facts,
                path.stat().st_size,
                content_hash(path),
            )
            videos.append(Video(*row))
    counts = f"{params.train_per_class} train and {params.test_per_class} test per class"
    note = f"generated videos (seed {params.seed}), split as drawn: {counts}"
    return Index(root, params.names, tuple(videos), (), params.digest, note)


def _finished(params: Synthetic, out: Path) -> Index | None:
    """The set's index if exactly this set lies in `out`, whole."""
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
