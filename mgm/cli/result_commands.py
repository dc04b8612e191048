"""Commands that read results: tables, pages, one run, MLflow, archives."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgm.cli.base import app, grouped
from mgm.console import say
from mgm.errors import UserError
from mgm.spec import FrozenModel

if TYPE_CHECKING:
    from mgm.paper.registry import Registry

Name = Annotated[str, typer.Argument(help="Name of the results.")]
Results = Annotated[Path, typer.Option(help="Folder of all results.")]
Reports = Annotated[Path, typer.Option(help="Folder of all reports.")]


def _registry(results: Path) -> "Registry":
    """Return the registry of a results folder."""
    import gc

    from mgm.paper.suite import registry_of

    # Raise the garbage-collection threshold: collection took 20 % of a report's time.
    gc.set_threshold(1_000_000)
    return registry_of(results)


@app.command()
def trace(
    cell: Annotated[
        str,
        typer.Argument(
            help="TABLE/ROW or TABLE/ROW/COLUMN, such as table4e/mgm; parts of names work too."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the results.")] = "smoke",
    results: Results = Path("results"),
) -> None:
    """Print what a table's cell rests on: runs, specs, commit, data, weights, logs."""
    from mgm.report.terminal import trace as describe

    say(describe(_registry(results / name), results / name, cell))


@app.command()
def diff(
    run: Annotated[str, typer.Argument(help="A run id, or a run's folder.")],
    other: Annotated[str, typer.Argument(help="Another.")],
    results: Results = Path("results"),
) -> None:
    """Print in which fields two runs differ, and their metrics."""
    from mgm.report.terminal import diff as compare

    say(compare(results, run, other))


@app.command()
def results(
    name: Name = "smoke",
    results: Results = Path("results"),
    csv: Annotated[Path | None, typer.Option(help="CSV file to write.", metavar="FILE")] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Parquet file to write.", metavar="FILE")
    ] = None,
) -> None:
    """Write one table of all runs: settings, status and metrics per run."""
    if not (csv or parquet):
        raise UserError("mgm results: has nothing to write; add --csv FILE or --parquet FILE")

    from mgm.paper.suite import registry_of
    from mgm.results import frame

    try:
        registry = registry_of(results / name)
    except UserError:
        # Runs without a scale stand in no table.
        registry = None
    table = frame(results / name, registry)
    for path, write in ((csv, table.to_csv), (parquet, table.to_parquet)):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, index=False)
    say(f"wrote {len(table)} runs: {', '.join(str(path) for path in (csv, parquet) if path)}")


@app.command()
def pack(name: Name, results: Results = Path("results")) -> None:
    """Write finished runs to one file, results/NAME.tar.xz, or add new runs to it.

    It holds specs, results, predictions, logs and arrays, but no weights. Every command that reads
    results/NAME unpacks it on first use. Without a folder results/NAME, it takes all folders
    results/NAME-*.
    """
    from mgm.results.archive import pack as write

    archive = write(results / name)
    say(f"wrote {archive} ({archive.stat().st_size / 1e6:.1f} MB) and its digest")


@app.command()
def clean(
    name: Name,
    results: Results = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", help="Delete them.")] = False,
) -> None:
    """List the runs that no table or figure uses; delete them with --yes."""
    from mgm.report.terminal import clean as tidy

    if Path(name).name != name or name == "..":
        raise UserError(
            f"{name}: is not a name of results; pass only the folder's name in {results}/"
        )
    say(tidy(_registry(results / name), results / name, yes))


@app.command()
def report(
    name: Name = "smoke",
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
    only: Annotated[
        str | None, typer.Option(help="One target, such as table4e or figure5.")
    ] = None,
) -> None:
    """Write tables, figures and the page from existing results. Never trains."""
    from mgm.report.build import build_report

    page = build_report(_registry(results / name), results / name, reports / name, only)
    say(f"wrote {page}")


@app.command()
def crate(
    name: Name = "smoke",
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
    out: Annotated[
        Path | None,
        typer.Option(help="The zip to write; default: REPORTS/NAME.crate.zip.", metavar="FILE"),
    ] = None,
    weights: Annotated[
        bool,
        typer.Option("--weights", help="Include weights; default: their digest."),
    ] = False,
) -> None:
    """Write results, report and provenance as a Workflow Run RO-Crate."""
    from mgm.report.crate import write_crate

    out = out or reports / f"{name}.crate.zip"
    count = write_crate(_registry(results / name), results / name, reports / name, out, weights)
    say(f"wrote {out}: {count} runs with their report")


class MirrorOptions(FrozenModel):
    """What `mgm sync` does, and where."""

    uri: Annotated[
        str | None, typer.Option(help="MLflow's tracking address; default: a database in RESULTS.")
    ] = None
    follow: Annotated[
        bool, typer.Option("--follow", help="Continue until every run is finished.")
    ] = False
    weights: Annotated[
        bool, typer.Option("--weights", help="Copy weights too; default: their path and digest.")
    ] = False
    check: Annotated[
        bool, typer.Option("--check", help="Print where MLflow differs from the files; no writing.")
    ] = False
    repair: Annotated[
        bool, typer.Option("--repair", help="Check, and mirror again what differs.")
    ] = False


@app.command()
@grouped
def sync(
    mirror: MirrorOptions,
    name: Name = "smoke",
    results: Results = Path("results"),
    register: Annotated[
        list[str],
        typer.Option(
            help="Register this run's weights in MLflow's model registry; repeat.", metavar="RUN"
        ),
    ] = [],  # noqa: B006
) -> None:
    """Mirror results to MLflow.

    Files are the truth: if the tracker is down, nothing is lost.
    """
    chosen = [f"--{flag}" for flag in ("follow", "check", "repair") if getattr(mirror, flag)]
    if len(chosen) > 1:
        raise UserError(f"{' '.join(chosen)}: choose one")

    from mgm.report.mlflow import sync as mlflow

    folder = results / name
    registry, uri = _registry(folder), mirror.uri or mlflow.default_uri(folder)
    if mirror.follow:
        mlflow.follow(registry, folder, uri, mirror.weights)
        return
    differing: dict[str, list[str]] = {}
    if mirror.check or mirror.repair:
        differing = mlflow.check(registry, folder, uri)
        lines = [f"{run_id}: {line}" for run_id, several in differing.items() for line in several]
        more = [f"and {len(lines) - 50} differences more"] if len(lines) > 50 else []
        say("\n".join(lines[:50] + more) or "MLflow has what the files say")
        if mirror.check and lines:
            raise UserError(
                f"{uri}: {len(lines)} differences in {len(differing)} runs; `mgm sync {name} "
                "--repair` mirrors these again"
            )
        if mirror.check:
            return
    say(str(mlflow.sync(registry, folder, uri, mirror.weights, differing.keys())))
    if register:
        from mgm.report.mlflow.tracker import register as add_versions

        say("\n".join(add_versions(folder, uri, register)))
