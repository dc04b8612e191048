"""Attempts to make `mgm verify` believe a prediction that was made after its runs."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mgm.data.folder import index_folder
from mgm.report.verify import verify
from mgm.results.archive import pack
from mgm.results.plan import Plan
from mgm.results.result import RunStatus
from mgm.study import CONFIG
from mgm.study.schema import Study
from tests.helpers.own_videos import own_videos
from tests.helpers.plans import plan_of
from tests.report.test_findings import findings
from tests.study.test_study import SMALL

ONE = {"in": "a", "says": "MGM minus Tube above 0"}
FIELDS = SMALL | {"datasets": {"a": {"generate": {}}, "b": {"generate": {"sprites": 1}}}}


class Clone:
    """A repository with a study that was predicted on day 2, ran on day 3 and was packed on day 4.

    Attributes:
        fields: those of the study's file as it is now.
        runs: fields of each result, by run id.
    """

    def __init__(self, root: Path):
        self.root, self.results = root, root / "results" / "small"
        self.file = root / "studies" / "small.yaml"
        self.file.parent.mkdir(parents=True)
        self.git("init", "--quiet")
        self.fields = FIELDS | {"predictions": [ONE]}
        self.since = self.commit(2)
        self.fields["predictions"] = [ONE | {"since": self.since}]
        found = findings(Study.model_validate(self.fields))
        times = {"started": day(3), "finished": day(3), "commit": self.since, "dirty": False}
        # Pretraining runs have no number.
        self.runs = {
            run_id: (found.statuses[run_id].result or {"metrics": {}}) | times | {"run_id": run_id}
            for run_id in found.plan.specs
        }
        self.pack(4)

    def git(self, *words: str, on: int = 1) -> str:
        command = ["git", "-C", str(self.root), "-c", "user.name=a", "-c", "user.email=a@b.c"]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.root)} | {
            "GIT_COMMITTER_DATE": day(on),
            "GIT_AUTHOR_DATE": day(on),
        }
        done = subprocess.run(
            [*command, *words], capture_output=True, text=True, env=env, check=True
        )
        return done.stdout.strip()

    def commit(self, on: int) -> str:
        """Commit the study and everything else on a day of January 2020. Return the hash."""
        self.file.write_text(yaml.safe_dump(self.fields, sort_keys=False))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "x", on=on)
        return self.git("rev-parse", "HEAD")

    def write(self) -> None:
        for run_id, result in self.runs.items():
            (self.results / run_id).mkdir(parents=True, exist_ok=True)
            (self.results / run_id / "result.json").write_text(json.dumps(result))

    def pack(self, on: int, without=()) -> str:
        self.write()
        pack(self.results, self.runs.keys() - {*without}, without)
        self.git("add", "results/small.tar.xz", "results/SHA256SUMS")
        return self.commit(on)

    def predict(self, on: int = 5, **fields: str) -> str:
        """Commit a prediction, with all numbers known. Return the hash."""
        self.fields["predictions"] = [ONE | fields]
        since = self.commit(on)
        self.fields["predictions"] = [ONE | fields | {"since": since}]
        return since

    def forge(self, since: str) -> None:
        """Write other dates and commits into the results."""
        later = {"started": day(6), "finished": day(6), "commit": since}
        self.runs = {run_id: result | later for run_id, result in self.runs.items()}

    def failed(self) -> list[str]:
        self.write()
        study = Study.model_validate(self.fields)
        file = os.path.relpath(self.file, self.results)
        plan = replace(plan_of(study), name=study.study, file=file)
        absent = RunStatus("not run")
        statuses = {
            run_id: RunStatus("finished", result=self.runs[run_id])
            if run_id in self.runs
            else absent
            for run_id in plan.specs
        }
        lines, count = verify(plan, study, statuses, self.results)
        failed = [line for line in lines if line.startswith("FAILED")]
        assert len(failed) == count
        return failed


def day(number: int) -> str:
    return f"2020-01-{number:02}T00:00:00+00:00"


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clone") / "clone"
    Clone(root)
    return root


@pytest.fixture
def clone(original, tmp_path) -> Clone:
    copy = Clone.__new__(Clone)
    shutil.copytree(original, tmp_path / "clone")
    copy.root, copy.results = tmp_path / "clone", tmp_path / "clone" / "results" / "small"
    copy.file = copy.root / "studies" / "small.yaml"
    copy.since = copy.git("rev-list", "--max-parents=0", "HEAD")
    copy.fields = FIELDS | {"predictions": [ONE | {"since": copy.since}]}
    copy.runs = {
        path.parent.name: json.loads(path.read_text())
        for path in copy.results.glob("*/result.json")
    }
    return copy


def test_a_prediction_before_its_runs_is_believed(clone):
    assert clone.failed() == []
    clone.fields["predictions"] = [ONE | {"since": clone.since[:7]}]
    assert clone.failed() == []


@pytest.mark.parametrize(
    "since", ["", "HEAD", "main", "--output=here", "-x", "HEAD~1", "0" * 40, "abc", "@{1}"]
)
def test_only_the_hash_of_a_commit_is_a_date(clone, since):
    clone.git("branch", "--move", "main")
    clone.fields["predictions"] = [ONE | {"since": since}]
    (line,) = clone.failed()
    assert ONE["says"] in line
    assert not (clone.root / "here").exists()


def test_a_branch_with_the_name_of_a_hash_is_no_commit(clone):
    clone.git("branch", "deadbee", clone.since)
    clone.fields["predictions"] = [ONE | {"since": "deadbee"}]
    assert len(clone.failed()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"says": "MGM minus Tube above -30"},
        {"says": "MGM minus Tube below 0"},
        {"says": "MGM above 0"},
        {"in": "b"},
        {"draws": "5"},
        {"seeds": "5"},
        {"strict": True},
    ],
)
def test_another_sentence_is_not_the_one_that_was_committed(clone, change):
    clone.fields["predictions"] = [ONE | {"since": clone.since} | change]
    other, gone = clone.failed()
    assert "has no such prediction" in other
    # The sentence of the commit is reported too.
    assert "gone, though its runs are" in gone
    clone.fields["withdrawn"] = [ONE | {"since": clone.since}]
    assert clone.failed() == [other]


@pytest.mark.parametrize(
    "change",
    [
        {"rows": SMALL["rows"] | {"Tube": {}, "MGM": {"mask": "tube"}}},
        {"datasets": {"a": {"generate": {"sprites": 1}}, "b": {"generate": {}}}},
        {"columns": {"Linear": {"kind": "knn"}, "k-NN": {}}},
        {"unit": "runs"},
        {"complete": False},
        {"settings": {"probe": {"label_draws": 3}}},
        {"epochs": 100},
    ],
)
def test_another_meaning_of_its_names_is_not_the_one_that_was_committed(clone, change):
    clone.fields |= change
    assert any(ONE["says"] in line for line in clone.failed())


def test_a_prediction_committed_after_its_runs_fails(clone):
    clone.predict()
    (line,) = clone.failed()
    assert "did not follow" in line


def test_a_commit_with_an_old_date_does_not_help(clone):
    """It is not among the ancestors of the runs' commit."""
    clone.predict(on=1)
    assert len(clone.failed()) == 1


