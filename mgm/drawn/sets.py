"""The videos of a generated set, and their bounding boxes.

Every machine encodes the same pixels. The bytes of the files may differ between versions of x264.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgm.drawn import discs, people
from mgm.drawn.params import Synthetic, parse_params, place
from mgm.files import read_json

GOP = 12  # frames from a key frame to the next


def _drawing(params: Synthetic) -> Any:
    return people if params.layout == "people" else discs


def draw(params: Synthetic, name: str, path: Path) -> None:
    """Draw the video `name` of a set, and write it to `path` as H.264."""
    drawing = _drawing(params)
    frames_THWC = drawing.draw(params, drawing.scene(params, *place(name)))
    encode(yuv420(frames_THWC), params.fps, path, "yuv420p")


def load_boxes(out: Path) -> dict[str, NDArray[np.float32]]:
    """Return {video's name: bounding boxes (frames, sprites, 4)} of a prepared generated set.

    A box is top, left, bottom and right in pixels, clipped to the frame.
    """
    params = parse_params(read_json(out / "index.json")["drawn"], str(out / "index.json"))
    drawing = _drawing(params)
    scenes = {name: drawing.scene(params, *place(name)) for name in params.videos}
    return {name: drawing.boxes(params, scene) for name, scene in scenes.items()}


def encode(pictures: NDArray[np.uint8], fps: int, path: Path, layout: str) -> None:
    """Write H.264 with two B-frames between P-frames.

    A frame has one reference in each direction. Vectors have blocks of at least 8 x 8 pixels.

    Args:
        pictures: frames of PyAV's pixel format `layout`, such as gray or yuv420p.
    """
    import av

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


def yuv420(frames_THWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
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
