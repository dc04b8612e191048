"""`mgm verify` believes a prediction that a commit has before its runs, and no other."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mgm.cli import app
from mgm.report.verify import verify
from mgm.results.archive import pack
from mgm.results.result import RunStatus
from mgm.study.schema import Study
from tests.helpers.fake_results import finish_all, suite
from tests.helpers.plans import plan_of
from tests.report.test_estimates import findings
from tests.study.test_study import SMALL

ONE = {"in": "a", "says": "MGM minus Tube above 0"}
FIELDS = SMALL | {"datasets": {"a": {"generate": {}}, "b": {"generate": {"sprites": 1}}}}


def day(number: int) -> str:
    return f"2020-01-{number:02}T00:00:00+00:00"


def git(root: Path, *words: str, on: int = 1) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "GIT_COMMITTER_DATE": day(on)}
    command = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    return done.stdout.strip()


class Clone:
    """A repository with a study that was predicted on day 2, ran on day 3 and was packed on day 4.

    Attributes:
        fields: those of the study's file as it is now.
        runs: fields of each result, by run id.
    """

    def __init__(self, root: Path):
        self.root, self.results = root, root / "results" / "small"
        self.fields = FIELDS | {"predictions": [ONE]}
        (root / "studies").mkdir()
        git(root, "init", "--quiet")
        self.since = self.commit(2)
        self.fields["predictions"] = [ONE | {"since": self.since[:8]}]
        found = findings(Study.model_validate(self.fields))
        times = {"started": day(3), "commit": self.since}
        self.runs = {
            run_id: (found.statuses[run_id].result or {"metrics": {}}) | times | {"run_id": run_id}
            for run_id in found.plan.specs
        }
        self.plan = found.plan
        self.pack()

    def commit(self, on: int, name: str = "small") -> str:
        (self.root / "studies" / f"{name}.yaml").write_text(yaml.safe_dump(self.fields))
        git(self.root, "add", "--all")
        git(self.root, "commit", "--quiet", "--allow-empty", "--message", "x", on=on)
        return git(self.root, "rev-parse", "HEAD")

    def pack(self) -> None:
        self.write()
        # Archived runs stay as they are.
        (self.results.parent / "small.tar.xz").unlink(missing_ok=True)
        pack(self.results, self.runs)
        self.commit(4)

    def write(self) -> None:
        for run_id, result in self.runs.items():
            (self.results / run_id).mkdir(parents=True, exist_ok=True)
            (self.results / run_id / "result.json").write_text(json.dumps(result))

    def run_of(self, row: str) -> str:
        """Return the run of the first draw of a row."""
        (run_id,) = {
            cell.run_id
            for cell in self.plan.cells
            if (cell.dataset, cell.row, cell.column, cell.dataset_seed) == ("a", row, "Linear", 5)
        }
        return run_id

    def checks(self) -> list[tuple[bool, str]]:
        self.write()
        study = Study.model_validate(self.fields)
        file = os.path.relpath(self.root / "studies" / "small.yaml", self.results)
        plan = replace(plan_of(study), name=study.study, file=file)
        statuses = {
            run_id: RunStatus("finished", result=self.runs[run_id])
            if run_id in self.runs
            else RunStatus("not run")
            for run_id in plan.specs
        }
        return verify(plan, [study], statuses, self.results)

    def failed(self) -> list[str]:
        return [line for passes, line in self.checks() if not passes]


@pytest.fixture
def clone(tmp_path) -> Clone:
    return Clone(tmp_path)


def test_a_prediction_before_its_runs_is_believed(clone):
    assert clone.failed() == []


@pytest.mark.parametrize("since", ["", "HEAD", "--output=here", "0" * 40, "abc"])
def test_a_prediction_without_a_known_commit_fails(clone, since):
    clone.fields["predictions"] = [ONE | {"since": since}]
    (line,) = clone.failed()
    assert ONE["says"] in line


@pytest.mark.parametrize(
    "change",
    [
        {"says": "MGM minus Tube above 1"},
        {"in": "b"},
        {"column": "k-NN", "says": "MGM above 0"},
        {"dataset_seeds": 5},
    ],
)
def test_another_sentence_is_not_the_one_that_was_committed(clone, change):
    clone.fields["predictions"] = [ONE | change | {"since": clone.since[:8]}]
    (line,) = clone.failed()
    assert f"commit {clone.since[:8]}" in line


def test_a_prediction_that_came_from_another_study_is_believed(clone):
    fields = clone.fields
    clone.fields = FIELDS | {"study": "older", "predictions": [ONE | {"in": "b"}]}
    since = clone.commit(2, "older")
    for result in clone.runs.values():
        result["commit"] = since
    clone.pack()
    clone.fields = fields | {"predictions": [ONE | {"since": since[:8]}]}
    clone.commit(4)
    assert clone.failed() == []


def test_one_of_two_runs_may_be_older_and_not_both(clone):
    clone.runs[clone.run_of("Tube")]["started"] = day(1)
    clone.pack()
    assert clone.failed() == []
    (line,) = [line for _, line in clone.checks() if ONE["says"] in line]
    assert "in 1, one of the runs was known" in line
    clone.runs[clone.run_of("MGM")]["started"] = day(1)
    clone.pack()
    (line,) = clone.failed()
    assert ONE["says"] in line


def test_runs_of_a_commit_that_does_not_follow_fail(clone):
    git(clone.root, "checkout", "--quiet", "--orphan", "other")
    other = clone.commit(3)
    clone.runs[clone.run_of("MGM")]["commit"] = other
    clone.pack()
    (line,) = clone.failed()
    assert clone.run_of("MGM") in line


def test_numbers_that_differ_from_the_committed_archive_and_missing_runs_fail(clone):
    run_id = clone.run_of("MGM")
    clone.runs[run_id] |= {"metrics": {"top1": 99.0}}
    assert any("committed archive" in line for line in clone.failed())
    del clone.runs[run_id]
    (line,) = clone.failed()
    assert "committed archive" in line


def test_a_folder_without_git_and_variables_of_another_repository(clone, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    assert clone.failed() == []
    (clone.root / ".git").rename(clone.root / "no-git")
    assert any("committed archive" in line for line in clone.failed())


def test_the_papers_results_are_verified_with_their_weights(tmp_path):
    folder = tmp_path / "results" / "smoke"
    plan = suite(seeds=(0,))
    finish_all(folder, plan, steps=2)
    plan.write(folder)

    def verified() -> str:
        words = ["verify", "smoke", "--results", str(folder.parent)]
        return CliRunner().invoke(app, words).output

    git(tmp_path, "init", "--quiet")
    assert (
        CliRunner().invoke(app, ["pack", "smoke", "--results", str(folder.parent)]).exit_code == 0
    )
    git(tmp_path, "add", "results/smoke.tar.xz")
    git(tmp_path, "commit", "--quiet", "--message", "x")
    weights = next(folder.glob("pretrain-*")) / "weights.safetensors"
    weights.write_bytes(b"weights")
    assert "FAILED" not in verified()
    weights.write_bytes(b"weightt")
    assert "weights.safetensors" in verified()
