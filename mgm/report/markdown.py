"""Results in Markdown: the page index.md, and marked blocks in README and docs.

    python -m mgm.report.markdown README.md docs/*.md    # `make docs` calls this

A block begins with a comment that says what it shows, and ends with another:

    <!-- study drawn | mini: MGM minus Random block -->7.8 [4.4, 11.3], n = 20<!-- end -->

    <!-- study drawn | differences | family: Steps -->
    ...
    <!-- end -->

- `DATASET: A minus B` is one number, of the first column or of `| column: ...`. A row in another
  column is `A [COLUMN]`.
- `table` is a table of the study by its `name`, without the controls.
- `differences` is a table of a `family`, in the first column. Bold differs from 0 by Holm's method.

A study of the paper's suite is named with its results, as `mini/table4e`. A number cannot stand in
a table, whose cells `|` would divide.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from mgm.errors import UserError, nearest
from mgm.report.estimates import (
    StudyResults,
    estimate,
    in_words,
    read_results,
    selected,
)
from mgm.report.page import Page, Shown, table_of_differences
from mgm.report.views import table
from mgm.results import atomic

R = TypeVar("R")
# A block holds no other comment, so that one without an end does not take the text after it.
BLOCK = re.compile(
    r"(?P<start><!--\s+study\s+(?P<name>\S+)\s+\|\s+(?P<what>(?:(?!-->).)*?)\s+-->)"
    r"(?P<result>(?:(?!<!--).)*)(?P<end><!--\s+end\s+-->)",
    re.DOTALL,
)
# Where HTML, a link's address or a definition of one begins. A backslash could be escaped itself.
ACTIVE = re.compile(r"<(?=[A-Za-z/!?])|(?<=\])[(:]")


def refresh(text: str, results_of: Callable[[str], StudyResults]) -> str:
    """Return a text with its blocks written again.

    Args:
        results_of: returns what a study found, by its name.

    Raises:
        UserError: a block names what is not there, or has no end.
    """
    for start in re.finditer(r"<!--\s+study\s[^>]*", text):
        if not BLOCK.match(text, start.start()):
            raise UserError(f"{' '.join(start[0].split())}>: this block has no `<!-- end -->`")

    def write(block: re.Match) -> str:
        name, what = block["name"], " ".join(block["what"].split())
        try:
            return block["start"] + _inside(results_of(name), what) + block["end"]
        except (UserError, TypeError, ValueError) as error:
            raise UserError(f"block `study {name} | {what}`: {error}") from None

    return BLOCK.sub(write, text)


def _inside(found: StudyResults, what: str) -> str:
    kind, *parts = what.split(" | ")
    options = dict(option.split(": ", 1) for option in parts)
    if kind in KINDS:
        return f"\n\n{KINDS[kind](found, **options)}\n\n"
    dataset, _, formula = kind.partition(": ")
    one = estimate(found, dataset, formula, **options)  # type: ignore[arg-type]
    if one is None:
        raise UserError("has no result")
    return f"{in_words(one)}, n = {one.n}" if one.has_interval else in_words(one)


def named_table(found: StudyResults, name: str) -> str:
    """Return a table of the study, without the controls."""
    view = _named(name, found.study.shown_views)
    view = view.model_copy(update={"options": {**view.options, "controls": False}})
    return markdown(table.data(selected(found, view), view))


def differences(found: StudyResults, family: str = "") -> str:
    """Return a table of a family's differences. Bold differs from 0 by Holm's method."""
    _named(family, found.study.compare)
    return markdown(table_of_differences(found, family, found.study.first_column))


def _named(name: str, known: Mapping[str, R]) -> R:
    if name not in known:
        raise UserError(f"{name!r} is unknown; {nearest(name, known)}")
    return known[name]


KINDS: dict[str, Callable[..., str]] = {"table": named_table, "differences": differences}


def page(page: Page, name: str) -> str:
    """Return the Markdown of a page, which is short: its answer, first figure and two tables."""
    texts = [f"# {plain(page.title)}", plain(page.lead), *map(plain, page.findings)]
    texts += [f"*{plain(page.caveat)}*" if page.caveat else ""]
    texts += [f"**{plain(text)}**" for text in page.warnings]
    texts.append(plain(page.tally))
    shown = page.sections[0].shown
    pictures = [one for one in shown if one.picture]
    tables = [one for one in shown if one.table is not None]
    for one in (*pictures[:1], *tables[:2]):
        texts += _texts(one)
    texts.append(f"Written by `mgm report {name}`, with other columns and differences as csv.")
    return "\n\n".join(filter(None, texts)) + "\n"


def _texts(shown: Shown) -> Iterable[str]:
    if shown.table is not None:
        yield f"## {plain(shown.title)}"
        yield from map(plain, shown.notes)
        yield from (f"**{plain(text)}**" for text in shown.warnings)
        lines = [*shown.table.index, table.CONTROLS]
        yield markdown(shown.table.iloc[: lines.index(table.CONTROLS)])
    elif shown.picture:
        title, note = plain(shown.title), plain(" ".join(shown.notes).strip())
        yield f"![{title}](figures/{shown.picture.name})"
        yield f"*{title}. {note}*".replace(". *", ".*")


def markdown(shown: pd.DataFrame) -> str:
    """Return a table. A group of columns stands once, above its first column."""
    text = shown.map(_in_table)
    text.index = text.index.map(_in_table)
    heads = [[_in_table(head) for head in text.columns.get_level_values(n)] for n in (0, -1)]
    head = _in_table(text.columns.names[-1] or "")
    if text.columns.nlevels == 1:
        headers = [head, *heads[0]]
    else:
        groups = heads[0]
        starts = [
            group if n == 0 or groups[n - 1] != group else "" for n, group in enumerate(groups)
        ]
        text = pd.concat([pd.DataFrame([heads[1]], [head], text.columns), text])
        headers = ["", *starts]
    return str(text.to_markdown(headers=headers, disable_numparse=True))


def plain(text: str) -> str:
    """Return a study's text as Markdown that holds no HTML and no link."""
    return ACTIVE.sub(lambda mark: f"&#{ord(mark[0])};", text)


def _in_table(text: Any) -> str:
    return plain(str(text)).replace("|", "\\|")


def main(paths: list[Path], results: Path = Path("results")) -> None:
    """Write the blocks of these files again."""
    found = cache(lambda name: read_results(results / name))

    def read(study: str) -> StudyResults:
        name, _, of_suite = study.partition("/")
        return found(name)[of_suite or name]

    for path in paths:
        text = path.read_text(encoding="utf-8")
        if (new := refresh(text, read)) != text:
            atomic.write(path, new)
            print(f"{path}: its results were written again")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
