"""The inputs and commands of jobs, and the GPUs that they get."""

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from mgm.dag.workflow import Workflow
from mgm.errors import UserError
from mgm.results.frozen import read_frozen
from mgm.spec import parents, parse
from mgm.study.expand import with_parents
from tests.helpers.errors import refused
from tests.helpers.fake_results import finish
from tests.helpers.programs import ROOT
from tests.helpers.tiny_study import tiny_study


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Return the workflow of a folder without results, where this module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        yield Workflow({})


def test_a_batch_needs_its_data_the_flow_that_it_follows_and_the_batches_of_its_parents(smoke):
    batch_of = {run: name for name, batch in smoke.batches.items() for run in batch}
    followed = set()
    for name, batch in smoke.batches.items():
        assert [spec.run_id for spec in smoke.makes(name)] == batch
        assert {name.split("-")[0]} == {spec.stage for spec in smoke.makes(name)}
        needed = smoke.needs(name)
        assert smoke.mark(name) not in needed
        flow = {getattr(getattr(spec, "mask", None), "guidance", "") for spec in smoke.makes(name)}
        wanted = "dis" in flow
        assert any(file.endswith("tracks-dis.json") for file in needed) == wanted
        followed.add(wanted)
        for spec in smoke.makes(name):
            marks = {smoke.mark(batch_of[parent]) for parent in parents(spec)}
            assert marks <= {*needed}
            assert f"{smoke.places[smoke.key(spec)]}/index.json" in needed
            # Alone, a run needs its parents alone.
            alone = {file for file in smoke.needs(spec.run_id) if file.endswith(".done")}
            assert alone == {*map(smoke.mark, parents(spec))}
    assert sorted(batch_of) == sorted(smoke.specs)
    assert followed == {True, False}


def test_a_call_makes_what_is_not_finished_and_parents_whose_weights_a_child_needs(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = tiny_study(tmp_path)
    first = Workflow({"study": str(path)}, "first")
    assert {*first.shows("all")} == {*map(first.mark, first.batches)}
    for spec in first.specs.values():
        folder = finish(first.results, spec)
        if spec.stage in ("pretrain", "finetune"):
            (folder / "weights.safetensors").touch()
    # What is to do does not change during a call.
    assert {*first.shows("all")} == {*map(first.mark, first.batches)}

    def lacking() -> set[str]:
        return Workflow({"study": str(path)}, "next").lacks

    assert lacking() == set()
    done = Workflow({"study": str(path)}, "next")
    newest = Path(done.results, next(iter(done.specs)), "spec.json")
    os.utime(newest, (2e9, 2e9))
    assert done.shows("all") == [str(newest)]
    assert not any(file.endswith(".done") for batch in done.batches for file in done.needs(batch))
    assert [len(study.whole("all")) for study in (first, done)] == [2, 1]
    child = next(spec for spec in done.specs.values() if getattr(spec, "parent", ""))
    for run_id in (child.parent, next(run for run in done.specs if run.startswith("finetune"))):
        Path(done.results, run_id, "weights.safetensors").unlink()
    # Nobody needs these weights.
    assert lacking() == set()
    result = Path(done.result(child.run_id))
    for damage in ("", result.read_text().replace(child.run_id, "probe-x")):
        result.write_text(damage)
        assert lacking() == {child.run_id, child.parent}
    again = Workflow({"study": str(path)}, "next")
    batch = next(name for name, batch in again.batches.items() if child.run_id in batch)
    assert again.mark(batch) in again.shows("all")
    assert any("pretrain-batch" in file for file in again.needs(batch))
    words = again.run(batch).split()
    made = [Path(word).stem for word in words if "/specs/" in word]
    assert made == [child.run_id]
    assert words[-2:] == ["--mark", again.mark(batch)]


def test_a_second_call_is_refused_while_the_first_works(tmp_path, monkeypatch):
    """It names the process, and changes nothing."""
    monkeypatch.chdir(tmp_path)
    path = tiny_study(tmp_path)
    first, second = (Workflow({"study": str(path)}, call) for call in ("first", "second"))
    first.start([])
    mark = Path(first.mark("pretrain-batch-1"))
    mark.parent.mkdir(parents=True)
    mark.touch()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    with refused(f"tiny: process {os.getpid()} on", "works on it"):
        second.start([])
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
    del first
    second.start([])
    assert not mark.exists()


def test_a_table_has_its_runs_and_all_has_every_run(smoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {*smoke.shows("all")} == {*map(smoke.mark, smoke.batches)}
    assert smoke.pages["table4e"] == "reports/smoke/tables/table4e.csv"
    assert smoke.pages["figure5"] == "reports/smoke/figures/figure5.png"
    assert smoke.pages.keys() == smoke.expansion.targets.keys()
    assert {*smoke.shows("table4e")} < {*smoke.shows("all")}


def test_a_table_makes_no_run_of_others(smoke):
    for run_ids in smoke.expansion.targets.values():
        wanted = {spec.run_id for spec in with_parents(smoke.specs, run_ids)}
        for batch in smoke.batches.values():
            assert {*batch} <= wanted or wanted.isdisjoint(batch)


def test_commands_name_each_dataset_and_its_folder():
    paper = Workflow({"study": "paper"})
    assert "ucf101 --source DIR" in paper.prepare("data/ucf101", 8)
    derived = paper.prepare("data/ucf14-hmdb7")
    assert "--source data/ucf101 --target data/hmdb51" in derived
    assert paper.made_from("data/ucf14-hmdb7") == [
        "data/ucf101/index.json",
        "data/hmdb51/index.json",
    ]
    run = next(run_id for run_id, spec in paper.specs.items() if spec.data.dataset == "k400")
    assert "--data k400=data/k400" in paper.run(run)
    # A set comes before those that are made of it.
    first = "data/mini-k200/index.json: is missing; run `mgm prepare k400 --source DIR --out"
    with refused(f"{first} data/k400`, then `mgm prepare mini-k200 --source data/k400"):
        paper.start(["data/mini-k200", "data/k400"])


def test_a_job_makes_as_many_runs_as_its_scale_or_its_study_says_and_one_under_slurm(tmp_path):
    study = tiny_study(tmp_path)

    def sizes(**options) -> set[int]:
        return {len(batch) for batch in Workflow({"study": str(study), **options}).batches.values()}

    assert max(sizes()) == 2
    assert sizes(slurm=True) == {1}
    study.write_text(f"{study.read_text()}specs_per_job: 1\n")
    assert sizes() == {1}


def test_only_runs_that_train_get_options_of_training(tmp_path):
    study = Workflow({"study": str(tiny_study(tmp_path))})
    for batch in study.batches:
        trains = batch.startswith(("pretrain", "finetune"))
        assert ("--checkpoint-s" in study.run(batch)) == trains


def test_the_start_writes_specs_and_freezes_the_study_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Workflow({"study": str(tiny_study(tmp_path))})
    study.start([])
    known = {*study.specs}
    # Its process has ended.
    del study
    specs = [*(tmp_path / "results" / "tiny" / "specs").iterdir()]
    frozen = (tmp_path / "results" / "tiny" / "study.yaml").read_text()
    # The report reads the user's file again.
    file = read_frozen(tmp_path / "results" / "tiny").file
    assert file == str(tmp_path / "tiny.yaml")
    assert {path.stem for path in specs} == known
    for path in specs:
        assert parse(json.loads(path.read_text()), "").run_id == path.stem
    (tmp_path / "tiny.yaml").write_text(
        (tmp_path / "tiny.yaml").read_text().replace("Which mask?", "Another question?")
    )
    Workflow({"study": str(tmp_path / "tiny.yaml")}).start([])
    assert (tmp_path / "results" / "tiny" / "study.yaml").read_text() == frozen


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"scale": "smoke"}, "study, slurm"),
        ({"study": "smoky"}, "did you mean smoke"),
        ({"study": "laddr"}, "did you mean ladder"),
        ({"study": "day", "ucf101": "/downloads"}, "ucf101"),
    ],
)
def test_a_wrong_option_is_one_clear_line(config, says):
    with pytest.raises(UserError, match=says):
        Workflow(config)


