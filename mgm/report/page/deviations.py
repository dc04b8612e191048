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
    """Give each table a caption, its headings their scope, and a box that scrolls.

    A caption is the heading above the table; a row's heading is its first cell.
    """
    found = []
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        html = (
            MARKDOWN.render(body)
            .replace("<th>", '<th scope="col">')
            .replace("</table>\n", "</table>\n</div>")
        )
        first, *parts = html.split("<h3>")
        captioned = [_captioned(first, title)]
        for part in parts:
            heading, _, rest = part.partition("</h3>")
            captioned.append(f"<h4>{heading}</h4>{_captioned(rest, heading)}")
        html = "".join(captioned)
        found.append(
            (title, Markup(re.sub("<tr>\n<td>(.*)</td>", r'<tr>\n<th scope="row">\1</th>', html)))
        )
    return found


def _captioned(html: str, caption: str) -> str:
    opening = f'<div class="wide"><table class="prose">\n<caption>{escape(caption)}</caption>'
    return html.replace("<table>\n", opening)
