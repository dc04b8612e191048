"""The page's specs and class train, stop and resume to the same weights."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgm.errors import UserError
from mgm.spec import Optim, RunOptions
from mgm.training import build_optimiser, train
from tests.training.test_loop import OPTIM, Stop, quiet, toy, weights

PAGE = (Path(__file__).parents[2] / "docs" / "add-an-optimiser.md").read_text()
(LION,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PROJECT = tomllib.loads(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])["project"]
SPECS = [json.loads(text)["optim"] for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


@pytest.fixture(autouse=True)
def lion(tmp_path, monkeypatch):
    (tmp_path / "lion.py").write_text(LION)
    (tmp_path / "code.py").write_text("raise SystemExit('it ran')")
    # What pip writes for the page's pyproject.toml.
    installed = tmp_path / "lion-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Name: lion\nVersion: 1\n")
    ((group, points),) = PROJECT["entry-points"].items()
    lines = [f"{name} = {value}" for name, value in points.items()]
    (installed / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("fields", SPECS, ids=lambda fields: fields["name"])
def test_it_trains_and_resumes_bit_for_bit(tmp_path, fields):
    def run(**how):
        optim = Optim.model_validate({**OPTIM.model_dump(), **fields, "lr": 0.01})
        return replace(toy(**how), optim=optim)

    whole, resumed = run(), run()
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    train(whole, tmp_path / "whole", show=quiet)
    with pytest.raises(Stop):
        train(run(stop_at=9), tmp_path / "stopped", RunOptions(checkpoint_s=0), quiet)
    train(resumed, tmp_path / "stopped", show=quiet)
    assert torch.equal(weights(resumed), weights(whole))
    assert not torch.equal(weights(whole), weights(run()))


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("Lion", {}, "neither an optimiser of torch.optim"),
        ("lion:Tiger", {}, "neither an optimiser of torch.optim"),
        ("code:Lion", {}, "neither an optimiser of torch.optim"),
        ("lr_scheduler", {}, "neither an optimiser of torch.optim"),
        ("LBFGS", {}, "closure"),
        ("SparseAdam", {}, "dense gradients"),
        ("SGD", {"momentum": -1}, "momentum"),
        ("SGD", {"speed": 1}, "speed"),
    ],
)
def test_a_name_or_option_that_does_not_fit_is_one_line(name, options, why):
    with pytest.raises(UserError, match=why) as caught:
        build_optimiser(torch.nn.Linear(2, 2), Optim(name=name, options=options))
    assert "\n" not in str(caught.value)
