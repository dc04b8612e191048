"""DEVIATIONS.md inside the page: the little of Markdown that it is written in, as HTML."""

import re
from pathlib import Path

from markupsafe import Markup, escape

FILE = Path(__file__).parents[3] / "DEVIATIONS.md"  # of a checkout; an installed package has none


def deviations() -> list[tuple[str, Markup]]:
    """(heading, content) of each section; none without the file."""
    return sections(FILE.read_text()) if FILE.exists() else []


def sections(text: str) -> list[tuple[str, Markup]]:
    """Headings of the second order, tables, lists and paragraphs, with `code` in them."""
    found: list[tuple[str, Markup]] = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        found.append((title, Markup("\n").join(_block(block, title) for block in re.split(r"\n\s*\n", body.strip()))))
    return found


def _block(block: str, title: str) -> Markup:
    if block.startswith("|"):
        head, _, *rows = [line.strip().strip("|").split(" | ") for line in block.splitlines()]
        top = Markup("").join(Markup('<th scope="col">{}</th>').format(_inline(cell)) for cell in head)
        body = Markup("\n").join(
            Markup('<tr><th scope="row">{}</th>{}</tr>').format(
                _inline(first), Markup("").join(Markup("<td>{}</td>").format(_inline(cell)) for cell in _filled(others, len(head) - 1))
            )
            for first, *others in rows
        )
        table = '<div class="wide"><table class="prose"><caption>{}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
        return Markup(table).format(title, top, body)
    if block.startswith("- "):
        items = re.split(r"\n- ", block[2:])
        return Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(_inline(item)) for item in items))
    return Markup("<p>{}</p>").format(_inline(block))


def _filled(cells: list[str], width: int) -> list[str]:
    return [*cells, *[""] * (width - len(cells))]


def _inline(text: str) -> Markup:
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(" ".join(text.split())))))
