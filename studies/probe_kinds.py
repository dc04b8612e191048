"""How the probe decides: the same pretrained weights of scale mini under every probe kind.

    python studies/probe_kinds.py train    # in the background; called again, it continues
    python studies/probe_kinds.py table    # docs/probe-kinds.csv, and means with their intervals

The weights are those of Table 4e at scale mini, so the runs of kind `logistic` are that table's.
Seeds are the outer loop: whenever it is stopped, every mask has as many.
"""

import argparse
from pathlib import Path

import pandas as pd

from mgm.data.synthetic.make import generate
from mgm.data.synthetic.params import parse_params
from mgm.paper import recipes
from mgm.paper.scales import Scale, load_scale
from mgm.report.statistics import over_seeds
from mgm.results.frame import frame
from mgm.spec import Probe, RunOptions
from mgm.stages.data import Workplace
from mgm.stages.pretrain import pretrain
from mgm.stages.probe import probe
from mgm.stages.runner import run_all

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results/probe-kinds"
SEEDS = (0, 1, 2)
MASKS = ("", "block", "tube", "mgm")
# `attentive` first: its pass over the videos leaves what the other kinds read.
KINDS = ("attentive", "logistic", "sgd", "knn")


def train(seeds: tuple[int, ...] = SEEDS) -> None:
    """Run what is not done."""
    scale, place = mini()
    execution = Workplace(RESULTS, {"ssv2": place}, RunOptions(cache_mb=900))
    for seed in seeds:
        for mask in MASKS:
            parent = ""
            if mask:
                spec = scale.apply(recipes.pretrain("ssv2", mask, 200), seed)
                run_all([spec], pretrain, execution)
                parent = spec.run_id
            run_all(probes(scale, parent, seed), probe, execution)


def mini() -> tuple[Scale, Path]:
    """Return scale mini and the folder of its videos, drawn if they are not there."""
    scale = load_scale(ROOT / "workflow/config/mini.yaml")
    dataset = scale.datasets["ssv2"]
    params = parse_params(dataset.generate, "mini")
    place = ROOT / f"data/ssv2-{params.digest}"
    if not (place / "index.json").exists():
        generate(params, place)
    known = {"ssv2": dataset.model_copy(update={"digest": params.digest})}
    return scale.model_copy(update={"datasets": known}), place


def probes(scale: Scale, parent: str, seed: int) -> list[Probe]:
    """Return a probe of every kind, otherwise Table 4e's."""
    spec = scale.apply(recipes.probe("ssv2", parent, recipes.MODELS["vit-b"]), seed)
    return [spec.model_copy(update={"kind": kind}) for kind in KINDS]


def found() -> pd.DataFrame:
    """Return a row per probe: `kind`, `mask`, `seed`, `top1`, `n_test`, `run_id`, `commit`."""
    scale, _ = mini()
    kinds = dict[str, tuple[str, str]]()
    for seed in SEEDS:
        for mask in MASKS:
            parent = scale.apply(recipes.pretrain("ssv2", mask, 200), seed).run_id if mask else ""
            specs = probes(scale, parent, seed)
            kinds |= {spec.run_id: (spec.kind, mask or "none") for spec in specs}
    runs = frame(RESULTS).query("status == 'run' and verb == 'probe'")
    runs = runs[runs.run_id.isin(list(kinds))]
    runs = runs.assign(
        kind=[kinds[run_id][0] for run_id in runs.run_id],
        mask=[kinds[run_id][1] for run_id in runs.run_id],
        top1=runs["metrics.top1"],
    )
    columns = ["kind", "mask", "seed", "top1", "n_test", "run_id", "commit"]
    return runs[columns].sort_values(columns[:3]).reset_index(drop=True)


def table() -> None:
    """Write every probe; print means over seeds and differences to MGM, paired by seed."""
    runs = found()
    runs.round(2).to_csv(ROOT / "docs/probe-kinds.csv", index=False, lineterminator="\n")
    for kind, some in runs.groupby("kind"):
        wide = some.pivot(index="seed", columns="mask", values="top1")
        for mask in wide:
            parts = [kind, mask, interval(wide[mask])]
            if mask != "mgm" and "mgm" in wide:
                parts.append(f"MGM minus this {interval(wide['mgm'] - wide[mask])}")
            print(*parts, sep="; ")


def interval(values: pd.Series) -> str:
    """Return a mean and its 95 % interval over seeds."""
    estimate = over_seeds(values.dropna().tolist())
    if not estimate.has_interval:
        return f"{estimate.mean:.1f}"
    return f"{estimate.mean:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "table"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    given = parser.parse_args()
    train(tuple(given.seeds)) if given.what == "train" else table()
