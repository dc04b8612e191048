"""`mgm run`: train, fine-tune, probe, measure and sample, as specs say."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from mgm.cli.base import Data, Out, app, grouped, places, processes
from mgm.console import say, show
from mgm.data.index import with_digest
from mgm.errors import UserError, as_user_error, nearest
from mgm.files import read_json, write_text
from mgm.results.run import EXTERNAL, External, claimed, external, leftovers, own_spec, status
from mgm.spec import (
    MASKS,
    STAGES,
    Clips,
    Finetune,
    Model,
    Pretrain,
    RunOptions,
    Spec,
    parents,
    parse,
)

Specs = Annotated[
    list[Path],
    typer.Argument(help="Spec files (JSON), run one after another.", metavar="SPEC.json..."),
]
Fields = Annotated[
    str, typer.Option(help="Print the fields of a stage's spec, with their defaults, and exit.")
]

TRAINED = {"pretrain", "finetune"}


@app.command()
@grouped
def run(
    options: RunOptions,
    specs: Specs = [],  # noqa: B006
    data: Data = [],  # noqa: B006
    out: Out = Path("results"),
    fields: Fields = "",
    mark: Annotated[
        Path | None,
        typer.Option(
            help="A file to write when each run has ended. Then failed runs end with status 0."
        ),
    ] = None,
) -> None:
    """Run specs: pretraining, fine-tuning, probes, measurements and samples.

    A spec is a JSON file with the field `stage` and, at least, `data.dataset`. A finished run is
    skipped, and a stopped run continues. Start `mgm run` with torchrun to train in several
    processes.
    """
    if fields and specs:
        raise UserError(f"--fields {fields}: runs nothing; leave out {specs[0]}")
    if fields:
        if fields not in STAGES:
            raise UserError(f"--fields {fields}: {nearest(fields, STAGES)}")
        say("\n".join(fields_of(STAGES[fields])))
        return
    if not specs:
        raise UserError("mgm run: no spec; `mgm run --fields pretrain` lists what it may contain")
    where = places(data)
    given = [complete(read_json(path), str(path), out) for path in specs]
    if unused := where.keys() - {spec.data.dataset for spec in given}:
        raise UserError(f"--data {min(unused)}: no spec is of this dataset; leave it out")
    if not TRAINED.intersection(spec.stage for spec in given) and (words := options.of_training):
        raise UserError(f"{words[0]}: no spec trains; leave it out")
    wanted = [with_digest(spec, where) for spec in given]
    to_do = [spec for spec in wanted if not _done(out / spec.run_id)]
    if mark:
        # A failed run holds up the runs that start from it alone.
        for spec in [*to_do]:
            for one in parents(spec):
                if (now := status(out / one, weights=True)).state != "finished":
                    show(f"{spec.run_id}: waits for {one}, which is {now}")
                    to_do.remove(spec)
                    break
    for spec in to_do:
        if spec.stage not in TRAINED and processes() > 1:
            raise UserError(f"{spec.run_id}: a {spec.stage} runs in one process, without torchrun")
        if not parents(spec) and spec.model.misnamed:
            show(f"note: model.{spec.model.misnamed}; a name of your own, such as toy, says so")
        if isinstance(spec, Pretrain | Finetune) and (odd := spec.optim.odd):
            show(f"note: {spec.run_id}: optim.{odd}")
    if to_do:
        from mgm.stages.run import run_specs
        from mgm.training.distributed import process_group

        with process_group():
            try:
                run_specs(to_do, where, out, options)
            except Exception as error:
                ended = {"finished", "failed", "damaged"}
                # The state of a run says why; a study is told at its end.
                if not mark or {status(out / spec.run_id).state for spec in to_do} - ended:
                    raise
                show(f"mgm: {as_user_error(error) or error}")
    if mark:
        write_text(mark, "".join(f"{spec.run_id}\n" for spec in wanted))


def _done(folder: Path) -> bool:
    """Return whether a run is finished, without an import of PyTorch."""
    now = status(folder, weights=True)
    if now.state != "finished" or processes() > 1:
        return False
    if leftovers(folder, now):
        with claimed(folder):
            pass
    show(f"{folder.name}: already done")
    return True


def fields_of(kind: type[BaseModel], before: str = "") -> list[str]:
    """Return a line per field of a spec: its dotted name, its default and what it may be."""
    lines, schema = list[str](), kind.model_json_schema()["properties"]
    for name, field in kind.model_fields.items():
        default = None if field.is_required() else field.default
        group = type(default) if isinstance(default, BaseModel) else field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            lines += fields_of(group, f"{before}{name}.")
            continue
        facts = schema[name]
        choices = MASKS if (before, name) == ("mask.", "name") else facts.get("enum")
        about = " | ".join(map(str, choices)) if choices else facts.get("type", "")
        for bound, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("exclusiveMaximum", "<"),
        ):
            about += f" {sign} {facts[bound]:g}" if bound in facts else ""
        value = "(required)" if field.is_required() else json.dumps(default)
        lines.append(f"{before}{name}: {value}  # {about}")
    return lines


def complete(fields: Any, source: str, results: Path) -> Spec:
    """Return the spec of a file's fields.

    `init: PATH` starts from external weights, of any format that `mgm.models` reads. Fields of
    `model` and `clips` that are missing are those of the parent, or of these weights.
    """
    if not isinstance(fields, dict):
        raise UserError(f"{source}: is no spec; write the fields as a JSON object")
    given, about = dict(fields), None
    if path := given.pop("init", None):
        if given.get("parent"):
            raise UserError(f"{source}: has both init and parent; remove one")
        from mgm.models.weights import weights_digest

        if not isinstance(path, str):
            raise UserError(f"{source}: init is {path!r}, not the path of weights")
        place = Path(path).expanduser()
        about = External(path=str(place.absolute()), sha256=weights_digest(place))
        given["parent"] = f"external-{about.sha256[:8]}"
    place = results / str(given.get("parent", ""))
    if given.get("parent") and given.get("stage") in ("pretrain", "finetune", "probe"):
        parts = _of_parent(place, about or external(place), given)
        for name, part in parts.items():
            if isinstance(own := given.get(name, {}), dict):
                given[name] = {**part, **own}
    spec = parse(given, source)
    if about:
        write_text(place / EXTERNAL, about.model_dump_json() + "\n")
    return spec


def _of_parent(place: Path, about: External | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the groups of fields that a run takes from its parent, if that is there.

    Args:
        about: weights that no run here trained, if they are the parent.
        given: the run's own fields.
    """
    if about:
        from mgm.models.weights import read_weights, sizes_of

        path = Path(about.path)
        sizes = sizes_of(read_weights(path), path)
        kept = sizes if given["stage"] == "pretrain" else ("model",)
        return {name: sizes[name] for name in kept}
    if given["stage"] == "pretrain" or not (place / "spec.json").exists():
        return {}
    # A whole spec takes nothing, so it can be read while its parent is damaged.
    groups: dict[str, type[BaseModel]] = {"model": Model, "clips": Clips}
    lacks = [name for name in groups if groups[name].model_fields.keys() - _keys(given.get(name))]
    if not lacks:
        return {}
    parent = own_spec(place).model_dump(mode="json")
    return {name: parent[name] for name in lacks}


def _keys(fields: Any) -> set[str]:
    return {*fields} if isinstance(fields, dict) else set()
