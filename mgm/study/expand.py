"""Expand studies at a scale to a plan: their numbers, and the runs that have them.

A study is a cross join: datasets x dataset seeds x seeds x rows x columns (`places`). Each place
has a number of one run. A run is a recipe with layers of fields, of which a later one wins: those
of the scale, of the study, of its dataset, and of the row or the column. A run of several places is
one run.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain
from typing import Any, NamedTuple, TypeVar, cast

from mgm.errors import UserError, valid
from mgm.results.plan import NO_SEED, Cell, RunPlan
from mgm.spec import (
    Data,
    Finetune,
    Mask,
    Measure,
    Pretrain,
    Probe,
    Run,
    Spec,
    Visualise,
    dotted,
    nested,
    parents,
    title_of,
)
from mgm.study import recipes
from mgm.study.scales import Scale, ScaleDataset
from mgm.study.schema import CONTROLS, PLAIN, Stage, Study, View
from mgm.study.selection import At

R = TypeVar("R", bound=Run)
# The numbers of the paper's figures, by what their clips show.
FIGURES = {"masks": "5", "attention": "6", "overlays": "7", "reconstructions": "8"}
# Runs of a study without a scale have the defaults of a spec. Each run sets its own dataset.
ANY = Data(dataset="any")


class Layer(NamedTuple):
    """Fields of a run, by their dotted names, that one place sets.

    Attributes:
        name: recipe, scale, study, row, column, or what else sets them.
        source: where a reader finds them.
    """

    name: str
    source: str
    fields: Mapping[str, Any]


# The layers of each run, by its id.
Layers = dict[str, Sequence[Layer]]


def expand(
    studies: Sequence[Study],
    scale: Scale,
    datasets: Mapping[str, ScaleDataset],
    layers: Layers | None = None,
) -> RunPlan:
    """Return the plan of studies at a scale.

    Args:
        datasets: by key, with their digests (`mgm.study.videos.datasets_of`).
        layers: is filled with the layers of each run.

    Raises:
        UserError: a run cannot be made, or a study names what selects no cell.
    """
    plan = RunPlan(scale.name, [], {}, scale.caveat)
    for study in studies:
        runs = _Runs(study, scale, datasets, plan.specs, {} if layers is None else layers)
        with valid(f"{runs.where}: "):
            cells = [runs.cell(at) for at in places(study, scale)]
            pictures = [runs.picture(name, view) for name, view in study.views.items() if view.show]
        _require_distinct(study, cells)
        _require_cells(study, cells)
        _require_read(study, {run.stage for run in runs.made.values()})
        plan.cells.extend([*cells, *pictures])
    return plan


def places(study: Study, scale: Scale) -> Iterator[At]:
    """Yield each place of a study that has a number, without those that `only` leaves out."""
    seeds_of = scale.seeds_of.get(study.study, {})
    for name, dataset in study.datasets.items():
        for dataset_seed in study.dataset_seeds_of(name) if dataset.tested else ():
            given = () if dataset_seed is None else (dataset_seed,)
            own = dataset.seeds or study.seeds or given
            seeds = {column: own or seeds_of.get(column, scale.seeds) for column in study.columns}
            for seed in own or sorted({*chain.from_iterable(seeds.values())}):
                at = At(name, dataset_seed, seed)
                for title, row in study.rows.items():
                    # Rows of figures alone have the scale's seeds, and no more.
                    if row.figure_only and seed not in (own or scale.seeds):
                        continue
                    for column in study.columns:
                        if seed in seeds[column] and study.has(at.of(title, column)):
                            yield at.of(title, column)
                # Controls have no model, so one seed is enough.
                for column in study.controls if seed in (own[:1] or scale.seeds) else ():
                    if study.has(at.of("", column)):
                        yield from (at.of(title, column) for title in CONTROLS)


@dataclass(frozen=True)
class _Runs:
    """The runs of one study, which are added to `specs` with their parents before them.

    Attributes:
        made: every run that was made, also those that only another one is like.
        at: the pretraining and the controls of places that share them.
    """

    study: Study
    scale: Scale
    datasets: Mapping[str, ScaleDataset]
    specs: dict[str, Spec]
    layers: Layers
    made: dict[str, Spec] = field(default_factory=dict)
    at: dict[At, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        scale = f"scale {self.scale.name}: " * bool(self.study.scale or self.scale.datasets)
        return scale + self._study

    @property
    def _study(self) -> str:
        return f"study {self.study.study}"

    @cached_property
    def views(self) -> dict[str, View]:
        return self.study.shown_views

    def cell(self, at: At) -> Cell:
        """Return the cell of a place, and add its run."""
        column, pretraining = self.study.columns[at.column], ""
        metric = CONTROLS.get(at.row, column.metric)
        if at.row in CONTROLS:
            run: Spec = self._controls(at)
        elif column.stage == "measure":
            run = self._measurement(at)
            pretraining = run.parent
        else:
            run = self._test(at, self._last(at))
            pretraining = "" if self.study.rows[at.row].start == "none" else self._start(at).run_id
        place = at.dataset, at.row, at.column
        views = [
            key for key, view in self.views.items() if at in view and self.study.shows(view, *place)
        ]
        return self._cell(at, self._add(run), metric, pretraining, (*views,))

    def picture(self, name: str, view: View) -> Cell:
        """Return the cell of a view of arrays, and add its run, of the first seeds."""
        (dataset,) = view.datasets
        first = self.study.seeds or self.study.dataset_seeds or self.scale.seeds
        at = At(dataset, self.study.dataset_seeds_of(dataset)[0], first[0])
        return self._cell(at, self._add(self._picture(at, view)), "", "", (name,))

    def _cell(
        self, at: At, run: Spec, metric: str, pretraining: str, views: tuple[str, ...]
    ) -> Cell:
        return Cell(
            study=self.study.study,
            dataset=at.dataset,
            title=self._title(at.dataset),
            dataset_seed=NO_SEED if at.dataset_seed is None else at.dataset_seed,
            seed=at.seed,
            row=at.row,
            column=at.column,
            stage=run.stage,
            metric=metric,
            control=at.row in CONTROLS,
            run_id=run.run_id,
            pretraining=pretraining,
            views=views,
        )

    def _add(self, spec: Spec) -> Spec:
        """Add a run after those that it starts from. Return it, or the equal run that is there."""
        for parent in parents(spec):
            if parent not in self.specs:
                self._add(self.made[parent])
        return self.specs.setdefault(spec.run_id, spec)

    def _start(self, at: At) -> Pretrain:
        """Return the pretraining of a place's row. Controls and pictures have the plain one's."""
        if (at := at.of(at.row)) in self.at:
            return self.at[at]
        row, key = self.study.rows.get(at.row, PLAIN), self._source_key(at)
        if not self.study.scale:
            mask = Mask(name=row.mask, ratio=recipes.MASK_RATIO[row.mask])
            recipe = Pretrain(data=ANY, mask=mask)
        else:
            epochs, backbone = row.epochs or self.study.epochs, row.backbone or self.study.backbone
            # Without backbones, a scale has full sizes.
            if self.scale.backbones and backbone not in self.scale.backbones:
                raise UserError(f"{self.where}: backbones lacks {backbone}; add its sizes")
            recipe = recipes.pretrain(self._recipe(key), row.mask, epochs, backbone)
        own = dict(row.changes)
        if own.get("mask.guidance") == "flow":
            own["mask.guidance"] = self.scale.flow
        if row.start not in ("", "none"):
            own["parent"] = self._start(at.of(row.start)).run_id
        layer = Layer("row", f"{self._study}: rows.{at.row}", own)
        return self.at.setdefault(at, self._run(recipe, at, key, layer))

    def _last(self, at: At) -> str:
        """Return the id of a row's last training, which is tested; empty for random weights."""
        row, start, key = self.study.rows[at.row], self._start(at), self._source_key(at)
        last = "" if row.start == "none" else start.run_id
        if not row.then:
            return last
        recipe = recipes.finetune if row.then == "finetune" else recipes.supervised
        return self._run(recipe(self._recipe(key)), at, key, _after(start, last)).run_id

    def _test(self, at: At, parent: str) -> Probe | Finetune:
        """Return the run that tests the run `parent`, or random weights of the same model."""
        column, key = self.study.columns[at.column], self._key(at)
        recipe: Probe | Finetune = Finetune(data=ANY)
        if column.stage == "probe":
            recipe = recipes.probe(self._recipe(key)) if self.study.scale else Probe(data=ANY)
        elif self.study.scale:
            recipe = recipes.finetune(self._recipe(key), column.changes.get("head", "linear"))
        return self._run(recipe, at, key, self._column(at), _after(self._start(at), parent))

    def _measurement(self, at: At) -> Measure:
        """Return the run that measures a row's mask, or its model, on the videos that pretrain."""
        column, start = self.study.columns[at.column], self._start(at)
        recipe = Measure(name=column.changes["name"], data=ANY)
        same = {"clips", "model"} | ({"mask"} if recipe.name == "visible" else set())
        fields = dotted(start.model_dump(mode="json", include=same))
        if recipe.name == "explained":
            fields["parent"] = start.run_id
        like = Layer("parent", start.run_id, fields)
        return self._run(recipe, at, self._source_key(at), like, self._column(at))

    def _controls(self, at: At) -> Measure:
        """Return the run that measures all controls of a column, with the column's labels."""
        if (at := at.of("", at.column)) not in self.at:
            probe = self._test(at, "")
            assert isinstance(probe, Probe)
            self.at[at] = recipes.controls(probe)
        return self.at[at]

    def _picture(self, at: At, view: View) -> Visualise | Measure:
        """Return the run that writes a view's arrays."""
        starts = [self._start(at.of(row)) for row in view.rows or [""]]
        same: dict[str, Any] = starts[0].model_dump(include={"data", "clips", "model", "seed"})
        if view.show == "coverage":
            return Measure(name="coverage", mask=starts[0].mask, **same)
        number: Any = FIGURES[view.show]
        if view.rows:
            return Visualise(figure=number, parents=[run.run_id for run in starts], **same)
        # Masks need no model, so the grid is the paper's.
        key = self._source_key(at)
        like = recipes.pretrain(self._recipe(key))
        clips = like.clips.model_copy(update={"crop": "centre"})
        recipe = Visualise(data=ANY, clips=clips, model=like.model, mask=starts[0].mask)
        return self._run(recipe, at, key)

    def _run(self, recipe: R, at: At, key: str, *own: Layer) -> R:
        """Return a run on the videos `key`: its recipe with the layers of a place."""
        study, scale, stage = self.study, self.scale, cast(Stage, recipe.stage)
        dataset, settings = self.datasets[key], study.datasets[at.dataset].settings
        backbone, where = recipe.model.backbone, f"scale {scale.name}"
        sizes = scale.backbones.get(backbone, {})
        grouped = {"held_out": "groups"} if dataset.grouped and stage == "probe" else {}
        layers = [
            Layer("dataset", f"index of {key}", grouped),
            Layer("scale", f"{where}: overrides.{stage}", scale.overrides.get(stage, {})),
            Layer("scale", f"{where}: backbones.{backbone}", dotted(sizes, "model.")),
            Layer("study", f"{self._study}: settings.{stage}", study.settings.get(stage, {})),
            Layer(
                "study",
                f"{self._study}: datasets.{at.dataset}.settings.{stage}",
                settings.get(stage, {}),
            ),
        ]
        fields = _changed(_fields(recipe), layers)
        named = {"data.dataset": dataset.name or key, "data.digest": dataset.digest}
        last = [
            Layer("scale", f"{where}: steps", scale.steps.of(fields) if scale.steps else {}),
            Layer("dataset", key, named),
            Layer("seed", f"seeds of {key}", {"seed": at.seed}),
            *own,
        ]
        run = type(recipe).model_validate(nested(_changed(fields, last)))
        self.layers.setdefault(run.run_id, [*layers, *last])
        self.made[run.run_id] = run  # type: ignore[assignment]
        return run

    def _key(self, at: At) -> str:
        """Return the key of the videos that a place tests."""
        name = self.study.datasets[at.dataset].videos_of or at.dataset
        dataset = self.study.datasets[name]
        return dataset.use or (name if dataset.generate is None else f"{name}-{at.dataset_seed}")

    def _source_key(self, at: At) -> str:
        """Return the key of the videos that pretrain for a place."""
        source = self.study.datasets[at.dataset].pretrained_on or at.dataset
        return self._key(at._replace(dataset=source))

    def _recipe(self, key: str) -> str:
        """Return the name of the dataset whose recipe runs on the videos `key` have."""
        return self.datasets[key].recipe or self.datasets[key].name or key

    def _column(self, at: At) -> Layer:
        changes = self.study.columns[at.column].changes
        return Layer("column", f"{self._study}: columns.{at.column}", changes)

    def _title(self, name: str) -> str:
        """Return the name of a dataset for readers. Stand-ins are marked."""
        datasets = self.study.datasets
        if datasets[name].title or not datasets[name].use:
            return datasets[name].title or name
        title = self._name_of(datasets[name].use)
        if source := datasets[name].pretrained_on:
            title += f" after {self._name_of(datasets[source].use)}"
        return f"{title} (generated)" if "stand-in" in title else title

    def _name_of(self, key: str) -> str:
        made_of = self.datasets[key].adapt or (key,)
        return title_of(key) + " stand-in" * bool(self.datasets[made_of[0]].generate)


