"""Expand studies at a scale to a plan: their numbers, and the runs that have them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from types import MappingProxyType
from typing import Any

from mgm.errors import UserError, nearest, valid
from mgm.results.plan import UNDRAWN, Cell, Plan
from mgm.spec import (
    MASKS,
    Data,
    Finetune,
    Mask,
    Measure,
    Pretrain,
    Probe,
    Spec,
    Visualise,
    parse,
    title_of,
)
from mgm.study import recipes
from mgm.study.formula import Formula, parse_formula
from mgm.study.quoted import paper_numbers
from mgm.study.scales import Dataset, R, Scale, set_field
from mgm.study.schema import (
    BEFORE_SCALE,
    CONTROLS,
    PATHS,
    Against,
    At,
    Column,
    Numbers,
    Order,
    Over,
    Picture,
    Prediction,
    Row,
    Study,
    allows,
)

# The paper's figures of these kinds.
FIGURES = {"masks": "5", "attention": "6", "overlays": "7", "reconstructions": "8"}


def expand(
    studies: Sequence[Study],
    scale: Scale,
    datasets: Mapping[str, Dataset],
    weights: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Return the plan of studies at a scale. A run of several cells is one run.

    Args:
        datasets: by key, with their digests (`mgm.study.videos.datasets_of`).
        weights: run ids of the files of weights that rows start from.

    Raises:
        UserError: a run cannot be made, or a study names what selects no cell.
    """
    plan = Plan(scale.name, [], {}, scale.caveat)
    for study in studies:
        with valid(f"study {study.study}: "):
            runs = _Runs(study, scale, datasets, weights, plan.specs)
            cells = list(runs.cells())
        _require_cells(study, cells)
        plan.cells.extend([*cells, *runs.pictures()])
    return plan


def key_of(study: Study, name: str, draw: int | None) -> str:
    """Return the key of the videos of a study's dataset."""
    name = study.datasets[name].videos_of or name
    place = study.datasets[name]
    return place.use or (name if place.generate is None else f"{name}-{draw}")


