"""Results as one pandas table: the numbers that studies want, joined with the runs' files.

A number is that of its run in results/NAME. What has not been run there is taken from
results/NAME.csv.xz, by run and metric: a clone shows all, and can add more.
"""

import lzma
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.errors import UserError, nearest
from mgm.files import replacing, write_text
from mgm.results.frozen import (
    TYPES,
    WANTED,
    WANTS,
    Frozen,
    csv_of,
    packed_of,
    read_frozen,
    read_numbers,
    read_wanted,
    typed,
    write_wanted,
)
from mgm.results.run import FROZEN, RESULT, status
from mgm.spec import Spec, read_spec
from mgm.study import STUDIES
from mgm.study.expand import targets_of
from mgm.study.scales import Scale, load_suite
from mgm.study.schema import Study

# What tells a run's numbers apart.
KEY = ["run_id", "metric"]
# What a run's result adds to a number that is wanted.
OF_RUN = ("n_test", "commit", "dirty", "started", "device", "wall_s", "study_sha256")
FACTS = ("value", "status", "why", "chance", *OF_RUN)


@dataclass(frozen=True)
class Results:
    """Studies with their results.

    Attributes:
        table: a row per number, with the columns `WANTS`, and: `value`, NaN unless `status` is
            finished; `why` it is not; `chance`, accuracy of guessing the largest class of the test,
            in runs that measured it; `n_test`, videos of the test; `commit`, `dirty`, `started`,
            `device`, `wall_s` of the run, and the digest of the frozen study that it saw. A run
            without a number of its own, such as a pretraining, has one row, whose column is empty.
        frozen: None if the studies were never frozen.
        folder: of the runs; None if the numbers come from NAME.csv.xz alone.
        problems: what is not shown, a sentence each.
    """

    name: str
    studies: dict[str, Study]
    scale: Scale
    table: pd.DataFrame
    frozen: Frozen | None = None
    folder: Path | None = None
    problems: list[str] = field(default_factory=list)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The numbers that are wanted now, with means of datasets, whose `derived` is true.

        A mean has the run ids of its parts, joined by spaces.
        """
        return with_means(self.table[self.table.wanted], self.studies)

    def as_frozen(self, study: str) -> pd.DataFrame:
        """Return the numbers that a frozen study wanted, with its own means."""
        own = self.table[self.table.as_frozen & (self.table.study == study)]
        return with_means(own, self.frozen.studies if self.frozen else {})

    def began_before(self, study: str, tests: bool = True) -> bool:
        """Return whether a test of a study, or any run, began before the study was frozen."""
        own = self.table[self.table.study == study]
        saw = {*own[own.column != ""].study_sha256} if tests else {*own.study_sha256}
        return not self.frozen or bool(saw - {"", self.frozen.sha256})

    @cached_property
    def changes(self) -> str:
        """What the studies have changed since they were frozen, as a unified diff."""
        return self.frozen.changes(self.studies.values(), self.scale) if self.frozen else ""

    @property
    def pictures(self) -> dict[str, str]:
        """The run whose arrays a view shows, by the view's key."""
        shown = self.table[self.table.view != ""]
        return {
            key: run_id for run_id, keys in zip(shown.run_id, shown.view) for key in keys.split()
        }

    @property
    def specs(self) -> dict[str, Spec]:
        """The specs of the runs that have begun here, by run id."""
        places = {run_id: self.folder / run_id for run_id in self._run_ids} if self.folder else {}
        return {
            run_id: read_spec(place)
            for run_id, place in places.items()
            if (place / "spec.json").is_file()
        }

    @property
    def _run_ids(self) -> list[str]:
        return [*self.table.run_id[self.table.wanted].unique()]

    def needed(self, target: str = "") -> list[str]:
        """Return the runs of a view or a study with those that they start from. Empty: all."""
        if not target:
            return self._run_ids
        table = self.table[self.table.wanted]
        parents_of = dict(zip(table.run_id, table.parents))
        wanted = targets_of(self.studies.values(), table, self.pictures).get(target, [])
        for run_id in wanted:
            wanted += [one for one in parents_of[run_id].split() if one not in wanted]
        return wanted


