"""Expand studies at a scale: a row per number that they want, and the spec of every run.

A study is a cross join: datasets x dataset seeds x seeds x rows x columns. Each cell is a number of
one run. A run is a recipe with layers of fields, of which a later one wins: the scale's rule of
steps, its other fields, those of the study, of its dataset, and of the row or the column. Equal
runs are one run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from math import nan
from typing import Any

import pandas as pd

from mgm.errors import UserError, valid
from mgm.spec import Data, Mask, Measure, Pretrain, Sample, Spec, dotted, nested, parents
from mgm.study import recipes
from mgm.study.scales import Scale
from mgm.study.schema import CONTROL_ROWS, Row, Study, View
from mgm.study.videos import Videos, seeds_of, title_in, unit_of, videos_of

# Figures of the paper that show models. Figure 5 shows masks.
FIGURES = {"attention": "6", "overlays": "7", "reconstructions": "8"}
# Each run sets its own dataset.
ANY = Data(dataset="any")
# Between the seeds of a world's draws.
DRAW = 1_000_000
# Fields of a run that one place sets, by their dotted names (`mgm.study.settings`).
Layer = Mapping[str, Any]
COLUMNS = (
    *("study", "dataset", "title", "dataset_seed", "seed", "row", "column", "stage", "metric"),
    *("control", "run_id", "pretraining", "unit"),
    *("mask", "guidance", "backbone", "ratio", "epochs", "steps"),
)


@dataclass
class Expansion:
    """The numbers and the runs of studies.

    Attributes:
        specs: specs by run id, parents before children.
        datasets: the datasets of the runs by key, with their digests.
        pictures: the run whose arrays a view shows, by the view's key.
        targets: the runs, without those that they start from, by study and by view; "all" has all.
        cells: a row per number, with the columns `COLUMNS`. `dataset_seed` is -1 for a dataset that
            has none. `pretraining` is the run that `run_id` starts from, or empty. `unit` is what
            an interval is over: worlds, folds, datasets or seeds. `mask` to `steps` are fields of
            the pretraining.
    """

    specs: dict[str, Spec] = field(default_factory=dict)
    datasets: dict[str, Videos] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    targets: dict[str, list[str]] = field(default_factory=dict)
    cells: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Unit:
    """One of the datasets or seeds over which a study repeats its runs.

    Attributes:
        found: what its numbers and runs are added to.
        dataset: of the study, whose videos test.
        dataset_seed: None if its videos have none.
        made: its runs by id, also those that no number needs.
    """

    study: Study
    scale: Scale
    found: Expansion
    dataset: str
    dataset_seed: int | None
    seed: int
    made: dict[str, Spec] = field(default_factory=dict)

    @cached_property
    def videos(self) -> Videos:
        """The videos that test."""
        return self._videos(self.dataset)

    @cached_property
    def source(self) -> Videos:
        """The videos that pretrain."""
        return self._videos(self.study.datasets[self.dataset].pretrained_on or self.dataset)

    def _videos(self, name: str) -> Videos:
        known = self.found.datasets
        return videos_of(self.study, self.scale, name, self.dataset_seed, known)

    def add(self, run: Spec) -> Spec:
        """Add a run after those that it starts from. Return it, or the equal run that is there."""
        for parent in parents(run):
            if parent not in self.found.specs:
                self.add(self.made[parent])
        return self.found.specs.setdefault(run.run_id, run)


def expand(studies: Sequence[Study], scale: Scale) -> Expansion:
    """Expand studies at a scale."""
    rows, found = list[dict[str, Any]](), Expansion()
    for study in studies:
        for name in study.tested:
            for number, unit in enumerate(_units(study, scale, found, name)):
                rows += _numbers(unit)
                # Controls have no model, so one seed of a dataset's videos is enough.
                if unit.dataset_seed is not None or number == 0:
                    rows += _controls(unit)
        for key, view in study.views.items():
            if view.show:
                unit = next(_units(study, scale, found, study.shown_on(view)))
                with valid(f"study {study.study}: views.{key}: "):
                    found.pictures[key] = unit.add(_picture(unit, key, view)).run_id
    numbers = dict.fromkeys(("ratio", "epochs", "steps"), float)
    found.cells = pd.DataFrame(rows, columns=[*COLUMNS]).astype(numbers)
    found.targets = targets_of(studies, found.cells, found.pictures) | {"all": [*found.specs]}
    return found


def targets_of(
    studies: Iterable[Study], cells: pd.DataFrame, pictures: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return the runs of each study and view, without those that they start from."""
    targets, of_views = dict[str, list[str]](), dict[str, list[str]]()
    for study in studies:
        own = cells[(cells.study == study.study) & (cells.column != "")]
        runs = [*own.run_id.unique()]
        places = own[["dataset", "row", "column", "run_id"]].to_numpy().tolist()
        for key, view in study.shown_views.items():
            if view.show:
                shown = [pictures[key]] if key in pictures else []
                runs += shown
            else:
                parts = study.parts_of(view)
                shown = [
                    run_id
                    for dataset, row, column, run_id in places
                    # Means of a dataset show its numbers, too.
                    for name, place in study.datasets.items()
                    if dataset in (name, *place.parts)
                    if any(part.shows(name, row, column) for part in parts)
                ]
            of_views[key] = [*dict.fromkeys(shown)]
        targets[study.study] = [*dict.fromkeys(runs)]
    return targets | of_views


