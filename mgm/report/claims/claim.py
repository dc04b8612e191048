"""Claims in the texts of the two papers that numbers can test.

`paper.yaml` lists the claims. This module defines the types and the words of their formulas.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from inspect import isfunction
from math import inf
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from mgm.report.cells import Key
from mgm.spec.compute import official_multiply_adds
from mgm.study import recipes
from mgm.study.quoted import listed

# Tables and text print one decimal. A difference agrees if it rounds to the stated number.
HALF = 0.05
# Largest shortfall of "equivalent" and "the same", since 4.5 calls 0.2 "a small boost".
NEARLY = 0.2
# Smallest gain that 4.4 calls "significantly better".
SIGNIFICANT = 3.6


@dataclass(frozen=True)
class LinearCombination:
    """Weighted sum of cells plus a constant, or the ratio of two cells.

    A constant alone is a number that the sentence itself implies.
    """

    cells: tuple[Key, ...] = ()
    weights: tuple[float, ...] = ()
    constant: float = 0.0
    is_ratio: bool = False
    unit: str = ""

    def __sub__(self, other: Any) -> Any:
        """Subtract another one, or each of a list."""
        if isinstance(other, list):
            return [self - number for number in other]
        weights = self.weights + tuple(-weight for weight in other.weights)
        return LinearCombination(self.cells + other.cells, weights, self.constant - other.constant)

    def __rsub__(self, numbers: "list[LinearCombination]") -> "list[LinearCombination]":
        return [number - self for number in numbers]

    def __truediv__(self, other: "LinearCombination") -> "LinearCombination":
        return LinearCombination(self.cells + other.cells, is_ratio=True, unit="times")

    def evaluate(self, values: Sequence[float]) -> float:
        """Return the number, given one value per cell."""
        if self.is_ratio:
            top, bottom = values
            return top / bottom
        return self.constant + sum(
            weight * value for weight, value in zip(self.weights, values, strict=True)
        )


@dataclass(frozen=True)
class MinMax:
    """Largest or smallest of several numbers.

    "Up to" means the largest gain. "All" and "best" mean that the smallest gain is positive.
    """

    pick: str
    among: "tuple[Quantity, ...]"

    @property
    def cells(self) -> tuple[Key, ...]:
        return tuple(key for quantity in self.among for key in quantity.cells)


Quantity = LinearCombination | MinMax


@dataclass(frozen=True)
class Condition:
    """Requirement on a number. With several numbers in `either`, one of them must meet it.

    Attributes:
        low, high: range for the number from the paper's tables.
        above, below: range for the whole interval of our runs, which is the claimed side. `above`
            is None if the sentence claims no side.
        size: claimed size. At the paper's scale the interval must reach it.
    """

    either: tuple[Quantity, ...]
    low: float = -inf
    high: float = inf
    above: float | None = 0.0
    below: float = inf
    size: float | None = None


@dataclass(frozen=True)
class Claim:
    """A sentence, shortened at "…", with conditions that must all hold."""

    id: str
    says: str
    conditions: tuple[Condition, ...]
    note: str = ""  # our reading of an ambiguous sentence
    source: str = ""  # the paper's section
    text_only: bool = False  # its numbers are in no table of the paper
    our_count: bool = False  # the number it is compared with is our count of multiply-adds

    @property
    def cells(self) -> tuple[Key, ...]:
        return tuple(
            dict.fromkeys(
                key
                for condition in self.conditions
                for quantity in condition.either
                for key in quantity.cells
            )
        )


def cell(table: str, row: str, column: str) -> LinearCombination:
    return LinearCombination(((table, row, column),), (1.0,))


def computed(value: float, unit: str) -> LinearCombination:
    """Return a number that follows from the sentence's own numbers."""
    return LinearCombination(constant=value, unit=unit)


def most(*among: Quantity | list[LinearCombination]) -> MinMax:
    return MinMax("largest", _each(among))


def least(*among: Quantity | list[LinearCombination]) -> MinMax:
    return MinMax("smallest", _each(among))


def _each(among: Iterable[Quantity | list[LinearCombination]]) -> tuple[Quantity, ...]:
    """Flatten lists of numbers."""
    return tuple(
        quantity
        for quantities in among
        for quantity in (quantities if isinstance(quantities, list) else [quantities])
    )


