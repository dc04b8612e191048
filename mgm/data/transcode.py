"""`mgm prepare DATASET --transcode`: every readable video of an index becomes an H.264 file that
gives random clips fast.

    OUT/source/        the index of the sources OUT/transcode.json how the videos are encoded;
    written first, and the sign that OUT/videos is ours OUT/videos/        the videos, named as the
    sources are, but for .mp4; one that has its source's time of change is left alone OUT/index.csv,
    index.json    over OUT/videos, with the sources' labels, splits and groups; index.json is
    written last

A video is written under a hidden name and then moved to its place: a kill or a full disk leaves no
half of one.
What a copy is like, and its settings: `mgm.data.encode`.
"""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import av

from mgm.console import track
from mgm.data.encode import ENCODING, GOP, encode
from mgm.data.files import FULL, Part, in_processes, open_all
from mgm.data.index import Index, new_index, require_splits, write_index
from mgm.errors import UserError
from mgm.reading import read_json
from mgm.results.files import atomic_write, remove_parts, write

SHORT_SIDES = (256, 320)


def transcode(
    source: Index,
    out: Path,
    short_side: int = 256,
    processes: int = 1,
    part: tuple[int, int] | None = None,
) -> Index | Part:
    """The index over the transcoded videos of `source`, written to folder `out`; what parts or an
    earlier call finished is kept.

    A video that cannot be transcoded is listed among the excluded ones; calling again tries it
    again. With `part` (i, n), transcode every n-th video from the i-th (1 to n) on, and write no
    index: a call without does, once all are there.

    Raises:
        UserError: another short side than 256 or 320, `out` holds other videos, the disk is full,
            or a split has no video left.
    """
    out = Path(os.path.abspath(out))
    _claim(out, short_side)
    root, targets = out / "videos", _targets(source)
    videos = (
        sorted(source.videos, key=source.name)[part[0] - 1 :: part[1]] if part else source.videos
    )
    tasks = [
        (video.path, video.frames, root / targets[source.name(video)], short_side)
        for video in videos
    ]
    if tasks := [task for task in tasks if not _is_done(task[0], task[2])]:
        (out / "index.json").unlink(
            missing_ok=True
        )  # until it is written anew there is no whole index
    name_of = {video.path: source.name(video) for video in videos}
    done = (
        track(in_processes(_transcode_one, tasks, processes), "transcoding", len(tasks))
        if tasks
        else ()
    )
    failed = sorted((name_of[path], reason) for path, reason in done if reason)
    if part:
        return Part(*part, len(videos) - len(failed), tuple(failed))

    for folder in {(root / target).parent for target in targets.values()}:
        if folder.is_dir():
            remove_parts(folder)
    lost = dict(failed)
    infos, unreadable = open_all(
        root,
        [targets[name] for name in name_of.values() if name not in lost],
        out / "checked.jsonl",
    )
    copies = [
        replace(infos[target], label=video.label, split=video.split, group=video.group)
        for video in videos
        if (target := targets[source.name(video)]) in infos
    ]
    require_splits(root, copies, failed)
    note = (
        f"{source.note}; transcoded from index {source.digest} to H.264 (short side at most {short_side}, groups of {GOP} frames, "
        f"x264 {ENCODING['preset']}, crf {ENCODING['crf']}, {ENCODING['tune']})"
    )
    index = new_index(root, source.classes, copies, [*source.excluded, *failed, *unreadable], note)
    write_index(index, out)
    return index


def _is_done(path: str, target: Path) -> bool:
    """Tell whether a copy is there, of the source as it is;

    file systems differ in parts of a second.
    """
    try:
        return int(os.stat(path).st_mtime) == int(target.stat().st_mtime)
    except OSError:
        return False


def _claim(out: Path, short_side: int) -> None:
    """Make OUT/transcode.json, or see that the videos there were made as these will be."""
    if short_side not in SHORT_SIDES:
        raise UserError(
            f"--short-side {short_side} is neither {SHORT_SIDES[0]} nor {SHORT_SIDES[1]}; choose one of them"
        )
    mark = out / "transcode.json"
    settings = {"short_side": short_side, "codec": "libx264", "options": ENCODING}
    if mark.is_file():
        there = read_json(mark)
        if other := [name for name in settings if there.get(name) != settings[name]]:
            name = other[0].replace("_", " ")
            then, now = (f"{name} {fields.get(other[0])}" for fields in (there, settings))
            raise UserError(
                f"{out}: holds videos transcoded with {then}, not with {now} as now; choose another --out"
            )
    elif (out / "videos").exists():
        raise UserError(
            f"{out / 'videos'}: holds videos that `mgm prepare --transcode` did not make; choose another --out"
        )
    (out / "videos").mkdir(parents=True, exist_ok=True)
    write(mark, json.dumps(settings, indent=1) + "\n")


def _targets(source: Index) -> dict[str, str]:
    """{name of a source: path of its copy below OUT/videos}. Of several sources that differ in
    their suffix alone, or lie outside the root, each has a name of its own."""
    targets: dict[str, str] = {}
    taken = set()
    for name in sorted(source.name(video) for video in source.videos):
        path = PurePosixPath(
            *(part for part in PurePosixPath(name).parts if part not in ("..", "/"))
        )
        target = path.with_suffix(".mp4")
        if target in taken or ".." in PurePosixPath(name).parts:
            target = path.with_name(
                f"{path.stem}.{hashlib.sha256(name.encode()).hexdigest()[:8]}.mp4"
            )
        taken.add(target)
        targets[name] = str(target)
    return targets


def _transcode_one(task: tuple[str, int, Path, int]) -> tuple[str, str]:
    """(path, why it cannot be transcoded) of a video; the reason is empty where it was.

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
            os.utime(temporary, (time := os.stat(path).st_mtime, time))
        return path, ""
    except UserError as error:
        return path, str(error).removeprefix(f"{path}: ")
    except (OSError, av.FFmpegError) as error:
        if error.errno in FULL:
            raise UserError(
                f"{target.parent}: no space left for the copy of {path} ({os.strerror(error.errno)}); free some and run again: "
                "what is done is kept"
            ) from None
        return path, f"cannot be transcoded ({error.strerror}); replace the file, or remove it"
