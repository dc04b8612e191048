"""A study: a comparison as data, from which its runs, DAG, tables, page and verdicts follow.

`studies/NAME.yaml` holds one. The paper's own tables are Python (`mgm.study.experiments`).
"""

import re
from collections.abc import Collection, Mapping
from itertools import chain
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from mgm.spec import FrozenModel, RunOptions, metric_by_title

# Can be the name of a folder, and is one word for a shell.
Name = Annotated[str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]


def _not_reserved(name: str) -> str:
    if name.lower().startswith(RESERVED) or name.lower().endswith(".tar.xz"):
        raise ValueError(f"{name} is the name of a file that mgm writes itself; choose another")
    return name


RESERVED = ("mlflow.db", "mlflow-artifacts")
ResultsName = Annotated[Name, AfterValidator(_not_reserved)]
Stage = Literal["pretrain", "finetune", "probe", "measure", "visualise"]
# Metrics of a `measure controls` run, by the controls' titles.
CONTROLS = metric_by_title(
    "bytes",
    "middle_frame",
    "mean_frame",
    "frame_difference",
    "vector_mean",
    "vector_trajectory",
    "vector_histogram",
    "vector_quadrants",
)


def numbers(value: Any) -> Any:
    """Return the numbers of a range such as "701-720", or of several: "0-3, 7"."""
    if isinstance(value, int):
        return (value,)
    if not isinstance(value, str):
        return value
    values: list[int] = []
    for part in value.split(","):
        if not (bounds := re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)):
            raise ValueError("is not a range of numbers, such as 701-720")
        values += range(int(bounds[1]), int(bounds[2] or bounds[1]) + 1)
    return tuple(values)


Numbers = Annotated[
    tuple[int, ...],
    BeforeValidator(numbers, json_schema_input_type=int | str | tuple[int, ...]),
]


class At(NamedTuple):
    """A place in a study. An empty row or column stands for any."""

    dataset: str
    draw: int | None
    seed: int
    row: str = ""
    column: str = ""


class Only(FrozenModel):
    """The part of a study that a row or a column is limited to. Empty: no limit."""

    datasets: tuple[str, ...] = ()
    draws: Numbers = ()
    seeds: Numbers = ()
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __contains__(self, at: At) -> bool:
        limits = self.datasets, self.draws, self.seeds, self.rows, self.columns
        return all(not limit or value in ("", *limit) for limit, value in zip(limits, at))


class Place(FrozenModel):
    """A dataset of a study."""

    title: str = ""
    # Fields of the scale's generated dataset that this one changes.
    generate: dict[str, Any] | None = None
    # The folder of a prepared dataset, and the digest of its index.
    root: str = ""
    digest: str = ""
    # Fields of pretraining that change here, for every row.
    pretrain: dict[str, Any] = Field(default_factory=dict)
    # Another dataset of the study, with the same videos.
    videos_of: str = ""
    # Another dataset of the study, whose videos pretrain the models tested here.
    pretrained_on: str = ""
    # A fold of a dataset: an accuracy is over the test videos of all folds.
    fold_of: str = ""
    # Only pretrain here.
    tested: bool = True
    # Leave this dataset out where its videos are not prepared and have no source.
    optional: bool = False
    # In place of the study's.
    draws: Numbers = ()
    seeds: Numbers = ()


class Changes(FrozenModel):
    """Differences from the study's runs, in the same mapping as the other fields."""

    # Files have the aliases.
    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    changes: dict[str, Any] = Field(default_factory=dict)
    only: Only = Only()

    @model_validator(mode="before")
    @classmethod
    def _dotted(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping) or "changes" in fields:
            return fields
        names = {field.alias or name for name, field in cls.model_fields.items()}
        own = {name: value for name, value in fields.items() if name in names}
        return {**own, "changes": {k: v for k, v in fields.items() if k not in names}}


class Row(Changes):
    """A kind of pretraining, as differences from the study's."""

    # none: random weights. Another row: go on from its weights.
    start: str = Field("", alias="from")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, fields: Any) -> Any:
        return {"from": "none"} if fields == "none" else fields


