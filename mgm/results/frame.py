"""Results as one pandas table: the numbers that studies want, joined with the runs' files.

A number is that of its run in results/NAME. What has not been run there is taken from
results/NAME.csv.xz, by run and metric: a clone shows all, and can add more.
"""

import lzma
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.errors import UserError, nearest
from mgm.files import replacing, write_text
from mgm.results.frozen import (
    FROZEN,
    NUMBER,
    Frozen,
    changes,
    read_frozen,
    scale_of,
    without_digests,
)
from mgm.results.run import RESULT, Status, status
from mgm.spec import Spec
from mgm.study import CONFIG, STUDIES
from mgm.study.expand import Expansion, expand
from mgm.study.scales import Scale, Suite, load_scale, load_suite
from mgm.study.schema import Study

# Types of the columns that are not text.
FLOATS = ("ratio", "epochs", "steps", "value", "chance", "n_test", "wall_s")
FLAGS = ("control", "dirty", "derived", "as_frozen")
TYPES: dict[Any, Any] = dict.fromkeys(FLOATS, float) | dict.fromkeys(FLAGS, bool)
TYPES |= dict.fromkeys(("dataset_seed", "seed"), int)
# What tells a run's numbers apart.
KEY = ["run_id", "metric"]
# What a run's files add to the columns of an expansion.
FACTS = (
    *("value", "status", "why", "chance", "n_test"),
    *("commit", "dirty", "started", "device", "wall_s"),
)
NO_FACTS: dict[str, Any] = dict.fromkeys(("commit", "started", "device"), "")
NO_FACTS |= {"chance": nan, "dirty": False}


@dataclass(frozen=True)
class Published:
    """Studies with their results.

    Attributes:
        frame: a row per number, with the columns of `Expansion.cells`, and: `value`, NaN unless
            `status` is finished; `why` it is not; `chance`, accuracy of guessing the largest class
            of the test, in runs that measured it; `n_test`, videos of the test; `commit`,
            `dirty`, `started`, `device` and `wall_s` of the run; `derived`, whether it is a mean of
            other datasets, which has their run ids, joined by spaces; `as_frozen`, whether the
            frozen study wanted this number of this run. A run without a number of its own, such as
            a pretraining, has one row, whose column is empty.
        frozen: None if the studies were never frozen.
        changes: what of each study has changed since, in words.
        specs: specs by run id.
        folder: of the runs; None if the numbers come from NAME.csv.xz alone.
        pictures: the run whose arrays a view shows, by the view's key.
        targets: the runs of each study and view.
        problems: what was left out or does not compare, a sentence each.
    """

    name: str
    studies: dict[str, Study]
    scale: Scale
    frame: pd.DataFrame
    frozen: Frozen | None = None
    changes: dict[str, list[str]] = field(default_factory=dict)
    specs: dict[str, Spec] = field(default_factory=dict)
    folder: Path | None = None
    pictures: dict[str, str] = field(default_factory=dict)
    targets: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def load(name: str, results: Path = Path("results")) -> Published:
    """Read the studies `name` and their results.

    Args:
        name: of a suite in studies/, or of a folder of results.
    """
    folder, packed = results / name, results / f"{name}.csv.xz"
    frozen = read_frozen(folder)
    suite = suite_of(name, frozen)
    studies = {study.study: study for study in suite.studies}
    found = expand(suite.studies, suite.scale, frozen.digests if frozen else None, lenient=True)
    states, problems, since = states_of(found, folder), found.problems, dict[str, list[str]]()
    table = joined(found, states)
    own = (path.parent.name for path in sorted(folder.glob(f"*/{RESULT}")))
    problems += _unwanted(folder, own, found.specs)
    if packed.is_file():
        archive = read_table(packed)
        problems += _unwanted(packed, _finished(archive), found.specs)
        table = filled(table, archive)
    if frozen:
        # At today's scale, if theirs cannot be read.
        scale = scale_of(frozen) or suite.scale
        old = expand([*frozen.studies.values()], scale, frozen.digests, lenient=True).cells
        since = changes(old, found.cells, frozen.studies, studies)
        if not scale_of(frozen):
            first = next(iter(studies))
            line = "Its scale is of an older version, so its settings are not compared"
            since[first] = [*since.get(first, []), line]
        places = [*NUMBER, "run_id"]
        wanted = pd.MultiIndex.from_frame(old[places])
        table["as_frozen"] = pd.MultiIndex.from_frame(table[places]).isin(wanted)
    frame = with_means(table, studies)
    place = folder if folder.is_dir() else None
    more = (found.specs, place, found.pictures, found.targets, problems)
    return Published(name, studies, suite.scale, frame, frozen, since, *more)


