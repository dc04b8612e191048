"""Reading published lists, so that what cannot be followed is said with its file and its place."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mgm.errors import UserError


def read_text(path: Path, instead: str) -> str:
    """A list's text. Raises UserError, with what to do instead, when there is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {instead}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8; download it again") from None


def read_json(path: Path, kind: type, instead: str) -> Any:
    """What a JSON file holds, if it is of a type (list or dict).

    Raises:
        UserError: no such file, not JSON, or of another type.
    """
    try:
        value = json.loads(read_text(path, instead))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is not JSON ({error}), perhaps cut short; download it again") from None
    if not isinstance(value, kind):
        raise UserError(f"{path}: is a {type(value).__name__} where a {kind.__name__} should be; download it again")
    return value


def rows_of(path: Path, values: Sequence[Any], fields: dict[str, type]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it is, its fields) of every object of an array that the file at `path` holds.

    Raises:
        UserError: one is no object, or lacks a field or has it of another type.
    """
    for number, row in enumerate(values, start=1):
        where = f"{path}: entry {number}"
        for field, kind in fields.items():
            if not isinstance(row, dict) or field not in row:
                raise UserError(f"{where}: has no {field}; correct it")
            if type(row[field]) is not kind:
                raise UserError(f"{where}: {field} is {row[field]!r}, not of type {kind.__name__}; correct it")
        yield where, row


def plain_name(where: str, name: object) -> str:
    """A name that a list gives, if it is one of a file and not a path.

    Raises:
        UserError: it is empty, leads elsewhere or is not text; `where` is the place in the list.
    """
    if not isinstance(name, str) or not name.isprintable() or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise UserError(f"{where}: {name!r} is not the plain name of a video; correct it")
    return name
