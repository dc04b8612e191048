"""The runs of a study: its scale, and its values, cell by cell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from mgm.data.index import read_index
from mgm.data.synthetic.params import parse_params
from mgm.errors import UserError, valid
from mgm.spec import (
    BACKBONES,
    MASKS,
    PUBLISHED,
    Data,
    Finetune,
    Mask,
    Measure,
    Model,
    Pretrain,
    Probe,
    Published,
    Spec,
    Visualise,
    parse,
)
from mgm.study import CONFIG, recipes
from mgm.study.scales import Dataset, R, Scale, file_of, load_scale, read_named, set_field
from mgm.study.schema import BEFORE_SCALE, CONTROLS, At, Column, Picture, Place, Stage, Study

# The dataset of a scale whose drawn videos a study changes.
DRAWN = "ssv2"
# The paper's figures of these kinds.
FIGURES = {"masks": "5", "attention": "6", "overlays": "7", "reconstructions": "8"}
# What a study without a scale has: the defaults of a spec.
UNSCALED = Scale(name="none", caveat="", expected_cost="", seeds=(0,), datasets={})


def load_study(path: Path) -> Study:
    """Read a study from a YAML file.

    Raises:
        UserError: there is no such file, or a field is unknown, missing or invalid.
    """
    fields = read_named(path, "study")
    with valid(f"{path}: "):
        return Study.model_validate(fields)


def scale_of(
    study: Study, ran: Mapping[str, Dataset] = MappingProxyType({}), size: str = ""
) -> Scale:
    """Return the scale of a study's runs: its own name, datasets with digests, and settings.

    Args:
        ran: datasets of finished runs. They have the digests that the study does not give.
        size: one of the scale's sizes; by default the first.

    Raises:
        UserError: a prepared dataset has no index, and the study does not give its digest.
    """
    base = load_scale(file_of(study.scale, CONFIG), size=size) if study.scale else UNSCALED
    drawn = base.datasets[DRAWN].generate if DRAWN in base.datasets else {}
    datasets: dict[str, Dataset] = {}
    _require_own_keys(study)
    for name, place in study.datasets.items():
        if place.videos_of:
            continue
        if place.use:
            if place.use not in base.datasets:
                raise UserError(
                    f"study {study.study}: datasets.{name}.use: scale {study.scale or 'none'} has "
                    f"no {place.use}; choose from {', '.join(base.datasets) or 'none'}"
                )
            datasets[place.use] = ran.get(place.use, base.datasets[place.use])
            continue
        if place.generate is None:
            datasets[name] = ran[name] if name in ran else _prepared(name, place)
            continue
        if not drawn:
            raise UserError(
                f"study {study.study}: datasets.{name}: scale {study.scale or 'none'} generates no "
                f"{DRAWN}; name a scale that does"
            )
        for draw in place.draws or study.draws:
            fields = drawn | place.generate | {"seed": draw}
            digest = parse_params(fields, f"study {study.study}: datasets.{name}").digest
            datasets[f"{name}-{draw}"] = Dataset(generate=fields, name=DRAWN, digest=digest)
    changes = {
        "name": study.study,
        "caveat": study.caveat,
        "expected_cost": study.expected_cost,
        "seeds": study.seeds or study.draws or base.seeds,
        "datasets": datasets,
        "specs_per_job": study.specs_per_job or base.specs_per_job,
        "study": study,
        "overrides": {
            stage: base.overrides.get(stage, {}) | study.settings.get(stage, {})
            for stage in get_args(Stage)
        },
    }
    if study.execution:
        changes["execution"] = study.execution
    return base.model_copy(update=changes | {"more_seeds": {}, "steps_of": {}, "weights": {}})


def _require_own_keys(study: Study) -> None:
    """Refuse two datasets whose videos would have one name in the scale."""
    keys = [*{place.use for place in study.datasets.values() if place.use}]
    for name, place in study.datasets.items():
        if place.generate is not None:
            keys += [f"{name}-{draw}" for draw in place.draws or study.draws]
        elif place.root:
            keys.append(name)
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise UserError(
            f"study {study.study}: datasets: {min(twice)} is the name of two; rename one of them"
        )


def with_digests(scale: Scale) -> Scale:
    """Return a scale whose generated datasets have their digests."""
    datasets = {
        key: dataset.model_copy(
            update={"digest": parse_params(dataset.generate, f"scale {scale.name}").digest}
        )
        for key, dataset in scale.datasets.items()
        if dataset.generate
    }
    return scale.model_copy(update={"datasets": scale.datasets | datasets})


def _prepared(name: str, place: Place) -> Dataset:
    """Return a prepared dataset. Without its folder, the study must give its digest.

    The published lists of a published dataset stand for a digest.
    """
    root = Path(place.root)
    if name in PUBLISHED:
        return Dataset(root=place.root)
    if place.digest and not (root / "index.json").is_file():
        return Dataset(root=place.root, digest=place.digest, grouped=place.grouped)
    index = read_index(root)
    if place.digest and place.digest != index.digest:
        raise UserError(
            f"{root}: its digest is {index.digest}, and the study has {place.digest}; prepare the "
            "study's videos, or leave the digest out and give the study another name"
        )
    return Dataset(root=place.root, digest=index.digest, grouped=index.grouped)


def videos_of(scale: Scale, name: str) -> Published:
    """Return the numbers of videos and classes of a dataset of a scale.

    They come from the published counts, the generator's parameters or the index of a prepared
    folder. A dataset made of two others counts as the first.
    """
    dataset = scale.datasets[name]
    if dataset.adapt:
        return videos_of(scale, dataset.adapt[0])
    if name in PUBLISHED and not dataset.generate:
        return PUBLISHED[name]
    if dataset.generate:
        drawn = parse_params(dataset.generate, f"scale {scale.name}: datasets.{name}")
        classes = drawn.classes
        train, test = classes * drawn.train_per_class, classes * drawn.test_per_class
    else:
        index = read_index(Path(dataset.root))
        train, test, classes = len(index.train), len(index.test), len(index.classes)
    return Published(name, name, "", train, test, classes)


def new_study(path: Path, root: Path) -> str:
    """Return the text of a new study with comments, to be written to `path`.

    Args:
        root: the folder of a prepared dataset.
    """
    template = Path(__file__).with_name("template.yaml").read_text(encoding="utf-8")
    return template.format(name=path.stem, path=path, root=root, dataset=root.name or "mine")


@dataclass(frozen=True)
class Value:
    """A run's number in a study."""

    dataset: str
    draw: int | None
    seed: int
    row: str
    column: str
    run: Probe | Finetune | Measure
    metric: str
    control: bool = False

    @property
    def place(self) -> tuple[str, str, str]:
        return self.dataset, self.row, self.column


