"""The Snakefile, run for real in an empty folder."""

import os
import resource
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from mgm.dag.jobs import flow_of
from mgm.dag.messages import missing, problems, require_scratch
from mgm.dag.workflow import Workflow
from mgm.data.index import Index, Video, read_index
from mgm.errors import UserError
from mgm.results.archive import pack
from mgm.results.result import read_result
from mgm.spec import parents
from tests.helpers import programs
from tests.helpers.own_videos import own_study
from tests.helpers.programs import ROOT, run
from tests.helpers.videos import moving_square, write_video


def snakemake(folder: Path, *words: str):
    return run(programs.snakemake(folder, *words))


def scale_of_ssv2(folder: Path, root: str) -> Path:
    """Write scale smoke with one prepared dataset, and return the file."""
    smoke = yaml.safe_load((ROOT / "workflow" / "config" / "smoke.yaml").read_text())
    (folder / "cluster.yaml").write_text(
        yaml.safe_dump(smoke | {"datasets": {"ssv2": {"root": root}}})
    )
    return folder / "cluster.yaml"


@pytest.mark.slow
def test_a_dry_run_lists_the_runs_and_makes_none(tmp_path):
    done = snakemake(tmp_path, "-n")
    assert done.returncode == 0, done.stderr
    rules = "prepare-ssv2 prepare-ucf14-hmdb7 flow-ssv2-dis pretrain-table4e-0-1 finetune-table3-2-1 measure-measured-0-1 all"
    for rule in rules.split():
        assert rule in done.stdout + done.stderr
    assert done.stdout.splitlines()[-2].startswith("smoke: ")
    assert "; 0 of all" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {".snakemake"}


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--dry-r"], ["--workflow-profile", "{}/profile"]])
def test_every_way_to_ask_for_a_dry_run_writes_nothing(tmp_path, words):
    run = tmp_path / "results" / "smoke" / "run"
    run.mkdir(parents=True)
    (run / "result.json").write_text("{}")
    pack(run.parent, {"run"})
    shutil.rmtree(run.parent)
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text("dry-run: true\n")
    done = snakemake(tmp_path, *(word.format(tmp_path) for word in words))
    assert done.returncode == 0, done.stderr
    assert not run.parent.exists()


@pytest.mark.slow
def test_a_wrong_target_is_named(tmp_path):
    done = snakemake(tmp_path, "-n", "tabel4e")
    assert done.returncode == 1
    assert "tabel4e" in done.stdout


def test_a_job_waits_for_what_it_reads_and_never_for_itself():
    workflow = Workflow({})
    made = set()
    for job in workflow.jobs.values():
        assert len(job.specs) <= workflow.specs_per_job
        assert all(spec.stage == job.rule for spec in job.specs)
        before = {spec.run_id for name in job.after for spec in workflow.jobs[name].specs}
        assert {parent for spec in job.specs for parent in parents(spec)} <= before
        assert {f"prepare-{spec.data.dataset}" for spec in job.specs} <= {*job.after}
        assert all(workflow.jobs[name].priority >= job.priority for name in job.after)
        made |= {spec.run_id for spec in job.specs}
    assert made == set(workflow.plan.specs)
    alone = Workflow({"scale": "paper"})
    assert set(alone.made_by) == set(alone.plan.specs)
    assert all(len(job.specs) < 2 for job in alone.jobs.values())


def test_pretraining_that_follows_motion_vectors_does_not_wait_for_optical_flow():
    workflow = Workflow({})
    for job in workflow.jobs.values():
        waits = any(name.startswith("flow-") for name in job.after)
        flows = {flow_of(spec, workflow.key_of(spec.data)) for spec in job.specs}
        assert {bool(flow) for flow in flows} <= {waits}


@pytest.mark.slow
def test_missing_data_warns_in_a_dry_run_and_stops_a_real_one(tmp_path):
    scale = scale_of_ssv2(tmp_path, "videos/ssv2")
    dry = snakemake(tmp_path, "-n", "--config", f"scale={scale}")
    assert dry.returncode == 0, dry.stderr
    # After the list of Snakemake's jobs.
    assert "videos/ssv2/index.json" in dry.stdout.splitlines()[-1]
    real = snakemake(tmp_path, "--config", f"scale={scale}")
    assert real.returncode != 0
    assert "videos/ssv2/index.json" in real.stderr
    assert not list((tmp_path / "results").glob("*/*/log.jsonl"))


