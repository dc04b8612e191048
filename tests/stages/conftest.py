"""A small prepared set, and runs of each kind on it. They are made once."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from mgm.data.index import Index, read_index
from mgm.spec import Mask, Probe, RunOptions, Views
from mgm.stages.run import RunContext, run_specs
from tests.helpers.small_runs import FINETUNE, PRETRAIN, SMALL

TUBE = PRETRAIN.model_copy(update={"mask": Mask(name="tube")})
TUNED = FINETUNE.model_copy(update={"parent": PRETRAIN.run_id})
PROBE = Probe(**SMALL, parent=PRETRAIN.run_id, views=Views(temporal=2, spatial=1))


class Trained(NamedTuple):
    """A prepared set, and the results of PRETRAIN, TUBE, TUNED and PROBE on it."""

    data: Path
    results: Path

    @property
    def index(self) -> Index:
        return read_index(self.data)

    def context(self, folder: Path, device: str = "cpu", **changes: Any) -> RunContext:
        """Return the context of a run in a folder of its own, with a changed index."""
        folder.mkdir(exist_ok=True, parents=True)
        index = replace(self.index, **changes)
        return RunContext(folder, self.results, index, RunOptions(), torch.device(device), 0)


@pytest.fixture(scope="session")
def trained(small, tmp_path_factory) -> Trained:
    results = tmp_path_factory.mktemp("results")
    run_specs([PRETRAIN, TUBE, TUNED, PROBE], {"ssv2": [small]}, results, RunOptions(workers=0))
    return Trained(small, results)
