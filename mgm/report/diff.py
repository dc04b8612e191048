"""Two runs side by side: the fields of their specs that differ, and their metrics."""

import json
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.results.archive import unpack_all
from mgm.results.result import examine
from mgm.spec import dotted, read_spec


def diff(results: Path, first: str, second: str) -> str:
    """Two runs, each a run id under `results` (whatever the name) or a folder.

    Raises:
        UserError: no such run, an id under several names, or a spec that is none.
    """
    folders = [_folder(results, run) for run in (first, second)]
    specs = [read_spec(folder) for folder in folders]
    found = [examine(folder, spec) for folder, spec in zip(folders, specs, strict=True)]
    metrics = [one.result["metrics"] if one.result else {} for one in found]
    states = [f"{one.state}: {one.why}" if one.why else one.state for one in found]
    fields = [dotted(spec.model_dump(mode="json")) for spec in specs]
    absent = (
        object()
    )  # a field that only one has, since it is of another verb, is a dash in the other
    differing = [
        name
        for name in fields[0] | fields[1]
        if fields[0].get(name, absent) != fields[1].get(name, absent)
    ]
    table = [
        ("", *(spec.run_id for spec in specs)),
        ("state", *states),
        *((name, *(_shown(one.get(name)) for one in fields)) for name in differing),
        *([] if differing else [("no field differs", "", "")]),
        *(
            (f"metrics.{name}", *(_shown(one.get(name)) for one in metrics))
            for name in metrics[0] | metrics[1]
        ),
    ]
    left, middle = (max(len(line[column]) for line in table) for column in (0, 1))
    return "\n".join(
        f"{name:{left}}  {one:{middle}}  {other}".rstrip() for name, one, other in table
    )


def _folder(results: Path, run: str) -> Path:
    if (Path(run) / "spec.json").exists():
        return Path(run)
    unpack_all(results)
    found = sorted(path.parent for path in results.glob(f"*/{Path(run).name}/spec.json"))
    if not found:
        raise UserError(
            f"{run}: is no run in {results}/ and no folder with a spec.json; correct it, or pass --results"
        )
    if len(found) > 1:
        raise UserError(
            f"{run}: ran under several names; pass one of the folders {', '.join(map(str, found))}"
        )
    return found[0]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return (
        f"{value:.6g}"
        if isinstance(value, float)
        else json.dumps(value)
        if not isinstance(value, str)
        else value or '""'
    )
