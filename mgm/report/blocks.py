"""Results in Markdown: marked blocks that are written from the studies' runs.

    python -m mgm.report.blocks README.md docs/*.md    # `make docs` calls this

A block begins with a comment that says what it shows, and ends with another:

    <!-- study drawn | mini: MGM minus Random block -->7.8 [4.4, 11.3]<!-- end -->

    <!-- study drawn | cells | column: Linear probe | datasets: mini / one -->
    ...
    <!-- end -->

- `DATASET: A minus B` is one number, of the first column or of `| column: ...`. A row in another
  column is `A [COLUMN]`. `| draws: 709-720` or `| seeds: 0-3` uses these alone.
- `cells` is a table of accuracies, of all `datasets` and the first column, or of `columns`.
- `controls` is the same for the controls without a model.
- `differences` is a table of a `family`. Bold differs from 0 by Holm's method.
- `predictions` is a table of what the predictions came to. `verdicts` counts them.

A study of a scale is named with it: `mini/table4e`. Lists are separated by " / ". A number cannot
stand in a table, whose cells `|` would divide.
"""

import re
import sys
from collections.abc import Callable, Collection
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.errors import UserError
from mgm.report.findings import Findings, in_words, read_findings
from mgm.report.tables import laid_out, markdown, records
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
        try:
            return block["start"] + _inside(findings_of(name), what) + block["end"]
        except (UserError, TypeError, ValueError) as error:
            raise UserError(f"block `study {name} | {what}`: {error}") from None

    return BLOCK.sub(write, text)


def _inside(findings: Findings, what: str) -> str:
    kind, *parts = what.split(" | ")
    options = dict(option.split(": ", 1) for option in parts)
    if kind == "verdicts":
        return verdicts(findings)
    if kind in KINDS:
        return f"\n\n{KINDS[kind](findings, **options)}\n\n"
    dataset, _, formula = kind.partition(": ")
    column = options.pop("column", "")
    only = {key: numbers(value) for key, value in options.items()}
    text = in_words(findings.estimate(dataset, formula, column, **only))
    if text == "not run":
        raise UserError("has no result")
    return text


def cells(
    findings: Findings,
    datasets: str = "",
    columns: str = "",
    column: str = "",
    control: bool = False,
) -> str:
    """Return a table of means with their intervals: rows by datasets, or by columns of one."""
    table = findings.cells[(findings.cells.control == control) & (findings.cells.n > 0)]
    table = _chosen(table, "dataset", datasets)
    table = _chosen(table, "column", columns or column or next(iter(findings.study.columns)))
    shown = laid_out(findings, table)
    return markdown(shown.rename(columns={"Pretraining": "Control"}) if control else shown)


def differences(
    findings: Findings, family: str = "", datasets: str = "", columns: str = "", column: str = ""
) -> str:
    """Return a table of a family's differences. Bold differs from 0 by Holm's method."""
    table = _chosen(findings.differences, "family", family or next(iter(findings.study.compare)))
    table = _chosen(table, "dataset", datasets)
    table = _chosen(table, "column", columns or column or next(iter(findings.study.columns)))
    several = table.dataset.nunique() > 1
    texts: dict[str, dict[str, str]] = {}
    for line in records(table):
        text = in_words(line["estimate"])
        title = findings.study.shown.get(line["dataset"], line["dataset"])
        texts.setdefault(title if several else line["column"], {})[line["says"]] = (
            f"**{text}**" if line["holm"] else text
        )
    shown = pd.DataFrame(texts, index=table.says.unique()).fillna("")
    return markdown(shown.rename_axis("Difference (points)").reset_index())


def _chosen(table: pd.DataFrame, name: str, wanted: str) -> pd.DataFrame:
    """Return the lines of a frame whose field `name` is wanted; all if nothing is named.

    Raises:
        UserError: no line has such a name.
    """
    known: Collection[Any] = list(table[name].unique())
    chosen = [part.strip() for part in wanted.split(" / ")] if wanted else known
    for one in chosen:
        if one not in known:
            raise UserError(f"no {name} {one!r} with results; choose from {', '.join(known)}")
    return table[table[name].isin(chosen)]


def predictions(findings: Findings, datasets: str = "") -> str:
    """Return a table of what the predictions came to, with the commits that wrote them."""
    first, shown = next(iter(findings.study.columns)), findings.study.shown
    lines = []
    for line in records(_chosen(findings.predictions, "dataset", datasets)):
        where, draws = shown.get(line["dataset"], line["dataset"]), line["draws"]
        where += f", {line['column']}" if line["column"] != first else ""
        where += f", draws {draws[0]} to {draws[-1]}" if draws else ""
        verdict = f"**{line['verdict']}**" if line["verdict"] == "refuted" else line["verdict"]
        lines.append(
            {
                "Where": where,
                "Predicted": line["says"],
                "Commit": line["since"][:7] or "not committed",
                "Found": in_words(line["estimate"]),
                "Verdict": f"{verdict}: {line['why']}" if line["why"] else verdict,
            }
        )
    return markdown(pd.DataFrame(lines))


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


def main(paths: list[Path], results: Path = Path("results")) -> None:
    """Write the blocks of these files again."""
    read = cache(lambda folder: read_findings(results / folder))

    def findings_of(name: str) -> Findings:
        folder, _, study = name.partition("/")
        return read(folder)[study or folder]

    for path in paths:
        text = path.read_text(encoding="utf-8")
        if (new := refresh(text, findings_of)) != text:
            atomic.write(path, new)
            print(f"{path}: its results were written again")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
