"""The page: one HTML file with what studies found, their tables, figures and runs."""

import base64
import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os.path import relpath
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape
from matplotlib.image import imread, imsave

from mgm.report.findings import FITS, Findings
from mgm.report.tables import FRAMES, compared, groups, records, seen
from mgm.spec import parents
from mgm.study.schema import SHARES

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
STAGES = {
    "pretrain": "Pretraining",
    "finetune": "Fine-tuning",
    "probe": "Linear probes",
    "measure": "Measurements",
    "visualise": "Pictures",
}


@dataclass(frozen=True)
class Axis:
    """A linear axis of the small plots in tables, which `templates/svg.html.j2` draws."""

    low: float
    high: float
    width: int = 112  # CSS pixels

    def at(self, value: float) -> float:
        """Return a value's place in pixels from the left, at most the axis's ends."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(8 + (self.width - 16) * share, 1)


@dataclass
class Figure:
    """A drawn figure, or why there is none.

    Attributes:
        picture: the svg, or the png of frames of clips; None if it could not be drawn.
        why: why it could not be drawn, or which numbers are missing.
    """

    name: str
    title: str
    caption: str = ""
    picture: Path | None = None
    why: str = ""
    run_ids: Sequence[str] = field(default_factory=tuple)


def page(
    findings: Mapping[str, Findings],
    figures: Mapping[str, Sequence[Figure]],
    pictures: Sequence[Figure],
    verdicts: pd.DataFrame,
    reports: Path,
    film: Path | None = None,
) -> str:
    """Return the HTML of `reports`/index.html.

    Args:
        figures: the figures of each study.
        pictures: the figures of clips and masks.
        verdicts: those of the paper's claims; none for a study.
        film: the masks in motion.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True
    )
    templates.globals |= {"number": number, "coded": coded, "slug": slug, "source": source}
    first = next(iter(findings.values()))
    return templates.get_template("page.html.j2").render(
        name=first.results.name,
        scale=first.plan,
        single=first if len(findings) == 1 else None,
        studies=[section(found, figures.get(name, ())) for name, found in findings.items()],
        pictures=pictures,
        claims=verdicts.to_dict("records"),
        tally=Counter(verdicts.verdict) if len(verdicts) else {},
        film=film,
        facts=facts(first),
        stages=runs(findings),
        frames=[name for name in FRAMES if (reports / "tables" / f"{name}.csv").exists()],
        statuses=first.statuses,
        folder=quote(relpath(first.results, reports)),
    )


def section(findings: Findings, figures: Sequence[Figure]) -> dict[str, Any]:
    """Return what the page shows of a study."""
    study = findings.study
    first, *_ = study.columns
    tables = [table(findings, name) for name in findings.study.parts]
    predictions = [
        prediction
        | {
            "where": study.shown.get(prediction["dataset"], prediction["dataset"]),
            "column": "" if prediction["column"] == first else prediction["column"],
        }
        for prediction in records(findings.predictions)
    ]
    families = groups(compared(findings), "dataset", "column", "family")
    return {
        "name": study.study,
        "study": study,
        "answer": [signed(text) for text in map(findings.filled, study.answer) if text],
        "sceptic": {
            asked: signed(answer)
            for asked, text in study.sceptic.items()
            if (answer := findings.filled(text))
        },
        "tables": [part for part in tables if part["blocks"]],
        "differences": [
            {
                "title": " · ".join(
                    filter(None, [study.shown.get(dataset, dataset), column, family])
                ),
                "lines": records(lines),
                "axis": _axis(lines),
            }
            for (dataset, column, family), lines in families
        ],
        "predictions": predictions,
        "verdicts": Counter(prediction["verdict"] for prediction in predictions),
        "unit": findings.unit_name,
        "figures": figures,
    }


def table(findings: Findings, name: str) -> dict[str, Any]:
    """Return a table of a study: a block per dataset and column, models first, then controls."""
    cells = seen(findings, name)
    blocks = []
    for (dataset, column), block in groups(cells, "dataset", "column"):
        lines = records(block)
        chance = chance_of(findings, dataset)
        models = [line for line in lines if not line["control"]]
        controls = [line for line in lines if line["control"]]
        known = [line["mean"] for line in models if line["estimate"]]
        for line in models:
            place = dataset, column, line["row"]
            line["fits"], line["chosen"] = findings.fitted.get(place), findings.chosen.get(place)
        # A column that only the paper has, such as GFLOPs, is none of the study's.
        evaluation = findings.study.columns.get(column)
        share = evaluation is not None and evaluation.metric in SHARES
        tested = column in findings.study.tests
        blocks.append(
            {
                "dataset": findings.study.shown.get(dataset, dataset),
                "column": column,
                "groups": {"": models, "Controls: no model": controls},
                "share": share,
                "axis": _axis(pd.DataFrame(lines), share),
                "chance": chance["chance"] if tested else None,
                "data": chance["text"] if tested else "",
                "lost": tested and bool(known) and max(known) <= chance["chance"],
                "poor": poor_fits(models),
                "paper": block.paper.notna().any(),
                "several": cells.dataset.nunique() > 1,
            }
        )
    part = findings.study.parts[name]
    # The paper's tables are numbered.
    label = f"Table {name.replace('_', ', ')}. " if name[0].isdigit() else ""
    return {"name": name, "label": label, "title": part.title, "note": part.note, "blocks": blocks}


