"""Tests of the benches against peers: every comparison measures both sides."""

import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
import torch

from mgm.models import build_mae
from mgm.spec import Decoder, Pretrain
from tests.helpers.small_runs import SMALL

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import measuring
    import peers

    return measuring, peers


def test_peers_take_turns_with_us_and_the_first_turn_warms_up(bench):
    measuring, _ = bench
    order, now = [], [0.0]

    def taking(name: str, seconds: list[float]):
        def work():
            order.append(name)
            now[0] += seconds[-1] if len(order) > 2 else 100.0

        return work

    found = measuring.compared(
        measuring.Comparison(
            "x", taking("ours", [2.0]), {"p": (taking("p", [3.0]), 2)}, 3, lambda: now[0]
        )
    )
    assert found == ["| x, against p | 2 s | 3 s | 1.50 | at least 2 | missed |"]
    assert [name for name, _ in groupby(order)] == ["p", "ours", "p", "ours", "p"]


@pytest.mark.slow
def test_a_step_is_compared_in_both_precisions(bench):
    _, peers = bench
    comparisons = list(peers.step(1, size=32))
    assert len(comparisons) == 2
    for comparison in comparisons:
        assert comparison.ours() > 0
        assert all(work() > 0 for work, _ in comparison.peers.values())


def test_a_step_on_all_tokens_has_the_same_decoder(bench):
    """The encoder alone sees more tokens: 18 in place of 6."""
    import papers

    spec = Pretrain(**SMALL, decoder=Decoder(width=8, depth=1, heads=2))
    model, seen = build_mae(spec), []
    model.encoder.register_forward_hook(lambda module, args, x_BLD: seen.append(x_BLD.shape[1]))
    frames_BTHWC = torch.zeros(1, 4, 24, 24, 3, dtype=torch.uint8)
    masked_BL = torch.arange(18)[None] >= model.visible
    shapes = {
        x.shape
        for x in (
            *model.predict(frames_BTHWC, masked_BL),
            *papers.see_all(model, frames_BTHWC, masked_BL),
        )
    }
    assert len(shapes) == 1
    assert seen == [6, 18]
    comparison = papers.hidden_step(1, spec)
    assert comparison.ours() > 0
    assert all(work() > 0 for work, _ in comparison.peers.values())


@pytest.mark.slow
def test_the_loader_reads_sources_and_copies(bench, tmp_path, monkeypatch):
    from mgm.data.synthetic.generator import generate
    from mgm.data.synthetic.params import Synthetic

    _, peers = bench
    params = Synthetic(classes=2, train_per_class=1, test_per_class=1, size=64, frames=30)
    monkeypatch.setattr(peers, "draw", lambda folder: generate(params, folder / "drawn"))
    kinds = []
    for comparison in peers.loader(1):
        comparison.ours()
        assert comparison.peers
        for work, _ in comparison.peers.values():
            work()
        kinds.append("copy" in comparison.name)
    assert kinds == [False, True]


@pytest.mark.slow
def test_an_unknown_bench_is_one_line():
    done = subprocess.run([sys.executable, BENCH, "loder"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("no such bench: loder; choose from loader, step, papers, goals\n")


@pytest.mark.slow
def test_each_size_has_a_step_on_the_device(bench, capsys):
    import gpu

    for backbone in gpu.BATCH:
        gpu.steps(True, backbone)
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(",")[0] for row in rows] == ["| vit-b", "| vit-l"]
    assert all("clips/s, MFU" in row for row in rows)
