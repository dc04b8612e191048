"""Estimates of numbers per dataset seed and seed: per sampling unit, and of differences."""

from collections.abc import Iterable, Sequence

import pandas as pd

from mgm.results.statistics import over_seeds
from mgm.study.formula import Formula


def per_unit(values: pd.Series, unit: str) -> pd.Series:
    """Return a number per sampling unit: per draw, or per run if the study says so.

    A draw's number is the mean over its seeds. Student's t interval over draws then covers both:
    with y_ds = mu + a_d + e_ds for draw d and seed s, the sample variance of the draws' means,
    divided by their number, is an unbiased estimate of the variance of the total mean. More seeds
    per draw reduce only the part of e.

    Args:
        values: by draw and seed. The draw of a dataset that is not drawn is -1.
        unit: draws or runs.
    """
    drawn = (values.index.get_level_values("draw") >= 0).all()
    return values.groupby("draw").mean() if unit == "draws" and drawn else values


def minus(frame: pd.DataFrame, row: str) -> pd.DataFrame:
    """Return the cells of a column with what each is above a row of its dataset.

    Args:
        frame: cells of one column, as `Findings.shown_by` returns them.

    Returns:
        The frame with the paired difference as `mean`, `low`, `high` and `n`, for cells that have a
        run in common with the row.
    """
    subtracted = frame[frame.row == row].set_index("dataset")
    gained = []
    for cell in frame[frame.dataset.isin(subtracted.index)].to_dict("records"):
        other = subtracted.loc[cell["dataset"]]
        units = per_unit((cell["values"] - other["values"]).dropna(), cell["by"])
        if len(units):
            estimate = over_seeds(units.tolist())
            limit = 100 if cell["share"] else float("inf")
            gained.append(cell | estimate.within(-limit, limit)._asdict())
    return pd.DataFrame(gained, columns=frame.columns)


def combined(
    formula: Formula, parts: Sequence[pd.Series | float], once: Sequence[bool]
) -> pd.Series:
    """Return a formula's number per draw and seed that all its terms have.

    Args:
        parts: the values of each term, or a number.
        once: whether a term is measured once per draw, as controls are. Its mean then stands for
            each run of the other terms.
    """
    series = [part for part in parts if isinstance(part, pd.Series)]
    varied = [part for part, is_once in zip(parts, once) if not is_once]
    leading = [part for part in varied if isinstance(part, pd.Series)] or series
    index = leading[0].index
    for other in leading[1:]:
        index = index.intersection(other.index)
    aligned = list[pd.Series | float]()
    for part, is_once in zip(parts, once):
        if isinstance(part, pd.Series) and is_once and len(leading) < len(series):
            part = part.groupby("draw").mean().reindex(index, level="draw")
        elif isinstance(part, pd.Series):
            part = part.reindex(index)
        aligned.append(part)
    return formula.of(aligned).dropna()


def status_of(states: Iterable[str]) -> str:
    """Return a cell's status from the statuses of its runs.

    One altered run makes its cell altered. "failed" goes before "running" and "not run".
    """
    every = {*states}
    if "altered" in every:
        return "altered"
    if "finished" in every:
        return "finished" if every == {"finished"} else "partial"
    return next((state for state in ("failed", "running") if state in every), "not run")