@pytest.mark.slow
def test_a_downloaded_dataset_is_prepared_and_transcoded(tmp_path):
    """Three files with UCF101's names and codec, in a folder with a space."""
    source = tmp_path / "UCF 101" / "BabyCrawling"
    source.mkdir(parents=True)
    for group in ("g01", "g02", "g20"):  # split 1 tests groups 1 to 7
        path = source / f"v_BabyCrawling_{group}_c01.avi"
        write_video(path, moving_square(48, 240, 320, (6, 2), side=96), "mpeg4", gop=12)
    config = ("--config", "scale=paper", f"ucf101={source.parent}")
    done = snakemake(tmp_path, *config, "--", "results/paper/jobs/prepare-ucf101")
    assert done.returncode == 0, done.stderr
    index = read_index(tmp_path / "data" / "ucf101")
    assert (len(index.train), len(index.test)) == (1, 2)
    assert {video.codec for video in index.videos} == {"h264"}


def test_sets_made_of_downloaded_ones_are_made_by_jobs_too(tmp_path):
    sources = dict.fromkeys(("k400", "ucf101", "hmdb51"), str(tmp_path))
    workflow = Workflow({"scale": "paper"} | sources)
    assert {*workflow.built} == {
        "k400",
        "ucf101",
        "hmdb51",
        "mini-k200",
        "ucf14-hmdb7",
        "hmdb14-ucf7",
    }
    assert set(missing(workflow, workflow.jobs)) == {"ssv2", "diving48"}
    words = " ".join(workflow.preparation["hmdb14-ucf7"])
    places = "--source data/hmdb51 --target data/ucf101 --out data/hmdb14-ucf7"
    assert words == f"prepare hmdb14-ucf7 {places}"


@pytest.mark.parametrize(
    ("name", "message"),
    [("k40", "--config k40 is not a field"), ("k400", "sources: k400: nowhere")],
)
def test_a_wrong_source_is_one_clear_line(name, message):
    with pytest.raises(UserError, match=message):
        Workflow({"scale": "paper", name: "nowhere"})


def test_workflow_files_are_written_once(tmp_path):
    workflow = Workflow({}, results=tmp_path)
    workflow.start()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert len(stamps) == len(workflow.plan.specs) + 1 + len(workflow.generated)
    workflow.start()
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}


def test_a_missing_dataset_stops_only_what_needs_it(tmp_path):
    paper = Workflow({"scale": "paper"}, data=tmp_path)
    rules = {
        target: [Path(marker).name for marker in paper.markers_of(target)]
        for target in ("table4e", "table3")
    }
    assert [line.split(":")[0] for line in problems(paper, rules["table4e"])] == ["dataset ssv2"]
    assert {*paper.targets} >= {"table1", "table4e", "figure5"}
    lines = problems(paper, rules["table3"])
    assert [line.split(":")[0] for line in lines] == [
        "dataset k400",
        "dataset ucf14-hmdb7",
        "dataset hmdb14-ucf7",
    ]
    assert (
        "run `mgm prepare ucf14-hmdb7 --source data/ucf101 --target data/hmdb51 --out "
        "data/ucf14-hmdb7`" in lines[1]
    )


def test_a_changed_index_is_found_before_any_job(tmp_path):
    index = tmp_path / "data"
    own_study(tmp_path, factor=2, specs_per_job=3)
    rows = (index / "index.csv").read_text().replace(",0,train,", ",7,train,", 1)
    (index / "index.csv").write_text(rows)
    workflow = Workflow({"scale": str(scale_of_ssv2(tmp_path, str(index)))})
    assert any(
        str(index / "index.csv") in line and "changed" in line
        for line in problems(workflow, workflow.jobs)
    )


def videos_of_two_classes(monkeypatch, number: int) -> None:
    """Let every dataset hold `number` training videos per class, without motion vectors."""
    video = Video("a.webm", 0, "train", "", 24, 25.0, 64, 64, "vp9", False, 1)
    both = tuple(replace(video, label=label) for label in (0, 1) for _ in range(number))
    index = Index(Path(), ("wave", "nod"), both, (), "0" * 12, "")
    monkeypatch.setattr("mgm.dag.messages.read_index", lambda place: index)
    monkeypatch.setattr(Path, "exists", lambda path: True)


