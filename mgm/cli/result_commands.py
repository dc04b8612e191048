"""Commands that read results: tables, pages, single runs, MLflow, archives."""

import gc
from pathlib import Path
from typing import Annotated

import typer

from mgm.cli.base import app
from mgm.console import say
from mgm.errors import UserError

Name = Annotated[
    str, typer.Argument(help="Name of the results: the folder in --results, such as smoke.")
]
Results = Annotated[Path, typer.Option(help="Folder that contains the folder NAME of results.")]
Reports = Annotated[Path, typer.Option(help="Folder that contains the folder NAME of the report.")]


@app.command()
def verify(name: Name, results: Results = Path("results")) -> None:
    """Check runs and predictions against files and git.

    The files are those of results/NAME and of its committed archive.
    """
    from mgm.report.verify import verify as check
    from mgm.results.frame import examine_all
    from mgm.results.plan import read_plan
    from mgm.study.load import read_studies

    folder = results / name
    plan = read_plan(folder)
    studies = [*read_studies(folder, plan).values()]
    checks = check(plan, studies, examine_all(folder, plan.specs, weights=True), folder)
    say("\n".join(f"{'ok' if passes else 'FAILED'}: {line}" for passes, line in checks))
    if failed := sum(not passes for passes, _ in checks):
        raise UserError(f"{name}: {failed} of {len(checks)} checks failed")


@app.command()
def pack(
    name: Name,
    results: Results = Path("results"),
    without: Annotated[
        list[str],
        typer.Option(help="Leave out this run, even if it is archived. Repeat.", metavar="RUN"),
    ] = [],  # noqa: B006
) -> None:
    """Write finished runs to one archive, or add new runs to it.

    The archive results/NAME.tar.xz contains specs, results, predictions, logs and arrays, but no
    weights. Archived runs stay in it. Altered runs, and those that no table or figure uses, are
    left out. Every command that reads results/NAME unpacks it on first use.
    """
    from mgm.results.archive import archived_runs
    from mgm.results.archive import pack as write
    from mgm.results.frame import examine_all
    from mgm.results.plan import read_plan

    folder = results / name
    plan = read_plan(folder)
    states = {run: status.state for run, status in examine_all(folder, plan.specs).items()}
    before = archived_runs(folder)
    if unknown := {*without} - states.keys() - before:
        raise UserError(f"--without {min(unknown)}: is not a run of {folder} or its archive")
    archive = write(folder, {run for run in states if states[run] == "finished"}, without)
    now = archived_runs(folder)
    say(f"wrote {archive}: {len(now)} runs, {archive.stat().st_size / 1e6:.1f} MB")
    for count, what in (
        (sum(state == "altered" for state in states.values()), "altered runs"),
        (len(before - now), "archived runs, by --without"),
    ):
        if count:
            say(f"left out {count} {what}")


@app.command()
def report(
    name: Name = "smoke",
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
    only: Annotated[
        str,
        typer.Option(help="One target, such as table4e or figure5. Default: all, with the page."),
    ] = "",
    also: Annotated[
        list[str], typer.Option(help="Write figures in this format too: pdf, png or svg. Repeat.")
    ] = [],  # noqa: B006
) -> None:
    """Write tables, figures and the page from existing results.

    The page is HTML and Markdown. This never trains.
    """
    from mgm.report.build import build_report

    gc.set_threshold(1_000_000)
    page = build_report(results / name, reports / name, only, also)
    say(f"wrote {page}")


@app.command()
def sync(
    name: Annotated[
        str, typer.Argument(help="Name of the results. Default: all that are in --results.")
    ] = "",
    results: Results = Path("results"),
    uri: Annotated[
        str, typer.Option(help="MLflow's tracking URI; default: a database in --results.")
    ] = "",
    every: Annotated[
        float, typer.Option(help="Copy again every so many seconds; default: once.", min=0)
    ] = 0,
) -> None:
    """Copy results to MLflow.

    MLflow is only a copy of the files: if it is down, nothing is lost.
    """
    from mgm.report import mlflow
    from mgm.results.plan import FOLDER

    planned = sorted(path.parent for path in results.glob(f"*/{FOLDER}"))
    if not (folders := [results / name] if name else planned):
        raise UserError(f"{results}: has no runs; `mgm report mini` unpacks some, or run a study")
    if every:
        mlflow.follow(folders, uri, every)
    for folder in folders:
        say(f"{folder}: {mlflow.sync(folder, uri)}")
