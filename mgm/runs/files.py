"""Files that are either the old one or the new one, never half of one."""

import os
import re
from pathlib import Path


def write(path: Path, text: str) -> Path:
    """`text` under `path`, also after a crash: a temporary file beside it, synced, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def remove_parts(folder: Path) -> None:
    """Delete what writers that were killed left in a folder that no one writes to now."""
    for part in folder.iterdir():
        if re.fullmatch(r"\..+\.\d+", part.name):
            part.unlink()
