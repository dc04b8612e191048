"""List the videos of published datasets from their official files.

A function per dataset returns its class names and its rows. Where a source lacks the official
lists, lists `path label` are used, as VideoMAE and mmaction2 have them, or else those that this
package carries (`carried/`). Videos are looked up below the source as the lists say, then by file
name.

The sets derived from prepared ones refer to the same files: Mini-K200, and the two tasks of partial
domain adaptation (Table 3). A task trains on 14 classes of a source dataset, and tests on videos of
a target dataset, of the 7 classes that both share.

This module is light to import, since a study calls `task_digest` before any set is drawn.
"""

import csv
import hashlib
import json
import lzma
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, Field, TypeAdapter

from mgm.data.folder import (
    Files,
    key,
    labelled,
    listing,
    of_lists,
    split_lists,
    stem,
)
from mgm.data.index import SPLITS, Index, read_index, write_index
from mgm.data.lists import Row, read_columns, read_list, read_names
from mgm.errors import UserError, valid
from mgm.files import read_json, read_text
from mgm.spec import GENERATED, PUBLISHED, SHARED

LISTS = Path(__file__).parent / "carried"
Lists = tuple[tuple[str, ...], list[Row]]
T = TypeVar("T")


def carried(name: str) -> str:
    """Return the text of a list in this package."""
    data = (LISTS / name).read_bytes()
    return (lzma.decompress(data) if name.endswith(".xz") else data).decode()


def k400(source: Path, split: int) -> Lists:
    """Kinetics-400: annotations/*.csv or *.csv, and files ID_START_END.mp4 of six-digit seconds.

    The test split is the validation split. Clips of a YouTube video are a group.
    """
    split_of = {"train": "train", "val": "test", "validate": "test", "validation": "test"}
    official = {"label", "youtube_id", "time_start", "time_end", "split"}
    rows = list[Row]()
    for path in sorted([*source.glob("*.csv"), *source.glob("annotations/*.csv")]):
        for where, line in read_columns(path, official):
            if side := split_of.get(line["split"]):
                try:
                    start, end = (int(float(line[f"time_{at}"])) for at in ("start", "end"))
                except (ValueError, OverflowError):
                    raise UserError(f"{where}: a time is no number") from None
                name = f"{line['youtube_id']}_{start:06}_{end:06}"
                place = f"{line['split']}/{name}"
                rows.append(
                    Row(f"{name}.mp4", line["label"], side, line["youtube_id"], where, place)
                )
    return tuple(sorted({row.label for row in rows})), rows


class _Something(BaseModel):
    id: int | str
    template: str


class _Dive(BaseModel):
    vid_name: str
    label: int = Field(ge=0)


def _json(path: Path, kind: type[T]) -> T:
    """Return the content of a JSON file, as a type that pydantic checks."""
    with valid(f"{path}: "):
        return TypeAdapter(kind).validate_python(read_json(path))


def ssv2(source: Path, split: int) -> Lists:
    """Something-Something v2: labels.json, train.json, validation.json, and ID.webm.

    The lists are in the source or in its folder labels, and may begin with their former
    "something-something-v2-". The test split is the validation split.
    """
    lists = {
        path.stem.removeprefix("something-something-v2-"): path
        for path in (*source.glob("*.json"), *source.glob("labels/*.json"))
    }
    if not {"labels", "train", "validation"} <= lists.keys():
        return (), []
    number_of = _json(lists["labels"], dict[str, int])
    return tuple(sorted(number_of, key=number_of.__getitem__)), [
        Row(f"{line.id}.webm", re.sub(r"[][]", "", line.template), side, where=str(lists[name]))
        for side, name in (("train", "train"), ("test", "validation"))
        for line in _json(lists[name], list[_Something])
    ]


