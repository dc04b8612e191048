"""Verify results: their numbers by their files and the committed archive, predictions by git."""

import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.reading import parse_yaml
from mgm.results.archive import archive_of, files_in
from mgm.results.plan import RunPlan
from mgm.results.result import RunStatus
from mgm.study.load import study_file
from mgm.study.schema import Prediction, Study

Check = tuple[bool, str]


def verify(
    plan: RunPlan, studies: Sequence[Study], statuses: Mapping[str, RunStatus], results: Path
) -> list[Check]:
    """Return checks of the runs and the predictions in the folder `results`, each with its line.

    - Finished runs agree with their files and with the committed archive.
    - The sentence of each prediction stands in a study of the commit in its `since`, in the folder
      of today's. That commit precedes at least one run of each difference that tests it.

    Args:
        statuses: as `examine_all` returns them.
    """
    done = {run_id: status.result for run_id, status in statuses.items() if status.result}
    line = f"{len(done)} of {len(statuses)} runs are finished and agree with their files"
    file = study_file(results, plan)
    # A study may have a part of its runs. Only whole dataset seeds count in what it shows.
    checks = [(bool(done), line)]
    checks += [(False, status.why) for status in statuses.values() if status.state == "altered"]
    archive = archive_of(results)
    packed = _git(archive.parent, "show", f"HEAD:./{archive.name}")
    files = files_in(packed, results.name, str(archive)) if packed else {}
    same = sum(
        files.get(f"{run_id}/result.json") == (results / run_id / "result.json").read_bytes()
        for run_id in done
    )
    archived = sum(name.endswith("/result.json") for name in files)
    agrees = same == len(done) == archived
    advice = "" if agrees else f"; `mgm pack {results.name}`, and commit {archive}"
    line = f"{same} of {len(done)} results are the {archived} of the committed archive{advice}"
    checks.append((agrees, line))
    if file:
        place = file.resolve().parent
        checks += [_prediction(place, plan, s, one, done) for s in studies for one in s.predictions]
    return checks


def _prediction(
    place: Path, plan: RunPlan, study: Study, one: Prediction, done: Mapping[str, Any]
) -> Check:
    """Check one prediction of a study, whose file is in the folder `place`."""
    text = f"{one.dataset}: {one.says}"
    if not re.fullmatch("[0-9a-f]{7,40}", one.since):
        return False, f"{text}: since {one.since!r} is no hash; write that of the commit with it"
    if not (written := _git(place, "show", "-s", "--format=%cI", one.since)):
        return False, f"{text}: commit {one.since} is not in this clone"
    if one not in _predictions(place, one.since, study.study, one.dataset):
        return False, f"{text}: is not in a study of commit {one.since}"
    first = one.column or next(iter(study.columns))
    terms = {(term.row, term.column or first) for term in one.statement.formula.terms}
    units = defaultdict[tuple[int, int], list[Mapping[str, Any]]](list)
    chosen = study.selection_of(one)
    for cell in plan.cells:
        tests = cell.study == study.study and cell.dataset in chosen.datasets
        tests = tests and chosen.has_seeds(cell.dataset_seed, cell.seed)
        if tests and (cell.row, cell.column) in terms and cell.run_id in done:
            units[cell.dataset_seed, cell.seed].append(done[cell.run_id])
    date, known = datetime.fromisoformat(written.decode().strip()), 0
    for runs in units.values():
        new = [run for run in runs if datetime.fromisoformat(run["started"]) > date]
        known += len(new) < len(runs)
        if not new:
            return False, f"{text}: {runs[0]['run_id']} is older than commit {one.since}"
        for run in new:
            if _git(place, "merge-base", "--is-ancestor", one.since, run["commit"]) is None:
                return False, f"{text}: {run['run_id']} did not follow commit {one.since}"
    both = "before all of their runs" if not known else f"in {known}, one of the runs was known"
    return True, f"{text}: predicted before {len(units)} differences, {both}"


def _predictions(place: Path, since: str, study: str, dataset: str) -> Iterator[Prediction]:
    """Yield the predictions of a commit's studies, as if their `since` were the commit.

    A study may have got them from another one, where the dataset had another name.
    """
    known = [field.alias or name for name, field in Prediction.model_fields.items()]
    for name in (_git(place, "ls-tree", "--name-only", since, "./") or b"").decode().split():
        data = _git(place, "show", f"{since}:./{Path(name).name}") if name.endswith("l") else b""
        try:
            fields = parse_yaml((data or b"").decode(), name)
        except UserError:
            continue
        for said in fields.get("predictions") or () if isinstance(fields, dict) else ():
            own = {"since": since} | ({} if fields.get("study") == study else {"in": dataset})
            yield Prediction.model_validate({k: said[k] for k in known if k in said} | own)


def _git(place: Path, *words: str) -> bytes | None:
    """Return what git prints of the repository of `place`; None if it fails."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", "-C", place, *words], capture_output=True, check=False, env=env)
    return done.stdout if done.returncode == 0 else None
