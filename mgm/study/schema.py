"""A study: a comparison as data, from which its runs, DAG, tables, page and verdicts follow.

`studies/NAME.yaml` holds one. Those of `mgm/study/paper` are the paper's tables.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from mgm.errors import UserError, nearest
from mgm.reading import found_in
from mgm.spec import CONTROLS as EVERY_CONTROL
from mgm.spec import PUBLISHED, FrozenModel, KnownBackbone, MaskName, RunOptions
from mgm.study.formula import (
    QUOTED,
    Formula,
    Statement,
    Term,
    formula_in,
    parse_formula,
    parse_statement,
)
from mgm.study.quoted import quotes
from mgm.study.recipes import RECIPES
from mgm.study.selection import At, Numbers, Selection

Stage = Literal["pretrain", "finetune", "probe", "measure", "visualise"]
RESERVED = ("mlflow.db", "mlflow-artifacts")
TARGETS = ("all", "report", "result", "prepare", "flow", *get_args(Stage), "differences", "seeds")


def _not_reserved(name: str) -> str:
    if name.lower().startswith(RESERVED) or name.lower().endswith(".tar.xz"):
        raise ValueError(f"{name} is the name of a file that mgm writes itself; choose another")
    return name


def _not_a_target(key: str) -> str:
    if key in TARGETS:
        raise ValueError(f"{key} is another target; choose a name such as figure-{key}")
    return key


def _expression(text: str) -> str:
    try:
        found_in([""], text, "people")
    except UserError as error:
        raise ValueError(str(error).removeprefix("people: ")) from None
    return text


# Can be the name of a folder, and is one word for a shell.
Name = Annotated[str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]
ResultsName = Annotated[Name, AfterValidator(_not_reserved)]
# Part of a file's name, and of a target's.
ViewKey = Annotated[str, Field(pattern="^[A-Za-z0-9_.-]{1,60}$"), AfterValidator(_not_a_target)]
# Metrics of a `measure controls` run, by the controls' titles.
CONTROLS = {control.title: control.name for control in EVERY_CONTROL if control.kind != "model"}
# The metrics that a column of each stage, or of each measurement, can show.
ACCURACIES = ("top1", "outside")
METRICS: dict[str, tuple[str, ...]] = {
    "probe": ACCURACIES,
    "finetune": ACCURACIES,
    "saliency": ("saliency", "inside", "outside"),
    "visible": ("texture", "motion", "without", "energy", "moving"),
    # With the run's own mask, and with a common one.
    "explained": tuple(
        mask + part
        for mask in ("", "common_")
        for part in (
            *("explained", "explained_moving", "explained_static", "moving_loss"),
            *("neighbours", "neighbours_moving", "neighbours_static"),
            *("nearest", "nearest_moving", "nearest_static"),
        )
    ),
}
# Metrics that are shares of the test videos or of predictions, in per cent. What a model explains
# may be negative.
SHARES = {*ACCURACIES, *METRICS["visible"], *CONTROLS.values()} - {"energy"}
SHARES |= {"hidden", "moving_loss", "common_moving_loss"}


class Dataset(FrozenModel):
    """A dataset of a study."""

    title: str = ""
    # A dataset of the scale, which keeps its name and digest.
    use: str = ""
    # Fields of the scale's generated dataset that this one changes.
    generate: dict[str, Any] | None = None
    # The folder of a prepared dataset, and the digest of its index.
    root: str = ""
    digest: str = ""
    # With a digest: whether several of its videos come from one source. Else its index says so.
    grouped: bool = False
    # With a scale: the published dataset whose recipe its runs have, such as ssv2. A published
    # dataset, and one of the scale, have their own.
    recipe: str = ""
    # Another dataset of the study, with the same videos.
    videos_of: str = ""
    # Another dataset of the study, whose videos pretrain the models tested here.
    pretrained_on: str = ""
    # Only pretrain here.
    tested: bool = True
    # Leave this dataset out where its videos are not prepared and have no source.
    optional: bool = False
    # Fields of each stage in which its runs differ from the study's.
    settings: dict[Stage, dict[str, Any]] = Field(default_factory=dict)
    # In place of the study's.
    dataset_seeds: Numbers = ()
    seeds: Numbers = ()

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        given = self.generate is not None, self.root, self.videos_of, self.use
        if sum(map(bool, given)) != 1:
            raise ValueError("needs one of `generate`, `root`, `use`, `videos_of`")
        return self


def _gathered(model: type[FrozenModel], name: str, fields: Any) -> Any:
    """Return a mapping whose keys that are no fields stand in the field `name`."""
    if not isinstance(fields, Mapping) or name in fields:
        return fields
    known = {field.alias or key for key, field in model.model_fields.items()}
    own = {key: value for key, value in fields.items() if key in known}
    return {**own, name: {key: value for key, value in fields.items() if key not in known}}


class Changes(FrozenModel):
    """Differences from the study's runs, in the same mapping as the other fields."""

    # Files have the aliases.
    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    changes: dict[str, Any] = Field(default_factory=dict)
    only: Selection = Selection()

    @model_validator(mode="before")
    @classmethod
    def _dotted(cls, fields: Any) -> Any:
        return _gathered(cls, "changes", fields)


