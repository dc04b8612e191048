"""Read a list of videos strictly: a table with a header, or lines of a path and a label.

- A table has the columns `path[,label][,split][,group]` in any order, between commas, semicolons
  or tabs. A column `frames`, and the numbers that pandas writes before each row, are not used.
  `file_name` is `path`, as in Hugging Face's metadata.csv. metadata.jsonl has an object per line.
- A list has lines `PATH`, `PATH LABEL` or `PATH FRAMES LABEL`, between commas, semicolons, tabs or
  spaces. All lines have the form of the first. Labels are whole numbers, so paths may have spaces.

Files are UTF-8, with or without a byte order mark. Blank rows are skipped, and lines that begin
with "# ". A label -1 is none. A column is filled in all rows or in none. What is not understood is
an error with the file and the line.
"""

import csv
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import category, name

from mgm.errors import UserError
from mgm.files import parse_json, read_text

UNLABELLED = "unlabelled"  # the one class of videos without labels
SPLIT_OF = {"train": "train", "training": "train", "test": "test", "testing": "test"} | (
    dict.fromkeys(("val", "valid", "validation", "validate", "eval", "dev"), "val")
)
SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m2v", "ts", "mts", "m2ts"),
        *("vob", "wmv", "asf", "flv", "3gp", "3g2", "ogv", "mxf", "rm", "rmvb", "dv", "divx"),
        *("h264", "264", "hevc", "y4m", "gif", "f4v", "mod", "tod", "qt", "mpe", "m1v", "ogm"),
        *("m2p", "ivf", "nut"),
    )
)
FORM = "path[,label][,split][,group]"
COLUMNS = ("path", "label", "split", "group")
ALIASES = {"file_name": "path"}
UNUSED = ("frames", "", "unnamed: 0")  # columns of a table that are read over
# The columns of a list, by the number of numbers in its first line.
FORMS = (("path",), ("path", "label"), ("path", "frames", "label"))
SEPARATORS = ",;\t"
Line = tuple[str, list[tuple[str, str]]]  # the file and the number of a line; columns and cells
JOINERS = "\u200c\u200d"
# What programs write for a label that is missing, in small letters.
MISSING = frozenset(
    ("nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat", "nil", "#value!", "#ref!", "-", "?")
)
_SUFFIX = rf"\.(?:{'|'.join(sorted(suffix[1:] for suffix in SUFFIXES))})"
NUMBER = r"-?[0-9]{1,18}(?:\.0+)?"
# A path with spaces, and up to two numbers.
LINE = re.compile(rf"(.+?)((?:[\s,;]+{NUMBER}){{0,2}})")
NAMED = re.compile(rf"\S{_SUFFIX}(?![a-z0-9])", re.IGNORECASE)
# A path in which the name of a video ends, and then more follows.
TWO = re.compile(rf".*{_SUFFIX}[\s,;].*", re.IGNORECASE)
# A line that says nothing.
REMARK = re.compile(rf"[{SEPARATORS}\s]*$|#($| )")


class Row(NamedTuple):
    """A video as a source lists it.

    Attributes:
        split, group: empty if the source has none.
        where: the list and the line.
        name: in the store. Empty: the path without its suffix.
    """

    path: str
    label: str
    split: str = ""
    group: str = ""
    where: str = ""
    name: str = ""


