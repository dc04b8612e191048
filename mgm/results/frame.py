"""Results as one pandas table: the numbers that studies want, joined with the runs' files.

The numbers are those of the runs in results/NAME, and of results/NAME.csv.xz for runs that are not
there: a clone shows all, and can add more. The frozen study, results/NAME/study.yaml, is written
before the first run. It shows which predictions are older than the runs.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mgm.errors import UserError, nearest, valid
from mgm.files import replacing, write_text
from mgm.results.run import git_commit, status
from mgm.spec import Spec
from mgm.study import CONFIG, STUDIES
from mgm.study.expand import Expansion, expand
from mgm.study.scales import Scale, file_of, load_scale, of_paper
from mgm.study.schema import Study, load_study, read_yaml

FROZEN = "study.yaml"
# Types of the columns that are not text.
FLOATS = ("ratio", "epochs", "steps", "value", "n_test", "wall_s")
FLAGS = ("control", "dirty")
TYPES: dict[Any, Any] = dict.fromkeys(FLOATS, float) | dict.fromkeys(FLAGS, bool)
TYPES |= dict.fromkeys(("dataset_seed", "seed"), int)
# What tells a number from the others.
NUMBER = ["study", "dataset", "dataset_seed", "seed", "row", "column", "metric"]
# What a run's files add to the columns of an expansion.
FACTS = ("value", "status", "why", "n_test", "commit", "dirty", "started", "device", "wall_s")
NO_FACTS: dict[str, Any] = {"commit": "", "dirty": False, "started": "", "device": ""}


@dataclass(frozen=True)
class Frozen:
    """Studies as they were before the first run, at `commit` and `date`."""

    commit: str
    date: str
    studies: dict[str, Study]
    scale: dict[str, Any]
    # Of prepared datasets, by key.
    digests: dict[str, str]
    # The file that a user named. Empty: one of this package.
    file: str = ""


@dataclass(frozen=True)
class Published:
    """Studies with their results.

    Attributes:
        frame: a row per number, with the columns of `Expansion.cells`, and: `value`, NaN unless
            `status` is finished; `why` it is not; `n_test`, videos of the test; `commit`, `dirty`,
            `started`, `device` and `wall_s` of the run. A run without a number of its own, such as
            a pretraining, has one row, whose column is empty. A dataset that is a mean of others
            has their run ids, joined by spaces.
        frozen: None if the studies were never frozen.
        specs: specs by run id; empty if the numbers come from NAME.csv.xz.
        folder: of the runs; None if the numbers come from NAME.csv.xz.
        pictures: the run whose arrays a view shows, by the view's key.
        problems: what was left out, a sentence each.
    """

    name: str
    studies: dict[str, Study]
    scale: Scale
    frame: pd.DataFrame
    frozen: Frozen | None = None
    specs: dict[str, Spec] = field(default_factory=dict)
    folder: Path | None = None
    pictures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_frame(name: str, results: Path = Path("results")) -> pd.DataFrame:
    """Return every number of the studies `name`, as `Published.frame` has them."""
    return load(name, results).frame


def load(name: str, results: Path = Path("results")) -> Published:
    """Read the studies `name` and their results.

    Args:
        name: of a study in studies/, of a scale, or of a folder of results.

    Raises:
        UserError: there is no such study, or it cannot be read.
    """
    folder, packed = results / name, results / f"{name}.csv.xz"
    if packed.is_file() and not folder.is_dir():
        frozen = read_frozen(results / f"{name}.{FROZEN}")
        studies, scale = _studies_of(name, frozen)
        table = read_table(packed)
        problems = _leave_out_edited(table, studies, scale, frozen) if frozen else []
        frame = with_means(table, studies)
        return Published(name, studies, scale, frame, frozen, problems=problems)
    frozen = read_frozen(folder / FROZEN)
    studies, scale = _studies_of(name, frozen)
    found = expand([*studies.values()], scale, frozen.digests if frozen else None, lenient=True)
    table = joined(found, folder)
    if packed.is_file():
        older = read_table(packed)
        if others := _others(older, table):
            found.problems.append(f"{packed}: has {others} runs that {name} does not want any more")
        table = _with_packed(table, older)
    frame, more = with_means(table, studies), (found.pictures, found.problems)
    return Published(name, studies, scale, frame, frozen, found.specs, folder, *more)


def _studies_of(name: str, frozen: Frozen | None) -> tuple[dict[str, Study], Scale]:
    """Return the studies `name` as their files are now, and their scale."""
    places = [Path(frozen.file)] if frozen and frozen.file else []
    places += [folder / f"{name}.yaml" for folder in (STUDIES, CONFIG)]
    path = next(filter(Path.is_file, places), None)
    if path and "study" in read_yaml(path, "study"):
        studies = [load_study(path)]
        scale = load_scale(file_of(studies[0].scale, CONFIG))
    elif path:
        studies = of_paper(scale := load_scale(path))
    elif frozen:
        studies, scale = [*frozen.studies.values()], Scale.model_validate(frozen.scale)
    else:
        known = {file.stem for place in (STUDIES, CONFIG) for file in place.glob("*.yaml")}
        raise UserError(f"{name}: no such study or scale; {nearest(name, sorted(known))}")
    return {study.study: study for study in studies}, scale


def freeze(
    folder: Path, studies: Sequence[Study], scale: Scale, expansion: Expansion, file: str = ""
) -> None:
    """Write the frozen study of a folder of results, unless it is there.

    A packed study stays as it was frozen before its first run.
    """
    path, packed = folder / FROZEN, folder.with_name(f"{folder.name}.{FROZEN}")
    if path.exists():
        return
    if packed.exists():
        write_text(path, packed.read_text(encoding="utf-8"))
        return
    commit, dirty = git_commit()
    fields = {
        "commit": commit + "-dirty" * dirty,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "file": file,
        "digests": {key: one.digest for key, one in expansion.datasets.items() if one.root},
        "scale": _dump(scale),
        "studies": [_dump(study) for study in studies],
    }
    head = "# Written before the first run. The page judges these predictions.\n"
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)
    write_text(path, head + text)


def _dump(model: Any) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def read_frozen(path: Path) -> Frozen | None:
    """Read a frozen study; None if there is none."""
    if not path.is_file():
        return None
    fields = read_yaml(path, "frozen study")
    with valid(f"{path}: studies."):
        studies = [Study.model_validate(one) for one in fields["studies"]]
    return Frozen(**fields | {"studies": {study.study: study for study in studies}})


def joined(found: Expansion, folder: Path) -> pd.DataFrame:
    """Return the cells of an expansion with their results, and the runs that have no cell."""
    states = {run_id: status(folder / run_id, spec) for run_id, spec in found.specs.items()}
    cells, none = found.cells, dict.fromkeys(("column", "metric", "pretraining", "views"), "")
    starts = cells[cells.pretraining != ""].drop_duplicates("pretraining")
    starts = starts.assign(run_id=starts.pretraining, stage="pretrain", **none)
    shown = {*cells.run_id, *starts.run_id}
    others = [
        {"run_id": run_id, "stage": spec.stage, "seed": spec.seed, "title": spec.data.dataset}
        for run_id, spec in found.specs.items()
        if run_id not in shown
    ]
    table = pd.concat([cells, starts, pd.DataFrame(others)], ignore_index=True)
    empty = dict.fromkeys(table.columns.difference([*TYPES]), "")
    table = table.fillna({**empty, "dataset_seed": -1, "control": False})
    facts = []
    for run_id, metric in zip(table.run_id, table.metric):
        result, own = states[run_id].result, {**NO_FACTS, "status": states[run_id].state}
        own["why"] = states[run_id].why
        if result:
            own |= {name: getattr(result, name) for name in FACTS[3:]}
            own["value"] = result.metrics.get(metric, nan)
            if metric and metric not in result.metrics:
                own |= {"status": "not run", "why": f"no {metric}"}
        facts.append(own)
    table = table.join(pd.DataFrame(facts, columns=[*FACTS])).astype(TYPES)
    # A control that a dataset does not have, such as the duration of videos of equal length.
    return table[~table.control | (table.why != "no " + table.metric)]


def _with_packed(table: pd.DataFrame, packed: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with the packed numbers of the runs that are not finished here."""
    keys = ["run_id", "metric"]
    known = packed[packed.status == "finished"].drop_duplicates(keys).set_index(keys)[[*FACTS]]
    wanted = pd.MultiIndex.from_frame(table[keys])
    lacks = (table.status != "finished") & wanted.isin(known.index)
    if lacks.any():
        table.loc[lacks, [*FACTS]] = known.reindex(wanted[lacks]).to_numpy()
    # A control that a packed dataset does not have.
    lacks = table.control & table.run_id.isin(packed.run_id) & (table.status != "finished")
    return table[~lacks].astype(TYPES)


