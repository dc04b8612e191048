"""The store: every frame of a video as a JPEG in an mp4 file, and its motion in a track.

`mgm prepare` writes both with `write_video`. Training reads them with `read_clips` or
`read_planes`: the track says where each JPEG lies, so no container is opened and nothing is sought.
FFmpeg, decord and torchcodec read the same mp4.

Frames are upright, 4:2:0 in the full range of BT.601 (as JPEG files are), and have even sides.
"""

import os
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from mgm.errors import UserError
from mgm.files import naming, replacing
from mgm.video.crop import Crop, cut
from mgm.video.decode import EXPORT_VECTORS, Picture, Source, plane_pixels
from mgm.video.motion import UPRIGHT
from mgm.video.planes import write_planes
from mgm.video.track import Facts, Track, TrackWriter

QP2LAMBDA = 118  # FF_QP2LAMBDA: FFmpeg's unit of quality
IN_MEMORY = 1 << 26  # bytes of JPEGs that wait in memory. More wait on disk

# --- Write ---


def write_video(
    source: Path, mp4: Path, npz: Path, short_side: int = 256, quality: int = 4
) -> Facts:
    """Decode a video once, and write its frames and its track, whole.

    Frame i of the store is picture i of the source, even if the source's frame rate varies. Frames
    are never enlarged. Sound is dropped.

    Args:
        short_side: most pixels of the frames' short side.
        quality: of JPEG, from 2 (best) to 31.
    """
    video, writer, scaler = Source(source), TrackWriter(), VideoReformatter()
    sizes, crcs = list[int](), list[int]()
    encoder = recoded = None
    # The rate is known at the end.
    with naming(mp4), SpooledTemporaryFile(IN_MEMORY, dir=str(mp4.parent)) as jpegs:
        for picture in video:
            if encoder is None:
                height, width = fitted(*picture.size, short_side)
                encoder = _jpeg_encoder(height, width, quality)
                if not video.has_vectors:
                    recoded = Recoder(source, height, width, video.rate)
            if recoded:
                recoded.add(picture)
            else:
                writer.add(picture.kind, *picture.cells())
            frame = upright(picture, height, width, ColorRange.JPEG, scaler)
            frame.pts, frame.time_base = len(sizes), encoder.time_base
            for packet in encoder.encode(frame):
                crcs.append(zlib.crc32(packet))
                sizes.append(jpegs.write(packet))
        if not recoded and not video.has_vectors:
            # All of its pictures are I-frames.
            recoded = Recoder(source, height, width, video.rate)
            for picture in Source(source, motion=False):
                recoded.add(picture)
        if recoded:
            writer = recoded.finish()
        jpegs.seek(0)
        with replacing(mp4) as temporary:
            rate = fraction(video.fps)
            offsets = _write_mp4(temporary, jpegs, sizes, height, width, rate)
            facts = video.facts("h264" if recoded else "source")
            size = temporary.stat().st_size
            facts = replace(facts, fps=float(rate), width=width, height=height, bytes=size)
        with replacing(npz) as temporary:
            places = {"offset": offsets, "size": sizes, "crc": crcs}
            writer.write(temporary, facts, {"time": video.times, **places})
    return facts


