"""Places of a study, and the one way to select them: by dataset, seeds, row and column."""

import re
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator

from mgm.spec import FrozenModel

MOST_NUMBERS = 10_000


def read_numbers(value: Any) -> Any:
    """Return the numbers of a range such as "701-720", or of several: "0-3, 7"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, str):
        return value
    numbers = list[int]()
    for part in value.split(","):
        bounds = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        first, last = (int(bounds[1]), int(bounds[2] or bounds[1])) if bounds else (1, 0)
        if not first <= last < first + MOST_NUMBERS:
            raise ValueError(f"is not a range of at most {MOST_NUMBERS:,} numbers, such as 701-720")
        numbers += range(first, last + 1)
    return tuple(numbers)


def _each_once(values: tuple[int, ...]) -> tuple[int, ...]:
    if len({*values}) < len(values):
        raise ValueError("names a number twice")
    return values


Numbers = Annotated[tuple[int, ...], BeforeValidator(read_numbers), AfterValidator(_each_once)]


class At(NamedTuple):
    """A place in a study. `dataset_seed` is None if the dataset is not generated."""

    dataset: str
    dataset_seed: int | None
    seed: int
    row: str = ""
    column: str = ""

    def of(self, row: str = "", column: str = "") -> "At":
        return self._replace(row=row, column=column)


class Selection(FrozenModel):
    """Datasets, rows, columns and seeds by name. Empty: all.

    It limits a row or a column, and says what a view shows and what a prediction is about.
    """

    datasets: tuple[str, ...] = ()
    dataset_seeds: Numbers = ()
    seeds: Numbers = ()
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def names(self, dataset: str, row: str, column: str) -> bool:
        """Return whether it selects a place, whatever the seeds are. An empty name is any."""
        return (
            (not self.datasets or dataset in self.datasets)
            and (not self.rows or row in ("", *self.rows))
            and (not self.columns or column in ("", *self.columns))
        )

    def has_seeds(self, dataset_seed: int | None, seed: int) -> bool:
        return (not self.dataset_seeds or dataset_seed in self.dataset_seeds) and (
            not self.seeds or seed in self.seeds
        )

    def __contains__(self, at: At) -> bool:
        names = self.names(at.dataset, at.row, at.column)
        return names and self.has_seeds(at.dataset_seed, at.seed)


EVERY = Selection()
