"""The Snakefile, run for real in an empty folder."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from mgm.dag.jobs import flow_of
from mgm.dag.messages import missing, problems
from mgm.dag.study import Workflow, job_of
from mgm.data.index import Index, Video, read_index
from mgm.errors import UserError
from mgm.models import build_mae, save_weights
from mgm.results.archive import pack
from mgm.spec import Data, Model, Pretrain, parents
from tests.helpers import programs
from tests.helpers.own_videos import own_videos, small_scale
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


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """A user's folder: one folder per class."""
    return own_videos(
        tmp_path_factory.mktemp("mine"), tmp_path_factory.mktemp("drawn"), train=6, test=1
    )


@pytest.mark.slow
def test_a_dry_run_lists_the_runs_and_makes_none(tmp_path):
    done = snakemake(tmp_path, "-n")
    assert done.returncode == 0, done.stderr
    rules = "prepare-ssv2 prepare-ucf14-hmdb7 flow-ssv2-dis pretrain-table4e-0-1 finetune-others-2-1 measure-others-0-1 all"
    for rule in rules.split():
        assert rule in done.stdout + done.stderr
    assert "adapt-others" in done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {".snakemake"}


@pytest.mark.slow
def test_lint_finds_nothing(tmp_path):
    done = snakemake(tmp_path, "--lint")
    assert "in a good condition" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--dry-r"], ["--workflow-profile", "{}/profile"]])
def test_every_way_to_ask_for_a_dry_run_writes_nothing(tmp_path, words):
    run = tmp_path / "results" / "smoke" / "run"
    run.mkdir(parents=True)
    (run / "result.json").write_text("{}")
    pack(run.parent)
    shutil.rmtree(run.parent)
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text("dry-run: true\n")
    done = snakemake(tmp_path, *(word.format(tmp_path) for word in words))
    assert done.returncode == 0, done.stderr
    assert not run.parent.exists()


@pytest.mark.slow
def test_a_wrong_target_gets_the_near_one(tmp_path):
    done = snakemake(tmp_path, "-n", "tabel4e")
    assert done.returncode == 2
    assert "table4e" in done.stderr
    # The error comes last: no overview of the runs follows it.
    assert done.stdout.endswith("Building DAG of jobs...\n")


def test_a_job_waits_for_what_it_reads_and_never_for_itself():
    workflow = Workflow({})
    made = set()
    for job in workflow.jobs.values():
        assert len(job.specs) <= workflow.scale.specs_per_job
        stage = "finetune" if job.rule == "adapt" else job.rule
        assert job.name.startswith(job.rule)
        assert all(spec.stage == stage for spec in job.specs)
        before = {spec.run_id for name in job.after for spec in workflow.jobs[name].specs}
        assert {parent for spec in job.specs for parent in parents(spec)} <= before
        assert {f"prepare-{spec.data.dataset}" for spec in job.specs} <= {*job.after}
        assert all(workflow.jobs[name].priority >= job.priority for name in job.after)
        made |= {spec.run_id for spec in job.specs}
    assert made == set(workflow.registry.specs)
    alone = Workflow({"scale": "paper"})
    assert set(alone.made_by) == set(alone.registry.specs)
    assert all(len(job.specs) < 2 for job in alone.jobs.values())
    adapting = {job.name for job in alone.jobs.values() if job.rule == "adapt"}
    assert len(adapting) == 2 * len(
        {cell.row for cell in alone.registry.tables["3"].cells if cell.runs}
    )


def test_runs_that_follow_motion_vectors_do_not_wait_for_optical_flow():
    workflow = Workflow({})

    def needs(name: str) -> set[str]:
        return {name}.union(*map(needs, workflow.jobs[name].after))

    waiting = [
        job
        for job in workflow.jobs.values()
        if job.specs and any(name.startswith("flow-") for name in needs(job.name))
    ]
    assert waiting
    for spec in (spec for job in waiting for spec in job.specs):
        runs = workflow.registry.with_parents([spec.run_id])
        assert any(flow_of(run, workflow.scale) for run in runs), spec.run_id


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
def test_a_downloaded_dataset_is_prepared_and_transcoded_in_shards(tmp_path):
    """Three files with UCF101's names and codec, in a folder with a space."""
    source = tmp_path / "UCF 101" / "BabyCrawling"
    source.mkdir(parents=True)
    for group in ("g01", "g02", "g20"):  # split 1 tests groups 1 to 7
        path = source / f"v_BabyCrawling_{group}_c01.avi"
        write_video(path, moving_square(48, 240, 320, (6, 2), side=96), "mpeg4", gop=12)
    config = ("--config", "scale=paper", f"sources={{ucf101: {source.parent}}}", "shards=2")
    done = snakemake(tmp_path, *config, "--", "data/ucf101/index.json")
    assert done.returncode == 0, done.stderr
    for job in (
        "prepare-ucf101-source",
        "prepare-ucf101-1-of-2",
        "prepare-ucf101-2-of-2",
        "prepare-ucf101",
    ):
        assert f"wildcards: job={job}\n" in done.stdout + done.stderr
    index = read_index(tmp_path / "data" / "ucf101")
    assert (len(index.train), len(index.test)) == (1, 2)
    assert {video.codec for video in index.videos} == {"h264"}


