"""The study day: its sizes, its plan, the order of its jobs, and the checks before they start."""

import math
import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from typer.testing import CliRunner

from mgm.cli import app
from mgm.dag.messages import archive_problems, gpu_problems, order, problems
from mgm.dag.study import Workflow
from mgm.data.published import index_published
from mgm.errors import UserError
from mgm.models import build_classifier, build_mae, reconstruction_loss
from mgm.spec import PUBLISHED, Finetune, Measure, Pretrain, Probe
from mgm.spec.compute import multiply_adds
from mgm.study import CONFIG, STUDIES
from mgm.study.machine import Machine, day_machine, size_for
from mgm.study.plan import check, cost, costs, cpu_hours, day_rows
from mgm.study.quoted import AVION, MEMORY_GB, VIDEOMAE_UCF101
from mgm.study.scales import load_scale
from mgm.training import memory
from tests.helpers.errors import refused
from tests.helpers.programs import run, snakemake

DAY = CONFIG / "day.yaml"
CARDS = {"rtx4090": "24gb", "a5000": "24gb", "a100": "80gb", "h100": "80gb", "h200": "80gb"}


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "UCF-101").mkdir()
    return str(tmp_path)


@pytest.mark.parametrize("card", CARDS)
def test_the_plan_says_what_fits_on_each_card(card):
    said = CliRunner().invoke(app, ["plan", "--study", "day", "--gpu", card, "--cores", "64"])
    assert said.exit_code == 0, said.output
    assert said.output.startswith(f"day {CARDS[card]} on one {card.upper()}")
    hours = hours_of(said.output)
    assert len(hours) == 5
    assert hours == sorted(hours)
    # The loader may limit a row without pretraining at every rate.
    assert all(low >= middle >= high for low, middle, high in hours)
    assert hours[-1][0] > hours[-1][1] > hours[-1][2]


@cache
def kept_by_autograd(size: str, stage: str) -> tuple[Any, float]:
    """Return a run of `stage` of a size of day, and the bytes per clip that its step keeps.

    Tensors have shapes and no values, and the CPU's autocast, which casts the same layers.
    """
    registry = Workflow({"study": "day", "gpu": size, "ucf101": "."}).registry
    spec = next(spec for spec in registry.specs.values() if spec.stage == stage)
    with torch.device("meta"):
        model = build_mae(spec) if stage == "pretrain" else build_classifier(spec, 101)
    tokens, clips = math.prod(spec.grid), spec.clips
    with FakeTensorMode(allow_non_fake_inputs=True), torch.autocast("cpu", torch.bfloat16):
        model.to_empty(device="cpu")

        def loss(count: int) -> torch.Tensor:
            shape = count, clips.frames, clips.size, clips.size, 3
            frames_BTHWC = torch.zeros(shape, dtype=torch.uint8)
            if stage == "finetune":
                label_B = torch.zeros(count, dtype=torch.int64)
                return F.cross_entropy(model(frames_BTHWC).float(), label_B)
            masked_BL = torch.zeros(count, tokens, dtype=torch.bool)
            return reconstruction_loss(*model(frames_BTHWC, masked_BL), torch.ones(count))

        one_clip, two_clips = (
            memory.saved_bytes(partial(loss, count), model.parameters()) for count in (1, 2)
        )
    return spec, two_clips - one_clip


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize("card", CARDS)
def test_a_step_of_day_fits_the_card_in_its_parts(card, stage, source):
    spec, kept = kept_by_autograd(size_for(DAY, card), stage)
    clips = spec.optim.batch * (spec.augment.repeats if stage == "finetune" else 1)
    # Weights, gradients and AdamW's state of ViT-B and a decoder: fewer than 120 million numbers.
    fixed, free = 16 * 120e6, 1e9 * MEMORY_GB[card]
    parts = memory.fewest_parts(clips, kept, fixed, free)
    assert parts <= 4
    assert clips % parts == 0
    assert clips / parts * kept + fixed < free


def hours_of(plan: str) -> list[tuple[float, ...]]:
    """Return each row's hours at 10, 17 and 40 % of the peak."""
    rows = re.findall(r"^ *(\d+\.\d) +(\d+\.\d) +(\d+\.\d)  ", plan, re.MULTILINE)
    return [tuple(map(float, row)) for row in rows]


@pytest.mark.parametrize("card", CARDS)
def test_a_day_fits_a_day_at_the_utilisation_that_avion_reached(card):
    words = ["plan", "--study", "day", "--gpu", card, "--cores", "16"]
    assert hours_of(CliRunner().invoke(app, words).output)[-1][1] <= 24


