"""Figures that draw table cells over a number, such as accuracy over pretraining epochs. Arrays in, a matplotlib figure out."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from mgm.experiments.registry import Plot
from mgm.report.cells import Row
from mgm.report.figures.draw import ACCENT, QUIET, STYLE

LOOKS = ((ACCENT, "o"), ("#0072b2", "s"), ("#117a5b", "^"), ("#7d4a86", "v"))  # dark enough for text; told apart in grey by their marks
QUOTED = "#767676"
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
WIDTH, HEIGHT, LINE = 7.4, 3.5, 0.15  # inches


def arrays_of(plot: Plot, rows: Mapping[str, Sequence[Row]]) -> dict[str, np.ndarray]:
    """What a plot draws, point by point; NaN where there is no number. `rows` are each line's cells, in its order.

    Returns:
        line_P (names), x_P, tick_P (x as a reader sees it), paper_P, ours_P, low_P, high_P (per cent), n_P (runs in the mean),
        wanted_P (runs asked for), status_P; joined: whether lines join the points.
    """
    points = [(name, x, row) for name, line in plot.lines.items() for (x, _), row in zip(line, rows[name], strict=True)]
    estimates = [row.estimate for *_, row in points]
    return {
        "line_P": np.array([name for name, *_ in points], dtype=str),
        "x_P": np.array([x for _, x, _ in points], float),
        "tick_P": np.array([plot.ticks[int(x)] if plot.ticks else f"{x:g}" for _, x, _ in points], dtype=str),
        "joined": np.array(not plot.ticks),
        "paper_P": np.array([row.paper for *_, row in points], float),
        "ours_P": np.array([one.mean if one else None for one in estimates], float),
        "low_P": np.array([one.low if one else None for one in estimates], float),
        "high_P": np.array([one.high if one else None for one in estimates], float),
        "n_P": np.array([one.n if one else 0 for one in estimates], int),
        "wanted_P": np.array([len(row.run_ids) for *_, row in points], int),
        "status_P": np.array([row.status for *_, row in points], dtype=str),
    }


def missing(arrays: Mapping[str, Any]) -> str:
    """A sentence on the points that are not, or not wholly, run; empty when all are."""
    kinds: dict[str, dict[str, list[str]]] = {}
    for name, tick, status in zip(arrays["line_P"], arrays["tick_P"], arrays["status_P"]):
        if status not in ("run", "quoted"):
            kinds.setdefault(str(status), {}).setdefault(str(name), []).append(str(tick))
    lists = {status: "; ".join(f"{name} {', '.join(xs)}" for name, xs in lines.items()) for status, lines in sorted(kinds.items())}
    return " ".join(f"{status.capitalize()}: {several}." for status, several in lists.items())


def lines(arrays: Mapping[str, Any], x: str, y: str, scale: str, together: bool) -> Figure:
    """Lines of cells over `x`: ours filled, with 95 % intervals; the paper's hollow and dotted; methods never run as labelled points.

    Args:
        arrays: as `arrays_of` returns them.
        scale: its name, for the heading of our numbers.
        together: our numbers and the paper's share an axis, because they can be compared; else a panel each.
    """
    single, quoted = bool((arrays["n_P"] == 1).any()), bool(np.isfinite(arrays["paper_P"]).any())
    together |= not quoted
    key = "Filled marks are ours, bars their 95 % intervals" + " (dashed: of a single run, over its test videos)" * single + "."
    key += " An arrow: the interval goes on beyond 0 or 100." * bool(((arrays["low_P"] < 0) | (arrays["high_P"] > 100)).any())
    key += " Hollow marks are the paper's; diamonds are methods not run here." * quoted
    apart = "" if together else f"Scale {scale} is not the paper's: read each panel by itself."
    text = [line for part in (key, missing(arrays), apart) for line in textwrap.wrap(part, int((WIDTH - 0.2) * 20))]
    foot = 0.55 + (len(text) + 0.8) * LINE
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, HEIGHT + foot))
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 1 if together else 2, squeeze=False)[0]
        figure.subplots_adjust(
            left=0.62 / WIDTH, right=1 - 0.12 / WIDTH, top=1 - 0.36 / (HEIGHT + foot), bottom=foot / (HEIGHT + foot), wspace=0.2
        )
        if together:
            _panel(figure, panels[0], arrays, ours=True, paper=True)
            panels[0].set_title(f"Ours at scale {scale}" + ", beside the paper" * quoted, loc="left", size=9.5)
        else:
            _panel(figure, panels[0], arrays, ours=False, paper=True)
            panels[0].set_title("The paper", loc="left", size=9.5)
            _panel(figure, panels[1], arrays, ours=True, paper=False)
            panels[1].set_title(f"Ours, at scale {scale}", loc="left", size=9.5)
        for panel in panels:
            panel.set_xlabel(x)
        panels[0].set_ylabel(y)
        figure.text(
            0.08 / WIDTH, (len(text) + 0.4) * LINE / (HEIGHT + foot), "\n".join(text), size=7.5, color=QUIET, va="top", linespacing=1.25
        )
    return figure


def _panel(figure: Figure, axes: Axes, arrays: Mapping[str, Any], ours: bool, paper: bool) -> None:
    names = list(dict.fromkeys(map(str, arrays["line_P"])))
    run = [name for name in names if arrays["wanted_P"][arrays["line_P"] == name].any()]
    drawn = np.concatenate([arrays[name] for name in (["ours_P", "low_P", "high_P"] if ours else []) + (["paper_P"] if paper else [])])
    ticks = {float(x): str(tick) for name, x, tick in zip(arrays["line_P"], arrays["x_P"], arrays["tick_P"]) if name in run or not run}
    span = (arrays["x_P"].max() - arrays["x_P"].min()) or 1.0
    axes.set_xlim(arrays["x_P"].min() - 0.09 * span, arrays["x_P"].max() + 0.09 * span)
    axes.set_xticks(sorted(ticks), [ticks[x] for x in sorted(ticks)])
    axes.tick_params(color=QUIET, width=0.6, labelsize=8)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    if not np.isfinite(drawn).any():
        axes.set_yticks([])
        axes.text(0.5, 0.5, "nothing run yet", transform=axes.transAxes, size=9, color=QUIET, ha="center", va="center", style="italic")
        return
    low, high = np.nanmin(drawn), np.nanmax(drawn)
    margin = max(0.12 * (high - low), 1 - (high - low) / 2)  # two points at least: a single number is no mountain
    axes.set_ylim(max(low - margin, 0), min(high + margin, 100))  # a percentage, whatever its interval
    labels: list[tuple[float, float, str, str, str]] = []  # x, y, text, colour, weight
    for name in names:
        of = arrays["line_P"] == name
        x_P, paper_P, ours_P = (arrays[key][of] for key in ("x_P", "paper_P", "ours_P"))
        if name not in run:
            if paper:
                axes.plot(x_P, paper_P, "D", markersize=4, markerfacecolor="white", markeredgecolor=QUOTED, markeredgewidth=0.9)
                labels += [(float(a), float(b), name, QUOTED, "normal") for a, b in zip(x_P, paper_P)]
            continue
        colour, mark = LOOKS[run.index(name) % len(LOOKS)]
        if paper and np.isfinite(paper_P).any():
            axes.plot(
                x_P, paper_P, f"{mark}:" if arrays["joined"] else mark, color=colour, markersize=5, markerfacecolor="white", linewidth=1.2
            )
        if ours and np.isfinite(ours_P).any():
            apart = (run.index(name) - (len(run) - 1) / 2) * 0.014 * span  # so that bars at one x can be told apart
            _ours(axes, x_P + apart, ours_P, arrays["low_P"][of], arrays["high_P"][of], arrays["n_P"][of], colour, mark, arrays["joined"])
        shown_P = ours_P if ours and np.isfinite(ours_P).any() else paper_P if paper else ours_P
        last = np.flatnonzero(np.isfinite(shown_P))
        if len(last):
            labels.append((float(x_P[last[-1]]), float(shown_P[last[-1]]), name, colour, "bold"))
    _place(figure, axes, sorted(labels, key=lambda label: label[4]))  # bold first


def _ours(
    axes: Axes,
    x_P: np.ndarray,
    mean_P: np.ndarray,
    low_P: np.ndarray,
    high_P: np.ndarray,
    n_P: np.ndarray,
    colour: str,
    mark: str,
    joined: bool,
) -> None:
    axes.plot(x_P, mean_P, f"{mark}-" if joined else mark, color=colour, markersize=5, linewidth=1.5)
    for x, low, high, n in zip(x_P, low_P, high_P, n_P):
        if np.isfinite(low):
            ends = [max(low, 0), min(high, 100)]
            axes.plot([x, x], ends, color=colour, linewidth=1.1, dashes=(2, 1.4) if n == 1 else (None, None))
            for end, beyond, arrow in ((0, low < 0, "v"), (100, high > 100, "^")):
                if beyond:
                    axes.plot(x, end, arrow, color=colour, markersize=5, clip_on=False)


def _place(figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, str, str, str]]) -> None:
    """Each label at the nearest place around its point where it meets no mark, line or label; a hair leads to it from afar."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.draw_without_rendering()
    inside, dot = axes.get_window_extent(renderer), figure.dpi / 72
    taken = [box for line in axes.lines for box in _boxes(axes, line.get_xydata(), 3.2 * dot)]
    for x, y, text, colour, weight in labels:
        label = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", size=8, color=colour, weight=weight)

        def put(place: tuple[int, int, int], label: Annotation = label) -> Bbox:
            distance, right, up = place
            label.set(position=(right * distance, up * distance), ha=("center", "left", "right")[right], va=("center", "bottom", "top")[up])
            return label.get_window_extent(renderer).padded(dot)

        def cost(place: tuple[int, int, int]) -> int:
            box = put(place)
            outside = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
            return sum(map(box.overlaps, taken)) + 1000 * outside

        places = [(distance, right, up) for distance in (7, 11, 17, 25, 34) for right, up in DIRECTIONS]
        distance, right, up = best = next((place for place in places if cost(place) == 0), None) or min(places, key=cost)
        taken.append(put(best))
        if distance > 11:
            end = (right * (distance - 1), up * (distance - 1))
            hair = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", (x, y), end, textcoords="offset points", arrowprops=hair)


def _boxes(axes: Axes, xy_P2: Any, radius: float) -> list[Bbox]:
    """Small boxes along a drawn line, in pixels."""
    points = axes.transData.transform(np.asarray(xy_P2, float))
    points = points[np.isfinite(points).all(1)]
    steps = [np.linspace(a, b, max(2, int(np.hypot(*(b - a)) / radius))) for a, b in pairwise(points)]
    return [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in np.concatenate([points, *steps])]
