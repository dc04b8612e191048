import sys
from dataclasses import replace

import pytest
import torch

from mgm.errors import UserError
from mgm.models import build_mae, save_weights
from mgm.stages import probe_kinds
from mgm.stages.probe import probe
from mgm.stages.runner import run_all


@pytest.fixture
def kinds(probing):
    random = probing.model_copy(update={"parent": "", "neighbours": 3})
    return {kind: random.model_copy(update={"kind": kind}) for kind in probe_kinds.KINDS}


def test_kinds_of_a_job_decode_once(execution, kinds, monkeypatch, result_of):
    run_all([kinds["logistic"]], probe, execution)
    with monkeypatch.context() as changed:
        decodes = lambda *args, **options: pytest.fail("decodes")  # noqa: E731
        changed.setattr(sys.modules["mgm.stages.frozen"], "test_loader", decodes)
        run_all([kinds["knn"]], probe, execution)
    assert set(result_of(kinds["knn"])["metrics"]) == {"top1"}
    # Another seed has other random weights.
    other = kinds["knn"].model_copy(update={"seed": 1})
    run_all([other], probe, execution)
    alone = replace(execution, results=execution.results / "alone", features={})
    run_all([other], probe, alone)
    first, second = (place.results / other.run_id for place in (execution, alone))
    assert (first / "predictions.csv").read_text() == (second / "predictions.csv").read_text()


@pytest.mark.parametrize("kind", ["logistic", "knn"])
def test_features_that_are_not_finite_are_refused(execution, pretraining, probing, kind):
    model = build_mae(pretraining)
    with torch.no_grad():
        model.encoder.norm.weight.fill_(1e30)
        model.encoder.norm.bias.fill_(3e38)
        model.encoder.blocks[1].mlp.fc2.weight.mul_(1e30)
    folder = execution.results / pretraining.run_id
    folder.mkdir(parents=True)
    save_weights(model, folder / "weights.safetensors")
    with pytest.raises(UserError, match="not finite"):
        run_all([probing.model_copy(update={"kind": kind, "neighbours": 3})], probe, execution)
