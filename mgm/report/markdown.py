"""Results in Markdown: the page index.md, and marked blocks in README and docs.

    python -m mgm.report.markdown README.md docs/*.md    # `make docs` calls this

A block begins with a comment that says what it shows, and ends with another:

    <!-- study drawn | mini: MGM minus Random block -->7.8 [4.4, 11.3]<!-- end -->

    <!-- study drawn | controls | datasets: mini / one -->
    ...
    <!-- end -->

- `DATASET: A minus B` is one number, of the first column or of `| column: ...`. A row in another
  column is `A [COLUMN]`.
- `controls` is a table of the controls without a model.
- `differences` is a table of a `family`. Bold differs from 0 by Holm's method.

Lists are separated by " / ". A number cannot stand in a table, whose cells `|` would divide.
"""

import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.errors import UserError
from mgm.report.findings import Findings, in_words, read_findings
from mgm.report.page import Figure, table
from mgm.report.tables import compared, laid_out, markdown, records, seen
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
        try:
            return block["start"] + _inside(findings_of(name), what) + block["end"]
        except (UserError, TypeError, ValueError) as error:
            raise UserError(f"block `study {name} | {what}`: {error}") from None

    return BLOCK.sub(write, text)


def _inside(findings: Findings, what: str) -> str:
    kind, *parts = what.split(" | ")
    options = dict(option.split(": ", 1) for option in parts)
    if kind in KINDS:
        return f"\n\n{KINDS[kind](findings, **options)}\n\n"
    dataset, _, formula = kind.partition(": ")
    text = in_words(findings.estimate(dataset, formula, **options))  # type: ignore[arg-type]
    if text == "not run":
        raise UserError("has no result")
    return text


def controls(findings: Findings, datasets: str = "") -> str:
    """Return a table of the controls in the first column."""
    cells = findings.cells
    cells = cells[cells.control & (cells.n > 0) & (cells.column == findings.first_column)]
    shown = laid_out(findings, _chosen(cells, "dataset", datasets))
    return markdown(shown.rename(columns={"Pretraining": "Control"}))


def differences(findings: Findings, family: str = "", datasets: str = "", column: str = "") -> str:
    """Return a table of a family's differences. Bold differs from 0 by Holm's method."""
    table = _chosen(findings.differences, "family", family or next(iter(findings.study.compare)))
    table = _chosen(table, "dataset", datasets)
    table = _chosen(table, "column", column or findings.first_column)
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


def predictions(findings: Findings) -> str:
    """Return a table of what the predictions came to, with the commits that wrote them."""
    first, shown = findings.first_column, findings.study.shown
    lines = []
    for line in records(findings.predictions):
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


KINDS: dict[str, Callable[..., str]] = {"controls": controls, "differences": differences}


def summary(findings: Mapping[str, Findings], figures: Mapping[str, Sequence[Figure]]) -> str:
    """Return the Markdown of what studies found: a title per study, its tables and figures."""
    return "\n\n".join(_study(found, figures[name]) for name, found in findings.items()) + "\n"


def _study(findings: Findings, figures: Sequence[Figure]) -> str:
    study = findings.study
    lines = [f"# {study.question}", *filter(None, map(findings.filled, study.answer))]
    lines += [f"*{study.caveat.strip()}*"] if study.caveat else []
    # The other figures show the numbers of the tables once more.
    lines += [
        f"![{figure.title}](figures/{figure.picture.name})"
        for figure in figures
        if figure.picture and figure.name.startswith(("over", "against", "figure"))
    ]
    for name, part in findings.study.parts.items():
        cells = seen(findings, name)
        shown = table(findings, name)["blocks"]
        data = dict.fromkeys(block["data"] for block in shown)
        lost = [
            f"**No row is above chance: {block['column']}.**" for block in shown if block["lost"]
        ]
        poor = [f"{block['column']}: {block['poor']}" for block in shown if block["poor"]]
        lines += [f"## {part.title or name}", *filter(None, [part.note, *data, *lost, *poor])]
        for controls, of_kind in cells.groupby("control", sort=False):
            first = {"Pretraining": "Control: no model"} if controls else {}
            lines.append(markdown(laid_out(findings, of_kind).rename(columns=first)))
    families = compared(findings)[["family", "column"]].drop_duplicates()
    for family, column in families.itertuples(index=False):
        title = ", ".join(filter(None, [f"Differences: {family}" if family else "Differences"]))
        lines += [f"## {title}, {column}", differences(findings, family, column=column)]
    if len(findings.predictions):
        lines += ["## Predictions", predictions(findings)]
    notes = [*study.sceptic.items(), ("When the runs stop", study.stop)]
    written = [f"**{title}.** {findings.filled(text)}" for title, text in notes if text]
    lines += ["## Notes", *written] if written else []
    lines.append(f"Written by `mgm report {findings.results.name}` from its runs.")
    return "\n\n".join(line.strip() for line in lines)


def main(paths: list[Path], results: Path = Path("results")) -> None:
    """Write the blocks of these files again."""
    read = cache(lambda name: read_findings(results / name)[name])
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if (new := refresh(text, read)) != text:
            atomic.write(path, new)
            print(f"{path}: its results were written again")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