class Column(Changes):
    """An evaluation, as differences from the study's."""

    stage: Literal["probe", "finetune", "measure"] = "probe"
    metric: str = "top1"


class Prediction(FrozenModel):
    """What a study's author expected of a number, before the runs that test it."""

    # Files have the aliases.
    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    dataset: str = Field(alias="in")
    # "A above 5", "A minus B below 0", "A minus B within 3", "A minus B level". A and B are rows,
    # or controls; "A [COLUMN]" is a row in another column.
    says: str
    column: str = ""
    # The commit that wrote it. Empty: it is not committed yet.
    since: str = ""
    # Test it on these draws or seeds alone.
    draws: Numbers = ()
    seeds: Numbers = ()
    # Refuted unless it holds: an interval with both outcomes is not open.
    strict: bool = False
    # Why its commit is not older than its runs.
    late: str = ""
    note: str = ""

    @property
    def parts(self) -> "Statement":
        return parse_statement(self.says)

    @property
    def terms(self) -> "list[Term]":
        return [term for term in self.parts[:2] if term]


class Term(NamedTuple):
    """A row or a control of a study, in one of its columns; the first by default."""

    row: str
    column: str = ""


class Statement(NamedTuple):
    """A mean, or a difference of two, and what is said of it."""

    first: Term
    second: Term | None
    relation: Literal["above", "below", "within", "level"]
    bound: float


_STATEMENT = re.compile(r"(.+?) (above|below|within|level)(?: (-?\d+(?:\.\d+)?))?")


def parse_statement(text: str) -> Statement:
    """Read a prediction, such as "MGM minus Random block above 5".

    Raises:
        ValueError: it has another form.
    """
    match = _STATEMENT.fullmatch(text.strip())
    if not match or (match[2] == "level") != (match[3] is None):
        raise ValueError(
            f"{text!r} is not a prediction; write A minus B, then above, below or within a number, "
            "or level"
        )
    first, second = parse_difference(match[1])
    return Statement(first, second, match[2], float(match[3] or 0))  # type: ignore[arg-type]


def parse_difference(text: str) -> tuple[Term, Term | None]:
    """Read "A minus B", or "A" alone."""
    first, minus, second = text.strip().partition(" minus ")
    return _term(first), _term(second) if minus else None


def _term(text: str) -> Term:
    match = re.fullmatch(r"(?s)(.*?)(?: \[(.+)\])?", text.strip())
    return Term(*match.groups(""))  # type: ignore[union-attr]


def _one_family(families: Any) -> Any:
    return {"": families} if isinstance(families, list | tuple) else families


Families = Annotated[dict[str, tuple[str, ...]], BeforeValidator(_one_family)]


