"""The study day: its sizes, its plan, the order of its jobs, and the checks before they start."""

import math
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
from mgm.dag.messages import problems
from mgm.dag.workflow import Workflow
from mgm.data.published import index_published
from mgm.errors import UserError
from mgm.models import build_classifier, build_mae, reconstruction_loss
from mgm.spec import Finetune, Measure, Pretrain, Probe
from mgm.study import CONFIG, STUDIES
from mgm.study.scales import load_scale
from tests.helpers.errors import refused

DAY = CONFIG / "day.yaml"
# Sizes of the scale, each with the memory of the card that it is for.
CARDS = {"24gb": 24, "80gb": 80}


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "UCF-101").mkdir()
    return str(tmp_path)


def saved_bytes(loss, parameters) -> int:
    """Return the bytes that a loss keeps for its backward pass. Weights do not count."""
    known = {parameter.untyped_storage()._cdata for parameter in parameters}
    kept = dict[int, torch.Tensor]()

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.setdefault(x.untyped_storage()._cdata, x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss()
    return sum(x.untyped_storage().nbytes() for name, x in kept.items() if name not in known)


@cache
def kept_by_autograd(size: str, stage: str) -> tuple[Any, float]:
    """Return a run of `stage` of a size of day, and the bytes per clip that its step keeps.

    Tensors have shapes and no values, and the CPU's autocast, which casts the same layers.
    """
    suite = Workflow({"study": "day", "gpu": size, "ucf101": "."}).plan
    spec = next(spec for spec in suite.specs.values() if spec.stage == stage)
    with torch.device("meta"):
        model = build_mae(spec) if stage == "pretrain" else build_classifier(spec, 101)
    tokens, clips = math.prod(spec.grid), spec.clips
    with FakeTensorMode(allow_non_fake_inputs=True), torch.autocast("cpu", torch.bfloat16):
        model.to_empty(device="cpu")
        if stage == "pretrain":
            # Its check of the mask reads values, which fake tensors do not have.
            order_BL = torch.arange(tokens)[None]
            split = order_BL[:, : model.visible], order_BL[:, model.visible :]
            model.split = lambda masked_BL: [part.expand(len(masked_BL), -1) for part in split]

        def loss(count: int) -> torch.Tensor:
            shape = count, clips.frames, clips.size, clips.size, 3
            frames_BTHWC = torch.zeros(shape, dtype=torch.uint8)
            if stage == "finetune":
                label_B = torch.zeros(count, dtype=torch.int64)
                return F.cross_entropy(model(frames_BTHWC).float(), label_B)
            masked_BL = torch.zeros(count, tokens, dtype=torch.bool)
            return reconstruction_loss(*model(frames_BTHWC, masked_BL), torch.ones(count))

        one_clip, two_clips = (
            saved_bytes(partial(loss, count), model.parameters()) for count in (1, 2)
        )
    return spec, two_clips - one_clip


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize("size", CARDS)
def test_a_step_of_day_fits_the_card_in_its_micro_batches(size, stage, source):
    spec, kept = kept_by_autograd(size, stage)
    clips = spec.optim.batch * (spec.augment.repeats if stage == "finetune" else 1)
    # Weights, gradients and AdamW's state of ViT-B and a decoder: fewer than 120 million numbers.
    fixed, free = 16 * 120e6, 1e9 * CARDS[size]
    parts = load_scale(DAY, size=size).execution.accumulate
    assert clips % parts == 0
    # A fifth more, for what autograd does not keep.
    assert 1.2 * clips / parts * kept + fixed < free


def test_both_sizes_have_the_papers_grid_of_tokens(source):
    for size in ("24gb", "80gb"):
        workflow = Workflow({"study": "day", "gpu": size, "ucf101": source})
        assert {spec.grid for spec in workflow.plan.specs.values()} == {(8, 14, 14)}


def test_jobs_are_in_order_and_each_row_is_complete_before_the_next(source):
    workflow = Workflow({"study": "day", "ucf101": source})
    assert {cell.dataset for cell in workflow.plan.cells} == {"ucf101"}
    runs = [job for job in workflow.jobs.values() if job.specs]
    ordered = sorted(runs, key=lambda job: -job.priority)
    seeds = [job.specs[0].seed for job in ordered]
    assert seeds == sorted(seeds)
    kinds = [type(job.specs[0]) for job in ordered if job.specs[0].seed == 0]
    row = [Pretrain, Finetune, *[Probe] * 3]
    assert kinds == [*row[1:], *4 * row, Measure]
    assert [job.specs[0].kind for job in ordered[1:4]] == ["v-jepa", "logistic", "knn"]
    prepared = [job for job in workflow.jobs.values() if job.rule == "prepare"]
    assert min(job.priority for job in prepared) >= max(job.priority for job in runs)
    # 0 means every core, so jobs run one at a time.
    assert all(job.threads == 0 for job in runs)


def test_hmdb51_is_probed_where_it_is_given(source):
    """Without a source or an index of HMDB51, the study leaves it out."""
    config = {"study": "day", "ucf101": source}
    alone, both = (Workflow(config | more).plan for more in ({}, {"hmdb51": source}))
    assert {cell.dataset for cell in both.cells} == {"ucf101", "hmdb51"}
    added = [both.specs[run_id] for run_id in both.specs.keys() - alone.specs.keys()]
    assert {spec.data.dataset for spec in added} == {"hmdb51"}
    assert {type(spec) for spec in added} == {Probe, Measure}


def test_the_scale_day_compares_nothing_by_itself(source):
    with pytest.raises(UserError, match="study=day"):
        Workflow({"scale": "day", "ucf101": source})


def test_what_needs_no_model_is_measured_once_by_the_labels_of_the_first_probe(source):
    plan = Workflow({"study": "day", "ucf101": source}).plan
    (run,) = [spec for spec in plan.specs.values() if spec.stage == "measure"]
    column = "Linear probe"
    rows = {(cell.row, cell.column): cell.run_id for cell in plan.cells}
    probe = plan.specs[rows["No pretraining", column]]
    same = ("data", "clips", "model", "seed", "train_clips", "label_draws", "held_out", "views")
    assert all(getattr(run, name) == getattr(probe, name) for name in same)
    controls = [cell for cell in plan.cells if cell.control]
    assert {value.column for value in controls} == {column}
    assert {value.run_id for value in controls} == {run.run_id}
    assert len({value.metric for value in controls}) == len(controls) > 4


def test_a_half_unpacked_archive_is_one_line(source):
    """It is found before any job starts. `yes` continues without the missing videos."""
    (Path(source) / "UCF-101" / "Archery").mkdir()
    for clip in range(1, 4):
        (Path(source) / "UCF-101" / "Archery" / f"v_Archery_g01_c0{clip}.avi").touch()
    workflow = Workflow({"study": "day", "ucf101": source})
    [line] = [line for line in problems(workflow, workflow.jobs) if "archive" in line]
    assert line.startswith(f"ucf101={source}: ")
    assert "3 videos" in line
    assert "13,320" in line
    workflow = Workflow({"study": "day", "ucf101": source, "yes": True})
    assert not problems(workflow, workflow.jobs)


@pytest.mark.parametrize(
    ("name", "split", "files", "says"),
    [
        ("ucf101", 2, {"ucfTrainTestlist/classInd.txt": "1 Archery"}, "trainlist02.txt"),
        ("hmdb51", 2, {}, "has no lists *_test_split2.txt"),
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


def test_an_unknown_size_is_refused():
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


def planned(folder, field, value) -> list[str]:
    """Return the words of `mgm plan` for the study day, with a changed field of its scale."""
    scale, study = folder / "scale.yaml", folder / "study.yaml"
    scale.write_text(yaml.safe_dump(yaml.safe_load(DAY.read_text()) | {field: value}))
    fields = yaml.safe_load((STUDIES / "day.yaml").read_text())
    study.write_text(yaml.safe_dump(fields | {"scale": str(scale)}, sort_keys=False))
    return ["plan", "--study", str(study)]


@pytest.mark.parametrize(("memory_gb", "refused"), [(0, True), (12, True), (24, False)])
def test_a_gpu_that_is_missing_or_too_small_is_one_line(source, monkeypatch, memory_gb, refused):
    properties = type("Properties", (), {"total_memory": memory_gb * 10**9})
    monkeypatch.setattr("torch.cuda.is_available", lambda: memory_gb > 0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    workflow = Workflow({"study": "day", "ucf101": source})
    lines = [line for line in problems(workflow, workflow.jobs) if "GPU of 22 GB" in line]
    assert len(lines) == refused
    workflow = Workflow({"study": "day", "ucf101": source, "yes": True})
    assert not problems(workflow, workflow.jobs)
