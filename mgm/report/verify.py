"""Verify a study: its runs against their files and every committed archive, its predictions by git.

A prediction is believed if the commit in its `since` has the same sentence about the same runs: the
study of that commit is expanded with today's code, and the runs of the predicted cells must all be
runs of today's study. History that was rewritten cannot be told from history. All else is checked:
what cannot be checked fails.
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.report.history import Doubt, History
from mgm.results.archive import ENDING, results_in
from mgm.results.plan import Cell, Plan
from mgm.results.result import RunStatus
from mgm.spec import read_spec
from mgm.study import CONFIG
from mgm.study.expand import expand
from mgm.study.load import parse_study, study_file
from mgm.study.scales import UNSCALED, Dataset, file_of, load_scale
from mgm.study.schema import CONTROLS, At, Prediction, Study
from mgm.study.videos import datasets_of

# Before this commit, predictions of this repository were prose. It wrote them as YAML.
TRANSLATED = "bcdef61f74fc5627caabc80536dd34481a9f14d5"
Check = tuple[bool, str]
PREDICTION = [field.alias or name for name, field in Prediction.model_fields.items()]
# The cells of each term of a formula, by run id and metric.
Runs = list[dict[tuple[str, str], Cell]]


def verify(
    plan: Plan, study: Study, statuses: Mapping[str, RunStatus], results: Path
) -> tuple[list[str], int]:
    """Check a study against git and its files in the folder `results`.

    - Each run of the study is finished and agrees with its files, and with the archive that is
      committed. `examine` computes every accuracy again from predictions.csv.
    - The plan is what the study expands to. Each finished run of the folder and of the archive is
      one of it.
    - No commit of any branch has another result of a run, in an archive or as a file.
    - Each run's commit is in the repository and older than the run, and the code was not changed
      when the run started. No run is in the future.
    - Each prediction's commit has the same sentence about the same runs, but for runs that the
      study says it left out and that no commit has. It is older than the first evaluation that
      tests it, the commits of all runs that test it follow it, and it follows no commit with their
      results. No prediction of these commits is gone, unless the study says that it is withdrawn.

    Returns:
        A line per check, and the number of checks that failed.
    """
    file = study_file(results, plan)
    assert file, "the paper's studies have no predictions"
    checks = [*_files(plan, statuses, results)]
    try:
        history = History(file.resolve().parent)
        study_of = _Then(history, plan, study)
        done = {run_id: status.result for run_id, status in statuses.items() if status.result}
        checks += [
            *history.whole(),
            study_of.planned(),
            *_archive(history, plan, done, results),
            *_commits(history, done),
            *(_prediction(study_of, one, done) for one in study.predictions),
            *study_of.gone(),
        ]
    except Doubt as why:
        checks.append((False, str(why)))
    lines = [f"{'ok' if passes else 'FAILED'}: {line}" for passes, line in checks]
    return lines, sum(not passes for passes, _ in checks)


def _files(plan: Plan, statuses: Mapping[str, RunStatus], results: Path) -> Iterator[Check]:
    done = sum(status.state == "finished" for status in statuses.values())
    line = f"{done} of {len(statuses)} runs are finished and agree with their files"
    yield bool(statuses) and done == len(statuses), line
    for status in statuses.values():
        if status.state == "altered":
            yield False, status.why
    for folder in unwanted(plan, results):
        without = f"`mgm pack {results.name} --without {folder.name}`"
        yield False, f"{folder}: is no run of this study; delete it, and {without} if it is packed"


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


def _archive(
    history: History, plan: Plan, done: Mapping[str, Any], results: Path
) -> Iterator[Check]:
    """Compare the results with the archive in the last commit, and with all of history."""
    name = results.name
    path = os.path.relpath(results.resolve().with_name(name + ENDING), history.root)
    archived = history.results_at("HEAD", path)
    ours = {
        run_id: result
        for run_id in done
        for result in results_in((results / run_id / "result.json").read_bytes(), False).values()
    }
    differ = sorted(run_id for run_id in done if archived.get(run_id) != ours[run_id])
    advice = f"; `mgm pack {name}` and commit {path}" if differ else ""
    if again := [run_id for run_id in differ if run_id in archived]:
        without = " ".join(f"--without {run_id}" for run_id in again[:3])
        advice = f"; {len(again)} differ: `mgm pack {name} {without}`, then `mgm pack {name}`"
    line = f"{len(done) - len(differ)} of {len(done)} results are as in the committed archive"
    yield not differ, line + advice
    if strangers := sorted(archived.keys() - plan.specs.keys()):
        line = f"{len(strangers)} archived runs are no runs of this study, such as {strangers[0]}"
        yield False, f"{line}; `mgm pack {name} --without {strangers[0]}` leaves one out"
    for run_id in sorted(ours):
        held = history.held.get(run_id, {})
        if other := [where for numbers, where in held.items() if numbers != ours[run_id].numbers]:
            line = f"{run_id}: has other numbers in {other[0]}, in an older commit or a branch"
            yield False, line
            break


def _commits(history: History, done: Mapping[str, Any]) -> Iterator[Check]:
    groups = defaultdict[tuple[str, bool], list[Mapping[str, Any]]](list)
    for result in done.values():
        groups[result["commit"], result["dirty"]].append(result)
    for (commit, dirty), results in sorted(groups.items()):
        line = f"{len(results)} runs of commit {commit[:7]}"
        if (written := history.date(commit)) is None:
            yield False, f"{line}, which this repository lacks, such as {results[0]['run_id']}"
            continue
        now = datetime.now(UTC)
        faults = {
            "the code had changes that were not committed": results if dirty else [],
            "started before it": [r for r in results if _time(r["started"]) < written],
            "are in the future": [r for r in results if _time(r["finished"]) > now],
        }
        text = "; ".join(
            f"{len(runs)} {fault}, such as {runs[0]['run_id']}"
            for fault, runs in faults.items()
            if runs
        )
        yield not text, f"{line}, {text or 'clean'}"


def _prediction(then: "_Then", one: Prediction, done: Mapping[str, Any]) -> Check:
    text = f"{one.dataset}: {one.says}"
    history = then.history
    try:
        written = then.written(one)
    except Doubt as why:
        return False, f"{text}: {why}"
    units = [
        [done[cell.run_id] for cell in unit]
        for unit in _units(then.plan.cells, then.study, one)
        if all(cell.run_id in done for cell in unit)
    ]
    before = history.runs_until(one.since)
    for unit in units:
        # A difference is tested once both of its runs are there.
        new = (r for r in unit if history.follows(r["commit"], one.since))
        if all(result["run_id"] in before for result in new):
            return False, f"{text}: {unit[-1]['run_id']} did not follow commit {one.since}"
    if not units:
        return True, f"{text}: of {written:%Y-%m-%d %H:%M}, not tested"
    tested = min(max(_time(run["started"]) for run in unit) for unit in units)
    minutes = (tested - written).total_seconds() / 60
    when = "before" if minutes > 0 else "AFTER"
    return minutes > 0, f"{text}: {abs(minutes):.0f} min {when} its first test"


def _tested(cells: Sequence[Cell], study: Study, one: Prediction) -> list[list[Cell]]:
    """Return the cells that test a prediction, per term of its formula."""
    first = one.column or next(iter(study.columns))
    return [
        [
            cell
            for cell in cells
            if cell.study == study.study
            and cell.dataset in study.datasets_of(one.dataset)
            and (cell.row, cell.column) == (term.row, term.column or first)
            and (not one.draws or cell.draw in one.draws)
            and (not one.seeds or cell.seed in one.seeds)
        ]
        for term in one.statement.formula.terms
    ]


def _units(cells: Sequence[Cell], study: Study, one: Prediction) -> list[list[Cell]]:
    """Return the cells of each sampling unit that has all terms of a prediction.

    Controls count only if it is about controls alone: they may be measured at any time.
    """
    terms = _tested(cells, study, one)
    terms = [term for term in terms if not all(cell.control for cell in term)] or terms
    units = defaultdict[tuple[int, int], list[Cell]](list)
    for cell in (cell for term in terms for cell in term):
        units[cell.draw, cell.seed].append(cell)
    return [unit for unit in units.values() if len(unit) == len(terms)]


def _runs(cells: Sequence[Cell], study: Study, one: Prediction) -> Runs:
    terms = _tested(cells, study, one)
    return [{(cell.run_id, cell.metric): cell for cell in term} for term in terms]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


class _Then:
    """A study as commits have it, next to the study of today."""

    def __init__(self, history: History, plan: Plan, study: Study):
        self.history, self.plan, self.study = history, plan, study
        specs = plan.specs.values()
        digests = {spec.data.dataset: spec.data.digest for spec in specs}
        groups = {one.data.dataset for one in specs if getattr(one, "held_out", "") == "groups"}
        self.known = {
            name: Dataset(root=name, digest=digest, grouped=name in groups)
            for name, digest in digests.items()
        }

    def planned(self) -> Check:
        """Check that the plan is what the study expands to, with today's code."""
        starts = {cell.row: cell.pretraining for cell in self.plan.cells if cell.pretraining}
        weights = {row.weights: starts.get(name, "") for name, row in self.study.rows.items()}
        name = self.study.scale
        try:
            scale = load_scale(file_of(name, CONFIG)) if name else UNSCALED
            datasets = datasets_of([self.study], scale, self.known)
            cells = expand([self.study], scale, datasets, weights).cells
        except UserError as error:
            return False, f"the study cannot be expanded: {error}"
        now, then = (
            {(c.dataset, c.draw, c.seed, c.row, c.column, c.metric, c.run_id) for c in part}
            for part in (cells, self.plan.cells)
        )
        line = f"{len(now & then)} of {len(now | then)} numbers of the study are those of its plan"
        return now == then, line

    def written(self, one: Prediction) -> datetime:
        """Return when a prediction was committed.

        Raises:
            Doubt: it was not committed, in other words, or about other runs.
        """
        if not one.since:
            raise Doubt("not committed; write `since: HASH` once a commit has it")
        if not re.fullmatch("[0-9a-f]{7,40}", one.since):
            raise Doubt(f"since {one.since!r} is not the hash of a commit (7 to 40 hex digits)")
        if (written := self.history.date(one.since)) is None:
            raise Doubt(f"commit {one.since} is not in this repository")
        now, why = _runs(self.plan.cells, self.study, one), "has no such prediction"
        for fields, other in self._predictions(one.since):
            # A dataset keeps its name in its study.
            own = fields.get("study") == self.study.study
            if _said(other, own) != _said(one, own):
                continue
            try:
                then, study = self._runs_then(one.since, fields, other)
            except UserError as error:
                why = f"has it in a study that cannot be read ({error})"
                continue
            if (study.unit, study.complete) != (self.study.unit, self.study.complete):
                why = "has it with another unit"
                continue
            lost = [
                cell
                for old, new in zip(then, now, strict=True)
                for key, cell in old.items()
                if key not in new and not self._left_out(cell, one.dataset)
            ]
            if all(then) and not lost:
                return written
            why = "has it about other runs"
            if lost:
                at = f"draw {lost[0].draw}, " if lost[0].draw >= 0 else ""
                why += f", such as {lost[0].row}, {lost[0].column}, {at}seed {lost[0].seed}"
        raise Doubt(f"commit {one.since} {why}")

    def _left_out(self, cell: Cell, dataset: str) -> bool:
        at = At(dataset, cell.draw, cell.seed, cell.row, cell.column)
        declared = any(at in only for only in self.study.left_out)
        return declared and cell.run_id not in self.history.held

    def gone(self) -> Iterator[Check]:
        """Report predictions of the same commits and study that today's study lacks."""
        ours = {_said(one) for one in (*self.study.predictions, *self.study.withdrawn)}
        today = {(cell.run_id, cell.metric) for cell in self.plan.cells}
        for since in dict.fromkeys(one.since for one in self.study.predictions):
            for fields, other in self._predictions(since):
                if fields.get("study") != self.study.study or _said(other) in ours:
                    continue
                only = other.model_dump(include={"column", "draws", "seeds"}, exclude_defaults=True)
                text = f"{other.dataset}: {other.says} {only or ''}: of commit {since}, and gone"
                try:
                    then, _ = self._runs_then(since, fields, other)
                except UserError:
                    yield True, f"{text} with rows or columns that no longer exist"
                    continue
                kept = any(runs.keys() & today for runs in then)
                yield not kept, f"{text}, {'though' if kept else 'as'} its runs are"

    def _predictions(self, since: str) -> Iterator[tuple[Mapping[str, Any], Prediction]]:
        """Yield the predictions of a commit, each with the fields of its study."""
        studies, translated = self.history.studies(since), False
        prose = not any(fields.get("predictions") for fields in studies)
        if prose and self.history.follows(TRANSLATED, since):
            studies, translated = self.history.studies(TRANSLATED), True
        for fields in studies:
            for other in _listed(fields.get("predictions")):
                try:
                    one = Prediction.model_validate(
                        {key: other[key] for key in PREDICTION if key in other}
                    )
                    _ = one.statement
                except ValueError:
                    continue
                if not translated or (one.since and since.startswith(one.since)):
                    yield fields, one

    def _runs_then(
        self, since: str, fields: Mapping[str, Any], one: Prediction
    ) -> tuple[Runs, Study]:
        """Expand the part of a commit's study that a prediction is about, with today's code.

        Raises:
            UserError: it cannot be expanded.
        """
        source = f"commit {since}: study {fields.get('study')}"
        try:
            part = _part(fields, one)
            study = parse_study(part, source, lambda name: self.history.study(since, name))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{source}: {error!r}") from None
        scale = self.history.scale(since, study.scale)
        plan = expand([study], scale, datasets_of([study], scale, self.known))
        return _runs(plan.cells, study, one), study