def jobs_of(workflow: Workflow, rule: str) -> list[str]:
    return [job.name for job in workflow.jobs.values() if job.specs and job.rule == rule]


def test_videos_without_vectors_are_refused_before_any_training(monkeypatch):
    workflow = Workflow({})
    videos_of_two_classes(monkeypatch, 20)
    lines = problems(workflow, jobs_of(workflow, "pretrain"))
    assert any("a.webm: codec vp9 has no motion vectors" in line for line in lines)
    assert not problems(workflow, jobs_of(workflow, "probe"))


def test_too_few_videos_for_the_labels_of_a_probe_are_refused_before_any_training(monkeypatch):
    workflow = Workflow({})
    videos_of_two_classes(monkeypatch, 9)
    lines = problems(workflow, jobs_of(workflow, "probe"))
    assert any("labels_per_class is 20, but class wave has 9" in line for line in lines)


def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return time and content of every file, except Snakemake's files and the lock."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and ".snakemake" not in path.parts and path.name != "writer.lock"
    }


@pytest.mark.slow
def test_a_refused_call_and_a_dry_run_change_nothing(tmp_path):
    """The call has another scale, and another process works on results of the same name."""
    workflow = Workflow({}, *(tmp_path / name for name in ("results", "reports", "data")))
    workflow.lock()
    workflow.start()
    smoke = (ROOT / "workflow" / "config" / "smoke.yaml").read_text()
    (tmp_path / "scale.yaml").write_text(smoke.replace("seeds: [0]", "seeds: [1]"))
    before = listing(tmp_path)
    other = ("--config", "scale=scale.yaml")
    dry = snakemake(tmp_path, "-n", *other)
    assert dry.returncode == 0, dry.stderr
    assert listing(tmp_path) == before
    refused = snakemake(tmp_path, "--quiet", "all", *other)
    assert refused.returncode != 0
    assert f"process {os.getpid()} on" in refused.stderr
    assert listing(tmp_path) == before