def _after(start: Pretrain, parent: str) -> Layer:
    """Return the fields of a run that goes on from another one, with the model of `start`."""
    fields = dotted(start.model.model_dump(mode="json"), "model.") | {"parent": parent}
    return Layer("parent", parent or "random weights", fields)


@cache
def _fields(recipe: Run) -> Mapping[str, Any]:
    return dotted(recipe.model_dump(mode="json"))


def _changed(fields: Mapping[str, Any], layers: Iterable[Layer]) -> dict[str, Any]:
    """Return fields with those that layers set.

    Raises:
        UserError: a layer sets a field that is not there.
    """
    changed = {**fields}
    for layer in layers:
        own = dotted(layer.fields)
        if unknown := own.keys() - changed.keys():
            source = f"{layer.source}.{min(unknown)}"
            raise UserError(f"{source} is not a field of a spec; correct its name")
        changed |= own
    return changed


def _require_distinct(study: Study, cells: Iterable[Cell]) -> None:
    """Refuse a study of which two rows have the same run. Measurements of two rows may agree."""
    rows = dict[tuple[str, str, str], str]()
    for cell in cells:
        place = cell.dataset, cell.column, cell.run_id
        if cell.stage != "measure" and (other := rows.setdefault(place, cell.row)) != cell.row:
            raise UserError(
                f"study {study.study}: rows.{cell.row}: has the same runs as {other}; leave one out"
            )


