"""What studies wanted before their first run: results/NAME/study.yaml and wanted.csv.

`study.yaml` has the studies and their scale as text. It never changes, and each result records its
digest. `wanted.csv` has a row per number that the studies want, with its run. It marks those that
were frozen, and each start of the workflow adds those that are wanted since. Pages read this table,
so only the workflow expands studies.
"""

import lzma
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import ConfigDict, Field

from mgm.errors import UserError, valid
from mgm.files import write_text
from mgm.results.run import FROZEN, frozen_sha256, git_commit
from mgm.spec import FrozenModel, parents
from mgm.study.expand import COLUMNS, Expansion, expand
from mgm.study.scales import Scale
from mgm.study.schema import Study, read_yaml

WANTED = "wanted.csv"
# What tells a number from the others.
WANTED_KEY = ["study", "dataset", "dataset_seed", "seed", "row", "column", "metric", "run_id"]
# `digest` is of the run's dataset, `parents` are the runs that it starts from, and `view` the views
# whose arrays it writes. `wanted` is false for a frozen number that is not wanted any more.
WANTS = (*COLUMNS, "digest", "parents", "view", "as_frozen", "wanted")
# Types of the columns that are not text, also of those with results.
FLOATS = ("ratio", "epochs", "steps", "value", "chance", "n_test", "wall_s")
FLAGS = ("control", "as_frozen", "wanted", "dirty")
TYPES: dict[Any, Any] = dict.fromkeys(FLOATS, float) | dict.fromkeys(FLAGS, bool)
TYPES |= dict.fromkeys(("dataset_seed", "seed"), int)
# Fields that are written after the runs, or that change no number.
PROSE = {"answer", "caveat", "expected_cost", "limitations", "views", "execution", "specs_per_job"}
# Older versions had other fields.
KNOWN = {*Scale.model_fields, *Study.model_fields} - PROSE


class Frozen(FrozenModel):
    """Studies as they were before the first run, at `commit` and `date`."""

    # Older versions wrote the digests of datasets here.
    model_config = ConfigDict(extra="ignore")

    commit: str
    date: str
    # The file that a user named. Empty: one of this package.
    file: str = ""
    scale: dict[str, Any]
    listed: tuple[Study, ...] = Field(alias="studies")
    # SHA-256 of the file.
    sha256: str = ""

    @property
    def studies(self) -> dict[str, Study]:
        """The studies by name."""
        return {study.study: study for study in self.listed}

    def changes(self, studies: Iterable[Study], scale: Scale) -> str:
        """Return what the studies and the scale have changed since, as a unified diff."""
        before = _text(self.scale, self.listed).splitlines()
        after = _text(_dump(scale), studies).splitlines()
        return "\n".join(unified_diff(before, after, "frozen", "now", n=1, lineterm=""))


def freeze(
    folder: Path, studies: Sequence[Study], scale: Scale, expansion: Expansion, file: str = ""
) -> None:
    """Write what a folder of results wants. What was frozen before stays so.

    In a clone, a packed study goes on as it was frozen before its first run.

    Raises:
        UserError: the packed study of this name is another one.
    """
    path, packed = folder / FROZEN, packed_of(folder, FROZEN)
    known = next(filter(Path.is_file, (path, packed)), None)
    old = read_wanted(folder) if known else None
    table = _merged(numbers_of(expansion), old)
    if known == packed and not (kept := table[table.as_frozen]).wanted.all():
        gone = kept[~kept.wanted]
        raise UserError(
            f"{packed}: is a packed study of this name, with {len(gone)} numbers that are not "
            f"wanted here, such as {gone.run_id.iloc[0]}; rename your study"
        )
    write_wanted(folder, table)
    if known == packed:
        write_text(path, packed.read_text(encoding="utf-8"))
    elif not known:
        commit, dirty = git_commit()
        fields = {
            "commit": commit + "-dirty" * dirty,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "file": file,
            "scale": _dump(scale),
            "studies": [*map(_dump, studies)],
        }
        head = "# Written before the first run. The page judges these predictions.\n"
        write_text(path, head + _yaml(fields))


def _merged(new: pd.DataFrame, old: pd.DataFrame | None) -> pd.DataFrame:
    """Return the numbers that are wanted now, then those that were frozen and are not any more."""
    if old is None:
        return new
    frozen = old[old.as_frozen]
    keys, known = (pd.MultiIndex.from_frame(table[WANTED_KEY]) for table in (new, frozen))
    gone = frozen[~known.isin(keys)].assign(wanted=False)
    return pd.concat([new.assign(as_frozen=keys.isin(known)), gone[[*WANTS]]], ignore_index=True)


