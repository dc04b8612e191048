"""Results in Markdown: the page index.md, and numbers between marks in README and docs.

    python -m mgm.report.markdown README.md docs/*.md    # `make docs` calls this

A block is one number. It begins with a comment that says what it shows, and ends with another:

    <!-- study drawn | mini: MGM minus Random block -->7.8 [4.4, 11.3], n = 20<!-- end -->

Its formula is `DATASET: A minus B`, in the first column or in that of `| column: ...`. A row in
another column is `A [COLUMN]`. A study of the paper's suite is named with its results, as
`mini/table4e`. A block cannot stand in a table, whose cells `|` would divide.
"""

import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.errors import UserError
from mgm.report.estimates import StudyResults, estimate, in_words, read_results
from mgm.report.page import Page, Shown
from mgm.report.views import table
from mgm.results import atomic

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
        except UserError as error:
            raise UserError(f"block `study {name} | {what}`: {error}") from None

    return BLOCK.sub(write, text)


def _inside(found: StudyResults, what: str) -> str:
    number, _, column = what.partition(" | column: ")
    dataset, _, formula = number.partition(": ")
    one = estimate(found, dataset, formula, column)
    if one is None:
        raise UserError("has no result")
    return f"{in_words(one)}, n = {one.n}" if one.has_interval else in_words(one)


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
