"""Read files of unknown origin: UTF-8 text, tables, JSON, YAML and arrays.

A damaged file raises an error of one line that names the file. A pipe is refused, since reading it
could wait forever.
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import TypeAdapter

from mgm.errors import UserError, valid

if TYPE_CHECKING:
    import numpy as np


def regular(path: Path) -> Path:
    """Return `path` if it is a regular file or a link to one.

    Reading a FIFO or a device could wait forever.

    Raises:
        UserError: it is something else.
        FileNotFoundError: it does not exist.
    """
    if "\0" in str(path):
        raise UserError(f"{path}: contains a NUL character, which is not allowed; correct the path")
    path.stat()
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise UserError(f"{path}: is {kind}, not a file; move it away, or name another")
    return path


def found_in(texts: Sequence[str], pattern: str, option: str) -> list[str | None]:
    """Return what a regular expression finds in each text: its first group, or its whole match.

    RE2 matches in linear time, so no expression can hang.

    Raises:
        UserError: it is not an expression of RE2. The error names `option`.
    """
    import pyarrow as pa
    from pyarrow import compute

    # A file's name need not be UTF-8.
    column = pa.array([text.encode(errors="replace").decode() for text in texts], pa.string())
    whole = f"(?s)^.*?({pattern}).*$"
    try:
        matches = compute.match_substring_regex(column, pattern).to_pylist()
        try:
            parts = compute.replace_substring_regex(column, whole, r"\2")
        except pa.ArrowInvalid:
            # It has no group.
            parts = compute.replace_substring_regex(column, whole, r"\1")
    except pa.ArrowInvalid as error:
        raise UserError(f"{option}: {pattern!r}: {error}") from None
    return [part if match else None for part, match in zip(parts.to_pylist(), matches)]


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark, and keep its line ends.

    Raises:
        UserError: it is not a regular file, or not text in UTF-8.
        FileNotFoundError: it does not exist.
    """
    data = regular(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        other = "; it looks like UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise UserError(
            f"{path}: is not text in UTF-8 (byte {data[error.start]:#04x} at {error.start:,}"
            f"{other}); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise UserError(f"{path}: contains a NUL character, so it is not text; save it as UTF-8")
    return text


def read_table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each row of a CSV file with the number of its last line.

    Raises:
        UserError: it is not text in UTF-8, or a line is not CSV.
        FileNotFoundError: it does not exist.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: not CSV ({error}); correct it") from None


def read_json(path: Path, kind: Any = Any, then: str = "") -> Any:
    """Parse a JSON file.

    Args:
        kind: the type of its content, which pydantic checks.
        then: what the user can do about a file of another type.

    Raises:
        UserError: it cannot be read, is not standard JSON, which has neither NaN nor 1e999, names a
            field twice, or has another type.
        FileNotFoundError: it does not exist.
    """
    try:
        value = json.loads(
            read_text(path),
            parse_constant=_finite,
            parse_float=_finite,
            object_pairs_hook=_fields,
        )
    except (FileNotFoundError, UserError):
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error})") from None
    if kind is Any:
        return value
    with valid(f"{path}: ", then):
        return TypeAdapter(kind).validate_python(value)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the fields of a YAML file."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Return the fields of a YAML text. Its numbers, true, false and null are those of JSON.

    Args:
        source: the file's name, for the error.
    """
    fields = parse_value(text, source)
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise UserError(f"{source}: contains no fields; write them as NAME: VALUE")
    return fields


def parse_value(text: str, source: str) -> Any:
    """Return a value in YAML, such as a word of the command line."""
    try:
        # ValueError: invalid bytes and numbers. TypeError: values that cannot be a key.
        return yaml.load(text, _Loader)
    except (OSError, yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{source}: not YAML ({why}); correct it") from None


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses aliases, and fields that are given twice, and knows JSON's numbers.

    Of two equal fields, PyYAML keeps the last. Aliases can contain themselves, or expand without
    end. YAML's other numbers surprise: 24:00:00 is 86,400, 010 is 8, and yes is true. They are
    text here.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(
                problem=f"*{event.anchor} is an alias; write its value instead",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a list or a mapping cannot name a field; write NAME: VALUE",
                    problem_mark=key.start_mark,
                )
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _text, _first in (
    ("bool", "true|false", "tf"),
    ("null", "null|", ["n", ""]),
    ("int", "-?(0|[1-9][0-9]*)", "-0123456789"),
    ("float", r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", "-0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"({_text})$"), [*_first])


def deep_merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `below`, updated by those of `above`, group by group."""
    groups = {
        name: deep_merge(below[name], above[name])
        for name in above
        if isinstance(above[name], dict) and isinstance(below.get(name), dict)
    }
    return {**below, **above, **groups}


def read_arrays(path: Path) -> "dict[str, np.ndarray]":
    """Read all arrays of an npz file. Refuse pickled objects, since loading them could run code.

    Raises:
        UserError: it is damaged, or not an npz file.
        FileNotFoundError: it does not exist.
    """
    # Commands that read no arrays start without NumPy.
    import numpy as np

    try:
        with np.load(regular(path)) as file:
            return {name: file[name] for name in file.files}
    except (FileNotFoundError, UserError):
        raise
    # A damaged archive raises many kinds of error.
    except Exception as error:
        raise UserError(
            f"{path}: is not a complete npz file ({type(error).__name__}); write it again"
        ) from None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a regular file."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Of two equal fields, Python would keep the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is given twice")
    return fields


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a number, or is too large")
    return number