def suite_of(name: str, frozen: Frozen | None) -> Suite:
    """Return the suite `name` as its file is now, or as it was frozen if the file has another."""
    path = Path(frozen.file) if frozen and frozen.file else STUDIES / f"{name}.yaml"
    if path.is_file():
        suite = load_suite(str(path))
        if suite.name == name or not frozen:
            return suite
    if not frozen:
        known = sorted(file.stem for file in STUDIES.glob("*.yaml"))
        raise UserError(f"{name}: no such study; {nearest(name, known)}")
    scale = scale_of(frozen) or load_scale(CONFIG / f"{frozen.scale.get('name')}.yaml")
    return Suite(name, [*frozen.studies.values()], scale, "", [])


def states_of(found: Expansion, folder: Path) -> dict[str, Status]:
    """Return the state of each run of an expansion, by its id."""
    return {run_id: status(folder / run_id, spec) for run_id, spec in found.specs.items()}


def first_start(runs: pd.DataFrame) -> str:
    """Return when the first of these runs started; empty if none has."""
    return min(filter(None, runs.started), default="")


def joined(found: Expansion, states: Mapping[str, Status]) -> pd.DataFrame:
    """Return the cells of an expansion with their results, and the runs that have no cell."""
    cells, none = found.cells, dict.fromkeys(("column", "metric", "pretraining"), "")
    # A row whose masks are measured alone is not trained.
    starts = cells[cells.pretraining.isin([*found.specs])].drop_duplicates("pretraining")
    starts = starts.assign(run_id=starts.pretraining, stage="pretrain", **none)
    shown = {*cells.run_id, *starts.run_id}
    others = [
        {"run_id": run_id, "stage": spec.stage, "seed": spec.seed, "title": spec.data.dataset}
        for run_id, spec in found.specs.items()
        if run_id not in shown
    ]
    table = pd.concat([cells, starts, pd.DataFrame(others)], ignore_index=True)
    empty = dict.fromkeys(table.columns.difference([*TYPES]), "")
    table = table.assign(derived=False, as_frozen=False)
    table = table.fillna({**empty, "dataset_seed": -1, **dict.fromkeys(FLAGS, False)})
    facts = []
    for run_id, metric in zip(table.run_id, table.metric):
        result, own = states[run_id].result, {**NO_FACTS, "status": states[run_id].state}
        own["why"] = states[run_id].why
        if result:
            own |= {name: getattr(result, name) for name in FACTS[4:]}
            own["chance"] = result.metrics.get("chance", nan)
            own["value"] = result.metrics.get(metric, nan)
            if metric and metric not in result.metrics:
                own |= {"status": "not run", "why": f"no {metric}"}
        facts.append(own)
    table = table.join(pd.DataFrame(facts, columns=[*FACTS])).astype(TYPES)
    # A control that a dataset does not have, such as the duration of videos of equal length.
    return table[~table.control | (table.why != "no " + table.metric)]


def filled(table: pd.DataFrame, archive: pd.DataFrame) -> pd.DataFrame:
    """Return a frame in which what has not been run here has the facts of an archive.

    What has failed here, runs here or is damaged here stays so.
    """
    # A finished number counts before others of the same run.
    ordered = archive.sort_values("status", key=lambda states: states != "finished", kind="stable")
    known = ordered.drop_duplicates(KEY).set_index(KEY)[[*FACTS]]
    wanted = pd.MultiIndex.from_frame(table[KEY])
    lacks = ((table.status == "not run") & (table.why == "") & wanted.isin(known.index)).to_numpy()
    if lacks.any():
        table.loc[lacks, [*FACTS]] = known.reindex(wanted[lacks]).to_numpy()
    # A control that the dataset of a finished run does not have.
    done = {*archive.run_id[archive.status == "finished"]}
    absent = table.control & (table.status != "finished") & table.run_id.isin(done)
    return table[~(absent & ~wanted.isin(known.index))].astype(TYPES)


def _finished(archive: pd.DataFrame) -> list[str]:
    return [*archive.run_id[archive.status == "finished"].unique()]


