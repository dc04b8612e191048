import shutil
import sys

import pytest

from mgm.errors import UserError
from mgm.stages import probe_kinds
from mgm.stages.probe import probe
from mgm.stages.runner import run_all

probing_module = sys.modules["mgm.stages.probe"]


def flipped(data: bytes) -> bytes:
    """Change one byte of an array; the archive's checksum detects it."""
    return data[:200] + bytes([data[200] ^ 1]) + data[201:]


@pytest.fixture
def kinds(probing, monkeypatch):
    monkeypatch.setattr(probe_kinds, "ATTENTIVE_STEPS", 2)
    monkeypatch.setattr(probe_kinds, "ATTENTIVE_EPOCHS", 1)
    random = probing.model_copy(update={"parent": "", "neighbours": 3})
    return {kind: random.model_copy(update={"kind": kind}) for kind in probe_kinds.KINDS}


def test_kinds_decode_once_and_leave_no_tokens(execution, kinds, monkeypatch, result_of):
    run_all([kinds["v-jepa"]], probe, execution)
    left = sorted(path.name for path in (execution.results / "features").iterdir())
    assert len(left) == 2  # a file per split
    assert all(name.endswith(".npz") for name in left)
    monkeypatch.setattr(
        sys.modules["mgm.stages.frozen"],
        "test_loader",
        lambda *args, **options: pytest.fail("decodes"),
    )
    run_all([kinds["logistic"], kinds["knn"]], probe, execution)
    assert set(result_of(kinds["v-jepa"])["metrics"]) == {"top1", "rate"}
    assert set(result_of(kinds["knn"])["metrics"]) == {"top1"}


def test_features_that_were_there_change_no_prediction(execution, kinds, tmp_path):
    (first,) = (execution.results / kinds["logistic"].run_id,)
    run_all([kinds["logistic"]], probe, execution)
    alone = (first / "predictions.csv").read_text()
    (first / "result.json").unlink()
    run_all([kinds["v-jepa"], kinds["logistic"]], probe, execution)
    assert (first / "predictions.csv").read_text() == alone


@pytest.mark.parametrize("kind", ["logistic", "v-jepa"])
@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"", flipped])
def test_damaged_features_are_computed_again(execution, kinds, damage, kind, monkeypatch):
    monkeypatch.setattr(probing_module, "forget_tokens", lambda *args: None)
    run_all([kinds[kind]], probe, execution)
    run = execution.results / kinds[kind].run_id
    whole = (run / "predictions.csv").read_text()
    for path in (execution.results / "features").glob("*.npz"):
        path.write_bytes(damage(path.read_bytes()))
    if damage is not flipped:
        for path in (execution.results / "features").glob("*.npy"):
            path.write_bytes(damage(path.read_bytes()))
    (run / "result.json").unlink()
    run_all([kinds[kind]], probe, execution)
    assert (run / "predictions.csv").read_text() == whole


def test_a_disk_without_room_for_tokens_is_one_line(execution, kinds, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"results/features: .*tokens.* 0\.0 GB"):
        run_all([kinds["v-jepa"]], probe, execution)
