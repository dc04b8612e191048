"""Load studies from YAML: one of a user, the paper's at a scale, or those of finished results."""

from collections.abc import Iterable
from pathlib import Path

from mgm.console import show
from mgm.errors import UserError, valid
from mgm.results.plan import COPY, FOLDER, RunPlan
from mgm.spec import MASKS
from mgm.study import STUDIES
from mgm.study.scales import Scale, read_named
from mgm.study.schema import Row, Study

# The paper's tables, in its order, then ours.
PAPER = Path(__file__).with_name("paper")
NAMES = ("table1", "table2", "table3", "table4", "table4e", "ours", "guidance", "measured")


def load_study(path: Path) -> Study:
    """Read a study from a YAML file.

    Raises:
        UserError: there is no such file, or a field is unknown, missing or invalid.
    """

    with valid(f"{path}: "):
        return Study.model_validate(read_named(path, "study"))


def of_paper(scale: Scale) -> list[Study]:
    """Return the paper's studies as a scale has them.

    A study is left out where the scale lacks its datasets, and a table where a dataset or a row
    that it lists is missing.

    Raises:
        UserError: the scale names a study that is not there, or lacks the datasets of all.
    """
    for field, given in (("without", scale.without), ("seeds_of", scale.seeds_of)):
        if unknown := {*given} - {*NAMES}:
            raise UserError(
                f"scale {scale.name}: {field}.{min(unknown)} is not in {', '.join(NAMES)}"
            )
    names = [name for name in NAMES if name not in scale.without]
    paper = (_at(load_study(PAPER / f"{name}.yaml"), scale) for name in names)
    if not (studies := [study for study in paper if study]):
        raise UserError(f"scale {scale.name}: has the datasets of no table")
    for study in studies:
        if unknown := scale.seeds_of.get(study.study, {}).keys() - study.columns.keys():
            raise UserError(
                f"scale {scale.name}: seeds_of.{study.study}.{min(unknown)} is no column; choose "
                f"from {', '.join(study.columns)}"
            )
    return studies


def _at(study: Study, scale: Scale) -> Study | None:
    """Return a study of the paper as a scale has it; None if the scale lacks its datasets."""
    absent = {name for name, place in study.datasets.items() if place.use not in scale.datasets}
    absent |= {n for n, place in study.datasets.items() if place.pretrained_on in absent}
    if any(not study.datasets[name].optional for name in absent):
        return None
    datasets = {name: place for name, place in study.datasets.items() if name not in absent}
    rows = dict(study.rows)
    if study.every_mask:
        named = {row.mask for row in study.rows.values()}
        rows |= {
            info.row: Row(mask=mask)
            for mask, info in MASKS.items()
            if info.row and not info.source and mask not in named
        }
    views = {
        name: view for name, view in study.views.items() if {*view.datasets} <= datasets.keys()
    }
    return study.model_copy(update={"datasets": datasets, "rows": rows, "views": views})


def read_studies(results: Path, plan: RunPlan) -> dict[str, Study]:
    """Return the studies of a plan by name, with the datasets and rows that the plan has.

    Their words are those of the study's file as it is now, or of its copy in the plan's folder if
    the file is gone. A message says what the file has and the plan lacks.

    Raises:
        UserError: the plan is not of this study, or the study cannot be read.
    """
    names = list(dict.fromkeys(cell.study for cell in plan.cells))
    own = study_file(results, plan)
    files = {plan.name: own} if own else {name: PAPER / f"{name}.yaml" for name in names}
    studies = {name: load_study(file) for name, file in files.items()}
    for name, study in studies.items():
        if names != [*files] or study.study != name:
            raise UserError(f"{results / FOLDER}: is the plan of {', '.join(names)}, not of {name}")
        if new := lacking(results, plan):
            show(
                f"{own}: {', '.join(new)}: the plan of these results lacks it; "
                f"`snakemake --cores 1 report --config study={own}` adds it"
            )
    return {name: _as_planned(study, plan) for name, study in studies.items()}


