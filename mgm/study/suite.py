"""All experiments of a scale: the registry, filled by every table and figure."""

from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from mgm.errors import UserError, valid
from mgm.reading import read_json
from mgm.results.archive import unpack
from mgm.spec import OWN
from mgm.study import STUDIES, ablations, experiments, plots
from mgm.study.registry import Registry
from mgm.study.runs import load_study, scale_of, study_registry
from mgm.study.scales import Dataset, Scale, parse_scale


def make_registry(scale: Scale) -> Registry:
    """Fill the registry of a scale.

    Raises:
        UserError: the scale names a row, table or figure that does not exist, or lacks ssv2.
    """
    if scale.study:
        with valid(f"study {scale.study.study}: "):
            return study_registry(scale)
    if not scale.datasets.keys() & {"ssv2", OWN}:
        raise UserError(
            f"scale {scale.name}: has no dataset ssv2, which tables of the paper need; add it, or "
            f"run a study at this scale, such as study={scale.name}"
        )
    registry = Registry(scale)
    for make in (*experiments.ALL, *ablations.ALL, *plots.ALL):
        make(registry)
    _name_data(registry)
    rows = registry.tables["1"].rows if "1" in registry.tables else []
    if unknown := scale.weights.keys() - {*rows}:
        raise UserError(
            f"weights: {min(unknown)!r} is not a row of Table 1 at scale {scale.name}; name a row "
            "such as 'MAM2, SSv2, 1200'"
        )
    wanted = {name.removesuffix(".probe") for name in scale.more_seeds}
    # A user's own videos have only some of the targets.
    if not scale.own_videos and (unknown := wanted - set(registry.targets())):
        targets = ", ".join(registry.targets())
        raise UserError(
            f"scale {scale.name}: more_seeds.{min(unknown)} is not a table or figure; choose from "
            f"{targets}"
        )
    return registry


def _name_data(registry: Registry) -> None:
    """Replace names of published datasets in titles and axes by those of the scale's data."""
    named = registry.scale.named
    for table in registry.tables.values():
        table.title = named(table.title)
        table.shown = {column: named(column) for column in table.columns}
    for name, plot in registry.plots.items():
        registry.plots[name] = replace(
            plot,
            title=named(plot.title),
            x=named(plot.x),
            y=named(plot.y),
            shown={line: named(line) for line in plot.lines},
        )
    for name, figure in registry.figures.items():
        registry.figures[name] = replace(figure, title=named(figure.title))


class _Ran(BaseModel):
    """The fields of scale.json that a study's file may lack."""

    datasets: dict[str, Dataset] = {}
    size: str = ""


def registry_of(results: Path) -> Registry:
    """Return the registry of a results folder.

    It is that of the study `studies/NAME.yaml`, or of the scale that the DAG wrote to the folder.
    Reports thus need neither the DAG nor the data.

    Raises:
        UserError: nothing ran there, or its scale cannot be read.
    """
    unpack(results)
    path, study = results / "scale.json", STUDIES / f"{results.name}.yaml"
    if study.is_file():
        # Its words and predictions may be newer than the last run, which knows the digests.
        ran = read_json(path, _Ran) if path.is_file() else _Ran()
        known = load_study(study).without_absent(ran.datasets)
        return make_registry(scale_of(known, ran.datasets, ran.size))
    try:
        fields = read_json(path)
        # Results of an earlier version have these fields, without a value.
        for gone in ("grid", "data_seeds"):
            if isinstance(fields, dict) and not fields.get(gone, True):
                del fields[gone]
        return make_registry(parse_scale(fields, path))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; run `snakemake --cores all` first, or correct the name "
            f"{results.name}"
        ) from None
