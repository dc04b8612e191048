"""Index a user's own videos: one folder per class, a flat folder, or a CSV.

The source is one of three:

- A folder of class folders. Every file below a class folder is a video of that class. Hidden files
  and previews (`opening.NOT_VIDEOS`) are ignored.
- A folder of videos without class folders. They have no labels, and are for pretraining.
- A CSV, or a folder with a `videos.csv`. It has a header and the columns
  `path[,label][,split][,group]`, in any order. Without labels, they are for pretraining. Paths are
  absolute, or relative to the CSV's folder. A split is train or test.

Without a split column, about a fifth of each class's videos become the test split. The seed decides
which. Groups are never divided. They are the CSV's column `group`, or what a regular expression
finds in the files' paths, or else the files.

Every file is opened. Unreadable files are left out and listed.
"""

import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated
from unicodedata import normalize

from pydantic import AfterValidator, BaseModel, Field

from mgm.data.index import SPLITS, Index, Video, below, new_index, read_index, write_index
from mgm.data.opening import files_below, is_preview, open_all, skipped
from mgm.errors import UserError, valid
from mgm.reading import file_digest, found_in, read_table

TEST_SHARE = 0.2
UNLABELLED = "unlabelled"  # the one class of videos without labels
# Marks of recordings and persons in names, as in v_Biking_g01_c02 and person01_run.
MARK = re.compile(r"(?<![a-z0-9])(?:g|s|person|subj(?:ect)?|actor|speaker)[-_ ]?\d+", re.IGNORECASE)

Text = Annotated[str, Field(min_length=1)]
# macOS writes ü as u and a diaeresis. One name is one class in both forms.
Name = Annotated[Text, AfterValidator(lambda text: normalize("NFC", text))]


class _Listed(BaseModel, frozen=True, extra="forbid", str_strip_whitespace=True):
    """A video as the source lists it: a row of the CSV, or a file in a class folder.

    `split` and `group` are empty if the source has none.
    """

    path: Text
    label: Name = UNLABELLED
    split: Annotated[str, Field(pattern="^(train|test)$")] = ""
    group: Name = ""


def index_folder(source: Path, out: Path, seed: int = 0, groups: str = "") -> Index:
    """Index the videos in `source`. Write the index to folder `out` unless it is there.

    Only new and changed files are opened.

    Args:
        groups: a regular expression of RE2 that finds the group in a file's path. It is for sources
            without a column `group`. Empty: every file is a group.

    Raises:
        UserError: there is no source or no video, a class has no readable video, the CSV is wrong,
            or no split keeps the groups whole.
    """
    source, out = Path(os.path.abspath(source)), Path(os.path.abspath(out))
    root, listed, unlabelled = _list(source, out)
    listed_groups = any(row.group for row in listed.values())
    if groups and listed_groups:
        raise UserError(f"{source}: has a column group, so --groups would not be used")
    stems = [str(PurePosixPath(name).with_suffix("")) for name in listed]
    marks = dict(zip(listed, found_in(stems, f"(?i){groups}", "--groups"))) if groups else {}
    if groups and not any(marks.values()):
        raise UserError(f"{source}: --groups {groups!r} is found in none of the files' paths")
    opened, unreadable = open_all(root, list(listed), out / "checked.jsonl")
    names = {row.label for row in listed.values()}
    # Sort classes by name, or by value if all names are numbers.
    numbers = all(name.isdecimal() for name in names)
    classes = tuple(sorted(names, key=lambda name: (int(name) if numbers else 0, name)))
    _require_every_class(source, classes, listed, dict(unreadable))
    label_of = {name: label for label, name in enumerate(classes)}
    grouped = bool(groups) or listed_groups
    videos = [
        replace(
            video,
            label=label_of[row.label],
            split=row.split,
            group=row.group or marks.get(name) or name,
        )
        for name, video in opened.items()
        for row in [listed[name]]
    ]
    videos, note = _with_split(source, videos, classes, seed, grouped)
    if len(classes) == 1:
        note += "; one class: these videos are for pretraining"
    for split in SPLITS:
        labels = {video.label for video in videos if video.split == split}
        if without := [name for label, name in enumerate(classes) if label not in labels]:
            note += f"; no {split} videos of {', '.join(without)}"
    if not grouped and (mark := _shared_mark(list(opened))):
        note += (
            f"; warning: files share marks such as {mark}, so name groups (a column group, or "
            "--groups REGEX) if these are recordings or persons"
        )
    if twice := _in_both_splits(videos):
        note += (
            f"; warning: {len(twice)} videos are in train and in test, such as "
            f"{below(twice[0][0], root)} and {below(twice[0][1], root)}"
        )
    index = new_index(root, classes, videos, [*unlabelled, *unreadable], note)
    # `read_index` fails if there is no index, or if it is damaged.
    with suppress(UserError):
        # An equal index is not written again, since other processes may be reading it.
        if read_index(out) == index:
            return index
    write_index(index, out)
    return index


