import json
from pathlib import Path

import pytest
import torch

from mgm.data.synthetic.generator import generate
from mgm.spec import (
    Augment,
    Decoder,
    Finetune,
    FinetuneOptim,
    Mask,
    Optim,
    Pretrain,
    Probe,
    RunOptions,
    Views,
)
from mgm.stages.job import Workplace
from tests.helpers.small_runs import PARAMS, SMALL

OPTIM = {"lr": 0.064, "min_lr": 1e-4, "batch": 4, "steps": 12, "precision": "float32"}


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """A tiny generated set, drawn once."""
    out = tmp_path_factory.mktemp("data") / "ssv2"
    generate(PARAMS, out)
    return out


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """Read in the test's own process, also with a GPU, where workers are the default."""
    monkeypatch.setattr("mgm.stages.job.cores", lambda: 1)


@pytest.fixture
def execution(tmp_path, videos) -> Workplace:
    torch.set_num_threads(1)
    return Workplace(tmp_path / "results", {"ssv2": videos}, RunOptions(cache_mb=100))


@pytest.fixture
def pretraining() -> Pretrain:
    return Pretrain(
        **SMALL,
        decoder=Decoder(width=8, depth=1, heads=2),
        mask=Mask(name="mgm"),
        optim=Optim(**OPTIM),
        std_floor=0.1,
    )


@pytest.fixture
def finetuning(pretraining) -> Finetune:
    return Finetune(
        **SMALL,
        parent=pretraining.run_id,
        optim=FinetuneOptim(**OPTIM),
        drop_path=0.3,
        head_dropout=0.3,
        views=Views(temporal=2, spatial=1),
    )


@pytest.fixture
def augmented(finetuning) -> Finetune:
    """Return a fine-tuning spec with every augmentation of Table 6 and of VideoMAE."""
    everything = Augment(
        rand="rand-m7-n4-mstd0.5-inc1", erasing=0.25, mixup=0.8, cutmix=1.0, repeats=2
    )
    return finetuning.model_copy(
        update={
            "augment": everything,
            "clips": finetuning.clips.model_copy(update={"crop": "resized", "flip": True}),
        }
    )


@pytest.fixture
def probing(pretraining) -> Probe:
    return Probe(**SMALL, parent=pretraining.run_id, views=Views(temporal=2, spatial=1))


@pytest.fixture
def result_of(execution):
    def read(spec):
        return json.loads((execution.results / spec.run_id / "result.json").read_text())

    return read