def by(size: float, *either: Quantity, within: float = HALF, above: float = 0.0) -> Condition:
    """Require `size` from the tables, within `within`.

    Our runs must be above `above`, or below zero for a negative `size`.
    """
    if size < 0:
        return Condition(either, size - within, size + within, above=-inf, below=0.0, size=size)
    return Condition(either, size - within, size + within, above, size=size)


def over(size: float, quantity: Quantity) -> Condition:
    """Require more than `size` from the tables, and more than zero from our runs."""
    return Condition((quantity,), low=size + HALF, size=size)


def beats(quantity: Quantity) -> Condition:
    """Require more than zero."""
    return over(0, quantity)


def at_least(size: float, quantity: Quantity) -> Condition:
    """Require at least `size` from the tables, and from our runs at any scale."""
    return Condition((quantity,), low=size - HALF, above=size)


def no_worse(quantity: Quantity) -> Condition:
    """Require more than a shortfall of `NEARLY`."""
    return at_least(-NEARLY, quantity)


def no_large(quantity: Quantity) -> Condition:
    """Require less than `SIGNIFICANT`."""
    return Condition((quantity,), high=SIGNIFICANT - HALF, above=-inf, below=SIGNIFICANT)


def states(value: float, quantity: Quantity) -> Condition:
    """Require `value` exactly."""
    return Condition((quantity,), value - HALF, value + HALF, above=None, size=value)


def ssv2(method: str, epochs: int | str) -> LinearCombination:
    return cell("1", f"{method}, SSv2, {epochs}", "SSv2")


def k400(method: str, epochs: int | str) -> LinearCombination:
    return cell("1", f"{method}, K400, {epochs}", "K400")


def gflops(method: str, epochs: int | str) -> LinearCombination:
    """Return GFLOPs per view. Table 1 prints them once per row, in its SSv2 part."""
    return cell("1", f"{method}, SSv2, {epochs}", "GFLOPs")


def mask(row: str) -> LinearCombination:
    return cell("4e", row, "SSv2")


def masks(*rows: str) -> list[LinearCombination]:
    return [mask(row) for row in rows]


def gain(table: str, column: str, method: str = "MGM", than: str = "VideoMAE") -> LinearCombination:
    return cell(table, method, column) - cell(table, than, column)


def gains(table: str, method: str = "MGM", than: str = "VideoMAE") -> list[LinearCombination]:
    """Return the gain in each column of Table 2."""
    return [gain(table, column, method, than) for column in ("UCF", "HMDB", "Diving48")]


def wider(method: str, epochs: int) -> LinearCombination:
    """Return MGM's gain over a method on SSv2 minus its gain on K400."""
    return (ssv2("MGM", epochs) - ssv2(method, epochs)) - (
        k400("MGM", epochs) - k400(method, epochs)
    )


def fewer_epochs(ours: int, theirs: int) -> LinearCombination:
    return computed(100 * (1 - ours / theirs), "% fewer epochs")


def videos(dataset: str) -> LinearCombination:
    """Return the number of videos in the published lists of split 1."""
    return computed(listed(dataset)[0], "videos")


def classes(dataset: str) -> LinearCombination:
    return computed(listed(dataset)[1], "classes")


def compute(name: str, epochs: int) -> float:
    """Return multiply-adds per video for a whole pretraining with the official code.

    That code embeds hidden tubelets before it drops them.
    """
    return epochs * official_multiply_adds(recipes.pretrain("ssv2", name, epochs))


def read_claims() -> tuple[Claim, ...]:
    """Read the claims of `paper.yaml`.

    Raises:
        jinja2.TemplateError: a formula cannot be parsed, or uses an unknown word.
    """
    environment = Environment(undefined=StrictUndefined)
    fields = yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))
    # The functions of this module are the words of a formula.
    words: dict[str, Any] = {name: word for name, word in globals().items() if isfunction(word)}
    words["frames"] = recipes.PRETRAIN_CLIPS["k400"].frames

    def value(formula: str) -> Any:
        return environment.compile_expression(formula, undefined_to_none=False)(words)

    for name, formula in fields["names"].items():
        words[name] = value(formula)
    return tuple(
        Claim(**(fields | {"conditions": tuple(map(value, fields["conditions"]))}), source=source)
        for source, claims in fields["sections"].items()
        for fields in claims
    )


CLAIMS = read_claims()
