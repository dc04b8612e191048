"""Make small videos for the tests.

They show a textured square on a textured background, in any codec that PyAV can write.
"""

import struct
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
from av.bitstream import BitStreamFilterContext

from mgm.video import store
from mgm.video.track import Track

ROOT = Path(__file__).parents[2]
# A real scene (docs/walk.mp4), and small files of other codecs and structures.
CARRIED = (
    ROOT / "docs" / "walk.mp4",
    *sorted((ROOT / "tests/data/videos").glob("*.*4")),
    *sorted((ROOT / "tests/data/videos").glob("*.avi")),
)
REPORTED = Path(__file__).parents[1] / "data" / "reported"


def stored(path, folder, short_side: int = 256) -> tuple[str, Track]:
    """Write a video to the store, and return its mp4 and its track."""
    mp4, npz = (Path(folder) / f"{Path(path).stem}.stored.{suffix}" for suffix in ("mp4", "npz"))
    store.write_video(Path(path), mp4, npz, short_side)
    return str(mp4), Track(npz)


def moving_square(frames=24, height=64, width=64, step=(4, 0), side=24, seed=0) -> np.ndarray:
    """Return frames (T, H, W, 3), uint8, of a bright square on a dim static background.

    The square moves by `step` (x, y) pixels per frame.
    """
    rng = np.random.default_rng(seed)

    def texture(h, w, low, high):
        coarse = rng.uniform(low, high, (-(-h // 4), -(-w // 4), 3))
        return coarse.repeat(4, 0).repeat(4, 1)[:h, :w].astype(np.uint8)

    background, square = texture(height, width, 20, 90), texture(side, side, 130, 250)
    frames_THWC = np.repeat(background[None], frames, 0)
    for t in range(frames):
        left = (8 + step[0] * t) % (width - side + 1)
        top = ((height - side) // 2 + step[1] * t) % (height - side + 1)
        frames_THWC[t, top : top + side, left : left + side] = square
    return frames_THWC


def pan(speed, frames, height=96, width=128):
    """Return frames (T, H, W, 3) of fine noise that moves right by `speed` pixels per frame."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (height, width + int(speed * frames) + 8)).astype(np.uint8)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.7)
    for t in range(frames, 0, -1):
        shift = np.float32([[1, 0, -speed * t], [0, 1, 0]])
        frame_HW = cv2.warpAffine(noise, shift, (width, height), flags=cv2.INTER_CUBIC)
        yield np.repeat(frame_HW[..., None], 3, 2)


def write_video(
    path,
    frames_THWC,
    codec="libx264",
    pix_fmt="yuv420p",
    times=None,
    rate=25,
    b_frames=None,
    gop=None,
    **options,
) -> str:
    """Encode frames; `times` are presentation times in 1 / 1000 s for a variable frame rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.options = {key.replace("_", "-"): str(value) for key, value in options.items()}
        stream.codec_context.thread_count = 1
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if gop is not None:
            stream.codec_context.gop_size = gop
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for t, image in enumerate(frames_THWC):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = int(times[t]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def write_matrix(path, a: int, b: int, c: int, d: int) -> str:
    """Overwrite an MP4's track matrix: a player maps (x, y) to (a x + c y, b x + d y)."""
    data = bytearray(Path(path).read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of other fields
    fixed = [value << 16 for value in (a, b, 0, c, d, 0, 0, 0)]
    data[at : at + 36] = struct.pack(">9i", *fixed, 1 << 30)
    Path(path).write_bytes(data)
    return str(path)


def encrypt(path, out) -> None:
    """Copy an MP4's packets, encrypted as streaming services do (common encryption)."""
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16}
    options["encryption_kid"] = "a7" * 16
    with av.open(str(path)) as source, av.open(str(out), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


def copied(source, out, change=None, bitstream=None, first=0, options=None) -> Path:
    """Copy the packets of a video to another file, as `ffmpeg -c copy` does.

    Args:
        first: the first packet that is copied.
        change: takes a packet and its number, and returns the packet to write.
        bitstream: an FFmpeg bitstream filter.
    """
    number = 0
    with av.open(str(source)) as given, av.open(str(out), "w", options=options) as written:
        stream = written.add_stream_from_template(given.streams.video[0])
        chain = bitstream and BitStreamFilterContext(bitstream, given.streams.video[0], stream)
        for packet in islice(given.demux(video=0), first, None):
            flushes = not packet.size
            if flushes and not chain:
                break
            for each in chain.filter(None if flushes else packet) if chain else [packet]:
                if change:
                    each = change(each, number)
                each.stream = stream
                written.mux(each)
                number += 1
    return Path(out)