def test_a_days_hours_by_hand(source):
    """Without limits of loader and tests, a run's hours are its operations at the rate."""
    registry = Workflow({"study": "day", "gpu": "80gb", "ucf101": source}).registry
    gpu = Machine("a100", 1e14, 1, 1)
    bare, full = (
        day_rows(registry, [costs(registry, rates)]) for rates in (gpu, day_machine(gpu, 1, 62.0))
    )
    videos = PUBLISHED["ucf101"]
    runs = [spec for spec in registry.specs.values() if isinstance(spec, Pretrain | Finetune)]
    trained = [cost(spec, videos, gpu) for spec in runs]
    # Each of the 5 encoders reads 9,537 clips and 2 views of 3,783 videos once.
    (view,) = {multiply_adds(spec) for spec in registry.specs.values() if isinstance(spec, Probe)}
    of_probes = 5 * (videos.train + 2 * videos.test) * 2 * view
    flops = sum(run.train + run.test for run in trained) + of_probes
    expected = flops / 1e14 / 3600
    assert bare[-1][-1][0] == pytest.approx(expected)
    # A core changes 11 clips per second, after it has decoded them.
    tuned = next(spec for spec in runs if isinstance(spec, Finetune))
    steps = tuned.optim.epochs * (videos.train // tuned.optim.batch)
    seconds = steps * tuned.optim.batch * (1 / 62 + 1 / 11)
    run = cost(tuned, videos, day_machine(gpu, 1, 62.0))
    test_s = max(run.test / 1e14, videos.test * tuned.views.temporal / 62)
    assert run.hours == pytest.approx((seconds + test_s) / 3600)
    assert full[-1][-1][0] > bare[-1][-1][0]


def test_the_arithmetic_is_within_three_times_avions_measured_hours():
    compared = check(0.4, AVION)
    assert compared.hours == 583 / 4
    assert 1 < compared.hours / compared.planned_h < 3
    assert compared.implied == pytest.approx(0.175, abs=5e-4)


def test_the_published_time_of_days_own_recipe():
    """9,537 x 3,200 clips took 30 h on 8 GPUs; a clip is 57.4e9 multiply-adds (test_compute)."""
    flops = 9537 * 3200 * 57.4e9 * 6
    assert check(0.4, VIDEOMAE_UCF101).implied == pytest.approx(
        flops / (8 * 125e12 * 30 * 3600), rel=1e-3
    )


def test_few_cores_make_the_day_longer():
    words = ["plan", "--study", "day", "--gpu", "rtx4090", "--cores"]
    few, many = (CliRunner().invoke(app, [*words, n]).output for n in ("4", "64"))
    assert "the GPU waits" in few
    assert "the GPU waits" not in many


def test_both_sizes_have_the_papers_grid_of_tokens(source):
    for size in ("24gb", "80gb"):
        workflow = Workflow({"study": "day", "gpu": size, "ucf101": source})
        assert {spec.grid for spec in workflow.registry.specs.values()} == {(8, 14, 14)}


def test_jobs_are_in_order_and_each_row_is_complete_before_the_next(source):
    workflow = Workflow({"study": "day", "ucf101": source})
    assert set(workflow.registry.tables) == {"ucf101"}
    runs = [job for job in workflow.jobs.values() if job.specs]
    ordered = sorted(runs, key=lambda job: -job.priority)
    seeds = [job.specs[0].seed for job in ordered]
    assert seeds == sorted(seeds)
    kinds = [type(job.specs[0]) for job in ordered if job.specs[0].seed == 0]
    row = [Pretrain, Finetune, *[Probe] * 4]
    assert kinds == [*row[1:], *4 * row, Measure]
    assert [job.specs[0].kind for job in ordered[1:5]] == ["v-jepa", "logistic", "sgd", "knn"]
    prepared = [job for job in workflow.jobs.values() if job.rule == "prepare"]
    assert min(job.priority for job in prepared) >= max(job.priority for job in runs)
    # 0 means every core, so jobs run one at a time.
    assert all(job.threads == 0 for job in runs)
    assert order(workflow) == [job.name for job in (*prepared, *ordered)]


def test_hmdb51_is_probed_where_it_is_given(source):
    """Without a source or an index of HMDB51, the study leaves it out."""
    config = {"study": "day", "ucf101": source}
    alone, both = (Workflow(config | more).registry for more in ({}, {"hmdb51": source}))
    assert set(both.tables) == {*alone.tables, "hmdb51"}
    added = [both.specs[run_id] for run_id in both.specs.keys() - alone.specs.keys()]
    assert {spec.data.dataset for spec in added} == {"hmdb51"}
    assert {type(spec) for spec in added} == {Probe, Measure}


def test_the_scale_day_compares_nothing_by_itself(source):
    with pytest.raises(UserError, match="scale day: .*ssv2.*study=day"):
        Workflow({"scale": "day", "ucf101": source})


@pytest.mark.slow
def test_a_dry_run_prints_the_jobs_in_their_order(source):
    """In size rehearsal, jobs with runs of several rows also follow the jobs that they need."""
    workflow = Workflow({"study": "day", "gpu": "rehearsal", "ucf101": source})
    names = order(workflow)
    assert sorted(names) == sorted(workflow.jobs)
    assert all(names.index(a) < names.index(n) for n in names for a in workflow.jobs[n].after)
    said = run(snakemake(Path(source), "-n", "--config", "study=day", f"ucf101={source}"))
    assert said.returncode == 0, said.stderr
    listed = (
        (said.stdout + said.stderr)
        .split("the jobs, in the order in which they run:\n")[1]
        .splitlines()
    )
    expected = order(Workflow({"study": "day", "ucf101": source}))
    assert listed[: len(expected)] == expected[:60]


def test_steps_are_cut_by_one_option(source):
    workflow = Workflow({"study": "day", "ucf101": source, "steps": 7})
    specs = workflow.registry.specs.values()
    assert {spec.optim.steps for spec in specs if isinstance(spec, Pretrain | Finetune)} == {7}


def test_what_needs_no_model_is_measured_once_by_the_labels_of_the_first_probe(source):
    registry = Workflow({"study": "day", "ucf101": source}).registry
    (run,) = registry.controls
    table, column = registry.tables["ucf101"], "Linear probe"
    probe = table.cell("No pretraining", column).runs[0]
    same = ("data", "clips", "model", "seed", "train_clips", "label_draws", "held_out", "views")
    assert all(getattr(run, name) == getattr(probe, name) for name in same)
    cells = [cell for cell in table.cells if cell.row in table.groups]
    assert {cell.column for cell in cells} == {column}
    assert {cell.runs for cell in cells} == {(run,)}
    assert len({cell.metric for cell in cells}) == len(cells) > 4


def test_a_half_unpacked_archive_is_one_line(source):
    """It is found before any job starts. `yes` continues without the missing videos."""
    (Path(source) / "UCF-101" / "Archery").mkdir()
    for clip in range(1, 4):
        (Path(source) / "UCF-101" / "Archery" / f"v_Archery_g01_c0{clip}.avi").touch()
    workflow = Workflow({"study": "day", "ucf101": source})
    (line,) = archive_problems(workflow, {"ucf101"})
    assert line.startswith(f"ucf101={source}: ")
    assert "3 videos" in line
    assert "13,320" in line
    assert line in problems(workflow, workflow.jobs)
    workflow.yes = True
    assert line not in problems(workflow, workflow.jobs)


@pytest.mark.parametrize(
    ("name", "split", "files", "says"),
    [
        ("ucf101", 2, {"ucfTrainTestlist/classInd.txt": "1 Archery"}, "trainlist02.txt"),
        ("hmdb51", 2, {}, "has no lists *_test_split2.txt; add the published"),
    ],
)
def test_lists_of_another_split_or_none_are_one_line(tmp_path, name, split, files, says):
    for file in ("Archery/v_Archery_g01_c01.avi", *files):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(files.get(file, ""))
    with pytest.raises((UserError, FileNotFoundError)) as error:
        index_published(name, tmp_path, tmp_path / "out", split=split)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_size_is_the_largest_that_fits(tmp_path):
    assert size_for(DAY, "rtx4090") == "24gb"
    large = tmp_path / "scale.yaml"
    large.write_text(re.sub("memory_gb: .*", "memory_gb: 200", DAY.read_text()))
    with pytest.raises(UserError, match="--gpu h100: .*80 .*scale.yaml.* 200"):
        size_for(large, "h100")
    with pytest.raises(UserError, match=f"{DAY.name}: .*12gb.*24gb"):
        load_scale(DAY, size="12gb")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sizes", 5),
        ("sizes", {"a": None}),
        ("sizes", {"a": {"memory_gb": []}}),
    ],
)
def test_a_bad_value_is_one_line_in_a_plan(tmp_path, field, value):
    with refused("scale.yaml: "):
        CliRunner().invoke(app, planned(tmp_path, field, value), catch_exceptions=False)


