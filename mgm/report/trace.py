"""From a cell to what it rests on:

its runs and those they start from, with spec, commit, data, weights and log.
"""

from pathlib import Path

from mgm.errors import UserError
from mgm.paper.registry import Cell, Registry
from mgm.report.cells import row_of
from mgm.results.frame import commit_of, examine_all
from mgm.results.result import RunStatus
from mgm.spec import Spec, parents

MOST = 8  # cells that are told at once


def trace(registry: Registry, results: Path, wanted: str) -> str:
    """What the cells rest on that `wanted` names: "table4e/mgm" is every cell of Table 4e with
    "mgm" in its row's name, "table2a/mgm/ucf" those of one column; a row or column that is named in
    full is that one alone. "figure8" is the run whose arrays the figure draws.

    Raises:
        UserError: no such table, row or column, or more cells than can be read at once.
    """
    target, *names = wanted.split("/", 2)
    if not names and (figure := registry.figures.get(target.removeprefix("figure"))):
        found = examine_all(results, registry.specs, [figure.run.run_id], weights=True)
        return "\n".join([target, *_chain(registry, found, results, figure.run)])
    told = _matching(registry, target, *names)
    wanted_runs = [run.run_id for cell in told for run in cell.runs]
    found = examine_all(results, registry.specs, wanted_runs, weights=True)
    return "\n\n".join(_told(registry, found, results, target, cell) for cell in told)


def _matching(registry: Registry, target: str, row: str = "", column: str = "") -> list[Cell]:
    shown = {f"table{name}": table.cells for name, table in registry.tables.items()}
    shown |= {f"figure{name}": plot.cells for name, plot in registry.plots.items()}
    if target not in shown:
        targets = [name for name in registry.targets() if name != "all"]
        raise UserError(
            f"{target}: no such table or figure at scale {registry.scale.name}; choose one of {', '.join(targets)}"
        )
    rows = _named(row, "row", target, [cell.row for cell in shown[target]])
    columns = _named(
        column, "column", target, [cell.column for cell in shown[target] if cell.row in rows]
    )
    matching = [cell for cell in shown[target] if cell.row in rows and cell.column in columns]
    if len(matching) > MOST:
        which = "; ".join(dict.fromkeys(cell.row for cell in matching))
        raise UserError(
            f"{target}: {row!r} matches {len(matching)} cells, more than {MOST}; name one of the rows {which}, or /column too"
        )
    return matching


def _named(part: str, kind: str, target: str, names: list[str]) -> set[str]:
    """Those that are called so, or else those with it in their names;

    upper and lower case are one.
    """
    wanted = part.strip().lower()
    found = {name for name in names if name.lower() == wanted} or {
        name for name in names if wanted in name.lower()
    }
    if not found:
        raise UserError(
            f"{target}: no {kind} has {part!r} in its name; choose from {'; '.join(dict.fromkeys(names))}"
        )
    return found


def _told(
    registry: Registry, found: dict[str, RunStatus], results: Path, target: str, cell: Cell
) -> str:
    row = row_of(cell, found)
    ours = (
        f"{row.estimate.mean:.{row.decimals}f} by {row.estimate.n} of {len(row.runs)} runs, "
        if row.estimate
        else ""
    )
    paper = f"; the paper has {row.paper:.{row.decimals}f}" if row.paper is not None else ""
    lines = [f"{target}/{cell.row}/{cell.column}: {ours}{row.status}{paper}"]
    if not cell.runs:
        lines.append("  no run fills this cell")
    for run in cell.runs:
        lines += _chain(registry, found, results, run, cell.metric)
    return "\n".join(lines)


def _chain(
    registry: Registry, found: dict[str, RunStatus], results: Path, run: Spec, metric: str = ""
) -> list[str]:
    """The run with its metric, and below it what it starts from, up to the first."""
    lines = [""]
    for depth, spec in enumerate(reversed(registry.with_parents([run.run_id]))):
        value = "" if depth else metric
        lines += _facts(
            found[spec.run_id], results / spec.run_id, spec, value, "starts from " if depth else ""
        )
        for given in set(parents(spec)) - set(registry.specs):  # no run: weights from elsewhere
            lines.append(
                f"  starts from {given}, weights that were given: {(results / given / 'weights.safetensors').resolve()}"
            )
    return lines


def _facts(found: RunStatus, folder: Path, spec: Spec, metric: str, how: str) -> list[str]:
    result, log = found.result, folder / "log.jsonl"
    files = (
        folder / "spec.json",
        folder.parent / "specs" / f"{spec.run_id}.json",
    )  # the job's, and the workflow's
    written = next((str(file) for file in files if file.exists()), "")
    facts = {
        "state": f"{found.state}: {found.why}" if found.why else found.state,
        "spec": f"{spec.hash}  {written}".rstrip(),
    }
    if result:
        if metric:
            facts[metric] = f"{result['metrics'][metric]:g}"
        facts |= {
            "seed": str(spec.seed),
            "commit": commit_of(result) or "unknown: it ran outside a checkout",
            "data": f"{result['data']['dataset']} {result['data']['digest']}",
            "weights": _weights(folder, result["weights_sha256"]),
        }
    facts["log"] = str(log) if log.exists() else "none"
    return [f"  {how}{spec.run_id}", *(f"    {name:8} {fact}" for name, fact in facts.items())]


def _weights(folder: Path, recorded: str | None) -> str:
    """The digest that the result recorded, and whether the file is here; it was read already."""
    if recorded is None:
        return "none"
    return recorded if (folder / "weights.safetensors").exists() else f"{recorded}, not here"