def _in_both_splits(videos: Sequence[Video]) -> list[tuple[str, str]]:
    """Return pairs of equal files, one in each split. Only files of equal size are read."""
    sizes = [{v.bytes for v in videos if v.split == split} for split in SPLITS]
    common, of_train, pairs = sizes[0] & sizes[1], dict[str, str](), list[tuple[str, str]]()
    for video in sorted(videos, key=lambda video: video.split == "test"):
        if video.bytes in common:
            digest = file_digest(Path(video.path))
            if video.split == "train":
                of_train[digest] = video.path
            elif digest in of_train:
                pairs.append((of_train[digest], video.path))
    return pairs


def _list(source: Path, out: Path) -> tuple[Path, dict[str, _Listed], list[tuple[str, str]]]:
    """List the videos of the source without opening any.

    Returns:
        The root, the videos by path below the root, and (path, reason) of files without a label.
    """
    table = source / "videos.csv" if (source / "videos.csv").is_file() else source
    if out.is_relative_to(source):
        raise UserError(f"{out}: is inside {source}, and would count as a class; choose another")
    if table.is_file():
        return *_list_csv(table), []
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder")
    listed, unlabelled = dict[str, _Listed](), list[tuple[str, str]]()
    folders = [path for path in source.iterdir() if path.is_dir() and path.name[0] != "."]
    if all(is_preview(path.name) for path in folders):
        names, unlabelled = files_below(source)
        listed = {name: _Listed(path=name) for name in sorted(names)}
        if not listed:
            raise UserError(f"{source}: has no videos, no class folders and no videos.csv")
        return source, listed, unlabelled
    for label in sorted(os.listdir(source)):
        if is_preview(label) and os.path.isdir(source / label):
            unlabelled.append((label, skipped(source / label)))
            continue
        if label.startswith("."):
            continue
        if not os.path.isdir(source / label):
            unlabelled.append((label, "is not in a class folder, so it has no label"))
            continue
        names, unusable = files_below(source, label)
        unlabelled += unusable
        if not names:
            reason = f" ({unusable[0][1]})" if unusable else ""
            raise UserError(
                f"{ascii(str(source / label))[1:-1]}: is a class folder without videos{reason}"
            )
        listed |= {name: _Listed(path=name, label=label) for name in sorted(names)}
    return source, listed, unlabelled


def _list_csv(path: Path) -> tuple[Path, dict[str, _Listed]]:
    lines = read_table(path)
    header = [column.strip() for column in next(lines, (0, []))[1]]
    columns = {*header}
    if not {"path"} <= columns <= {*_Listed.model_fields} or len(columns) < len(header):
        raise UserError(
            f"{path}: line 1: the columns are {','.join(header)}, not path[,label][,split][,group]"
        )
    rows = dict[str, _Listed]()
    for number, line in lines:
        if not any(value.strip() for value in line):
            continue
        if len(line) != len(header):
            raise UserError(
                f"{path}: line {number} has {len(line)} values for {len(header)} columns; quote "
                "values with commas"
            )
        with valid(f"{path}: line {number}: "):
            row = _Listed.model_validate(dict(zip(header, line)))
        file_path = _found(path.parent, row.path)
        if file_path in rows:
            raise UserError(f"{path}: line {number} names {row.path} a second time")
        rows[file_path] = row
    if not rows:
        raise UserError(f"{path}: lists 0 videos; add lines")
    if missing := [row.path for name, row in rows.items() if not os.path.isfile(name)]:
        raise UserError(
            f"{path}: {len(missing)} of {len(rows)} files do not exist, the first {missing[0]}"
        )
    root = path.parent
    if not all(Path(name).is_relative_to(root) for name in rows):
        root = Path(os.path.commonpath([os.path.dirname(name) for name in rows]))
    return root, {below(file_path, root): row for file_path, row in rows.items()}


