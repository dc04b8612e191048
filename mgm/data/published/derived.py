"""Datasets made from the indices of others: partial domain adaptation, and Mini-K200.

Partial domain adaptation (Table 3) trains on 14 classes of a source dataset. It tests on videos of
a target dataset, of the 7 classes that both share.

    ucf14-hmdb7     from UCF101 to HMDB51
    hmdb14-ucf7     from HMDB51 to UCF101

The new index refers to the files of both. Its classes are the source's 14, the shared ones first.
Its training split is the source's training videos of these classes. Its test split is the target's
test videos of the shared classes. It has no training video of the target.

For UCF101 and HMDB51, the published lists (lists/pda.csv.xz) name the videos and labels. They are
those of the official split 1, whatever split the indices have. Generated sets share the classes
with equal names. The class names in the indices decide which of the two applies.

This module is light to import, since the workflow calls `pda_digest` before any set is drawn.
"""

import csv
import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mgm.data.index import SPLITS, Index, Video, listed_counts, new_index, read_index, write_index
from mgm.data.published.listed import carried
from mgm.errors import UserError
from mgm.spec import GENERATED

TASKS = ("ucf14-hmdb7", "hmdb14-ucf7")
CLASSES, SHARED = 14, 7
# Raise this number when a change of the code gives the same indices another result.
_VERSION = 1


@dataclass(frozen=True)
class TaskLists:
    """The published lists of a task.

    Attributes:
        source: class names by label, in the source dataset.
        target: class names by label, in the target dataset.
        videos: (label, path) of each split's videos.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    videos: dict[str, list[tuple[int, str]]]


def pda_digest(task: str, source: str, target: str) -> str:
    """Return the digest of a task's index (12 hex digits), from its source's and its target's."""
    return hashlib.sha256(json.dumps([task, source, target, _VERSION]).encode()).hexdigest()[:12]


def index_pda(task: str, source: Path, target: Path, out: Path) -> Index:
    """Write the index of a task, from the indices in folders `source` and `target`, to `out`.

    OUT/missing.txt lists the videos of the published lists that the indices lack, one path per
    line. The index's note counts them.
    """
    origin, goal, lists = read_index(source), read_index(target), carried_lists(task)
    sides = {"train": (source, origin, lists.source), "test": (target, goal, lists.target)}
    lacking = [
        f"{folder / 'index.json'}: lacks class {name}"
        for folder, index, names in sides.values()
        for name in names
        if name not in index.classes
    ]
    classes, videos, missing = lists.source, list[Video](), list[str]()
    if len(lacking) == CLASSES + SHARED:
        classes, videos = _by_name(task, source, target, origin, goal)
        # Results record the note, so these videos stay known as generated.
        drawn = GENERATED if origin.note.startswith(GENERATED) else "videos"
        note = f"{drawn} of {task}: classes shared by name"
    elif lacking:
        raise UserError(f"{lacking[0]}, which is in the published lists of {task}")
    else:
        for split, (folder, index, names) in sides.items():
            # A video is identified by the last two parts of its path: the class and the file.
            present = {"/".join(index.name(video).split("/")[-2:]): video for video in index.videos}
            listed = {name: label for label, name in lists.videos[split]}
            if not present.keys() & listed.keys():
                raise UserError(
                    f"{folder / 'index.csv'}: has 0 of the {len(listed):,} videos in the published "
                    f"lists of {task}, such as {next(iter(listed))}"
                )
            missing += [name for name in listed if name not in present]
            for name in filter(present.get, listed):
                if (own := index.classes[present[name].label]) != names[listed[name]]:
                    raise UserError(
                        f"{folder / 'index.csv'}: {name} has class {own}, and class "
                        f"{names[listed[name]]} in the published lists of {task}"
                    )
            videos += [
                replace(present[name], label=label, split=split)
                for name, label in listed.items()
                if name in present
            ]
        listed_count = {split: len(rows) for split, rows in lists.videos.items()}
        counts = Counter(video.split for video in videos)
        note = f"published lists of {task}: {listed_counts(listed_count, counts)}"
    digest = pda_digest(task, origin.digest, goal.digest)
    index = Index(Path(os.path.abspath(out)), classes, tuple(videos), (), digest, note)
    # Nothing is pretrained on these videos, so they have no tracks.
    return write_index(index, out, missing, tracks="")


