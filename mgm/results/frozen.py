"""Studies as they were before their first run, in results/NAME/study.yaml.

The page judges these predictions, and says what of the study has changed since.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import Field, ValidationError

from mgm.errors import valid
from mgm.files import write_text
from mgm.results.run import git_commit
from mgm.spec import FrozenModel
from mgm.study.expand import Expansion
from mgm.study.scales import Scale
from mgm.study.schema import Study, read_yaml

FROZEN = "study.yaml"
# What tells a number from the others.
NUMBER = ["study", "dataset", "dataset_seed", "seed", "row", "column", "metric"]


class Frozen(FrozenModel):
    """Studies as they were before the first run, at `commit` and `date`."""

    commit: str
    date: str
    # The file that a user named. Empty: one of this package.
    file: str = ""
    # Of prepared datasets, by key.
    digests: dict[str, str] = Field(default_factory=dict)
    scale: dict[str, Any]
    listed: tuple[Study, ...] = Field(alias="studies")

    @property
    def studies(self) -> dict[str, Study]:
        """The studies by name."""
        return {study.study: study for study in self.listed}


def freeze(
    folder: Path, studies: Sequence[Study], scale: Scale, expansion: Expansion, file: str = ""
) -> None:
    """Write the frozen study of a folder of results, unless it is there.

    A packed study stays as it was frozen before its first run. Of datasets that were added since,
    the digests are added, since a clone without their folders needs them to know their runs.
    """
    path, packed = folder / FROZEN, folder.with_name(f"{folder.name}.{FROZEN}")
    digests = {key: one.digest for key, one in expansion.datasets.items() if one.root}
    if there := next(filter(Path.is_file, (path, packed)), None):
        fields = read_yaml(there, "frozen study")
        if digests.keys() <= fields.get("digests", {}).keys():
            if there != path:
                write_text(path, there.read_text(encoding="utf-8"))
            return
        fields["digests"] = digests | fields.get("digests", {})
    else:
        commit, dirty = git_commit()
        fields = {
            "commit": commit + "-dirty" * dirty,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "file": file,
            "digests": digests,
            "scale": _dump(scale),
            "studies": [_dump(study) for study in studies],
        }
    head = "# Written before the first run. The page judges these predictions.\n"
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)
    write_text(path, head + text)


def without_digests(path: Path) -> dict[str, Any]:
    """Return what a frozen study says, but for digests, which are added with datasets."""
    return {**read_yaml(path, "frozen study"), "digests": {}}


def _dump(model: Any) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def read_frozen(folder: Path) -> Frozen | None:
    """Read the frozen study of a folder of results, or of a packed one; None if there is none."""
    packed = folder.with_name(f"{folder.name}.{FROZEN}")
    path = next(filter(Path.is_file, (folder / FROZEN, packed)), None)
    if path is None:
        return None
    with valid(f"{path}: ", "restore it"):
        return Frozen.model_validate(read_yaml(path, "frozen study"))


def scale_of(frozen: Frozen) -> Scale | None:
    """Return the frozen scale; None if an older version wrote it, and this one cannot read it."""
    fields = {name: value for name, value in frozen.scale.items() if name in Scale.model_fields}
    try:
        return Scale.model_validate(fields)
    except ValidationError:
        return None


def changes(
    old: pd.DataFrame, new: pd.DataFrame, frozen: Mapping[str, Study], studies: Mapping[str, Study]
) -> dict[str, list[str]]:
    """Return what of each study differs from the frozen one, in words.

    Args:
        old: numbers that the frozen studies wanted; `new`: those of today.
    """
    found = dict[str, list[str]]()
    cell, seeds = ["dataset", "row", "column"], ["dataset_seed", "seed"]
    for name, study in studies.items():
        if name not in frozen:
            found[name] = ["the study is new"]
            continue
        before, after = old[old.study == name], new[new.study == name]
        lines = list[str]()
        places = {key: place for key, place in frozen[name].datasets.items() if place.mean_of}
        means = {key: place for key, place in study.datasets.items() if place.mean_of}
        kinds = [(f"{kind}s", {*before[kind]}, {*after[kind]}) for kind in cell]
        for kind, theirs, ours in (*kinds, ("means", {*places}, {*means})):
            lines += _named(f"{kind} added", ours - theirs)
            lines += _named(f"{kind} gone", theirs - ours)
        both = means.keys() & places.keys()
        lines += _named("means changed", (k for k in both if means[k].parts != places[k].parts))
        same = before[cell].drop_duplicates().merge(after[cell].drop_duplicates())
        own = [part.merge(same) for part in (before, after)]
        keys = [set(part[[*cell, *seeds]].itertuples(index=False, name=None)) for part in own]
        lines += _named("seeds changed of", (place[0] for place in keys[0] ^ keys[1]))
        joined = own[0].merge(own[1], on=[*cell, *seeds], suffixes=("", "_now"))
        edited = joined[joined.metric != joined.metric_now]
        lines += _named("metric changed of", edited.column)
        edited = joined[(joined.metric == joined.metric_now) & (joined.run_id != joined.run_id_now)]
        lines += _named("settings changed of", edited.row)
        if lines:
            found[name] = lines
    if gone := frozen.keys() - studies.keys():
        found.setdefault(next(iter(studies)), []).extend(_named("studies gone", gone))
    return found


def _named(what: str, names: Iterable[str]) -> list[str]:
    """Return a line that names what has changed; none if nothing has."""
    known = sorted({*names})
    return [f"{what}: {'; '.join(known)}"] if known else []
