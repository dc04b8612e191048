"""Train eight times longer on gestures: was studies/gestures.py too short for pretraining to help?

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
from mgm.results.statistics import over_seeds
from mgm.spec import Finetune, Pretrain, Probe, RunOptions
from mgm.stages.finetune import finetune
from mgm.stages.job import Workplace
from mgm.stages.pretrain import pretrain
from mgm.stages.probe import probe
from mgm.stages.runner import run_all

RESULTS = gestures.RESULTS.with_name("gestures-longer")
CSV = gestures.DOCS / "gestures-longer.csv"
MASKS, STEPS, SEEDS = ("tube", "block", "mgm"), 16_000, (301, 302, 303, 304)


def longer(
    parent: Pretrain, runs: Mapping[tuple[str, str], Probe | Finetune]
) -> tuple[Pretrain, dict[tuple[str, str], Probe | Finetune]]:
    """Return a pretraining run of more steps, and the runs that start from its weights."""
    optim = parent.optim.model_copy(update={"steps": STEPS})
    parent = parent.model_copy(update={"optim": optim})
    update = {"parent": parent.run_id}
    return parent, {name: run.model_copy(update=update) for name, run in runs.items()}


def train(seeds: list[int]) -> None:
    """Run what is missing, all masks of a seed before the next seed."""
    unpack(RESULTS)
    execution = Workplace(RESULTS, {"gestures": gestures.DATA}, RunOptions(cache_mb=1500))
    for seed in seeds:
        of_masks = gestures.specs(seed)
        for mask in MASKS:
            parent, runs = of_masks[mask]
            assert parent
            parent, runs = longer(parent, runs)
            run_all([parent], pretrain, execution)
            for way in gestures.WAYS:
                some = [run for (of, _), run in runs.items() if of == way]
                run_all(some, finetune if way == "fine-tuned" else probe, execution)
    print("every seed is done", flush=True)


def probes() -> pd.DataFrame:
    """Return a row per run that measures accuracy, of the complete seeds, as gestures.py does."""
    return gestures.probes(RESULTS, len(MASKS))


def estimates(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per way, number of labels and quantity, with its 95 % interval over seeds.

    Differences are paired by seed, also those from random weights and from 2,000 steps.
    """
    first = pd.read_csv(gestures.DOCS / "gestures.csv")
    rows = []
    for (way, labels), some in runs.groupby(["way", "labels"], sort=False):
        wide = some.pivot(index="seed", columns="mask", values="top1")
        short = first.query("way == @way and labels == @labels")
        short = short.pivot(index="seed", columns="mask", values="top1").loc[wide.index]
        titles = {mask: gestures.TITLES[mask] for mask in MASKS}
        found = {title: wide[mask] for mask, title in titles.items()}
        found |= {f"{t} minus random weights": wide[m] - short["none"] for m, t in titles.items()}
        found |= {f"{t} minus 2,000 steps": wide[m] - short[m] for m, t in titles.items()}
        found |= {f"MGM minus {gestures.OTHERS[m]}": wide["mgm"] - wide[m] for m in MASKS[:2]}
        rows += [
            (way, labels, name, *over_seeds(values.tolist())) for name, values in found.items()
        ]
    return pd.DataFrame(rows, columns=["way", "labels", "what", "mean", "low", "high", "seeds"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "table"))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    args = parser.parse_args()
    if args.what == "train":
        return train(args.seeds)
    runs = probes()
    runs.round(2).to_csv(CSV, index=False, lineterminator="\n")
    print(estimates(runs).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
