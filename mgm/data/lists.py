"""Read a list of videos strictly: a table with a header, or lines of a path and a label.

- A table has the columns `path[,label][,split][,group]` in any order, between commas, semicolons
  or tabs. A column `frames`, and the numbers that pandas writes before each row, are not used.
- A list has lines `PATH`, `PATH LABEL` or `PATH FRAMES LABEL`, between commas, semicolons, tabs or
  spaces. All lines have the same form. Labels are whole numbers, or all are names.

Files are UTF-8, with or without a byte order mark. Blank rows are skipped, and lines that begin
with "# ". A label -1 is none. What is not understood is an error with the file and the line.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from unicodedata import category, name

from mgm.errors import UserError
from mgm.files import read_text

UNLABELLED = "unlabelled"  # the one class of videos without labels
SPLIT_OF = {"train": "train", "training": "train", "test": "test", "testing": "test"} | (
    dict.fromkeys(("val", "valid", "validation", "validate", "eval", "dev"), "val")
)
SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m2v", "ts", "mts", "m2ts"),
        *("vob", "wmv", "asf", "flv", "3gp", "3g2", "ogv", "mxf", "rm", "rmvb", "dv", "divx"),
        *("h264", "264", "hevc", "y4m", "gif"),
    )
)
FORM = "path[,label][,split][,group]"
COLUMNS = ("path", "label", "split", "group")
UNUSED = ("frames", "", "unnamed: 0")  # columns of a table that are read over
SEPARATORS = ",;\t"
_SUFFIX = rf"\.(?:{'|'.join(sorted(suffix[1:] for suffix in SUFFIXES))})"
# A path that ends as videos do, and what follows it.
VIDEO = re.compile(rf"(.+{_SUFFIX})(?:([\s,;]+)(.*))?", re.IGNORECASE)
NAMED = re.compile(rf"\S{_SUFFIX}(?![a-z0-9])", re.IGNORECASE)
TWO = re.compile(rf".+{_SUFFIX}[\s,;].+", re.IGNORECASE)
QUOTED = re.compile(r'"((?:[^"]|"")+)"(?:([\s,;]+)(.*))?')
# Another path, and numbers.
NUMBERED = re.compile(r"(.+?)([\s,;]+)(-?[0-9]+(?:\.0+)?(?:[\s,;]+-?[0-9]+(?:\.0+)?)*)")
# A line that says nothing.
REMARK = re.compile(rf"[{SEPARATORS}\s]*$|#($| )")
WHOLE = re.compile(r"(-?[0-9]+)(?:\.0+)?")


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


def unseen(text: str) -> str:
    """Return the first letter that names may not have, as "U+200B (ZERO WIDTH SPACE)".

    Names have neither control characters, marks of direction or of no width, line separators, nor
    bytes that are not UTF-8. Empty: there is none.
    """
    for letter in text:
        if category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            return f"U+{ord(letter):04X} ({name(letter, 'control character').lower()})"
    return ""


def read_list(path: Path, headed: bool = False) -> list[Row]:
    """Return the rows of a table or of a list.

    Args:
        headed: it must be a table.
    """
    lines = _lines(path)
    number, first = lines[0] if lines else (1, "nothing")
    if header := _header(first):
        return _table(path, number, *header, lines[1:])
    if headed:
        raise UserError(f"{path}: line {number}: the columns are {first}, not {FORM}")
    return _plain(path, lines)


def is_list(path: Path) -> bool:
    """Return whether a file of text seems to list videos: it has a header, or names a video."""
    text = read_text(path)
    lines = (line for line in text.split("\n") if not REMARK.match(line))
    return bool(NAMED.search(text) or _header(next(lines, "").strip()))


def read_columns(path: Path, columns: set[str]) -> list[tuple[str, dict[str, str]]]:
    """Return (line, {column: value}) of a table with commas; empty if it lacks some columns."""
    lines = _lines(path)
    names = [cell.strip(' "') for cell in lines[0][1].split(",")] if lines else []
    if not columns <= {*names}:
        return []
    cells = _cells_of_lines(path, ",", len(names), lines[1:])
    return [(where, dict(zip(names, values))) for where, values in cells]


def read_names(path: Path) -> dict[str, str]:
    """Return {number: name} of a file such as UCF101's classInd.txt; empty if it is none.

    All lines have the same form, and no number is there twice. Of two forms that fit, the one with
    smaller numbers counts.
    """
    lines = [line for _, line in _lines(path)]
    fits = list[dict[str, str]]()
    for form in (
        r"(?P<number>[0-9]+)[\s,;]+(?P<name>.+)",
        r"(?P<name>.+?)[\s,;]+(?P<number>[0-9]+)",
    ):
        found = [one for line in lines if (one := re.fullmatch(form, line))]
        names = {str(int(one["number"])): one["name"].strip() for one in found}
        if lines and len(names) == len(lines):
            fits.append(names)
    return min(fits, key=lambda names: max(map(int, names)), default={})


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that say something, with their numbers."""
    lines = list[tuple[int, str]]()
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.strip(" \r\ufeff")
        if REMARK.match(line):
            continue
        if line.startswith("#"):
            raise UserError(
                f"{path}: line {number} begins with #; write `# ` before a remark, and ./# before "
                "the name of a file"
            )
        # Tabs separate cells.
        if mark := unseen(line.replace("\t", "")):
            raise UserError(f"{path}: line {number} has {mark}; remove it")
        lines.append((number, line))
    return lines