def test_results_belong_to_one_scale_or_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_study(tmp_path, factor=2, specs_per_job=3)
    mine = Workflow({"study": "mine.yaml"})
    assert mine.is_new()
    mine.start()
    assert not mine.is_new()
    # An edited study is new again, so its page shows the edit even if no run is missing.
    text = (tmp_path / "mine.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("Which mask?", "Which of three?"))
    edited = Workflow({"study": "mine.yaml"})
    assert edited.is_new()
    edited.start()
    smoke = (ROOT / "workflow" / "config" / "smoke.yaml").read_text()
    (tmp_path / "scale.yaml").write_text(smoke.replace("name: smoke", "name: mine"))
    with pytest.raises(UserError, match="mine/plan: "):
        Workflow({"scale": "scale.yaml"}).start()
    # The folder is of one file, also where two studies have one name.
    (tmp_path / "other.yaml").write_text(text.replace("Which mask?", "Which other?"))
    with pytest.raises(UserError, match=r"results are of .*mine\.yaml; .*other\.yaml"):
        Workflow({"study": "other.yaml"}).start()
    (tmp_path / "mine.yaml").rename(tmp_path / "other.yaml")
    Workflow({"study": "other.yaml"}).start()
    for name, owner in (("drawn", "studies/drawn.yaml"), ("mini", "config/mini.yaml")):
        (tmp_path / f"{name}.yaml").write_text(text.replace("study: mine", f"study: {name}"))
        with pytest.raises(UserError, match=f"{name}: is the name of .*{owner}"):
            Workflow({"study": f"{name}.yaml"})


def test_a_marker_without_its_results_is_deleted(tmp_path):
    """But not by a dry run."""

    def read(**more) -> Workflow:
        return Workflow({}, *(tmp_path / name for name in ("results", "reports", "data")), **more)

    workflow = read()
    name = next(name for name, job in workflow.jobs.items() if job.specs)
    marker = workflow.marker(name)
    marker.parent.mkdir(parents=True)
    marker.touch()
    assert read().markers([name]) == [str(marker)]
    assert marker.exists()
    read(writes=True)
    assert not marker.exists()
    for path in workflow.jobs[name].makes:
        path.parent.mkdir()
        path.touch()
    marker.touch()
    assert read(writes=True).markers([name]) == []
    assert marker.exists()
    # A report would reject these results, which are empty files, so the job runs again.
    assert read(writes=True, examines=True).markers([name]) == [str(marker)]
    assert not marker.exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_is_asked_for_by_its_file(tmp_path):
    config = ("--config", f"study={own_study(tmp_path, factor=2, specs_per_job=3)}")
    workflow = Workflow({"study": str(tmp_path / "mine.yaml")}, results=tmp_path / "results")
    run_id = next(run_id for run_id in workflow.plan.specs if run_id.startswith("pretrain"))
    done = snakemake(tmp_path, *config, "--", f"results/mine/{run_id}/result.json")
    assert done.returncode == 0, done.stdout + done.stderr
    results = {path.parent.name for path in (tmp_path / "results/mine").glob("*/result.json")}
    assert run_id in results
    assert len(results) <= workflow.specs_per_job
    again = snakemake(tmp_path, "-n", *config, "--", f"results/mine/{run_id}/result.json")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_each_command_has_a_gpu_of_its_own_while_it_runs(tmp_path):
    wait = "echo $CUDA_VISIBLE_DEVICES; read -r _ || exit 0"
    own = os.environ | {"MGM_GPUS": "2", "CUDA_VISIBLE_DEVICES": "3,5,7", "TMPDIR": str(tmp_path)}

    def start():
        words = [ROOT / "workflow" / "gpu.sh", "bash", "-c", wait]
        pipe = subprocess.PIPE
        running = subprocess.Popen(words, env=own, stdin=pipe, stdout=pipe, text=True)
        return running, running.stdout.readline().strip()

    (first, one), (second, other) = start(), start()
    assert (one, other) == ("3", "5")
    first.kill()
    first.wait()
    third, again = start()
    assert again == "3"
    for running in (second, third):
        running.communicate("\n")


@pytest.mark.slow
def test_snakemake_runs_one_job_per_gpu(tmp_path):
    """No GPU is needed: CUDA_VISIBLE_DEVICES alone says that there are two."""
    study = own_study(tmp_path, 0.02, specs_per_job=1)
    fields = yaml.safe_load(study.read_text())
    del fields["columns"]["Fine-tuned"]
    fields["settings"] = {"pretrain": {"optim.steps": 20}}
    study.write_text(yaml.safe_dump(fields))
    (tmp_path / "tmp").mkdir()
    words = programs.snakemake(tmp_path, "--config", f"study={study}", cores=8)
    own = {"CUDA_VISIBLE_DEVICES": "3,5", "TMPDIR": str(tmp_path / "tmp")}
    done = run(words, **own)
    assert done.returncode == 0, done.stderr
    locks = {path.name.rpartition("-")[2] for path in (tmp_path / "tmp").glob("mgm-gpu-*")}
    assert locks == {"3.lock", "5.lock"}
    results = [read_result(path.parent) for path in tmp_path.glob("results/mine/*/result.json")]
    times = [tuple(map(datetime.fromisoformat, (r["started"], r["finished"]))) for r in results]
    assert max(sum(a <= start < b for a, b in times) for start, _ in times) == 2


@pytest.mark.slow
def test_a_user_id_without_a_name_is_enough(tmp_path):
    """As in containers: `docker run --user 1000650000`, OpenShift."""
    (tmp_path / "sitecustomize.py").write_text(
        "import pwd\ndef unknown(uid):\n    raise KeyError(uid)\npwd.getpwuid = unknown\n"
    )
    names = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME"), "")
    words = programs.snakemake(tmp_path, "--", "results/smoke/jobs/prepare-ssv2")
    done = run(words, PYTHONPATH=str(tmp_path), **names)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/smoke/jobs/prepare-ssv2").exists()


@pytest.mark.slow
def test_a_dry_run_counts_the_results_of_its_directory(tmp_path):
    """Snakemake leaves the folder of `--directory` before the last line is printed."""
    run_id = next(iter(Workflow({}).plan.specs))
    folder = tmp_path / "results" / "smoke" / run_id
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    assert "; 1 of all" in snakemake(tmp_path, "-n").stdout


@pytest.mark.slow
def test_a_place_that_snakemake_cannot_write_to_is_one_line(tmp_path):
    words = [*programs.snakemake(tmp_path, "-n"), "--quiet", "all"]
    done = run(words, TMPDIR="/proc/none")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mgm: ")]
    assert line.startswith("mgm: /proc/none")


def test_a_full_place_is_named(monkeypatch, tmp_path):
    """A full disk is imitated by a limit on file sizes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    require_scratch()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=str(tmp_path)):
            require_scratch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