def _others(packed: pd.DataFrame, table: pd.DataFrame) -> int:
    """Return how many finished runs of a packed table are not in another table."""
    finished = packed[packed.status == "finished"].run_id
    return finished[~finished.isin(table.run_id)].nunique()


def with_means(frame: pd.DataFrame, studies: Mapping[str, Study]) -> pd.DataFrame:
    """Return a frame with the rows of datasets that are means of others."""
    tables = [frame]
    for name, study in studies.items():
        cells = frame[(frame.study == name) & (frame.column != "")]
        for key, place in study.datasets.items():
            if not place.mean_of:
                continue
            signs = dict.fromkeys(place.mean_of, 1 / len(place.mean_of))
            signs |= {other: -1 / len(place.minus_mean_of) for other in place.minus_mean_of}
            used = cells[cells.dataset.isin([*signs])]
            used = used.assign(value=used.value * used.dataset.map(signs))
            same = used.groupby(["row", "column", "dataset_seed", "seed"], sort=False)
            first: Any = dict.fromkeys(frame.columns, "first")
            mean = same.agg(first | {"run_id": lambda run_ids: " ".join(run_ids.unique())})
            # A number that lacks a dataset is no mean.
            mean["value"] = same.value.sum(min_count=len(signs))
            whole = same.dataset.nunique() == len(signs)
            mean = mean[whole].reset_index(drop=True)
            mean.loc[mean.value.isna(), "status"] = "not run"
            # Its videos are of several tests, so no interval is over them.
            title = place.title or key
            tables.append(mean.assign(dataset=key, title=title, views="", n_test=0.0))
    return pd.concat(tables, ignore_index=True).astype(TYPES)