def _found(folder: Path, path: str) -> str:
    """Return the path of a listed file, which may be listed in another form of Unicode."""
    forms = normalize("NFC", path), normalize("NFD", path)
    paths = [os.path.normpath(folder / text) for text in (path, *forms)]
    return next(filter(os.path.isfile, paths), paths[0])


def _require_every_class(
    source: Path, classes: tuple[str, ...], listed: dict[str, _Listed], reasons: dict[str, str]
) -> None:
    readable = {row.label for name, row in listed.items() if name not in reasons}
    if empty := [label for label in classes if label not in readable]:
        names = [name for name, row in listed.items() if row.label == empty[0]]
        raise UserError(
            f"{source}: class {empty[0]!r} has {len(names)} videos, and 0 can be read (the first: "
            f"{names[0]}: {reasons[names[0]]})"
        )


def _shared_mark(names: list[str]) -> str:
    """Return a mark that several files share, if at least half of the files have marks."""
    marks = Counter(match[0] for name in names if (match := MARK.search(name)))
    return marks.most_common(1)[0][0] if len(names) <= 2 * marks.total() > 2 * len(marks) else ""


def _with_split(
    source: Path, videos: list[Video], classes: tuple[str, ...], seed: int, grouped: bool
) -> tuple[list[Video], str]:
    """Return the videos with their splits, and a line on where these come from."""
    if videos[0].split:
        side_of = {video.group: video.split for video in videos}
        if divided := [video.group for video in videos if side_of[video.group] != video.split]:
            raise UserError(f"{source}: group {divided[0]!r} is in train and in test")
        return videos, "split as given"
    test = draw_test_groups([(classes[video.label], video.group) for video in videos], seed)
    groups = len({video.group for video in videos})
    note = f"no split given: drawn with seed {seed}, {len(test)} of {groups} groups for test"
    if not grouped:
        note += "; every video is its own group"
    return [
        replace(video, split="test" if video.group in test else "train") for video in videos
    ], note


def draw_test_groups(videos: list[tuple[str, str]], seed: int) -> set[str]:
    """Draw the groups that become the test split.

    About `TEST_SHARE` of each class's videos go to the test split, in whole groups. Of a class with
    two or more groups, at least one is tested on and at least one is trained on. A class with one
    group stays in training.

    Args:
        videos: (label, group) of each video.
    """
    order = sorted({group for _, group in videos})
    random.Random(seed).shuffle(order)
    rank = {group: place for place, group in enumerate(order)}
    # Label -> group -> number of videos.
    sizes: dict[str, Counter[str]] = {label: Counter() for label, _ in sorted(videos)}
    labels: dict[str, set[str]] = {group: set() for group in order}
    for label, group in videos:
        sizes[label][group] += 1
        labels[group].add(label)
    # Label -> number of its groups that are still in the training split.
    training = {label: len(groups) for label, groups in sizes.items()}
    test: set[str] = set()

    def take(group: str) -> None:
        test.add(group)
        training.update({label: training[label] - 1 for label in labels[group]})

    def is_free(group: str) -> bool:
        return group not in test and all(training[label] > 1 for label in labels[group])

    # Classes with the fewest groups come first, since they have the least choice.
    for label in sorted(sizes, key=lambda label: len(sizes[label])):
        if len(sizes[label]) == 1:
            continue
        goal = TEST_SHARE * sizes[label].total()
        taken = sum(size for group, size in sizes[label].items() if group in test)
        for group in sorted(sizes[label], key=rank.__getitem__):
            size = sizes[label][group]
            if is_free(group) and abs(taken + size - goal) < abs(taken - goal):
                take(group)
                taken += size
        # Every group is more than twice the goal.
        if not taken:
            free = [group for group in sizes[label] if is_free(group)]
            if not free:
                raise UserError(
                    f"class {label!r}: each of its {len(sizes[label])} groups is the last training "
                    "group of another class; add a column split"
                )
            take(min(free, key=lambda group: (sizes[label][group], rank[group])))
    return test