class Row(Changes):
    """A kind of pretraining, as differences from the study's."""

    # They choose the recipe, which the scale then changes. All other fields replace the scale's.
    mask: MaskName = "mgm"
    epochs: int | None = Field(None, ge=1)
    backbone: KnownBackbone | None = None
    # none: random weights. A row above: go on from its weights.
    start: str = Field("", alias="from")
    # Train once more with the labels of the pretraining videos, before the row is evaluated.
    then: Literal["", "finetune", "supervised"] = ""
    # In figures: the line or the colour that it has with others, and what its mark's shape says.
    line: str = ""
    mark: str = ""
    # Only views that name it show it. It has the scale's seeds, and no more.
    figure_only: bool = False

    @model_validator(mode="before")
    @classmethod
    def _short(cls, fields: Any) -> Any:
        return {"from": "none"} if fields == "none" else fields


# As the study says, without differences.
PLAIN = Row()


class Column(Changes):
    """An evaluation, as differences from the study's."""

    stage: Literal["probe", "finetune", "measure"] = "probe"
    metric: str = "top1"

    @model_validator(mode="after")
    def _has_its_metric(self) -> Self:
        kind = self.changes.get("name") if self.stage == "measure" else self.stage
        if self.metric not in (known := METRICS.get(str(kind), ())):
            raise ValueError(
                f"{self.stage}{f' {kind}' * (kind != self.stage)} has no metric {self.metric!r}; "
                f"choose from {', '.join(known) or 'those of another measurement'}"
            )
        return self


class View(Selection):
    """What a page shows of the numbers that are selected, and how.

    Its kind is a module of `mgm.report.views`, which has the other fields as `Options`.
    """

    kind: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")] = "table"
    # Its number, such as Table 4e.
    label: str = ""
    title: str = ""
    note: str = ""
    # Arrays that a run of the view's own writes, in place of the numbers of cells.
    show: Literal["", "masks", "coverage", "attention", "overlays", "reconstructions"] = ""
    # The lines that it shows: rows of ours and of the paper by their `line`. Empty: all.
    lines: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _options_in_one_mapping(cls, fields: Any) -> Any:
        return _gathered(cls, "options", fields)


class Effect(FrozenModel):
    """The effect of a factor: a number's mean over some datasets minus its mean over others.

    Formulas name it as they name a dataset. It is estimated per dataset seed that all these
    datasets have.
    """

    high: Annotated[tuple[str, ...], Field(min_length=1)]
    low: Annotated[tuple[str, ...], Field(min_length=1)]
    title: str = ""


