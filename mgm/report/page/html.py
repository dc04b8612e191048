"""The page: one HTML file with the findings, the tables and figures, and the runs behind them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from mgm.report.claims.judge import Verdict
from mgm.report.figures.files import FigureFile, read_arrays
from mgm.report.page.overview import caveat, cost, finding, overview
from mgm.report.page.pictures import embedded, mask_player
from mgm.report.page.runs import (
    STAGES,
    cell_id,
    columns_of,
    day,
    duration,
    labels_of,
    losses_of,
    outcome,
    run_details,
    training,
)
from mgm.report.page.sections import by_class, clips_of, controls_of, deviations
from mgm.report.page.svg import TEMPLATES
from mgm.report.page.tables import table_of
from mgm.report.tables import BOLD, TableView, detail, names
from mgm.report.words import comparable, number, paper_note
from mgm.results.result import RunStatus, log_lines
from mgm.study.registry import Registry, label_of


def page(
    registry: Registry,
    results: Path,
    reports: Path,
    statuses: Mapping[str, RunStatus],
    views: Mapping[str, TableView],
    figures: Sequence[FigureFile] = (),
    verdicts: Sequence[Verdict] = (),
    study: Mapping[str, Any] | None = None,
) -> str:
    """Return the HTML of `reports`/index.html.

    Args:
        study: what the page shows of a study (`mgm.report.page.study`) in place of the paper's
            tables.
    """
    TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    TEMPLATES.globals |= {
        word.__name__: word
        for word in (number, duration, label_of, names, detail, cell_id, outcome, day, coded)
    }
    scale, clip = registry.scale, registry.mask_clip
    logs = {run_id: log_lines(results / run_id) for run_id in registry.specs}
    losses = {run_id: losses_of(log) for run_id, log in logs.items()}
    lead = finding(registry, views, {figure.name for figure in figures if figure.picture})
    arrays = read_arrays(results, clip.run_id, statuses) if clip else None
    return TEMPLATES.get_template("page.html.j2").render(
        specs=registry.specs,
        statuses=statuses,
        name=results.name,
        scale=scale,
        comparable=comparable(scale),
        paper_note=paper_note(scale),
        caveat=caveat(registry, statuses),
        bold=BOLD,
        overview=overview(registry, statuses, views, verdicts),
        player=mask_player(arrays, clip.run_id) if clip and arrays else None,
        tables=[] if study else [table_of(view, statuses) for view in views.values()],
        study=study,
        figures=[
            vars(figure) | (embedded(figure.picture) if figure.picture else {"source": ""})
            for figure in figures
        ],
        claims=verdicts,
        verdicts=Counter(verdict.verdict for verdict in verdicts).most_common(),
        curves=training(registry, logs, losses),
        cost=cost(registry, statuses),
        lead=lead,
        classes=by_class(lead["cell"], results, statuses),
        clips=clips_of(registry),
        control_files=" ".join(
            f"results/{results.name}/{run.run_id}/result.json" for run in registry.controls
        ),
        controls=None if study else controls_of(registry, results, statuses),
        columns=columns_of(registry, statuses),
        stages=STAGES,
        labels=labels_of(registry),
        losses=losses,
        results=results,
        details=run_details(registry, statuses, views, logs, losses, results, reports),
        # They are about the paper's experiments.
        deviations=[] if study else deviations(),
    )


def coded(text: str) -> Markup:
    """Return a text with its `code` as HTML."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))
