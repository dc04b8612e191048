"""Index a user's own videos: one folder per class, or a CSV.

The source is one of two:

- A folder of class folders. Every file below a class folder is a video of that class. Hidden files
  are ignored.
- A CSV, or a folder with a `videos.csv`. It has a header and the columns
  `path,label[,split][,group]`, in any order. Paths are absolute, or relative to the CSV's folder.
  A split is train or test.

Without a split column, about a fifth of each class's videos become the test split. The seed decides
which. Groups are never divided. They are the CSV's column `group`, or parts of the files' names
(`mgm.data.leaks`), or else the files.

Every file is opened. Unreadable files are left out and listed.
"""

import os
import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_args

from pydantic import BaseModel, Field

from mgm.data.index import SPLITS, Index, Video, new_index, read_index, write_index
from mgm.data.leaks import example, first_frames_note, group_of, groups_by_name
from mgm.data.opening import files_below, open_all
from mgm.data.videos import below
from mgm.errors import UserError, valid
from mgm.reading import read_table
from mgm.spec import Flow

TEST_SHARE = 0.2
_SIDECARS = tuple(f".{method}.npy" for method in get_args(Flow))


Text = Annotated[str, Field(min_length=1)]


class _Listed(BaseModel, frozen=True, extra="forbid", str_strip_whitespace=True):
    """A video as the source lists it: a row of the CSV, or a file in a class folder.

    `split` and `group` are empty if the source has none.
    """

    path: Text
    label: Text
    split: Annotated[str, Field(pattern="^(train|test)$")] = ""
    group: Text = ""


def index_folder(source: Path, out: Path, seed: int = 0, groups: str = "") -> Index:
    """Index the videos in `source`. Write the index to folder `out` unless it is there.

    Only new and changed files are opened.

    Args:
        groups: a regular expression that finds the group in a file's path. Empty: look for common
            marks of recordings and persons. It is for sources without a column `group`.

    Raises:
        UserError: there is no source or no video, a class has no readable video, the CSV is wrong,
            or no split keeps the groups whole.
    """
    source, out = Path(os.path.abspath(source)), Path(os.path.abspath(out))
    root, listed, unlabelled = _list(source, out)
    opened, excluded = open_all(root, list(listed), out / "checked.jsonl")
    names = {video.label for video in listed.values()}
    # Sort classes by name, or by value if all names are numbers.
    if all(name.isdecimal() for name in names):
        classes = tuple(sorted(names, key=lambda name: (int(name), name)))
    else:
        classes = tuple(sorted(names))
    _require_every_class(source, classes, listed, dict(excluded))
    label_of = {name: label for label, name in enumerate(classes)}
    for name, own in listed.items():
        if name in opened:
            opened[name] = replace(
                opened[name], label=label_of[own.label], split=own.split, group=own.group
            )
    videos, note = _with_split(source, opened, classes, seed, groups)
    if alike := first_frames_note(videos, out / "first-frames.json"):
        note += f"; {alike}"
    index = new_index(root, classes, videos, [*unlabelled, *excluded], note)
    # `read_index` fails if there is no index, or if it is damaged.
    with suppress(UserError):
        # An equal index is not written again, since other processes may be reading it.
        if read_index(out) == index:
            return index
    write_index(index, out)
    return index


def _list(source: Path, out: Path) -> tuple[Path, dict[str, _Listed], list[tuple[str, str]]]:
    """List the videos of the source without opening any.

    Returns:
        The root, the videos by path below the root, and (path, reason) of files without a label.
    """
    table = source / "videos.csv" if (source / "videos.csv").is_file() else source
    if out.is_relative_to(source):
        raise UserError(
            f"{out}: is inside the videos' folder {source}, where it would count as a class; write "
            "the index elsewhere"
        )
    if table.is_file():
        return *_list_csv(table), []
    if not source.is_dir():
        raise UserError(
            f"{source}: no such file or folder; name a folder with one folder per class, or a CSV "
            "path,label"
        )
    listed, unlabelled = dict[str, _Listed](), []
    for label in sorted(name for name in os.listdir(source) if name[0] != "."):
        if not os.path.isdir(source / label):
            unlabelled.append((label, "is not in a class folder, so it has no label"))
            continue
        names, unusable = files_below(source, label)
        unlabelled += unusable
        names = sorted(name for name in names if not name.endswith(_SIDECARS))
        if not names:
            reason = f" ({unusable[0][1]})" if unusable else ""
            raise UserError(
                f"{ascii(str(source / label))[1:-1]}: a class folder without videos{reason}; "
                "put some there, or remove it"
            )
        listed |= {name: _Listed(path=name, label=label) for name in names}
    if not listed:
        raise UserError(
            f"{source}: no class folders and no videos.csv, {len(unlabelled)} other files; "
            "make one folder per class, or write a videos.csv path,label"
        )
    return source, listed, unlabelled


