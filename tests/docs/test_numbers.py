"""Every "x [a, b]" in README, docs and charts is a number of results/."""

import re
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mgm.drawn.params import world
from mgm.report.cells import Places, by_place, cells, differences, verdicts
from mgm.results.statistics import Estimate, student
from mgm.spec import Data, Mask, Model, Pretrain
from mgm.spec.compute import multiply_adds
from tests.helpers.archived import archived

ROOT = Path(__file__).parents[2]
CHARTS = sorted((ROOT / "docs/charts").glob("*.svg"))
OTHERS = [ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "studies" / "confirmation.yaml"]
PAGES = [*OTHERS, *CHARTS]
# Study confirmation's draws of fine-tuning, and the studies where masks have equal rates.
DRAWS = ("worlds", "draw-2", "draw-3")
EQUAL = (("mini", "table4e"), ("ratio", "ratio"))
NUMBER = re.compile(r"-?\d+\.\d \[-?\d+\.\d, -?\d+\.\d\]")
NAMES = [path.name.removesuffix(".csv.xz") for path in (ROOT / "results").glob("*.csv.xz")]


@pytest.fixture(scope="module")
def shown() -> set[str]:
    """Return the means and intervals of all that the published studies show, and of pooled ones."""
    texts = {text_of(one) for one in pooled()}
    for published in map(archived, NAMES):
        for name, study in published.studies.items():
            own = by_place(published.frame[published.frame.study == name], study.overlap)
            charts = [view for view in study.views.values() if view.minus]
            pairs = [(row, view.minus) for view in charts for row in view.rows or study.rows]
            tables = [cells(own), differences(own, study, [*study.compare, *pairs])]
            if study.predictions:
                tables.append(verdicts(published, name))
            for table in tables:
                rows = zip(table["mean"], table.low, table.high)
                texts |= {text_of(Estimate(*row)) for row in rows}
    return texts


def text_of(one: Estimate) -> str:
    return f"{one.mean:.1f} [{one.low:.1f}, {one.high:.1f}]".replace("-0.0", "0.0")


@cache
def places(suite: str, study: str) -> Places:
    """Return the numbers of a study by dataset and column."""
    frame = archived(suite).frame
    return by_place(frame[frame.study == study])


def units(
    suite: str, study: str, dataset: str, column: str, rows: Sequence[str]
) -> dict[tuple[int, int], float]:
    """Return a number per unit of what is paired of rows."""
    return places(suite, study)[dataset, column].paired(rows)


def pooled() -> Iterator[Estimate]:
    """Yield what the page says of other units, and of parts of a difference."""
    settings = archived("ladder").studies["ladder"].datasets["discs-mean"].mean_of
    for rows in (("Random block", "Random tube"), ("MGM", "MGM, shuffled guidance")):
        parts = [units("ladder", "ladder", name, "Linear probe", rows) for name in settings]
        yield student([sum(part.values()) / len(part) for part in parts])
    # Confirmation: steps of the lead of 4.4, and parts of its worlds.
    confirmed = partial(units, "confirmation", "confirmation")
    paper, tube, region = "Random Tube", "Random Tube at ratio 0.75", "MGM, shuffled"
    tuned, probed = ("tuned", "Fine-tuned"), ("probed", "Linear probe")
    discs, person = {"layout": "sway"}, {"layout": "people"}
    for place, rows, kind in (
        (tuned, (tube, paper), {}),
        (tuned, (region, tube), {}),
        (tuned, ("MGM", region), discs | {"sprites": 2}),
        (probed, ("MGM", tube), person),
    ):
        yield of_kind(confirmed(*place, rows), kind)
    for rows in (("MGM", tube), (region, tube), ("MGM", "No pretraining")):
        yield with_draws([confirmed(name, "Fine-tuned", rows) for name in DRAWS])
    headline = units("headline", "headline", *tuned, ("MGM", paper))
    yield of_kind(headline, person)
    # Shuffled minus the tube, which the study does not compare.
    yield student([*units("headline", "headline", *tuned, (region, paper)).values()])
    # At equal rates of both masks.
    mini, ratio = (partial(units, *names) for names in EQUAL)
    dense = ("MGM (Dense)", "MGM (Dense), shuffled")
    for column in ("Linear probe", "Fine-tuned"):
        both = mini("ssv2", column, dense) | ratio("worlds", column, ("MGM", region))
        yield of_kind(both, {})
    yield of_kind(both, discs | {"sprites": 2})
    yield of_kind(mini("ssv2", "Linear probe", ("Random Block", tube)), discs)


def of_kind(numbers: dict[tuple[int, int], float], kind: dict[str, Any]) -> Estimate:
    """Return the mean over the worlds whose parameters contain those of a kind."""
    return student([x for (seed, _), x in numbers.items() if kind.items() <= world(seed).items()])


def with_draws(numbers: Sequence[dict[tuple[int, int], float]]) -> Estimate:
    """Return the mean over worlds and draws, where all but the first draw are the worlds' common.

    The variance of the mean over worlds gains that of the common draws, from a two-way analysis of
    variance; the interval has the degrees of freedom of worlds.
    """
    table = pd.DataFrame(numbers).to_numpy().T
    worlds, draws = table.shape
    plain = student([*table.mean(axis=1)])
    of_draws = table.mean(axis=0) - plain.mean
    rest = table - table.mean(axis=1, keepdims=True) - of_draws
    error = (rest**2).sum() / ((worlds - 1) * (draws - 1))
    drawn = max(0.0, (of_draws**2).sum() / (draws - 1) - error / worlds)
    quantile = stats.t.ppf(0.975, worlds - 1)
    half = float(
        np.hypot((plain.high - plain.low) / 2, quantile * (drawn * (draws - 1)) ** 0.5 / draws)
    )
    return Estimate(plain.mean, plain.mean - half, plain.mean + half)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_of_a_page_are_those_of_the_results(page, shown):
    # Lines end within numbers.
    text = " ".join(page.read_text().split()).replace(" % [", " [").replace("\N{MINUS SIGN}", "-")
    numbers = set(NUMBER.findall(text))
    assert numbers or page.name in ("computing.svg", "following.svg")
    assert numbers <= shown, numbers - shown


def test_66_percent_fewer_epochs_are_45_percent_less_computing():
    """What the page says of Figure 1, with linear interpolation of the paper's VideoMAE."""
    cost = {
        name: multiply_adds(
            Pretrain(data=Data(dataset="ssv2"), model=Model(), mask=Mask(name=name, ratio=ratio))
        )
        for name, ratio in (("mgm", 0.75), ("tube", 0.9))
    }
    epoch = cost["mgm"] / cost["tube"]
    assert (round(epoch, 2), round(100 - 100 * epoch / 3)) == (1.65, 45)
    table = pd.read_csv(ROOT / "mgm/study/paper/table1.csv").set_index("Model")
    ahead = {}
    for name in ("SSv2", "K400"):
        own = table[[f"{name}: Epochs", f"{name}: Top1"]].apply(pd.to_numeric, errors="coerce")
        mgm, tube = (own.loc[method].dropna().to_numpy() for method in ("MGM", "VideoMAE"))
        for epochs, top1 in mgm:
            if tube[0, 0] <= epochs * epoch <= tube[-1, 0]:
                ahead[name, epochs] = round(top1 - np.interp(epochs * epoch, *tube.T), 1)
    assert ahead == {("SSv2", 800): 0.5, ("SSv2", 1200): 1.1, ("K400", 800): -0.2}