@pytest.mark.parametrize("packed", ["no", "yes", "archive deleted first"])
def test_results_with_other_dates_do_not_help(clone, packed):
    """Not in the folder, and not in an archive that is committed later."""
    if packed == "archive deleted first":
        clone.git("rm", "--quiet", "results/small.tar.xz")
        clone.commit(5)
    clone.forge(clone.predict())
    if packed != "no":
        runs = set(clone.runs)
        (clone.root / "results" / "small.tar.xz").unlink(missing_ok=True)
        (clone.root / "results" / "SHA256SUMS").unlink(missing_ok=True)
        clone.pack(7)
        assert set(clone.runs) == runs
    word = "committed archive" if packed == "no" else "did not follow"
    assert any(word in line for line in clone.failed())


def test_a_study_of_another_name_with_the_same_runs_does_not_help(clone):
    """Their results are in the archive of the first study, also if it was deleted."""
    (clone.root / "results" / "small.tar.xz").unlink()
    clone.commit(5)
    clone.fields["study"] = "other"
    clone.results = clone.results.with_name("other")
    clone.forge(clone.predict(on=6))
    clone.write()
    pack(clone.results, clone.runs)
    clone.git("add", "--all")
    clone.git("commit", "--quiet", "--message", "x", on=7)
    assert any("did not follow" in line for line in clone.failed())