def numbers_of(found: Expansion) -> pd.DataFrame:
    """Return a row per number of an expansion, and per run that has none of its own.

    The column of a run without a number, such as a pretraining, is empty.
    """
    cells, specs = found.cells, found.specs
    none = dict.fromkeys(("column", "metric", "pretraining"), "")
    # A row whose masks are measured alone is not trained.
    starts = cells[cells.pretraining.isin([*specs])].drop_duplicates("pretraining")
    starts = starts.assign(run_id=starts.pretraining, stage="pretrain", **none)
    shown = {*cells.run_id, *starts.run_id}
    others = [
        {"run_id": run_id, "stage": spec.stage, "seed": spec.seed, "title": spec.data.dataset}
        for run_id, spec in specs.items()
        if run_id not in shown
    ]
    table = pd.concat([cells, starts, pd.DataFrame(others)], ignore_index=True)
    views = defaultdict[str, list[str]](list)
    for key, run_id in found.pictures.items():
        views[run_id].append(key)
    table["digest"] = [specs[run_id].data.digest for run_id in table.run_id]
    table["parents"] = [" ".join(parents(specs[run_id])) for run_id in table.run_id]
    table["view"] = [" ".join(views[run_id]) for run_id in table.run_id]
    return typed(table.assign(as_frozen=True, wanted=True))[[*WANTS]]


def read_wanted(folder: Path) -> pd.DataFrame:
    """Return what a folder of results wants, or what its packed numbers are."""
    own, packed = folder / WANTED, packed_of(folder)
    if own.is_file() or packed.is_file():
        return read_numbers(own if own.is_file() else packed, WANTS)
    # An older version has frozen the text alone.
    frozen = read_frozen(folder)
    assert frozen
    with valid(f"{folder / FROZEN}: scale."):
        scale = Scale.model_validate(frozen.scale)
    return numbers_of(expand(frozen.listed, scale))


def write_wanted(folder: Path, table: pd.DataFrame) -> None:
    """Write what a folder of results wants."""
    write_text(folder / WANTED, csv_of(table))


def csv_of(table: pd.DataFrame) -> str:
    """Return a table of numbers as text, with flags as 0 and 1."""
    flags = dict.fromkeys(table.columns.intersection([*FLAGS]), int)
    return table.astype(flags).to_csv(index=False, lineterminator="\n")


def read_numbers(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table of numbers. Names such as None, NA and 007 stay what they are."""
    types = defaultdict(lambda: object, TYPES | dict.fromkeys(FLAGS, int))
    empty = {name: [""] for name in FLOATS}
    try:
        table: Any = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=empty)
        return typed(table[[*columns]])
    except KeyError as error:
        raise UserError(f"{path}: has no column {error}; restore it") from None
    except (lzma.LZMAError, EOFError, ValueError) as error:
        why = " ".join(str(error).split()) or "is cut"
        raise UserError(f"{path}: is no table of numbers ({why}); restore it") from None


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of numbers with its types. What is missing is empty, false or -1."""
    empty = dict.fromkeys(table.columns.difference([*TYPES]), "") | dict.fromkeys(FLAGS, False)
    table = table.fillna({**empty, "dataset_seed": -1})
    return table.astype({name: TYPES.get(name, str) for name in table})


def packed_of(folder: Path, name: str = "csv.xz") -> Path:
    """Return the packed file of a folder of results."""
    return folder.with_name(f"{folder.name}.{name}")


def read_frozen(folder: Path) -> Frozen | None:
    """Read the frozen study of a folder of results, or of a packed one; None if there is none."""
    path = next(filter(Path.is_file, (folder / FROZEN, packed_of(folder, FROZEN))), None)
    if path is None:
        return None
    with valid(f"{path}: ", "restore it"):
        fields = read_yaml(path, "frozen study") | {"sha256": frozen_sha256(path)}
        return Frozen.model_validate(fields)


def _dump(model: Any) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _text(scale: Mapping[str, Any], studies: Iterable[Study]) -> str:
    """Return what decides the numbers of studies."""
    dumped = [scale, *map(_dump, studies)]
    kept = [{key: one[key] for key in one if key in KNOWN} for one in dumped]
    return _yaml({"scale": kept[0], "studies": kept[1:]}, ordered=True)


def _yaml(fields: Mapping[str, Any], ordered: bool = False) -> str:
    return yaml.safe_dump(fields, sort_keys=ordered, allow_unicode=True, width=100)