def load(name: str, results: Path = Path("results")) -> Results:
    """Read the studies `name` and their results.

    Args:
        name: of a suite in studies/, or of a folder of results.
    """
    folder, packed = results / name, packed_of(results / name)
    frozen = read_frozen(folder)
    studies, scale = studies_of(name, frozen)
    archive = read_numbers(packed, (*WANTS, *FACTS)) if packed.is_file() else None
    if (folder / WANTED).is_file():
        table = joined(read_wanted(folder), folder)
        done = sorted(path.parent.name for path in folder.glob(f"*/{RESULT}"))
        problems = _unwanted(folder, done, table)
        if archive is not None:
            problems += _unwanted(packed, _finished(archive), table)
            table = filled(table, archive)
        return Results(name, studies, scale, table, frozen, folder, problems)
    if (folder / FROZEN).is_file():
        raise UserError(f"{folder}: has no {WANTED}; run `mgm pack {name}`, or start it again")
    if archive is None:
        archive = pd.DataFrame(columns=[*WANTS, *FACTS]).astype(TYPES)
    return Results(name, studies, scale, archive, frozen)


def studies_of(name: str, frozen: Frozen | None) -> tuple[dict[str, Study], Scale]:
    """Return the studies `name` and their scale as their file is now, or as they were frozen."""
    path = Path(frozen.file) if frozen and frozen.file else STUDIES / f"{name}.yaml"
    if path.is_file():
        suite = load_suite(str(path))
        if suite.name == name or not frozen:
            return {study.study: study for study in suite.studies}, suite.scale
    if not frozen:
        known = sorted(file.stem for file in STUDIES.glob("*.yaml"))
        raise UserError(f"{name}: no such study; {nearest(name, known)}")
    # A page shows no more of a scale.
    return frozen.studies, Scale(name=frozen.scale["name"], caveat=frozen.scale.get("caveat", ""))