def test_another_repository_by_a_variable_does_not_help(clone, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert clone.failed() == []


def test_a_number_that_is_not_in_the_committed_archive_fails(clone):
    run_id = min(clone.runs)
    clone.runs[run_id] |= {"metrics": {"top1": 99.0}, "files": {}}
    first, second = clone.failed()
    assert f"1 differ: `mgm pack small --without {run_id}`" in first
    assert f"{run_id}: has other numbers in results/small.tar.xz" in second


def test_missing_runs_fail(clone):
    shutil.rmtree(clone.results / (gone := min(clone.runs)))
    del clone.runs[gone]
    assert "of" in clone.failed()[0]
    shutil.rmtree(clone.results)
    clone.runs = {}
    assert any(line.startswith("FAILED: 0 of ") for line in clone.failed())


def test_runs_that_are_left_out_of_the_study_fail(clone):
    clone.fields["draws"] = "5"
    assert any("archived runs are no runs of this study" in line for line in clone.failed())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"started": day(1), "finished": day(1)}, "started before it"),
        ({"finished": "2999-01-01T00:00:00+00:00"}, "in the future"),
        ({"dirty": True}, "not committed"),
        ({"commit": "0" * 40}, "lacks"),
        ({"commit": ""}, "lacks"),
    ],
)
def test_runs_without_a_believable_commit_or_date_fail(clone, change, word):
    clone.runs = {run_id: result | change for run_id, result in clone.runs.items()}
    assert any(word in line for line in clone.failed())


def test_a_shallow_clone_says_so_in_one_line_and_checks_the_rest(clone, tmp_path):
    clone.commit(5)
    address = clone.root.as_uri()
    subprocess.run(
        ["git", "clone", "--quiet", "--depth=1", address, str(tmp_path / "shallow")], check=True
    )
    clone.root, clone.file = tmp_path / "shallow", tmp_path / "shallow" / "studies" / "small.yaml"
    clone.results = clone.root / "results" / "small"
    (line,) = [line for line in clone.failed() if "fetch" in line]
    assert "git fetch --unshallow" in line
    assert not any("archive" in line for line in clone.failed())
    clone.runs[min(clone.runs)] |= {"n_test": 11}
    assert any("archive" in line for line in clone.failed())


def test_a_folder_without_git_fails(clone):
    shutil.rmtree(clone.root / ".git")
    assert any("git repository" in line for line in clone.failed())


def forge_numbers(clone: Clone) -> None:
    """Give every result another accuracy."""
    for result in clone.runs.values():
        result["metrics"] = dict.fromkeys(result["metrics"], 99.0)


@pytest.mark.parametrize("kept", ["archive", "branch", "folder", "another path"])
def test_numbers_that_history_has_otherwise_are_not_believed(clone, kept):
    """Edited results are packed anew, and committed with the archive's digest."""
    place = clone.root / "results" / "small.tar.xz"
    if kept in ("branch", "folder"):
        clone.git("branch", "side")
        clone.git("reset", "--quiet", "--hard", clone.since)
    if kept == "folder":
        clone.git("branch", "--delete", "--force", "side")
        run_id = next(run_id for run_id in clone.runs if run_id.startswith("probe"))
        other = clone.root / "notes" / "a"
        other.mkdir(parents=True)
        (other / "result.json").write_text(json.dumps(clone.runs[run_id]))
        clone.commit(4)
    if kept == "another path":
        clone.git("mv", "results/small.tar.xz", "x.tar.xz")
        clone.commit(5)
    forge_numbers(clone)
    for path in (place, place.with_name("SHA256SUMS")):
        path.unlink(missing_ok=True)
    clone.pack(7)
    assert any("has other numbers in" in line for line in clone.failed())


def test_draws_that_were_predicted_and_dropped_are_missed(clone):
    clone.fields["draws"] = "5"
    lines = [line for line in clone.failed() if ONE["says"] in line]
    assert len(lines) == 1
    assert "about other runs, such as MGM, Linear, draw 6" in lines[0]
    # What a commit has did run.
    clone.fields["left_out"] = [{"draws": "6"}]
    assert lines[0] in clone.failed()


