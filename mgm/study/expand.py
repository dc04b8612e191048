"""Expand studies at a scale: a row per number that they want, and the spec of every run.

A study is a cross join: datasets x dataset seeds x seeds x rows x columns. Each cell is a number of
one run. A run is a recipe with layers of fields, of which a later one wins: the scale's rule of
steps, its other fields, those of the study, of its dataset, and of the row or the column. Equal
runs are one run.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mgm.data.index import read_about
from mgm.data.published import task_digest
from mgm.drawn.params import parse_params
from mgm.errors import UserError, nearest, valid
from mgm.spec import (
    PUBLISHED,
    SHARED,
    Data,
    Mask,
    Measure,
    Pretrain,
    Sample,
    Spec,
    dotted,
    nested,
    parents,
    title_of,
)
from mgm.study import recipes
from mgm.study.scales import Scale
from mgm.study.schema import CONTROL_ROWS, SEED, Row, Study, View

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


class Videos(NamedTuple):
    """The videos of runs: drawn by `generate`, of two others, or in a folder.

    Attributes:
        generate: parameters of a drawn dataset (`mgm.drawn`).
        adapt: the keys of the source and the target of partial domain adaptation.
        root: a folder that `mgm prepare` wrote.
        name: in specs. Empty: its key.
        recipe: the dataset whose recipe its runs have (`mgm.study.recipes`). Empty: its own.
        digest: empty for a published set that is not prepared yet.
    """

    generate: Mapping[str, Any] = {}
    adapt: tuple[str, ...] = ()
    root: str = ""
    name: str = ""
    recipe: str = ""
    digest: str = ""


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


def expand(studies: Sequence[Study], scale: Scale) -> Expansion:
    """Expand studies at a scale."""
    rows, found = list[dict[str, Any]](), Expansion()
    for study in studies:
        runs = _Runs(study, scale, found)
        rows += runs.cells()
        runs.pictures()
    numbers = dict.fromkeys(("ratio", "epochs", "steps"), "float64")
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


def videos_like(study: Study, name: str) -> str:
    """Return the dataset whose videos or models have the seeds of a dataset."""
    key = study.datasets[name].videos_of or name
    place = study.datasets[key]
    # One test of all models, which have the seeds.
    one_test = place.root and not place.seeded and place.pretrained_on
    return place.pretrained_on if one_test else key


def seeds_of(study: Study, scale: Scale, name: str) -> tuple[int, ...]:
    """Return the dataset seeds of a dataset. Empty: its videos have none."""
    own, place = study.datasets[name], study.datasets[videos_like(study, name)]
    source = scale.datasets.get(place.use)
    drawn = source and not source.root and scale.dataset_seeds
    if not place.seeded and not drawn:
        return ()
    seeds = own.dataset_seeds or place.dataset_seeds
    return seeds or study.dataset_seeds or scale.dataset_seeds


class At(NamedTuple):
    """The place of a run in a study. `dataset_seed` is None if its videos have none."""

    dataset: str
    dataset_seed: int | None
    seed: int


@dataclass
class _Runs:
    """The runs of one study, which are added to those `found`, with their parents before them."""

    study: Study
    scale: Scale
    found: Expansion
    made: dict[str, Spec] = field(default_factory=dict)
    starts: dict[tuple[At, str], Pretrain] = field(default_factory=dict)

    def cells(self) -> Iterator[dict[str, Any]]:
        """Yield each cell of the study, and add its run."""
        study = self.study
        for at in (at for name in study.tested for at in self._seeds(name)):
            for row, column in product(study.rows, study.columns):
                if not study.has(at.dataset, row, column):
                    continue
                with self._naming(f"rows.{row}"):
                    yield self._cell(at, row, column)
            # Controls have no model, so one seed of a dataset's videos is enough.
            if at.dataset_seed is not None or at == self._seeds(at.dataset)[0]:
                for column in study.controls:
                    yield from self._controls(at, column)

    def pictures(self) -> None:
        """Add the runs that write the arrays of views, at the first seeds."""
        for key, view in self.study.views.items():
            if view.show:
                with self._naming(f"views.{key}"):
                    run = self._picture(self._seeds(self.study.shown_on(view))[0], key, view)
                    self.found.pictures[key] = self._add(run).run_id

    def _naming(self, where: str) -> AbstractContextManager[None]:
        """Name a place of the study in errors of its specs."""
        return valid(f"study {self.study.study}: {where}: ")

    def _seeds(self, name: str) -> list[At]:
        """Return a dataset's places, one per run of a cell."""
        if seeds := seeds_of(self.study, self.scale, name):
            return [At(name, seed, seed) for seed in seeds]
        return [At(name, None, seed) for seed in self.study.seeds or self.scale.seeds]

    def _cell(self, at: At, row: str, column: str) -> dict[str, Any]:
        """Return a cell, and add its run."""
        study, test, start = self.study, self.study.columns[column], self._start(at, row)
        if test.stage == "measure":
            like = dotted(start.model_dump(mode="json", include={"clips", "model"}))
            name = test.changes.get("name")
            recipe = Measure(name=name, data=ANY, mask=start.mask if name == "hidden" else Mask())
            run = self._run(recipe, at.dataset, at, like, *self._column(column, row))
        else:
            own = study.datasets[at.dataset].draw - 1
            drawn = at._replace(seed=at.seed + DRAW * own)
            run = self._test(drawn, column, start, self._last(at, row, start), row)
        cell = self._row(at, row, column, self._add(run), test.metric)
        if study.rows[row].start != "none":
            mask, optim = start.mask, start.optim
            cell |= {"pretraining": start.run_id, "mask": mask.name, "guidance": mask.guidance}
            cell |= {"ratio": mask.ratio, "epochs": optim.epochs, "steps": optim.steps or nan}
        return cell

    def _controls(self, at: At, column: str) -> Iterator[dict[str, Any]]:
        """Yield a column's controls without a model, and add the run that measures them."""
        if any(self.study.has(at.dataset, row, column) for row in self.study.rows):
            start = self._start(at, "")
            run = self._add(recipes.controls(self._test(at, column, start, "")))
            for title, metric in CONTROL_ROWS.items():
                yield self._row(at, title, column, run, metric) | {"control": True}

    def _row(self, at: At, row: str, column: str, run: Spec, metric: str) -> dict[str, Any]:
        seed = -1 if at.dataset_seed is None else at.dataset_seed
        own: dict[str, Any] = dict.fromkeys(("pretraining", "mask", "guidance"), "")
        own |= {"study": self.study.study, "dataset": at.dataset, "row": row, "column": column}
        own |= {"title": self._title(at.dataset), "dataset_seed": seed, "seed": at.seed}
        own |= {"stage": run.stage, "metric": metric, "control": False, "run_id": run.run_id}
        return own | {"unit": self._unit(at), "backbone": run.model.backbone}

    def _unit(self, at: At) -> str:
        """Return what an interval over a dataset's runs is over."""
        if at.dataset_seed is None:
            return "seeds"
        place = self.study.datasets[at.dataset]
        while other := place.videos_of or (place.adapt and place.adapt[0]):
            place = self.study.datasets[other]
        if place.root:
            return "folds"
        like = self.scale.datasets.get(place.use)
        drawn = ((like and like.generate) or {}) | (place.generate or {})
        return "worlds" if drawn.get("kind") == "world" else "datasets"

    def _add(self, spec: Spec) -> Spec:
        """Add a run after those that it starts from. Return it, or the equal run that is there."""
        for parent in parents(spec):
            if parent not in self.found.specs:
                self._add(self.made[parent])
        return self.found.specs.setdefault(spec.run_id, spec)

    def _start(self, at: At, name: str) -> Pretrain:
        """Return the pretraining of a row. Controls and pictures have the study's plain one."""
        if made := self.starts.get((at, name)):
            return made
        row, source = self.study.rows.get(name, Row()), self._source(at)
        backbone, epochs = row.backbone or self.study.backbone, row.epochs or self.study.epochs
        mask = row.mask or "mgm"
        if self.scale.backbones and backbone not in self.scale.backbones:
            raise UserError(f"{self.scale.place}: backbones lacks {backbone}; add its sizes")
        recipe = recipes.pretrain(self._recipe(at, source), mask, epochs, backbone)
        own: dict[str, Any] = {"mask.name": row.mask} if row.mask else {}
        own |= ({"optim.epochs": row.epochs} if row.epochs else {}) | row.changes
        if own.get("mask.guidance") == "flow":
            own["mask.guidance"] = self.scale.flow
        if row.start not in ("", "none"):
            own["parent"] = self._start(at, row.start).run_id
        made = self.starts[at, name] = self._run(recipe, source, at, own)
        return made

    def _last(self, at: At, name: str, start: Pretrain) -> str:
        """Return the id of a row's last training, which is tested; empty for random weights."""
        row, source = self.study.rows[name], self._source(at)
        last = "" if row.start == "none" else start.run_id
        if not row.then:
            return last
        recipe = recipes.finetune if row.then == "finetune" else recipes.supervised
        return self._run(recipe(self._recipe(at, source)), source, at, _after(start, last)).run_id

    def _test(self, at: At, column: str, start: Pretrain, parent: str, row: str = "") -> Any:
        """Return the run that tests the run `parent`, or random weights of the same model."""
        test, recipe = self.study.columns[column], self._recipe(at, at.dataset)
        run: Any = recipes.probe(recipe)
        if test.stage == "finetune":
            run = recipes.finetune(recipe, test.changes.get("head", "linear"))
        return self._run(run, at.dataset, at, *self._column(column, row), _after(start, parent))

    def _column(self, column: str, row: str) -> tuple[Layer, Layer]:
        """Return the fields that a column sets, and those that it sets for a row alone."""
        own = self.study.columns[column]
        return own.changes, own.rows.get(row, {})

    def _picture(self, at: At, key: str, view: View) -> Sample | Measure:
        """Return the run that writes a view's arrays."""
        study = self.study
        # What has no pretraining has neither a mask nor a model to show.
        pretrained = [row for row, own in study.rows.items() if own.start != "none"]
        named = view.rows or (pretrained if view.show == "masks" else ())
        rows = [row for row in named if row in pretrained]
        if not rows and (view.rows or view.show == "masks"):
            raise UserError(f"study {study.study}: views.{key}: none of its rows is pretrained")
        starts = [self._start(at, row) for row in rows or ("",)]
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
        source = self._source(at)
        like = recipes.pretrain(self._recipe(at, source))
        clips = like.clips.model_copy(update={"crop": "centre"})
        recipe = Sample(data=ANY, clips=clips, model=like.model, mask=starts[0].mask)
        return self._run(recipe, source, at)

    def _run(self, recipe: Any, dataset: str, at: At, *own: Layer) -> Any:
        """Return a run on the videos of `dataset`: its recipe with the layers of its place."""
        study, scale, stage = self.study, self.scale, recipe.stage
        key, videos = self._videos(dataset, at.dataset_seed)
        layers: tuple[Layer, ...] = (
            scale.overrides.get(stage, {}),
            dotted(scale.backbones.get(recipe.model.backbone, {}), "model."),
            {"seed": at.seed},
            study.settings.get(stage, {}),
            study.datasets[at.dataset].settings.get(stage, {}),
            {"data.dataset": videos.name or key, "data.digest": videos.digest},
            *own,
        )
        known, given = _fields(recipe), dict[str, Any]()
        for layer in layers:
            given |= dotted(layer)
        epochs = (known | given).get("optim.epochs")
        steps = scale.steps.of(epochs) if scale.steps and epochs else {}
        run = type(recipe).model_validate(nested({**known, **steps, **given}))
        self.made[run.run_id] = run
        return run

    def _source(self, at: At) -> str:
        """Return the dataset whose videos pretrain for a place."""
        return self.study.datasets[at.dataset].pretrained_on or at.dataset

    def _recipe(self, at: At, dataset: str) -> str:
        """Return the name of the dataset whose recipe runs on the videos of `dataset` have."""
        key, videos = self._videos(dataset, at.dataset_seed)
        return videos.recipe or videos.name or key

    def _videos(self, name: str, seed: int | None) -> tuple[str, Videos]:
        """Return the key and the videos of a dataset. Add them."""
        study, scale, known = self.study, self.scale, self.found.datasets
        shift = study.datasets[name].shift
        seed = seed if seed is None else seed + shift
        name = study.datasets[name].videos_of or name
        place = study.datasets[name]
        if place.use:
            return self._of_scale(place.use, seed)
        if place.adapt:
            (one, source), (two, target) = (self._videos(part, seed) for part in place.adapt)
            recipe = source.recipe or source.name or one
            digest = task_digest(SHARED, source.digest, target.digest)
            key = name if seed is None else f"{name}-{seed}"
            made = Videos(adapt=(one, two), name=SHARED, recipe=recipe, digest=digest)
            return key, known.setdefault(key, made)
        if place.generate is not None:
            drawn = {key: one.generate for key, one in scale.datasets.items() if one.generate}
            if not drawn:
                raise UserError(f"scale {scale.name}: draws no videos; name one that does")
            like, fields = next(iter(drawn.items()))
            return self._drawn(name, like, fields | place.generate, seed)
        root = os.path.expanduser(place.root.replace(SEED, str(seed)))
        # Datasets of the same folders share their runs.
        key = Path(root).name if place.seeded else name
        if key not in known:
            known[key] = Videos(root=root, recipe=place.recipe, digest=self._digest(key, root))
        elif known[key].root != root:
            raise UserError(
                f"study {study.study}: {root} and {known[key].root} have the same name; rename one"
            )
        return key, known[key]

    def _digest(self, key: str, root: str) -> str:
        """Return the digest of a prepared folder.

        Runs on a published set can be planned before it is prepared, and have no digest yet.
        """
        if key in PUBLISHED and not Path(root, "index.json").is_file():
            return ""
        return read_about(Path(root)).digest

    def _of_scale(self, name: str, seed: int | None) -> tuple[str, Videos]:
        """Return the key and the videos of a dataset of the scale. Add them."""
        scale = self.scale
        if name not in scale.datasets:
            raise UserError(
                f"study {self.study.study}: scale {scale.name} has no dataset {name}; "
                f"{nearest(name, scale.datasets)}"
            )
        own = scale.datasets[name]
        if own.generate:
            return self._drawn(name, name, own.generate, seed)
        key, known = name if seed is None else f"{name}-{seed}", self.found.datasets
        if key in known:
            return key, known[key]
        if own.root:
            digest = self._digest(key, own.root)
            return key, known.setdefault(key, Videos({}, (), own.root, "", own.recipe, digest))
        if not own.adapt:
            raise UserError(
                f"scale {scale.name}: datasets.{name}: needs one of generate, adapt, root"
            )
        (one, source), (two, target) = (self._of_scale(part, seed) for part in own.adapt)
        digest = task_digest(name, source.digest, target.digest)
        return key, known.setdefault(key, Videos({}, (one, two), "", name, own.recipe, digest))

    def _drawn(
        self, name: str, like: str, fields: Mapping[str, Any], seed: int | None
    ) -> tuple[str, Videos]:
        """Return the key and the videos of a drawn dataset. Specs call it `like`."""
        key, known = name if seed is None else f"{name}-{seed}", self.found.datasets
        if key not in known:
            generate = dict(fields) if seed is None else {**fields, "seed": seed}
            digest = parse_params(generate, f"datasets.{name}.generate").digest
            recipe = self.scale.datasets[like].recipe
            known[key] = Videos(generate, name=like, recipe=recipe, digest=digest)
        return key, known[key]

    def _title(self, name: str) -> str:
        """Return the name of a dataset for readers. Stand-ins are marked."""
        place = self.study.datasets[name]
        if place.title or not place.use:
            return place.title or name
        title = title_of(place.use)
        if place.pretrained_on:
            title += f" after {title_of(self.study.datasets[place.pretrained_on].use)}"
        return title + " stand-in (generated)" * (not self.scale.datasets[place.use].root)


def _after(start: Pretrain, parent: str) -> Layer:
    """Return the fields of a run that goes on from another one, with the model of `start`."""
    return dotted(start.model.model_dump(mode="json"), "model.") | {"parent": parent}


@cache
def _fields(recipe: Spec) -> dict[str, Any]:
    return dotted(recipe.model_dump(mode="json"))


def with_parents(specs: Mapping[str, Spec], run_ids: Iterable[str]) -> list[Spec]:
    """Return runs and the runs that they start from, parents first."""
    wanted = {*run_ids}
    for run_id in reversed([*specs]):
        if run_id in wanted:
            wanted.update(parents(specs[run_id]))
    return [spec for run_id, spec in specs.items() if run_id in wanted]