def _unwanted(place: Path, run_ids: Iterable[str], specs: Mapping[str, Spec]) -> list[str]:
    """Return a sentence about runs that the study does not want any more, if there are any."""
    gone = [run_id for run_id in run_ids if run_id not in specs]
    what = f"has {len(gone)} runs that are not wanted any more, such as "
    return [f"{place}: {what}{gone[0]}, and does not show them"] if gone else []


def with_means(frame: pd.DataFrame, studies: Mapping[str, Study]) -> pd.DataFrame:
    """Return a frame with the rows of datasets that are means of others.

    A mean has a row per seed of any of its parts, without a number if one of them lacks it.
    """
    tables = [frame]
    for name, study in studies.items():
        cells = frame[(frame.study == name) & (frame.column != "")]
        for key, place in study.datasets.items():
            if not place.mean_of:
                continue
            signs = dict.fromkeys(place.mean_of, 1 / len(place.mean_of))
            signs |= {other: -1 / len(place.minus_mean_of) for other in place.minus_mean_of}
            used = cells[cells.dataset.isin([*signs])]
            # A row or a column that a part does not have has no mean.
            parts = used.groupby(["row", "column"], sort=False).dataset.transform("nunique")
            used = used[parts == len(signs)]
            used = used.assign(value=used.value * used.dataset.map(signs))
            same = used.groupby(["row", "column", "dataset_seed", "seed"], sort=False)
            first: Any = dict.fromkeys(frame.columns, "first")
            first |= {"run_id": lambda run_ids: " ".join(run_ids.unique()), "as_frozen": "all"}
            mean = same.agg(first)
            mean["value"] = same.value.sum(min_count=len(signs))
            mean = mean.reset_index(drop=True)
            mean.loc[mean.value.isna(), "status"] = "not run"
            # Its videos are of several tests, so no interval is over them.
            own = {"dataset": key, "title": place.title or key, "derived": True}
            tables.append(mean.assign(**own, n_test=0.0, chance=nan))
    return pd.concat(tables, ignore_index=True).astype(TYPES)


def read_table(path: Path) -> pd.DataFrame:
    """Read results/NAME.csv.xz. Names such as None, NA and 007 stay what they are."""
    try:
        table = read_csv(path)
        # Files of older versions do not have it.
        table = table.assign(chance=table.get("chance", ""))
        numbers = {
            name: pd.to_numeric(table[name]) for name in ("value", "chance", "n_test", "wall_s")
        }
        numbers["steps"] = pd.to_numeric(table.steps)
        return table.assign(dirty=table.dirty == "1", **numbers)[["row", "steps", *KEY, *FACTS]]
    except (KeyError, AttributeError) as error:
        raise UserError(f"{path}: has no column {error}; restore it") from None
    except (lzma.LZMAError, EOFError, ValueError) as error:
        why = " ".join(str(error).split()) or "is cut"
        raise UserError(f"{path}: is no packed results ({why}); restore it") from None


def read_csv(path: Path) -> pd.DataFrame:
    """Read a csv file as text. An empty field is an empty text."""
    return pd.read_csv(path, dtype=object, keep_default_na=False)


def pack(name: str, results: Path = Path("results")) -> Path:
    """Write results/NAME.csv.xz from the runs in results/NAME, and the frozen study beside it."""
    folder, path = results / name, results / f"{name}.csv.xz"
    published = load(name, results)
    # Means are computed again, and what was frozen is looked up again.
    table = published.frame[~published.frame.derived].drop(columns=["derived", "as_frozen"])
    if not published.folder or not (table.status == "finished").any():
        raise UserError(f"{folder}: no run is finished; run `snakemake` first")
    own, packed = folder / FROZEN, results / f"{name}.{FROZEN}"
    frozen = own.read_text(encoding="utf-8") if own.is_file() else ""
    if path.is_file() and (lost := {*_finished(read_table(path))} - {*_finished(table)}):
        raise UserError(
            f"{path}: has {len(lost)} runs that are not finished in {folder} or not wanted any "
            f"more, such as {min(lost)}; finish them, move it elsewhere, or rename the study"
        )
    if frozen and packed.is_file() and without_digests(packed) != without_digests(own):
        raise UserError(f"{packed}: is another frozen study than {own}; keep the one of these runs")
    # Elsewhere nothing runs.
    table.loc[table.status == "running", ["status", "why"]] = "not run", ""
    table = table.astype(dict.fromkeys(("control", "dirty"), int))
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    if frozen:
        write_text(packed, frozen)
    return path
