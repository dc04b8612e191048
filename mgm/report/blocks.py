"""Results in Markdown: marked blocks that are written from the studies' runs.

    python -m mgm.report.blocks README.md docs/*.md    # `make docs` calls this

A block begins with a comment that says what it shows, and ends with another:

    <!-- study drawn | mini: MGM minus Random block -->7.8 [4.4, 11.3]<!-- end -->

    <!-- study drawn | cells | column: Linear probe | datasets: mini / one -->
    ...
    <!-- end -->

- `DATASET: A minus B` is one number, of the first column or of `| column: ...`. A row in another
  column is `A [COLUMN]`. `| draws: 709-720` or `| seeds: 0-3` uses these alone.
- `cells` is a table of accuracies. Its columns are `datasets`, or for one dataset `columns`. `rows`
  chooses rows; by default all. `minus: ROW` adds each row's difference from ROW.
- `controls` is the same for the controls without a model.
- `differences` is a table of a `family`. Bold differs from 0 by Holm's method.
- `predictions` is a table of what the predictions came to. `verdicts` counts them.

The tables of a scale are read as a study's datasets: `mini | 4e: MGM (Dense) | column: SSv2`. A
number cannot stand in a table, whose cells `|` would divide. Lists are separated by " / ".
"""

import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.errors import UserError
from mgm.paper.study import numbers
from mgm.report.findings import Findings, estimate_of, in_words, read_findings
from mgm.results import atomic

# A block holds no other comment, so that one without an end does not take the text after it.
BLOCK = re.compile(
    r"(?P<start><!--\s+study\s+(?P<name>\S+)\s+\|\s+(?P<what>(?:(?!-->).)*?)\s+-->)"
    r"(?P<result>(?:(?!<!--).)*)(?P<end><!--\s+end\s+-->)",
    re.DOTALL,
)


def refresh(text: str, findings_of: Callable[[str], Findings]) -> str:
    """Return a text with its blocks written again.

    Args:
        findings_of: returns what a study found, by its name.

    Raises:
        UserError: a block names what is not there, or has no end.
    """
    for start in re.finditer(r"<!--\s+study\s[^>]*", text):
        if not BLOCK.match(text, start.start()):
            raise UserError(f"{' '.join(start[0].split())}>: this block has no `<!-- end -->`")

    def write(block: re.Match) -> str:
        name, what = block["name"], " ".join(block["what"].split())
        kind, *given = what.split(" | ")
        options = dict(one.split(": ", 1) for one in given)
        if kind == "verdicts":
            inside = verdicts(findings_of(name))
        elif kind in KINDS:
            inside = f"\n\n{KINDS[kind](findings_of(name), **options)}\n\n"
        else:
            dataset, _, said = kind.partition(": ")
            column = options.pop("column", "")
            only = {key: numbers(value) for key, value in options.items()}
            inside = in_words(findings_of(name).estimate(dataset, said, column, **only))
            if inside == "not run":
                raise UserError(f"study {name}: {what}: has no result")
        return block["start"] + inside + block["end"]

    return BLOCK.sub(write, text)


def cells(
    found: Findings,
    datasets: str = "",
    columns: str = "",
    column: str = "",
    rows: str = "",
    minus: str = "",
    control: bool = False,
) -> str:
    """Return a table of means with their intervals: rows by datasets, or by columns of one."""
    table = found.cells[found.cells.control == control]
    chosen = _listed(datasets) or list(table.dataset.unique())
    several = _listed(columns) or [column or next(iter(found.study.columns))]
    tables = {} if found.registry.scale.study else found.registry.tables
    heads = {
        (dataset, name): tables[dataset].shown.get(name, name)
        if tables
        else (name if len(several) > 1 else f"`{dataset}`")
        for dataset in chosen
        for name in several
    }
    table = table[pd.MultiIndex.from_frame(table[["dataset", "column"]]).isin(list(heads))]
    by_place = {(one["dataset"], one["column"], one["row"]): one for one in _records(table)}
    lines = []
    for row in _listed(rows) or list(dict.fromkeys(table.row)):
        line = [row]
        for dataset, name in heads:
            one = by_place.get((dataset, name, row))
            line.append(in_words(estimate_of(one)) if one else "")
            if minus:
                gain = found.estimate(dataset, f"{row} minus {minus}", name)
                line.append(in_words(gain) if gain and row != minus else "")
        lines.append(line)
    titles = [
        title for head in heads.values() for title in (head, f"Minus {minus}")[: 1 + bool(minus)]
    ]
    return _markdown(["Control" if control else "Pretraining", *titles], lines)


def controls(found: Findings, **options: str) -> str:
    """Return a table of the controls without a model."""
    return cells(found, control=True, **options)


def differences(
    found: Findings, family: str = "", datasets: str = "", columns: str = "", column: str = ""
) -> str:
    """Return a table of a family's differences. Bold differs from 0 by Holm's method."""
    table = found.differences
    table = table[table.family == (family or next(iter(found.study.compare)))]
    chosen = _listed(datasets) or list(table.dataset.unique())
    several = _listed(columns) or [column or next(iter(found.study.columns))]
    heads = [(dataset, name) for dataset in chosen for name in several]
    titles = [name if len(several) > 1 else f"`{dataset}`" for dataset, name in heads]
    table = table[pd.MultiIndex.from_frame(table[["dataset", "column"]]).isin(heads)]
    lines = []
    for says, some in table.groupby("says", sort=False):
        by_place = {(one["dataset"], one["column"]): one for one in _records(some)}
        words = [
            (in_words(estimate_of(by_place[head])), by_place[head]["holm"])
            if head in by_place
            else ("", False)
            for head in heads
        ]
        lines.append([str(says), *(f"**{text}**" if bold else text for text, bold in words)])
    return _markdown(["Difference (points)", *titles], lines)


def predictions(found: Findings, datasets: str = "") -> str:
    """Return a table of what the predictions came to, with the commits that wrote them."""
    table = found.predictions
    if datasets:
        table = table[table.dataset.isin(_listed(datasets))]
    first = next(iter(found.study.columns))
    lines = []
    for one in _records(table):
        where, draws, why = f"`{one['dataset']}`", one["draws"], one["why"]
        where += f", {one['column']}" if one["column"] != first else ""
        where += f", draws {draws[0]} to {draws[-1]}" if draws else ""
        verdict = f"**{one['verdict']}**" if one["verdict"] == "refuted" else one["verdict"]
        estimate = in_words(estimate_of(one)) if one["n"] else "not run"
        verdict += f": {why}" if why else ""
        lines.append([where, one["says"], one["since"][:7], estimate, verdict])
    return _markdown(["Where", "Predicted", "Commit", "Found", "Verdict"], lines)


def verdicts(found: Findings) -> str:
    """Return how many predictions came to what, such as "12 hold, 3 refuted"."""
    counts = found.predictions.verdict.value_counts()
    words = {"holds": "hold", "refuted": "refuted", "open": "open", "not run": "not run"}
    return ", ".join(f"{counts[one]} {text}" for one, text in words.items() if one in counts)


KINDS: dict[str, Callable[..., str]] = {
    "cells": cells,
    "controls": controls,
    "differences": differences,
    "predictions": predictions,
}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")  # type: ignore[return-value]


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(" / ")] if text else []


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(paths: list[Path], results: Path = Path("results")) -> None:
    """Write the blocks of these files again."""
    findings_of = cache(lambda name: read_findings(results / name))
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if (new := refresh(text, findings_of)) != text:
            atomic.write(path, new)
            print(f"{path}: its results were written again")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