def test_draws_that_never_ran_can_be_left_out(clone):
    clone.fields |= {"draws": "5-7", "predictions": [ONE]}
    since = clone.commit(2)
    clone.fields |= {"draws": "5-6", "predictions": [ONE | {"since": since}]}
    clone.runs = {name: run | {"commit": since} for name, run in clone.runs.items()}
    assert any("draw 7" in line for line in clone.failed())
    clone.fields["left_out"] = [{"draws": "7"}]
    assert not any("draw 7" in line for line in clone.failed())


@pytest.mark.parametrize("quote", [str, int])
def test_a_study_lies_anywhere_and_a_hash_may_be_digits_alone(clone, monkeypatch, quote):
    (clone.root / "mine").mkdir()
    clone.git("mv", "studies/small.yaml", "mine/ours.yaml")
    clone.file = clone.root / "mine" / "ours.yaml"
    clone.commit(5)
    assert clone.failed() == []
    digits = Study.model_validate(clone.fields | {"predictions": [ONE | {"since": quote(1234567)}]})
    assert digits.predictions[0].since == "1234567"
    with pytest.raises(ValueError, match="quote it"):
        Study.model_validate(clone.fields | {"predictions": [ONE | {"since": 12e5}]})


def test_a_scale_of_ones_own_is_that_of_the_commit(clone, monkeypatch):
    """Another number of steps under the same sentence makes other runs."""
    monkeypatch.chdir(clone.root)
    scale = yaml.safe_load((CONFIG / "mini.yaml").read_text())
    (clone.root / "scale.yaml").write_text(yaml.safe_dump(scale))
    clone.fields |= {"scale": "scale.yaml", "predictions": [ONE]}
    scale["steps"]["factor"] = 9
    since = clone.commit(2)
    (clone.root / "scale.yaml").write_text(yaml.safe_dump(scale))
    clone.fields["predictions"] = [ONE | {"since": since}]
    assert any("about other runs" in line for line in clone.failed())


# CI runs the slow tests as root.
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_checkout_of_another_user_is_named_by_gits_own_sentence(clone, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in (clone.root, clone.root / ".git"):
        os.chown(place, 12345, 12345)
    (line,) = clone.failed()
    assert "dubious ownership" in line


@pytest.mark.parametrize(
    "text",
    ["predictions: 2026-13-45", "predictions: " + "[" * 5000, "a: &a [*a]\npredictions: 1", "\xff"],
)
def test_old_files_that_cannot_be_read_are_passed_over(clone, text):
    (clone.root / "old.yaml").write_bytes(text.encode("latin-1"))
    (clone.root / "old.tar.xz").write_bytes(text.encode("latin-1"))
    (clone.root / "result.json").write_bytes(text.encode("latin-1"))
    clone.commit(5)
    assert clone.failed() == []


CHAIN = {
    "Base": {"mask": "block"},
    "Middle": {"from": "Base", "optim.steps": 7},
    "Tube": {"mask": "tube"},
    "MGM": {"from": "Middle", "optim.steps": 9},
}
TUNED = {"stage": "finetune", "choose": {"optim.lr": [0.1, 0.2]}}
THEN = SMALL["rows"] | {"MGM": {"then": "finetune"}}
PLACE = {"root": "data/x", "digest": "0123456789ab", "recipe": "ssv2"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"rows": CHAIN}, {"rows": CHAIN | {"Base": {"mask": "smm"}}}),
        (
            {"columns": {"Linear": TUNED}},
            {"columns": {"Linear": TUNED | {"choose": {"optim.lr": [0.1, 0.3]}}}},
        ),
        (
            {"rows": THEN, "settings": {"finetune": {"layer_decay": 0.5}}},
            {"rows": THEN, "settings": {"finetune": {"layer_decay": 0.6}}},
        ),
        (
            {"datasets": {"a": PLACE | {"pretrained_on": "b"}, "b": PLACE}, "seeds": "5"},
            {
                "datasets": {"a": PLACE | {"pretrained_on": "b"}, "b": PLACE | {"digest": "1" * 12}},
                "seeds": "5",
            },
        ),
        (
            {"datasets": {"a": PLACE}, "seeds": "5"},
            {"datasets": {"a": PLACE | {"grouped": True}}, "seeds": "5"},
        ),
        (
            {"datasets": {"a": {"videos_of": "b"}, "b": PLACE}, "seeds": "5"},
            {"datasets": {"a": {"videos_of": "c"}, "b": PLACE, "c": PLACE | {"digest": "1" * 12}},
             "seeds": "5"},
        ),
        ({"seeds": "5-7"}, {"seeds": "5-6"}),
        ({}, {"settings": {"pretrain": {"optim.lr": 0.5}}}),
        ({}, {"columns": {"Linear": {"metric": "outside"}}}),
    ],
)  # fmt: skip
def test_the_same_sentence_about_other_runs_is_not_believed(clone, before, after):
    alone = {"controls": [], "compare": [], "columns": {"Linear": {}}}
    rows = {"Tube": {"mask": "tube"}, "MGM": {}}
    first = clone.fields | alone | {"rows": rows} | before | {"predictions": [ONE]}
    clone.fields = first
    since = clone.commit(2)
    clone.fields = first | {"predictions": [ONE | {"since": since}]}
    assert not any("about other runs" in line for line in clone.failed())
    clone.fields |= after
    assert any("about other runs" in line for line in clone.failed())


