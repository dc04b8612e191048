"""Expand studies at a scale to a plan: their numbers, and the runs that have them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from mgm.errors import UserError, nearest, valid
from mgm.results.plan import NO_SEED, Cell, Plan
from mgm.spec import (
    MASKS,
    Data,
    Finetune,
    Mask,
    Measure,
    Pretrain,
    Probe,
    Run,
    Spec,
    Visualise,
    parse,
    title_of,
)
from mgm.study import recipes
from mgm.study.formula import Formula, parse_formula
from mgm.study.scales import Scale, ScaleDataset, set_field
from mgm.study.schema import (
    BEFORE_SCALE,
    CONTROLS,
    At,
    Numbers,
    Prediction,
    Row,
    Study,
    View,
)

R = TypeVar("R", bound=Run)
# The numbers of the paper's figures, by what their clips show.
FIGURES = {"masks": "5", "attention": "6", "overlays": "7", "reconstructions": "8"}


class Layer(NamedTuple):
    """Fields of a run, by their dotted names, that one place sets.

    Attributes:
        name: recipe, scale, study, row, column, or what else sets them.
        source: where a reader finds them.
    """

    name: str
    source: str
    values: Mapping[str, Any]


# The layers of each run, by its id. A later layer replaces the fields of an earlier one.
Layers = dict[str, Sequence[Layer]]


def expand(
    studies: Sequence[Study],
    scale: Scale,
    datasets: Mapping[str, ScaleDataset],
    layers: Layers | None = None,
) -> Plan:
    """Return the plan of studies at a scale. A run of several cells is one run.

    Args:
        datasets: by key, with their digests (`mgm.study.videos.datasets_of`).
        layers: is filled with the layers of each run.

    Raises:
        UserError: a run cannot be made, or a study names what selects no cell.
    """
    plan = Plan(scale.name, [], {}, scale.caveat)
    for study in studies:
        with valid(f"study {study.study}: "):
            noted = {} if layers is None else layers
            runs = _Runs(study, scale, datasets, plan.specs, noted)
            cells = list(runs.cells())
        _require_cells(study, cells)
        plan.cells.extend([*cells, *runs.pictures()])
    return plan


def key_of(study: Study, name: str, dataset_seed: int | None) -> str:
    """Return the key of the videos of a study's dataset."""
    name = study.datasets[name].videos_of or name
    place = study.datasets[name]
    return place.use or (name if place.generate is None else f"{name}-{dataset_seed}")


