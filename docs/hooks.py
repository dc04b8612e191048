"""Pages that are made when the site is built, so that they cannot go stale.

The commands come from the program itself, two pages from the repository's root, one from the
notebook.
"""

import csv
import json
import re
from pathlib import Path

import click
import typer
from mkdocs.structure.files import File

from mgm.cli import app
from mgm.spec import PUBLISHED

ROOT = Path(__file__).parents[1]
# Links that work in the repository, and the pages of the site that stand for them.
MADE = {
    "../../DEVIATIONS.md": "../deviations.md",
    "../DEVIATIONS.md": "deviations.md",
    "../CHANGELOG.md": "changelog.md",
    "../mgm/cli": "commands.md",
    "first-look.ipynb": "first-look.md",
}


def on_files(files, config):
    """Add the made pages; MkDocs calls this with the files of the site."""
    made = {
        "commands.md": commands(),
        "deviations.md": (ROOT / "DEVIATIONS.md").read_text(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
        "first-look.md": notebook(ROOT / "docs" / "first-look.ipynb"),
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def notebook(path: Path) -> str:
    """Return a notebook as a page: its text, its code, and the outputs that it is kept with."""
    title, *cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = ["".join(title["source"]), f"[Download the notebook]({path.name})."]
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            else:
                png = output["data"]["image/png"].replace("\n", "")
                parts.append(f"![What this cell draws](data:image/png;base64,{png})")
    return "\n\n".join(parts) + "\n"


def commands() -> str:
    """Return every command's help, as typer writes it."""
    root = typer.main.get_command(app)
    parts = [
        "# Commands",
        root.help,
        "Bad input is answered by one line that names the file or field and the next step, "
        "and status 2.",
    ]
    return "\n\n".join([*parts, *_commands(root, click.Context(root, info_name="mgm"))]) + "\n"


def _commands(group, context):
    for name, command in group.commands.items():
        inner = click.Context(command, info_name=name, parent=context)
        words, level = inner.command_path, "#" * (inner.command_path.count(" ") + 1)
        yield f"{level} {words}\n\n{command.help}"
        if hasattr(command, "commands"):
            yield from _commands(command, inner)
        else:
            usage = " ".join([words, *command.collect_usage_pieces(inner)])
            rows = [
                record
                for parameter in command.get_params(inner)
                if (record := parameter.get_help_record(inner))
            ]
            yield f"```text\n{usage}\n```\n\n| option | |\n|---|---|\n" + "\n".join(
                f"| `{what}` | {_cell(told)} |" for what, told in rows
            )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("[", "\\[").replace("<", "&lt;")


def on_page_markdown(markdown, page, config, files):
    """Put tables where a page names them; MkDocs calls this with the page's text.

    A line `[NAME.csv](NAME.csv)` is that file, `{{ datasets }}` the published datasets. Links to
    files outside the site lead to the pages that are made of them.
    """
    for file, made in MADE.items() if page.file.src_uri not in MADE.values() else ():
        markdown = markdown.replace(f"]({file}", f"]({made}")
    markdown = markdown.replace("{{ datasets }}", datasets())
    return re.sub(
        r"^\[([\w-]+\.csv)\]\(\1\)$",
        lambda found: csv_table(ROOT / "docs" / found[1]),
        markdown,
        flags=re.MULTILINE,
    )


HEADS = {
    **{name: one.title for name, one in PUBLISHED.items()},
    **{f"{name}_linear": f"{one.title}, linear probe" for name, one in PUBLISHED.items()},
    "relation": "Mask here",
}


def datasets() -> str:
    """Return the table of published datasets in Markdown."""
    lines = ["| Set | What `--source` holds | Classes | Train + test | Split and counts |"]
    lines += ["|---|---|---|---|---|"]
    for one in PUBLISHED.values():
        counts = f"{one.classes} | {one.train:,} + {one.test:,} | {one.counted}"
        lines.append(f"| {one.title} | {one.source} | {counts} |".replace("*", "\\*"))
    return "\n".join(lines)


def csv_table(path: Path) -> str:
    """Return a CSV file as a table in Markdown."""
    with path.open(encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file)
    heads = [HEADS.get(name, name[:1].upper() + name[1:]) for name in names]
    lines = [heads, ["---"] * len(heads), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