def test_a_commit_without_studies_is_not_that_of_a_prediction(clone):
    """Only the commits that this project's translated predictions name stand for prose."""
    clone.git("checkout", "--quiet", "--orphan", "empty")
    clone.git("rm", "-r", "--quiet", "--cached", ".")
    clone.git("commit", "--quiet", "--allow-empty", "--message", "x", on=1)
    since = clone.git("rev-parse", "HEAD")
    clone.fields["predictions"] = [ONE | {"since": since}]
    assert any("has no such prediction" in line for line in clone.failed())


def test_a_plan_that_is_not_that_of_its_study_fails(clone, monkeypatch):
    """Two rows are swapped in the plan alone."""
    swapped = {"MGM": "Tube", "Tube": "MGM"}

    def other(study: Study, planned=plan_of) -> Plan:
        plan = planned(study)
        cells = [cell._replace(row=swapped.get(cell.row, cell.row)) for cell in plan.cells]
        return replace(plan, cells=cells)

    monkeypatch.setitem(globals(), "plan_of", other)
    assert any("numbers of the study are those of its plan" in line for line in clone.failed())


def test_settings_of_another_study_are_those_of_the_commit(clone):
    """Also if that study predicts nothing."""
    other = clone.root / "studies" / "theirs.yaml"
    theirs = {"study": "theirs", "settings": {"pretrain": {"optim.steps": 50}}}
    clone.fields |= {"settings": {"pretrain": {"like": "theirs"}}, "predictions": [ONE]}
    other.write_text(yaml.safe_dump(theirs))
    since = clone.commit(2)
    for steps, believed in ((50, True), (60, False)):
        clone.fields |= {"settings": {"pretrain": {"optim.steps": steps}}}
        clone.fields["predictions"] = [ONE | {"since": since}]
        assert believed != any("about other runs" in line for line in clone.failed())
        assert not any("cannot be read" in line for line in clone.failed())


def test_a_study_is_verified_without_the_folder_of_its_videos(clone, tmp_path):
    """Also one whose groups only the folder's index names."""
    root = tmp_path / "own"
    index_folder(
        own_videos(tmp_path / "mine", tmp_path / "drawn", train=6, test=1), root, groups=r"\d$"
    )
    alone = {"draws": [], "seeds": "1", "rows": {"MGM": {}}, "compare": [], "predictions": []}
    study = Study.model_validate(
        FIELDS | alone | {"datasets": {"own": {"root": str(root), "recipe": "ssv2"}}}
    )
    file = os.path.relpath(clone.file, clone.results)
    plan = replace(plan_of(study), name=study.study, file=file)
    shutil.rmtree(root)
    lines, _ = verify(plan, study, {}, clone.results)
    assert any(
        line.startswith("ok") and "numbers of the study are those of its plan" in line
        for line in lines
    )
