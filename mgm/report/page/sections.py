"""Sections of the page: masks on a clip, controls, accuracy by class, deviations."""

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
# Most classes of a confusion matrix that fits the page.
LARGEST_MATRIX = 20


@dataclass(frozen=True)
class MaskStrip:
    """A mask's pictures side by side, to lay over the clip.

    Attributes:
        strip: data URI; empty for the clip alone.
        boxes: per time slot, a dense mask's box as left, top, width, height in patches.
    """

    name: str
    about: str
    strip: str = ""
    boxes: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class MaskPlayer:
    """The clip of Figure 5 under each mask, as small pictures for the page.

    A strip has all frames side by side. The page shows one frame of every strip at a time.

    Attributes:
        clip: strip of the clip's frames, one per time slot.
        rows, columns: grid of patches in a time slot.
    """

    clip: str
    slots: int
    rows: int
    columns: int
    strips: tuple[MaskStrip, ...]
    run_id: str


def mask_player(arrays: Mapping[str, Any], run_id: str) -> MaskPlayer:
    """Build the player from the arrays of Figure 5's run."""
    # Imported here because matplotlib takes a second to import.
    from mgm.report.figures.clip_grid import glow, veil
    from mgm.report.figures.style import KIND

    masks = arrays["masked_NSHW"]
    strips = [
        MaskStrip("clip", f"frames {', '.join(map(str, arrays['index_S']))}"),
        MaskStrip(
            "motion",
            "magnitude of the motion vectors",
            _uri(_strip(glow(arrays["magnitude_SHW"])), "png"),
        ),
    ]
    for name, ratio, masked_SHW, boxes_S4 in zip(
        map(str, arrays["names_N"]), arrays["ratio_N"], masks, arrays["boxes_NS4"]
    ):
        about = ", ".join(
            filter(
                None, (KIND.get(name, "").replace("\n", " "), f"{ratio * 100:.0f}\u00a0% hidden")
            )
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
    """Return a figure as a smaller data URI for the page, and its width in CSS pixels."""
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
    """Describe generated clips and their classes; empty for real videos."""
    drawn = [data.generate for data in registry.scale.datasets.values() if data.generate]
    if not drawn:
        return ""
    layout = drawn[0].get("layout", "wrap")
    label = {
        "binding": "Each shape moves in its own way, and the first colour's motion is the class.",
        "order": "All make one motion and then another, and the two in order are the class.",
    }.get(layout, "All shapes of a video make the same motion, and this motion is the class.")
    text = (
        "Videos are generated: bright shapes move in front of a darker background. "
        f"{label} Look, place and background carry no information."
    )
    if layout == "wrap":
        return text
    return (
        f"{text} The shapes move to and fro. The class is the line of the motion and its faster "
        "direction: “jerking things left” is fast to the left and slow back, “swaying things up "
        "and down” is equally fast both ways."
    )


@dataclass(frozen=True)
class Controls:
    """Accuracy of linear probes on features that need no trained model.

    Attributes:
        lines: control's title -> its accuracy, or why it is not measured.

    Only `runs` is set before a run is finished.
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
    """Read the controls of a scale's runs; None for a scale without controls.

    A single run has its own bootstrap interval. Several runs have an interval over seeds, or over
    datasets if there are several.
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
    pretrained = any(table.base for table in registry.tables.values())
    for title in first.index:
        # A table with a row without pretraining has the same control, of more seeds.
        if pretrained and first.kind[title] == "model":
            continue
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
        data_name(done[0].data, kinds=registry.kinds),
        chances[0],
        lines,
        Axis.over([0.0, *ends], within=PERCENT),
        tuple(dict.fromkeys(str(text) for table in tables for text in table.warning if text)),
        tuple(map(str, arrays["remarks"])),
        str(arrays.get("metric", "top-1")),
    )


@dataclass(frozen=True)
class ClassLine:
    """Accuracy of one class, and the wrong class that was predicted most often."""

    name: str
    predictions: int
    accuracy: float
    confused_with: str
    confused: float


@dataclass(frozen=True)
class ByClass:
    """Accuracy by class, with a confusion matrix.

    Attributes:
        matrix: label -> prediction -> share of the label's predictions in per cent. It is empty for
            more than `LARGEST_MATRIX` classes.
    """

    row: Row
    runs: int
    lines: list[ClassLine]
    matrix: dict[str, dict[str, float]]


def by_class(row: Row | None, results: Path, found: Mapping[str, RunStatus]) -> ByClass | None:
    """Sum the predictions of a cell's finished runs by class.

    Returns:
        The least accurate class first. None if no run has a `predictions.csv`, or if videos have
        several labels and so no single prediction.
    """
    run_ids = row.run_ids if row else ()
    paths = [results / run_id / "predictions.csv" for run_id in run_ids if found[run_id].result]
    frames = [
        pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths if path.exists()
    ]
    if row is None or not frames or "labels" in frames[0]:
        return None
    # A probe of several label draws has a column per draw.
    predictions = pd.concat(
        frame.melt(["path", "label"], value_name="predicted") for frame in frames
    )
    names = sorted({*predictions.label, *predictions.predicted})
    counts = pd.crosstab(predictions.label, predictions.predicted).reindex(
        columns=names, fill_value=0
    )
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
    """Return heading and content of each section of DEVIATIONS.md; empty without that file."""
    return deviation_sections(DEVIATIONS.read_text()) if DEVIATIONS.exists() else []


def deviation_sections(text: str) -> list[tuple[str, Markup]]:
    """Render Markdown sections, with captions, headings and scrolling boxes for their tables.

    A caption repeats the heading above the table. The first cell of a row is its heading.
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
