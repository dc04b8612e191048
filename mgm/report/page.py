"""The page: blocks as one HTML file, with every run."""

import base64
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby, takewhile
from os.path import relpath
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape
from PIL import Image

from mgm.report.blocks import Block, Fold, Heading, Row, Text
from mgm.report.findings import Findings
from mgm.results.frame import of_every_run

STAGES = {
    "pretrain": "Pretraining",
    "finetune": "Fine-tuning",
    "probe": "Linear probes",
    "measure": "Measurements",
    "visualise": "Pictures",
}


def page(findings: Mapping[str, Findings], blocks: Sequence[Block], reports: Path) -> str:
    """Return the HTML of `reports`/index.html."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True
    )
    templates.globals |= {"kind": lambda block: type(block).__name__, "source": source}
    templates.filters |= {"words": words, "spans": spans}
    first = next(iter(findings.values()))
    # The head of the page: its title, and the texts below it.
    head = 1 + sum(1 for _ in takewhile(lambda block: isinstance(block, Text), blocks[1:]))
    return templates.get_template("page.html.j2").render(
        name=first.results.name,
        head=blocks[:head],
        blocks=blocks[head:],
        sections=sections(blocks),
        facts=facts(first),
        stages=runs(findings),
        statuses=first.statuses,
        folder=quote(relpath(first.results, reports)),
    )


def spans(groups: Sequence[str]) -> list[tuple[str, int]]:
    """Return each group of columns with how many it has."""
    return [(group, len([*columns])) for group, columns in groupby(groups)]


def sections(blocks: Sequence[Block]) -> dict[str, str]:
    """Map the keys of headings to short titles, for the page's navigation."""
    found: dict[str, str] = {}
    for block in blocks:
        if isinstance(block, Heading) and block.key:
            found[block.key] = block.key.removeprefix("table-").replace("_", " ")
        for part in block.parts if isinstance(block, Row) else ():
            found |= sections(part)
        found |= sections(block.blocks) if isinstance(block, Fold) else {}
    return found


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
    specs, cells = first.plan.specs, dict[str, str]()
    shown = of_every_run(first.frame, specs).drop_duplicates("run_id")
    for run in shown.to_dict("records"):
        drawn = f"draw {run['draw']}, " if run["draw"] >= 0 else ""
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
