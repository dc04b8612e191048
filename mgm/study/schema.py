"""A study: a comparison as data, from which its runs, tables, page and verdicts follow.

`studies/NAME.yaml` holds one, or several at a scale. `mgm/study/paper` has the paper's tables.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from mgm.errors import UserError, nearest, valid
from mgm.spec import CONTROLS, FrozenModel, KnownBackbone, RunOptions

# The paper's studies and printed tables.
PAPER = Path(__file__).with_name("paper")

Stage = Literal["pretrain", "finetune", "probe", "measure", "sample"]
SEED = "{seed}"
# The size of a new study.
NEW = {"scale": "smoke", "seeds": "0-5", "specs_per_job": 4}
MOST_NUMBERS = 10_000  # of a range of seeds
# The loader in C is ten times faster.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Levels, and values with aliases written out, of a YAML file. Studies have 8 and 2,300.
DEEP, MANY = 50, 100_000
# Can be the name of a folder and of a Snakemake target, and is one word for a shell.
Name = Annotated[str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]
# The Snakefile's rules, and files that each page has. No study and no view has such a name.
RULES = ("all", "report", "prepare", "flow", "result", "pretrain", "finetune", "probe", "measure")
PREFIXES = ("cells-", "differences-", "predictions-")
RESERVED = (*RULES, "sample", "cells", "claims", "differences", "predictions", "runs")
# The metric of each control without a model, by its title.
CONTROL_ROWS = {control.title: control.name for control in CONTROLS if control.kind != "model"}
# Metrics that are shares of test videos, predictions or moving pixels, in per cent.
SHARES = {"top1", "outside", "hidden", *CONTROL_ROWS.values()}


def _numbers(value: Any) -> Any:
    """Return the numbers of "701-720", of several ranges such as "0-3, 7", or of one number."""
    if not isinstance(value, str):
        return value if isinstance(value, list | tuple) else [value]
    if not re.fullmatch(r"\s*\d+(-\d+)?(\s*,\s*\d+(-\d+)?)*\s*", value):
        raise ValueError("is not a number, or a range such as 701-720")
    ranges = [[int(end) for end in part.split("-")] for part in value.split(",")]
    if any(ends[0] > ends[-1] for ends in ranges):
        raise ValueError("has a range that goes down")
    if sum(ends[-1] - ends[0] for ends in ranges) > MOST_NUMBERS:
        raise ValueError(f"has more than {MOST_NUMBERS:,} numbers")
    return [number for ends in ranges for number in range(ends[0], ends[-1] + 1)]


def _once(names: Sequence[Any]) -> Sequence[Any]:
    """Check that no name is there twice."""
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"has {twice[0]} twice; remove one")
    return names


Number = Annotated[int, Field(strict=True, ge=0)]
Numbers = Annotated[tuple[Number, ...], BeforeValidator(_numbers), AfterValidator(_once)]


class Selection(FrozenModel):
    """Datasets, rows and columns by name. Empty: all."""

    datasets: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def has(self, dataset: str, row: str, column: str) -> bool:
        """Return whether it selects a cell."""
        pairs = ((self.datasets, dataset), (self.rows, row), (self.columns, column))
        return all(not names or name in names for names, name in pairs)


class Dataset(FrozenModel):
    """A dataset of a study.

    It needs one of `use`, `generate`, `root`, `videos_of`, `adapt`, `mean_of`.
    """

    title: str = ""
    # A dataset of the scale, which keeps its name and digest.
    use: str = ""
    # Fields of the scale's first generated dataset that this one changes.
    generate: dict[str, Any] | None = None
    # The folder of a prepared dataset. With {seed} in it, there is one per dataset seed, such as a
    # fold: data/mine-{seed}.
    root: str = ""
    # With a root: the published dataset whose recipe its runs have, such as ssv2.
    recipe: str = ""
    # A dataset above, with the same videos.
    videos_of: str = ""
    # Two datasets above, for partial domain adaptation: train on the first's videos, test on
    # those of the second whose class has a name of the first's.
    adapt: tuple[()] | tuple[str, str] = ()
    # With seeds: its videos are those of the dataset seed plus this number.
    shift: int = Field(0, ge=0)
    # With videos_of: another draw of what a test's seed decides, which labels and which first
    # weights. Each world, like each draw, has a seed of its own.
    draw: int = Field(1, ge=1, lt=1000)
    # Other datasets of the study. A number is the mean of theirs with the same dataset seed, minus
    # the mean of those in `minus_mean_of`. It has no runs of its own.
    mean_of: tuple[str, ...] = ()
    minus_mean_of: tuple[str, ...] = ()
    # A dataset above, whose videos pretrain the models tested here. A root without
    # {seed} tests one model per dataset seed of that other.
    pretrained_on: str = ""
    # False: only pretrain here.
    tested: bool = True
    # Fields of each stage in which its runs differ from the study's.
    settings: dict[Stage, dict[str, Any]] = Field(default_factory=dict)
    # In place of the study's or the scale's.
    dataset_seeds: Numbers = ()
    # The rows that it has. Empty: all.
    rows: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        drawn, taken = self.generate is not None, (self.videos_of, self.adapt, self.mean_of)
        if sum(map(bool, (drawn, self.root, self.use, *taken))) != 1:
            raise ValueError("needs one of use, generate, root, videos_of, adapt, mean_of")
        if re.search("[{}]", self.root.replace(SEED, "")):
            raise ValueError(f"root: {self.root} has braces; only {SEED} may have them")
        if self.shift and not (self.seeded or self.videos_of):
            raise ValueError("shift needs generate, adapt, videos_of or a root with {seed}")
        if self.draw > 1 and not self.videos_of:
            raise ValueError("draw needs videos_of")
        if self.minus_mean_of and not self.mean_of:
            raise ValueError("minus_mean_of needs mean_of")
        _once([*self.mean_of, *self.minus_mean_of])
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """The datasets that it is a mean of, or that are subtracted."""
        return self.mean_of + self.minus_mean_of

    @property
    def seeded(self) -> bool:
        """Whether its videos depend on the dataset seed."""
        return self.generate is not None or SEED in self.root or bool(self.adapt)


class Changes(FrozenModel):
    """Fields of a spec that differ from the study's, in the same mapping as its own fields."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    changes: dict[str, Any] = Field(default_factory=dict)
    # The cells that it has.
    only: Selection = Selection()

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, fields: Any) -> Any:
        if fields == "none":
            return {"from": "none"}
        if not isinstance(fields, Mapping) or "changes" in fields:
            return fields
        known = {field.alias or name for name, field in cls.model_fields.items()}
        changes = {name: value for name, value in fields.items() if name not in known}
        return {n: value for n, value in fields.items() if n in known} | {"changes": changes}