def with_parents(specs: Mapping[str, Spec], run_ids: Iterable[str]) -> list[Spec]:
    """Return runs and the runs that they start from, parents first."""
    wanted = {*run_ids}
    for run_id in reversed([*specs]):
        if run_id in wanted:
            wanted.update(parents(specs[run_id]))
    return [spec for run_id, spec in specs.items() if run_id in wanted]


def _units(study: Study, scale: Scale, found: Expansion, name: str) -> Iterator[Unit]:
    """Yield the units of a dataset. A run on videos with a seed has that seed."""
    of_videos = seeds_of(study, scale, name)
    for seed in of_videos or study.seeds or scale.seeds:
        yield Unit(study, scale, found, name, seed if of_videos else None, seed)


def _numbers(unit: Unit) -> Iterator[dict[str, Any]]:
    """Yield the numbers of a unit's rows and columns, and add their runs."""
    study = unit.study
    for row, own in study.rows.items():
        columns = [column for column in study.columns if study.has(unit.dataset, row, column)]
        if not columns:
            continue
        with valid(f"study {study.study}: rows.{row}: "):
            start = _start(unit, row)
            last = _last(unit, row, start)
            facts: dict[str, Any] = {}
            if own.start != "none":
                mask, optim = start.mask, start.optim
                facts |= {"pretraining": start.run_id, "mask": mask.name}
                facts |= {"guidance": mask.guidance, "ratio": mask.ratio}
                facts |= {"epochs": optim.epochs, "steps": optim.steps or nan}
            for column in columns:
                test = study.columns[column]
                if test.stage == "measure":
                    run = _measure(unit, row, column, start)
                else:
                    run = _test(unit, row, column, start, last)
                yield _number(unit, row, column, test.metric, unit.add(run)) | facts


def _controls(unit: Unit) -> Iterator[dict[str, Any]]:
    """Yield the controls of a unit, which have no model, and add the runs that measure them."""
    study = unit.study
    for column in study.controls:
        if any(study.has(unit.dataset, row, column) for row in study.rows):
            like = _test(unit, "", column, _start(unit, ""), "")
            run = unit.add(recipes.controls(like))
            for title, metric in CONTROL_ROWS.items():
                yield _number(unit, title, column, metric, run) | {"control": True}


def _number(unit: Unit, row: str, column: str, metric: str, run: Spec) -> dict[str, Any]:
    """Return the row of a number, without what it says of a pretraining."""
    study, scale, dataset = unit.study, unit.scale, unit.dataset
    seeded = unit.dataset_seed is not None
    return dict.fromkeys(("pretraining", "mask", "guidance"), "") | {
        "study": study.study,
        "dataset": dataset,
        "title": title_in(study, scale, dataset),
        "dataset_seed": unit.dataset_seed if seeded else -1,
        "seed": unit.seed,
        "row": row,
        "column": column,
        "stage": run.stage,
        "metric": metric,
        "control": False,
        "run_id": run.run_id,
        "unit": unit_of(study, scale, dataset) if seeded else "seeds",
        "backbone": run.model.backbone,
    }


def _start(unit: Unit, name: str) -> Pretrain:
    """Return the pretraining of a row. Controls and pictures have the study's plain one."""
    study, scale = unit.study, unit.scale
    row = study.rows.get(name, Row())
    backbone, epochs = row.backbone or study.backbone, row.epochs or study.epochs
    if scale.backbones and backbone not in scale.backbones:
        raise UserError(f"{scale.place}: backbones lacks {backbone}; add its sizes")
    recipe = recipes.pretrain(unit.source.recipe, row.mask or "mgm", epochs, backbone)
    own = row.fields(scale.flow)
    if row.start not in ("", "none"):
        own["parent"] = _start(unit, row.start).run_id
    return _run(unit, recipe, unit.source, own)