@dataclass(frozen=True)
class _Runs:
    """The runs of one study, which are added to `specs` with their parents before them."""

    study: Study
    scale: Scale
    datasets: Mapping[str, ScaleDataset]
    specs: dict[str, Spec]
    layers: Layers

    def cells(self) -> Iterator[Cell]:
        """Yield the numbers of the study: datasets x dataset seeds x seeds x rows x columns."""
        for at, columns, of_scale in self._places():
            key, source_key = self._keys(at)
            start_of, row_of = dict[str, Pretrain](), dict[tuple[str, str], str]()
            for title, row in self.study.rows.items():
                if at._replace(row=title) not in row.only or (row.figure_only and not of_scale):
                    continue
                start, above, last = self._pretrained(title, row, source_key, at, start_of)
                for column in columns:
                    place = at._replace(row=title, column=column)
                    evaluation = self.study.columns[column]
                    if place not in row.only or place not in evaluation.only:
                        continue
                    if evaluation.stage == "measure":
                        yield from self._measured(place, row, start, above, source_key)
                        continue
                    for spec in above:
                        self._add(spec)
                    test = self._test(key, at, column, start, last)
                    if (other := row_of.setdefault((column, test.run_id), title)) != title:
                        raise UserError(
                            f"study {self.study.study}: rows.{title}: has the same runs as "
                            f"{other}; leave one out"
                        )
                    begun = start.run_id if above and above[0].stage == "pretrain" else ""
                    yield self._cell(place, self._add(test), evaluation.metric, begun)
            yield from self._controls(at)

    def _places(self) -> Iterator[tuple[At, list[str], bool]]:
        """Yield each dataset, dataset seed and seed, with its columns.

        The last value says whether rows of figures alone have it: they have the scale's seeds, and
        no more.
        """
        study, scale = self.study, self.scale
        scales_own = scale.seeds_of.get(study.study, {})
        for name, place in study.datasets.items():
            if not place.tested:
                continue
            generated = study.datasets[place.videos_of or name].generate is not None
            dataset_seeds = (place.dataset_seeds or study.dataset_seeds) if generated else (None,)
            for dataset_seed in dataset_seeds:
                seeds = (
                    place.seeds or study.seeds or (() if dataset_seed is None else (dataset_seed,))
                )
                seeds_of = {
                    column: seeds or scales_own.get(column, scale.seeds) for column in study.columns
                }
                every = seeds or sorted({seed for own in seeds_of.values() for seed in own})
                for seed in every:
                    columns = [column for column in study.columns if seed in seeds_of[column]]
                    yield At(name, dataset_seed, seed), columns, bool(seeds) or seed in scale.seeds

    def _keys(self, at: At) -> tuple[str, str]:
        """Return the keys of the videos that are tested, and of those that pretrain."""
        source = self.study.datasets[at.dataset].pretrained_on or at.dataset
        return key_of(self.study, at.dataset, at.dataset_seed), key_of(
            self.study, source, at.dataset_seed
        )

    def _pretrained(
        self, title: str, row: Row, key: str, at: At, start_of: dict[str, Pretrain]
    ) -> tuple[Pretrain, list[Pretrain | Finetune], str]:
        """Return a row's pretraining, the runs before its evaluation, and the id of the last."""
        changes, above = dict(row.changes), list[Pretrain | Finetune]()
        if parent := start_of.get(row.start):
            changes = {"parent": parent.run_id, **changes}
            above.append(parent)
        elif row.start not in ("", "none"):
            raise UserError(
                f"study {self.study.study}: rows.{title}: goes on from {row.start}, which has no "
                "run there; put that row first"
            )
        start = start_of[title] = self._pretraining(title, key, at, changes)
        last = ""
        if row.start != "none":
            above.append(start)
            last = start.run_id
        if row.then:
            recipe = self._recipe(key)
            then = recipes.finetune(recipe)
            if row.then == "supervised":
                then = recipes.supervised(recipe)
            above.append(self._built(then, key, at, self._after(start, last)))
            last = above[-1].run_id
        return start, above, last

    def _pretraining(self, title: str, key: str, at: At, changes: Mapping[str, Any]) -> Pretrain:
        """Return the pretraining of a row: its recipe, as the scale runs it, with its changes."""
        study, spec = self.study, Pretrain(data=Data(dataset=key))
        mask = changes.get("mask", "mgm")
        if mask not in MASKS:
            raise UserError(
                f"study {study.study}: mask: {mask!r} is unknown; {nearest(str(mask), MASKS)} "
                "(its fields are mask.FIELD)"
            )
        if study.scale:
            backbone = changes.get("backbone", study.backbone)
            if backbone not in recipes.MODELS:
                raise UserError(f"study {study.study}: backbone: {backbone!r} is unknown")
            epochs = changes.get("epochs", study.epochs)
            spec = recipes.pretrain(self._recipe(key), mask, epochs, backbone)
        elif "mask" in changes:
            ratio = recipes.MASK_RATIO[mask]
            spec = spec.model_copy(update={"mask": Mask(name=mask, ratio=ratio)})
        own = {name: value for name, value in changes.items() if name not in BEFORE_SCALE}
        if own.get("mask.guidance") == "flow":
            own["mask.guidance"] = self.scale.flow
        layer = Layer("row", f"study {study.study}: rows.{title}", own)
        return self._built(spec, key, at, layer)

    def _test(
        self, key: str, at: At, column: str, start: Pretrain, parent: str
    ) -> Probe | Finetune:
        """Return a run of a column that tests the run `parent`, or random weights."""
        evaluation = self.study.columns[column]
        probes = evaluation.stage == "probe"
        spec: Probe | Finetune = (Probe if probes else Finetune)(data=Data(dataset=key))
        if self.study.scale:
            recipe, head = self._recipe(key), evaluation.changes.get("head", "linear")
            spec = recipes.probe(recipe) if probes else recipes.finetune(recipe, head)
        own = Layer("column", f"study {self.study.study}: columns.{column}", evaluation.changes)
        return self._built(spec, key, at, own, self._after(start, parent))

    def _measured(
        self,
        at: At,
        row: Row,
        start: Pretrain,
        above: Sequence[Pretrain | Finetune],
        key: str,
    ) -> Iterator[Cell]:
        """Yield the number of a measured column, of the videos that pretrain."""
        column = self.study.columns[at.column]
        name, dataset = column.changes["name"], self.datasets[key]
        explained = name == "explained"
        # Random weights have no mask to measure.
        if row.start == "none":
            return
        if explained:
            for spec in above:
                self._add(spec)
        same = {"clips", "model", "seed"} | ({"mask"} if name == "visible" else set())
        data = {"dataset": dataset.name or key, "digest": dataset.digest}
        measure = Measure(name=name, data=Data(**data), **start.model_dump(include=same))
        fields = measure.model_dump(mode="json")
        own = Layer("column", f"study {self.study.study}: columns.{at.column}", column.changes)
        parent = start.run_id if explained else ""
        layers = [own, Layer("parent", parent, {"parent": parent})]
        run = self._add(self._noted(self._changed(fields, layers), layers))
        yield self._cell(at, run, column.metric, parent)

    def _controls(self, at: At) -> Iterator[Cell]:
        """Yield the controls of a dataset seed's first seed, or of each seed of the scale."""
        seeds = self.study.datasets[at.dataset].seeds or self.study.seeds
        seeds = seeds[:1] or (self.scale.seeds if at.dataset_seed is None else (at.dataset_seed,))
        if at.seed not in seeds:
            return
        key, source_key = self._keys(at)
        for column in self.study.controls:
            if at._replace(column=column) not in self.study.columns[column].only:
                continue
            plain = self._pretraining("", source_key, at, {})
            probe = self._test(key, at, column, plain, "")
            assert isinstance(probe, Probe)
            run = self._add(recipes.controls(probe))
            for title, metric in CONTROLS.items():
                place = at._replace(row=title, column=column)
                yield self._cell(place, run, metric, "", control=True)

    def pictures(self) -> Iterator[Cell]:
        """Yield the figures of arrays, and add their runs, of the first of the scale's seeds."""
        study = self.study
        first = study.seeds or study.dataset_seeds or self.scale.seeds
        for name, view in study.views.items():
            if not view.show:
                continue
            (dataset,) = view.datasets
            run = self._picture(view, At(dataset, None, first[0]))
            where = NO_SEED, run.seed, "", "", run.stage, "", False, run.run_id, ""
            yield Cell(study.study, dataset, self._title(dataset), *where, (name,))

    def _picture(self, view: View, at: At) -> Visualise | Measure:
        key = key_of(self.study, at.dataset, None)
        shown = [
            self._pretraining(row, key, at, self.study.rows[row].changes) for row in view.rows
        ] or [self._pretraining("", key, at, {})]
        same: dict[str, Any] = shown[0].model_dump(include={"data", "clips", "model", "seed"})
        if view.show == "coverage":
            return self._add(Measure(name="coverage", mask=shown[0].mask, **same))
        number: Any = FIGURES[view.show]
        if view.rows:
            parents = tuple(self._add(run).run_id for run in shown)
            return self._add(Visualise(figure=number, parents=parents, **same))
        # Masks need no model, so the grid is the paper's.
        like = recipes.pretrain(self._recipe(key))
        clips = like.clips.model_copy(update={"crop": "centre"})
        clip = Visualise(data=Data(dataset=key), clips=clips, model=like.model, mask=shown[0].mask)
        return self._add(self._built(clip, key, at))

    def _add(self, spec: R) -> R:
        """Add a run and return it, or return the equal run that is already there."""
        return self.specs.setdefault(spec.run_id, spec)  # type: ignore[arg-type, return-value]

    def _recipe(self, key: str) -> str:
        """Return the name of the dataset whose recipe runs on the dataset `key` have."""
        return self.datasets[key].recipe or self.datasets[key].name or key

    @staticmethod
    def _after(start: Pretrain, parent: str) -> Layer:
        """Return the fields of a run that goes on from another one, with the model of `start`."""
        model = start.model.model_dump(mode="json")
        return Layer("parent", parent or "random weights", {"model": model, "parent": parent})

    def _built(self, recipe: R, key: str, at: At, *own: Layer) -> R:
        """Return a run on the dataset `key`: its recipe, with the fields of its layers.

        The scale's come first, then the settings of the study and of its dataset, then its own.
        """
        scale, dataset, stage = self.scale, self.datasets[key], recipe.stage
        where = f"scale {scale.name}"
        layers: list[Layer] = []
        if dataset.grouped and isinstance(recipe, Probe):
            layers.append(Layer("dataset", f"index of {key}", {"held_out": "groups"}))
        overrides = scale.overrides.get(stage, {})  # type: ignore[call-overload]
        layers.append(Layer("scale", f"{where}: overrides.{stage}", overrides))
        if scale.backbones:
            # Without them, a scale has full sizes.
            name = recipe.model.backbone
            if name not in scale.backbones:
                raise UserError(f"{self._where}: backbones lacks {name}; add its sizes")
            sizes = {f"model.{size}": value for size, value in scale.backbones[name].items()}
            layers.append(Layer("scale", f"{where}: backbones.{name}", sizes))
        place = self.study.datasets[at.dataset].settings
        for source, every in (("", self.study.settings), (f"datasets.{at.dataset}.", place)):
            settings = every.get(stage, {})  # type: ignore[call-overload]
            source = f"study {self.study.study}: {source}settings.{stage}"
            layers.append(Layer("study", source, settings))
        fields = self._changed(recipe.model_dump(mode="json"), layers)
        if scale.steps and "optim" in fields:
            epochs = fields["optim"]["epochs"]
            if type(epochs) is not int:
                raise UserError(
                    f"{self._where}: {stage}: optim.epochs: {epochs!r} is no whole number"
                )
            # Steps that are given have precedence.
            rule = round(scale.steps.factor * epochs**scale.steps.power)
            steps = {
                "optim.steps": fields["optim"]["steps"] or rule,
                "optim.warmup_epochs": scale.steps.warmup * epochs,
            }
            own = (Layer("scale", f"{where}: steps", steps), *own)
        data = {"data.dataset": dataset.name or key, "data.digest": dataset.digest}
        seed = Layer("seed", f"seeds of {key}", {"seed": at.seed})
        own = (Layer("dataset", key, data), seed, *own)
        return self._noted(self._changed(fields, own), [*layers, *own])  # type: ignore[return-value]

    def _changed(self, fields: dict[str, Any], layers: Iterable[Layer]) -> dict[str, Any]:
        """Set the fields that layers have, and return all."""
        for layer in layers:
            for dotted, value in layer.values.items():
                set_field(fields, dotted, value, f"{layer.source}.{dotted}")
        return fields

    def _noted(self, fields: dict[str, Any], layers: Sequence[Layer]) -> Spec:
        """Return the spec of these fields, and note its layers."""
        spec = parse(fields, self._where)
        self.layers.setdefault(spec.run_id, layers)
        return spec

    @property
    def _where(self) -> str:
        at = f"scale {self.scale.name}: " * bool(self.study.scale or self.scale.datasets)
        return f"{at}study {self.study.study}"

    def _cell(
        self,
        at: At,
        run: Spec,
        metric: str,
        pretraining: str,
        control: bool = False,
    ) -> Cell:
        """Return the cell of a number. `pretraining` is the run id of the run's pretraining."""
        study = self.study
        return Cell(
            study.study,
            at.dataset,
            self._title(at.dataset),
            NO_SEED if at.dataset_seed is None else at.dataset_seed,
            at.seed,
            at.row,
            at.column,
            run.stage,
            metric,
            control,
            run.run_id,
            pretraining,
            study.views_of(at),
        )

    def _title(self, name: str) -> str:
        """Return the name of a dataset for readers. Stand-ins are marked."""
        study, place = self.study, self.study.datasets[name]
        if place.title or not place.use:
            return place.title or name
        title = self._name_of(place.use)
        if place.pretrained_on:
            title += f" after {self._name_of(study.datasets[place.pretrained_on].use)}"
        return f"{title} (generated)" if "stand-in" in title else title

    def _name_of(self, key: str) -> str:
        made_of = self.datasets[key].adapt or (key,)
        return title_of(key) + " stand-in" * bool(self.datasets[made_of[0]].generate)