def test_a_plan_without_worker_processes(tmp_path):
    words = planned(tmp_path, "execution", {})
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "1 workers" in done.output


def planned(folder, field, value) -> list[str]:
    """Return the words of `mgm plan` for the study day, with a changed field of its scale."""
    scale, study = folder / "scale.yaml", folder / "study.yaml"
    scale.write_text(yaml.safe_dump(yaml.safe_load(DAY.read_text()) | {field: value}))
    fields = yaml.safe_load((STUDIES / "day.yaml").read_text())
    study.write_text(yaml.safe_dump(fields | {"scale": str(scale)}, sort_keys=False))
    return ["plan", "--study", str(study)]


def test_without_a_gpu_it_says_the_hours_and_refuses(source, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    workflow = Workflow({"study": "day", "ucf101": source})
    specs = workflow.registry.specs.values()
    (line,) = gpu_problems(workflow, specs)
    assert "has no GPU" in line
    assert f"{sum(cpu_hours(workflow.registry).values()):,.0f} hours" in line
    assert line in problems(workflow, workflow.jobs)
    workflow.yes = True
    assert line not in problems(workflow, workflow.jobs)


@pytest.mark.parametrize(
    ("memory", "bf16", "said"), [(12, True, "takes 22"), (24, False, "no bf16")]
)
def test_a_gpu_that_lacks_something_is_one_line(source, monkeypatch, memory, bf16, said):
    properties = type("Properties", (), {"total_memory": memory * 10**9})
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "A card")
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: bf16)
    workflow = Workflow({"study": "day", "ucf101": source})
    (line,) = gpu_problems(workflow, workflow.registry.specs.values())
    assert said in line
