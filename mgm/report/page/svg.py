"""Small drawings inside the page, as SVG text that takes its colours from the page's style sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf

from markupsafe import Markup

from mgm.report.statistics import Estimate

WIDTH, NARROW, HEIGHT = 148, 112, 24  # of an interval's drawing, in CSS pixels
PERCENT, POINTS_OF = (0.0, 100.0), (-100.0, 100.0)  # what a share, and a difference of two, can be
PANEL = (184, 92)  # of a panel of curves
POINTS, LINES = 100, 6  # a curve's points at most, each the mean of its share of the steps; of more lines each has fewer


@dataclass(frozen=True)
class Axis:
    """A linear axis over `width` pixels, its ends rounded outwards to `step` but kept `within` what the values can be."""

    low: float
    high: float
    width: int = WIDTH

    @classmethod
    def over(cls, values: Sequence[float], width: int = WIDTH, step: float = 10, within: tuple[float, float] = (-inf, inf)) -> "Axis":
        low, high = (step * floor(min(values) / step), step * ceil(max(values) / step)) if values else (0.0, 100.0)
        low = max(low, within[0])
        return cls(low, min(max(high, low + step), within[1]), width)

    def at(self, value: float) -> float:
        """Pixels from the left; what lies beyond an end is at the end."""
        return round(8 + (self.width - 16) * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low), 1)


def axis_head(axis: Axis) -> Markup:
    """The numbers above a column of intervals."""
    ends = [(axis.low, "start"), (axis.high, "end")]
    texts = "".join(f'<text x="{axis.at(x) + (-8 if a == "start" else 8)}" y="11" text-anchor="{a}">{_plain(x)}</text>' for x, a in ends)
    return Markup(
        f'<svg class="range head" width="{axis.width}" height="14" viewBox="0 0 {axis.width} 14" aria-hidden="true">{texts}</svg>'
    )


def interval(axis: Axis, estimate: Estimate | None, paper: float | None = None, rule: float | None = None) -> Markup:
    """A dot with its interval (for a single run hollow and dashed), the paper's number as a diamond, `rule` (chance, or zero) dotted.
    Where the interval goes on beyond the axis, an arrowhead says so."""
    middle = HEIGHT / 2
    parts = [f'<line class="track" x1="{axis.at(axis.low)}" x2="{axis.at(axis.high)}" y1="{middle}" y2="{middle}"/>']
    if rule is not None:
        parts.append(f'<line class="rule" x1="{axis.at(rule)}" x2="{axis.at(rule)}" y1="0" y2="{HEIGHT}"/>')
    if paper is not None:
        x = axis.at(paper)
        parts.append(f'<path class="paper" d="M{x} {middle - 4.5}l4.5 4.5-4.5 4.5-4.5-4.5z"/>')
    if estimate:
        one = " one" * (estimate.n == 1)
        if estimate.low is not None and estimate.high is not None:
            parts.append(f'<line class="bar{one}" x1="{axis.at(estimate.low)}" x2="{axis.at(estimate.high)}" y1="{middle}" y2="{middle}"/>')
            for end, beyond, towards in ((axis.low, estimate.low < axis.low, -6), (axis.high, estimate.high > axis.high, 6)):
                if beyond:
                    parts.append(f'<path class="beyond" d="M{axis.at(end) + towards} {middle}l{-towards}-3.5v7z"/>')
        parts.append(f'<circle class="dot{one}" cx="{axis.at(estimate.mean)}" cy="{middle}" r="3.6"/>')
    return Markup(
        f'<svg class="range" width="{axis.width}" height="{HEIGHT}" viewBox="0 0 {axis.width} {HEIGHT}" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )


def curves(series: Sequence[Sequence[tuple[float, float]]], steps: float, low: float, high: float, title: str) -> Markup:
    """One line a seed: (step, loss) over 0..`steps` and `low`..`high`, with both axes' ends written."""
    width, height = PANEL
    left, bottom, top = 30.0, height - 16.0, 6.0

    def point(step: float, loss: float) -> str:
        x = left + (width - left - 4) * step / max(steps, 1)
        y = bottom - (bottom - top) * (min(max(loss, low), high) - low) / ((high - low) or 1)
        return f"{x:.1f},{y:.1f}"

    points = POINTS * LINES // max(LINES, len(series))
    lines = "".join(
        f'<polyline class="curve c{position % 6}" points="{" ".join(point(*pair) for pair in thin(one, points))}"/>'
        for position, one in enumerate(series)
    )
    texts = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'
        for x, y, anchor, text in (
            (left - 5, top + 8, "end", f"{high:.2g}"),
            (left - 5, bottom, "end", f"{low:.2g}"),
            (left, height - 3, "start", "0"),
            (width - 4, height - 3, "end", f"{steps:.0f} steps"),
        )
    )
    frame = f'<path class="frame" d="M{left} {top}V{bottom}H{width - 4}"/>'
    label = Markup.escape(title)
    return Markup(f'<svg class="panel" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{frame}{lines}{texts}</svg>')


def thin(pairs: Sequence[tuple[float, float]], points: int = POINTS) -> list[tuple[float, float]]:
    """At most `points` means of consecutive (step, value) pairs."""
    size = ceil(len(pairs) / points)
    if size <= 1:
        return list(pairs)
    groups = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _plain(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")
