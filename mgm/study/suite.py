"""What one results folder holds: the paper's studies at a scale, or one study."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgm.console import show
from mgm.errors import UserError, valid
from mgm.results.plan import COPY, FOLDER, UNDRAWN, Cell, Plan
from mgm.spec import MASKS, Measure, Pretrain, Spec, Visualise, parents, title_of
from mgm.study import STUDIES
from mgm.study.runs import StudyRuns, Value, load_study
from mgm.study.scales import Scale
from mgm.study.schema import PATHS, Against, Over, Picture, Place, Row, Study

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

    def plan(self, file: str = "", words: str = "") -> Plan:
        """Return the cells of all studies and their runs.

        Args:
            file: the study's file, as seen from the folder of results.
            words: its content.
        """
        cells = list[Cell]()
        for name, study in self.studies.items():
            fields = {figure.x for figure in study.of_kind(Over).values()}
            for value in self.values[name]:
                row = study.rows.get(value.row, Row())
                start = self._start(value.run) if row.start != "none" else None
                numbers = {field: number_of(start, field) for field in fields}
                x = {field: number for field, number in numbers.items() if number is not None}
                cells.append(
                    Cell(
                        name,
                        value.dataset,
                        study.shown[value.dataset],
                        UNDRAWN if value.draw is None else value.draw,
                        value.seed,
                        value.row,
                        row.line or value.row,
                        value.column,
                        value.run.stage,
                        value.metric,
                        value.control,
                        value.run.run_id,
                        "" if isinstance(value.run, Measure) or not start else start.run_id,
                        tuple(key for key in study.parts if study.shows(key, *value.place)),
                        () if value.control else _figures(study, *value.place),
                        x,
                    )
                )
            for key, picture in study.of_kind(Picture).items():
                run = self.pictures[key]
                title = study.datasets[picture.dataset].title or picture.dataset
                where = UNDRAWN, run.seed, "", "", "", run.stage, "", False, run.run_id, ""
                cells.append(Cell(name, picture.dataset, title, *where, (), (key,)))
        return Plan(self.scale.name, cells, self.specs, self.scale.caveat, file, words)

    def _start(self, spec: Any) -> Any:
        """Return the pretraining that a run starts from, or a measurement, which has its fields."""
        while not isinstance(spec, Pretrain) and (above := parents(spec)):
            spec = self.specs.get(above[0])
        return spec if isinstance(spec, Pretrain | Measure) else None


def number_of(spec: Any, field: str) -> float | None:
    """Return a field of a run by its dotted name; None if it has none."""
    for part in PATHS.get(field, field).split("."):
        spec = getattr(spec, part, None)
    return None if spec is None else float(spec)


def _figures(study: Study, dataset: str, name: str, column: str) -> tuple[str, ...]:
    """Return the figures of cells that show a row in a column."""
    row = study.rows[name]
    shown = list[str]()
    for key, figure in study.figures.items():
        if isinstance(figure, Against):
            drawn = column in (figure.x, figure.y)
        elif drawn := isinstance(figure, Over):
            chosen = (figure.datasets, dataset), (figure.lines, row.line or name)
            drawn = bool(row.line) or row.start == "none"
            drawn = drawn and all(not names or one in names for names, one in chosen)
        shown += [key] * drawn
    return tuple(shown)


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
            suite.pictures |= {name: runs.picture(name) for name in study.of_kind(Picture)}
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


def read_studies(results: Path, plan: Plan) -> dict[str, Study]:
    """Return the studies of a plan by name, with the datasets and rows that the plan has.

    Their words are those of the study's file as it is now, or of its copy in the plan's folder if
    the file is gone. A message says what the file has and the plan lacks.

    Raises:
        UserError: the plan is not of this study, or the study cannot be read.
    """
    names = list(dict.fromkeys(cell.study for cell in plan.cells))
    own = STUDIES / f"{plan.name}.yaml"
    files = {name: PAPER / f"{name}.yaml" for name in names}
    if plan.file or own.is_file():
        places = (own, results / plan.file, results / FOLDER / COPY)
        files = {plan.name: next(filter(Path.is_file, places), places[1])}
    studies = {name: load_study(file) for name, file in files.items()}
    for name, study in studies.items():
        if names != [*files] or study.study != name:
            raise UserError(f"{results / FOLDER}: is the plan of {', '.join(names)}, not of {name}")
        if plan.file or own.is_file():
            _say_what_lacks(study, plan, files[name])
    return {name: _as_planned(study, plan) for name, study in studies.items()}


def _say_what_lacks(study: Study, plan: Plan, file: Path) -> None:
    parts: list[tuple[str, Iterable[str], set[str]]] = [
        ("datasets", study.shown, {cell.dataset for cell in plan.cells}),
        ("rows", study.rows, {cell.row for cell in plan.cells}),
        ("columns", study.columns, {cell.column for cell in plan.cells}),
    ]
    optional = {name for name, place in study.datasets.items() if place.optional}
    if new := [f"{what}.{name}" for what, names, has in parts for name in names if name not in has]:
        new = [name for name in new if name.removeprefix("datasets.") not in optional]
    if new:
        show(
            f"{file}: {', '.join(new)}: the plan of these results lacks it; "
            f"`snakemake --cores 1 report --config study={file}` adds it"
        )


def _as_planned(study: Study, plan: Plan) -> Study:
    """Return a study with the datasets, their titles and the rows that a plan has."""
    cells = [cell for cell in plan.cells if cell.study == study.study and cell.metric]
    titles = {cell.dataset: cell.title for cell in cells}
    shown = {key for cell in cells for key in cell.tables}
    rows = dict.fromkeys(cell.row for cell in cells if not cell.control)
    return study.model_copy(
        update={
            "datasets": {
                name: place.model_copy(update={"title": titles.get(name, place.title)})
                for name, place in study.datasets.items()
                if name in titles or not place.tested
            },
            "rows": {name: study.rows.get(name, Row()) for name in rows},
            "tables": {key: part for key, part in study.tables.items() if key in shown},
        }
    )
