"""The study day: its memory, its runs, and the order of its jobs."""

import math
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mgm.dag.workflow import Workflow
from mgm.models import build_classifier, build_mae
from mgm.spec import Finetune, Measure, Pretrain, Probe

CARD = 24  # GB


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
def kept_by_autograd(stage: str) -> tuple[Any, float]:
    """Return a run of `stage` of day, and the bytes per clip that its step keeps.

    Tensors have shapes and no values, and the CPU's autocast, which casts the same layers.
    """
    plan = Workflow({"study": "day", "ucf101": "."}).plan
    spec = next(
        spec
        for spec in plan.specs.values()
        if spec.stage == stage and getattr(spec, "head", "linear") == "linear"
    )
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
                return model(frames_BTHWC, label_B, torch.ones(count))[0]
            masked_BL = torch.zeros(count, tokens, dtype=torch.bool)
            return model(frames_BTHWC, masked_BL, torch.ones(count))[0]

        one_clip, two_clips = (
            saved_bytes(partial(loss, count), model.parameters()) for count in (1, 2)
        )
    return spec, two_clips - one_clip


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_step_of_day_fits_the_card_in_its_micro_batches(stage, source):
    spec, kept = kept_by_autograd(stage)
    assert spec.grid == (8, 14, 14)
    clips = spec.optim.batch * (spec.augment.repeats if stage == "finetune" else 1)
    # Weights, gradients and AdamW's state of ViT-B and a decoder: fewer than 120 million numbers.
    fixed, free = 16 * 120e6, 1e9 * CARD
    parts = Workflow({"study": "day", "ucf101": source}).execution.accumulate
    assert clips % parts == 0
    # A fifth more, for what autograd does not keep.
    assert 1.2 * clips / parts * kept + fixed < free


def test_jobs_are_in_order_and_each_row_is_complete_before_the_next(source):
    workflow = Workflow({"study": "day", "ucf101": source})
    assert {cell.dataset for cell in workflow.plan.cells} == {"ucf101"}
    runs = [job for job in workflow.jobs.values() if job.specs]
    ordered = sorted(runs, key=lambda job: -job.priority)
    seeds = [job.specs[0].seed for job in ordered]
    assert seeds == sorted(seeds)
    kinds = [type(job.specs[0]) for job in ordered if job.specs[0].seed == 0]
    row = [Pretrain, Finetune, Finetune, Probe, Probe]
    assert kinds == [*row[1:], *4 * row, Measure]
    assert [job.specs[0].head for job in ordered[:2]] == ["linear", "attentive"]
    assert [job.specs[0].kind for job in ordered[2:4]] == ["logistic", "knn"]
    prepared = [job for job in workflow.jobs.values() if job.rule == "prepare"]
    assert min(job.priority for job in prepared) >= max(job.priority for job in runs)


def test_hmdb51_is_probed_where_it_is_given(source):
    """Without a source or an index of HMDB51, the study leaves it out."""
    config = {"study": "day", "ucf101": source}
    alone, both = (Workflow(config | more).plan for more in ({}, {"hmdb51": source}))
    assert {cell.dataset for cell in both.cells} == {"ucf101", "hmdb51"}
    added = [both.specs[run_id] for run_id in both.specs.keys() - alone.specs.keys()]
    assert {spec.data.dataset for spec in added} == {"hmdb51"}
    assert {type(spec) for spec in added} == {Finetune, Probe, Measure}
    assert {spec.head for spec in added if spec.stage == "finetune"} == {"attentive"}


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