def _list_csv(path: Path) -> tuple[Path, dict[str, _Listed]]:
    lines = read_table(path)
    header = [column.strip() for column in next(lines, (0, []))[1]]
    if not {"path", "label"} <= {*header} <= {*_Listed.model_fields} or len({*header}) < len(
        header
    ):
        raise UserError(
            f"{path}: line 1: the columns are {','.join(header)}, not path,label[,split][,group]"
        )
    rows = dict[str, _Listed]()
    for number, line in lines:
        if not any(value.strip() for value in line):
            continue
        if len(line) != len(header):
            raise UserError(
                f"{path}: line {number} has {len(line)} values for the columns "
                f"{','.join(header)}; quote values with commas"
            )
        with valid(f"{path}: line {number}: "):
            row = _Listed.model_validate(dict(zip(header, line)))
        file_path = os.path.normpath(path.parent / row.path)
        if file_path in rows:
            raise UserError(
                f"{path}: line {number} names {row.path} a second time; remove one of the lines"
            )
        rows[file_path] = row
    if not rows:
        raise UserError(f"{path}: lists 0 videos; add lines path,label")
    if missing := [row.path for name, row in rows.items() if not os.path.isfile(name)]:
        raise UserError(
            f"{path}: {len(missing)} of {len(rows)} files do not exist, the first {missing[0]}; "
            "correct its path (relative to the CSV)"
        )
    root = path.parent
    if not all(Path(name).is_relative_to(root) for name in rows):
        root = Path(os.path.commonpath([os.path.dirname(name) for name in rows]))
    return root, {below(file_path, root): row for file_path, row in rows.items()}


def _require_every_class(
    source: Path, classes: tuple[str, ...], listed: dict[str, _Listed], reasons: dict[str, str]
) -> None:
    if len(classes) < 2:
        raise UserError(
            f"{source}: has 1 class, and classification needs at least 2; add videos of another "
            "class"
        )
    readable = {video.label for name, video in listed.items() if name not in reasons}
    if empty := [label for label in classes if label not in readable]:
        names = [name for name, video in listed.items() if empty[0] == video.label]
        raise UserError(
            f"{source}: class {empty[0]!r} has {len(names)} videos, and 0 can be read (the first: "
            f"{names[0]}: {reasons[names[0]]}); replace them, or remove the class"
        )


def _with_split(
    source: Path, named: dict[str, Video], classes: tuple[str, ...], seed: int, pattern: str
) -> tuple[list[Video], str]:
    """Return the videos with their splits and groups, and a line on where these come from."""
    labels_of = {name: [classes[video.label]] for name, video in named.items()}
    files = {name: name for name in named}
    if listed_groups := {name: video.group for name, video in named.items() if video.group}:
        options = [listed_groups]
    elif pattern:
        options = [{name: group_of(name, pattern) or name for name in named}]
    else:
        options = [*groups_by_name(labels_of), files]
    if next(iter(named.values())).split:
        note = "split as given"
        sides = dict.fromkeys((options[0][name], video.split) for name, video in named.items())
        counts = Counter(group for group, _ in sides)
        divided = [group for group, count in counts.items() if count > 1]
        groups = options[0] if listed_groups or pattern else files
        if divided and groups is not files:
            raise UserError(
                f"{source}: group {divided[0]!r} is in train and in test; give each group one split"
            )
        if divided:
            note += (
                f"; warning: by their names, {len(divided):,} groups of videos are in train and in "
                f"test (the first: {divided[0]}), so give each one split if they are of one "
                "recording"
            )
    else:
        groups, test = _drawn(options, labels_of, seed)
        named = {
            name: replace(video, split="test" if groups[name] in test else "train")
            for name, video in named.items()
        }
        count = len(set(groups.values()))
        note = (
            f"no split given: whole groups drawn with seed {seed}, {len(test)} of {count} groups "
            "for test"
        )
        if count == len(named):
            note += "; every video is its own group"
        elif not listed_groups:
            note += f"; groups by name, such as {example(groups)}"
    videos = [replace(video, group=groups[name]) for name, video in named.items()]
    for split in SPLITS:
        labels = {video.label for video in videos if video.split == split}
        if without := [name for label, name in enumerate(classes) if label not in labels]:
            note += f"; no {split} videos of {', '.join(without)}"
    return videos, note


def _drawn(
    options: list[dict[str, str]], labels_of: dict[str, list[str]], seed: int
) -> tuple[dict[str, str], set[str]]:
    """Return the first groups that can be split, and those for the test."""
    groups, *others = options
    try:
        pairs = [(labels_of[name][0], group) for name, group in groups.items()]
        return groups, draw_test_groups(pairs, seed)
    except UserError:
        if not others:
            raise
        return _drawn(others, labels_of, seed)


def draw_test_groups(videos: list[tuple[str, str]], seed: int) -> set[str]:
    """Draw the groups that become the test split.

    About `TEST_SHARE` of each class's videos go to the test split, in whole groups. Of a class with
    two or more groups, at least one is tested on and at least one is trained on. A class with one
    group stays in training.

    Args:
        videos: (label, group) of each video.

    Raises:
        UserError: a class has two or more groups, but shares them with other classes, so that none
            can be tested on.
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
                    "group of another class, so none can be tested on; add a split column"
                )
            take(min(free, key=lambda group: (sizes[label][group], rank[group])))
    return test