@dataclass(frozen=True)
class _Runs:
    """The runs of one study, which are added to `specs` with their parents before them."""

    study: Study
    scale: Scale
    datasets: Mapping[str, Dataset]
    weights: Mapping[str, str]
    specs: dict[str, Spec]

    def add(self, spec: R) -> R:
        """Add a run and return it, or return the equal run that is already there."""
        return self.specs.setdefault(spec.run_id, spec)  # type: ignore[arg-type, return-value]

    def cells(self) -> Iterator[Cell]:
        """Yield the numbers of the study: dataset by dataset, draw by draw, seed by seed."""
        study, choices = self.study, dict[tuple[str, ...], tuple[str, ...]]()
        for name, place in study.datasets.items():
            if not place.tested:
                continue
            draws: tuple[int | None, ...] = place.draws or study.draws
            if study.datasets[place.videos_of or name].generate is None:
                draws = (None,)
            for draw in draws:
                seeds = place.seeds or study.seeds or (() if draw is None else (draw,))
                seeds_of = {column: seeds or self.seeds_of(column) for column in study.columns}
                # Controls have the first seed of a draw, and at a scale's seeds each of its own.
                controlled = seeds[:1] or self.scale.seeds
                every = seeds or sorted({seed for own in seeds_of.values() for seed in own})
                for seed in every:
                    at = At(name, draw, seed)
                    columns = [column for column in study.columns if seed in seeds_of[column]]
                    # Rows that no table compares need no more seeds than the scale's.
                    few = not seeds and seed not in self.scale.seeds
                    yield from self._rows(at, columns, few, choices)
                    if seed in controlled:
                        yield from self._controls(at)

    def seeds_of(self, column: str) -> tuple[int, ...]:
        """Return the seeds that the scale has for a column."""
        own = self.scale.seeds_of.get(self.study.study, {})
        return own.get(column, self.scale.seeds)

    def _keys(self, at: At) -> tuple[str, str]:
        """Return the keys of the videos that are tested, and of those that pretrain."""
        source = self.study.datasets[at.dataset].pretrained_on or at.dataset
        return key_of(self.study, at.dataset, at.draw), key_of(self.study, source, at.draw)

    def _rows(
        self,
        at: At,
        columns: Sequence[str],
        few: bool,
        choices: dict[tuple[str, ...], tuple[str, ...]],
    ) -> Iterator[Cell]:
        """Yield the numbers of the rows of one dataset, draw and seed, and add their runs.

        Args:
            few: leave out rows that stand in no table.
            choices: run ids that choose the settings of a dataset's row and column. The first seed
                adds them.
        """
        study = self.study
        key, source_key = self._keys(at)
        start_of, row_of = dict[str, Pretrain](), dict[tuple[str, str], str]()
        for title, row in study.rows.items():
            if at._replace(row=title) not in row.only or (few and row.figure_only):
                continue
            start, above, last = self._pretrained(title, row, source_key, at, start_of)
            for column, evaluation in study.columns.items():
                place = at._replace(row=title, column=column)
                wanted = column in columns and place in row.only and place in evaluation.only
                measured = evaluation.stage == "measure"
                explained = measured and evaluation.changes["name"] == "explained"
                # Random weights have no mask to measure, and external weights no decoder.
                if not wanted or (measured and row.start == "none") or (explained and row.weights):
                    continue
                for spec in above if explained or not measured else ():
                    self.add(spec)
                # A measurement is of the videos that pretrain.
                if measured:
                    run = self._measurement(source_key, at.seed, evaluation, start)
                    first = start.run_id if explained else ""
                    run = self.add(run.model_copy(update={"parent": first}) if first else run)
                    yield self._cell(place, row, run, evaluation.metric, start, first)
                    continue
                test = self._test(key, at, evaluation, start, last)
                if evaluation.choose:
                    where = at.dataset, title, column
                    if where not in choices:
                        choices[where] = self._choices(key, test, evaluation)
                    test = test.model_copy(update={"choices": choices[where]})
                if (other := row_of.setdefault((column, test.run_id), title)) != title:
                    raise UserError(
                        f"study {study.study}: rows.{title}: has the same runs as {other}; "
                        "leave one out"
                    )
                begun = start if above and above[0].stage == "pretrain" else None
                first = start.run_id if begun else last if row.weights else ""
                yield self._cell(place, row, self.add(test), evaluation.metric, begun, first)

    def _pretrained(
        self, title: str, row: Row, key: str, at: At, start_of: dict[str, Pretrain]
    ) -> tuple[Pretrain, list[Pretrain | Finetune], str]:
        """Return a row's pretraining, the runs before its evaluation, and the id of the last."""
        where, changes = f"study {self.study.study}: rows.{title}", dict(row.changes)
        above: list[Pretrain | Finetune] = []
        if parent := start_of.get(row.start):
            changes = {"parent": parent.run_id, **changes}
            above = [parent]
        elif row.start not in ("", "none") and not row.weights:
            raise UserError(
                f"{where}: goes on from {row.start}, which has no run there; put that row first"
            )
        start = start_of[title] = self._pretraining(key, at, changes)
        last = ""
        if row.weights:
            if row.weights not in self.weights:
                raise UserError(f"{where}.from: {row.weights}: no weights")
            last = self.weights[row.weights]
        elif row.start != "none":
            above.append(start)
            last = start.run_id
        if row.then:
            then = recipes.supervised(key) if row.then == "supervised" else recipes.finetune(key)
            built = self._built(then, key, at, {})
            above.append(built.model_copy(update={"parent": last, "model": start.model}))
            last = above[-1].run_id
        return start, above, last

    def _pretraining(self, key: str, at: At, changes: Mapping[str, Any]) -> Pretrain:
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
            spec = recipes.pretrain(key, mask, changes.get("epochs", study.epochs), backbone)
        elif "mask" in changes:
            ratio = recipes.MASK_RATIO[mask]
            spec = spec.model_copy(update={"mask": Mask(name=mask, ratio=ratio)})
        own = {name: value for name, value in changes.items() if name not in BEFORE_SCALE}
        if own.get("mask.guidance") == "flow":
            own["mask.guidance"] = self.scale.flow
        return self._built(spec, key, at, own)

    def _test(
        self, key: str, at: At, column: Column, start: Pretrain, parent: str
    ) -> Probe | Finetune:
        """Return a run that tests a model of the sizes of `start`."""
        probes = column.stage == "probe"
        spec: Probe | Finetune = (Probe if probes else Finetune)(data=Data(dataset=key))
        if self.study.scale:
            spec = (recipes.probe if probes else recipes.finetune)(key)
        run = self._built(spec, key, at, column.changes)
        return run.model_copy(update={"model": start.model, "parent": parent})

    def _measurement(self, key: str, seed: int, column: Column, start: Pretrain) -> Measure:
        name, dataset = column.changes["name"], self.datasets[key]
        data = Data(dataset=dataset.name or key, digest=dataset.digest)
        of_mask = name in ("cover", "visible")
        shared = {"clips", "model", "seed"} | ({"mask"} if of_mask else set())
        same: dict[str, Any] = start.model_dump(include=shared)
        return self._changed(Measure(name=name, data=data, **same), column.changes)

    def _choices(self, key: str, run: Probe | Finetune, column: Column) -> tuple[str, ...]:
        """Add a run on held-out videos for each combination, and return their ids."""
        unit = "groups" if self.datasets[key].grouped else "videos"
        tried = (dict(zip(column.choose, values)) for values in product(*column.choose.values()))
        specs = (self._changed(run, fields | {"held_out": unit}) for fields in tried)
        return tuple(self.add(spec).run_id for spec in specs)

    def _controls(self, at: At) -> Iterator[Cell]:
        key, source_key = self._keys(at)
        for column in self.study.controls:
            plain = self._pretraining(source_key, at, {})
            probe = self._test(key, at, self.study.columns[column], plain, "")
            assert isinstance(probe, Probe)
            run = self.add(recipes.controls(probe))
            for title, metric in CONTROLS.items():
                place = at._replace(row=title, column=column)
                yield self._cell(place, Row(), run, metric, None, "", control=True)

    def pictures(self) -> Iterator[Cell]:
        """Yield the figures of arrays, and add their runs, of the first of the scale's seeds."""
        study = self.study
        first = study.seeds or study.draws or self.scale.seeds
        for name, picture in study.of_kind(Picture).items():
            run = self._picture(picture, At(picture.dataset, None, first[0]))
            title = self._title(picture.dataset)
            where = UNDRAWN, run.seed, "", "", "", run.stage, "", False, run.run_id, ""
            yield Cell(study.study, picture.dataset, title, *where, (), (name,))

    def _picture(self, picture: Picture, at: At) -> Visualise | Measure:
        key = key_of(self.study, picture.dataset, None)
        rows = [self.study.rows[row].changes for row in picture.rows] or [{}]
        shown = [self._pretraining(key, at, changes) for changes in rows]
        same: dict[str, Any] = shown[0].model_dump(include={"data", "clips", "model", "seed"})
        if picture.kind == "coverage":
            return self.add(Measure(name="coverage", mask=shown[0].mask, **same))
        number: Any = FIGURES[picture.kind]
        if picture.rows:
            parents = tuple(self.add(run).run_id for run in shown)
            return self.add(Visualise(figure=number, parents=parents, **same))
        # Masks need no model, so the grid is the paper's.
        like = recipes.pretrain(key)
        clips = like.clips.model_copy(update={"crop": "centre"})
        clip = Visualise(data=Data(dataset=key), clips=clips, model=like.model, mask=shown[0].mask)
        return self.add(self._built(clip, key, at, {}))

    def _built(self, spec: R, key: str, at: At, changes: Mapping[str, Any]) -> R:
        """Return a recipe on the videos `key`, as the scale and the study run it.

        The scale's fields come first, then the settings of the study and of its dataset, then
        `changes`, those of a row or a column.
        """
        scale, study, dataset = self.scale, self.study, self.datasets[key]
        where, stage, fields = self._where, spec.stage, spec.model_dump(mode="json")
        if dataset.grouped and isinstance(spec, Probe):
            fields["held_out"] = "groups"
        for dotted, value in scale.overrides.get(stage, {}).items():  # type: ignore[call-overload]
            set_field(fields, dotted, value, f"{where}: overrides.{stage}.{dotted}")
        if scale.backbones:
            # Without them, a scale has full sizes.
            name = fields["model"]["backbone"]
            if name not in scale.backbones:
                raise UserError(f"{where}: backbones lacks {name}; add its sizes")
            fields["model"] |= scale.backbones[name]
        own = study.datasets[at.dataset].settings
        for settings in (study.settings, own):
            for dotted, value in settings.get(stage, {}).items():  # type: ignore[call-overload]
                set_field(fields, dotted, value, f"{where}: settings.{stage}.{dotted}")
        if scale.steps and "optim" in fields:
            epochs = fields["optim"]["epochs"]
            if type(epochs) is not int:
                raise UserError(f"{where}: {stage}: optim.epochs: {epochs!r} is no whole number")
            # Steps that are given have precedence.
            rule = round(scale.steps.factor * epochs**scale.steps.power)
            fields["optim"]["steps"] = fields["optim"]["steps"] or rule
            fields["optim"]["warmup_epochs"] = scale.steps.warmup * epochs
        fields["data"] |= {"dataset": dataset.name or key, "digest": dataset.digest}
        fields["seed"] = at.seed
        for dotted, value in changes.items():
            set_field(fields, dotted, value, f"{where}: {dotted}")
        return parse(fields, where)  # type: ignore[return-value]

    def _changed(self, spec: R, changes: Mapping[str, Any]) -> R:
        """Return a spec with changed fields, given by their dotted names."""
        fields = spec.model_dump(mode="json")
        for dotted, value in changes.items():
            set_field(fields, dotted, value, f"{self._where}: {dotted}")
        return parse(fields, self._where)  # type: ignore[return-value]

    @property
    def _where(self) -> str:
        at = f"scale {self.scale.name}: " * bool(self.study.scale or self.scale.datasets)
        return f"{at}study {self.study.study}"

    def _cell(
        self,
        at: At,
        row: Row,
        run: Spec,
        metric: str,
        start: Pretrain | None,
        pretraining: str,
        control: bool = False,
    ) -> Cell:
        """Return the cell of a number.

        Args:
            start: the pretraining with x of figures; None without one.
            pretraining: its run id, if the run starts from it.
        """
        study, place = self.study, (at.dataset, at.row, at.column)
        numbers = {over.x: number_of(start, over.x) for over in study.of_kind(Over).values()}
        return Cell(
            study.study,
            at.dataset,
            self._title(at.dataset),
            UNDRAWN if at.draw is None else at.draw,
            at.seed,
            at.row,
            row.line or at.row,
            at.column,
            run.stage,
            metric,
            control,
            run.run_id,
            pretraining,
            tuple(key for key in study.parts if study.shows(key, *place)),
            () if control else _figures(study, row, *place),
            {name: number for name, number in numbers.items() if number is not None},
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


def number_of(spec: Pretrain | None, field: str) -> float | None:
    """Return a number of a pretraining by its dotted name; None without a pretraining."""
    part: Any = spec
    for name in PATHS.get(field, field).split(".") if spec else ():
        part = getattr(part, name)
    return None if part is None else float(part)


def _figures(study: Study, row: Row, dataset: str, name: str, column: str) -> tuple[str, ...]:
    """Return the figures of cells that show a row in a column."""
    shown = list[str]()
    for key, figure in study.figures.items():
        chosen = list[tuple[Collection[str], str]]()
        match figure:
            case Against():
                chosen = [((*figure.x, figure.y), column)]
            case Order():
                chosen = [(study.tests, column), (paper_numbers(figure.x), name)]
            case Over() if row.line or row.start == "none":
                lines = figure.lines, row.line or name
                chosen = [lines, (figure.datasets, dataset), (figure.columns, column)]
        if chosen and allows(*chosen):
            shown.append(key)
    return tuple(shown)


def _require_cells(study: Study, cells: Sequence[Cell]) -> None:
    """Refuse a study that names what selects no cell.

    Raises:
        UserError: the first such name.
    """

    def require(
        where: str, found: Sequence[Cell], draws: Numbers = (), seeds: Numbers = ()
    ) -> None:
        absent = [] if found else [""]
        absent += [f"draw {draw}: " for draw in sorted({*draws} - {cell.draw for cell in found})]
        # Seeds of a scale differ between scales.
        wanted = {*seeds} if study.seeds or study.draws else set()
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
            only = (one.draws, one.seeds) if one else ()
            require(f"{where}: {term.row}", found, *only)

    for name in study.shown:
        require(f"datasets.{name}", [cell for cell in cells if cell.dataset == name])
    for name, row in study.rows.items():
        found = [cell for cell in cells if cell.row == name]
        require(f"rows.{name}", found, row.only.draws, row.only.seeds)
    for name, column in study.columns.items():
        found = [cell for cell in cells if cell.column == name]
        require(f"columns.{name}", found, column.only.draws, column.only.seeds)
    for key in study.tables:
        require(f"tables.{key}", [cell for cell in cells if key in cell.tables])
    for key in [*study.of_kind(Over), *study.of_kind(Against), *study.of_kind(Order)]:
        require(f"figures.{key}", [cell for cell in cells if key in cell.figures])
    for text in chain.from_iterable(study.compare.values()):
        require_terms(f"compare: {text}", parse_formula(text), "", None)
    first = next(iter(study.columns))
    for one in study.predictions:
        where = f"predictions: {one.dataset}: {one.says}"
        require_terms(where, one.statement.formula, one.column or first, one)