def study_file(results: Path, plan: RunPlan) -> Path | None:
    """Return the file of a plan's study, or its copy if it is gone; None for the paper's."""
    own = STUDIES / f"{plan.name}.yaml"
    if not plan.file and not own.is_file():
        return None
    places = (own, results / plan.file, results / FOLDER / COPY)
    return next(filter(Path.is_file, places), places[1])


def lacking(results: Path, plan: RunPlan) -> list[str]:
    """Return what the file of a plan's study has, and the plan lacks, such as rows.MGM."""
    if not (file := study_file(results, plan)):
        return []
    study, shown = load_study(file), {cell.dataset for cell in plan.cells}
    # A view of optional datasets alone is left out with them.
    views = [key for key, view in study.views.items() if shown.intersection(view.datasets or shown)]
    parts: list[tuple[str, Iterable[str], set[str]]] = [
        ("datasets", study.shown, shown),
        ("rows", study.rows, {cell.row for cell in plan.cells}),
        ("columns", study.columns, {cell.column for cell in plan.cells}),
        ("views", views, {name for cell in plan.cells for name in cell.views}),
    ]
    optional = {f"datasets.{name}" for name, place in study.datasets.items() if place.optional}
    new = (f"{what}.{name}" for what, names, has in parts for name in names if name not in has)
    return [name for name in new if name not in optional]


def _as_planned(study: Study, plan: RunPlan) -> Study:
    """Return a study with the datasets, their titles and the rows that a plan has."""
    cells = [cell for cell in plan.cells if cell.study == study.study and cell.metric]
    titles = {cell.dataset: cell.title for cell in cells}
    places = {(cell.dataset, cell.row, cell.column) for cell in cells}
    drawn = {key for cell in plan.cells if not cell.metric for key in cell.views}
    rows = dict.fromkeys(cell.row for cell in cells if not cell.control)
    return study.model_copy(
        update={
            "datasets": {
                name: place.model_copy(update={"title": titles.get(name, place.title)})
                for name, place in study.datasets.items()
                if name in titles or not place.tested
            },
            "rows": {name: study.rows.get(name, Row()) for name in rows},
            "views": {
                key: view
                for key, view in study.views.items()
                if key in drawn or any(study.shows(view, *place) for place in places)
            },
        }
    )


LABELLED = """\
  Linear probe: {data.labels_per_class: 0, label_draws: 1}
  # Fine-tuned: {stage: finetune}
controls: [Linear probe]         # the same labels and test videos, without a model"""
UNLABELLED = """\
  # Without labels: how much of the loss a model explains, under the same mask for all models.
  Explained (%): {stage: measure, name: explained, metric: common_explained}"""


def new_study(path: Path, root: Path, test: Path | None = None, labelled: bool = True) -> str:
    """Return the text of a new study with comments, to be written to `path`.

    Args:
        root: the folder of a prepared dataset, whose videos pretrain.
        test: the folder of another one, whose videos are tested on. None: `root`.
        labelled: whether the videos that are tested on have labels.
    """
    name = root.name or "mine"
    tested = f"{name}-test" if test else name
    datasets = f"  {name}: {{title: My videos, root: {root}, recipe: ssv2}}"
    if test:
        datasets = (
            f"  {name}: {{title: My videos, root: {root}, recipe: ssv2, tested: false}}\n"
            f"  {tested}: {{title: My labelled videos, root: {test}, recipe: ssv2, "
            f"pretrained_on: {name}}}"
        )
    template = Path(__file__).with_name("template.yaml").read_text(encoding="utf-8")
    return template.format(
        name=path.stem,
        path=path,
        dataset=name,
        tested=tested,
        datasets=datasets,
        untrained="  Random weights: none\n" if labelled else "",
        columns=LABELLED if labelled else UNLABELLED,
    )