class Row(Changes):
    """A kind of pretraining, as differences from the study's."""

    # They choose the recipe, which the scale then changes. Default: mgm, and those of the study.
    mask: str = ""
    epochs: int | None = Field(None, ge=1)
    backbone: KnownBackbone | None = None
    # none: random weights. A row above: go on from its weights.
    start: str = Field("", alias="from")
    # Train once more with the labels of the pretraining videos, before the row is evaluated.
    then: Literal["", "finetune", "supervised"] = ""

    def fields(self, flow: str) -> dict[str, Any]:
        """Return the fields of its pretraining. The guidance `flow` is the scale's method."""
        own: dict[str, Any] = {"mask.name": self.mask} if self.mask else {}
        own |= ({"optim.epochs": self.epochs} if self.epochs else {}) | self.changes
        return own | ({"mask.guidance": flow} if own.get("mask.guidance") == "flow" else {})


class Column(Changes):
    """An evaluation, as differences from the study's."""

    stage: Literal["probe", "finetune", "measure"] = "probe"
    metric: str = "top1"
    # Fields in which single rows differ from the column, such as each row's best learning rate.
    rows: dict[str, dict[str, Any]] = Field(default_factory=dict)


class View(Selection):
    """A table or figure of the study's page. Its key is the name of its files, and a target.

    Kinds: `paper` is a table in the paper's layout (`mgm/study/paper/KEY.csv`). `table` has a line
    per row, or per dataset if `turned`. `chart` has accuracies over a number. `differences` has
    paired differences from the row `minus`, or those of `compare` whose first row is in `rows`.
    `gains` has the differences from `minus` of each unit, such as a world, over those of another
    view. `clips` shows arrays that a run of its own writes.
    """

    kind: Literal["paper", "table", "chart", "differences", "gains", "clips"] = "table"
    title: str = ""
    note: str = ""
    turned: bool = False
    controls: bool = True
    # Charts, differences, gains and tables: the row that is subtracted from all others. A table has
    # the differences after its numbers, and the paper's numbers for its rows.
    minus: str = ""
    # Gains: the view, of one dataset and one column, whose differences are the horizontal axis.
    over: str = ""
    # Charts: the axis, the colours and the panels. Studies frozen before there were `differences`
    # have `row` and `dataset` as axes of charts.
    x: Literal["row", "dataset", "epochs", "ratio", "steps"] = "row"
    hue: Literal["", "row", "line", "dataset", "column"] = ""
    panel: Literal["", "dataset", "column"] = ""
    # Charts and differences: show the numbers that the paper prints, too.
    quoted: bool = False
    # Clips: what is shown. `masks` are those of the rows, `every-mask` all that this package knows.
    show: Literal[
        "", "masks", "every-mask", "coverage", "attention", "overlays", "reconstructions"
    ] = ""

    def shows(self, dataset: str, row: str, column: str) -> bool:
        """Return whether it shows a cell. A table shows all controls of its columns, or none."""
        if row not in CONTROL_ROWS or self.kind != "table":
            return self.has(dataset, row, column)
        return self.controls and self.model_copy(update={"rows": ()}).has(dataset, row, column)