def poor_fits(lines: Sequence[Mapping[str, Any]]) -> str:
    """Name the rows that do not fit their training clips; empty if all do."""
    poor = [line["row"] for line in lines if line["fits"] is not None and line["fits"] < FITS]
    if not poor:
        return ""
    return (
        f"Below {FITS:.0f} % on the training clips at the end: {'; '.join(poor)}. Such accuracies "
        "may compare how fast rows train."
    )


def chance_of(findings: Findings, dataset: str) -> dict[str, Any]:
    """Return the chance accuracy of a dataset (%), and its videos in words."""
    of_tests = findings.runs.column.isin(findings.study.tests)
    runs = findings.runs[findings.runs.value.notna() & of_tests]
    runs = runs[runs.dataset == dataset]
    results = [findings.statuses[run_id].result or {} for run_id in runs.run_id.unique()]
    data = {
        tuple(result["data"][key] for key in ("classes", "train", "test")) for result in results
    }
    if not data:
        return {"chance": 0.0, "text": ""}
    classes, train, test = (sorted(set(values)) for values in zip(*data))
    chance = [result["metrics"]["chance"] for result in results if "chance" in result["metrics"]]
    value = float(np.mean(chance)) if chance else 100 / max(classes)
    text = f"{_span(classes)} classes, {_span(train)} training and {_span(test)} test videos"
    return {"chance": value, "text": f"{text}. Chance: {number(value)} %."}


def facts(findings: Findings) -> dict[str, Any]:
    """Return what was run where."""
    results = [status.result for status in findings.statuses.values() if status.result]
    return {
        "done": len(results),
        "total": len(findings.statuses),
        "states": Counter(
            status.state for status in findings.statuses.values() if status.state != "finished"
        ),
        "troubles": {
            run_id: status
            for run_id, status in findings.statuses.items()
            if status.state not in ("finished", "not run")
        },
        "hours": sum(result["wall_s"] for result in results) / 3600,
        "devices": sorted({result["device"] for result in results}),
        "versions": sorted(
            {f"PyTorch {result['versions'].get('torch', '?')}" for result in results}
        ),
        "commits": Counter(result["commit"][:7] for result in results),
    }


def runs(findings: Mapping[str, Findings]) -> dict[str, dict[str, str]]:
    """Map the title of each stage to its runs, each with the cell that it is for."""
    first = next(iter(findings.values()))
    specs = first.plan.specs
    cells: dict[str, str] = {}
    for found in findings.values():
        for run in found.runs.drop_duplicates("run_id").to_dict("records"):
            titles = found.study.shown
            where = [titles.get(run["dataset"], run["dataset"]), run["row"], run["column"]]
            drawn = f"draw {run['draw']}, " if run["draw"] >= 0 else ""
            cells.setdefault(run["run_id"], f"{', '.join(where)}, {drawn}seed {run['seed']}")
    for run_id in reversed(list(specs)):
        for parent in parents(specs[run_id]):
            cells.setdefault(parent, cells.get(run_id, ""))
    return {
        title: {
            run_id: cells.get(run_id, "") for run_id, spec in specs.items() if spec.stage == stage
        }
        for stage, title in STAGES.items()
    }


def source(picture: Path) -> str:
    """Return a picture as a data URI, so that the page is one file. A PNG becomes a WebP."""
    if picture.suffix != ".png":
        kind = "svg+xml" if picture.suffix == ".svg" else picture.suffix[1:]
        return f"data:image/{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"
    file = io.BytesIO()
    imsave(file, imread(picture), format="webp", pil_kwargs={"quality": 78})
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def number(value: float | None, sign: bool = False) -> str:
    """Format a number with a true minus sign and never as -0.0; None and NaN are a dash."""
    if value is None or np.isnan(value):
        return DASH
    return f"{value:{'+' if sign else ''}z,.1f}".replace("-", MINUS)


def signed(text: str) -> str:
    """Return a text whose negative numbers have a true minus sign."""
    return re.sub(r"(?<=[\s\[])-(?=\d)", MINUS, text)


def coded(text: str) -> Markup:
    """Return a text with its `code` as HTML."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def slug(*names: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(names).lower()).strip("-")


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _axis(lines: pd.DataFrame, share: bool = False) -> Axis:
    """Return an axis over 0 and all numbers of a table; its ends are multiples of 10."""
    names = [name for name in ("mean", "low", "high", "paper") if name in lines]
    numbers = lines[names].to_numpy(float).ravel()
    ends = [0.0, *numbers[np.isfinite(numbers)]]
    low, high = 10 * math.floor(min(ends) / 10), 10 * math.ceil(max(ends) / 10)
    if share:
        return Axis(0, min(max(high, 10), 100))
    return Axis(low, max(high, low + 10))
