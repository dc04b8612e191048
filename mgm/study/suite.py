"""What one results folder holds: the paper's studies at a scale, or one study."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isnan, nan
from os.path import commonprefix
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mgm.errors import UserError, valid
from mgm.reading import read_json
from mgm.results.archive import is_packed, unpack
from mgm.spec import MASKS, Measure, Pretrain, Spec, Visualise, parents, title_of
from mgm.study import CONFIG, STUDIES
from mgm.study.runs import StudyRuns, Value, load_study, scale_of, with_digests
from mgm.study.scales import Dataset, Scale, load_scale, parse_scale
from mgm.study.schema import PATHS, Place, Row, Study

# The paper's tables, in its order, then ours.
PAPER = Path(__file__).with_name("paper")
NAMES = ("table1", "table2", "table3", "table4", "table4e", "ours", "measured")


@dataclass
class Suite:
    """The studies of one results folder, with their runs. A run of several cells is one run.

    Attributes:
        specs: specs of the runs by run id, parents before children.
        values: the numbers of each study.
        pictures: the run whose arrays a figure draws, by the figure's name, such as "5".
    """

    scale: Scale
    studies: dict[str, Study]
    specs: dict[str, Spec] = field(default_factory=dict)
    values: dict[str, list[Value]] = field(default_factory=dict)
    pictures: dict[str, Visualise | Measure] = field(default_factory=dict)

    @property
    def controls(self) -> list[Measure]:
        """The runs that classify videos without a model."""
        every = self.specs.values()
        return [run for run in every if isinstance(run, Measure) and run.name == "controls"]

    def lines(self, study: Study, field: str) -> dict[tuple[str, str], tuple[str, float]]:
        """Return the line and the number of each dataset and row, for a figure over a number.

        Rows of a line differ in `field` alone. The number is that of the pretraining; it is NaN for
        a row without one, which is a line by itself. A row alone at a number is no line.
        """
        x_of = dict[tuple[str, str], float]()
        for value in self.values[study.study]:
            if (value.dataset, value.row) not in x_of and value.row in study.rows:
                x_of[value.dataset, value.row] = self._number(value, study, field)
        groups: dict[Any, list[str]] = {}
        for name in dict.fromkeys(row for _, row in x_of):
            row = study.rows[name]
            changes = sorted((key, str(v)) for key, v in row.changes.items() if key != field)
            groups.setdefault((row.start, row.then, str(changes)), []).append(name)
        lines = dict[str, str]()
        for names in groups.values():
            # Names are compared character by character, as they should be.
            shared = re.sub(r"[ ,\d]*$", "", commonprefix(names))  # noqa: RUF071
            lines |= {name: shared if len(names) > 1 and shared else name for name in names}
        several = {name for names in groups.values() if len(names) > 1 for name in names}
        return {
            (dataset, row): (lines[row], x)
            for (dataset, row), x in x_of.items()
            if row in several or isnan(x)
        }

    def _number(self, value: Value, study: Study, field: str) -> float:
        """Return a field of the pretraining that a value's run starts from; NaN without one."""
        if study.rows[value.row].start == "none":
            return nan
        spec: Any = value.run
        while not isinstance(spec, Pretrain) and (above := parents(spec)):
            spec = self.specs.get(above[0])
        for part in PATHS.get(field, field).split("."):
            spec = getattr(spec, part, None)
        return nan if spec is None else float(spec)

    def targets(self) -> dict[str, list[Spec]]:
        """Return the targets, such as table4e and figure5, with the runs that they show."""
        targets: dict[str, list[Spec]] = {"all": list(self.specs.values())}
        for name, study in self.studies.items():
            values = self.values[name]
            targets[name] = [value.run for value in values]
            for key in study.parts:
                targets[f"table{key}"] = [
                    v.run for v in values if study.shows(key, v.dataset, v.row, v.column)
                ]
            for field_name, figures in study.over.items():
                for figure in figures:
                    lines = self.lines(study, field_name)
                    targets[f"figure{figure.figure}"] = [
                        value.run
                        for value in values
                        if (line := lines.get((value.dataset, value.row)))
                        and figure.shows(value.dataset, line[0])
                    ]
        return targets | {f"figure{name}": [run] for name, run in self.pictures.items()}

    def runs_of(self, target: str) -> list[Spec]:
        """Return the runs that a target needs, parents first.

        Raises:
            UserError: there is no such target.
        """
        if target not in (targets := self.targets()):
            raise UserError(f"{target}: no such target; choose one of {', '.join(targets)}")
        return self.with_parents(run.run_id for run in targets[target])

    def with_parents(self, run_ids: Iterable[str]) -> list[Spec]:
        """Return these runs and the runs that they start from, parents first."""
        wanted = set(run_ids)
        for run_id in reversed(self.specs):
            if run_id in wanted:
                wanted.update(parents(self.specs[run_id]))
        return [spec for run_id, spec in self.specs.items() if run_id in wanted]


