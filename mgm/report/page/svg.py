"""Axes and points of the small plots in the page. `templates/svg.html.j2` writes the SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True
)
WIDTH, NARROW = 148, 112  # of an interval's plot, in CSS pixels
# Possible values of a percentage, and of a difference of two.
PERCENT, POINTS_OF = (0.0, 100.0), (-100.0, 100.0)
# Most points of a curve. Each is a mean over consecutive steps.
POINTS = 100
# Most points of a curve in a small panel, where noise would hide the trend.
SMOOTH = 25

Series = Sequence[tuple[float, float]]  # (step, loss)


@dataclass(frozen=True)
class Axis:
    """A linear axis of `width` pixels."""

    low: float
    high: float
    width: int = WIDTH

    @classmethod
    def over(
        cls,
        values: Sequence[float],
        width: int = WIDTH,
        step: float = 10,
        within: tuple[float, float] = (-inf, inf),
    ) -> "Axis":
        """Return an axis over `values`, with its ends rounded outwards to `step`.

        Args:
            within: limits of the ends.
        """
        low, high = 0.0, 100.0
        if values:
            low, high = step * floor(min(values) / step), step * ceil(max(values) / step)
        low = max(low, within[0])
        return cls(low, min(max(high, low + step), within[1]), width)

    def at(self, value: float) -> float:
        """Return a value's place in pixels from the left, at most the axis's ends."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(8 + (self.width - 16) * share, 1)


def thin(pairs: Series, points: int = POINTS) -> list[tuple[float, float]]:
    """Return at most `points` means of consecutive (step, value) pairs."""
    size = ceil(len(pairs) / points)
    if size <= 1:
        return list(pairs)
    groups = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]
