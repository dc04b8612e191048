"""Read a spec's fields from words of the command line, and write a spec as YAML with comments."""

import inspect
import json
import textwrap
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from mgm.errors import UserError
from mgm.reading import parse_value
from mgm.spec.masks import MASKS, Mask
from mgm.spec.run_specs import Finetune, Probe, Run, Spec

STAGES: dict[str, type[Run]] = {kind.model_fields["stage"].default: kind for kind in get_args(Spec)}


def fields_of(stage: str, dataset: str, changes: list[str]) -> Any:
    """Return the fields of a spec from words of the command line.

    Args:
        changes: words like optim.epochs=50, with values as in YAML.

    Raises:
        UserError: a change is not written as FIELD=VALUE.
    """
    fields: dict[str, Any] = {"stage": stage, "data": {"dataset": dataset}}
    if stage == "measure":
        fields["name"] = "coverage"
    for change in changes:
        dotted, equals, text = change.partition("=")
        *path, last = dotted.split(".")
        value = parse_value(text, f"--set {change}")
        place = fields
        for name in path:
            place = place.setdefault(name, {})
        if not equals or not isinstance(place, dict):
            raise UserError(f"--set {change}: write it as FIELD=VALUE, such as optim.epochs=50")
        place[last] = value
    return fields


def commented(spec: Run) -> str:
    """Return a spec as YAML, with what pydantic knows of each field: choices and groups."""
    head = [
        f"# A spec for `mgm {spec.stage} FILE --out results --data {spec.data.dataset}=FOLDER`.",
        "# A field that you remove has its default. A run with a parent has the parent's clips and "
        "model.",
        f"stage: {spec.stage}",
    ]
    return "\n".join([*head, *_lines(spec, 0, ("stage",))]) + "\n"


def _lines(value: BaseModel, depth: int, without: tuple[str, ...] = ()) -> list[str]:
    lines, before = list[str](), "  " * depth
    for name, field in type(value).model_fields.items():
        if name in without:
            continue
        own = getattr(value, name)
        comment = field.description or ""
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        if isinstance(value, Mask) and name == "name":
            choices = tuple(MASKS)
        if choices:
            comment += f" Choices: {', '.join(map(str, choices))}."
        if isinstance(own, BaseModel):
            comment = comment or (inspect.getdoc(own) or "").partition("\n")[0]
        # A blank line between the groups of a spec.
        if isinstance(own, BaseModel) and not depth:
            lines.append("")
        indent = f"{before}# "
        lines += textwrap.wrap(comment.strip(), 96, initial_indent=indent, subsequent_indent=indent)
        if isinstance(own, BaseModel):
            part = [f"{before}{name}:", *_lines(own, depth + 1, ("version",))]
            # A run with a parent has the parent's values.
            taken = isinstance(value, Finetune | Probe) and name in ("clips", "model")
            lines += [f"# {line}" for line in part] if taken else part
        else:
            lines.append(f"{before}{name}: {json.dumps(own)}")
    return lines


def write_new(text: str, out: Path | None) -> str:
    """Write a new spec to the file `out`, or return its text if there is no `out`.

    Raises:
        UserError: the file exists.
    """
    if out is None:
        return text.rstrip()
    if out.exists():
        raise UserError(f"{out}: exists already; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        # As on a full disk. The part would be in the way of the next call.
        out.unlink(missing_ok=True)
        error.filename = error.filename or str(out)
        raise
    return f"wrote {out}"
