"""`log.jsonl`: one line of numbers a logged step, in JSON."""

import json
import operator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from mgm.errors import UserError
from mgm.results import files

LARGEST = 2**53  # steps and times are smaller


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of `folder`/log.jsonl, by step. Lines that a kill cut short, or that are not a
    log's, are left out; of a step that stands there twice the last line counts."""
    path = folder / "log.jsonl"
    lines: dict[int, dict[str, Any]] = {}
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            line = from_json(text)  # a fifth of json's time; a report reads half a million lines
            if abs(line["step"]) < LARGEST:
                lines[operator.index(line["step"])] = line
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return [lines[step] for step in sorted(lines)]


def rewind_log(folder: Path, step: int) -> None:
    """Drop the lines after `step`, so that a run that continues there logs no step twice."""
    kept = [json.dumps(line) + "\n" for line in log_lines(folder) if line["step"] <= step]
    files.write(folder / "log.jsonl", "".join(kept))


def append_log(folder: Path, line: dict[str, Any]) -> None:
    """Add a line with at least `step`.

    Raises:
        UserError: the run's folder is gone.
    """
    try:
        with files.naming(path := folder / "log.jsonl"), path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    except FileNotFoundError:
        raise UserError(f"{folder}: was removed while its run went on; run it again") from None
