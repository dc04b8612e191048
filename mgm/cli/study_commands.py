"""Commands for all experiments together: their files and their cost."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mgm.cli.base import app
from mgm.console import say


@app.command("new-study")
def new_study(
    root: Annotated[
        Path, typer.Option(help="Folder that `mgm prepare folder` wrote.", metavar="DIR")
    ] = Path("data/mine"),
    out: Annotated[
        Path, typer.Option(help="The file to write; its name is the study's.", metavar="FILE")
    ] = Path("studies/mine.yaml"),
) -> None:
    """Write a study (YAML) of three masks on your own videos, explained in comments."""
    # Commands import what they need, so that `mgm --help` starts fast.
    from mgm.spec.new_spec import write_new
    from mgm.study.runs import new_study as text_of

    say(write_new(text_of(out, root), out))


@app.command()
def plan(
    scale: Annotated[
        str, typer.Option(help="A scale (paper, mini, smoke), or a YAML file.")
    ] = "paper",
    study: Annotated[
        str, typer.Option(help="A study, such as day, in place of the scale; or a YAML file.")
    ] = "",
    size: Annotated[str, typer.Option(help="One of the scale's sizes; default: the first.")] = "",
    gpu: Annotated[
        Literal["v100", "a100", "h100", "h200", "rtx4090", "a5000"], typer.Option(help="The GPU.")
    ] = "h100",
    utilisation: Annotated[
        float,
        typer.Option(
            min=0.001, max=1, help="Share of the GPU's peak FLOP/s that training reaches."
        ),
    ] = 0.4,
) -> None:
    """Print the GPU hours and disk space of each table, by stage.

    These are computed; nothing runs. A table counts all runs that it needs. Videos are not counted.
    """
    from mgm.dag.setting import Setting
    from mgm.study.plan import PEAK
    from mgm.study.plan import plan as table_of

    chosen = {"study": study} if study else {"scale": scale}
    table = table_of(Setting(chosen | {"gpu": size}).registry, PEAK[gpu] * utilisation)
    say(table.to_string(float_format="{:,.1f}".format))