class Study(FrozenModel):
    """A comparison of rows of pretraining by columns of evaluations, on several datasets."""

    study: ResultsName
    question: str
    # Sentences. {DATASET: A minus B} stands for that estimate.
    answer: tuple[str, ...] = ()
    caveat: str = ""
    expected_cost: str = ""
    # The scale whose recipes its runs have. Empty: the defaults of a spec.
    scale: str = ""
    # The dataset of the scale that is generated, or whose recipe applies, and its epochs.
    recipe: Name = "ssv2"
    epochs: int = Field(200, ge=1)
    # Fields of each stage that differ from the scale's.
    settings: dict[Stage, dict[str, Any]] = Field(default_factory=dict)
    datasets: dict[Name, Place] = Field(min_length=1)
    # Seeds of generated datasets.
    draws: Numbers = ()
    # Seeds of runs. Empty: the seed of the draw.
    seeds: Numbers = ()
    # The sampling unit of an interval: draws if there are any, or each run by itself.
    unit: Literal["draws", "runs"] = "draws"
    # A regular expression whose group is the person, or the source, in a test video's path. Then
    # each difference also has an interval over seeds and people.
    people: str = ""
    rows: dict[str, Row] = Field(min_length=1)
    columns: dict[str, Column] = Field(min_length=1)
    # Columns whose labels, draws and test videos the controls without a model share.
    controls: tuple[str, ...] = ()
    # Differences "A minus B" by family; B may be *, for every other row. Holm's method is applied
    # to a family's differences in one dataset and column. A list is one family.
    compare: Families = Field(default_factory=dict)
    # A number of pretraining with its title, such as {optim.steps: Steps}. Rows that differ in it
    # alone are a line of the figure that draws each column over it.
    over: dict[str, str] = Field(default_factory=dict, max_length=1)
    # Means over several datasets, by name.
    averages: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    predictions: tuple[Prediction, ...] = ()
    # Why some runs are of a tree with changes, or of a commit that is lost.
    unclean: str = ""
    # When it stopped or stops, in words.
    stop: str = ""
    # What an attentive reader would ask, and the answer.
    sceptic: dict[str, str] = Field(default_factory=dict)
    # A draw counts only if all its rows are finished.
    complete: bool = True
    # Runs per job; by default as many as the scale has.
    specs_per_job: int | None = Field(None, ge=1)
    execution: RunOptions | None = None

    @model_validator(mode="after")
    def _names_what_is_there(self) -> Self:
        """Refuse a part that names a row, column or dataset that is not there."""
        names = {
            "dataset": {*self.datasets, *self.averages, *(p.fold_of for p in self._places())},
            "row": {*self.rows, *CONTROLS},
            "column": {*self.columns, ""},
        }

        def check(where: str, kind: str, *chosen: str) -> None:
            for name in chosen:
                if name not in names[kind]:
                    known = ", ".join(sorted(filter(None, names[kind])))
                    raise ValueError(f"{where}: {name!r} is not a {kind}; choose from {known}")

        for name, place in self.datasets.items():
            where = f"datasets.{name}"
            check(where, "dataset", *filter(None, [place.pretrained_on, place.videos_of]))
            if [place.generate is None, not place.root, not place.videos_of].count(False) != 1:
                raise ValueError(f"{where}: needs one of `generate`, `root`, `videos_of`")
            if place.generate is not None and not (place.draws or self.draws):
                raise ValueError(f"{where}: is generated, and the study has no draws")
        if not (self.seeds or self.draws or all(p.seeds or p.draws for p in self._places())):
            raise ValueError("has neither draws nor seeds")
        for name, row in self.rows.items():
            check(f"rows.{name}.from", "row", *{row.start} - {"", "none"})
        for name, part in (*self.rows.items(), *self.columns.items()):
            for kind in names:
                check(f"{name}.only", kind, *getattr(part.only, f"{kind}s"))
        for name, names_of_datasets in self.averages.items():
            check(f"averages.{name}", "dataset", *names_of_datasets)
        check("controls", "column", *self.controls)
        for text in chain.from_iterable(self.compare.values()):
            first, second = parse_difference(text)
            if second is None:
                raise ValueError(f"compare: {text!r} is not `A minus B`")
            check(f"compare: {text}", "row", first.row, *{second.row} - {"*"})
            check(f"compare: {text}", "column", first.column, second.column)
        for number, prediction in enumerate(self.predictions, 1):
            where = f"predictions: number {number}"
            check(where, "dataset", prediction.dataset)
            check(where, "row", *(term.row for term in prediction.terms))
            columns = (term.column for term in prediction.terms)
            check(where, "column", prediction.column, *columns)
        return self

    def _places(self) -> list[Place]:
        return [place for place in self.datasets.values() if place.tested]

    def without_absent(self, present: Collection[str]) -> Self:
        """Return the study without its optional datasets that are not `present`."""
        kept = {
            name: place
            for name, place in self.datasets.items()
            if not place.optional or name in present
        }
        return self.model_copy(update={"datasets": kept})

    @property
    def shown(self) -> dict[str, str]:
        """The datasets with results, each with its title; folds stand under their dataset."""
        titles: dict[str, str] = {}
        for name, place in self.datasets.items():
            if place.tested:
                titles.setdefault(place.fold_of or name, place.title or place.fold_of or name)
        return titles | {name: name for name in self.averages}
