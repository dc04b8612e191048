"""The page as one HTML file, with every run."""

import base64
import io
import re
from collections import Counter
from collections.abc import Mapping
from os.path import relpath
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape
from PIL import Image

from mgm.report.estimates import StudyResults
from mgm.report.page import Page
from mgm.report.views.table import TableCell
from mgm.results.frame import of_every_run

FILES = (
    *("tables/cells.csv", "tables/differences.csv", "tables/predictions.csv", "tables/values.csv"),
    "claims.csv",
)
STAGES = {
    "pretrain": "Pretraining",
    "finetune": "Fine-tuning",
    "probe": "Linear probes",
    "measure": "Measurements",
    "visualise": "Pictures",
}


def page(page: Page, found: Mapping[str, StudyResults], reports: Path) -> str:
    """Return the HTML of `reports`/index.html."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True
    )
    templates.globals |= {"source": source, "table": table, "status": status}
    templates.filters |= {"words": words}
    first = next(iter(found.values()))
    return templates.get_template("page.html.j2").render(
        name=first.folder.name,
        page=page,
        links=[name for name in FILES if (reports / name).exists()],
        facts=facts(first),
        stages=runs(found),
        statuses=first.statuses,
        folder=quote(relpath(first.folder, reports)),
    )


def table(shown: pd.DataFrame) -> Markup:
    """Return a table, which can be scrolled by keys too."""
    made = shown.map(_cell).rename(index=words, columns=words)
    made.columns.names = [words(str(name or "")) for name in shown.columns.names]
    with pd.option_context("display.max_colwidth", None):
        html = made.to_html(escape=False, border=0, justify="inherit")
    return Markup('<div class="wide" tabindex="0">{}</div>').format(Markup(html))


def _cell(cell: TableCell) -> Markup:
    """Return the HTML of a cell. Its runs are behind a link."""
    number = words(cell.text)
    if cell.strong:
        number = Markup("<strong>{}</strong>").format(number)
    if cell.interval:
        interval = Markup('<span class="interval">{}</span>').format(words(cell.interval))
        number = Markup("{} {}").format(number, interval)
    parts = [status(cell.status) if cell.status else "", number]
    links = Markup("").join(
        Markup('<a href="#{0}">{0}</a> ').format(run_id) for run_id in cell.run_ids
    )
    small = words("; ".join(cell.small))
    if links:
        count = f"{len(cell.run_ids)} run{'s' * (len(cell.run_ids) > 1)}"
        folded = Markup("<details><summary>{}</summary>{}</details>").format(count, links)
        small = Markup("; ").join(filter(None, (small, folded)))
    if small:
        parts.append(Markup("<small>{}</small>").format(small))
    return Markup(" ").join(filter(None, parts))


def status(word: str) -> Markup:
    """Return a verdict or the state of a run, with its mark."""
    return Markup('<span class="status is-{}">{}</span>').format(word.replace(" ", "-"), word)


def facts(found: StudyResults) -> dict[str, Any]:
    """Return what was run where."""
    results = [status.result for status in found.statuses.values() if status.result]
    return {
        "done": len(results),
        "total": len(found.statuses),
        "states": Counter(
            status.state for status in found.statuses.values() if status.state != "finished"
        ),
        "troubles": {
            run_id: status
            for run_id, status in found.statuses.items()
            if status.state not in ("finished", "not run")
        },
        "hours": sum(result["wall_s"] for result in results) / 3600,
        "devices": sorted({result["device"] for result in results}),
        "versions": sorted(
            {f"PyTorch {result['versions'].get('torch', '?')}" for result in results}
        ),
        "commits": Counter(result["commit"][:7] for result in results),
    }


def runs(found: Mapping[str, StudyResults]) -> dict[str, dict[str, str]]:
    """Map the title of each stage to its runs, each with the cell that it is for."""
    first = next(iter(found.values()))
    specs, cells = first.plan.specs, dict[str, str]()
    shown = of_every_run(first.frame, specs).drop_duplicates("run_id")
    for run in shown.to_dict("records"):
        drawn = f"dataset seed {run['dataset_seed']}, " if run["dataset_seed"] >= 0 else ""
        where = f"{run['title']}, {run['row']}, {run['column']}"
        cells[run["run_id"]] = f"{where}, {drawn}seed {run['seed']}"
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
    with Image.open(picture) as image:
        image.convert("RGB").save(file, "WEBP", quality=78)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def words(text: str) -> Markup:
    """Return a text as HTML: `code`, **bold**, true minus signs, and no break before a unit."""
    text = re.sub(r"(?<=\d) (?=%)|(?<=\bn) (?==)|(?<==) (?=\d)", "\N{NO-BREAK SPACE}", text)
    text = re.sub(r"(?<=[\s\[(])-(?=\d)|^-(?=\d)", "\N{MINUS SIGN}", text)
    text = re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text))