class Prediction(FrozenModel):
    """What a study's author expected of a number, before the runs that test it."""

    # Files have the aliases.
    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    # A dataset, or an effect.
    dataset: str = Field(alias="in")
    # "A above 5", "A minus B below 0", "A minus B within 3", "A minus B level". A and B are rows,
    # or controls; "A [COLUMN]" is a row in another column.
    says: str
    column: str = ""
    # The commit that wrote it. Empty: it is not committed yet.
    since: Annotated[str, Field(coerce_numbers_to_str=True)] = ""
    # Test it on these dataset seeds or seeds alone.
    dataset_seeds: Numbers = ()
    seeds: Numbers = ()

    @property
    def statement(self) -> Statement:
        return parse_statement(self.says)


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
    # The recipe of its rows, where a row names no other.
    epochs: int = Field(200, ge=1)
    backbone: KnownBackbone = "vit-b"
    # Fields of each stage that differ from the scale's.
    settings: dict[Stage, dict[str, Any]] = Field(default_factory=dict)
    datasets: dict[Name, Dataset] = Field(min_length=1)
    # Seeds of generated datasets.
    dataset_seeds: Numbers = ()
    # Seeds of runs. Empty: the seed of the dataset_seed.
    seeds: Numbers = ()
    # The sampling unit of an interval: dataset seeds if there are any, or each run by itself.
    unit: Literal["datasets", "runs"] = "datasets"
    # A regular expression whose group is the person, or the source, in a test video's path. Then
    # each difference also has an interval over seeds and people.
    people: Annotated[str, AfterValidator(_expression)] = ""
    rows: dict[str, Row] = Field(min_length=1)
    columns: dict[str, Column] = Field(min_length=1)
    # Columns whose labels, dataset seeds and test videos the controls without a model share.
    controls: tuple[str, ...] = ()
    # Differences "A minus B" by family; B may be *, for every other row. Holm's method is applied
    # to a family's differences in one column, on all datasets. A list is one family.
    compare: Families = Field(default_factory=dict)
    # Effects of factors by name, which formulas use as they use a dataset.
    effects: dict[Name, Effect] = Field(default_factory=dict)
    # What the page shows, by target, such as table4e. Without a table, each dataset is one.
    views: dict[ViewKey, View] = Field(default_factory=dict)
    # Add a row for each mask of `MASKS` that names a row, and that no row has.
    every_mask: bool = False
    predictions: tuple[Prediction, ...] = ()
    # When it stopped or stops, in words.
    stopping_rule: str = ""
    # What an attentive reader would ask, and the answer.
    limitations: dict[str, str] = Field(default_factory=dict)
    # A dataset seed counts only if all its rows are finished.
    complete: bool = True
    # Runs per job; by default as many as the scale has.
    specs_per_job: int | None = Field(None, ge=1)
    execution: RunOptions | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for name in self.rows:
            if name in CONTROLS or parse_formula(name) != Formula((Term(name),), (1,)):
                raise ValueError(f"rows.{name}: is a control, or a formula; choose another name")
        for name, dataset in self.datasets.items():
            own = dataset.root and name not in PUBLISHED
            if own and self.scale and dataset.recipe not in RECIPES:
                raise ValueError(
                    f"datasets.{name}.recipe: {dataset.recipe!r}: name the dataset whose recipe "
                    f"its runs have: {', '.join(RECIPES)}"
                )
            if dataset.generate is not None and not self.dataset_seeds_of(name):
                raise ValueError(f"datasets.{name}: is generated, and has no dataset seeds")
        for texts in self.compare.values():
            for text in texts:
                if parse_formula(text).signs != (1, -1):
                    raise ValueError(f"compare: {text!r} is not `A minus B`")
        return self

    @model_validator(mode="after")
    def _names_what_is_there(self) -> Self:
        """Refuse a part of the study that names what is not there."""
        paper, rows = quotes(self.study), list(self.rows)
        lines = {row.line or name for name, row in self.rows.items()}
        lines |= {quote.line for quote in paper.values()}
        every_row = {*rows, *CONTROLS, *(row for _, row, _ in paper)}
        named: list[tuple[str, Iterable[str], Collection[str]]] = []
        for where, chosen in self.selections():
            named += [
                (where, chosen.datasets, self.datasets),
                (where, chosen.rows, every_row),
                (where, chosen.columns, self.columns),
            ]
        named += [(f"views.{key}.lines", view.lines, lines) for key, view in self.views.items()]
        for name, row in self.rows.items():
            # A run comes after the one that it goes on from.
            named.append(
                (f"rows.{name}.from", [row.start], ["", "none", *rows[: rows.index(name)]])
            )
        for name, dataset in self.datasets.items():
            others = [*filter(None, (dataset.pretrained_on, dataset.videos_of))]
            named.append((f"datasets.{name}", others, self.datasets))
        probes = [name for name, column in self.columns.items() if column.stage == "probe"]
        named.append(("controls", self.controls, probes))
        for where, names, known in named:
            for name in names:
                if name not in known:
                    raise ValueError(f"{where}: {name!r} is unknown; {nearest(name, known)}")
        return self

    def selections(self) -> Iterator[tuple[str, Selection]]:
        """Yield what each part of the study is about, with the name of the part."""
        yield from ((f"datasets.{name}", Selection(datasets=(name,))) for name in self.shown)
        for name, row in self.rows.items():
            yield f"rows.{name}", row.only.model_copy(update={"rows": (name,)})
        for name, column in self.columns.items():
            yield f"columns.{name}", column.only.model_copy(update={"columns": (name,)})
        yield from ((f"views.{key}", view) for key, view in self.views.items())
        for name, effect in self.effects.items():
            yield f"effects.{name}", Selection(datasets=(*effect.high, *effect.low))
        formulas = [
            (f"compare: {text}", parse_formula(text), Selection())
            for text in chain.from_iterable(self.compare.values())
        ]
        for one in self.predictions:
            where = f"predictions: {one.dataset}: {one.says}"
            formulas.append((where, one.statement.formula, self.selection_of(one)))
        for text in (*self.answer, *self.limitations.values()):
            for quoted in QUOTED.findall(text):
                dataset, formula = formula_in(quoted)
                chosen = Selection(datasets=self.datasets_of(dataset))
                formulas.append((f"answer: {quoted}", formula, chosen))
        for where, formula, chosen in formulas:
            for term in formula.terms:
                own = {"rows": (term.place + term.row,)} if term.row != "*" else {}
                own |= {"columns": (term.column,)} if term.column else {}
                yield f"{where}: {term.row}", chosen.model_copy(update=own)

    def selection_of(self, prediction: Prediction) -> Selection:
        """Return the places that a prediction is about, in all rows."""
        return Selection(
            datasets=self.datasets_of(prediction.dataset),
            columns=(prediction.column or self.first_column,),
            dataset_seeds=prediction.dataset_seeds,
            seeds=prediction.seeds,
        )

    def has(self, at: At) -> bool:
        """Return whether a place has a number. Random weights have nothing to measure."""
        row, column = self.rows.get(at.row, PLAIN), self.columns[at.column]
        idle = column.stage == "measure" and row.start == "none"
        return at in row.only and at in column.only and not idle

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
        """The datasets with results, each with its title."""
        return {name: place.title or name for name, place in self.datasets.items() if place.tested}

    @property
    def compared(self) -> dict[str, str]:
        """The datasets with results, and the effects of factors, each with its title."""
        effects = {name: effect.title or name for name, effect in self.effects.items()}
        return self.shown | effects

    def dataset_seeds_of(self, dataset: str) -> tuple[int | None, ...]:
        """The seeds of a dataset's videos; None alone if they are not generated."""
        own = self.datasets[dataset]
        if self.datasets.get(own.videos_of, own).generate is None:
            return (None,)
        return own.dataset_seeds or self.dataset_seeds

    def datasets_of(self, place: str) -> tuple[str, ...]:
        """The datasets of an effect, or the dataset itself."""
        effect = self.effects.get(place)
        return (*effect.high, *effect.low) if effect else (place,)

    @property
    def first_column(self) -> str:
        """The column of a row that names none."""
        return next(iter(self.columns))

    @property
    def tests(self) -> list[str]:
        """The columns of tests. The others measure, maybe on the videos that pretrain."""
        return [name for name, column in self.columns.items() if column.stage != "measure"]

    @property
    def shown_views(self) -> dict[str, View]:
        """The views by key. Without a table, each dataset is one."""
        if any(view.kind == "table" for view in self.views.values()):
            return self.views
        tables = {
            f"table{name}": View(title=title, datasets=(name,))
            for name, title in self.shown.items()
        }
        return tables | self.views

    def shows(self, view: View, dataset: str, row: str, column: str, line: str = "") -> bool:
        """Return whether a view shows a cell. A view that names no row shows no `figure_only`.

        Args:
            line: of a row that only the paper has.
        """
        own = self.rows.get(row, PLAIN)
        return (
            not view.show
            and view.names(dataset, row, column)
            and (not view.lines or (own.line or line or row) in view.lines)
            and (bool(view.rows or view.lines) or not own.figure_only)
        )