def _require_cells(study: Study, cells: Sequence[Cell]) -> None:
    """Refuse a study that names what selects no cell.

    Raises:
        UserError: the first such name.
    """

    def require(
        where: str, found: Sequence[Cell], dataset_seeds: Numbers = (), seeds: Numbers = ()
    ) -> None:
        absent = [] if found else [""]
        absent += [
            f"dataset seed {seed}: "
            for seed in sorted({*dataset_seeds} - {cell.dataset_seed for cell in found})
        ]
        # Seeds of a scale differ between scales.
        wanted = {*seeds} if study.seeds or study.dataset_seeds else set()
        absent += [f"seed {seed}: " for seed in sorted(wanted - {cell.seed for cell in found})]
        if absent:
            raise UserError(
                f"study {study.study}: {where}: {absent[0]}has no run; correct it, or leave it out"
            )

    def require_terms(where: str, formula: Formula, column: str, one: Prediction | None) -> None:
        for term in formula.terms:
            named = term.row, term.column or column
            datasets = study.datasets_of(one.dataset) if one else study.shown
            found = [
                cell
                for cell in cells
                if cell.dataset in datasets
                and all(a in (b, "*", "") for a, b in zip(named, (cell.row, cell.column)))
            ]
            only = (one.dataset_seeds, one.seeds) if one else ()
            require(f"{where}: {term.row}", found, *only)

    for name in study.shown:
        require(f"datasets.{name}", [cell for cell in cells if cell.dataset == name])
    for name, row in study.rows.items():
        found = [cell for cell in cells if cell.row == name]
        require(f"rows.{name}", found, row.only.dataset_seeds, row.only.seeds)
    for name, column in study.columns.items():
        found = [cell for cell in cells if cell.column == name]
        require(f"columns.{name}", found, column.only.dataset_seeds, column.only.seeds)
    for key, view in study.views.items():
        if not view.show:
            require(f"views.{key}", [cell for cell in cells if key in cell.views])
    for text in chain.from_iterable(study.compare.values()):
        require_terms(f"compare: {text}", parse_formula(text), "", None)
    first = next(iter(study.columns))
    for one in study.predictions:
        where = f"predictions: {one.dataset}: {one.says}"
        require_terms(where, one.statement.formula, one.column or first, one)
