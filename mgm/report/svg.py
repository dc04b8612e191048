"""Axes and points of the small plots in the page. `templates/svg.html.j2` writes the SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf

WIDTH = 112  # of an interval's plot, in CSS pixels


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
        return cls(low, min(max(high, low + step), within[1]))

    def at(self, value: float) -> float:
        """Return a value's place in pixels from the left, at most the axis's ends."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(8 + (self.width - 16) * share, 1)
