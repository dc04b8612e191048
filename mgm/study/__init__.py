"""The paper as values: recipes, experiments, scales, studies, tables, figures and their cost."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# The user's own files, written by `mgm init`, have precedence.
PLACES = (Path("workflow").resolve(), PACKAGE / "workflow", PACKAGE.parent / "workflow")
WORKFLOW = next(place for place in PLACES if (place / "here.sh").exists())
CONFIG = WORKFLOW / "config"
# A wheel has the studies inside.
STUDIES = next(
    (place for place in (WORKFLOW.parent / "studies", WORKFLOW / "studies") if place.is_dir()),
    WORKFLOW.parent / "studies",
)
