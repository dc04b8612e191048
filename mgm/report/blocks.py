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

The paper's studies at a scale have its name before theirs: `mini/table4e | ssv2: MGM (Dense)`. A
number cannot stand in a table, whose cells `|` would divide. Lists are separated by " / ".
"""

import re
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.errors import UserError
from mgm.report.findings import Findings, estimate_of, in_words, read_findings
from mgm.results import atomic
from mgm.study.schema import numbers

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
        kind, *parts = what.split(" | ")
        options = dict(option.split(": ", 1) for option in parts)
        if kind == "verdicts":
            inside = verdicts(findings_of(name))
        elif kind in KINDS:
            inside = f"\n\n{KINDS[kind](findings_of(name), **options)}\n\n"
        else:
            dataset, _, difference = kind.partition(": ")
            column = options.pop("column", "")
            only = {key: numbers(value) for key, value in options.items()}
            inside = in_words(findings_of(name).estimate(dataset, difference, column, **only))
            if inside == "not run":
                raise UserError(f"study {name}: {what}: has no result")
        return block["start"] + inside + block["end"]

    return BLOCK.sub(write, text)


def cells(
    findings: Findings,
    datasets: str = "",
    columns: str = "",
    column: str = "",
    rows: str = "",
    minus: str = "",
    control: bool = False,
) -> str:
    """Return a table of means with their intervals: rows by datasets, or by columns of one."""
    table = findings.cells[(findings.cells.control == control) & findings.cells["mean"].notna()]
    heads = _heads(findings, table, datasets, columns, column)
    words = {_place(row, "row"): in_words(estimate_of(row)) for row in _records(table)}
    titles = list(heads.values())
    if minus:
        titles = [title for head in titles for title in (head, f"Minus {minus}")]
    lines = []
    for row in _listed(rows) or list(
        dict.fromkeys(name for *place, name in words if tuple(place) in heads)
    ):
        line = [row]
        for dataset, name in heads:
            line.append(words.get((dataset, name, row), ""))
            if minus:
                gain = findings.estimate(dataset, f"{row} minus {minus}", name)
                line.append(in_words(gain) if gain and row != minus else "")
        lines.append(line)
    return _markdown(["Control" if control else "Pretraining", *titles], lines)


def differences(
    findings: Findings, family: str = "", datasets: str = "", columns: str = "", column: str = ""
) -> str:
    """Return a table of a family's differences. Bold differs from 0 by Holm's method."""
    table = findings.differences
    table = table[table.family == (family or next(iter(findings.study.compare)))]
    heads = _heads(findings, table, datasets, columns, column)
    words = {}
    for row in _records(table):
        text = in_words(estimate_of(row))
        words[_place(row, "says")] = f"**{text}**" if row["holm"] else text
    names = dict.fromkeys(name for *place, name in words if tuple(place) in heads)
    lines = [[name, *(words.get((*head, name), "") for head in heads)] for name in names]
    return _markdown(["Difference (points)", *heads.values()], lines)


def _heads(
    findings: Findings, table: pd.DataFrame, datasets: str, columns: str, column: str
) -> dict[tuple[str, str], str]:
    """Map the datasets and columns that a block shows to their titles."""
    chosen = _listed(datasets) or list(table.dataset.unique())
    shown = _listed(columns) or [column or next(iter(findings.study.columns))]
    return {
        (dataset, name): name if len(shown) > 1 else f"`{dataset}`"
        for dataset in chosen
        for name in shown
    }


def _place(row: dict[str, Any], name: str) -> tuple[str, str, str]:
    return row["dataset"], row["column"], row[name]


def predictions(findings: Findings, datasets: str = "") -> str:
    """Return a table of what the predictions came to, with the commits that wrote them."""
    table = findings.predictions
    if datasets:
        table = table[table.dataset.isin(_listed(datasets))]
    first = next(iter(findings.study.columns))
    lines = []
    for row in _records(table):
        where, draws, why = f"`{row['dataset']}`", row["draws"], row["why"]
        where += f", {row['column']}" if row["column"] != first else ""
        where += f", draws {draws[0]} to {draws[-1]}" if draws else ""
        verdict = f"**{row['verdict']}**" if row["verdict"] == "refuted" else row["verdict"]
        estimate = in_words(estimate_of(row)) if row["n"] else "not run"
        verdict += f": {why}" if why else ""
        lines.append([where, row["says"], row["since"][:7], estimate, verdict])
    return _markdown(["Where", "Predicted", "Commit", "Found", "Verdict"], lines)


def verdicts(findings: Findings) -> str:
    """Return how many predictions came to what, such as "12 hold, 3 refuted"."""
    counts = findings.predictions.verdict.value_counts()
    words = {"holds": "hold", "refuted": "refuted", "open": "open", "not run": "not run"}
    return ", ".join(
        f"{counts[verdict]} {text}" for verdict, text in words.items() if verdict in counts
    )


KINDS: dict[str, Callable[..., str]] = {
    "cells": cells,
    "controls": partial(cells, control=True),
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


def find(results: Path, name: str) -> Findings:
    """Return the findings of a study, or of a study of a scale: "mini/table4e"."""
    folder, _, study = name.partition("/")
    found = read_findings(results / folder)
    return found[study or folder]


def main(paths: list[Path], results: Path = Path("results")) -> None:
    """Write the blocks of these files again."""
    findings_of = cache(partial(find, results))
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if (new := refresh(text, findings_of)) != text:
            atomic.write(path, new)
            print(f"{path}: its results were written again")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