def test_sets_made_of_downloaded_ones_are_made_by_jobs_too(tmp_path):
    workflow = Workflow(
        {"scale": "paper", "sources": dict.fromkeys(("k400", "ucf101", "hmdb51"), str(tmp_path))}
    )
    assert {*workflow.built_datasets} == {
        "k400",
        "ucf101",
        "hmdb51",
        "mini-k200",
        "ucf14-hmdb7",
        "hmdb14-ucf7",
    }
    assert set(missing(workflow)) == {"ssv2", "diving48"}
    words = " ".join(workflow.preparation("hmdb14-ucf7"))
    assert words == "prepare hmdb14-ucf7 --source data/hmdb51 --target data/ucf101"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"k40": "."}, "sources: k40:"),
        ({"k400": "nowhere"}, "sources: k400:"),
        ("k400=DIR", "--config sources: "),
    ],
)
def test_wrong_sources_are_one_clear_line(sources, message):
    with pytest.raises(UserError, match=message):
        Workflow({"scale": "paper", "sources": sources})


def test_workflow_files_are_written_once(tmp_path):
    workflow = Workflow({}, results=tmp_path)
    workflow.start()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert len(stamps) == len(workflow.registry.specs) + 1 + len(workflow.generated)
    workflow.start()
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}


def test_a_missing_dataset_stops_only_what_needs_it_and_weights_are_checked_first(tmp_path):
    paper = Workflow({"scale": "paper"}, data=tmp_path)
    rules = {
        target: [Path(marker).name for marker in paper.markers_of(target)]
        for target in ("table4e", "table3")
    }
    assert [line.split(":")[0] for line in problems(paper, rules["table4e"])] == ["dataset ssv2"]
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
    (tmp_path / "raft.pth").write_text("no weights")
    paper = Workflow({"scale": "paper", "flow_weights": str(tmp_path / "raft.pth")})
    assert any("raft.pth" in line for line in problems(paper, rules["table4e"]))


def test_a_changed_index_is_found_before_any_job(tmp_path, videos):
    index = Workflow({"name": "mine", "videos": str(videos)}, data=tmp_path).places["folder"]
    # A prepared folder is used where it is.
    assert Workflow({"name": "again", "videos": str(index)}).places["folder"] == index
    rows = (index / "index.csv").read_text().replace(",0,train,", ",7,train,", 1)
    (index / "index.csv").write_text(rows)
    workflow = Workflow({"scale": str(scale_of_ssv2(tmp_path, str(index)))})
    assert any(
        str(index / "index.csv") in line and "changed" in line
        for line in problems(workflow, workflow.jobs)
    )


def test_weights_of_an_external_row_are_linked_and_named_by_content(tmp_path):
    weights = tmp_path / "mam2.safetensors"
    weights.write_bytes(b"weights")
    workflow = Workflow(
        {"weights": {"MAM2, SSv2, 1200": str(weights)}}, results=tmp_path / "results"
    )
    workflow.start()
    [run] = workflow.registry.tables["1"].cell("MAM2, SSv2, 1200", "SSv2").runs
    assert (workflow.results / run.parent / "weights.safetensors").read_bytes() == b"weights"
    assert all(run.parent not in name for job in workflow.jobs.values() for name in job.after)
    # The file does not contain weights.
    assert any("mam2.safetensors" in line for line in problems(workflow, []))
    with pytest.raises(UserError, match="weights: MAM2, SSv2, 1200: gone: "):
        Workflow({"weights": {"MAM2, SSv2, 1200": "gone"}})


def test_weights_of_another_size_are_named_before_any_job(tmp_path):
    save_weights(
        build_mae(Pretrain(data=Data(dataset="ssv2"), model=Model(width=64, depth=4, heads=4))),
        tmp_path / "wide.safetensors",
    )
    [line] = problems(
        Workflow({"weights": {"MAM2, SSv2, 1200": str(tmp_path / "wide.safetensors")}}), []
    )
    assert "wide.safetensors: " in line
    assert line.endswith("it is a checkpoint of another model")