def test_a_run_that_is_unknown_is_named(smoke):
    with pytest.raises(UserError, match="has no run pretrain-x"):
        smoke.needs("pretrain-x")


def test_each_job_has_a_gpu_of_its_own_and_the_next_one_waits():
    """The GPUs are names that no machine has. A slash may be in old names of MIG slices."""
    mark = uuid.uuid4().hex
    gpus = [f"MIG-GPU-{mark}/1/0", f"GPU-{mark}"]
    environment = os.environ | {"MGM_GPUS": ",".join(gpus)}
    pipe, wait = subprocess.PIPE, "echo $CUDA_VISIBLE_DEVICES; read -r _ || exit 0"

    def start() -> subprocess.Popen:
        words = ["bash", str(ROOT / "workflow" / "gpu.sh"), "bash", "-c", wait]
        return subprocess.Popen(words, env=environment, stdin=pipe, stdout=pipe, text=True)

    running = list[subprocess.Popen]()
    for gpu in gpus:
        running.append(start())
        assert running[-1].stdout.readline().strip() == gpu
    third = start()
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(1.5)
    running[1].kill()
    running[1].wait()
    assert third.stdout.readline().strip() == gpus[1]
    for process in (running[0], third):
        process.communicate("\n")


def test_a_dry_run_counts_the_runs_of_what_is_asked_and_names_what_to_prepare_first(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    study = Workflow({"study": str(tiny_study(tmp_path))})
    done = [one for one in study.specs if one.startswith("pretrain")][:1]
    for run_id in done:
        (finish(study.results, study.specs[run_id]) / "weights.safetensors").touch()
    every = [spec for spec in study.specs.values() if spec.stage == "pretrain"]
    line = next(line for line in study.about().splitlines() if line.startswith("all "))
    assert line.split()[1:4] == ["1", "of", str(len(every))]
    assert line.split()[-1] == str(len(study.specs) - 1)
    assert not any(line.startswith("all ") for line in study.about(["probes"]).splitlines())
    # What a table does not need is not named, and what others are made of comes first.
    paper = Workflow({"study": "paper"})
    lines = [line for line in paper.about(["table3"]).splitlines() if "mgm prepare" in line]
    made = ["ucf14-hmdb7", "hmdb14-ucf7"]
    assert [line.split()[2] for line in lines] == ["k400", "ucf101", "hmdb51", *made]
    assert "table4e" in paper.unknown(["table4f"])
    known = ["table4e", "report", "results/paper/one/result.json"]
    assert not paper.unknown(known)
