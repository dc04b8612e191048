"""All runs of a results folder as one tidy pandas table."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mgm.errors import UserError
from mgm.results.archive import unpack
from mgm.results.result import RunStatus, examine
from mgm.spec import Finetune, Pretrain, Probe, Spec, data_name, parents, read_spec

if TYPE_CHECKING:
    import pandas as pd

INTEGERS = ("epochs", "seed", "n_test")  # columns that may be empty, and would turn to floats
SPEC_COLUMNS = (
    "run_id",
    "verb",
    "dataset",
    "data",
    "backbone",
    "mask",
    "ratio",
    "edge",
    "guidance",
    "epochs",
    "seed",
    "parent",
)
RESULT_COLUMNS = ("n_test", "commit", "digest", "wall_s", "device")


SEPARATOR = " | "  # between the tables, and between the rows, of a run that stands in several


class Tables(Protocol):
    """What `frame` needs of a registry (`mgm.paper.registry`)."""

    @property
    def tables(self) -> Mapping[str, Any]: ...


def frame(results: Path, registry: Tables | None = None) -> "pd.DataFrame":
    """Read every run in `results`, one row per run, sorted by run id.

    Columns:
        `run_id`, `verb` (the stage), `dataset`, `data` (its name for readers), `backbone`, `mask`,
        `ratio`, `edge`, `guidance`, `epochs`, `seed`;
        `parent`: several are joined by spaces;
        `status`: run, altered, failed, running or not run; `why`: what is wrong, unless it is run;
        `table` and `row` of the paper that the run stands in, several joined by " | "; empty for
        runs of no table, and without `registry` (`mgm.paper.suite.registry_of` returns one);
        `metrics.NAME` for each metric, and `n_test`;
        `commit` (ends in -dirty like `git describe --dirty`), `digest` of the data, `wall_s`,
        `device`.

    A finetuned or probed run has the mask, ratio, edge and guidance of the pretraining it starts
    from; from random weights its mask is "none". Numbers of a run that is not believed (any status
    but `run`) are empty.

    Raises:
        UserError: no such folder.
    """
    import pandas as pd

    specs = read_specs(results)
    found = examine_all(results, specs)
    shown = _shown(registry)
    rows = [
        _row(run_id, specs, found[run_id])
        | dict(zip(("table", "row"), map(SEPARATOR.join, zip(*shown.get(run_id, [("", "")])))))
        for run_id in sorted(found)
    ]
    metrics = sorted({name for row in rows for name in row if name.startswith("metrics.")})
    table = pd.DataFrame(
        rows, columns=[*SPEC_COLUMNS, "status", "why", "table", "row", *metrics, *RESULT_COLUMNS]
    )
    return table.astype(
        dict.fromkeys(INTEGERS, "Int64") | dict.fromkeys(["ratio", "wall_s", *metrics], "float64")
    )


def _shown(registry: Tables | None) -> dict[str, list[tuple[str, str]]]:
    """Return (table, row) of each run that a table shows, without repetition."""
    shown: dict[str, dict[tuple[str, str], None]] = {}
    for name, table in registry.tables.items() if registry else ():
        for cell in table.cells:
            for run in cell.runs:
                shown.setdefault(run.run_id, {})[name, cell.row] = None
    return {run_id: list(places) for run_id, places in shown.items()}


def read_specs(results: Path) -> dict[str, Spec | UserError]:
    """Run id -> the spec in its folder or in `results`/specs, or what is wrong with it.

    Raises:
        UserError: no such folder.
    """
    unpack(results)
    if not results.is_dir():
        raise UserError(
            f"{results}: no such folder of results; correct the name, or run its experiments first"
        )
    places = {path.stem: path for path in (results / "specs").glob("*.json")}
    for folder in results.iterdir():
        if (folder / "spec.json").exists() or (folder / "result.json").exists():
            places[folder.name] = folder / "spec.json"
    return {run_id: _spec(run_id, place) for run_id, place in places.items()}


def examine_all(
    results: Path,
    specs: Mapping[str, Spec | UserError],
    run_ids: Iterable[str] | None = None,
    weights: bool = False,
) -> dict[str, RunStatus]:
    """Examine each run, or these and what they start from.

    A run whose ancestor is altered is altered too: its weights come from somewhere unknown.

    Args:
        weights: read the weights too, as `examine` does.
    """
    found: dict[str, RunStatus] = {}

    def visit(run_id: str) -> RunStatus:
        if run_id not in found:
            spec = specs[run_id]
            if isinstance(spec, UserError):
                found[run_id] = RunStatus("altered", str(spec))
            else:
                found[run_id] = examine(results / run_id, spec, weights)
                bad = next(
                    (
                        parent
                        for parent in parents(spec)
                        if parent in specs and visit(parent).state == "altered"
                    ),
                    None,
                )
                if bad:
                    found[run_id] = RunStatus("altered", f"{run_id}: its parent {bad} is altered")
        return found[run_id]

    for run_id in specs if run_ids is None else run_ids:
        visit(run_id)
    return found


def _spec(run_id: str, place: Path) -> Spec | UserError:
    try:
        spec = read_spec(place)
    except UserError as error:
        return error
    return (
        spec
        if spec.run_id == run_id
        else UserError(f"{place}: is the spec of {spec.run_id}, not of {run_id}")
    )


def _row(run_id: str, specs: Mapping[str, Spec | UserError], found: RunStatus) -> dict[str, Any]:
    row: dict[str, Any] = {"run_id": run_id, "status": found.state, "why": found.why}
    spec = specs[run_id]
    if not isinstance(spec, UserError):
        optim, mask = getattr(spec, "optim", None), _mask(spec, specs)
        from_random = isinstance(spec, Finetune | Probe) and not spec.parent
        row |= {
            "verb": spec.stage,
            "dataset": spec.data.dataset,
            "data": data_name(spec.data),
            "backbone": spec.model.backbone,
            "seed": spec.seed,
        }
        row |= {
            "parent": " ".join(parents(spec)),
            "epochs": optim.epochs if optim else None,
            "mask": "none" if from_random else None,
        }
        row |= (
            {"mask": mask.name, "ratio": mask.ratio, "edge": mask.edge, "guidance": mask.guidance}
            if mask
            else {}
        )
    if result := found.result:
        row |= {f"metrics.{name}": value for name, value in result["metrics"].items()}
        row |= {
            "n_test": result["n_test"],
            "commit": commit_of(result),
            "digest": result["data"]["digest"],
        }
        row |= {"wall_s": result["wall_s"], "device": result["device"]}
    return row


def _mask(spec: Spec, specs: Mapping[str, Spec | UserError]) -> Any:
    """Mask of a pretraining, or of the one pretraining that a run starts from."""
    if isinstance(spec, Pretrain):
        return spec.mask
    known = [parent for name in parents(spec) if isinstance(parent := specs.get(name), Pretrain)]
    return known[0].mask if len(known) == 1 else None


def commit_of(result: Mapping[str, Any]) -> str:
    """Commit of a result, as `git describe --dirty` writes it."""
    return result["commit"] + ("-dirty" if result["dirty"] else "")