def _last(unit: Unit, row: str, start: Pretrain) -> str:
    """Return the id of a row's last training, which is tested; empty for random weights."""
    own = unit.study.rows[row]
    last = "" if own.start == "none" else start.run_id
    if not own.then:
        return last
    recipe = recipes.finetune if own.then == "finetune" else recipes.supervised
    return _run(unit, recipe(unit.source.recipe), unit.source, _after(start, last)).run_id


def _test(unit: Unit, row: str, column: str, start: Pretrain, parent: str) -> Any:
    """Return the run that tests the run `parent`, or random weights of the same model."""
    own, draw = unit.study.columns[column], unit.study.datasets[unit.dataset].draw
    recipe: Any = recipes.probe(unit.videos.recipe)
    if own.stage == "finetune":
        recipe = recipes.finetune(unit.videos.recipe, own.changes.get("head", "linear"))
    # Controls are of a dataset's videos, whatever their draw.
    if row and draw > 1:
        unit = replace(unit, seed=unit.seed + DRAW * (draw - 1))
    layers = own.changes, own.rows.get(row, {}), _after(start, parent)
    return _run(unit, recipe, unit.videos, *layers)


def _measure(unit: Unit, row: str, column: str, start: Pretrain) -> Measure:
    """Return the run of a column that measures the masks or the videos of a row."""
    own = unit.study.columns[column]
    name = own.changes.get("name")
    recipe = Measure(name=name, data=ANY, mask=start.mask if name == "hidden" else Mask())
    like = dotted(start.model_dump(mode="json", include={"clips", "model"}))
    return _run(unit, recipe, unit.videos, like, own.changes, own.rows.get(row, {}))


def _picture(unit: Unit, key: str, view: View) -> Sample | Measure:
    """Return the run that writes a view's arrays."""
    study = unit.study
    # What has no pretraining has neither a mask nor a model to show.
    pretrained = [row for row, own in study.rows.items() if own.start != "none"]
    named = view.rows or (pretrained if view.show == "masks" else ())
    rows = [row for row in named if row in pretrained]
    if not rows and (view.rows or view.show == "masks"):
        raise UserError(f"study {study.study}: views.{key}: none of its rows is pretrained")
    starts = [_start(unit, row) for row in rows or ("",)]
    same: dict[str, Any] = starts[0].model_dump(include={"data", "clips", "model", "seed"})
    if view.show == "coverage":
        return Measure(name="coverage", mask=starts[0].mask, **same)
    if view.show in FIGURES:
        number: Any = FIGURES[view.show]
        return Sample(figure=number, parents=[run.run_id for run in starts], **same)
    if view.show == "masks":
        # Rows that differ in something else share a mask.
        own = dict[Mask, str]()
        for row, start in zip(rows, starts):
            own.setdefault(start.mask, row)
        return Sample(masks=[(row, mask) for mask, row in own.items()], **same)
    # Masks need no model, so the grid is the paper's.
    like = recipes.pretrain(unit.source.recipe)
    clips = like.clips.model_copy(update={"crop": "centre"})
    recipe = Sample(data=ANY, clips=clips, model=like.model, mask=starts[0].mask)
    return _run(unit, recipe, unit.source)


def _run(unit: Unit, recipe: Any, videos: Videos, *own: Layer) -> Any:
    """Return a run on some videos: its recipe with the layers of its place."""
    study, scale, stage = unit.study, unit.scale, recipe.stage
    layers: tuple[Layer, ...] = (
        scale.overrides.get(stage, {}),
        dotted(scale.backbones.get(recipe.model.backbone, {}), "model."),
        {"seed": unit.seed},
        study.settings.get(stage, {}),
        study.datasets[unit.dataset].settings.get(stage, {}),
        {"data.dataset": videos.name, "data.digest": videos.digest},
        *own,
    )
    known, given = _fields(recipe), dict[str, Any]()
    for layer in layers:
        given |= dotted(layer)
    epochs = (known | given).get("optim.epochs")
    steps = scale.steps.of(epochs) if scale.steps and epochs else {}
    run = type(recipe).model_validate(nested({**known, **steps, **given}))
    unit.made[run.run_id] = run
    return run


@cache
def _fields(recipe: Spec) -> dict[str, Any]:
    return dotted(recipe.model_dump(mode="json"))


def _after(start: Pretrain, parent: str) -> Layer:
    """Return the fields of a run that goes on from another one, with the model of `start`."""
    return dotted(start.model.model_dump(mode="json"), "model.") | {"parent": parent}
