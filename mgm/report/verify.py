"""Verify a study: its runs against their files and the committed archive, its predictions by git.

History that was rewritten cannot be told from history. All else is checked: what cannot be checked
fails.
"""

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mgm.errors import UserError
from mgm.report.findings import Findings
from mgm.results.archive import ENDING, files_in
from mgm.results.plan import Plan
from mgm.spec import read_spec
from mgm.study.schema import Column, Place, Prediction, Row, Study, read_numbers

ROOT = Path(__file__).parents[2]
# Before this commit, predictions of this repository were prose. It wrote them as YAML.
TRANSLATED = "bcdef61f74fc5627caabc80536dd34481a9f14d5"
Check = tuple[bool, str]


class NotFound(Exception):
    """Why a prediction is not believed."""


def verify(findings: Findings, results: Path, root: Path = ROOT) -> tuple[list[str], int]:
    """Check a study against git and its files in the folder `results`.

    - Each run of the study is finished and agrees with its files, and with the archive that is
      committed. `examine` computes every accuracy again from predictions.csv.
    - Each finished run of the folder and of the archive is one of the study.
    - Each run's commit is in the repository and older than the run, and nothing was changed when
      the run started. No run is in the future.
    - Each prediction's commit has the same sentence with the same meaning, and the commits of all
      runs that test it follow it. It is older than the first evaluation that tests it, and than
      every archive with a run that tests it.

    Args:
        root: the repository with the study.

    Returns:
        A line per check, and the number of checks that failed.
    """
    repository = Repository(root)
    checks = [
        *_files(findings, results),
        *repository.whole(),
        *_archive(findings, results, repository),
        *_commits(findings, repository),
        *(_prediction(findings, one, repository) for one in findings.study.predictions),
    ]
    lines = [f"{'ok' if passes else 'FAILED'}: {line}" for passes, line in checks]
    return lines, sum(not passes for passes, _ in checks)


def _files(findings: Findings, results: Path) -> Iterator[Check]:
    states = {run_id: findings.statuses[run_id] for run_id in findings.plan.specs}
    done = sum(status.state == "finished" for status in states.values())
    line = f"{done} of {len(states)} runs are finished and agree with their files"
    yield bool(states) and done == len(states), line
    for status in states.values():
        if status.state == "altered":
            yield False, status.why
    for folder in unwanted(findings.plan, results):
        yield False, f"{folder}: is no run of this study"


def unwanted(plan: Plan, results: Path) -> list[Path]:
    """Return the folders of finished runs in `results` that no table or figure uses.

    A folder counts as a run only if it has the spec of the run id that is its name.
    """
    folders = [path.parent for path in sorted(results.glob("*/result.json"))]
    return [
        folder
        for folder in folders
        if folder.name not in plan.specs and not folder.is_symlink() and _is_run(folder)
    ]


def _is_run(folder: Path) -> bool:
    try:
        return read_spec(folder).run_id == folder.name
    except UserError:
        return False


def _archive(findings: Findings, results: Path, repository: "Repository") -> Iterator[Check]:
    """Compare the results with the archive in the last commit, which no editor changes."""
    name = results.name
    archived = repository.results_at("HEAD", name)
    done = {run_id: status for run_id, status in findings.statuses.items() if status.result}
    differ = {
        run_id
        for run_id in done
        if archived.get(run_id) != (results / run_id / "result.json").read_bytes()
    }
    line = f"{len(done) - len(differ)} of {len(done)} results are as in the committed archive"
    advice = f"; `mgm pack {name}` and commit results/{name}{ENDING}" if differ else ""
    yield not differ, line + advice
    if strangers := archived.keys() - findings.plan.specs.keys():
        count, one = len(strangers), min(strangers)
        yield False, f"{count} archived runs are no runs of this study, such as {one}"


def _commits(findings: Findings, repository: "Repository") -> Iterator[Check]:
    runs: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
    for status in findings.statuses.values():
        if status.result:
            runs.setdefault((status.result["commit"], status.result["dirty"]), []).append(
                status.result
            )
    for (commit, dirty), results in sorted(runs.items()):
        line = f"{len(results)} runs of commit {commit[:7]}"
        written = repository.date(commit)
        if written is None:
            yield False, f"{line}, which this repository lacks"
            continue
        early = sum(_time(result["started"]) < written for result in results)
        future = sum(_time(result["finished"]) > datetime.now(UTC) for result in results)
        faults = {
            "the tree had changes that were not committed": dirty,
            f"{early} started before it": early,
            f"{future} are in the future": future,
        }
        text = "; ".join(fault for fault, found in faults.items() if found)
        yield not text, f"{line}, {text or 'clean'}"


