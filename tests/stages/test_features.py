import shutil
import sys

import pytest

from mgm.errors import UserError
from mgm.stages import probe_kinds
from mgm.stages.probe import probe
from mgm.stages.runner import run_all


@pytest.fixture
def kinds(probing, monkeypatch):
    monkeypatch.setattr(probe_kinds, "ATTENTIVE_STEPS", 2)
    monkeypatch.setattr(probe_kinds, "ATTENTIVE_EPOCHS", 1)
    random = probing.model_copy(update={"parent": "", "neighbours": 3})
    return {kind: random.model_copy(update={"kind": kind}) for kind in probe_kinds.KINDS}


def test_four_kinds_decode_once_and_leave_no_tokens(execution, kinds, monkeypatch, result_of):
    run_all([kinds["attentive"]], probe, execution)
    left = sorted(path.name for path in (execution.results / "features").iterdir())
    assert len(left) == 2  # a file per split
    assert all(name.endswith(".npz") for name in left)
    monkeypatch.setattr(
        sys.modules["mgm.stages.probe"],
        "test_loader",
        lambda *args, **options: pytest.fail("decodes"),
    )
    run_all([kinds["logistic"], kinds["sgd"], kinds["knn"]], probe, execution)
    assert set(result_of(kinds["attentive"])["metrics"]) == {"top1", "rate"}
    assert set(result_of(kinds["knn"])["metrics"]) == {"top1"}


def test_features_that_were_there_change_no_prediction(execution, kinds, tmp_path):
    (first,) = (execution.results / kinds["logistic"].run_id,)
    run_all([kinds["logistic"]], probe, execution)
    alone = (first / "predictions.csv").read_text()
    (first / "result.json").unlink()
    run_all([kinds["attentive"], kinds["logistic"]], probe, execution)
    assert (first / "predictions.csv").read_text() == alone


def test_a_disk_without_room_for_tokens_is_one_line(execution, kinds, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match="the tokens of an attentive probe take"):
        run_all([kinds["attentive"]], probe, execution)