def is_video(path: str) -> bool:
    """Return whether a path ends as those of videos do."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def unseen(text: str) -> str:
    """Return the first letter that names may not have, as "U+200B (ZERO WIDTH SPACE)".

    Names have neither control characters, marks of direction or of no width, line separators, nor
    bytes that are not UTF-8. But Persian and emoji need joiners between letters. Empty: there is
    none.
    """
    if text.isascii() and text.isprintable():
        return ""
    for before, letter, after in zip(f" {text}", text, f"{text[1:]} "):
        joins = letter in JOINERS and {category(before)[0], category(after)[0]} <= {*"LMS"}
        if category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and not joins:
            return f"U+{ord(letter):04X} ({name(letter, 'control character').lower()})"
    return ""


# --- Texts ---


def is_list(path: Path) -> bool:
    """Return whether a file of text seems to list videos: it has a header, or names a video."""
    text = read_text(path)
    lines = (line for line in text.split("\n") if not REMARK.match(line))
    return bool(NAMED.search(text) or _header(next(lines, "").strip()))


def read_columns(path: Path, columns: set[str]) -> list[tuple[str, dict[str, str]]]:
    """Return the lines of a table with commas; none if it lacks some columns."""
    lines = _lines(path)
    names = [cell.strip(' "') for cell in lines[0][1].split(",")] if lines else []
    if not columns <= {*names}:
        return []
    return [(where, dict(cells)) for where, cells in _by_column(lines, ",", names)]


def read_names(path: Path) -> dict[str, str]:
    """Return {number: name} of a file such as UCF101's classInd.txt; empty if it is none.

    All lines have the same form, and no number is there twice. Of two forms that fit, the one with
    smaller numbers counts.
    """
    lines = [line for _, line in _lines(path)]
    fits = list[dict[str, str]]()
    for form in (
        r"(?P<number>[0-9]{1,18})[\s,;]+(?P<name>.+)",
        r"(?P<name>.+?)[\s,;]+(?P<number>[0-9]{1,18})",
    ):
        found = [one for line in lines if (one := re.fullmatch(form, line))]
        names = {str(int(one["number"])): one["name"].strip() for one in found}
        if lines and len(names) == len(lines):
            fits.append(names)
    return min(fits, key=lambda names: max(map(int, names)), default={})


def _lines(path: Path) -> list[tuple[str, str]]:
    """Return the lines that say something, after the file and their number."""
    lines = list[tuple[str, str]]()
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        where, line = f"{path}: line {number}", line.strip(" \r\ufeff")
        if REMARK.match(line):
            continue
        if line.startswith("#"):
            raise UserError(
                f"{where} begins with #; write `# ` before a remark, and ./# before the name of a "
                "file"
            )
        # Tabs separate cells.
        if mark := unseen(line.replace("\t", "")):
            raise UserError(f"{where} has {mark}; remove it")
        lines.append((where, line))
    return lines


def _cells(separator: str, where: str, line: str) -> list[str]:
    """Return the cells of one line. Quotes may not reach beyond it."""
    try:
        (cells,) = csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True)
    except csv.Error as error:
        raise UserError(f"{where}: {error}; put quotes around whole cells") from None
    return [cell.strip() for cell in cells]


def _by_column(
    lines: Sequence[tuple[str, str]], separator: str, columns: Sequence[str]
) -> Iterator[Line]:
    """Yield the lines of a table after its header."""
    for where, line in lines[1:]:
        cells = _cells(separator, where, line)
        if len(cells) != len(columns):
            raise UserError(
                f"{where} has {len(cells)} values, and the first line has {len(columns)}; put "
                "quotes around values with separators"
            )
        yield where, [*zip(columns, cells)]


# --- Rows ---


def read_list(path: Path) -> list[Row]:
    """Return the rows of a table or of a list."""
    lines = _lines(path)
    start, first = lines[0] if lines else ("", "")
    if path.suffix.lower() == ".jsonl":
        found: Iterable[Line] = ((where, [*_object(where, line).items()]) for where, line in lines)
    elif header := _header(first):
        separator, columns = header
        if {*columns} - {*COLUMNS, *UNUSED} or any(columns.count(name) > 1 for name in COLUMNS):
            raise UserError(
                f"{start}: the columns are {','.join(columns)}, not {FORM}; remove or rename the "
                "others"
            )
        found = _by_column(lines, separator, columns)
    else:
        found = _of_list(lines)
    rows = [_row(where, cells) for where, cells in found]
    for what, none in (("label", UNLABELLED), ("split", ""), ("group", "")):
        lacking = [row.where for row in rows if getattr(row, what) == none]
        if 0 < len(lacking) < len(rows):
            raise UserError(
                f"{lacking[0]} has no {what}, and others have one ({len(lacking):,} of "
                f"{len(rows):,} lack it); fill or empty the column"
            )
    return rows


def require_said(rows: Sequence[Row], classes: Collection[str] = ()) -> None:
    """Check that no label is a word for one that is missing, unless a list of classes has it."""
    lost = [row for row in rows if row.label.casefold() in MISSING and row.label not in classes]
    if lost:
        raise UserError(
            f"{lost[0].where}: label {lost[0].label!r} says that it is missing, as those of "
            f"{len(lost):,} of {len(rows):,} rows; correct or remove them, or if it is a class, "
            "name all classes in a classInd.txt"
        )


def _object(where: str, line: str) -> dict[str, str]:
    """Return the cells of a line of metadata.jsonl, by their columns."""
    found = parse_json(line, where)
    if not isinstance(found, dict):
        raise UserError(f"{where} is no JSON object of columns")
    known = {str(ALIASES.get(name, name)): value for name, value in found.items()}
    if "path" not in known or not {*known} <= {*COLUMNS, *UNUSED}:
        raise UserError(f"{where} has the columns {','.join(found)}, not file_name and {FORM[5:]}")
    return {name: "" if value is None else str(value) for name, value in known.items()}


def _header(line: str) -> tuple[str, list[str]] | None:
    """Return the separator and the columns of a header."""
    for separator in (*SEPARATORS, " "):
        columns = [cell.strip(' "').casefold() for cell in line.split(separator)]
        columns = [ALIASES.get(column, column) for column in columns]
        known = separator != " " or {*columns} <= {*COLUMNS, *UNUSED}
        if "path" in columns and known:
            return separator, columns
    return None


def _of_list(lines: Iterable[tuple[str, str]]) -> Iterator[Line]:
    """Yield the lines of a list. All have as many numbers as the first."""
    first = -1
    for where, line in lines:
        found = LINE.fullmatch(line)
        path, numbers = (found[1], re.findall(NUMBER, found[2])) if found else (line, [])
        if '"' in line or TWO.fullmatch(path) or not (numbers or is_video(path)):
            raise UserError(
                f"{where} is not PATH, PATH LABEL or PATH FRAMES LABEL, with numbers: {line!r}; "
                f"labels with names need a table, {FORM}, and the column of the videos is `path`"
            )
        first = len(numbers) if first < 0 else first
        if len(numbers) != first:
            raise UserError(
                f"{where} has {len(numbers)} numbers after the path, and the first line has {first}"
            )
        # pandas writes zeros behind a point.
        values = [int(number.partition(".")[0]) for number in numbers]
        if any(value < 0 for value in values[:-1]) or min(values, default=0) < -1:
            raise UserError(f"{where}: has {numbers}, and counts and labels are from 0")
        yield where, [*zip(FORMS[first], [path, *map(str, values)])]


def _row(where: str, line: Sequence[tuple[str, str]]) -> Row:
    """Return the row of a line, in words that are the same in all lists."""
    for column, cell in line:
        if column in UNUSED and cell and not re.fullmatch(NUMBER, cell):
            raise UserError(f"{where}: column {column!r} has {cell!r}, which is no whole number")
    cells = dict(line)
    path, label, split, group = (cells.get(column, "") for column in COLUMNS)
    if not path:
        raise UserError(f"{where} has no path")
    if mark := unseen(path + label + group):
        raise UserError(f"{where} has {mark}; remove it")
    if split and split.casefold() not in SPLIT_OF:
        raise UserError(f"{where}: split {split!r} is not train, val or test")
    if re.fullmatch(NUMBER, label):
        # pandas writes zeros behind a point.
        label = label.partition(".")[0]
    if label in ("", "-1"):
        label = UNLABELLED
    return Row(path, label, SPLIT_OF.get(split.casefold(), ""), group, where)