def _prediction(findings: Findings, one: Prediction, repository: "Repository") -> Check:
    text = f"{one.dataset}: {one.says}"
    try:
        written = repository.written(one, findings.study)
    except NotFound as why:
        return False, f"{text}: {why}"
    units = _units_of(findings, one)
    for unit in units:
        # A difference is tested once both of its runs are there.
        if not any(repository.follows(run, one.since) for run in unit):
            run = unit[-1]["run_id"]
            return False, f"{text}: {run} did not follow commit {one.since}"
    if not units:
        return True, f"{text}: of {written:%Y-%m-%d %H:%M}, not tested"
    tested = min(max(_time(run["started"]) for run in unit) for unit in units)
    minutes = (tested - written).total_seconds() / 60
    when = "before" if minutes > 0 else "AFTER"
    return minutes > 0, f"{text}: {abs(minutes):.0f} min {when} its first test"


def _units_of(findings: Findings, prediction: Prediction) -> list[list[Mapping[str, Any]]]:
    """Return the results of each sampling unit that tests a prediction, if all are there."""
    runs = findings.tested_by(prediction)
    units: list[list[Mapping[str, Any]]] = []
    terms = len(runs[["row", "column"]].drop_duplicates())
    for _, unit in runs.groupby(["draw", "seed"]):
        results = [findings.statuses[run_id].result for run_id in unit.run_id]
        if all(results) and len(unit[["row", "column"]].drop_duplicates()) == terms:
            units.append([result for result in results if result])
    return units


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@dataclass
class Repository:
    """A git repository, read only."""

    root: Path

    def __post_init__(self) -> None:
        # Another repository's variables do not count.
        self.env = {key: text for key, text in os.environ.items() if not key.startswith("GIT_")}
        # An answer is read once. Commits do not change.
        for name in ("date", "is_ancestor", "results_at", "studies", "archived_by", "runs_in"):
            setattr(self, name, cache(getattr(self, name)))

    def git(self, *words: str) -> bytes | None:
        """Return what git prints; None if it fails."""
        command = ["git", "--no-replace-objects", "-C", str(self.root), *words]
        try:
            done = subprocess.run(command, capture_output=True, check=False, env=self.env)
        except FileNotFoundError:
            return None
        return done.stdout if done.returncode == 0 else None

    def whole(self) -> Iterator[Check]:
        """Check that the history is here."""
        shallow = self.git("rev-parse", "--is-shallow-repository")
        if shallow is None:
            yield False, f"{self.root}: is not a git repository; clone it to check predictions"
        elif shallow.strip() == b"true":
            yield False, "this clone lacks older commits; `git fetch --unshallow` gets them"

    def commit(self, name: str) -> str:
        """Return the full hash of a commit; empty if there is none. Branches are no commits."""
        if not re.fullmatch("[0-9a-f]{7,40}", name):
            return ""
        known = self.git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        )
        found = (known or b"").decode().strip()
        return found if found.startswith(name) else ""

    def date(self, name: str) -> datetime | None:
        """Return the date of a commit, in UTC; None if the repository lacks it."""
        if not (commit := self.commit(name)):
            return None
        return _time(
            (self.git("show", "--no-patch", "--format=%cI", commit) or b"").decode().strip()
        )

    def is_ancestor(self, old: str, new: str) -> bool:
        """Return whether `new` follows `old`, or is the same commit."""
        old, new = self.commit(old), self.commit(new)
        return bool(old and new) and self.git("merge-base", "--is-ancestor", old, new) is not None

    def written(self, one: Prediction, study: Study) -> datetime:
        """Return when a prediction was committed.

        Raises:
            NotFound: it was not committed, or in other words, or with another meaning.
        """
        if not one.since:
            raise NotFound("not committed; write `since: HASH` once a commit has it")
        if not re.fullmatch("[0-9a-f]{7,40}", one.since):
            raise NotFound(f"since {one.since!r} is not the hash of a commit (7 to 40 hex digits)")
        written = self.date(one.since)
        if written is None:
            raise NotFound(f"commit {one.since} is not in this repository")
        if not (studies := self.studies(one.since)) and self.is_ancestor(one.since, TRANSLATED):
            studies = self.studies(TRANSLATED)
        why = "has no such prediction"
        for name, fields in studies.items():
            for other in _listed(fields.get("predictions")):
                # A dataset keeps its name in its study.
                known = name != study.study or other.get("in") == one.dataset
                if known and _same(one, other):
                    try:
                        old = _meaning(fields, one, other["in"])
                    except (KeyError, TypeError, ValueError, AttributeError) as error:
                        why = f"has it in a study that cannot be read ({error})"
                        continue
                    now = _meaning(study.model_dump(by_alias=True), one, one.dataset)
                    changed = [part for part, value in now.items() if old[part] != value]
                    if not _units(fields, other["in"]) & _units(dict(study), one.dataset):
                        changed.append("draws")
                    if not changed:
                        return written
                    why = f"has it with another {', '.join(changed)}"
        raise NotFound(f"commit {one.since} {why}")

    def studies(self, commit: str) -> dict[str, dict[str, Any]]:
        """Return the studies of a commit, by name."""
        commit, studies = self.commit(commit), {}
        folders = ("studies", "workflow/studies")
        listed = self.git("ls-tree", "-r", "--name-only", commit, "--", *folders) if commit else b""
        for path in (listed or b"").decode().splitlines():
            if path.endswith(".yaml"):
                try:
                    fields = yaml.safe_load(self.git("cat-file", "blob", f"{commit}:{path}") or b"")
                except yaml.YAMLError:
                    continue
                if isinstance(fields, dict):
                    studies[Path(path).stem] = fields
        return studies

    def results_at(self, commit: str, name: str) -> dict[str, bytes]:
        """Return each run's result.json in a commit's archive of a study."""
        data = self.git("cat-file", "blob", f"{commit}:results/{name}{ENDING}")
        if not data:
            return {}
        files = files_in(data, name, f"results/{name}{ENDING} of {commit}")
        return {
            path.split("/")[0]: content
            for path, content in files.items()
            if path.endswith("/result.json")
        }

    def archived_by(self, commit: str) -> set[str]:
        """Return the runs of every archive that a commit or one before it has had, of any study."""
        paths = ("--", f"results/*{ENDING}")
        commits = self.git("log", "--full-history", "--format=%H", self.commit(commit), *paths)
        blobs = {
            line.split()[2]
            for one in (commits or b"").decode().split()
            for line in (self.git("ls-tree", one, "results/") or b"").decode().splitlines()
            if line.endswith(ENDING)
        }
        return {run_id for blob in blobs for run_id in self.runs_in(blob)}

    def runs_in(self, blob: str) -> set[str]:
        """Return the runs of an archive."""
        with tarfile.open(fileobj=io.BytesIO(self.git("cat-file", "blob", blob) or b"")) as tar:
            names = [Path(member.name) for member in tar]
        return {path.parent.name for path in names if path.name == "result.json"}

    def follows(self, result: Mapping[str, Any], since: str) -> bool:
        """Return whether a run is of a later commit, and in no archive until `since`."""
        return self.is_ancestor(since, result["commit"]) and result[
            "run_id"
        ] not in self.archived_by(since)


