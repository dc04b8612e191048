"""Sections of the page that stand by themselves: masks, controls, classes, deviations."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from mgm.paper.registry import Registry
from mgm.report.cells import Row, over_runs
from mgm.report.page.svg import PERCENT, Axis
from mgm.results.result import RunStatus
from mgm.results.statistics import Estimate
from mgm.spec import Measure, data_name

# DEVIATIONS.md of a checkout; an installed package has none.
DEVIATIONS = Path(__file__).parents[3] / "DEVIATIONS.md"
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
# A matrix of more classes does not fit a page; the list by class stays.
LARGEST_MATRIX = 20


@dataclass(frozen=True)
class MaskStrip:
    """A picture to lay over the clip's own: a data URI, empty for the clip by itself. `boxes` has a
    dense mask's box slot by slot: left, top, width, height in patches."""

    name: str
    about: str
    strip: str = ""
    boxes: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class MaskPlayer:
    """The clip of Figure 5 with each mask moving over it, as pictures small enough for the page.

    A strip has all frames beside one another. The page shows one frame of every strip at a time.
    `clip` is the strip of the `slots` frames; a slot's grid has `rows` x `columns` patches.
    """

    clip: str
    slots: int
    rows: int
    columns: int
    strips: tuple[MaskStrip, ...]
    run_id: str


def mask_player(arrays: Mapping[str, Any], run_id: str) -> MaskPlayer:
    """Build the player from the arrays that the visualise job keeps."""
    from mgm.report.figures.clip_grid import glow, veil  # matplotlib takes a second to import
    from mgm.report.figures.style import KIND

    masks = arrays["masked_NSHW"]
    strips = [
        MaskStrip("the clip", f"frames {', '.join(map(str, arrays['index_S']))}"),
        MaskStrip(
            "motion", "magnitude of the vectors", _uri(_strip(glow(arrays["magnitude_SHW"])), "png")
        ),
    ]
    for name, ratio, masked_SHW, boxes_S4 in zip(
        map(str, arrays["names_N"]), arrays["ratio_N"], masks, arrays["boxes_NS4"]
    ):
        about = ", ".join(
            filter(None, (KIND.get(name, "").replace("\n", " "), f"{ratio:.0%} hidden"))
        )
        corner_S4 = (
            np.hstack([boxes_S4[:, :2] - boxes_S4[:, 2:] / 2, boxes_S4[:, 2:]])
            .astype(float)
            .round(2)
        )
        boxes = corner_S4.tolist() if np.isfinite(boxes_S4).all() else ()
        strips.append(MaskStrip(name, about, _uri(_strip(veil(masked_SHW)), "png"), boxes))
    slots, rows, columns = masks.shape[1:]
    return MaskPlayer(
        _uri(_strip(arrays["frames_SHWC"]), "webp"), slots, rows, columns, tuple(strips), run_id
    )


def webp_uri(png: Path) -> tuple[str, int]:
    """A figure as a smaller file to stand in the page, a data URI, and its width in CSS pixels."""
    from matplotlib.image import imread

    from mgm.report.figures.style import DPI

    picture_HWC = imread(png)
    return _uri(picture_HWC, "webp"), picture_HWC.shape[1] * 96 // DPI


def _strip(pictures_SHWC: np.ndarray) -> np.ndarray:
    return np.concatenate(list(pictures_SHWC), axis=1)


