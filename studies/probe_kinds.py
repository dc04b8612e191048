"""Compare all kinds of probe on the same pretrained weights.

    python studies/probe_kinds.py train    # repeat to continue
    python studies/probe_kinds.py table    # docs/probe-kinds.csv and the intervals

The weights are from studies/drawn.py, layout `mini`. That study has the probes of kind `logistic`.
Datasets without weights on this machine are left out. studies/drawn.md has the prediction.
"""

import argparse

import drawn
import pandas as pd

from mgm.results.archive import unpack
from mgm.results.frame import frame, read_specs
from mgm.spec import Pretrain, Probe, RunOptions
from mgm.stages.job import Workplace
from mgm.stages.probe import probe
from mgm.stages.runner import run_all

MASKS = ("none", "tube", "block", "mgm")
# `attentive` is first: its pass over the videos stores the features that the others read.
KINDS = ("attentive", "sgd", "knn")


def train() -> None:
    """Run what is missing, all masks of a dataset before the next dataset."""
    for _, params in drawn.datasets(["mini"], list(drawn.DATA_SEEDS)):
        place = {"ssv2": drawn.DATA / f"ssv2-{params.digest}"}
        specs = drawn.specs(params)
        if not all(has_weights(specs[mask][0]) for mask in MASKS):
            continue
        execution = Workplace(drawn.RESULTS, place, RunOptions(cache_mb=900))
        for mask in MASKS:
            linear = specs[mask][1]
            kinds = [linear.model_copy(update={"kind": kind}) for kind in KINDS]
            run_all(kinds, probe, execution)


def has_weights(parent: Pretrain | None) -> bool:
    return parent is None or any((drawn.RESULTS / parent.run_id).glob("*.safetensors"))


def found() -> pd.DataFrame:
    """Return a row per probe: `kind`, `data_seed`, `mask`, `top1`, `run_id`, `commit`.

    A dataset counts for a kind if all its masks are done.
    """
    unpack(drawn.RESULTS)
    runs, specs = frame(drawn.RESULTS), read_specs(drawn.RESULTS)
    runs = runs[runs.status == "run"].set_index("run_id")
    rows = []
    for _, params in drawn.datasets(["mini"], list(drawn.DATA_SEEDS)):
        linear: dict[str, Probe] = {mask: drawn.specs(params)[mask][1] for mask in MASKS}
        for kind in ("logistic", *KINDS):
            ids = {
                mask: spec.model_copy(update={"kind": kind}).run_id for mask, spec in linear.items()
            }
            if all(name in runs.index and name in specs for name in ids.values()):
                rows += [
                    (kind, params.seed, mask, runs["metrics.top1"][name], name, runs.commit[name])
                    for mask, name in ids.items()
                ]
    return pd.DataFrame(rows, columns=["kind", "data_seed", "mask", "top1", "run_id", "commit"])


def table() -> None:
    """Write every probe, and print means over datasets and differences from MGM.

    Only datasets with all kinds are compared.
    """
    runs = found()
    runs = runs.groupby("data_seed").filter(lambda some: some.kind.nunique() == len(KINDS) + 1)
    path = drawn.DOCS / "probe-kinds.csv"
    runs.round(2).to_csv(path, index=False, lineterminator="\n")
    for kind, some in runs.groupby("kind", sort=False):
        wide = some.pivot(index="data_seed", columns="mask", values="top1")
        for mask in MASKS:
            words = f"{kind}, {drawn.TITLES[mask]}: {drawn.interval(wide[mask])}"
            if mask != "mgm":
                words += (
                    f"; MGM minus {drawn.OTHERS[mask]} {drawn.interval(wide['mgm'] - wide[mask])}"
                )
            print(words)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "table"))
    train() if parser.parse_args().what == "train" else table()
