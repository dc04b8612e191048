"""The workflow: its jobs, their resources, and its messages to the user.

Its files (Snakefile, rules, scales, profiles) are in the folders `workflow/` and `studies/` of a
checkout, and inside the package of a wheel.
"""

import shutil
from pathlib import Path

from mgm.errors import UserError
from mgm.study import STUDIES, WORKFLOW

LINKS = {
    "config": "workflow/config",
    "profiles": "workflow/profiles",
    "slurm": "workflow/profiles/slurm",
}

# The name of `workflow` until all its files are written.
HALF = ".workflow.init"


def write_workflow(folder: Path) -> None:
    """Write the workflow's files to `folder`, so that an installed mgm can run there.

    `workflow` is renamed into place last, so an interrupted call can be repeated.

    Raises:
        UserError: the folder is a file, or is not empty.
    """
    if folder.is_dir():
        ours = {name for name in LINKS if (folder / name).is_symlink()} | {HALF}
        # An interrupted call left them.
        ours |= {"studies"} if (folder / HALF).exists() else set()
        if others := sorted({path.name for path in folder.iterdir()} - ours):
            name = "workflow" if "workflow" in others else others[0]
            raise UserError(f"{folder / name}: is there already; choose an empty folder")
    elif folder.is_symlink() or folder.exists():
        raise UserError(f"{folder}: is a file; choose an empty or new folder")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / HALF, ignore_errors=True)
    try:
        shutil.copytree(WORKFLOW, folder / HALF, ignore=shutil.ignore_patterns("studies"))
        shutil.copytree(STUDIES, folder / "studies", dirs_exist_ok=True)
    except shutil.Error as error:
        # It lists an error per file.
        raise UserError(f"{folder}: {error.args[0][0][2]}") from None
    for name, target in LINKS.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    (folder / HALF).rename(folder / "workflow")
