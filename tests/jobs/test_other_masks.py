"""Other papers' masks, and the readings of ours that are options, pretrain as any mask does."""

import pytest

from mgm.jobs.pretrain import pretrain
from mgm.jobs.runner import run_all
from mgm.runs.log import log_lines
from mgm.spec import Mask

MASKS = [
    Mask(name="warped"),
    Mask(name="motion-bins"),
    Mask(name="multi-block"),
    Mask(name="green-noise"),
    Mask(name="tube", predicts="running-cell"),
    Mask(name="mgm", distance="none"),
]


def test_they_pretrain(execution, pretraining):
    runs = [pretraining.model_copy(update={"mask": mask, "optim": pretraining.optim.model_copy(update={"steps": 3})}) for mask in MASKS]
    run_all(runs, pretrain, execution)
    losses = [log_lines(execution.results / run.run_id)[-1]["loss"] for run in runs]
    assert all(0 < loss < 10 for loss in losses)
    assert len(set(losses)) == len(losses)  # each hides something else


def test_a_literal_distance_is_for_vectors_alone():
    with pytest.raises(ValueError, match="distance none is for vectors, and guidance is dis"):
        Mask(distance="none", guidance="dis")
