"""Commands that read results: tables, pages, single runs, MLflow, archives."""

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgm.cli.base import app
from mgm.console import say
from mgm.errors import UserError

if TYPE_CHECKING:
    from mgm.study.registry import Registry

Name = Annotated[
    str, typer.Argument(help="Name of the results: the folder in --results, such as smoke.")
]
Results = Annotated[Path, typer.Option(help="Folder that contains the folder NAME of results.")]
Reports = Annotated[Path, typer.Option(help="Folder that contains the folder NAME of the report.")]


def _registry(results: Path) -> "Registry":
    """Return the registry of a results folder."""
    # Imported here, as in all commands, so that `mgm --help` starts at once.
    from mgm.study.suite import registry_of

    # Raise the garbage-collection threshold: collection took 20 % of a report's time.
    gc.set_threshold(1_000_000)
    return registry_of(results)


@app.command()
def results(
    name: Name = "smoke",
    results: Results = Path("results"),
    csv: Annotated[Path | None, typer.Option(help="CSV file to write.", metavar="FILE")] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Parquet file to write.", metavar="FILE")
    ] = None,
) -> None:
    """Write one table of all runs: settings, status and metrics."""
    if not (csv or parquet):
        raise UserError("mgm results: has no file to write; add --csv FILE or --parquet FILE")

    from mgm.results.atomic import atomic_write
    from mgm.results.frame import frame
    from mgm.study.suite import registry_of

    try:
        registry = registry_of(results / name)
    except UserError:
        # Runs without a scale are in no table.
        registry = None
    table = frame(results / name, registry)
    for path, write in ((csv, table.to_csv), (parquet, table.to_parquet)):
        if path:
            with atomic_write(path) as temporary:
                write(temporary, index=False)
    say(f"wrote {len(table)} runs: {', '.join(str(path) for path in (csv, parquet) if path)}")


@app.command()
def verify(name: Name, results: Results = Path("results")) -> None:
    """Check a study's runs and predictions against git and their files.

    It fails if a prediction is younger than the first run that tests it, if a run's commit is
    missing or had changes, if a number differs from its predictions.csv, or if the folder holds a
    finished run that the study does not have.
    """
    from mgm.report.findings import read_findings
    from mgm.report.verify import verify as check

    findings = read_findings(results / name)
    if findings.registry.scale.study is None:
        raise UserError(f"{name}: is not a study; `mgm report {name}` shows it")
    lines, failed = check(findings, results / name)
    say("\n".join(lines))
    if failed:
        raise UserError(f"{name}: {failed} of {len(lines)} checks failed")


@app.command()
def pack(
    name: Name,
    results: Results = Path("results"),
    weights: Annotated[
        bool, typer.Option("--weights", help="Also write results/NAME.weights.tar.")
    ] = False,
) -> None:
    """Write finished runs to one archive, or add new runs to it.

    The archive results/NAME.tar.xz contains specs, results, predictions, logs and arrays, but no
    weights. Runs that no table or figure uses are left out. Every command that reads results/NAME
    unpacks it on first use. Weights have an archive of their own, which `mgm weights` reads.
    """
    from mgm.report.verify import unwanted
    from mgm.results.archive import pack as write
    from mgm.results.weights_archive import pack_weights

    folder = results / name
    unused = unwanted(_registry(folder), folder)
    archive = write(folder, without=unused)
    say(f"wrote {archive} ({archive.stat().st_size / 1e6:.1f} MB) and its digest")
    if unused:
        say(f"left out {len(unused)} runs of no table or figure; `mgm verify {name}` lists them")
    if weights:
        archive, count = pack_weights(folder)
        say(f"wrote {archive} ({archive.stat().st_size / 1e6:.1f} MB), weights of {count} runs")


@app.command()
def weights(
    name: Name,
    source: Annotated[
        str, typer.Argument(help="NAME.weights.tar, as a file or an address (https://...).")
    ],
    results: Results = Path("results"),
) -> None:
    """Put archived weights in place, for runs that lack theirs.

    `mgm pack --weights` writes such an archive. Each file must have the SHA-256 in its run's
    result. A new probe or fine-tuning then needs no training again.
    """
    from mgm.results.weights_archive import put_weights

    count, lacking = put_weights(results / name, source)
    rest = f"; {lacking} runs still lack theirs" if lacking else ""
    say(f"put weights into {count} runs of {results / name}{rest}")


@app.command()
def report(
    name: Name = "smoke",
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
    only: Annotated[
        str | None,
        typer.Option(
            help="One target, such as table4e or figure5; or tables, or figures. Default: all, "
            "with the page."
        ),
    ] = None,
) -> None:
    """Write tables, figures and the page from existing results.

    This never trains.
    """
    from mgm.report.build import build_report

    page = build_report(_registry(results / name), results / name, reports / name, only)
    say(f"wrote {page}")


@app.command()
def sync(
    name: Name = "smoke",
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

    if every:
        mlflow.follow(results / name, uri, every)
    say(mlflow.sync(results / name, uri))
