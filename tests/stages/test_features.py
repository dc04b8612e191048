import shutil
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mgm.errors import UserError
from mgm.spec import Probe
from mgm.stages import probe_kinds
from mgm.stages.measure import simple_features
from mgm.stages.measure.simple_features import motion_features, window
from mgm.stages.probe import fit_draws, probe
from mgm.stages.runner import run_all
from mgm.video import read_clip

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
        "view_batches",
        lambda *args, **options: pytest.fail("decodes"),
    )
    run_all([kinds["logistic"], kinds["sgd"], kinds["knn"]], probe, execution)
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


def test_a_controls_features_stand_beside_each_clips(execution, kinds, monkeypatch):
    seen = []

    def fit(job, draws, videos, train, test):
        seen.append((videos, train, job.index.test, test))
        return fit_draws(job, draws, videos, train, test)

    monkeypatch.setattr(probing_module, "fit_draws", fit)
    beside = kinds["logistic"].model_copy(update={"beside": "vector_quadrants"})
    run_all([kinds["logistic"], beside], probe, execution)
    (videos, *_), (_, train, tested, test) = seen
    assert (execution.results / beside.run_id / "result.json").is_file()
    for split, of, plain in ((train, videos, seen[0][1]), (test, tested, seen[0][3])):
        own = [motion_features(read_clip(v.path, window(v), motion=True)) for v in of]
        width = plain.x_ND.shape[1]
        assert (split.x_ND[:, :width] == plain.x_ND).all()
        for x_D, sample in zip(split.x_ND[:, width:].numpy(), split.sample_N):
            assert np.array_equal(x_D, own[sample]["vector_quadrants"].astype(np.float32))
    # Another probe of these videos takes them from the cache, unless the file is damaged.
    for name in (execution.results / "features").glob("*.npy"):
        name.write_bytes(b"")
        break
    monkeypatch.setattr(simple_features, "read_all", counted(simple_features.read_all, calls := []))
    (execution.results / beside.run_id / "result.json").unlink()
    run_all([beside], probe, execution)
    assert len(calls) == 1
    assert torch.equal(seen[2][1].x_ND, train.x_ND)
    assert torch.equal(seen[2][3].x_ND, test.x_ND)


def counted(function, calls):
    def call(*args, **options):
        calls.append(args)
        return function(*args, **options)

    return call


def test_no_attentive_probe_has_a_controls_features_beside(kinds):
    fields = kinds["v-jepa"].model_dump(mode="json") | {"beside": "vector_histogram"}
    with pytest.raises(ValidationError):
        Probe.model_validate(fields)
