"""The workflow's files:

Snakefile, rules, scales, profiles. Git keeps them in `workflow/`; a wheel carries it inside the
package.
"""

import shutil
from pathlib import Path

from mgm.errors import UserError

PACKAGE = Path(__file__).parents[1]
PLACES = (
    Path("workflow").resolve(),
    PACKAGE / "workflow",
    PACKAGE.parent / "workflow",
)  # a user's own, as `init` writes it, goes first
WORKFLOW = next(place for place in PLACES if (place / "here.sh").exists())
LINKS = {
    "config": "workflow/config",
    "profiles": "workflow/profiles",
    "slurm": "workflow/profiles/slurm",
}


def init(folder: Path) -> None:
    """Write the workflow's files to `folder`, for an installed mgm to run there.

    Raises:
        UserError: one of them is there already.
    """
    if taken := next(
        (folder / name for name in ("workflow", *LINKS) if (folder / name).exists()), None
    ):
        raise UserError(f"{taken}: is there already; choose an empty folder")
    shutil.copytree(WORKFLOW, folder / "workflow")
    for name, target in LINKS.items():
        (folder / name).symlink_to(target)
