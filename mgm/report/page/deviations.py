"""DEVIATIONS.md inside the page, as HTML."""

from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

FILE = Path(__file__).parents[3] / "DEVIATIONS.md"  # of a checkout; an installed package has none
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def deviations() -> list[tuple[str, Markup]]:
    """(heading, content) of each section; none without the file."""
    return sections(FILE.read_text()) if FILE.exists() else []


def sections(text: str) -> list[tuple[str, Markup]]:
    tokens = MARKDOWN.parse(text)
    starts = [position for position, token in enumerate(tokens) if (token.type, token.tag) == ("heading_open", "h2")]
    found = []
    for start, end in pairwise([*starts, len(tokens)]):
        title = tokens[start + 1].content
        body = _accessible(tokens[start + 3 : end], title)  # after the heading's own three tokens
        found.append((title, Markup(MARKDOWN.renderer.render(body, MARKDOWN.options, {}))))
    return found


def _accessible(tokens: list[Token], caption: str) -> list[Token]:
    """Give each table its caption, its headings their scope (a row's is its first cell), and a box that scrolls."""
    body, is_first = [], False
    for token in tokens:
        match token.type:
            case "table_open":
                token.attrSet("class", "prose")
                body += [_html(Markup('<div class="wide">')), token, _html(Markup("<caption>{}</caption>").format(caption))]
                continue
            case "table_close":
                body += [token, _html(Markup("</div>"))]
                continue
            case "th_open":
                token.attrSet("scope", "col")
            case "tr_open":
                is_first = True
            case "td_open" if is_first:
                token.tag = "th"
                token.attrSet("scope", "row")
            case "td_close" if is_first:
                token.tag, is_first = "th", False
        body.append(token)
    return body


def _html(text: Markup) -> Token:
    return Token("html_block", "", 0, content=text)
