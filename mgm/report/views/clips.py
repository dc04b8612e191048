"""Arrays of one run: masks and motion, attention, or reconstructions on clips."""

from pathlib import Path
from typing import Any, Literal

from mgm.spec import FrozenModel
from mgm.study.schema import View


class Options(FrozenModel):
    """What is drawn.

    masks: every mask on a clip, and `coverage`: what they hide of the moving pixels. Both need no
    model. attention: motion and attention on a clip. overlays: attention over clips.
    reconstructions: clips that the models of the view's rows reconstruct.
    """

    show: Literal["masks", "coverage", "attention", "overlays", "reconstructions"]


# The rows whose pretraining each shows.
ROWS = {"masks": 0, "coverage": 0, "attention": 1, "overlays": 1, "reconstructions": 2}


def fault(view: View) -> str:
    """Return what is wrong with a view; empty if it can be drawn."""
    show = view.options["show"]
    if (len(view.rows), len(view.datasets)) != (ROWS[show], 1):
        return f"{show} shows {ROWS[show]} rows of one dataset"
    return ""


def draw_file(path: Path, show: str, note: str) -> Any:
    """Draw the arrays of a run."""
    import numpy as np

    from mgm.report.figures.draw import DRAW

    with np.load(path, allow_pickle=False) as file:
        return DRAW[show](dict(file), note)
