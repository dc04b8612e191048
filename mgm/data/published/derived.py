"""Datasets that are made of the indices of others: partial domain adaptation, and Mini-K200.

Partial domain adaptation (Table 3) trains on 14 classes of a source and tests on the target's
videos of the 7 classes they share.

    ucf14-hmdb7     from UCF101 to HMDB51
    hmdb14-ucf7     from HMDB51 to UCF101

Two indices become one over the same files. Its classes are the source's 14, the shared ones first;
its training split is the source's training videos of these classes, its test split the target's
test videos of the shared ones. No training video of the target is in it.

Of UCF101 and HMDB51 the published lists (lists/pda.csv.xz) say which videos and labels these are:
those of the official split 1, whatever split the indices have. Generated sets share their classes
by name. Which of the two applies follows from the names in the indices. Light to import:
`pda_digest` serves where nothing is drawn yet.
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mgm.data.index import SPLITS, Index, Video, listed_counts, new_index, read_index
from mgm.data.published.listed import carried, write_found
from mgm.errors import UserError

TASKS = ("ucf14-hmdb7", "hmdb14-ucf7")
CLASSES, SHARED = 14, 7
_VERSION = 1  # raise it when the same indices would give another


@dataclass(frozen=True)
class TaskLists:
    """The published lists of a task.

    Class names by label, as the source and as the target call them, and (label, path) of a split's
    videos.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    videos: dict[str, list[tuple[int, str]]]


def pda_digest(task: str, source: str, target: str) -> str:
    """12 hex digits: the digest of a task's index, given those of its source's and its target's."""
    return hashlib.sha256(json.dumps([task, source, target, _VERSION]).encode()).hexdigest()[:12]


def index_pda(task: str, source: Path, target: Path, out: Path) -> Index:
    """The index of a task over those in the folders `source` and `target`, written to folder `out`.

    What the published lists name and the indices lack goes to OUT/missing.txt, a path a line, and
    is counted in the index's note.

    Raises:
        UserError: no index, classes that are not the task's, or no video of train or of test.
    """
    origin, goal, lists = read_index(source), read_index(target), carried_lists(task)
    lacking = [
        f"{folder / 'index.json'}: lacks class {name}"
        for folder, index, names in ((source, origin, lists.source), (target, goal, lists.target))
        for name in names
        if name not in index.classes
    ]
    if len(lacking) == CLASSES + SHARED:
        classes, videos = _by_name(task, source, target, origin, goal)
        missing, note = [], f"{task}: classes shared by name"
    elif lacking:
        raise UserError(
            f"{lacking[0]}, which the published lists of {task} name; prepare the whole set, or "
            "check --source and --target"
        )
    else:
        classes = lists.source
        train, lost = _listed(source, origin, lists.source, lists.videos["train"], task)
        test, more_lost = _listed(target, goal, lists.target, lists.videos["test"], task)
        videos, missing = (
            [*train, *(replace(video, split="test") for video in test)],
            lost + more_lost,
        )
        listed = {split: len(lists.videos[split]) for split in SPLITS}
        note = (
            f"published lists of {task}: "
            f"{listed_counts(listed, {'train': len(train), 'test': len(test)})}"
        )
    index = Index(
        Path(os.path.abspath(out)),
        classes,
        tuple(videos),
        (),
        pda_digest(task, origin.digest, goal.digest),
        note,
    )
    return write_found(index, missing, out)


index_ucf14_hmdb7, index_hmdb14_ucf7 = (partial(index_pda, task) for task in TASKS)


def carried_lists(task: str) -> TaskLists:
    """The published lists of a task, from the copy carried here."""
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


