"""Pages that are made when the site is built, so that they cannot go stale: the commands, from the
program itself, and two files of the repository's root."""

import csv
from pathlib import Path

import click
import typer
from mkdocs.structure.files import File

from mgm.cli import app

ROOT = Path(__file__).parents[1]


def on_files(files, config):
    """Called by MkDocs with the files of the site."""
    made = {
        "commands.md": commands(),
        "deviations.md": (ROOT / "DEVIATIONS.md").read_text(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def commands() -> str:
    """Every verb's help, as typer gives it."""
    root = typer.main.get_command(app)
    parts = [
        "# Commands",
        root.help,
        "Bad input is answered by one line that names the file or field and the next step, "
        "and status 2.",
    ]
    return "\n\n".join([*parts, *_verbs(root, click.Context(root, info_name="mgm"))]) + "\n"


def _verbs(group, context):
    for name, command in group.commands.items():
        inner = click.Context(command, info_name=name, parent=context)
        words, level = inner.command_path, "#" * (inner.command_path.count(" ") + 1)
        yield f"{level} {words}\n\n{command.help}"
        if hasattr(command, "commands"):
            yield from _verbs(command, inner)
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
    """Called by MkDocs with a page's text: put tables where the page names their CSV file."""
    for line in set(markdown.splitlines()):
        if line.startswith("{{ ") and line.endswith(".csv }}"):
            markdown = markdown.replace(line, csv_table(ROOT / "docs" / line[3:-3]))
    return markdown


HEADS = {
    "k400": "K400",
    "ssv2": "SSv2",
    "k400_linear": "K400, linear probe",
    "ssv2_linear": "SSv2, linear probe",
    "relation": "Mask here",
}


def csv_table(path: Path) -> str:
    """Return a CSV file as a table in Markdown."""
    with path.open(encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file)
    heads = [HEADS.get(name, name[:1].upper() + name[1:]) for name in names]
    lines = [heads, ["---"] * len(heads), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
