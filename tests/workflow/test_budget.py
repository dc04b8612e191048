"""`mgm new-study --hours`: the size of a study by the time that it may take."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.dag.budget import SIZES, Speed, choose, seconds_of
from mgm.dag.workflow import Workflow
from mgm.results.statistics import ENOUGH, FEWEST
from mgm.spec import Pretrain
from mgm.study.schema import load_study, new_study
from tests.helpers.tiny_study import DRAWN

SMALL, LARGE = SIZES
SPEED = Speed(start=5, fixed=0.5, step=0.03, probe=2, controls=6)


def test_a_choice_takes_the_time_that_there_is():
    times = [600, 1800, 7200, 80_000]
    chosen = [choose(SMALL, SPEED, seconds, at_once=2) for seconds in times]
    for seconds, one in zip(times, chosen):
        assert 0.95 * seconds < one.seconds <= seconds
    assert [one.seeds for one in chosen] == sorted(one.seeds for one in chosen)
    assert chosen[0].seeds >= ENOUGH
    # Nine runs on two cores are five rounds.
    (long, _), (short, _) = (seconds_of(3, steps, SPEED, 2) for steps in (3000, 2000))
    assert long - short == pytest.approx(5 * 1000 * SPEED.step)
    # Twice the cores train twice as long.
    more = choose(SMALL, SPEED, 1800, at_once=4)
    assert more.seeds * more.steps > 1.8 * chosen[1].seeds * chosen[1].steps


def test_a_run_that_starts_at_once_has_a_choice_too():
    """A busy machine can measure less than nothing besides the steps."""
    one = choose(SMALL, SPEED._replace(fixed=0, controls=0), 3600, at_once=2)
    assert one.steps >= SMALL.full


def test_more_seeds_than_a_verdict_needs_have_full_steps():
    seen = set()
    for seconds in range(100, 20_000, 100):
        for size in SIZES:
            if one := choose(size, SPEED, seconds, at_once=2):
                seen.add(one.seeds)
                assert one.seeds >= FEWEST
                assert one.steps >= (size.full if one.seeds > ENOUGH else size.fewest)
            elif size == SMALL:
                assert seconds_of(FEWEST, size.fewest, SPEED, 2)[0] > seconds
    assert {FEWEST, ENOUGH, ENOUGH + 2} < seen


def test_the_chosen_study_has_these_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(Path("data"))
    one = choose(LARGE, SPEED, 7200, at_once=2)
    path = Path("mine.yaml")
    path.write_text(new_study(path, Path("data"), None, one.fields()))
    assert load_study(path).seeds == tuple(range(one.seeds))
    workflow = Workflow({"study": str(path)})
    trained = [spec for spec in workflow.specs.values() if isinstance(spec, Pretrain)]
    assert len(trained) == 3 * one.seeds
    assert {(spec.optim.steps, spec.model.width) for spec in trained} == {(one.steps, 96)}
    assert max(map(len, workflow.batches.values())) <= one.per_job


def prepare(folder: Path) -> None:
    """Draw a small set of videos."""
    params = folder.with_suffix(".json")
    params.write_text(json.dumps(DRAWN))
    words = ["prepare", "drawn", "--params", str(params), "--out", str(folder), "--processes", "1"]
    assert CliRunner().invoke(app, words).exit_code == 0


@pytest.mark.slow
def test_a_few_steps_are_measured_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(Path("data"))
    words = ["new-study", "--root", "data", "--out", "mine.yaml", "--hours"]
    done = CliRunner().invoke(app, [*words, "0.001"])
    assert "--hours 0.001: the smallest study" in str(done.exception)
    assert not Path("mine.yaml").exists()
    done = CliRunner().invoke(app, [*words, "1"])
    assert done.exit_code == 0, done.output
    assert "ms per step" in done.output
    assert len(load_study(Path("mine.yaml")).seeds) >= ENOUGH
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["data"]