def _require_cells(study: Study, cells: Iterable[Cell]) -> None:
    """Refuse a study that names what selects no cell."""
    seeds, shown = defaultdict[tuple[str, str, str], set[tuple[int, int]]](set), set[str]()
    for cell in cells:
        seeds[cell.dataset, cell.row, cell.column].add((cell.dataset_seed, cell.seed))
        shown.update(cell.views)
    absent = [
        f"views.{key}" for key, view in study.views.items() if not (view.show or key in shown)
    ]
    for where, chosen in study.selections():
        found = {seed for place, own in seeds.items() if chosen.names(*place) for seed in own}
        if not found and not isinstance(chosen, View):
            absent.append(where)
        lacking = {*chosen.dataset_seeds} - {dataset_seed for dataset_seed, _ in found}
        absent += [f"{where}: dataset seed {seed}" for seed in sorted(lacking)]
        # Seeds of a scale differ between scales.
        if study.seeds or study.dataset_seeds:
            lacking = {*chosen.seeds} - {seed for _, seed in found}
            absent += [f"{where}: seed {seed}" for seed in sorted(lacking)]
    if absent:
        raise UserError(
            f"study {study.study}: {absent[0]}: has no run; correct it, or leave it out"
        )


def _require_read(study: Study, stages: Collection[str]) -> None:
    """Refuse settings of a stage that no run has."""
    places = {f"datasets.{name}.": one.settings for name, one in study.datasets.items()}
    for where, settings in {"": study.settings, **places}.items():
        if unread := settings.keys() - stages:
            raise UserError(
                f"study {study.study}: {where}settings.{min(unread)}: no run of this study reads "
                "it; leave it out"
            )
