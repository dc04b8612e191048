"""The workflow: its jobs, what they ask of a machine, and what it tells its user.

Its files (Snakefile, rules, scales, profiles) lie in `workflow/` of a checkout, and inside the
package of a wheel.
"""

import shutil
from pathlib import Path

from mgm.errors import UserError

PACKAGE = Path(__file__).parents[1]
# A user's own files, as `mgm init` writes them, go first.
PLACES = (Path("workflow").resolve(), PACKAGE / "workflow", PACKAGE.parent / "workflow")
WORKFLOW = next(place for place in PLACES if (place / "here.sh").exists())
LINKS = {
    "config": "workflow/config",
    "profiles": "workflow/profiles",
    "slurm": "workflow/profiles/slurm",
}


HALF = ".workflow.init"  # in a user's folder until all is there


def write_workflow(folder: Path) -> None:
    """Write the workflow's files to `folder`, for an installed mgm to run there.

    `workflow` is renamed into place last, so a call that was interrupted can be repeated.

    Raises:
        UserError: the folder is a file, or holds something.
    """
    if folder.is_dir():
        ours = {name for name in LINKS if (folder / name).is_symlink()} | {HALF}
        if found := sorted({path.name for path in folder.iterdir()} - ours):
            raise UserError(
                f"{folder / ('workflow' if 'workflow' in found else found[0])}: is there already; "
                "choose an empty folder"
            )
    elif folder.is_symlink() or folder.exists():
        raise UserError(f"{folder}: is a file; choose an empty folder, or one to be made")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / HALF, ignore_errors=True)
    shutil.copytree(WORKFLOW, folder / HALF)
    for name, target in LINKS.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    (folder / HALF).rename(folder / "workflow")