def joined(numbers: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Return numbers that are wanted with the results of their runs in a folder."""
    states = {run_id: status(folder / run_id) for run_id in numbers.run_id.unique()}
    facts = []
    for run_id, metric in zip(numbers.run_id, numbers.metric):
        state = states[run_id]
        own: dict[str, Any] = {"status": state.state, "why": state.why}
        if result := state.result:
            own |= {name: getattr(result, name) for name in OF_RUN}
            own["chance"] = result.metrics.get("chance", nan)
            own["value"] = result.metrics.get(metric, nan)
            if metric and metric not in result.metrics:
                own |= {"status": "not run", "why": f"no {metric}"}
        facts.append(own)
    found = pd.DataFrame(facts, columns=[*FACTS], index=numbers.index, dtype=object)
    table = typed(numbers.join(found))
    # A control that a dataset does not have, such as the duration of videos of equal length.
    return table[~table.control | (table.why != "no " + table.metric)]


def filled(table: pd.DataFrame, archive: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which what has not been run here has the facts of an archive.

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


def _unwanted(place: Path, run_ids: Iterable[str], table: pd.DataFrame) -> list[str]:
    """Return a sentence about runs that the study does not want any more, if there are any."""
    wanted = {*table.run_id[table.wanted]}
    gone = [run_id for run_id in run_ids if run_id not in wanted]
    what = f"has {len(gone)} runs that are not wanted any more, such as "
    return [f"{place}: {what}{gone[0]}, and does not show them"] if gone else []


def with_means(frame: pd.DataFrame, studies: Mapping[str, Study]) -> pd.DataFrame:
    """Return a frame with the rows of datasets that are means of others.

    A mean has a row per seed of any of its parts, without a number if one of them lacks it.
    """
    tables, unit = [frame.assign(derived=False)], ["row", "column", "dataset_seed", "seed"]
    for name, study in studies.items():
        cells = frame[(frame.study == name) & (frame.column != "")]
        for key, place in study.datasets.items():
            if not place.mean_of:
                continue
            signs = dict.fromkeys(place.mean_of, 1 / len(place.mean_of))
            signs |= {other: -1 / len(place.minus_mean_of) for other in place.minus_mean_of}
            used = cells[cells.dataset.isin([*signs])]
            # A row or a column that a part does not have has no mean.
            parts = used.groupby(unit[:2], sort=False).dataset.transform("nunique")
            used = used[parts == len(signs)]
            used = used.assign(value=used.value * used.dataset.map(signs))
            same = used.groupby(unit, sort=False)
            found: dict[str, Any] = {
                "value": same.value.sum(min_count=len(signs)),
                "run_id": same.run_id.agg(lambda run_ids: " ".join(dict.fromkeys(run_ids))),
                "as_frozen": same.as_frozen.all(),
            }
            mean = used.drop_duplicates(unit).set_index(unit).assign(**found).reset_index()
            mean.loc[mean.value.isna(), "status"] = "not run"
            # Its videos are of several tests, so no interval is over them.
            own: Any = {"dataset": key, "title": place.title or key, "derived": True}
            tables.append(mean.assign(**own, n_test=0.0, chance=nan))
    return pd.concat(tables, ignore_index=True)[[*frame.columns, "derived"]].astype(TYPES)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a csv file as text. An empty field is an empty text."""
    return pd.read_csv(path, dtype=object, keep_default_na=False)


def pack(name: str, results: Path = Path("results"), replace: bool = False) -> Path:
    """Write results/NAME.csv.xz from the runs in results/NAME, and the frozen study beside it.

    Args:
        replace: also if a number that is packed is another one now.
    """
    folder = results / name
    path, packed = packed_of(folder), packed_of(folder, FROZEN)
    if (folder / FROZEN).is_file() and not (folder / WANTED).is_file():
        write_wanted(folder, read_wanted(folder))
    found = load(name, results)
    table = found.table
    if not found.folder or not (table.status == "finished").any():
        raise UserError(f"{folder}: no run is finished; run `snakemake` first")
    if path.is_file():
        _require_kept(path, folder, table, replace)
    frozen = (folder / FROZEN).read_bytes()
    if packed.is_file() and packed.read_bytes() != frozen:
        raise UserError(
            f"{packed}: is another frozen study than {folder / FROZEN}; keep the one of these runs"
        )
    # Elsewhere nothing runs.
    begun = table.status.isin(["running", "stopped", "unknown", "damaged"])
    table.loc[begun, ["status", "why"]] = "not run", ""
    with replacing(path) as temporary:
        temporary.write_bytes(lzma.compress(csv_of(table).encode()))
    write_text(packed, frozen.decode())
    return path


def _require_kept(path: Path, folder: Path, table: pd.DataFrame, replace: bool) -> None:
    """Check that packing loses no packed number, and changes none unless that is asked."""
    archive = read_numbers(path, (*WANTS, *FACTS))
    if lost := {*_finished(archive)} - {*_finished(table)}:
        raise UserError(
            f"{path}: has {len(lost)} runs that are not finished in {folder} or not wanted any "
            f"more, such as {min(lost)}; finish them, move it elsewhere, or rename the study"
        )
    old, new = (one.drop_duplicates(KEY).set_index(KEY).value.dropna() for one in (archive, table))
    old, new = old.align(new, "inner")
    changed = old[(old - new).abs() > 0]
    if len(changed) and not replace:
        (run_id, metric), value = changed.index[0], changed.iloc[0]
        raise UserError(
            f"{path}: {len(changed)} of its numbers are others in {folder}, such as {metric} of "
            f"{run_id}, which is {value:g} there and {new[run_id, metric]:g} here; `--replace` "
            "packs those of here"
        )