def _part(fields: Mapping[str, Any], one: Prediction) -> dict[str, Any]:
    """Return the fields of a study that a prediction is about: its dataset, rows and columns."""
    places, rows, columns = (dict(fields[name]) for name in ("datasets", "rows", "columns"))
    first = one.column or next(iter(columns))
    terms = one.statement.formula.terms
    used = {term.column or first for term in terms}
    named = {term.row for term in terms if term.row not in CONTROLS}
    # Controls have the videos and clips of a row.
    named = named or {next((name for name in rows if rows[name] != "none"), next(iter(rows)))}
    while more := {str(_field(rows.get(name), "from")) for name in named} & rows.keys() - named:
        named |= more
    place = dict(places[one.dataset])
    datasets = {one.dataset, place.get("pretrained_on"), place.get("videos_of")} & places.keys()
    kept: dict[str, Collection[Any]] = {"datasets": datasets, "rows": named, "columns": used}
    stages = {_field(columns[name], "stage") or "probe" for name in used}
    stages |= {"pretrain"} if any(rows[name] != "none" for name in named) else set()
    own = {
        name: {key: _only(value, kept) for key, value in whole.items() if key in kept[name]}
        for name, whole in (("datasets", places), ("rows", rows), ("columns", columns))
    }
    for name in datasets - {one.dataset}:
        own["datasets"][name] = {**own["datasets"][name], "tested": False}
    stages |= {"finetune"} if any(_field(rows[name], "then") for name in named) else set()
    settings = {k: v for k, v in (fields.get("settings") or {}).items() if k in stages}
    same = ("study", "question", "scale", "epochs", "backbone", "draws", "seeds")
    return {
        **{name: fields[name] for name in (*same, "unit", "complete") if name in fields},
        **own,
        "settings": settings,
        "controls": [name for name in used if name in (fields.get("controls") or ())],
    }


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _only(value: Any, kept: Mapping[str, Collection[Any]]) -> Any:
    """Return a row or a column whose `only` names what is kept alone."""
    if not isinstance(value, dict) or not isinstance(only := value.get("only"), dict):
        return value
    names = {name: [one for one in only[name] if one in kept[name]] for name in kept.keys() & only}
    if empty := [name for name in names if only[name] and not names[name]]:
        raise KeyError(f"only.{empty[0]}")
    return {**value, "only": {**only, **names}}


def _said(one: Prediction, dataset: bool = True) -> tuple[Any, ...]:
    """Return what a prediction says, without its commit."""
    return tuple(one.model_dump(exclude={"since"} if dataset else {"since", "dataset"}).values())


def _listed(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
