"""Text of `mgm trace`, `mgm diff` and `mgm clean`.

They print the runs behind a number, the differences of two runs, and the unused runs.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.errors import UserError
from mgm.report.cells import fill
from mgm.report.findings import Findings, in_words
from mgm.results.archive import unpack_all
from mgm.results.frame import commit_of, examine_all, read_specs
from mgm.results.lock import folder_lock, has_writer
from mgm.results.result import RunStatus, examine, lacks_weights
from mgm.spec import MASKS, Spec, dotted, parents, read_spec
from mgm.study.registry import Cell, Registry

MOST_CELLS = 8  # cells that `trace` prints at once


def trace(registry: Registry, results: Path, wanted: str) -> str:
    """Return the runs behind the cells that `wanted` names, with their files, data and commits.

    "table4e/mgm" names every cell of the mask's row in Table 4e, "table4e/mgm/SSv2" one cell. A
    part of a name is enough: "table2a/mgm/ucf" names every cell of Table 2a with "mgm" in its row
    and "ucf" in its column. "figure8" names the run that the figure draws.

    Raises:
        UserError: no such table, row or column, or more than `MOST_CELLS` cells.
    """
    target, *names = wanted.split("/", 2)
    if not names and (figure := registry.figures.get(target.removeprefix("figure"))):
        statuses = examine_all(results, registry.specs, [figure.run.run_id], weights=True)
        findings = Findings(registry, statuses, results)
        return "\n".join([target, *_chain(findings, figure.run)])
    matching = _matching(registry, target, *names)
    # The number of a study's cell depends on the other rows of its draw.
    wanted_runs = [run.run_id for cell in matching for run in cell.runs]
    statuses = examine_all(
        results, registry.specs, None if registry.scale.study else wanted_runs, weights=True
    )
    findings = Findings(registry, statuses, results)
    return "\n\n".join(_cell_text(findings, target, cell) for cell in matching)


def _matching(registry: Registry, target: str, row: str = "", column: str = "") -> list[Cell]:
    shown = {f"table{name}": table.cells for name, table in registry.tables.items()}
    shown |= {f"figure{name}": plot.cells for name, plot in registry.plots.items()}
    if target not in shown:
        targets = [name for name in registry.targets() if name != "all"]
        raise UserError(
            f"{target}: no such table or figure at scale {registry.scale.name}; choose one of "
            f"{', '.join(targets)}"
        )
    rows = _named(row, "row", target, [cell.row for cell in shown[target]])
    columns = _named(
        column, "column", target, [cell.column for cell in shown[target] if cell.row in rows]
    )
    cells = [cell for cell in shown[target] if cell.row in rows and cell.column in columns]
    if len(cells) > MOST_CELLS:
        which = "; ".join(dict.fromkeys(cell.row for cell in cells))
        raise UserError(
            f"{target}: {row!r} matches {len(cells)} cells, more than {MOST_CELLS}; name one of "
            f"the rows {which}, or /column too"
        )
    return cells


def _named(part: str, kind: str, target: str, names: list[str]) -> set[str]:
    """Return the names that `part` matches, ignoring case.

    A whole name or a mask goes before names that contain `part`.
    """
    wanted = part.strip().lower()
    whole = {wanted, MASKS[wanted].row.lower()} if wanted in MASKS else {wanted}
    named = {name for name in names if name.lower() in whole} or {
        name for name in names if wanted in name.lower()
    }
    if not named:
        raise UserError(
            f"{target}: no {kind} has {part!r} in its name; choose from "
            f"{'; '.join(dict.fromkeys(names))}"
        )
    return named


def _cell_text(findings: Findings, target: str, cell: Cell) -> str:
    row, ours = fill(cell, findings), ""
    if row.estimate and findings.registry.scale.study:
        ours = f"{in_words(row.estimate)} over {row.estimate.n}, {len(cell.runs)} runs, "
    elif row.estimate:
        ours = (
            f"{row.estimate.mean:.{row.decimals}f} from {row.estimate.n} of {len(row.runs)} runs, "
        )
    paper = f"; the paper has {row.paper:.{row.decimals}f}" if row.paper is not None else ""
    lines = [f"{target}/{cell.row}/{cell.column}: {ours}{row.status}{paper}"]
    if not cell.runs:
        lines.append("  no run fills this cell")
    for run in cell.runs:
        lines += _chain(findings, run, cell.metric)
    return "\n".join(lines)


def _chain(findings: Findings, run: Spec, metric: str = "") -> list[str]:
    """Return the lines of a run with its metric, then of all runs that it starts from."""
    lines, registry, results = [""], findings.registry, findings.results
    for depth, spec in enumerate(reversed(registry.with_parents([run.run_id]))):
        value = "" if depth else metric
        lines += _facts(
            findings.statuses[spec.run_id],
            results / spec.run_id,
            spec,
            value,
            "starts from " if depth else "",
        )
        # Parents that are not runs are weights of the user.
        for weights_id in set(parents(spec)) - set(registry.specs):
            lines.append(
                f"  starts from {weights_id}, given weights: "
                f"{(results / weights_id / 'weights.safetensors').resolve()}"
            )
    return lines


def _facts(status: RunStatus, folder: Path, spec: Spec, metric: str, how: str) -> list[str]:
    result, log = status.result, folder / "log.jsonl"
    # The job's file, then the workflow's.
    files = (folder / "spec.json", folder.parent / "specs" / f"{spec.run_id}.json")
    written = next((str(file) for file in files if file.exists()), "")
    facts = {
        "state": f"{status.state}: {status.why}" if status.why else status.state,
        "spec": f"{spec.hash}  {written}".rstrip(),
    }
    if result:
        if metric:
            facts[metric] = f"{result['metrics'][metric]:g}"
        facts |= {
            "seed": str(spec.seed),
            "commit": commit_of(result) or "unknown: it ran outside a Git checkout",
            "data": f"{result['data']['dataset']} {result['data']['digest']}",
            # `examine_all` has compared the digest with the file.
            "weights": (result["weights_sha256"] or "none")
            + ", file missing" * lacks_weights(folder),
        }
    facts["log"] = str(log) if log.exists() else "none"
    return [f"  {how}{spec.run_id}", *(f"    {name:8} {fact}" for name, fact in facts.items())]


def diff(results: Path, first: str, second: str) -> str:
    """Return a table of the spec fields, states and metrics in which two runs differ.

    Args:
        first, second: run ids anywhere under `results`, or folders of runs.

    Raises:
        UserError: no such run, a run id under several names, or a file that is not a spec.
    """
    ids, states, fields, metrics = [], [], [], []
    for run in (first, second):
        folder = _folder(results, run)
        spec = read_spec(folder)
        status = examine(folder, spec)
        ids.append(spec.run_id)
        states.append(f"{status.state}: {status.why}" if status.why else status.state)
        fields.append(dotted(spec.model_dump(mode="json")))
        metrics.append(status.result["metrics"] if status.result else {})
    # Runs of different stages have different fields. A missing field is printed as a dash.
    lines = [
        [name, *(_shown(fields_of.get(name)) for fields_of in fields)]
        for name in fields[0] | fields[1]
        if len({json.dumps(fields_of.get(name, "missing")) for fields_of in fields}) > 1
    ] or [["no field differs", "", ""]]
    lines += [
        [f"metrics.{name}", *(_shown(metrics_of.get(name)) for metrics_of in metrics)]
        for name in metrics[0] | metrics[1]
    ]
    table = pd.DataFrame([["state", *states], *lines])
    return table.to_markdown(
        tablefmt="plain", headers=["", *ids], index=False, disable_numparse=True
    )


def _folder(results: Path, run: str) -> Path:
    if (Path(run) / "spec.json").exists():
        return Path(run)
    unpack_all(results)
    folders = sorted(path.parent for path in results.glob(f"*/{Path(run).name}/spec.json"))
    if not folders:
        raise UserError(
            f"{run}: is neither a run in {results}/ nor a folder with a spec.json; correct it, or "
            "pass --results"
        )
    if len(folders) > 1:
        raise UserError(
            f"{run}: exists under several names; pass one of the folders "
            f"{', '.join(map(str, folders))}"
        )
    return folders[0]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value or '""'
    return "-" if value is None else json.dumps(value)


def unwanted(registry: Registry, results: Path) -> dict[Path, bool]:
    """Map each run folder in `results` that the registry does not use to whether it is running.

    A folder counts as a run only if it has the spec of the run id that is its name. A run is
    running if its log is fresh, as it is between two jobs, or if a process writes to its folder.
    """
    return {
        folder: examine(folder, spec).state == "running" or has_writer(folder)
        for run_id, spec in sorted(read_specs(results).items())
        if run_id not in registry.specs and not isinstance(spec, UserError)
        if not (folder := results / run_id).is_symlink() and (folder / "spec.json").exists()
    }


def clean(registry: Registry, results: Path, delete: bool) -> str:
    """List the runs that no table or figure uses, and delete them if `delete` is set.

    A running job keeps its folder.
    """
    unused = unwanted(registry, results)
    if not unused:
        return f"{results}: every run is used by a table or figure"
    sizes = {
        folder: sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir()) / 1e6
        for folder in unused
    }
    lines = [
        f"{sizes[folder]:10.1f} MB  {folder}{'  (running: kept)' * running}"
        for folder, running in unused.items()
    ]
    idle = [folder for folder, running in unused.items() if not running]
    runs = "1 run" if len(idle) == 1 else f"{len(idle)} runs"
    total = f"{runs} that no table or figure uses, {sum(sizes[folder] for folder in idle):.1f} MB"
    if not delete:
        return "\n".join([*lines, f"{total}; add --yes to delete them"])
    for folder in idle:
        # A run may have started since.
        with folder_lock(folder):
            shutil.rmtree(folder)
    return "\n".join([*lines, f"deleted {total}"])