def make_suite(scale: Scale) -> Suite:
    """Return the studies of a scale with their runs: the scale's own, or those of the paper.

    Raises:
        UserError: a run cannot be made, or the scale lacks the datasets of every study.
    """
    for field_name, given in (("without", {*scale.without}), ("steps_of", {*scale.steps_of})):
        if unknown := given - {*NAMES}:
            raise UserError(
                f"scale {scale.name}: {field_name}: {min(unknown)} is not in {', '.join(NAMES)}"
            )
    names = [name for name in NAMES if name not in scale.without]
    paper = (_at(load_study(PAPER / f"{name}.yaml"), scale) for name in names)
    studies = [scale.study] if scale.study else [study for study in paper if study]
    if not studies:
        raise UserError(f"scale {scale.name}: has the datasets of no table; try study={scale.name}")
    suite = Suite(scale, {study.study: study for study in studies})
    known = {*suite.studies, *(row.seeds_of for study in studies for row in study.rows.values())}
    for name in scale.more_seeds:
        if name.split(".", 1)[0] not in known:
            raise UserError(
                f"scale {scale.name}: more_seeds.{name} is not of a study; choose from "
                f"{', '.join(suite.studies)}"
            )
    for study in studies:
        with valid(f"study {study.study}: "):
            runs = StudyRuns(study, scale.of_study(study.study), suite.specs)
            suite.values[study.study] = list(runs.values())
            suite.pictures |= {name: runs.picture(name) for name in study.pictures}
    return suite


def _at(study: Study, scale: Scale) -> Study | None:
    """Return a study of the paper as a scale has it; None if the scale lacks its datasets."""
    absent = {name for name, place in study.datasets.items() if place.use not in scale.datasets}
    absent |= {n for n, place in study.datasets.items() if place.pretrained_on in absent}
    if any(not study.datasets[name].optional for name in absent):
        return None
    datasets = {
        name: place.model_copy(update={"title": _title(study, place, scale)})
        for name, place in study.datasets.items()
        if name not in absent
    }
    has = {"": True, "other_masks": scale.other_masks, "seeds": len(scale.seeds) > 1}
    rows = {name: row for name, row in study.rows.items() if has[row.needs]}
    if study.every_mask:
        named = {row.changes.get("mask", "mgm") for row in study.rows.values()}
        rows |= {
            info.row: Row(changes={"mask": mask})
            for mask, info in MASKS.items()
            if info.row and not info.source and mask not in named
        }
    # A table is left out where a dataset or a row that it lists is missing.
    tables = {
        name: part
        for name, part in study.tables.items()
        if {*part.datasets} <= datasets.keys() and {*part.rows} <= rows.keys()
    }
    return study.model_copy(update={"datasets": datasets, "rows": rows, "tables": tables})


def _title(study: Study, place: Place, scale: Scale) -> str:
    """Return the name of a scale's dataset for readers. Stand-ins are marked."""

    def named(key: str) -> str:
        made_of = scale.datasets[key].adapt or (key,)
        return title_of(key) + " stand-in" * bool(scale.datasets[made_of[0]].generate)

    title = named(place.use)
    if place.pretrained_on:
        title += f" after {named(study.datasets[place.pretrained_on].use)}"
    return f"{title} (generated)" if "stand-in" in title else title


def read_suite(results: Path) -> Suite:
    """Return the studies of a results folder.

    They are the study `studies/NAME.yaml`, or those of the scale that the DAG wrote to the folder.
    Reports thus need neither the DAG nor the data.

    Raises:
        UserError: nothing ran there, or its scale cannot be read.
    """
    return make_suite(_scale_in(results))


class _Ran(BaseModel):
    """The fields of scale.json that a study's file may lack."""

    datasets: dict[str, Dataset] = {}
    weights: dict[str, str] = {}
    size: str = ""


def _scale_in(results: Path) -> Scale:
    unpack(results)
    path, study = results / "scale.json", STUDIES / f"{results.name}.yaml"
    if study.is_file():
        # Its words and predictions may be newer than the last run, which knows the digests.
        ran = read_json(path, _Ran) if path.is_file() else _Ran()
        known = load_study(study).without_absent(ran.datasets)
        scale = scale_of(known, ran.datasets, ran.size)
        return scale.model_copy(update={"weights": ran.weights})
    named = CONFIG / f"{results.name}.yaml"
    if not path.is_file() and is_packed(results) and named.is_file():
        # The archive of a scale of this repository.
        return with_digests(load_scale(named))
    try:
        return parse_scale(read_json(path), path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; run `snakemake --cores all` first, or correct the name"
        ) from None
