"""`mgm prepare DATASET --transcode`: write H.264 files from which random clips are read fast.

Each readable video of an index becomes one file.

    OUT/source/                 the index of the sources
    OUT/transcode.json          the encoder's settings. Written first. It shows that mgm made
                                OUT/videos
    OUT/copied*.jsonl           the content of each video's source, one file per part. A video is
                                up to date if its source still has this content
    OUT/videos/                 the videos, with the sources' names and the suffix .mp4
    OUT/index.csv, index.json   the index of OUT/videos, with the sources' labels, splits and
                                groups. index.json is written last

A video is written under a hidden name and then renamed, so a killed process or a full disk leaves
no incomplete video.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from mgm.console import track
from mgm.data.index import Index, Video, new_index, write_index
from mgm.data.opening import (
    FULL,
    PreparedPart,
    append_rows,
    in_processes,
    open_all,
    read_rows,
    require_same,
)
from mgm.errors import UserError
from mgm.reading import read_json
from mgm.results.atomic import atomic_write, remove_parts, write
from mgm.video.container import DecodedFrame, open_video
from mgm.video.motion import UPRIGHT, Turn
from mgm.video.shard_reader import inside

SHORT_SIDES = (256, 320)


def transcode(
    source: Index,
    out: Path,
    short_side: int = 256,
    processes: int = 1,
    part: tuple[int, int] | None = None,
) -> Index | PreparedPart:
    """Transcode the videos of `source`, and write their index to folder `out`.

    Videos that earlier calls finished are kept. A video that cannot be transcoded is listed among
    the excluded ones. The next call tries it again.

    Args:
        part: (i, n) transcodes every n-th video, starting at the i-th (1 to n), and writes no
            index. A call without `part` transcodes the missing videos and writes the index.

    Returns:
        The index of the transcoded videos, or what one part did.

    Raises:
        UserError: the short side is neither 256 nor 320, `out` holds other videos, the disk is
            full, or a split has no video left.
    """
    out = Path(os.path.abspath(out))
    _claim(out, short_side)
    root, target_of, copied = out / "videos", _targets(source), _copied(out)
    videos = (
        sorted(source.videos, key=source.name)[part[0] - 1 :: part[1]] if part else source.videos
    )
    todo = {
        video.path: video
        for video in videos
        if copied.get(target := target_of[video]) != video.content or not (root / target).is_file()
    }
    failed = list[tuple[str, str]]()
    if todo:
        # The old index does not match the new videos.
        (out / "index.json").unlink(missing_ok=True)
        record = out / ("copied-{}-of-{}.jsonl".format(*part) if part else "copied.jsonl")
        tasks = [
            (path, video.frames, root / target_of[video], short_side)
            for path, video in todo.items()
        ]
        results = in_processes(transcode_one, tasks, processes)
        for path, reason in track(results, "transcoding", len(tasks)):
            if reason:
                failed.append((source.name(todo[path]), reason))
            else:
                row = target_of[todo[path]], todo[path].content, time.time_ns()
                append_rows(record, [row])
    failed.sort()
    if part:
        return PreparedPart(*part, len(videos) - len(failed), tuple(failed))

    for folder in {(root / target).parent for target in target_of.values()}:
        if folder.is_dir():
            remove_parts(folder)
    lost = dict(failed)
    done = {target_of[video]: video for video in videos if source.name(video) not in lost}
    infos, unreadable = open_all(root, list(done), out / "checked.jsonl")
    copies = [
        replace(info, label=video.label, split=video.split, group=video.group)
        for info, video in ((info, done[target]) for target, info in infos.items())
    ]
    note = (
        f"{source.note}; transcoded from index {source.digest} to H.264 (short side at most "
        f"{short_side}, groups of {GOP} frames, "
        f"x264 {ENCODING['preset']}, crf {ENCODING['crf']}, {ENCODING['tune']})"
    )
    index = new_index(root, source.classes, copies, [*source.excluded, *failed, *unreadable], note)
    write_index(index, out)
    return index


def _copied(out: Path) -> dict[str, str]:
    """Return the content of each finished copy's source, by the copy's path below OUT/videos."""
    rows = list[tuple[int, str, str]]()
    for record in out.glob("copied*.jsonl"):
        for row in read_rows(record):
            with suppress(ValueError, TypeError, OverflowError):
                target, content, written = row
                rows.append((int(written), str(target), str(content)))
    return {target: content for _, target, content in sorted(rows)}


def _claim(out: Path, short_side: int) -> None:
    """Write OUT/transcode.json, or check that the videos there have the same settings."""
    if short_side not in SHORT_SIDES:
        raise UserError(
            f"--short-side {short_side} is neither {SHORT_SIDES[0]} nor {SHORT_SIDES[1]}; choose "
            "one of them"
        )
    mark = out / "transcode.json"
    settings = {"short_side": short_side, "codec": "libx264", "options": ENCODING}
    if mark.is_file():
        require_same(out, read_json(mark, dict[str, Any], "choose another --out"), settings)
    elif (out / "videos").exists():
        raise UserError(
            f"{out / 'videos'}: holds videos that `mgm prepare --transcode` did not make; choose "
            "another --out"
        )
    (out / "videos").mkdir(parents=True, exist_ok=True)
    write(mark, json.dumps(settings, indent=1) + "\n")


def _targets(source: Index) -> dict[Video, str]:
    """Return the path of each source's copy below OUT/videos.

    A digest is added to the name if two sources differ only in their suffix, or if a source is
    outside the root.
    """
    targets: dict[Video, str] = {}
    taken = set()
    for video in sorted(source.videos, key=source.name):
        name = source.name(video)
        path = PurePosixPath(inside(name))
        target = path.with_suffix(".mp4")
        if target in taken or ".." in name.split("/"):
            digest = hashlib.sha256(name.encode()).hexdigest()[:8]
            target = path.with_name(f"{path.stem}.{digest}.mp4")
        taken.add(target)
        targets[video] = str(target)
    return targets


def transcode_one(task: tuple[str, int, Path, int]) -> tuple[str, str]:
    """Transcode one video.

    Args:
        task: the video, its number of frames, the copy and its short side.

    Returns:
        (path, why it cannot be transcoded). The reason is empty on success.

    Raises:
        UserError: the disk is full.
    """
    path, frames, target, short_side = task
    try:
        with atomic_write(target) as temporary:
            with temporary.open("wb") as file:
                written = encode(path, file, short_side)
            if written != frames:
                raise UserError(
                    f"{written:,} of its {frames:,} frames decode; replace the file, or remove it"
                )
        return path, ""
    except UserError as error:
        return path, str(error).removeprefix(f"{path}: ")
    except (OSError, av.FFmpegError) as error:
        if error.errno in FULL:
            raise UserError(
                f"{target.parent}: no space left for the copy of {path} "
                f"({os.strerror(error.errno)}); free some and run again (what is done is kept)"
            ) from None
        return path, f"cannot be transcoded ({error.strerror}); replace the file, or remove it"


GOP = 16  # frames. A random clip starts at most 15 frames after a key frame
ENCODING = {
    "preset": "medium",
    "crf": "20",
    "tune": "fastdecode",  # no CABAC, no deblocking, no weighted prediction
    # I BBB P BBB P BBB P BB P. No frame refers to a B-frame, so a reader can skip B-frames. Every
    # vector refers to the nearest I- or P-frame, so its distance in frames is known. The file is
    # the same on every call and machine: x264 uses one thread, and no macroblock tree, since the
    # tree's AVX-512 code is not deterministic.
    "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=3:b-adapt=0:b-pyramid=none:"
    "ref=1:weightp=0:mbtree=0:threads=1",
}


def encode(path: str, file: BinaryIO, short_side: int) -> int:
    """Write the video at `path` to an open binary file as MP4, and return its number of frames.

    Frame i of the copy is picture i of the source, even if the source's frame rate varies. The
    copy's rate is the source's average.

    Pictures have 8 bits and 4:2:0 chroma. They are upright: rotation metadata is applied, as in
    `read_clip`. They are never enlarged, and their sides become even. Sample aspect ratios are
    ignored, as in `read_clip`. Sound is dropped.

    Raises:
        UserError: the source cannot be read.
        OSError, av.FFmpegError: the copy cannot be written.
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
            # RGB has no YUV matrix to keep.
            if not first.frame.format.is_rgb:
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
    if picture.turn.swapped:
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
    if picture.turn != UPRIGHT:
        frame = av.VideoFrame.from_ndarray(
            _turned(frame.to_ndarray(), height, width, picture.turn), format="yuv420p"
        )
    # Let x264 choose the picture type. Otherwise it would repeat the source's.
    frame.pict_type = PictureType.NONE
    return frame


def _turned(planes: np.ndarray, height: int, width: int, turn: Turn) -> np.ndarray:
    """Turn each plane of a yuv420p frame. PyAV stores the planes one below the other."""
    luma, first, second = np.split(planes.ravel(), [height * width, height * width * 5 // 4])
    shapes = (height, width), (height // 2, width // 2), (height // 2, width // 2)
    turned = [turn.apply(x.reshape(shape)) for x, shape in zip((luma, first, second), shapes)]
    return np.concatenate([plane.ravel() for plane in turned]).reshape(
        -1, height if turn.swapped else width
    )
