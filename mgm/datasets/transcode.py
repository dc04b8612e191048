"""`mgm prepare DATASET --transcode`: every readable video of an index becomes an H.264 file that gives random clips fast.

    OUT/source/        the index of the sources
    OUT/transcode.json how the videos are encoded; written first, and the sign that OUT/videos is ours
    OUT/videos/        the videos, named as the sources are, but for .mp4
    OUT/done/          a line for each finished video, in a file a part; what is there and as long as its line says is left alone
    OUT/index.csv, index.json    over OUT/videos, with the sources' labels, splits and groups; index.json is written last

A video is written under a hidden name, opened again, and only then moved to its place: a kill or a full disk leaves no half of one.
What a copy is like, and its settings: `mgm.datasets.synthetic.encode`.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import av

from mgm.console import track
from mgm.datasets.files import FULL, Part, in_processes, info_line, read_infos, size_of, video_of
from mgm.datasets.index import Index, Video, new_index, require_splits, write_index
from mgm.datasets.synthetic.encode import ENCODING, GOP, encode
from mgm.errors import UserError
from mgm.runs.files import atomic_write, read_json, remove_parts, write
from mgm.video.decode import VideoInfo, probe_video

SHORT_SIDES = (256, 320)


def transcode_index(source: Index, out: Path, short_side: int = 256, processes: int = 1) -> Index:
    """The index over the transcoded videos of `source`, written to folder `out`; what parts or an earlier call finished is kept.

    A video that cannot be transcoded is listed among the excluded ones; calling again tries it again.

    Raises:
        UserError: another short side than 256 or 320, `out` holds other videos, the disk is full, or a split has no video left.
    """
    out = Path(os.path.abspath(out))
    infos, failed = _transcode(source, out, short_side, processes, source.videos, "all")
    names, root = _targets(source), out / "videos"
    videos = [
        video_of(root, names[name], video.label, video.split, video.group, infos[name])
        for video in source.videos
        if (name := source.name(video)) in infos
    ]
    require_splits(root, videos, failed)
    note = (
        f"{source.note}; transcoded from index {source.digest} to H.264 (short side at most {short_side}, groups of {GOP} frames, "
        f"x264 {ENCODING['preset']}, crf {ENCODING['crf']}, {ENCODING['tune']})"
    )
    for folder in {(root / name).parent for name in names.values()}:
        if folder.is_dir():
            remove_parts(folder)
    index = new_index(root, source.classes, videos, [*source.excluded, *failed], note)
    write_index(index, out)
    return index


def transcode_part(source: Index, out: Path, number: int, of: int, short_side: int = 256, processes: int = 1) -> Part:
    """Transcode every `of`-th video of `source`, from the `number`-th (1 to `of`) on, into folder `out`. Writes no index:
    `transcode_index` does, once all parts are there, and completes what is missing.

    Raises:
        UserError: as `transcode_index`.
    """
    videos = sorted(source.videos, key=source.name)[number - 1 :: of]
    infos, failed = _transcode(source, Path(os.path.abspath(out)), short_side, processes, videos, f"{number}-of-{of}")
    return Part(number, of, len(infos), tuple(failed))


def _transcode(
    source: Index, out: Path, short_side: int, processes: int, videos: Sequence[Video], part: str
) -> tuple[dict[str, VideoInfo], list[tuple[str, str]]]:
    """({name of a source: what its copy is}, [(name of a source, why it has none)]) of these videos."""
    _claim(out, short_side)
    targets, there = _targets(source), dict(read_infos(sorted((out / "done").glob("*.jsonl"), key=os.path.getmtime)))
    infos: dict[str, VideoInfo] = {}
    failed: list[tuple[str, str]] = []
    tasks = []
    for video in videos:
        name = source.name(video)
        target = out / "videos" / targets[name]
        if info := there.get((name, video.bytes, size_of(target))):
            infos[name] = info
        else:
            tasks.append((name, video.path, video.frames, video.bytes, target, short_side))
    if not tasks:
        return infos, failed
    (out / "index.json").unlink(missing_ok=True)  # until it is written anew there is no whole index
    (out / "done").mkdir(exist_ok=True)
    with (out / "done" / f"{part}.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")  # a line that a kill cut short ends here
        for name, result in track(in_processes(_transcode_one, tasks, processes), "transcoding", len(tasks)):
            if isinstance(result, str):
                failed.append((name, result))
            else:
                size, infos[name], source_bytes = result
                file.write(info_line((name, source_bytes, size), infos[name]))
                file.flush()
    return infos, sorted(failed)


def _claim(out: Path, short_side: int) -> None:
    """Make OUT/transcode.json, or see that the videos there were made as these will be."""
    if short_side not in SHORT_SIDES:
        raise UserError(f"--short-side {short_side} is neither {SHORT_SIDES[0]} nor {SHORT_SIDES[1]}; choose one of them")
    mark = out / "transcode.json"
    settings = {"short_side": short_side, "codec": "libx264", "options": ENCODING}
    if mark.is_file():
        there = read_json(mark)
        if other := [name for name in settings if there.get(name) != settings[name]]:
            name = other[0].replace("_", " ")
            then, now = (f"{name} {fields.get(other[0])}" for fields in (there, settings))
            raise UserError(f"{out}: holds videos transcoded with {then}, not with {now} as now; choose another --out")
    elif (out / "videos").exists():
        raise UserError(f"{out / 'videos'}: holds videos that `mgm prepare --transcode` did not make; choose another --out")
    (out / "videos").mkdir(parents=True, exist_ok=True)
    write(mark, json.dumps(settings, indent=1) + "\n")


def _targets(source: Index) -> dict[str, str]:
    """{name of a source: path of its copy below OUT/videos}. Of several sources that differ in their suffix alone, or lie outside the
    root, each has a name of its own."""
    targets: dict[str, str] = {}
    taken = set()
    for name in sorted(source.name(video) for video in source.videos):
        path = PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("..", "/")))
        target = path.with_suffix(".mp4")
        if target in taken or ".." in PurePosixPath(name).parts:
            target = path.with_name(f"{path.stem}.{hashlib.sha256(name.encode()).hexdigest()[:8]}.mp4")
        taken.add(target)
        targets[name] = str(target)
    return targets


def _transcode_one(task: tuple[str, str, int, int, Path, int]) -> tuple[str, str | tuple[int, VideoInfo, int]]:
    """(name, reason) of a video that cannot be transcoded, (name, (bytes of the copy, what it is, bytes of the source)) of one that was.

    Raises:
        UserError: the disk is full.
    """
    name, path, frames, size, target, short_side = task
    try:
        with atomic_write(target) as temporary:
            with temporary.open("wb") as file:
                written = encode(path, file, short_side)
            if written != frames:
                raise UserError(f"{written:,} of its {frames:,} frames decode; replace the file, or remove it")
            info = probe_video(temporary)
            if info.frames != frames:
                raise UserError(f"its copy has {info.frames:,} frames of {frames:,}; report this as a bug of mgm, or remove the file")
        return name, (target.stat().st_size, info, size)
    except UserError as error:
        return name, str(error).removeprefix(f"{path}: ")
    except (OSError, av.FFmpegError) as error:
        if error.errno in FULL:
            raise UserError(
                f"{target.parent}: no space left for the copy of {path} ({os.strerror(error.errno)}); free some and run again: "
                "what is done is kept"
            ) from None
        return name, f"cannot be transcoded ({error.strerror}); replace the file, or remove it"