def ucf101(source: Path, split: int) -> Lists:
    """UCF101: ucfTrainTestlist, or the carried counts of clips, and CLASS/v_CLASS_gNN_cMM.avi.

    Clips of a class and a group come from the same source video. Split N tests groups 7N-6 to 7N.
    """
    folder = source / "ucfTrainTestlist"
    if folder.is_dir():
        names = read_names(folder / "classInd.txt")
        classes = tuple(names[number] for number in sorted(names, key=int))
        lists = {side: folder / f"{side}list{split:02}.txt" for side in SPLITS}
        listed = [row._replace(split=side) for side in SPLITS for row in read_list(lists[side])]
        rows = [(row.path, row.split) for row in labelled(listed, names)]
    else:
        counts = dict(list(csv.reader(carried("ucf101.csv").splitlines()))[1:])
        classes = tuple(counts)
        rows = [
            (f"{name}/v_{name}_g{group:02}_c{clip:02}.avi", SPLITS[(group - 1) // 7 == split - 1])
            for name, clips in counts.items()
            for group, count in enumerate(clips, start=1)
            for clip in range(1, int(count) + 1)
        ]
    return classes, [
        Row(path, path.partition("/")[0], side, stem(path).rpartition("_")[0])
        for path, side in rows
    ]


def hmdb51(source: Path, split: int) -> Lists:
    """HMDB51: CLASS_test_splitN.txt, or the carried lists of split 1, and CLASS/NAME.avi.

    A name begins with the film that it is from. Marks are 0 for unused, 1 for train and 2 for test.
    """
    end = f"_test_split{split}.txt"
    lines = [
        f"{path.name.removesuffix(end)}/{line}"
        for path in sorted([*source.glob(f"*{end}"), *source.glob(f"*/*{end}")])
        for line in read_text(path).split("\n")
        if line.strip()
    ]
    if not lines and split > 1:
        raise UserError(f"{source}: has no lists *{end}, and mgm has those of split 1 only")
    rows = list[Row]()
    for line in lines or carried("hmdb51_split1.txt.xz").splitlines():
        if not (parts := re.fullmatch(r"(.+?)\s+([012])\s*", line)):
            raise UserError(f"{source}: the lists *{end} have {line!r}, not NAME and 0, 1 or 2")
        path, mark = parts.groups()
        label = path.partition("/")[0]
        film = stem(path).rpartition(f"_{label}_")[0] or path
        if mark != "0":
            rows.append(Row(path, label, SPLITS[int(mark) - 1], film))
    return tuple(sorted({row.label for row in rows})), rows


def diving48(source: Path, split: int) -> Lists:
    """Diving48, version 2 of its labels: Diving48_*.json, or the carried lists, and rgb/ID_N.mp4.

    ID is the video of a competition. One of the 48 classes has no video.
    """
    lists, vocabulary = json.loads(carried("diving48_v2.json.xz")), "Diving48_vocab"
    if own := (source / f"{vocabulary}.json").is_file():
        kinds = dict.fromkeys(lists, list[_Dive]) | {vocabulary: list[list[str]]}
        lists = {name: _json(source / f"{name}.json", kinds[name]) for name in lists}
    classes, rows = tuple(", ".join(parts) for parts in lists[vocabulary]), list[Row]()
    for side in SPLITS:
        for line in lists[f"Diving48_V2_{side}"]:
            dive = line if own else _Dive(**line)
            if dive.label >= len(classes):
                raise UserError(
                    f"{source}: {dive.vid_name} has label {dive.label}, which has no name"
                )
            name, label = dive.vid_name, classes[dive.label]
            group = name.rpartition("_")[0] or name
            rows.append(Row(f"{name}.mp4", label, side, group, name=f"rgb/{name}"))
    return classes, rows


READERS: dict[str, Callable[[Path, int], Lists]] = {
    "k400": k400,
    "ssv2": ssv2,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "diving48": diving48,
}


# The official files of sets whose lists this package carries too.
OFFICIAL = {
    "ucf101": ("ucfTrainTestlist",),
    "hmdb51": ("*_test_split*.txt", "*/*_test_split*.txt"),
    "diving48": ("Diving48_vocab.json",),
}


def list_published(
    name: str, source: Path, split: int = 1, test: str = "", first: bool = False
) -> Index:
    """List the videos of a published dataset that are below `source`.

    Args:
        split: the official split, of UCF101 and HMDB51.
        test, first: see `mgm.data.folder.listing`.
    """
    title = PUBLISHED[name].title + (f" split {split}" if name in ("ucf101", "hmdb51") else "")
    files, rows = Files(source), list[Row]()
    if name not in OFFICIAL or any(any(source.glob(pattern)) for pattern in OFFICIAL[name]):
        classes, rows = READERS[name](source, split)
    if not rows:
        lists, left = split_lists(source, files, split)
        if lists:
            rows, note = of_lists(source, lists, by_name=True)
            made = listing(source, rows, f"{title}: {note}", (), files, test, first)
            return replace(made, excluded=(*made.excluded, *left))
        classes, rows = READERS[name](source, split)
    if not rows:
        raise UserError(f"{source}: has no lists of {title}; put the official ones there")
    note = f"{title}: official lists"
    return listing(source, rows, note, classes, files, test, first, official=True)


def mini_k200(source: Path, out: Path) -> Index:
    """Derive Mini-K200 from the prepared K400 in `source`, by its published YouTube ids."""
    whole = read_index(source)
    ids = {split: {*carried(f"mini_k200_{split}.txt.xz").split()} for split in SPLITS}
    # A name is SPLIT/ID_START_END. An id has 11 letters.
    videos = [v for v in whole.videos if os.path.basename(v.name)[:11] in ids[v.split]]
    listed = sum(map(len, ids.values()))
    note = f"Mini-K200: {len(videos):,} videos of {listed:,} listed ids are there"
    return Index(out, whole.classes, tuple(videos), note=note, settings=whole.settings)


def task_digest(task: str, source: str, target: str) -> str:
    """Return the digest of a task's index (12 hex digits), from its source's and its target's."""
    return hashlib.sha256(json.dumps([task, source, target, 1]).encode()).hexdigest()[:12]


def adaptation(task: str, source: Path, target: Path, out: Path) -> Index:
    """Derive a task of partial domain adaptation from two prepared sets.

    The classes are the source's 14, the shared ones first. The published lists name videos and
    labels. They are those of the official split 1. Generated sets, and those of the task "shared",
    share classes of equal names.
    """
    sides = {"train": read_index(source), "test": read_index(target)}
    if task == SHARED or all(index.drawn for index in sides.values()):
        return _of_shared_names(task, sides["train"], sides["test"], out)
    table = csv.DictReader(carried("pda.csv.xz").splitlines())
    rows = [row for row in table if row["task"] == task]
    names = {
        int(row["label"]): row["path"].partition("/")[0] for row in rows if row["split"] == "train"
    }
    classes = tuple(names[label] for label in sorted(names))
    label_of = {(row["split"], _tail(row["path"])): int(row["label"]) for row in rows}
    videos = [
        video._replace(label=label_of[split, _tail(video.name)], split=split)
        for split, index in sides.items()
        for video in index.videos
        if (split, _tail(video.name)) in label_of
    ]
    note = f"published lists of {task}: {len(videos):,} of {len(rows):,} videos are there"
    digest = task_digest(task, *(index.digest for index in sides.values()))
    return Index(out, classes, tuple(videos), note=note, named=digest)


def _tail(path: str) -> str:
    """Return what identifies a file of UCF101 or HMDB51: its class and its name."""
    return key("/".join(stem(path).split("/")[-2:]))


def _of_shared_names(task: str, origin: Index, goal: Index, out: Path) -> Index:
    shared = [name for name in origin.classes if name in goal.classes]
    if not shared:
        raise UserError(f"{goal.root}: no class has the name of one of {origin.root}")
    classes = (*shared, *(name for name in origin.classes if name not in shared))
    videos = [v._replace(label=classes.index(origin.classes[v.label])) for v in origin.train]
    for video in goal.test:
        if (name := goal.classes[video.label]) in shared:
            videos.append(video._replace(label=classes.index(name)))
    digest = task_digest(task, origin.digest, goal.digest)
    note = f"{GENERATED} of {task}: " if task != SHARED else ""
    return Index(out, classes, tuple(videos), note=f"{note}classes shared by name", named=digest)


def derive(name: str, source: Path, target: Path | None, out: Path) -> Index:
    """Write the index of a dataset that is made of prepared ones, and return it."""
    out = Path(os.path.abspath(out))
    if (out / "videos").exists():
        raise UserError(f"{out}: has videos of its own; choose another --out")
    if any(one and out.resolve() == one.resolve() for one in (source, target)):
        raise UserError(f"{out}: is what the set is made of; choose another --out")
    if name == "mini-k200":
        index = mini_k200(source, out)
    elif target is None:
        raise UserError(f"{name}: needs --target, the prepared set to test on")
    else:
        index = adaptation(name, source, target, out)
    write_index(index)
    return read_index(out)
