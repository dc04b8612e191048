"""A study: a comparison as data, from which its runs, DAG, tables, page and verdicts follow.

`studies/NAME.yaml` holds one. Those of `mgm/study/paper` are the paper's tables.
"""

import re
from collections.abc import Collection, Mapping
from itertools import chain
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from mgm.errors import UserError, nearest
from mgm.reading import found_in
from mgm.spec import CONTROLS as EVERY_CONTROL
from mgm.spec import PUBLISHED, FrozenModel, KnownBackbone, RunOptions
from mgm.study.formula import Formula, Statement, Term, parse_formula, parse_statement
from mgm.study.quoted import quotes
from mgm.study.recipes import RECIPES

# Keys that studies had, and what stands in their place.
OLD_KEYS = {
    "draws": "`dataset_seeds`",
    "sceptic": "`limitations`",
    "stop": "`stopping_rule`",
    "tables": "`views`: the key 4e is table4e there",
    "figures": "`views`: over is kind line, against scatter, pictures are kind clips with `show`",
}

# Can be the name of a folder, and is one word for a shell.
Name = Annotated[str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]


Stage = Literal["pretrain", "finetune", "probe", "measure", "visualise"]


def _not_reserved(name: str) -> str:
    if name.lower().startswith(RESERVED) or name.lower().endswith(".tar.xz"):
        raise ValueError(f"{name} is the name of a file that mgm writes itself; choose another")
    return name


def _expression(text: str) -> str:
    if text:
        try:
            found_in([""], text, "people")
        except UserError as error:
            raise ValueError(str(error).removeprefix("people: ")) from None
    return text


def _not_a_target(key: str) -> str:
    if key in TARGETS:
        raise ValueError(f"{key} is another target; choose a name such as figure-{key}")
    return key


RESERVED = ("mlflow.db", "mlflow-artifacts")
TARGETS = ("all", "report", "result", "prepare", "flow", *get_args(Stage), "differences", "seeds")
# Part of a file's name, and of a target's.
Key = Annotated[str, Field(pattern="^[A-Za-z0-9_.-]{1,60}$")]
ViewKey = Annotated[Key, AfterValidator(_not_a_target)]
ResultsName = Annotated[Name, AfterValidator(_not_reserved)]
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
# Fields of a row that its pretraining has before the scale changes it.
BEFORE_SCALE = ("mask", "epochs", "backbone")
MOST_NUMBERS = 10_000


