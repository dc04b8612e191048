"""Sections of the page: generated clips, controls, accuracy by class, deviations."""

import re
from collections.abc import Mapping
from math import inf, isnan
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from mgm.report.cells import FilledCell
from mgm.report.figures.files import read_arrays
from mgm.report.page.svg import PERCENT, Axis
from mgm.results.result import RunStatus
from mgm.results.statistics import Estimate, over_seeds
from mgm.spec import data_name
from mgm.study.registry import Registry

# DEVIATIONS.md of a checkout; an installed package has none.
DEVIATIONS = Path(__file__).parents[3] / "DEVIATIONS.md"
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
# Most classes of a confusion matrix that fits the page.
LARGEST_MATRIX = 20


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


def controls_of(
    registry: Registry, results: Path, statuses: Mapping[str, RunStatus]
) -> dict[str, Any] | None:
    """Read the accuracies of features that need no trained model; None without controls.

    A single run has its own bootstrap interval. Several runs have an interval over seeds.

    Returns:
        `runs` of the registry. If one is finished, also `dataset`, `chance`, `metric`, `axis`,
        `warnings`, `remarks`, and `lines`: a control's title -> its estimate, or why it is not
        measured.
    """
    wanted = registry.controls
    if not wanted:
        return None
    loaded = [(run, read_arrays(results, run.run_id, statuses)) for run in wanted]
    done = [(run, arrays) for run, arrays in loaded if arrays]
    if not done:
        return {"runs": wanted}
    tables = []
    for _, arrays in done:
        columns = {name[:-2]: array_N for name, array_N in arrays.items() if name.endswith("_N")}
        tables.append(pd.DataFrame(columns).set_index("title"))
    first = tables[0]
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
            lines[str(title)] = over_seeds(values)
    result = statuses[done[0][0].run_id].result
    known = [estimate for estimate in lines.values() if isinstance(estimate, Estimate)]
    ends = [end for estimate in known for end in estimate.ends]
    return {
        "runs": wanted,
        "dataset": data_name(done[0][0].data, kinds=registry.kinds),
        "chance": result["metrics"].get("chance") if result else None,
        "lines": lines,
        "axis": Axis.over([0.0, *ends], within=PERCENT),
        "warnings": dict.fromkeys(str(text) for table in tables for text in table.warning if text),
        "remarks": list(map(str, arrays["remarks"])),
    }


def by_class(
    row: FilledCell | None, results: Path, statuses: Mapping[str, RunStatus]
) -> dict[str, Any] | None:
    """Sum the predictions of a cell's finished runs by class.

    Returns:
        `row`, the number of `runs`, `lines` (per class its `name`, `predictions`, `accuracy`, and
        the wrong class that was predicted most often with its share; the least accurate first) and
        `matrix`: label -> prediction -> share of the label's predictions in per cent, empty for
        more than `LARGEST_MATRIX` classes. None if no run has a `predictions.csv`.
    """
    run_ids = row.run_ids if row else ()
    paths = [results / run_id / "predictions.csv" for run_id in run_ids if statuses[run_id].result]
    frames = [
        pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths if path.exists()
    ]
    if row is None or not frames:
        return None
    # A probe of several label draws has a column per draw.
    predictions = pd.concat(
        frame.melt(["path", "label"], value_name="predicted") for frame in frames
    )
    shares = 100 * pd.crosstab(predictions.label, predictions.predicted, normalize="index")
    names = sorted({*predictions.label, *predictions.predicted})
    matrix: dict[Any, dict[Any, float]] = shares.reindex(columns=names, fill_value=0.0).to_dict(
        "index"
    )
    counts = predictions.label.value_counts()
    lines = []
    for label, share_of in matrix.items():
        wrong = {name: share for name, share in share_of.items() if name != label and share}
        worst = max(wrong, key=wrong.__getitem__, default="")
        lines.append(
            {
                "name": label,
                "predictions": counts[label],
                "accuracy": share_of[label],
                "confused_with": worst,
                "confused": wrong.get(worst, 0.0),
            }
        )
    lines.sort(key=itemgetter("accuracy"))
    shown = matrix if len(names) <= LARGEST_MATRIX else {}
    return {"row": row, "runs": len(frames), "lines": lines, "matrix": shown}


def deviations() -> list[tuple[str, Markup]]:
    """Return heading and content of each section of DEVIATIONS.md; empty without that file.

    Tables are named by their section, and each row by its first cell, for screen readers.
    """
    text, rendered = DEVIATIONS.read_text() if DEVIATIONS.exists() else "", []
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        opening = f'<div class="wide"><table class="prose"><caption>{escape(title)}</caption>'
        html = (
            MARKDOWN.render(body).replace("<table>", opening).replace("</table>", "</table></div>")
        )
        html = html.replace("<th>", '<th scope="col">').replace("h3>", "h4>")
        html = re.sub("<tr>\n<td>(.*)</td>", r'<tr>\n<th scope="row">\1</th>', html)
        rendered.append((title, Markup(html)))
    return rendered