def test_weights_in_several_files_are_named_by_all_of_them(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}'
    )
    (tmp_path / "1.safetensors").write_bytes(b"first")
    names = set()
    for second in (b"second", b"other"):
        (tmp_path / "2.safetensors").write_bytes(second)
        names |= Workflow({"weights": {"MAM2, SSv2, 1200": str(tmp_path)}}).external.keys()
    assert len(names) == 2


def videos_of_one_class(monkeypatch, number: int) -> None:
    """Let every dataset hold `number` training videos of one class, without motion vectors."""
    video = Video("a.webm", 0, "train", "", 24, 25.0, 64, 64, "vp9", False, 1)
    index = Index(Path(), ("wave",), (video,) * number, (), "0" * 12, "")
    monkeypatch.setattr("mgm.dag.messages.read_index", lambda place: index)
    monkeypatch.setattr(Path, "exists", lambda path: True)


def jobs_of(workflow: Workflow, rule: str) -> list[str]:
    return [job.name for job in workflow.jobs.values() if job.specs and job.rule == rule]


def test_videos_without_vectors_are_refused_before_any_training(monkeypatch):
    workflow = Workflow({"name": "mine"})
    videos_of_one_class(monkeypatch, 20)
    lines = problems(workflow, jobs_of(workflow, "pretrain"))
    assert any("a.webm: codec vp9 has no motion vectors" in line for line in lines)
    assert not problems(workflow, jobs_of(workflow, "probe"))


def test_too_few_videos_for_the_labels_of_a_probe_are_refused_before_any_training(monkeypatch):
    workflow = Workflow({"name": "mine"})
    videos_of_one_class(monkeypatch, 9)
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
    before = listing(tmp_path)
    other = ("--config", "scale=mini", "name=smoke")
    dry = snakemake(tmp_path, "-n", *other)
    assert dry.returncode == 0, dry.stderr
    assert listing(tmp_path) == before
    refused = snakemake(tmp_path, "--quiet", "all", *other)
    assert refused.returncode != 0
    assert f"process {os.getpid()} on" in refused.stderr
    assert listing(tmp_path) == before


def test_a_marker_without_its_results_is_not_believed(tmp_path):
    """A dry run leaves the old marker, and the next start removes it."""

    def read() -> Workflow:
        return Workflow({}, tmp_path / "results", tmp_path / "reports", tmp_path / "data")

    workflow = read()
    name = next(name for name, job in workflow.jobs.items() if job.specs)
    marker = workflow.results / "jobs" / name
    assert workflow.markers([name]) == [str(marker)]
    marker.parent.mkdir(parents=True)
    marker.touch()
    workflow = read()
    assert workflow.markers([name]) == [f"{marker}~2"]
    assert job_of(f"{name}~2") == name
    workflow.start()
    assert not marker.exists()
    for path in workflow.jobs[name].makes:
        path.parent.mkdir()
        path.touch()
    assert read().markers([name]) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_and_a_table_are_asked_for_by_their_files(tmp_path, videos):
    small_scale(tmp_path, factor=2, specs_per_job=3, seeds=(0,))
    config = ("--config", "scale=scale.yaml", "name=mine", f"videos={videos}")
    dry = snakemake(tmp_path, "-n", *config)
    assert dry.returncode != 0
    assert "has no index" in dry.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"scale.yaml", ".snakemake"}
    first = snakemake(tmp_path, "--until", "prepare", *config)
    assert first.returncode == 0, first.stderr
    workflow = Workflow(
        {"scale": str(tmp_path / "scale.yaml"), "name": "mine", "videos": str(videos)},
        *(tmp_path / name for name in ("results", "reports", "data")),
    )
    run_id = next(run_id for run_id in workflow.registry.specs if run_id.startswith("pretrain"))
    done = snakemake(tmp_path, *config, "--", f"results/mine/{run_id}/result.json")
    assert done.returncode == 0, done.stdout + done.stderr
    results = {path.parent.name for path in (tmp_path / "results/mine").glob("*/result.json")}
    assert run_id in results
    assert len(results) <= workflow.scale.specs_per_job
    again = snakemake(tmp_path, "-n", *config, "--", f"results/mine/{run_id}/result.json")
    assert "Nothing to be done" in again.stdout + again.stderr
    listed = snakemake(tmp_path, "-n", *config, "--", "table4e").stdout
    assert "reports/mine/tables/table4e.csv" in listed
