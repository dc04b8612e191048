"""Train longer on gestures: was studies/gestures.py too short for pretraining to help?

    python studies/gestures_longer.py train    # repeat to continue
    python studies/gestures_longer.py table    # docs/gestures-longer.csv and the intervals

`python studies/gestures.py prepare` comes first. studies/gestures.md lists the runs, when to stop,
and the predictions. Random weights and 2,000 steps are those of docs/gestures.csv.
"""

import argparse
from collections.abc import Mapping

import gestures
import pandas as pd

from mgm.results.archive import unpack
from mgm.results.frame import read_specs
from mgm.results.statistics import over_seeds
from mgm.spec import Finetune, Pretrain, Probe, RunOptions
from mgm.stages.job import Workplace

RESULTS = gestures.RESULTS.with_name("gestures-longer")
CSV = gestures.DOCS / "gestures-longer.csv"
# Masks of each number of steps.
PLAN = {16_000: ("tube", "block", "mgm"), 32_000: ("tube",)}
SEEDS = (301, 302, 303, 304)


def longer(
    parent: Pretrain, runs: Mapping[tuple[str, str], Probe | Finetune], steps: int
) -> tuple[Pretrain, dict[tuple[str, str], Probe | Finetune]]:
    """Return a pretraining run of more steps, and the runs that start from its weights."""
    optim = parent.optim.model_copy(update={"steps": steps})
    parent = parent.model_copy(update={"optim": optim})
    update = {"parent": parent.run_id}
    return parent, {name: run.model_copy(update=update) for name, run in runs.items()}


def train(seeds: list[int], steps: int) -> None:
    """Run what is missing, all masks of a seed before the next seed."""
    unpack(RESULTS)
    execution = Workplace(RESULTS, {"gestures": gestures.DATA}, RunOptions(cache_mb=1500))
    for seed in seeds:
        of_masks = gestures.specs(seed)
        for mask in PLAN[steps]:
            parent, runs = of_masks[mask]
            assert parent
            gestures.run_mask(*longer(parent, runs, steps), execution)
    print("every seed is done", flush=True)


def probes() -> pd.DataFrame:
    """Return a row per run that measures accuracy, as gestures.py does, with its `steps`.

    A seed counts for a way and a number of steps if all masks of the plan are done.
    """
    runs, specs_of = gestures.measured(RESULTS), read_specs(RESULTS)
    parents = [specs_of[specs_of[run].parent] for run in runs.run_id]
    runs.insert(0, "steps", [parent.optim.steps for parent in parents])
    size = runs.groupby(["steps", "seed", "way"]).run_id.transform("size")
    planned = runs.steps.map({steps: len(masks) for steps, masks in PLAN.items()})
    whole = runs[size == planned * len(gestures.LABELS)]
    return whole.sort_values("steps", kind="stable")


def estimates(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per steps, way, labels and quantity, with its 95 % interval over seeds.

    Differences are paired by seed, also those from random weights and from 2,000 steps.
    """
    first = pd.read_csv(gestures.DOCS / "gestures.csv")
    rows = []
    for (steps, way, labels), some in runs.groupby(["steps", "way", "labels"], sort=False):
        wide = some.pivot(index="seed", columns="mask", values="top1")
        short = first.query("way == @way and labels == @labels")
        short = short.pivot(index="seed", columns="mask", values="top1").loc[wide.index]
        titles = {mask: gestures.TITLES[mask] for mask in PLAN[steps]}
        found = {title: wide[mask] for mask, title in titles.items()}
        found |= {f"{t} minus random weights": wide[m] - short["none"] for m, t in titles.items()}
        found |= {f"{t} minus 2,000 steps": wide[m] - short[m] for m, t in titles.items()}
        found |= {
            f"MGM minus {gestures.OTHERS[mask]}": wide["mgm"] - wide[mask]
            for mask in titles
            if "mgm" in titles and mask != "mgm"
        }
        rows += [
            (steps, way, labels, name, *over_seeds(values.tolist()))
            for name, values in found.items()
        ]
    columns = ["steps", "way", "labels", "what", "mean", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "table"))
    parser.add_argument("--steps", nargs="+", type=int, choices=PLAN, default=list(PLAN))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    args = parser.parse_args()
    if args.what == "train":
        for steps in args.steps:
            train(args.seeds, steps)
        return
    runs = probes()
    runs.round(2).to_csv(CSV, index=False, lineterminator="\n")
    print(estimates(runs).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