def fitted(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return a size with a short side of at most `short_side`.

    The sides are even and do not exceed the source's, but are at least 2.
    """
    scale = min(1.0, short_side / min(height, width))
    height, width = (
        max(2, min(round(side * scale / 2) * 2, side // 2 * 2)) for side in (height, width)
    )
    return height, width


def fraction(rate: float) -> Fraction:
    """Return a rate that FFmpeg can state. Pictures may lie days apart."""
    return max(Fraction(rate).limit_denominator(100_000), Fraction(1, 100_000))


def upright(
    picture: Picture, height: int, width: int, colours: ColorRange, scaler: VideoReformatter
) -> av.VideoFrame:
    """Scale a picture to an upright 4:2:0 frame of a range, in BT.601 if that is the full one."""
    rotation, full = picture.rotation, colours == ColorRange.JPEG
    frame = scaler.reformat(
        picture.frame,
        *((height, width) if rotation.swapped else (width, height)),
        "yuvj420p" if full else "yuv420p",
        dst_colorspace=Colorspace.ITU601 if full else None,
        interpolation=Interpolation.BICUBIC,
        dst_color_range=colours,
        threads=1,
    )
    if rotation != UPRIGHT:
        turned = av.VideoFrame(width, height, frame.format.name)
        for old, new in zip(frame.planes, turned.planes):
            plane_pixels(new)[..., 0] = rotation.apply(plane_pixels(old)[..., 0])
        frame = turned
    # Let encoders choose the picture type. Otherwise they would repeat the source's.
    frame.pict_type = PictureType.NONE
    return frame


def _jpeg_encoder(height: int, width: int, quality: int) -> Any:
    encoder: Any = av.CodecContext.create("mjpeg", "w")
    encoder.height, encoder.width, encoder.pix_fmt = height, width, "yuvj420p"
    encoder.time_base, encoder.thread_count = Fraction(1, 25), 1
    encoder.options = {"qmin": str(quality), "qmax": str(quality)}
    encoder.qscale = True
    encoder.global_quality = quality * QP2LAMBDA
    return encoder


def _write_mp4(
    path: Path, jpegs: Any, sizes: Sequence[int], height: int, width: int, rate: Fraction
) -> list[int]:
    """Write JPEGs as an mp4 file, and return where each begins in it."""
    with av.open(path, "w", format="mp4") as container:
        stream: Any = container.add_mux_stream("mjpeg", rate, width=width, height=height)
        stream.time_base = 1 / rate
        for index, size in enumerate(sizes):
            packet = av.Packet(jpegs.read(size))
            packet.stream, packet.time_base = stream, 1 / rate
            packet.pts = packet.dts = index
            packet.duration, packet.is_keyframe = 1, True
            container.mux(packet)
    with av.open(path) as container:
        return [packet.pos or 0 for packet in container.demux(video=0) if packet.size]


# I BBBBB P BBBBB P ... No frame refers to a B-frame, and every vector refers to the nearest I- or
# P-frame, so its distance in frames is known. The stream is the same on every call and machine:
# x264 uses one thread, and no macroblock tree, since the tree's AVX-512 code is not deterministic.
GOP = 36
MOST_PIXELS = 16_384  # of a side, that x264 takes
ENCODING = {
    "preset": "medium",
    "crf": "19",
    "tune": "fastdecode",  # no CABAC, no deblocking, no weighted prediction
    "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=5:b-adapt=0:b-pyramid=none:"
    "ref=1:weightp=0:mbtree=0:threads=1",
}


class Recoder:
    """Motion vectors of pictures whose codec has none: those of an H.264 encoding in memory."""

    def __init__(self, source: Path, height: int, width: int, fps: float):
        if max(height, width) > MOST_PIXELS:
            raise UserError(
                f"{source}: its frames would have {width} x {height} pixels, and a side has at "
                f"most {MOST_PIXELS:,}"
            )
        encoder: Any = av.CodecContext.create("libx264", "w")
        encoder.height, encoder.width, encoder.pix_fmt = height, width, "yuv420p"
        rate = fraction(fps)
        encoder.framerate, encoder.time_base, encoder.options = rate, 1 / rate, ENCODING
        decoder: Any = av.CodecContext.create("h264", "r")
        decoder.flags2 |= EXPORT_VECTORS
        decoder.thread_count = 1
        self.encoder, self.decoder, self.count = encoder, decoder, 0
        self.writer, self.scaler = TrackWriter(), VideoReformatter()

    def add(self, picture: Picture) -> None:
        sides = self.encoder.height, self.encoder.width
        frame = upright(picture, *sides, ColorRange.MPEG, self.scaler)
        frame.pts, frame.time_base = self.count, self.encoder.time_base
        self.count += 1
        self._take(self.encoder.encode(frame))

    def finish(self) -> TrackWriter:
        self._take([*self.encoder.encode(None), None])
        return self.writer

    def _take(self, packets: Iterable[av.Packet | None]) -> None:
        for packet in packets:
            for frame in self.decoder.decode(packet):
                picture = Picture(frame, "h264")
                self.writer.add(picture.kind, *picture.cells())


# --- Read ---


class _Tools(threading.local):
    """A thread's decoder and converter. New ones for each clip would take 2 % of its time."""

    def __init__(self) -> None:
        self.decoder: Any = av.CodecContext.create("mjpeg", "r")
        self.decoder.thread_count = 1
        self.converter = VideoReformatter()


TOOLS = _Tools()


def read_clips(
    path: str,
    track: Track,
    index_VT: Sequence[np.ndarray] | np.ndarray,
    crops: Sequence[Crop] | None,
    size: int,
    out_VTHWC: np.ndarray | None = None,
) -> np.ndarray:
    """Read clips of a video: (V, T, H, W, C) uint8 RGB. A frame of several clips is decoded once.

    Args:
        index_VT: frame numbers of each clip.
        crops: one per clip, scaled to `size` x `size` pixels. None: whole frames.
        out_VTHWC: where the pixels are written. None: a new array.
    """
    facts, index_VT = track.facts, np.asarray(index_VT)
    if out_VTHWC is None:
        sides = (size, size) if crops else (facts.height, facts.width)
        out_VTHWC = np.empty((*index_VT.shape, *sides, 3), np.uint8)
    for frame_HWC, places in _frames(path, track, index_VT, rgb=True):
        for v, t in places:
            out_VTHWC[v, t] = cut(frame_HWC, crops[v], size) if crops else frame_HWC
    return out_VTHWC


def read_planes(
    path: str,
    track: Track,
    index_VT: Sequence[np.ndarray] | np.ndarray,
    crops: Sequence[Crop],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Read clips of a video as planes (`mgm.video.planes`).

    Args:
        index_VT, crops: see `read_clips`.
        arrays: those of `no_planes`, of all clips.
    """
    for planes, places in _frames(path, track, np.asarray(index_VT), rgb=False):
        for v, t in places:
            write_planes(planes, crops[v], {name: array[v] for name, array in arrays.items()}, t)


def _frames(
    path: str, track: Track, index_VT: np.ndarray, rgb: bool
) -> Iterator[tuple[Any, list[tuple[int, ...]]]]:
    """Yield each frame that clips show, and its places: the clip, and the frame in it.

    Args:
        rgb: frames are (H, W, C) uint8 RGB, and those of a small video stay in memory. Otherwise
            they are planes, of luma and two of chroma.
    """
    facts, places_of = track.facts, defaultdict[int, list[tuple[int, ...]]](list)
    for place, index in np.ndenumerate(index_VT):
        places_of[int(index)].append(place)
    kept = track.pixels if rgb else {}
    for index in places_of.keys() & kept.keys():
        yield kept[index], places_of.pop(index)
    wanted = sorted(places_of)
    try:
        for index, data in zip(wanted, _jpegs(path, track, wanted)):
            frames = TOOLS.decoder.decode(av.Packet(data))
            if [(frame.height, frame.width) for frame in frames] != [(facts.height, facts.width)]:
                raise UserError(f"{path}: frame {index} is not a JPEG of its track's size")
            pixels: Any
            if rgb:
                pixels = TOOLS.converter.reformat(frames[0], format="rgb24", threads=1).to_ndarray()
                if track.small:
                    kept[index] = pixels = pixels.copy()
            else:
                pixels = [plane_pixels(plane)[..., 0] for plane in frames[0].planes]
            yield pixels, places_of[index]
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _jpegs(path: str, track: Track, index_N: Sequence[int]) -> Iterator[bytes]:
    """Yield the JPEGs of frames. They are what was written, to the bit."""
    try:
        with open(path, "rb", 0) as file:
            places = [(int(track.offset_N[n]), int(track.size_N[n])) for n in index_N]
            # The disk reads ahead of the decoder. Other systems than Linux have no such call.
            with suppress(AttributeError):
                for offset, size in places:
                    os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)
            for index, (offset, size) in zip(index_N, places):
                data = os.pread(file.fileno(), size, offset)
                # A decoder takes damaged JPEGs too, and fills in the rest.
                if zlib.crc32(data) != track.crc_N[index]:
                    raise UserError(
                        f"{path}: frame {index} is damaged; run the same `mgm prepare` again, "
                        "with --check"
                    )
                yield data
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def check_video(path: str, track: Track) -> None:
    """Check that all frames of a stored video, and all of its motion, are what was written."""
    for _ in _jpegs(path, track, range(len(track))):
        pass
    check_track(track)


def check_track(track: Track) -> None:
    """Check that all motion of a track can be read, which needs all of its bytes."""
    for index in range(len(track)):
        track[index]
