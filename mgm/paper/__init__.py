"""The paper as values: recipes, experiments, scales, studies, tables, figures and their cost."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# The user's own files, written by `mgm init`, have precedence.
PLACES = (Path("workflow").resolve(), PACKAGE / "workflow", PACKAGE.parent / "workflow")
WORKFLOW = next(place for place in PLACES if (place / "here.sh").exists())
CONFIG = WORKFLOW / "config"
STUDIES = WORKFLOW / "studies"
