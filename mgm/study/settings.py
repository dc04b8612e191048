"""What studies and scales may set: at each place the fields that have an effect there.

A layer, such as a row or `settings.probe`, has fields of the runs of one stage. Which it may have
follows from the specs: all fields of the stage, minus those that the study itself decides, those of
the model after pretraining, and those that the run does not read (`unread` of `mgm.spec.Run`).
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, TypeAdapter

from mgm.errors import UserError, nearest, valid
from mgm.spec import STAGES, Clips, Model, Pretrain, dotted, leaves
from mgm.study.scales import Scale
from mgm.study.schema import Study, View
from mgm.study.videos import seeds_of, videos_like

# Fields that no layer sets, each with where it is decided.
DECIDED = {
    "stage": "columns.NAME.stage",
    "seed": "seeds, dataset_seeds or datasets.NAME.draw",
    **dict.fromkeys(("data.dataset", "data.digest"), "datasets"),
    "parent": "rows.NAME.from",
    "parents": "views.NAME.rows",
    "name": "columns.NAME",
    "figure": "views.NAME.show",
    "masks": "views.NAME.rows",
    "mask.version": "mask.name",
}
# A test has the model of its pretraining, and a measure its clips too.
MODEL = dict.fromkeys(leaves(Model, "model."), "rows.NAME or settings.pretrain")
CLIPS = dict.fromkeys(leaves(Clips, "clips."), "columns.NAME or settings.pretrain")
# A scale has sizes for each backbone.
SIZES = dict.fromkeys(MODEL.keys() - {"model.tubelet", "model.patch"}, "backbones.NAME")
# A row from none has a model alone.
UNTRAINED = dict.fromkeys({*leaves(Pretrain)} - {*MODEL}, "rows that are pretrained")
# The fields of a scale's datasets.
OF_SCALE = {"generate", "adapt", "root", "recipe"}
# The kinds of view that read a field.
READ_BY = {
    **dict.fromkeys(("x", "hue", "panel"), ("chart",)),
    **dict.fromkeys(("turned", "controls"), ("table",)),
    **{"show": ("clips",), "over": ("gains",), "quoted": ("chart", "differences")},
    "minus": ("table", "chart", "differences", "gains"),
}


class Layer(NamedTuple):
    """Fields of one kind that one place sets.

    `decided` has the fields that have no effect there, with where they have one; empty: nowhere.
    """

    where: str
    kind: type[BaseModel]
    fields: Mapping[str, Any]
    decided: Mapping[str, str]


def require_effect(studies: Iterable[Study], scale: Scale) -> None:
    """Check that each setting of studies and their scale has an effect, and a valid value.

    Settings that no run of these studies uses are checked, too.
    """
    before = f"scale {scale.name}: "
    for name, place in scale.datasets.items():
        for field in sorted(place.model_fields_set - OF_SCALE):
            raise UserError(f"{before}datasets.{name}.{field} has no effect; remove it")
    for layer in _of_scale(scale):
        _require(layer, before)
    for study in studies:
        before = f"study {study.study}: "
        for where in _unread(study, scale):
            raise UserError(f"{before}{where} has no effect; remove it")
        for layer in _of_study(study, scale):
            _require(layer, before)


def _require(layer: Layer, before: str) -> None:
    known = leaves(layer.kind)
    for name, value in dotted(layer.fields).items():
        where = f"{before}{layer.where}: {name}"
        if name not in known:
            raise UserError(f"{where} is not a field of a spec; {nearest(name, known)}")
        if name in layer.decided:
            place = layer.decided[name]
            then = f"it belongs to {place}" if place else "such runs do not read it; remove it"
            raise UserError(f"{where} has no effect here; {then}")
        with valid(f"{where}: "):
            _type_of(layer.kind, name).validate_python(value)


@cache
def _type_of(kind: Any, name: str) -> TypeAdapter[Any]:
    *parts, last = name.split(".")
    for part in parts:
        kind = kind.model_fields[part].annotation
    field = kind.model_fields[last]
    annotation: Any = Annotated[field.annotation, *field.metadata, None]
    return TypeAdapter(annotation)


def _decided(stage: str, names: Iterable[Any] = ()) -> dict[str, str]:
    """Return the fields of a stage that have no effect in a column or a row.

    Args:
        names: of the measures that have the layer. Without a known one: all.
    """
    unread = STAGES[stage].unread
    own = [unread[name] for name in names if name in unread] or unread.values()
    model = MODEL if stage in ("finetune", "probe", "measure") else {}
    return dict.fromkeys(set.intersection(*own), "") | DECIDED | model


def _in_settings(stage: str, names: Iterable[Any] = ()) -> dict[str, str]:
    """Return the fields of a stage that have no effect in settings."""
    return _decided(stage, names) | (CLIPS if stage == "measure" else {})


def _of_scale(scale: Scale) -> Iterator[Layer]:
    for stage, fields in scale.overrides.items():
        yield Layer(f"overrides.{stage}", STAGES[stage], fields, _in_settings(stage) | SIZES)
    for name, sizes in scale.backbones.items():
        yield Layer(f"backbones.{name}", Model, sizes, {})


def _of_study(study: Study, scale: Scale) -> Iterator[Layer]:
    measures = {str(column.changes.get("name")) for column in study.columns.values()}
    for stage, fields in study.settings.items():
        decided = _in_settings(stage, measures)
        yield Layer(f"settings.{stage}", STAGES[stage], fields, decided)
    for name, place in study.datasets.items():
        for stage, fields in place.settings.items():
            decided = _in_settings(stage, measures)
            if stage == "sample":
                # A picture is of one dataset.
                decided = dict.fromkeys(leaves(STAGES[stage]), "settings.sample")
            elif seeds_of(study, scale, name):
                # Units have different videos, so they stay different runs.
                del decided["seed"]
            yield Layer(f"datasets.{name}.settings.{stage}", STAGES[stage], fields, decided)
    for name, row in study.rows.items():
        decided = _decided("pretrain")
        if row.start == "none":
            decided = UNTRAINED
        elif all(seeds_of(study, scale, tested) for tested in study.tested):
            del decided["seed"]
        yield Layer(f"rows.{name}", Pretrain, row.fields(scale.flow), decided)
    for name, column in study.columns.items():
        where, kind = f"columns.{name}", STAGES[column.stage]
        decided = _decided(column.stage, [str(column.changes.get("name"))])
        for own_row, fields in column.rows.items():
            yield Layer(f"{where}.rows.{own_row}", kind, fields, decided)
        del decided["name"]
        yield Layer(where, kind, column.changes, decided)


def _unread(study: Study, scale: Scale) -> Iterator[str]:
    """Yield the fields of datasets and views that nothing reads, with their places."""
    shown = [study.shown_on(view) for view in study.views.values() if view.show]
    readers = {*study.tested, *shown}
    drawn = {name for name in readers if seeds_of(study, scale, name)}
    read = {part for name in drawn for part in (name, videos_like(study, name))}
    for name, place in study.datasets.items():
        where, tests = f"datasets.{name}", name in study.tested
        idle = {
            "settings": not tests,
            "rows": not tests,
            "recipe": not place.root,
            "pretrained_on": place.mean_of,
            "dataset_seeds": name not in read,
        }
        yield from (f"{where}.{field}" for field in idle if idle[field] and getattr(place, field))
        if "seed" in (place.generate or {}):
            yield f"{where}.generate.seed"
    if study.seeds and not readers - drawn:
        yield "seeds"
    if study.dataset_seeds and not drawn:
        yield "dataset_seeds"
    for key, view in study.views.items():
        for field, kinds in READ_BY.items():
            if getattr(view, field) != View.model_fields[field].default and view.kind not in kinds:
                yield f"views.{key}.{field}"
        if view.kind == "clips" and not view.show:
            yield f"views.{key}: without show it"
