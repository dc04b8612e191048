"""DEVIATIONS.md inside the page, as HTML."""

import re
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

FILE = Path(__file__).parents[3] / "DEVIATIONS.md"  # of a checkout; an installed package has none
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def deviations() -> list[tuple[str, Markup]]:
    """(heading, content) of each section; none without the file."""
    return sections(FILE.read_text()) if FILE.exists() else []


def sections(text: str) -> list[tuple[str, Markup]]:
    """Give each table its caption, its headings their scope (a row's is its first cell), and a box
    that scrolls.
    """
    found = []
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        html = (
            MARKDOWN.render(body)
            .replace("<th>", '<th scope="col">')
            .replace("</table>\n", "</table>\n</div>")
        )
        html = html.replace(
            "<table>\n",
            f'<div class="wide"><table class="prose">\n<caption>{escape(title)}</caption>',
        )
        found.append(
            (title, Markup(re.sub("<tr>\n<td>(.*)</td>", r'<tr>\n<th scope="row">\1</th>', html)))
        )
    return found
