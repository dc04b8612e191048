"""The loss of pretraining over its steps: a line per run, a colour per row."""

from pathlib import Path
from typing import Any

import pandas as pd

from mgm.results.result import log_lines
from mgm.spec import FrozenModel
from mgm.study.schema import View


class Options(FrozenModel):
    """It has none."""


def data(frame: pd.DataFrame, view: View) -> pd.DataFrame:
    """Return a row per line of a run's log, of each run that pretrains."""
    parts = []
    runs = frame.assign(run_id=frame.pretraining.str.split()).explode("run_id")
    for run in runs.dropna(subset="run_id").drop_duplicates("run_id").to_dict("records"):
        lines = pd.DataFrame(log_lines(Path(run["folder"]) / run["run_id"]))
        if {"step", "loss"} <= {*lines.columns}:
            own = {name: run[name] for name in ("title", "row", "run_id")}
            parts.append(lines[["step", "loss"]].assign(**own))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def draw(lines: pd.DataFrame, view: View) -> Any:
    import seaborn as sns

    from mgm.report.figures.panels import PANELS, colours_of, legend
    from mgm.report.figures.style import caption

    names = list(lines.row.unique())
    grid = sns.relplot(
        lines,
        x="step",
        y="loss",
        hue="row",
        palette=colours_of(names),
        units="run_id",
        estimator=None,
        kind="line",
        **PANELS | {"col": "title"},
    )
    for axes in grid.axes_dict.values():
        axes.grid(axis="y")
    grid.set_axis_labels("Step", "Loss")
    grid.set_titles("{col_name}")
    legend(grid, names)
    text = "A line per run. Losses of masks with other ratios or shapes are not comparable."
    return caption(grid.figure, text)
