"""Studies and their runs: the paper's tables and our own, recipes, scales and their cost."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# A wheel has these folders inside.
WORKFLOW = next(
    place for place in (PACKAGE / "workflow", PACKAGE.parent / "workflow") if place.is_dir()
)
CONFIG = WORKFLOW / "config"
STUDIES = next(
    place for place in (WORKFLOW / "studies", PACKAGE.parent / "studies") if place.is_dir()
)