class Prediction(FrozenModel):
    """What a study's author expects of a mean or a paired difference, before the runs."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    # By default the study's first tested dataset, and its first column.
    dataset: str = Field("", alias="in")
    column: str = ""
    row: str
    minus: str = ""
    # Two rows. Their difference is subtracted too.
    than: tuple[str, str] | None = None
    above: float | None = Field(None, allow_inf_nan=False)
    below: float | None = Field(None, allow_inf_nan=False)
    within: float | None = Field(None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _has_bounds(self) -> Self:
        one_sided = self.above is not None or self.below is not None
        if one_sided == (self.within is not None):
            raise ValueError("needs one of above, below, within; or above and below")
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError("above is not less than below")
        if self.than and not self.minus:
            raise ValueError("than needs minus")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the smallest and the largest value that it allows."""
        if self.within is not None:
            return -self.within, self.within
        above, below = self.above, self.below
        return -inf if above is None else above, inf if below is None else below

    @property
    def says(self) -> str:
        """Return the prediction as a sentence, such as "MGM minus Random tube above 5"."""
        words = self.row + f" minus {self.minus}" * bool(self.minus)
        if self.than:
            words += " minus ({} minus {})".format(*self.than)
        bounds = (("above", self.above), ("below", self.below), ("within", self.within))
        return words + "".join(f" {name} {x:g}" for name, x in bounds if x is not None)


