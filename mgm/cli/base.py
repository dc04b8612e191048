"""Parts that all commands share: the program, groups of options, and `--data`."""

import os
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperGroup
from typer.models import OptionInfo

from mgm.console import say
from mgm.errors import UserError, valid
from mgm.spec import FrozenModel
from mgm.version import __version__

# The commands of each group of `mgm --help`.
GROUPS = {
    "Look": ("show", "motion", "controls", "embed", "predict"),
    "Prepare": ("prepare", "track", "new-study", "plan"),
    "Train": ("run", "export"),
    "Report": ("report", "sync", "pack"),
}


class _Grouped(TyperGroup):
    """The program. Its help lists its commands in groups."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Shells leave ~ as it is in --out=~/here.
        words = [word.partition("=") if word.startswith("--") else ("", "", word) for word in args]
        return super().parse_args(ctx, [f"{a}{b}{os.path.expanduser(c)}" for a, b, c in words])

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        room = formatter.width - 6 - max(map(len, self.commands))
        for title, names in GROUPS.items():
            rows = [(name, self.commands[name].get_short_help_str(room)) for name in names]
            with formatter.section(title):
                formatter.write_dl(rows, col_max=max(map(len, self.commands)))


app = typer.Typer(
    cls=_Grouped,
    help="Motion-guided masking for video masked autoencoders, and the experiments of its paper."
    "\n\nStart with `mgm show VIDEO`, then `mgm prepare`.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Out = Annotated[
    Path, typer.Option(help="Folder of results. Each run has a folder in it, named by its run id.")
]
Data = Annotated[
    list[str],
    typer.Option(
        help="A dataset: its name and the folder that `mgm prepare` wrote. Repeat for more. "
        "Several folders of one name are told apart by their digests.",
        metavar="NAME=FOLDER",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        say(f"mgm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None: ...


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Turn each `FrozenModel` parameter of a command into one option per field.

    Typer reads a command's signature, so the wrapper has one with a parameter per field.
    """
    groups: dict[str, type[FrozenModel]] = {}
    shown: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        kind = parameter.annotation
        if isinstance(kind, type) and issubclass(kind, FrozenModel):
            groups[name] = kind
        else:
            shown.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
    for group in groups.values():
        shown += [_option(*field) for field in group.model_fields.items()]

    @wraps(command)
    def called(**values: Any) -> None:
        for name, group in groups.items():
            with valid("--"):
                values[name] = group(**{field: values.pop(field) for field in group.model_fields})
        command(**values)

    called.__signature__ = signature(command).replace(parameters=shown)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return called


def _option(name: str, field: FieldInfo) -> Parameter:
    """Return a field as a parameter, with its own `typer.Option` or one made from the field."""
    option = next((extra for extra in field.metadata if isinstance(extra, OptionInfo)), None)
    if option is None:
        # Name the flag, since Typer would add --no-NAME.
        flag = (f"--{name.replace('_', '-')}",) if field.annotation is bool else ()
        option = typer.Option(*flag, help=field.description)
    annotation: Any = Annotated[field.annotation, option]  # type: ignore[valid-type]
    default = Parameter.empty if field.is_required() else field.default
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def places(data: list[str]) -> dict[str, list[Path]]:
    """Return the folders of each dataset, from words like NAME=FOLDER."""
    folders: dict[str, list[Path]] = {}
    for word in data:
        name, equals, folder = word.partition("=")
        if not equals:
            raise UserError(f"--data {word}: write it as NAME=FOLDER")
        folders.setdefault(name, []).append(Path(folder).expanduser())
    return folders


def processes() -> int:
    """Return the number of processes that torchrun started; 1 without it."""
    text = os.environ.get("WORLD_SIZE") or "1"
    if not text.isdecimal():
        raise UserError(f"WORLD_SIZE is {text}; unset it, or start processes with torchrun")
    return int(text)