@dataclass(frozen=True)
class StudyRuns:
    """The runs of one study at a scale.

    Attributes:
        specs: specs by run id, parents before children. Runs are added while values are read; the
            studies of a scale share it.
    """

    study: Study
    scale: Scale
    specs: dict[str, Spec]

    def add(self, spec: R) -> R:
        """Add a run and return it, or return the equal run that is already there."""
        return self.specs.setdefault(spec.run_id, spec)  # type: ignore[arg-type, return-value]

    def values(self) -> Iterator[Value]:
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
                # Datasets of the scale have the scale's seeds, and controls for each of its own.
                controlled = seeds[:1] or self.scale.seeds
                for seed in seeds or self._scale_seeds():
                    at = At(name, draw, seed)
                    yield from self._of_seed(name, at, seed in controlled, not seeds, choices)

    def _scale_seeds(self) -> list[int]:
        """Return all seeds that a cell has at this scale."""
        cells = ((row, column) for row in self.study.rows for column in self.study.columns)
        return sorted({seed for cell in cells for seed in self._seeds_of(*cell)})

    def _seeds_of(self, row: str, column: str) -> tuple[int, ...]:
        """Return the seeds that the scale has for a cell."""
        own, more = self.study.rows[row], self.scale.more_seeds
        target = own.needs or own.seeds_of or self.study.study
        return more.get(f"{target}.{column}") or more.get(target, self.scale.seeds)

    def _key_of(self, name: str, draw: int | None) -> str:
        """Return the name in the scale of a dataset's videos."""
        name = self.study.datasets[name].videos_of or name
        place = self.study.datasets[name]
        return place.use or (name if place.generate is None else f"{name}-{draw}")

    def _of_seed(
        self,
        name: str,
        at: At,
        with_controls: bool,
        by_cell: bool,
        choices: dict[tuple[str, ...], tuple[str, ...]],
    ) -> Iterator[Value]:
        """Yield the numbers of one dataset, draw and seed, and add their runs.

        Args:
            by_cell: cells have seeds of their own.
            choices: run ids that choose the settings of a dataset's row and column. The first seed
                adds them.
        """
        study, scale, seed = self.study, self.scale, at.seed
        source = study.datasets[name].pretrained_on or name
        key, source_key = self._key_of(name, at.draw), self._key_of(source, at.draw)
        start_of, row_of = dict[str, Pretrain](), dict[tuple[str, str], str]()
        for title, row in study.rows.items():
            if at._replace(row=title) not in row.only:
                continue
            changes = row.changes | study.datasets[source].pretrain
            above: list[Pretrain | Finetune] = []
            if parent := start_of.get(row.start):
                changes = {"parent": parent.run_id, **changes}
                above = [parent]
            elif row.start not in ("", "none") and not row.weights:
                raise UserError(
                    f"study {study.study}: rows.{title}: goes on from {row.start}, which has no "
                    f"run in {name}; put that row first"
                )
            start = start_of[title] = self.pretraining(source_key, seed, changes)
            last = ""
            if row.weights:
                if row.weights not in scale.weights:
                    raise UserError(
                        f"study {study.study}: rows.{title}.from: {row.weights}: no weights"
                    )
                last = scale.weights[row.weights]
            elif row.start != "none":
                above.append(start)
                last = start.run_id
            if row.then:
                then = self._trained_on(row.then, source_key, seed, start.model, last)
                above.append(then)
                last = then.run_id
            for column, evaluation in study.columns.items():
                place = at._replace(row=title, column=column)
                measured = evaluation.stage == "measure"
                if place not in row.only or place not in evaluation.only:
                    continue
                explained = measured and evaluation.changes["name"] == "explained"
                # Random weights have no mask to measure, and external weights no decoder.
                if measured and (row.start == "none" or (explained and row.weights)):
                    continue
                if by_cell and seed not in self._seeds_of(title, column):
                    continue
                # A measurement is of the videos that pretrain.
                run = self._evaluation(source_key if measured else key, seed, evaluation, start)
                if not measured or explained:
                    for spec in above:
                        self.add(spec)
                if explained:
                    run = run.model_copy(update={"parent": start.run_id})
                if not measured:
                    run = run.model_copy(update={"parent": last})
                    if evaluation.choose:
                        where = name, title, column
                        if where not in choices:
                            choices[where] = self._choices(key, run, evaluation.choose)
                        run = run.model_copy(update={"choices": choices[where]})
                    if (other := row_of.setdefault((column, run.run_id), title)) != title:
                        raise UserError(
                            f"study {study.study}: rows.{title}: has the same runs as {other}; "
                            "leave one out"
                        )
                yield Value(*place, self.add(run), evaluation.metric)
        for column in study.controls if with_controls else ():
            plain = self.pretraining(source_key, seed, {})
            probe = self._evaluation(key, seed, study.columns[column], plain)
            assert isinstance(probe, Probe)
            run = self.add(recipes.controls(probe))
            for title, metric in CONTROLS.items():
                place = at._replace(row=title, column=column)
                yield Value(*place, run, metric, control=True)

    def _choices(
        self, key: str, run: Probe | Finetune | Measure, choose: Mapping[str, Sequence[float]]
    ) -> tuple[str, ...]:
        """Add a run on held-out videos for each combination, and return their ids."""
        unit = "groups" if self.scale.datasets[key].grouped else "videos"
        tried = (dict(zip(choose, values)) for values in product(*choose.values()))
        specs = (_changed(self.study, run, fields | {"held_out": unit}) for fields in tried)
        return tuple(self.add(spec).run_id for spec in specs)

    def pretraining(self, key: str, seed: int, changes: Mapping[str, Any]) -> Pretrain:
        """Return the pretraining of a row: its recipe, as the scale runs it, with its changes."""
        study, scale, spec = self.study, self.scale, Pretrain(data=Data(dataset=key))
        mask = changes.get("mask", "mgm")
        if not isinstance(mask, str):
            raise UserError(
                f"study {study.study}: mask: name it, and write its fields as mask.FIELD"
            )
        if study.scale:
            epochs, backbone = changes.get("epochs", study.epochs), changes.get("backbone")
            if backbone not in (None, *BACKBONES):
                raise UserError(f"study {study.study}: backbone: {backbone!r} is unknown")
            spec = recipes.pretrain(key, _known(study, mask), epochs, backbone or scale.backbone)
        elif "mask" in changes:
            known = _known(study, mask)
            spec = spec.model_copy(
                update={"mask": Mask(name=known, ratio=recipes.MASK_RATIO[known])}
            )
        own = {name: value for name, value in changes.items() if name not in BEFORE_SCALE}
        if own.get("mask.guidance") == "flow":
            own["mask.guidance"] = scale.flow
        return self._applied(spec, key, seed, own)

    def _trained_on(self, then: str, key: str, seed: int, model: Model, parent: str) -> Finetune:
        """Return the fine-tuning with the labels of the pretraining videos."""
        spec = (
            recipes.supervised(key)
            if then == "supervised"
            else recipes.finetune(key, "", recipes.MODELS[self.scale.backbone])
        )
        return self._applied(spec, key, seed, {}).model_copy(
            update={"parent": parent, "model": model}
        )

    def _evaluation(
        self, key: str, seed: int, column: Column, start: Pretrain
    ) -> Probe | Finetune | Measure:
        """Return a run that evaluates `start`, without its parent. Its model is that of `start`."""
        study, scale, dataset = self.study, self.scale, self.scale.datasets[key]
        if column.stage == "measure":
            name = column.changes["name"]
            data = Data(dataset=dataset.name or key, digest=dataset.digest)
            of_mask = name in ("cover", "visible")
            same = start.model_dump(
                include={"clips", "model", "seed"} | ({"mask"} if of_mask else set())
            )
            return _changed(study, Measure(name=name, data=data, **same), column.changes)
        probes = column.stage == "probe"
        spec: Probe | Finetune = (Probe if probes else Finetune)(data=Data(dataset=key))
        if study.scale:
            recipe = recipes.probe if probes else recipes.finetune
            spec = recipe(key, "", recipes.MODELS[scale.backbone])
        run = self._applied(spec, key, seed, column.changes)
        return run.model_copy(update={"model": start.model})

    def picture(self, name: str) -> Visualise | Measure:
        """Return the run of a figure, and add it. It has the first of the scale's seeds."""
        picture, seed = self.study.of_kind(Picture)[name], self.scale.seeds[0]
        key = self._key_of(picture.dataset, None)
        rows = [self.study.rows[row].changes for row in picture.rows] or [{}]
        shown = [self.pretraining(key, seed, changes) for changes in rows]
        same: dict[str, Any] = shown[0].model_dump(include={"data", "clips", "model", "seed"})
        if picture.kind == "coverage":
            return self.add(Measure(name="coverage", **same))
        if picture.rows:
            parents = tuple(self.add(run).run_id for run in shown)
            number: Any = FIGURES[picture.kind]
            return self.add(Visualise(figure=number, parents=parents, **same))
        like = recipes.pretrain(key)
        clips = like.clips.model_copy(update={"crop": "centre"})
        clip = Visualise(data=Data(dataset=key), clips=clips, model=like.model)
        return self.add(self.scale.apply(clip, seed))

    def _applied(self, spec: R, key: str, seed: int, changes: Mapping[str, Any]) -> R:
        """Return a spec on the scale's dataset `key`, as the scale runs it, with its changes."""
        data = spec.data.model_copy(update={"dataset": key})
        return _changed(
            self.study, self.scale.apply(spec.model_copy(update={"data": data}), seed), changes
        )


def _known(study: Study, mask: str) -> str:
    if mask not in MASKS:
        raise UserError(
            f"study {study.study}: mask: {mask!r} is unknown; choose from {', '.join(MASKS)}"
        )
    return mask


def _changed(study: Study, spec: R, changes: Mapping[str, Any]) -> R:
    """Return a spec with changed fields, given by their dotted names."""
    if not changes:
        return spec
    fields = spec.model_dump(mode="json")
    for dotted, value in changes.items():
        set_field(fields, dotted, value, f"study {study.study}: {dotted}")
    return parse(fields, f"study {study.study}")  # type: ignore[return-value]
