"""Our numbers of rows, in the order of the paper's: a panel per dataset and column."""

from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from mgm.report.views import options_of
from mgm.spec import MASKS, FrozenModel
from mgm.study.quoted import paper_numbers
from mgm.study.schema import View


class Options(FrozenModel):
    # The paper's numbers: STUDY/DATASET/COLUMN.
    x: Annotated[str, Field(pattern="^[^/]+/[^/]+/[^/]+$")]


def data(frame: pd.DataFrame, view: View) -> pd.DataFrame:
    """Return the cells of tests with a number, each with the paper's number of its row."""
    points = frame[frame.tested & (frame.n > 0)]
    points = points.assign(paper=points.row.map(paper_numbers(options_of(view).x)))
    names = ["panel", "dataset", "column", "row", "mask", "mean", "low", "high", "paper", "unit"]
    return points.dropna(subset="paper")[names]


def draw(points: pd.DataFrame, view: View) -> Any:
    import numpy as np
    import seaborn as sns

    from mgm.report.figures.panels import FACETS, WIDTH
    from mgm.report.figures.style import ACCENT, LOOKS, caption

    numbers = points.groupby("row").paper.first().sort_values(kind="stable")
    grid = sns.FacetGrid(
        points, **FACETS | {"height": 3.2, "aspect": WIDTH / 3.2}, sharex=False, sharey=False
    )
    for name, axes in grid.axes_dict.items():
        own = points[points.panel == name].set_index("row").reindex(numbers.index)
        for place, cell in enumerate(own.itertuples()):
            guided = cell.mask in MASKS and MASKS[cell.mask].guided
            colour = ACCENT if guided else LOOKS[1]
            axes.plot(place, cell.mean, "o", markersize=5, color=colour)
            if np.isfinite(cell.low):
                axes.vlines(place, cell.low, cell.high, colour, linewidth=1.2)
        texts = [f"{row}: {number:.1f}" for row, number in numbers.items()]
        axes.set_xticks(range(len(texts)), texts, rotation=30, ha="right")
        axes.margins(0.06)
        axes.grid(axis="y")
    grid.set_axis_labels("", "Ours (%)")
    grid.set_titles("{col_name}")
    grid.tight_layout()
    unit = points.unit.iloc[0]
    text = f"Marks and bars: mean and 95 % interval over {unit}s. Below: the paper's number (%)."
    return caption(grid.figure, f"{text} Orange: masks guided by motion.")