def _listed(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _same(one: Prediction, other: Mapping[str, Any]) -> bool:
    """Return whether `other`, from a file, says the same as `one`."""
    fields = {
        key: other[key] for key in ("says", "column", "draws", "seeds", "strict") & other.keys()
    }
    try:
        read = Prediction.model_validate(fields | {"in": one.dataset})
    except ValueError:
        return False
    return read == one.model_copy(update={"since": ""})


def _units(fields: Mapping[str, Any], dataset: str) -> set[int]:
    """Return the draws of a dataset, or its seeds if it is not drawn."""
    place = dict(fields["datasets"].get(dataset) or {})
    chosen = (where.get(kind) for kind in ("draws", "seeds") for where in (place, fields))
    return {*(read_numbers(next(filter(None, chosen), ())))}


def _meaning(fields: Mapping[str, Any], one: Prediction, dataset: str) -> dict[str, Any]:
    """Return the parts of a study that give a prediction its meaning, without titles."""
    columns, rows = fields["columns"], fields["rows"]
    first = one.column or next(iter(columns))
    terms = one.statement.formula.terms
    named = {term.row for term in terms if term.row in rows}
    parts = {name: Row.model_validate(rows[name]) for name in named}
    for start in {row.start for row in parts.values()} & rows.keys():
        parts[start] = Row.model_validate(rows[start])
    used = {
        name: Column.model_validate(columns[name])
        for name in {term.column or first for term in terms}
    }
    stages = {column.stage for column in used.values()}
    settings = fields.get("settings") or {}
    known = {name: Place.model_validate(place) for name, place in fields["datasets"].items()}
    place = known[dataset]
    others = [known[name] for name in (place.videos_of, place.pretrained_on) if name]
    everywhere = settings.get("pretrain") or {}
    return {
        "dataset": [
            (p.use, p.generate, p.root, p.digest) for p in (place, *others) if not p.videos_of
        ],
        "row": {
            name: (row.start, row.then, everywhere | row.changes) for name, row in parts.items()
        },
        "column": {n: (c.stage, c.metric, c.changes) for n, c in used.items()},
        "setting": {stage: settings[stage] for stage in sorted(stages) if settings.get(stage)},
        "scale": (fields.get("scale", ""), fields.get("epochs", 200)),
        "unit": (fields.get("unit", "draws"), fields.get("complete", True)),
    }
