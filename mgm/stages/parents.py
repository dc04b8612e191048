"""The weights that a run starts from: those of a parent run, or external ones.

External weights may have any format that `mgm.models` reads. They become a parent: a folder in the
results with their path and digest. A spec file names them by `"init": PATH`.
"""

import json
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.models.weights import config_of, model_of, read_weights
from mgm.models.weights_file import weights_digest, weights_file
from mgm.reading import read_json
from mgm.results import atomic
from mgm.results.result import recorded_digest
from mgm.spec import Finetune, Pretrain, read_spec

INHERITING = ("finetune", "probe")
# The file in a folder of external weights with their path and digest.
EXTERNAL = "external.json"


def complete(fields: Any, source: str, results: Path) -> Any:
    """Complete the fields of a spec file, from `init` and from the parent's fields."""
    return inherit(resolve_init(fields, source, results), source, results)


def resolve_init(fields: Any, source: str, results: Path) -> Any:
    """Replace `init` by `parent`: a run in `results` that names those weights.

    Sizes that the fields lack come from the weights.

    The weights' digest is part of that run's id. So no run id depends on a path.
    """
    if not isinstance(fields, dict) or "init" not in fields:
        return fields
    if fields.get("parent"):
        raise UserError(
            f"{source}: has both init and parent, and a run starts from only one; remove one"
        )
    if not isinstance(fields["init"], str) or not fields["init"]:
        raise UserError(f"{source}: init is {fields['init']!r}; write the path of weights")
    try:
        weights = weights_file(Path(fields["init"]))
    except UserError as error:
        why = str(error).partition(";")[0]
        raise UserError(f"{source}: init: {why}; correct the path") from None
    digest = weights_digest(weights)
    parent = f"external-{digest[:8]}"
    # The name that was given, since files next to it say how to read the weights.
    about = {"path": str(weights.absolute()), "sha256": digest}
    atomic.write(results / parent / EXTERNAL, json.dumps(about) + "\n")
    rest = {name: value for name, value in fields.items() if name != "init"}
    return sizes_of(weights, rest.get("stage", rest.get("verb"))) | rest | {"parent": parent}


def sizes_of(path: Path, stage: str | None) -> dict[str, Any]:
    """Return the field `model` that fits weights, and for pretraining the field `decoder`."""
    weights = read_weights(path)
    fields = {"model": model_of(weights, path).model_dump(mode="json")}
    if stage == "pretrain" and (width := len(weights.get("encoder_to_decoder.weight", ()))):
        blocks = {name.split(".")[2] for name in weights if name.startswith("decoder.blocks.")}
        # Without a config.json: heads of 64 channels, as in every published decoder.
        config = config_of(path, weights)
        usual = width // 64 if width % 64 == 0 else 1
        heads = config.decoder_num_attention_heads if config else usual
        fields["decoder"] = {"width": width, "depth": len(blocks), "heads": heads}
    return fields


def inherit(fields: Any, source: str, results: Path) -> Any:
    """Take missing fields of `model` and `clips` from the parent of a probe or a fine-tuning run.

    Given fields of `clips` are kept, since a run may test other clips than it was trained on. Given
    fields of `model` must equal the parent's.
    """
    if not isinstance(fields, dict) or not isinstance(fields.get("parent"), str):
        return fields
    place = results / fields["parent"]
    stage = fields.get("stage", fields.get("verb"))
    if stage not in INHERITING or not fields["parent"] or not (place / "spec.json").is_file():
        return fields
    parent = read_spec(place)
    completed = dict(fields)
    for group in ("model", "clips"):
        given = fields.get(group, {})
        if not isinstance(given, dict):
            return fields
        completed[group] = getattr(parent, group).model_dump(mode="json") | given
    of_parent = parent.model.model_dump(mode="json")
    for name, value in completed["model"].items():
        if value != (wanted := of_parent.get(name, value)):
            raise UserError(
                f"{source}: model.{name} is {value}, but parent {fields['parent']} has "
                f"{wanted}; leave model out, or choose another parent"
            )
    return completed


def trained_spec(run: Path) -> Pretrain | Finetune:
    """Return the spec of a run that has weights of its own."""
    spec = read_spec(run)
    if not isinstance(spec, Pretrain | Finetune):
        raise UserError(f"{run}: is a {spec.stage} run; pass a pretraining or fine-tuning run")
    return spec


def verified_weights(run: Path) -> tuple[Path, str]:
    """Return the weights of a run's folder, and their digest.

    Raises:
        UserError: there are none, or they are not those that the run wrote.
    """
    path, wanted = run / "weights.safetensors", recorded_digest(run)
    if (external := run / EXTERNAL).exists():
        about = read_json(external)
        path, wanted = Path(about["path"]), about["sha256"]
    digest = weights_digest(path)
    if wanted and digest != wanted:
        raise UserError(
            f"{path}: its SHA-256 is {digest[:12]}, and the run wrote {wanted[:12]}; restore it, "
            f"or delete {run} and run it again"
        )
    return path, digest
