"""Differences between rows over seeds and people: who is seen in a test video.

A study says by `people` how to read a person from a video's path.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mgm.errors import UserError
from mgm.reading import found_in
from mgm.results.statistics import FEWEST, Estimate, over_seeds_and_people
from mgm.study.formula import parse_formula

# Dataset, column and row.
Cell = tuple[str, str, str]


def by_person(values: pd.DataFrame, folder: Path, people: str) -> dict[Cell, pd.DataFrame]:
    """Map each cell to its accuracies (%), one line per run and one column per person.

    Controls, and measurements without a prediction per video, are left out.

    Args:
        values: the runs that count (`mgm.report.estimates.values_of`), in `folder`.
        people: a regular expression.

    Raises:
        UserError: it is not found in a path.
    """
    accuracies: dict[Cell, dict[tuple[int, int], pd.Series]] = {}
    for run in values[~values.control].to_dict("records"):
        path = folder / run["run_id"] / "predictions.csv"
        if not path.exists():
            continue
        table = pd.read_csv(path, dtype=str)
        person = pd.Series(found_in(table.path.tolist(), people, "people"), dtype="object")
        if person.isna().any():
            raise UserError(
                f"{path}: {table.path[person.isna()].iloc[0]} has no person by the study's "
                f"`people`, {people!r}"
            )
        # A column per classifier.
        right = 100 * table.iloc[:, 2:].eq(table.label, axis=0).mean(axis=1)
        cell = accuracies.setdefault((run["dataset"], run["column"], run["row"]), {})
        cell[run["dataset_seed"], run["seed"]] = right.groupby(person).mean()
    return {place: pd.DataFrame(runs).T for place, runs in accuracies.items()}


def over_people(
    people: Mapping[Cell, pd.DataFrame], dataset: str, text: str, column: str
) -> Estimate | None:
    """Return a difference over seeds and people; None without enough of both."""
    first_SP, second_SP = (
        people.get((dataset, term.column or column, term.row)) for term in parse_formula(text).terms
    )
    if first_SP is None or second_SP is None:
        return None
    difference_SP = (first_SP - second_SP).dropna().to_numpy(float)
    S, P = difference_SP.shape
    return over_seeds_and_people(difference_SP) if S >= FEWEST and P > 1 else None
