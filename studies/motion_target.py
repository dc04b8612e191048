"""Compare motion with pixels as the target of pretraining, on drawn datasets and real gestures.

    python studies/motion_target.py train    # repeat to continue
    python studies/motion_target.py table    # docs/motion-target.csv and the intervals

Gestures need `python studies/gestures.py prepare` first. studies/motion_target.md lists the runs
and their order, when to stop, and the predictions.
"""

import argparse

import drawn
import gestures
import pandas as pd

from mgm.data.synthetic.generator import generate
from mgm.results.archive import unpack
from mgm.results.frame import frame, read_specs
from mgm.results.statistics import Estimate, over_datasets, over_seeds
from mgm.spec import Pretrain, Probe, RunOptions
from mgm.stages.job import Workplace
from mgm.stages.pretrain import pretrain
from mgm.stages.probe import probe
from mgm.stages.runner import run_all

RESULTS, DOCS = drawn.ROOT / "results/motion-target", drawn.ROOT / "docs"
MASKS = ("tube", "block", "mgm")
ORDER = (
    ("drawn", range(701, 705)),
    ("gestures", range(301, 305)),
    ("drawn", range(705, 709)),
    ("gestures", range(305, 309)),
)


def aimed(parent: Pretrain, probes: list[Probe]) -> tuple[Pretrain, list[Probe]]:
    """Return a pretraining run and its probes with target motion in place of pixels."""
    parent = parent.model_copy(update={"target": "motion"})
    return parent, [one.model_copy(update={"parent": parent.run_id}) for one in probes]


def train() -> None:
    """Run what is missing, all masks of a dataset or seed before the next."""
    unpack(RESULTS)
    for data, seeds in ORDER:
        for seed in seeds:
            if data == "drawn":
                ((_, params),) = drawn.datasets(["mini"], [seed])
                place = drawn.DATA / f"ssv2-{params.digest}"
                generate(params, place)
                where = {"ssv2": place}
                pairs = {mask: (run, [one]) for mask, (run, one) in drawn.specs(params).items()}
            else:
                where = {"gestures": gestures.DATA}
                pairs = {
                    mask: (parent, [run for (way, _), run in runs.items() if way == "linear"])
                    for mask, (parent, runs) in gestures.specs(seed).items()
                }
            execution = Workplace(RESULTS, where, RunOptions(cache_mb=1500))
            for mask in MASKS:
                parent, probes = aimed(*pairs[mask])
                run_all([parent], pretrain, execution)
                run_all(probes, probe, execution)
    print("everything is done", flush=True)


def probes() -> pd.DataFrame:
    """Return a row per probe with target motion, of complete datasets and seeds.

    Each row also has the accuracy of the paired probe with target pixels.
    """
    unpack(RESULTS)
    specs_of, runs = read_specs(RESULTS), frame(RESULTS)
    runs = runs[(runs.status == "run") & (runs.verb == "probe")]
    rows = []
    for run in runs.itertuples():
        data = specs_of[run.run_id].data
        rows.append(
            {
                "data": "drawn" if data.dataset == "ssv2" else "gestures",
                "labels": str(data.labels_per_class or "all"),
                "seed": run.seed,
                "mask": run.mask,
                "motion": runs.loc[run.Index, "metrics.top1"],
                "run_id": run.run_id,
                "commit": run.commit,
            }
        )
    table = pd.DataFrame(rows)
    groups = table.groupby(["data", "labels", "seed"])
    table = table[groups.run_id.transform("size") == len(MASKS)]
    return table.merge(pixels(), on=["data", "labels", "seed", "mask"], how="left").sort_values(
        ["data", "labels", "seed", "mask"], key=lambda column: column.astype(str)
    )


def pixels() -> pd.DataFrame:
    """Return the probes with target pixels of the two older studies."""
    first = pd.read_csv(DOCS / "drawn-sets.csv").query("layout == 'mini'")
    first = first.assign(data="drawn", labels="10", seed=first.data_seed)
    second = pd.read_csv(DOCS / "gestures.csv").query("way == 'linear'").assign(data="gestures")
    second["labels"] = second.labels.map({"all labels": "all", "5 labels per class": "5"})
    columns = ["data", "labels", "seed", "mask", "top1"]
    return pd.concat([first[columns], second[columns]]).rename(columns={"top1": "pixels"})


def estimates(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row per quantity, with its 95 % interval over datasets or seeds."""
    rows = []
    controls = pd.read_csv(DOCS / "drawn-controls.csv").query("layout == 'mini'")
    histogram = controls[controls.control == "vector_histogram"].set_index("data_seed").top1
    for (data, labels), some in table.groupby(["data", "labels"], sort=False):
        motion = some.pivot(index="seed", columns="mask", values="motion")
        older = some.pivot(index="seed", columns="mask", values="pixels")
        found = {f"{drawn.TITLES[mask]}, motion": motion[mask] for mask in MASKS}
        found |= {f"{drawn.TITLES[m]}, motion minus pixels": motion[m] - older[m] for m in MASKS}
        found |= {
            f"MGM minus {drawn.OTHERS[mask]}, both motion": motion["mgm"] - motion[mask]
            for mask in MASKS
            if mask != "mgm"
        }
        none = pixels().query("data == @data and labels == @labels and mask == 'none'")
        found["MGM, motion, minus random weights"] = motion["mgm"] - none.set_index("seed").pixels
        if data == "drawn":
            found["MGM, motion, minus the histogram"] = motion["mgm"] - histogram
        for name, values in found.items():
            kept = values.dropna().tolist()
            estimate: Estimate = (
                over_datasets([[value] for value in kept]) if data == "drawn" else over_seeds(kept)
            )
            rows.append((data, labels, name, estimate.mean, estimate.low, estimate.high, len(kept)))
    return pd.DataFrame(rows, columns=["data", "labels", "what", "mean", "low", "high", "n"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "table"))
    args = parser.parse_args()
    if args.what == "train":
        train()
        return
    table = probes()
    table.round(2).to_csv(DOCS / "motion-target.csv", index=False, lineterminator="\n")
    print(estimates(table).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
