"""The runs of a study: its scale, and its registry, filled cell by cell."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from mgm.data.index import Index, read_index
from mgm.data.synthetic.params import parse_params
from mgm.errors import UserError, valid
from mgm.spec import PUBLISHED, Data, Finetune, Mask, Measure, Pretrain, Probe, Published, parse
from mgm.study import CONFIG, recipes
from mgm.study.registry import NO_MODEL, Registry, Value
from mgm.study.scales import Dataset, R, Scale, file_of, load_scale, read_named, set_field
from mgm.study.schema import CONTROLS, At, Column, Place, Stage, Study

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
    drawn = base.datasets[study.recipe].generate if study.recipe in base.datasets else {}
    datasets: dict[str, Dataset] = {}
    for name, place in study.datasets.items():
        if place.videos_of:
            continue
        if place.generate is None:
            datasets[name] = ran[name] if name in ran else _prepared(name, place)
            continue
        if not drawn:
            raise UserError(
                f"study {study.study}: datasets.{name}: scale {study.scale or 'none'} generates no "
                f"{study.recipe}; name a scale that does"
            )
        for draw in place.draws or study.draws:
            fields = drawn | place.generate | {"seed": draw}
            digest = parse_params(fields, f"study {study.study}: datasets.{name}").digest
            datasets[f"{name}-{draw}"] = Dataset(generate=fields, name=study.recipe, digest=digest)
    changes = {
        "name": study.study,
        "caveat": study.caveat,
        "expected_cost": study.expected_cost,
        "seeds": study.seeds or study.draws or (0,),
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
    return base.model_copy(update=changes | {"more_seeds": {}, "weights": {}})


def _prepared(name: str, place: Place) -> Dataset:
    """Return a prepared dataset. Without its folder, the study must give its digest.

    The published lists of a published dataset stand for a digest.
    """
    root = Path(place.root)
    if name in PUBLISHED:
        return Dataset(root=place.root)
    if place.digest and not (root / "index.json").is_file():
        return Dataset(root=place.root, digest=place.digest)
    index = read_index(root)
    if place.digest and place.digest != index.digest:
        raise UserError(
            f"{root}: its digest is {index.digest}, and the study has {place.digest}; prepare the "
            "study's videos, or leave the digest out and give the study another name"
        )
    return indexed(place.root, index)


def indexed(root: str, index: Index) -> Dataset:
    """Return the dataset of an index, which the user prepared in the folder `root`."""
    return Dataset(root=root, digest=index.digest, grouped=index.grouped)


def videos_of(scale: Scale, name: str) -> Published:
    """Return the numbers of videos and classes of a dataset of a scale.

    They come from the published counts, the generator's parameters or the index of a prepared
    folder. A dataset made of two others counts as the first.
    """
    dataset = scale.datasets[name]
    if dataset.adapt:
        return videos_of(scale, dataset.adapt[0])
    if dataset.generate:
        drawn = parse_params(dataset.generate, f"scale {scale.name}: datasets.{name}")
        train, test, classes = drawn.train_per_class, drawn.test_per_class, drawn.classes
        counts, counted = (classes * train, classes * test, classes), "the generator's parameters"
    elif name in PUBLISHED:
        return PUBLISHED[name]
    else:
        index = read_index(Path(dataset.root))
        counts, counted = (len(index.train), len(index.test), len(index.classes)), "its index"
    train, test, classes = counts
    return Published(name, name, "", train, test, classes, counted)


def new_study(path: Path, root: Path) -> str:
    """Return the text of a new study with comments, to be written to `path`.

    Args:
        root: the folder of a prepared dataset.
    """
    template = Path(__file__).with_name("template.yaml").read_text(encoding="utf-8")
    return template.format(name=path.stem, path=path, root=root, dataset=root.name or "mine")


def study_registry(scale: Scale) -> Registry:
    """Return the registry of a study: a table per dataset, and its runs in their order.

    The order is dataset by dataset, draw by draw, seed by seed, row by row.

    Args:
        scale: the scale of `scale_of`.
    """
    study, registry = _study(scale), Registry(scale)
    cells: dict[tuple[str, str, str, str], list] = {}
    for value in _values(registry):
        registry.values.append(value)
        key = value.dataset, value.row, value.column, value.metric
        cells.setdefault(key, []).append(value.run)
    for (dataset, row, column, metric), runs in cells.items():
        table = registry.add_table(
            dataset,
            study.shown[dataset],
            study.question,
            head="Pretraining",
            rows_name_runs=True,
        )
        if row in CONTROLS:
            table.groups[row] = NO_MODEL
        table.add(row, column, tuple(runs), metric)
    return registry


def _study(scale: Scale) -> Study:
    assert scale.study
    return scale.study


def _values(registry: Registry) -> Iterator[Value]:
    study = _study(registry.scale)
    for name, place in study.datasets.items():
        if not place.tested:
            continue
        draws: tuple[int | None, ...] = place.draws or study.draws
        if study.datasets[place.videos_of or name].generate is None:
            draws = (None,)
        for draw in draws:
            seeds = place.seeds or study.seeds or (draw or 0,)
            for seed in seeds:
                at = At(place.fold_of or name, draw, seed)
                yield from _of_seed(registry, name, at, with_controls=seed == seeds[0])


def _of_seed(registry: Registry, name: str, at: At, with_controls: bool) -> Iterator[Value]:
    """Yield the numbers of one dataset, draw and seed, and add their runs."""
    scale, study, seed = registry.scale, _study(registry.scale), at.seed

    def key_of(name: str) -> str:
        """Return the name in the scale of a dataset's videos."""
        name = study.datasets[name].videos_of or name
        return name if study.datasets[name].generate is None else f"{name}-{at.draw}"

    source = study.datasets[name].pretrained_on or name
    key, source_key, start_of = key_of(name), key_of(source), dict[str, Pretrain]()
    for title, row in study.rows.items():
        if at._replace(row=title) not in row.only:
            continue
        changes = row.changes | study.datasets[source].pretrain
        if parent := start_of.get(row.start):
            changes = {"parent": parent.run_id, **changes}
        elif row.start not in ("", "none"):
            raise UserError(
                f"study {study.study}: rows.{title}: goes on from {row.start}, which has no run in "
                f"{name}; put that row first"
            )
        start = start_of[title] = _pretraining(scale, source_key, seed, changes)
        for column, evaluation in study.columns.items():
            place = at._replace(row=title, column=column)
            measured = evaluation.stage == "measure"
            # Random weights have no mask to measure.
            unmasked = measured and row.start == "none"
            if unmasked or place not in row.only or place not in evaluation.only:
                continue
            run = _evaluation(scale, key, seed, evaluation, start)
            if not measured and row.start != "none":
                if parent:
                    registry.add(parent)
                run = run.model_copy(update={"parent": registry.add(start).run_id})
            yield Value(*place, registry.add(run), evaluation.metric)
    for column in study.controls if with_controls else ():
        plain = _pretraining(scale, source_key, seed, {})
        probe = _evaluation(scale, key, seed, study.columns[column], plain)
        assert isinstance(probe, Probe)
        run = registry.add(recipes.controls(probe))
        for title, metric in CONTROLS.items():
            place = at._replace(row=title, column=column)
            yield Value(*place, run, metric, control=True)


