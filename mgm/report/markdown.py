"""Results in Markdown: the page index.md, and marked blocks in README and docs.

    python -m mgm.report.markdown README.md docs/*.md    # `make docs` calls this

A block begins with a comment that says what it shows, and ends with another:

    <!-- study drawn | mini: MGM minus Random block -->7.8 [4.4, 11.3], n = 20<!-- end -->

    <!-- study drawn | controls | datasets: mini / one -->
    ...
    <!-- end -->

- `DATASET: A minus B` is one number, of the first column or of `| column: ...`. A row in another
  column is `A [COLUMN]`.
- `table` is a table of the study by its name, without the controls.
- `controls` is a table of the controls without a model.
- `differences` is a table of a `family`. Bold differs from 0 by Holm's method.

A study of the paper's suite is named with its results, as `mini/table4e`. Lists are separated by
" / ". A number cannot stand in a table, whose cells `|` would divide.
"""

import re
import sys
from collections.abc import Callable, Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.errors import UserError
from mgm.report.blocks import (
    Block,
    Figure,
    Heading,
    Line,
    Lines,
    Row,
    Table,
    Text,
    difference_table,
    seen,
    table_of,
)
from mgm.report.findings import Findings, in_words, read_findings
from mgm.results import atomic

# A block holds no other comment, so that one without an end does not take the text after it.
BLOCK = re.compile(
    r"(?P<start><!--\s+study\s+(?P<name>\S+)\s+\|\s+(?P<what>(?:(?!-->).)*?)\s+-->)"
    r"(?P<result>(?:(?!<!--).)*)(?P<end><!--\s+end\s+-->)",
    re.DOTALL,
)
# Where HTML, a link's address or a definition of one begins. A backslash could be escaped itself.
ACTIVE = re.compile(r"<(?=[A-Za-z/!?])|(?<=\])[(:]")


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
    estimate = findings.estimate(dataset, formula, **options)  # type: ignore[arg-type]
    text = in_words(estimate)
    if estimate is None or text == "not run":
        raise UserError("has no result")
    return f"{text}, n = {estimate.n}" if estimate.has_interval else text


def named_table(findings: Findings, name: str) -> str:
    """Return a table of the study, without the controls."""
    cells = seen(findings, name)
    return markdown(table_of(findings, cells[~cells.control]))


def controls(findings: Findings, datasets: str = "") -> str:
    """Return a table of the controls in the first column."""
    cells = findings.cells
    cells = cells[cells.control & (cells.n > 0) & (cells.column == findings.first_column)]
    table = table_of(findings, _chosen(cells, "dataset", datasets))
    lines = [line._replace(part="") for line in table.lines]
    return markdown(Table("Control", table.columns, lines, table.groups))


def differences(findings: Findings, family: str = "", datasets: str = "", column: str = "") -> str:
    """Return a table of a family's differences. Bold differs from 0 by Holm's method."""
    table = findings.differences
    family = family or next(iter(findings.study.compare))
    column = column or findings.first_column
    for name, wanted in (("family", family), ("column", column), ("dataset", datasets)):
        table = _chosen(table, name, wanted)
    return markdown(difference_table(findings, family, column, list(table.dataset.unique())))


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


KINDS: dict[str, Callable[..., str]] = {
    "table": named_table,
    "controls": controls,
    "differences": differences,
}


def summary(blocks: Iterable[Block], name: str) -> str:
    """Return the Markdown of a page. Folded blocks are left out."""
    ends = [
        f"Written by `mgm report {name}`, which also writes all other columns, differences and "
        "predictions as csv."
    ]
    return "\n\n".join([*_texts(blocks), *ends]) + "\n"


def _texts(blocks: Iterable[Block]) -> Iterable[str]:
    for block in blocks:
        match block:
            case Heading():
                yield f"{'#' * min(block.level, 2)} {plain(block.text.strip())}"
            case Text() if block.text:
                star = {"caveat": "*", "warning": "**"}.get(block.kind, "")
                yield f"{star}{plain(block.text.strip())}{star}"
            case Lines():
                yield "\n".join(f"- {plain(item)}" for item in block.items)
            case Figure() if block.picture:
                title, caption = plain(block.title), plain(block.caption.strip())
                yield f"![{title}](figures/{block.picture.name})"
                yield f"*{title}. {caption}*".replace(". *", ".*")
            case Table():
                yield markdown(block)
            case Row():
                for part in block.parts:
                    yield from _texts(part)


def markdown(table: Table) -> str:
    """Return a table. A group of columns stands once, above its first column."""
    rows = []
    heads, groups = [table.head, *table.columns], table.groups
    if groups:
        rows.append(heads)
        heads = ["", *("" if n and groups[n - 1] == g else g for n, g in enumerate(groups))]
    part = ""
    for line in table.lines:
        if line.part != part:
            part = line.part
            rows.append([f"**{part}**", *([""] * len(table.columns))])
        rows.append([_named(line), *(cell.words for cell in line.cells)])
    texts = pd.DataFrame(rows, columns=heads).map(_in_table)
    names = [_in_table(head) for head in heads]
    return str(texts.to_markdown(index=False, headers=names, disable_numparse=True))


def plain(text: str) -> str:
    """Return a study's text as Markdown that holds no HTML and no link."""
    return ACTIVE.sub(lambda mark: f"&#{ord(mark[0])};", text)


def _in_table(text: Any) -> str:
    return plain(str(text)).replace("|", "\\|")


def _named(line: Line) -> str:
    return f"{line.name} ({line.note})" if line.note else line.name


def main(paths: list[Path], results: Path = Path("results")) -> None:
    """Write the blocks of these files again."""
    found = cache(lambda name: read_findings(results / name))

    def read(study: str) -> Findings:
        name, _, of_suite = study.partition("/")
        return found(name)[of_suite or name]

    for path in paths:
        text = path.read_text(encoding="utf-8")
        if (new := refresh(text, read)) != text:
            atomic.write(path, new)
            print(f"{path}: its results were written again")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