def read_numbers(value: Any) -> Any:
    """Return the numbers of a range such as "701-720", or of several: "0-3, 7"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, str):
        return value
    values: list[int] = []
    for part in value.split(","):
        if not (bounds := re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)):
            raise ValueError("is not a range of numbers, such as 701-720")
        first, last = int(bounds[1]), int(bounds[2] or bounds[1])
        if last < first:
            raise ValueError(f"{part.strip()} goes backwards; write {last}-{first}")
        if last - first >= MOST_NUMBERS:
            raise ValueError(f"{part.strip()} has more than {MOST_NUMBERS:,} numbers")
        values += range(first, last + 1)
    return tuple(values)


def _each_once(values: tuple[int, ...]) -> tuple[int, ...]:
    if len({*values}) < len(values):
        raise ValueError("names a number twice")
    return values


Numbers = Annotated[
    tuple[int, ...],
    BeforeValidator(read_numbers),
    AfterValidator(_each_once),
]


class At(NamedTuple):
    """A place in a study. An empty row or column stands for any."""

    dataset: str
    dataset_seed: int | None
    seed: int
    row: str = ""
    column: str = ""
    line: str = ""


class Selection(FrozenModel):
    """Datasets, rows, columns and seeds by name. Empty: all.

    It limits a row or a column, and says what a view shows.
    """

    datasets: tuple[str, ...] = ()
    dataset_seeds: Numbers = ()
    seeds: Numbers = ()
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __contains__(self, at: At) -> bool:
        return (
            (not self.datasets or at.dataset in ("", *self.datasets))
            and (not self.dataset_seeds or at.dataset_seed in self.dataset_seeds)
            and (not self.seeds or at.seed in self.seeds)
            and (not self.rows or at.row in ("", *self.rows))
            and (not self.columns or at.column in ("", *self.columns))
        )


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
    """A kind of pretraining, as differences from the study's.

    The fields `mask`, `epochs` and `backbone` choose the recipe, which the scale then changes. All
    others replace the scale's.
    """

    # none: random weights. Another row: go on from its weights.
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

    @property
    def meaning(self) -> tuple[Any, ...]:
        """Equal for two rows that have the same runs."""
        changes = {"mask": "mgm"} | self.changes
        return self.start, self.then, sorted((key, str(v)) for key, v in changes.items())


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


def _gathered(model: type[FrozenModel], name: str, fields: Any) -> Any:
    """Return a mapping whose keys that are no fields stand in the field `name`."""
    if not isinstance(fields, Mapping) or name in fields:
        return fields
    known = {field.alias or key for key, field in model.model_fields.items()}
    own = {key: value for key, value in fields.items() if key in known}
    return {**own, name: {key: value for key, value in fields.items() if key not in known}}


def _digits(value: Any) -> Any:
    """Read a hash of digits alone, which YAML takes for a number."""
    if isinstance(value, float):
        raise ValueError("YAML reads it as a number; quote it")
    return str(value) if type(value) is int else value


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
    since: Annotated[str, BeforeValidator(_digits)] = ""
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

    @model_validator(mode="before")
    @classmethod
    def _has_no_old_keys(cls, fields: Any) -> Any:
        for old, new in OLD_KEYS.items():
            if isinstance(fields, Mapping) and old in fields:
                raise ValueError(f"{old}: is now {new}")
        return fields

    @model_validator(mode="after")
    def _names_what_is_there(self) -> Self:
        """Refuse a part that names what is not there, or what has no effect."""
        self._check_names()
        for name, place in self.datasets.items():
            where = f"datasets.{name}"
            given = [place.generate is not None, place.root, place.videos_of, place.use]
            if sum(map(bool, given)) != 1:
                raise ValueError(f"{where}: needs one of `generate`, `root`, `use`, `videos_of`")
            of_user = bool(place.root) and name not in PUBLISHED
            if self.scale and of_user and place.recipe not in RECIPES:
                raise ValueError(
                    f"{where}.recipe: {place.recipe!r}: name the dataset whose recipe its runs "
                    f"have: {', '.join(RECIPES)}"
                )
            if place.recipe and not of_user:
                raise ValueError(f"{where}.recipe: it has the recipe of {place.use or name}")
            if place.generate is not None and not (place.dataset_seeds or self.dataset_seeds):
                raise ValueError(f"{where}: is generated, and the study has no dataset seeds")
        seeded = (p.use or p.seeds or p.dataset_seeds for p in self.datasets.values() if p.tested)
        if not (self.seeds or self.dataset_seeds or all(seeded)):
            raise ValueError("has neither dataset seeds nor seeds")
        if same := {*self.rows} & {*CONTROLS}:
            raise ValueError(f"rows.{min(same)}: is the name of a control; choose another")
        for name in self.rows:
            if parse_formula(name) != Formula((Term(name),), (1,)):
                raise ValueError(f"rows.{name}: reads as a formula; choose another name")
        meanings: dict[str, str] = {}
        for name, row in self.rows.items():
            if (other := meanings.setdefault(str(row.meaning), name)) != name:
                raise ValueError(f"rows.{name}: has the same runs as {other}; leave one out")
        stages: set[str] = {column.stage for column in self.columns.values()}
        stages |= {"pretrain"} if any(row.start != "none" for row in self.rows.values()) else set()
        stages |= {"finetune"} if any(row.then for row in self.rows.values()) else set()
        stages |= {"visualise"} if any(view.show for view in self.views.values()) else set()
        own = {f"datasets.{name}.": place.settings for name, place in self.datasets.items()}
        for where, settings in {"": self.settings, **own}.items():
            for stage in settings:
                if stage == "measure" or stage not in stages:
                    raise ValueError(
                        f"{where}settings.{stage}: no run of this study reads it; leave it out"
                    )
        return self

    def _check_names(self) -> None:
        """Refuse a part of the study that names what is not there."""
        rows, places = {*self.rows, *CONTROLS}, {**self.shown, **self.effects}
        probes = [name for name, column in self.columns.items() if column.stage == "probe"]

        def check(where: str, known: Collection[str], *names: str) -> None:
            for name in filter(None, names):
                if name not in known:
                    raise ValueError(
                        f"{where}: {name!r} is unknown; {nearest(name, sorted(known))}"
                    )

        def check_formula(where: str, formula: Formula) -> None:
            terms = [term for term in formula.terms if term.number is None]
            check(where, rows, *(term.place + term.row for term in terms))
            check(where, self.columns, *(term.column for term in terms))

        for name, place in self.datasets.items():
            check(f"datasets.{name}", self.datasets, place.pretrained_on, place.videos_of)
        for name, row in self.rows.items():
            if row.start != "none":
                check(f"rows.{name}.from", self.rows, row.start)
        for name, limited in (*self.rows.items(), *self.columns.items()):
            check(f"{name}.only.datasets", self.shown, *limited.only.datasets)
            check(f"{name}.only.rows", self.rows, *limited.only.rows)
            check(f"{name}.only.columns", self.columns, *limited.only.columns)
        check("controls", probes, *self.controls)
        for name, effect in self.effects.items():
            check(f"effects.{name}", self.shown, *effect.high, *effect.low)
            if name in self.shown:
                raise ValueError(f"effects.{name}: is the name of a dataset; choose another")
        paper = quotes(self.study)
        lines = {row.line or name for name, row in self.rows.items()}
        lines |= {quote.line for quote in paper.values()}
        for name, view in self.views.items():
            check(f"views.{name}.datasets", self.datasets, *view.datasets)
            check(f"views.{name}.columns", self.columns, *view.columns)
            check(f"views.{name}.rows", rows | {row for _, row, _ in paper}, *view.rows)
            check(f"views.{name}.lines", lines, *view.lines)
        for text in chain.from_iterable(self.compare.values()):
            parsed = parse_formula(text)
            if parsed.signs != (1, -1):
                raise ValueError(f"compare: {text!r} is not `A minus B`")
            if parsed.terms[1].row == "*":
                parsed = Formula(parsed.terms[:1], (1,))
            check_formula(f"compare: {text}", parsed)
        for quoted, formula in self.quoted_formulas:
            check(f"answer: {{{quoted}}}", places, quoted.partition(": ")[0])
            check_formula(f"answer: {{{quoted}}}", formula)
        for number, prediction in enumerate(self.predictions, 1):
            where = f"predictions: number {number}"
            check(where, places, prediction.dataset)
            check(where, self.columns, prediction.column)
            if any(term.number is not None for term in prediction.statement.formula.terms):
                raise ValueError(f"{where}: {prediction.says!r}: write a number after the relation")
            check_formula(where, prediction.statement.formula)

    def without_absent(self, present: Collection[str]) -> Self:
        """Return the study without its optional datasets that are not `present`."""
        kept = {
            name: place
            for name, place in self.datasets.items()
            if not place.optional or name in present
        }
        return self.model_copy(update={"datasets": kept})

    @property
    def quoted_formulas(self) -> list[tuple[str, Formula]]:
        """Each {DATASET: A minus B} of the texts, with its formula."""
        found = []
        for text in (*self.answer, *self.limitations.values()):
            for part in re.findall(r"\{([^{}]+)\}", text):
                _, colon, formula = part.partition(": ")
                if not colon:
                    raise ValueError(f"answer: {{{part}}} is not {{DATASET: A minus B}}")
                found.append((part, parse_formula(formula)))
        return found

    @property
    def shown(self) -> dict[str, str]:
        """The datasets with results, each with its title."""
        return {name: place.title or name for name, place in self.datasets.items() if place.tested}

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

    def shows(self, view: View, at: At, line: str = "") -> bool:
        """Return whether a view shows a place. A view that names no row shows no `figure_only`.

        Args:
            line: of a row that only the paper has.
        """
        row = self.rows.get(at.row, Row(line=line))
        named = bool(view.rows or view.lines)
        return (
            not view.show
            and at in view
            and (not view.lines or (row.line or at.row) in view.lines)
            and (named or not row.figure_only)
        )

    def views_of(self, at: At) -> tuple[str, ...]:
        """Return the keys of the views that show a place."""
        return tuple(key for key, view in self.shown_views.items() if self.shows(view, at))