class Study(FrozenModel):
    """A comparison of rows of pretraining by columns of evaluations, on several datasets."""

    study: Name
    question: str
    # In words. Tables have the numbers.
    answer: str = ""
    caveat: str = ""
    expected_cost: str = ""
    # The scale whose recipes its runs have.
    scale: str
    # The recipe of its rows, where a row names no other.
    epochs: int = Field(200, ge=1)
    backbone: KnownBackbone = "vit-b"
    # Fields of each stage that differ from the scale's.
    settings: dict[Stage, dict[str, Any]] = Field(default_factory=dict)
    datasets: dict[Name, Dataset] = Field(min_length=1)
    # Seeds of generated datasets. A run has the seed of its dataset.
    dataset_seeds: Numbers = ()
    # Of datasets that are folds of the same videos, test videos over training videos: 0.25 of five
    # folds. Intervals are then those of Nadeau and Bengio (2003), since folds are not independent.
    overlap: float = Field(0, ge=0)
    # Seeds of runs on other datasets. Empty: the scale's.
    seeds: Numbers = ()
    rows: dict[str, Row] = Field(min_length=1)
    columns: dict[str, Column] = Field(min_length=1)
    # Columns whose labels and test videos the controls without a model share.
    controls: tuple[str, ...] = ()
    # Differences that the page shows: the first row minus the second.
    compare: tuple[tuple[str, str], ...] = ()
    # What the page shows. Without views it is a table per dataset.
    views: dict[Name, View] = Field(default_factory=dict)
    predictions: tuple[Prediction, ...] = ()
    # Predictions are tested in their order: one counts only if all before it hold.
    in_order: bool = False
    # When it stops, in words, and what an attentive reader would ask.
    stopping_rule: str = ""
    limitations: dict[str, str] = Field(default_factory=dict)
    execution: RunOptions | None = None
    # Runs per job, in place of the scale's. Jobs run at the same time; each starts once.
    specs_per_job: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _names_what_is_there(self) -> Self:
        for where, names, known in self._references():
            for name in filter(None, names):
                if name not in known:
                    raise ValueError(f"{where}: {name!r} is unknown; {nearest(name, known)}")
        if clash := self.rows.keys() & CONTROL_ROWS.keys():
            raise ValueError(f"rows: {min(clash)} is a control; choose another name")
        titles = [place.title for place in self.datasets.values() if place.tested]
        if twice := [title for title in titles if title and titles.count(title) > 1]:
            raise ValueError(f"datasets: two have the title {twice[0]}; change one")
        for name, dataset in self.datasets.items():
            if dataset.seeded and not (dataset.dataset_seeds or self.dataset_seeds):
                raise ValueError(f"datasets.{name}: has no seeds; add dataset_seeds")
        for key, view in self.views.items():
            if view.kind == "paper" and not (PAPER / f"{key}.csv").is_file():
                raise ValueError(f"views.{key}.kind: paper is for the paper's tables; use table")
            if view.show and any(self.datasets[name].mean_of for name in view.datasets):
                raise ValueError(f"views.{key}.datasets: a mean has no videos; name another")
            over = self.views.get(view.over, View())
            one_column = len(over.datasets) == len(over.columns) == 1
            if view.kind == "gains" and not (view.minus and one_column):
                raise ValueError(f"views.{key}: gains needs minus, and over with one column's view")
            if view.kind == "gains" and self.overlap:
                raise ValueError(f"views.{key}.kind: gains needs units that do not overlap")
        return self

    def _references(self) -> Iterator[tuple[str, Iterable[str], Collection[str]]]:
        """Yield the names that the study uses: where they stand, and which are known there."""
        rows, every, sets = [*self.rows], [*self.rows, *CONTROL_ROWS], [*self.datasets]
        parts: dict[str, Selection] = {f"views.{key}": view for key, view in self.views.items()}
        parts |= {f"rows.{name}.only": row.only for name, row in self.rows.items()}
        parts |= {f"columns.{name}.only": column.only for name, column in self.columns.items()}
        for where, part in parts.items():
            yield where, part.datasets, sets
            yield where, part.rows, every
            yield where, part.columns, self.columns
        for key, view in self.views.items():
            yield f"views.{key}", [view.minus], every
            yield f"views.{key}", [view.over], self.views
        for name, row in self.rows.items():
            yield f"rows.{name}.from", [row.start], ["none", *rows[: rows.index(name)]]
        for name, column in self.columns.items():
            yield f"columns.{name}.rows", column.rows, column.only.rows or rows
        for name, dataset in self.datasets.items():
            # So no dataset is made of itself.
            above = sets[: sets.index(name)]
            others = [dataset.pretrained_on, dataset.videos_of, *dataset.adapt]
            yield f"datasets.{name}", others, above
            # Means have no runs.
            yield f"datasets.{name}.mean_of", dataset.parts, self.tested
            yield f"datasets.{name}.rows", dataset.rows, rows
        yield "controls", self.controls, self.columns
        yield "compare", chain(*self.compare), every
        for one in self.predictions:
            where = f"predictions: {one.says}"
            yield where, [one.dataset], sets
            yield where, [one.column], self.columns
            yield where, [one.row, one.minus, *(one.than or ())], every

    def has(self, dataset: str, row: str, column: str) -> bool:
        """Return whether the study has a cell."""
        cell, own = (dataset, row, column), self.datasets[dataset].rows
        wanted = self.rows[row].only.has(*cell) and self.columns[column].only.has(*cell)
        return wanted and (not own or row in own)

    @property
    def shown(self) -> dict[str, str]:
        """The datasets with results, each with its title."""
        return {name: place.title or name for name, place in self.datasets.items() if place.tested}

    @property
    def tested(self) -> list[str]:
        """The datasets whose runs are tested. Means have no runs."""
        return [name for name, one in self.datasets.items() if one.tested and not one.mean_of]

    def shown_on(self, view: View) -> str:
        """Return the dataset whose clips a view shows."""
        sets = (name for name, one in self.datasets.items() if not one.mean_of)
        return next(iter(view.datasets or sets))

    def parts_of(self, view: View) -> list[View]:
        """Return the cells that a view needs: its own, those it subtracts, and those it is over."""
        pairs = self.compare if view.kind == "differences" and not view.minus else ()
        subtracted = (view.minus, *(other for row, other in pairs if row in view.rows))
        rows = view.rows and (*view.rows, *filter(None, subtracted))
        parts = [view, *(self.views[key] for key in (view.over,) if key)]
        return [part.model_copy(update={"rows": rows, "kind": view.kind}) for part in parts]

    @property
    def shown_views(self) -> dict[str, View]:
        """The views by key. Without a table, each dataset is one."""
        if any(view.kind in ("table", "paper") for view in self.views.values()):
            return self.views
        tables = {f"table-{key}": View(title=t, datasets=(key,)) for key, t in self.shown.items()}
        return tables | self.views