def read_table(path: Path) -> pd.DataFrame:
    """Read results/NAME.csv.xz. Names such as None, NA and 007 stay what they are."""
    table = read_csv(path)
    floats = {name: pd.to_numeric(table[name]) for name in FLOATS}
    return table.assign(**floats, **{name: table[name] == "1" for name in FLAGS}).astype(TYPES)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a csv file as text. An empty field is an empty text."""
    return pd.read_csv(path, dtype=object, keep_default_na=False)


def pack(name: str, results: Path = Path("results")) -> Path:
    """Write results/NAME.csv.xz from the runs in results/NAME, and the frozen study beside it.

    Raises:
        UserError: there are no finished runs, or NAME.csv.xz has runs that would be lost.
    """
    folder, path = results / name, results / f"{name}.csv.xz"
    published = load(name, results)
    # Means are computed again.
    table = published.frame[~published.frame.run_id.str.contains(" ")]
    if not published.folder or not (table.status == "finished").any():
        raise UserError(f"{folder}: no run is finished; run `snakemake` first")
    if path.is_file() and (others := _others(read_table(path), table)):
        raise UserError(
            f"{path}: has {others} runs that {name} does not want any more; move it elsewhere, or "
            "rename the study"
        )
    # Elsewhere nothing runs.
    table.loc[table.status == "running", ["status", "why"]] = "not run", ""
    table = table.astype(dict.fromkeys(FLAGS, int))
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    if published.frozen:
        shutil.copyfile(folder / FROZEN, results / f"{name}.{FROZEN}")
    return path


def _leave_out_edited(
    table: pd.DataFrame, studies: Mapping[str, Study], scale: Scale, frozen: Frozen
) -> list[str]:
    """Mark numbers as not run whose runs are others, as the studies' files are now.

    Returns:
        A sentence for each row with such numbers.
    """
    old, new = (
        expand([*own.values()], scale, frozen.digests, lenient=True).cells
        for own in (frozen.studies, studies)
    )
    both = new.merge(old, on=NUMBER, suffixes=("", "_old"))
    edited = both[both.run_id != both.run_id_old]
    chosen = pd.MultiIndex.from_frame(table[NUMBER]).isin(pd.MultiIndex.from_frame(edited[NUMBER]))
    table.loc[chosen, ["value", "status", "why"]] = nan, "not run", "was edited since the runs"
    rows = edited[["study", "row"]].drop_duplicates().itertuples(index=False)
    return [f"study {study}: row {row} was edited since the runs" for study, row in rows]