def _uri(picture_HWC: np.ndarray, kind: str) -> str:
    from matplotlib.image import imsave

    file = io.BytesIO()
    options = {"quality": 78} if kind == "webp" else {"optimize": True}
    imsave(file, np.ascontiguousarray(picture_HWC), format=kind, pil_kwargs=options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def clips_of(registry: Registry) -> str:
    """Say what a clip and a class are; empty for a scale that generates no videos."""
    drawn = [data.generate for data in registry.scale.datasets.values() if data.generate]
    if not drawn:
        return ""
    said = (
        "In a generated clip bright shapes move before a darker background. All make the same "
        "motion. That motion is the class; it does not depend on their look, place or background."
    )
    if drawn[0].get("layout") != "sway":
        return said
    return (
        f"{said} Shapes go to and fro: a class says along which line, and which way is the quick "
        "one. “Jerking things left” is quick to the left and slow back, “swaying things up and "
        "down” is alike both ways."
    )


def single_draw(registry: Registry) -> str:
    """Return the file of a checkout that has a scale's controls by one draw; empty if none."""
    path = f"docs/controls-{registry.scale.name}.csv"
    return path if (DEVIATIONS.parent / path).is_file() else ""


@dataclass(frozen=True)
class Controls:
    """What a linear probe classifies without a model, over all runs that measured it.

    `lines` maps a control's title to its top-1 accuracy, or to why there is none. All but `runs` is
    empty while no run is done.
    """

    runs: list[Measure]
    dataset: str = ""
    chance: float | None = None
    lines: Mapping[str, Estimate | str] = field(default_factory=dict)
    axis: Axis | None = None
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    metric: str = "top-1"


def controls_of(
    registry: Registry, results: Path, found: Mapping[str, RunStatus]
) -> Controls | None:
    """Read the controls of a scale's runs; None for a scale that measures none.

    A single run has the bootstrap interval that it wrote. Several have one over seeds, or over
    datasets where they see several.
    """
    wanted = registry.controls
    if not wanted:
        return None
    done = [
        run
        for run in wanted
        if found[run.run_id].result and (results / run.run_id / "arrays.npz").exists()
    ]
    if not done:
        return Controls(wanted)
    tables = []
    for run in done:
        with np.load(results / run.run_id / "arrays.npz", allow_pickle=False) as file:
            arrays = dict(file)
        columns = {name[:-2]: array_N for name, array_N in arrays.items() if name.endswith("_N")}
        tables.append(pd.DataFrame(columns).set_index("title"))
    first = tables[0]
    datasets = [run.data.dataset for run in done]
    lines: dict[str, Estimate | str] = {}
    for title in first.index:
        values = [float(table.top1[title]) for table in tables]
        if any(map(isnan, values)):
            lines[str(title)] = str(first.why[title])
        elif len(values) == 1:
            low, high = first.ci_low[title], first.ci_high[title]
            interval = (-inf, inf) if isnan(low) else (float(low), float(high))
            lines[str(title)] = Estimate(values[0], *interval)
        else:
            lines[str(title)] = over_runs(values, datasets)
    chances = [found[run.run_id].result["metrics"].get("chance") for run in done]  # type: ignore[index]
    known = [one for one in lines.values() if isinstance(one, Estimate)]
    ends = [end for one in known for end in (one.mean, one.low, one.high) if abs(end) < inf]
    return Controls(
        wanted,
        data_name(done[0].data),
        chances[0],
        lines,
        Axis.over([0.0, *ends], within=PERCENT),
        tuple(dict.fromkeys(str(text) for table in tables for text in table.warning if text)),
        tuple(map(str, arrays["remarks"])),
        str(arrays.get("metric", "top-1")),
    )


@dataclass(frozen=True)
class ClassLine:
    """One class: its share of right predictions, and the wrong class that was predicted most."""

    name: str
    predictions: int
    accuracy: float
    confused_with: str
    confused: float


@dataclass(frozen=True)
class ByClass:
    """What `by_class` returns.

    `matrix` maps label, then prediction, to a share of the label's predictions in per cent. It is
    empty above `LARGEST_MATRIX` classes.
    """

    row: Row
    runs: int
    lines: list[ClassLine]
    matrix: dict[str, dict[str, float]]


def by_class(row: Row | None, results: Path, found: Mapping[str, RunStatus]) -> ByClass | None:
    """Sum the predictions of a cell's finished runs by class.

    Returns:
        The least accurate class first; None where no run has written `predictions.csv`, or videos
        have several labels and so no single prediction.
    """
    run_ids = row.run_ids if row else ()
    paths = [results / run_id / "predictions.csv" for run_id in run_ids if found[run_id].result]
    frames = [
        pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths if path.exists()
    ]
    if row is None or not frames:
        return None
    said = pd.concat(frames)
    if "labels" in said:
        return None
    names = sorted({*said.label, *said.prediction})
    counts = pd.crosstab(said.label, said.prediction).reindex(columns=names, fill_value=0)
    totals = counts.sum(axis=1)
    shares = (100 * counts).div(totals, axis=0)
    matrix = {
        str(label): dict(zip(names, row))
        for label, row in zip(shares.index, shares.to_numpy().tolist())
    }
    lines = []
    for label, share_of in matrix.items():
        wrong = {name: share for name, share in share_of.items() if name != label and share}
        worst = max(wrong, key=wrong.__getitem__, default="")
        lines.append(
            ClassLine(label, int(totals[label]), share_of[label], worst, wrong.get(worst, 0.0))
        )
    lines.sort(key=lambda line: line.accuracy)
    return ByClass(row, len(frames), lines, matrix if len(names) <= LARGEST_MATRIX else {})


def deviations() -> list[tuple[str, Markup]]:
    """(heading, content) of each section; none without the file."""
    return deviation_sections(DEVIATIONS.read_text()) if DEVIATIONS.exists() else []


def deviation_sections(text: str) -> list[tuple[str, Markup]]:
    """Give each table a caption, its headings their scope, and a box that scrolls.

    A caption is the heading above the table; a row's heading is its first cell.
    """
    found = []
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        html = (
            MARKDOWN.render(body)
            .replace("<th>", '<th scope="col">')
            .replace("</table>\n", "</table>\n</div>")
        )
        first, *parts = html.split("<h3>")
        captioned = [_captioned(first, title)]
        for part in parts:
            heading, _, rest = part.partition("</h3>")
            captioned.append(f"<h4>{heading}</h4>{_captioned(rest, heading)}")
        html = "".join(captioned)
        found.append(
            (title, Markup(re.sub("<tr>\n<td>(.*)</td>", r'<tr>\n<th scope="row">\1</th>', html)))
        )
    return found


def _captioned(html: str, caption: str) -> str:
    opening = f'<div class="wide"><table class="prose">\n<caption>{escape(caption)}</caption>'
    return html.replace("<table>\n", opening)
