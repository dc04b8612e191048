"""One video becomes an H.264 file that gives random clips fast.

Frame i of the copy is picture i of the source, whatever its time where the frame rate varies; the
copy's rate is the source's average. Pictures are upright (rotation metadata is applied, as
`read_clip` does), never enlarged, in 8 bits with 4:2:0 chroma; their sides become even. Sample
aspect ratios are ignored, as `read_clip` does. Sound is dropped.
"""

from fractions import Fraction
from itertools import chain
from typing import BinaryIO

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from mgm.video.container import DecodedFrame, open_video

GOP = 16  # a random clip begins at most 15 frames behind a key frame
ENCODING = {
    "preset": "medium",
    "crf": "20",
    "tune": "fastdecode",  # no CABAC, no deblocking, no weighted prediction
    # I BBB P BBB P BBB P BB P: B-frames are nobody's reference, so a reader leaves out those it
    # does not want, and every vector refers to the nearest I- or P-frame, so its distance in frames
    # is known. One thread, and no macroblock tree, whose AVX-512 code gives other bits from call to
    # call: the same file every time, whatever the machine's cores.
    "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=3:b-adapt=0:b-pyramid=none:ref=1:weightp=0:mbtree=0:threads=1",
}


def encode(path: str, file: BinaryIO, short_side: int) -> int:
    """Write the video at `path` to an open binary file as MP4, by the rules above. Returns the
    number of its frames.

    Raises:
        UserError: the source cannot be read.
        OSError, av.FFmpegError: of writing.
    """
    with open_video(path) as video:
        pictures = video.pictures(motion=False)
        first = next(pictures, None)
        if first is None:
            return 0
        rate = video.stream.average_rate or video.stream.guessed_rate or Fraction(25)
        height, width = _fitted(*first.size, short_side)
        reformatter = VideoReformatter()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream(
                "libx264", rate=Fraction(rate).limit_denominator(100_000), options=ENCODING
            )
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            if not first.frame.format.is_rgb:  # whose matrix is none; YUV keeps its own
                stream.codec_context.colorspace = first.frame.colorspace
            frames = 0
            for picture in chain([first], pictures):
                frame = _converted(picture, height, width, reformatter)
                frame.pts, frame.time_base = frames, 1 / stream.codec_context.framerate
                container.mux(stream.encode(frame))
                frames += 1
            container.mux(stream.encode())
    return frames


def _fitted(height: int, width: int, short_side: int) -> tuple[int, int]:
    """A size scaled down to a short side of at most `short_side`, in even numbers that do not
    exceed the source's (but for 2).
    """
    scale = min(1.0, short_side / min(height, width))
    height, width = (
        max(2, min(round(side * scale / 2) * 2, side // 2 * 2)) for side in (height, width)
    )
    return height, width


def _converted(
    picture: DecodedFrame, height: int, width: int, reformatter: VideoReformatter
) -> av.VideoFrame:
    """A picture as decoded becomes an upright frame in yuv420p of video range, whose type the
    encoder chooses.
    """
    if picture.rotation % 2:
        height, width = width, height
    frame = reformatter.reformat(
        picture.frame,
        width,
        height,
        "yuv420p",
        interpolation=Interpolation.BICUBIC,
        dst_color_range=ColorRange.MPEG,
        threads=1,
    )
    if picture.rotation:
        frame = av.VideoFrame.from_ndarray(
            _turned(frame.to_ndarray(), height, width, picture.rotation), format="yuv420p"
        )
    frame.pict_type = PictureType.NONE  # or x264 would repeat the source's
    return frame


def _turned(planes: np.ndarray, height: int, width: int, turns: int) -> np.ndarray:
    """The planes of yuv420p, one below the other as PyAV has them, each turned by quarter turns
    counter-clockwise.
    """
    luma, chroma = np.split(planes.ravel(), [height * width])
    turned = [
        np.rot90(luma.reshape(height, width), turns),
        *np.rot90(chroma.reshape(2, height // 2, width // 2), turns, axes=(1, 2)),
    ]
    return np.concatenate([plane.ravel() for plane in turned]).reshape(
        -1, height if turns % 2 else width
    )