index_ucf14_hmdb7, index_hmdb14_ucf7 = (partial(index_pda, task) for task in TASKS)


def carried_lists(task: str) -> TaskLists:
    """Return the published lists of a task, from the copy in this package."""
    rows = [
        row for row in csv.DictReader(carried("pda.csv.xz").splitlines()) if row["task"] == task
    ]
    videos = {
        split: [(int(row["label"]), row["path"]) for row in rows if row["split"] == split]
        for split in SPLITS
    }
    source, target = (
        tuple(
            dict(sorted((label, path.partition("/")[0]) for label, path in videos[split])).values()
        )
        for split in SPLITS
    )
    return TaskLists(source, target, videos)


def _by_name(
    task: str, source: Path, target: Path, origin: Index, goal: Index
) -> tuple[tuple[str, ...], list[Video]]:
    """Return the classes and videos of a task if the sets share classes with equal names."""
    shared = [name for name in origin.classes if name in goal.classes]
    counts = len(origin.classes), len(goal.classes), len(shared)
    if counts != (CLASSES, CLASSES, SHARED):
        raise UserError(
            f"{source}, {target}: have {counts[0]} and {counts[1]} classes, {counts[2]} of them "
            f"shared; without published classes, {task} needs {CLASSES} each, {SHARED} shared"
        )
    classes = (*shared, *(name for name in origin.classes if name not in shared))
    videos = list[Video]()
    for folder, index, split, names in (
        (source, origin, "train", classes),
        (target, goal, "test", shared),
    ):
        own = [
            replace(video, label=classes.index(index.classes[video.label]))
            for video in index.videos
            if video.split == split and index.classes[video.label] in names
        ]
        if absent := {*range(len(names))} - {video.label for video in own}:
            raise UserError(
                f"{folder / 'index.csv'}: has no {split} video of class {classes[min(absent)]}"
            )
        videos += own
    return classes, videos


_NAME = re.compile(r"(.{11})_\d+_\d+\.\w+")


def index_mini_k200(source: Path, out: Path) -> Index:
    """Write the index of Mini-K200's videos to `out`, from K400's index in folder `source`.

    OUT/missing.txt lists the ids without a video, as train/ID or test/ID. The index's note counts
    them.
    """
    whole, ids = read_index(source), carried_ids()
    id_of = {
        video: match[1]
        for video in whole.videos
        if (match := _NAME.fullmatch(os.path.basename(video.path)))
    }
    videos = [video for video in whole.videos if id_of.get(video) in ids[video.split]]
    present = {
        split: {id_of[video] for video in videos if video.split == split} for split in SPLITS
    }
    if not present["train"]:
        raise UserError(
            f"{source / 'index.csv'}: has 0 of the {len(ids['train']):,} training videos of "
            f"Mini-K200, and {len(id_of):,} of its {len(whole.videos):,} files are named "
            "ID_START_END.ext"
        )
    counts = (
        {split: len(names) for split, names in by_split.items()} for by_split in (ids, present)
    )
    note = f"Mini-K200, with K400's classes: {listed_counts(*counts)}"
    index = new_index(whole.root, whole.classes, videos, (), note)
    missing = [
        f"{split}/{name}" for split in SPLITS for name in sorted(ids[split] - present[split])
    ]
    return write_index(index, out, missing, tracks=os.path.abspath(source / "tracks"))


def carried_ids() -> dict[str, frozenset[str]]:
    """Return the published YouTube ids of each split, from the copy in this package."""
    return {split: frozenset(carried(f"mini_k200_{split}.txt.xz").split()) for split in SPLITS}
