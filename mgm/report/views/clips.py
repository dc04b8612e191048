"""Arrays of one run: masks and motion, attention, or reconstructions on clips.

masks: every mask on a clip, and `coverage`: what they hide of the moving pixels. Both need no
model. attention: motion and attention on a clip. overlays: attention over clips. reconstructions:
clips that the models of the view's rows reconstruct.
"""

from typing import Any

import pandas as pd

from mgm.spec import FrozenModel
from mgm.study.schema import View


class Options(FrozenModel):
    """It has none: what it draws is the view's `show`."""


ARRAYS = True
# The rows whose pretraining each shows.
ROWS = {"masks": 0, "coverage": 0, "attention": 1, "overlays": 1, "reconstructions": 2}


def fault(view: View) -> str:
    """Return what is wrong with a view; empty if it can be drawn."""
    if not view.show:
        return f"clips need `show`: {', '.join(ROWS)}"
    if (len(view.rows), len(view.datasets)) != (ROWS[view.show], 1):
        return f"{view.show} shows {ROWS[view.show]} rows of one dataset"
    return ""


def format_of(view: View) -> str:
    """Return a format: measurements have curves, and the others show frames of clips."""
    return "svg" if view.show == "coverage" else "png"


def data(frame: pd.DataFrame, view: View) -> pd.DataFrame:
    """Return the run if it is finished, with the file of its arrays."""
    return frame[frame.status == "finished"]


def draw(runs: pd.DataFrame, view: View) -> Any:
    import numpy as np

    from mgm.report.figures.draw import DRAW

    run = runs.iloc[0]
    with np.load(run.path, allow_pickle=False) as file:
        return DRAW[view.show](dict(file), f"Scale {run.scale}.")
