"""Runs that no table or figure wants any more, such as those of recipes since changed."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from mgm.errors import UserError
from mgm.experiments.registry import Registry
from mgm.runs.frame import read_specs
from mgm.runs.result import examine


@dataclass(frozen=True)
class Unwanted:
    """A run's folder, its size in bytes, and whether a job still writes to it."""

    folder: Path
    size: int
    running: bool


def unwanted(registry: Registry, results: Path) -> list[Unwanted]:
    """The runs in `results` that the registry does not know: folders that hold the spec whose run id is their name, and no other."""
    found = []
    for run_id, spec in sorted(read_specs(results).items()):
        folder = results / run_id
        if run_id in registry.specs or isinstance(spec, UserError) or folder.is_symlink() or not (folder / "spec.json").exists():
            continue
        size = sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
        found.append(Unwanted(folder, size, examine(folder, spec).state == "running"))
    return found


def clean(registry: Registry, results: Path, delete: bool) -> str:
    """Say which runs no table or figure wants, and delete them if asked to. A run that is being written stays."""
    found = unwanted(registry, results)
    if not found:
        return f"{results}: every run there is wanted by a table or figure"
    lines = [f"{one.size / 1e6:10.1f} MB  {one.folder}{'  (running: left alone)' if one.running else ''}" for one in found]
    idle = [one for one in found if not one.running]
    runs = "1 run" if len(idle) == 1 else f"{len(idle)} runs"
    total = f"{runs} that no table or figure wants, {sum(one.size for one in idle) / 1e6:.1f} MB"
    if not delete:
        return "\n".join([*lines, f"{total}; add --yes to delete them"])
    for one in idle:
        shutil.rmtree(one.folder)
    return "\n".join([*lines, f"deleted {total}"])
