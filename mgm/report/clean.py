"""Runs that no table or figure wants any more, such as those of recipes since changed."""

import shutil
from pathlib import Path

from mgm.errors import UserError
from mgm.paper.registry import Registry
from mgm.results.frame import read_specs
from mgm.results.result import examine


def unwanted(registry: Registry, results: Path) -> dict[Path, bool]:
    """The runs in `results` that the registry does not know: folders that hold the spec whose run
    id is their name, and no other; and whether a job still writes to each."""
    return {
        folder: examine(folder, spec).state == "running"
        for run_id, spec in sorted(read_specs(results).items())
        if run_id not in registry.specs and not isinstance(spec, UserError)
        if not (folder := results / run_id).is_symlink() and (folder / "spec.json").exists()
    }


def clean(registry: Registry, results: Path, delete: bool) -> str:
    """Say which runs no table or figure wants, and delete them if asked to.

    A run that is being written stays.
    """
    found = unwanted(registry, results)
    if not found:
        return f"{results}: every run there is wanted by a table or figure"
    sizes = {
        folder: sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir()) / 1e6
        for folder in found
    }
    lines = [
        f"{sizes[folder]:10.1f} MB  {folder}{'  (running: left alone)' * running}"
        for folder, running in found.items()
    ]
    idle = [folder for folder, running in found.items() if not running]
    runs = "1 run" if len(idle) == 1 else f"{len(idle)} runs"
    total = f"{runs} that no table or figure wants, {sum(sizes[folder] for folder in idle):.1f} MB"
    if not delete:
        return "\n".join([*lines, f"{total}; add --yes to delete them"])
    for folder in idle:
        shutil.rmtree(folder)
    return "\n".join([*lines, f"deleted {total}"])