def _cells(line: str, separator: str, where: str) -> list[str]:
    """Return the cells of one line. Quotes may not reach beyond it."""
    try:
        (cells,) = csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True)
    except csv.Error as error:
        raise UserError(f"{where}: {error}; put quotes around whole cells") from None
    return [cell.strip() for cell in cells]


def _cells_of_lines(
    path: Path, separator: str, count: int, lines: Iterable[tuple[int, str]]
) -> Iterator[tuple[str, list[str]]]:
    """Yield each line of a table, by its name, and its cells."""
    for number, line in lines:
        where = f"{path}: line {number}"
        cells = _cells(line, separator, where)
        if len(cells) != count:
            raise UserError(
                f"{where} has {len(cells)} values, and the header has {count} columns; put quotes "
                "around values with separators"
            )
        yield where, cells


def _whole(text: str) -> str:
    """Return a number without the zeros behind a point that pandas writes, and other text as is."""
    return number[1] if (number := WHOLE.fullmatch(text)) and "." in text else text


def _label(text: str) -> str:
    label = _whole(text)
    return UNLABELLED if label in ("", "-1") else label


# --- Tables ---


def _header(line: str) -> tuple[str, list[str]] | None:
    """Return the separator and the columns of a header."""
    for separator in (*SEPARATORS, " "):
        cells = [cell.strip(' "').casefold() for cell in line.split(separator)]
        known = separator != " " or {*cells} <= {*COLUMNS, *UNUSED}
        if "path" in cells and known:
            return separator, cells
    return None


def _table(
    path: Path, first: int, separator: str, columns: list[str], lines: Iterable[tuple[int, str]]
) -> list[Row]:
    unknown = {*columns} - {*COLUMNS, *UNUSED}
    if unknown or any(columns.count(column) > 1 for column in COLUMNS):
        raise UserError(
            f"{path}: line {first}: the columns are {','.join(columns)}, not {FORM}; remove "
            "or rename the others"
        )
    rows = list[Row]()
    for where, cells in _cells_of_lines(path, separator, len(columns), lines):
        for column, cell in zip(columns, cells):
            if column in UNUSED and cell and not WHOLE.fullmatch(cell):
                raise UserError(f"{where}: {cell!r} is in a column without a name that mgm knows")
        row = dict(zip(columns, cells))
        split = row.get("split", "").casefold()
        if split and split not in SPLIT_OF:
            raise UserError(f"{where}: split {split!r} is not train, val or test")
        if not row["path"]:
            raise UserError(f"{where} has no path")
        label, group = _label(row.get("label", "")), row.get("group", "")
        if mark := unseen(row["path"] + label + group):
            raise UserError(f"{where} has {mark}; remove it")
        rows.append(Row(row["path"], label, SPLIT_OF.get(split, ""), group, where))
    _all_or_none(rows, "label", [row.label != UNLABELLED for row in rows])
    _all_or_none(rows, "split", [bool(row.split) for row in rows])
    return rows


def _all_or_none(rows: list[Row], what: str, has: list[bool]) -> None:
    if any(has) and not all(has):
        raise UserError(f"{rows[has.index(False)].where} has no {what}, and others have one")


# --- Lists ---


def _plain(path: Path, lines: Iterable[tuple[int, str]]) -> list[Row]:
    places = [(f"{path}: line {number}", line) for number, line in lines]
    found = [(where, *_of_line(line, where)) for where, line in places]
    counts = Counter(len(values) for _, _, values in found)
    usual = counts.most_common(1)[0][0] if counts else 0
    for where, _, values in found:
        if len(values) != usual:
            raise UserError(
                f"{where} has {len(values)} values after the path, and other lines have {usual}"
            )
    if usual > 2:
        raise UserError(
            f"{found[0][0]} has {usual} values after the path; write PATH LABEL or PATH FRAMES "
            "LABEL: a video has one label here"
        )
    labels = [_whole(values[-1]) if values else "-1" for _, _, values in found]
    whole = [bool(WHOLE.fullmatch(label)) for label in labels]
    numbers = 2 * sum(whole) >= len(whole)
    rows = list[Row]()
    for (where, video, values), label, is_number in zip(found, labels, whole):
        if len(values) == 2 and not re.fullmatch("[0-9]+", _whole(values[0])):
            raise UserError(f"{where}: {values[0]!r} is no number of frames")
        if is_number != numbers:
            other = "no number, and others are" if numbers else "a number, and others are names"
            raise UserError(f"{where}: label {label!r} is {other}")
        if not is_number and not VIDEO.fullmatch(video):
            raise UserError(f"{where}: {video!r} does not end as a video's name does")
        if int(label) < -1 if is_number else not re.search("[^-+.0-9]", label):
            raise UserError(f"{where}: label {label!r} is neither a name nor a number from 0")
        rows.append(Row(video, _label(str(int(label)) if is_number else label), where=where))
    _all_or_none(rows, "label", [row.label != UNLABELLED for row in rows])
    return rows


def _of_line(line: str, where: str) -> tuple[str, list[str]]:
    """Return the path and the values of a line."""
    line = line.strip()
    quoted = line.startswith('"')
    found = QUOTED.fullmatch(line) if quoted else VIDEO.fullmatch(line) or NUMBERED.fullmatch(line)
    if not found:
        raise UserError(f"{where} is not PATH, PATH LABEL or PATH FRAMES LABEL: {line!r}")
    video, between, rest = found[1], found[2] or "", found[3] or ""
    if quoted:
        video = video.replace('""', '"')
    elif TWO.fullmatch(video):
        raise UserError(f"{where} names two videos; if it is one, put quotes around its path")
    separator = next((one for one in SEPARATORS if one in between), " ")
    return video, _cells(rest, separator, where) if rest else []