def _listed(
    folder: Path, index: Index, classes: Sequence[str], listed: Sequence[tuple[int, str]], task: str
) -> tuple[list[Video], list[str]]:
    """Return the listed videos that an index has, and the paths of the others.

    The videos have their published labels, as training videos. A path's last two parts are its
    class and its file in either dataset, wherever its folder lies.
    """
    here = {"/".join(index.name(video).rsplit("/", 2)[-2:]): video for video in index.videos}
    videos = []
    for label, name in listed:
        if video := here.get(name):
            if index.classes[video.label] != classes[label]:
                raise UserError(
                    f"{folder / 'index.csv'}: {name} has class {index.classes[video.label]}, in "
                    f"the published lists of {task} "
                    f"class {classes[label]}; correct its label"
                )
            videos.append(replace(video, label=label, split="train"))
    if not videos:
        raise UserError(
            f"{folder / 'index.csv'}: has 0 of the {len(listed):,} videos that the published lists "
            f"of {task} name, such as {listed[0][1]}; "
            "add some"
        )
    return videos, [name for _, name in listed if name not in here]


def _by_name(
    task: str, source: Path, target: Path, origin: Index, goal: Index
) -> tuple[tuple[str, ...], list[Video]]:
    """Classes and videos of a task over sets that share their classes by name."""
    shared = [name for name in origin.classes if name in goal.classes]
    if (len(origin.classes), len(goal.classes), len(shared)) != (CLASSES, CLASSES, SHARED):
        counts = (
            f"{len(origin.classes)} and {len(goal.classes)} classes, {len(shared)} of them shared"
        )
        raise UserError(
            f"{source}, {target}: have {counts}, and none that the published lists of {task} name; "
            f"other sets need {CLASSES} and "
            f"{CLASSES}, {SHARED} of them shared: check --source and --target"
        )
    classes = (*shared, *(name for name in origin.classes if name not in shared))
    label_of = {name: label for label, name in enumerate(classes)}
    train = [replace(video, label=label_of[origin.classes[video.label]]) for video in origin.train]
    test = [
        replace(video, label=label_of[goal.classes[video.label]])
        for video in goal.test
        if goal.classes[video.label] in shared
    ]
    for folder, split, videos, names in (
        (source, "train", train, classes),
        (target, "test", test, shared),
    ):
        there = {classes[video.label] for video in videos}
        if absent := [name for name in names if name not in there]:
            raise UserError(
                f"{folder / 'index.csv'}: has no {split} video of class {absent[0]}; prepare the "
                "whole set again"
            )
    return classes, train + test


_NAME = re.compile(r"(.{11})_\d+_\d+\.\w+")


def index_mini_k200(source: Path, out: Path) -> Index:
    """Index Mini-K200's videos among those of K400's index in folder `source`; write it to `out`.

    Files stay where they are. Ids without a video go to OUT/missing.txt, as train/ID or test/ID,
    and are counted in the index's note.

    Raises:
        UserError: no index, file names that hold no id, or no training video.
    """
    whole, ids = read_index(source), carried_ids()
    id_of = {
        video.path: match[1]
        for video in whole.videos
        if (match := _NAME.fullmatch(os.path.basename(video.path)))
    }
    if not id_of:
        raise UserError(
            f"{source / 'index.csv'}: no file of {len(whole.videos):,} is named ID_START_END.ext "
            "as K400's are; check --source"
        )
    videos = [video for video in whole.videos if id_of.get(video.path) in ids[video.split]]
    here = {
        split: {id_of[video.path] for video in videos if video.split == split} for split in SPLITS
    }
    if not here["train"]:
        raise UserError(
            f"{source / 'index.csv'}: has 0 of the {len(ids['train']):,} training videos of "
            "Mini-K200; give --source the index of K400"
        )
    counts = listed_counts(
        {split: len(ids[split]) for split in SPLITS}, {split: len(here[split]) for split in SPLITS}
    )
    note = f"Mini-K200, with K400's classes: {counts}"
    index = new_index(whole.root, whole.classes, videos, (), note)
    return write_found(
        index,
        [f"{split}/{name}" for split in SPLITS for name in sorted(ids[split] - here[split])],
        out,
    )


def carried_ids() -> dict[str, frozenset[str]]:
    """The published YouTube ids of each split, from the copy carried here."""
    return {split: frozenset(carried(f"mini_k200_{split}.txt.xz").split()) for split in SPLITS}
