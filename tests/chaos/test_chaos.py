"""Kill real processes five times. `make chaos` does it a hundred times."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from mgm.data.synthetic.generator import generate
from tests.helpers.killer import PARAMS, disturbed, verdict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chaos") / "ssv2"
    generate(PARAMS, folder)
    return folder


def test_runs_killed_at_random_moments_end_bit_equal(data, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        undisturbed = pool.submit(
            disturbed, data, tmp_path / "whole", 0, {"pretrain": 0, "finetune": 0}, print
        )
        kills, outcomes = disturbed(
            data, tmp_path / "killed", 0, {"pretrain": 3, "finetune": 2}, print
        )
        _, whole = undisturbed.result()
    print(verdict(kills))
    assert outcomes == whole
    assert all(outcome["rest"] == [] for outcome in whole.values())
    assert (
        outcomes["finetune"]["weights.safetensors"] != outcomes["pretrain"]["weights.safetensors"]
    )