def _pretraining(scale: Scale, key: str, seed: int, changes: Mapping[str, Any]) -> Pretrain:
    study, spec = _study(scale), Pretrain(data=Data(dataset=key))
    if study.scale:
        spec = recipes.pretrain(_recipe(study, key), "mgm", study.epochs, scale.backbone)
    return _applied(scale, spec, key, seed, changes)


def _evaluation(
    scale: Scale, key: str, seed: int, column: Column, start: Pretrain
) -> Probe | Finetune | Measure:
    """Return a run that evaluates `start`, without its parent. The model is that of `start`."""
    study, dataset = _study(scale), scale.datasets[key]
    if column.stage == "measure":
        data = Data(dataset=dataset.name or key, digest=dataset.digest)
        same = start.model_dump(include={"clips", "model", "mask", "seed"})
        return _changed(
            study, Measure(name=column.changes["name"], data=data, **same), column.changes
        )
    probes = column.stage == "probe"
    spec: Probe | Finetune = (Probe if probes else Finetune)(data=Data(dataset=key))
    if study.scale:
        recipe = recipes.probe if probes else recipes.finetune
        spec = recipe(_recipe(study, key), "", recipes.MODELS[scale.backbone])
    run = _applied(scale, spec, key, seed, column.changes)
    return run.model_copy(update={"model": start.model})


def _recipe(study: Study, key: str) -> str:
    """Return the dataset whose recipes a dataset has: a published one has its own."""
    return key if key in PUBLISHED else study.recipe


def _applied(scale: Scale, spec: R, key: str, seed: int, changes: Mapping[str, Any]) -> R:
    """Return a spec on the scale's dataset `key`, as the scale runs it, with changed fields."""
    data = spec.data.model_copy(update={"dataset": key})
    return _changed(
        _study(scale), scale.apply(spec.model_copy(update={"data": data}), seed), changes
    )


def _changed(study: Study, spec: R, changes: Mapping[str, Any]) -> R:
    """Return a spec with changed fields, given by their dotted names."""
    fields = spec.model_dump(mode="json")
    for dotted, value in changes.items():
        if dotted == "mask" and isinstance(value, str):
            value = Mask(name=value, ratio=recipes.MASK_RATIO.get(value, 0.75)).model_dump()
        set_field(fields, dotted, value, f"study {study.study}: {dotted}")
    return parse(fields, f"study {study.study}")  # type: ignore[return-value]
