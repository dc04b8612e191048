"""Encode a video as H.264 from which random clips are read fast (`mgm prepare --copy mp4`)."""

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from mgm.errors import UserError
from mgm.reading import file_digest
from mgm.video.container import DecodedFrame, open_video
from mgm.video.motion import UPRIGHT, Rotation
from mgm.video.track import TrackWriter
from mgm.video.vectors import record
from mgm.video.videos import Video

GOP = 36  # frames from a key frame to the next. I-frames take longer to decode than P-frames
ENCODING = {
    "preset": "medium",
    "crf": "19",
    "tune": "fastdecode",  # no CABAC, no deblocking, no weighted prediction
    # I BBBBB P BBBBB P ... No frame refers to a B-frame, so a reader can skip B-frames. Every
    # vector refers to the nearest I- or P-frame, so its distance in frames is known. The file is
    # the same on every call and machine: x264 uses one thread, and no macroblock tree, since the
    # tree's AVX-512 code is not deterministic.
    "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=5:b-adapt=0:b-pyramid=none:"
    "ref=1:weightp=0:mbtree=0:threads=1",
}


def encode(source: Video, out: Path, short_side: int, track: BinaryIO) -> None:
    """Write a video as MP4, and its track.

    Frame i of the copy is picture i of the source, even if the source's frame rate varies. The
    copy's rate is the source's average.

    Pictures have 8 bits and 4:2:0 chroma. They are upright: turned and mirrored as `read_clip`
    does. They are never enlarged, and their sides become even. Sample aspect ratios are ignored, as
    in `read_clip`. Sound is dropped.

    Args:
        track: an open file, which gets the source's vectors and the copy's times.

    Raises:
        UserError: the video cannot be read, or not all its frames decode.
    """
    frames, rate = 0, Fraction(source.fps).limit_denominator(100_000) or Fraction(25)
    writer = TrackWriter(track)
    with (
        open_video(source.path) as video,
        out.open("wb") as file,
        av.open(file, "w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", rate=rate, options=ENCODING)
        reformatter = VideoReformatter()
        for picture in record(video, writer):
            if not frames:
                size = picture.size
                height, width = _fitted(*size, short_side)
                stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
                # RGB has no YUV matrix to keep.
                if not picture.frame.format.is_rgb:
                    stream.codec_context.colorspace = picture.frame.colorspace
            frame = _converted(picture, height, width, reformatter)
            frame.pts, frame.time_base = frames, 1 / stream.codec_context.framerate
            container.mux(stream.encode(frame))
            frames += 1
        if frames:
            container.mux(stream.encode())
        facts = {"method": "codec", "codec": video.codec, "vectors": video.has_vectors}
    facts["source"] = file_digest(Path(source.path))
    if frames != source.frames:
        raise UserError(f"{frames:,} of {source.frames:,} frames decode; replace the file")
    with open_video(out) as copy:
        writer.finish(copy, frames, size, pixels=(height, width), **facts)


def _fitted(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return a size with a short side of at most `short_side`.

    The sides are even and do not exceed the source's, but are at least 2.
    """
    scale = min(1.0, short_side / min(height, width))
    height, width = (
        max(2, min(round(side * scale / 2) * 2, side // 2 * 2)) for side in (height, width)
    )
    return height, width


def _converted(
    picture: DecodedFrame, height: int, width: int, reformatter: VideoReformatter
) -> av.VideoFrame:
    """Convert a decoded picture to an upright yuv420p frame of video range."""
    if picture.rotation.swapped:
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
    if picture.rotation != UPRIGHT:
        frame = av.VideoFrame.from_ndarray(
            _rotated(frame.to_ndarray(), height, width, picture.rotation), format="yuv420p"
        )
    # Let x264 choose the picture type. Otherwise it would repeat the source's.
    frame.pict_type = PictureType.NONE
    return frame


def _rotated(planes: np.ndarray, height: int, width: int, rotation: Rotation) -> np.ndarray:
    """Turn each plane of a yuv420p frame. PyAV stores the planes one below the other."""
    luma, first, second = np.split(planes.ravel(), [height * width, height * width * 5 // 4])
    shapes = (height, width), (height // 2, width // 2), (height // 2, width // 2)
    rotated = [rotation.apply(x.reshape(shape)) for x, shape in zip((luma, first, second), shapes)]
    return np.concatenate([plane.ravel() for plane in rotated]).reshape(
        -1, height if rotation.swapped else width
    )
