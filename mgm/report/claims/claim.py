"""What a sentence of a paper claims, in few forms: a number made of table cells, and where that number must lie.

A claim is data. `claim_list` writes them down, `claims` judges them, once on the paper's tables and once on our runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

Key = tuple[str, str, str]  # table, row, column, as in quoted.csv and in the registry

HALF = 0.05  # the tables and the text print one decimal: a difference agrees when it rounds to the stated number
NEARLY = 0.2  # what "equivalent", "the same" and "nearly the same" may fall short by; 4.5 calls 0.2 "a small boost"
LARGE = 3.6  # the smallest gain that 4.4 calls "significantly better"


@dataclass(frozen=True)
class Sum:
    """Cells, each times its weight, plus a constant; or the ratio of two cells. A constant alone comes from the sentence itself."""

    cells: tuple[Key, ...] = ()
    weights: tuple[float, ...] = ()
    constant: float = 0.0
    is_ratio: bool = False
    unit: str = ""  # said behind the number

    def __sub__(self, other: "Sum") -> "Sum":
        return Sum(self.cells + other.cells, self.weights + tuple(-weight for weight in other.weights), self.constant - other.constant)

    def __truediv__(self, other: "Sum") -> "Sum":
        return Sum(self.cells + other.cells, is_ratio=True, unit="times")

    def total(self, values: Sequence[float]) -> float:
        """The number, of one value a cell."""
        if self.is_ratio:
            top, bottom = values
            return top / bottom
        return self.constant + sum(weight * value for weight, value in zip(self.weights, values, strict=True))


@dataclass(frozen=True)
class Extreme:
    """The largest or the smallest of several numbers: "up to" is a largest, "all" and "best" are about a smallest."""

    pick: str
    among: "tuple[Quantity, ...]"


Quantity = Sum | Extreme


@dataclass(frozen=True)
class Part:
    """What is said of one number, or of any one of several that the sentence may mean (`either`).

    The tables must give a number from `low` to `high`. The interval of our runs must lie between `above` and `below`, the side that is
    claimed; None where the sentence takes no side. At the paper's scale it must also reach `size`, away from zero.
    """

    either: tuple[Quantity, ...]
    low: float = -inf
    high: float = inf
    above: float | None = 0.0
    below: float = inf
    size: float | None = None


@dataclass(frozen=True)
class Claim:
    """A sentence, shortened at "…", and what it says: every part of it must be true."""

    id: str
    source: str
    says: str
    parts: tuple[Part, ...]
    note: str = ""  # how the sentence was read, where it can be read in several ways

    @property
    def cells(self) -> tuple[Key, ...]:
        return tuple(dict.fromkeys(key for part in self.parts for quantity in part.either for key in cells_of(quantity)))


def claim(id: str, source: str, says: str, *parts: Part, note: str = "") -> Claim:
    return Claim(id, source, says, parts, note)


def cells_of(quantity: Quantity) -> Iterator[Key]:
    if isinstance(quantity, Sum):
        yield from quantity.cells
    else:
        for inner in quantity.among:
            yield from cells_of(inner)


def cell(table: str, row: str, column: str) -> Sum:
    return Sum(((table, row, column),), (1.0,))


def computed(value: float, unit: str) -> Sum:
    """A number that the sentence's own numbers give."""
    return Sum(constant=value, unit=unit)


def most(*among: Quantity) -> Extreme:
    return Extreme("largest", among)


def least(*among: Quantity) -> Extreme:
    return Extreme("smallest", among)


def by(size: float, *either: Quantity, within: float = HALF, above: float = 0.0) -> Part:
    """Is `size`, to the precision it is printed with; in our runs, is more than `above`, or less than nothing where `size` is."""
    if size < 0:
        return Part(either, size - within, size + within, above=-inf, below=0.0, size=size)
    return Part(either, size - within, size + within, above, size=size)


def over(size: float, quantity: Quantity) -> Part:
    """Is more than `size`: at least the next number that a table can print; in our runs, is more than nothing."""
    return Part((quantity,), low=size + HALF, size=size)


def beats(quantity: Quantity) -> Part:
    """Is more than nothing."""
    return over(0, quantity)


def at_least(size: float, quantity: Quantity) -> Part:
    """A threshold for the tables and for our runs, whatever the scale."""
    return Part((quantity,), low=size - HALF, above=size)


def no_worse(quantity: Quantity) -> Part:
    """Falls short by `NEARLY` at most."""
    return at_least(-NEARLY, quantity)


def no_large(quantity: Quantity) -> Part:
    """Is less than `LARGE`."""
    return Part((quantity,), high=LARGE - HALF, above=-inf, below=LARGE)


def states(value: float, quantity: Quantity) -> Part:
    """Is `value`, which takes no side."""
    return Part((quantity,), value - HALF, value + HALF, above=None, size=value)
