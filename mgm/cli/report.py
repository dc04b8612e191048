"""Commands that read results: report, sync, pack."""

import re
from pathlib import Path
from typing import Annotated

import typer

from mgm.cli.base import app
from mgm.console import say
from mgm.errors import UserError


def _named(name: str) -> str:
    """Check that a name of results is no path, which would lead out of --results."""
    if not re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]*)?", name):
        raise UserError(f"{name}: is no name of results; write the folder's name, such as smoke")
    return name


Name = Annotated[
    str,
    typer.Argument(
        callback=_named, help="Name of the results: the folder in --results, such as smoke."
    ),
]
Results = Annotated[Path, typer.Option(help="Folder that contains the folder NAME of results.")]
Reports = Annotated[Path, typer.Option(help="Folder that contains the folder NAME of the report.")]


@app.command()
def report(
    name: Name = "smoke",
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
    only: Annotated[
        str, typer.Option(help="One table or figure, such as table4e. Default: all, with the page.")
    ] = "",
    whole: Annotated[
        bool,
        typer.Option("--whole", help="End with status 1 if a run that it shows is not finished."),
    ] = False,
) -> None:
    """Write tables, figures and the page from existing results.

    Results are the runs in results/NAME, or results/NAME.csv.xz. This never trains.
    """
    import pandas as pd

    from mgm.report.page import Report, write_index
    from mgm.results.frame import load

    # Python's texts are faster to read one by one than Arrow's.
    with pd.option_context("mode.string_storage", "python"):
        made = Report(load(name, results), reports / name)
        say(f"wrote {made.write_only(only) if only else made.write()}")
        write_index(results, reports)
    if whole and (lacks := made.missing(only)):
        say("\n".join(lacks))
        raise typer.Exit(1)


@app.command()
def sync(
    name: Annotated[
        str,
        typer.Argument(
            callback=_named, help="Name of the results. Default: all that are in --results."
        ),
    ] = "",
    results: Results = Path("results"),
    uri: Annotated[
        str, typer.Option(help="MLflow's tracking URI; default: a database in --results.")
    ] = "",
    every: Annotated[
        float, typer.Option(help="Copy again every so many seconds; default: once.", min=0)
    ] = 0,
    server: Annotated[
        str, typer.Option(help="With --every: address of MLflow's pages, to print where runs are.")
    ] = "",
) -> None:
    """Copy results to MLflow.

    MLflow is only a copy of the files: if it is down, nothing is lost.
    """
    from mgm.report import mlflow

    if every:
        mlflow.follow(results, name, uri, every, server)
    if not (found := mlflow.folders(results, name)):
        packed = results / f"{name}.csv.xz"
        if name and packed.is_file():
            raise UserError(
                f"{packed}: has numbers without the runs' curves, so it is not copied to MLflow; "
                f"mgm report {name} shows it"
            )
        raise UserError(f"{results / name}: has no runs; run a study first")
    for folder in found:
        say(f"{folder}: {mlflow.sync(folder, uri)}")


@app.command()
def pack(
    name: Name,
    results: Results = Path("results"),
    replace: Annotated[
        bool, typer.Option("--replace", help="Also if a packed number is another one now.")
    ] = False,
) -> None:
    """Write results/NAME.csv.xz: every number, with its run, commit and start time.

    `mgm report NAME` shows the study from it in a clone that has no runs.
    """
    from mgm.results.frame import pack as write

    path = write(name, results, replace)
    say(f"wrote {path}, {path.stat().st_size / 1000:,.0f} kB")