class Loader(LOADER):  # type: ignore[misc, valid-type]
    """Reads YAML, and refuses a key that is there twice."""


def _mapping(loader: Any, node: Any) -> Iterator[Any]:
    seen = set[Any]()
    for key, _ in node.value:
        if (name := (key.tag, str(key.value))) in seen and not key.tag.endswith(":merge"):
            what = f"{key.value} is there twice"
            raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
        seen.add(name)
    yield from loader.construct_yaml_map(node)


Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _require_small(text: str) -> None:
    """Check the depth and the size of a YAML text, without building it.

    Brackets overflow the stack of a parser in C, and aliases of aliases grow without limit.
    """
    sizes, inside = dict[str | None, int](), list[tuple[str | None, int]]()
    total = 0
    for event in yaml.parse(text, LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            inside.append((event.anchor, total))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = inside.pop()
            sizes[anchor] = total - before
        elif isinstance(event, yaml.AliasEvent):
            total += sizes.get(event.anchor, 1)
        total += 1
        if len(inside) > DEEP:
            raise ValueError(f"it has more than {DEEP} levels")
        if total > MANY:
            raise ValueError(f"it has more than {MANY:,} values, with its aliases written out")


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """Read the fields of a YAML file."""
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise UserError(f"{path}: no such {what}; name a YAML file, or {nearest(path.stem, known)}")
    try:
        text = path.read_text(encoding="utf-8")
        _require_small(text)
        fields = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(fields, dict):
        raise UserError(f"{path}: is not a mapping of fields; write `study: NAME` and so on")
    return fields


def load_study(path: Path) -> Study:
    """Read a study from a YAML file."""
    fields = read_yaml(path, "study")
    with valid(f"{path}: "):
        return Study.model_validate(fields)


def require_names(study: Study, before: str) -> None:
    """Check that no name of a study is one of the Snakefile or of each page."""
    for where, name in {
        "study": study.study,
        **{f"views.{key}": key for key in study.views},
    }.items():
        if name in RESERVED or name.startswith(PREFIXES):
            raise UserError(f"{before}{where}: {name} is a reserved name; choose another")


def new_study(
    path: Path, root: Path, test: Path | None = None, size: Mapping[str, Any] = NEW
) -> str:
    """Return the text of a new study with comments, to be written to `path`.

    Args:
        root: the folder of a prepared dataset, whose videos pretrain.
        test: the folder of another one, whose videos are tested on. None: `root`.
        size: its scale, its seeds, and other fields that decide how long it takes.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.name).strip(".-") or "mine"
    tested = f"{name}-test" if test else name
    datasets: dict[str, Any] = {name: {"title": "My videos", "root": str(root), "recipe": "ssv2"}}
    if test:
        own = {"title": "My labelled videos", "root": str(test), "recipe": "ssv2"}
        datasets = {name: datasets[name] | {"tested": False}, tested: own | {"pretrained_on": name}}
    more = {key: value for key, value in size.items() if key not in ("scale", "seeds")}
    # As JSON, since YAML reads names such as 2024 or on as other things than text.
    as_json = partial(json.dumps, ensure_ascii=False)
    template = Path(__file__).with_name("template.yaml").read_text(encoding="utf-8")
    text = template.format(
        name=as_json(path.stem),
        path=path,
        dataset=name,
        tested=tested,
        datasets="\n".join(f"  {as_json(key)}: {as_json(datasets[key])}" for key in datasets),
        scale=f"{size['scale']: <24}",
        seeds=f"{size['seeds']: <24}",
        size="".join(f"{key}: {as_json(more[key])}\n" for key in more),
    )
    with valid(f"{path}: "):
        study = Study.model_validate(yaml.load(text, Loader))
    require_names(study, f"{path}: ")
    return text
