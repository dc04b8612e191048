"""Do mini's differences between masks hold on other drawn datasets?

    python studies/drawn.py train       # runs what is not done, dataset by dataset; call it again
    python studies/drawn.py cover       # how many of the moving pixels each mask hides
    python studies/drawn.py controls    # docs/drawn-controls.csv: features that need no model
    python studies/drawn.py table       # docs/drawn-sets.csv, docs/drawn-sets.png and the intervals

studies/drawn.md says what is run, in which order, when it stops, and what was predicted. Each run
is one of scale mini's, on a dataset drawn from another seed.
"""

import argparse
import time
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path

import matplotlib as mpl
import pandas as pd

from mgm.dag.study import Workflow
from mgm.data.index import read_index
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic, parse_params
from mgm.masking import Grid, make_mask
from mgm.paper.registry import with_mask
from mgm.report.figures.style import STYLE, blank, write
from mgm.report.statistics import Estimate, over_datasets
from mgm.results.archive import unpack
from mgm.results.frame import frame
from mgm.spec import Pretrain, Probe, Run, RunOptions
from mgm.stages.data import Workplace, motion_of
from mgm.stages.measure.controls import controls
from mgm.stages.measure.coverage import moving_pixels
from mgm.stages.pretrain import pretrain
from mgm.stages.probe import probe
from mgm.stages.runner import run_all
from mgm.video.cut import Cache
from mgm.video.loader import Loading, training_loader

ROOT = Path(__file__).parents[1]
RESULTS, DATA, DOCS = ROOT / "results/drawn", ROOT / "data", ROOT / "docs"
# Layout: title, and the fields that differ from mini's generator.
LAYOUTS = {
    "mini": ("Three moving shapes (layout mini)", {}),
    "quick10": ("Three moving shapes, quick: 10", {"quick": 10}),
    "one": ("One moving shape", {"sprites": 1}),
}
DATA_SEEDS = tuple(range(701, 713))
ROWS = {  # name: the row of Table 4e whose spec it has
    "none": "No pretraining",
    "tube": "Random Tube",
    "block": "Random Block",
    "smm": "SMM (Dense)",
    "mgm": "MGM (Dense)",
    "shuffled": "MGM (Dense)",
}
TITLES = {
    "none": "Random weights",
    "tube": "Random tube",
    "block": "Random block",
    "smm": "SMM",
    "mgm": "MGM",
    "shuffled": "MGM, shuffled guidance",
}
OTHERS = {
    "none": "random weights",
    "tube": "random tube",
    "block": "random block",
    "smm": "SMM",
    "shuffled": "MGM, shuffled guidance",
}


@cache
def mini() -> Workflow:
    return Workflow({"scale": "mini"})


def datasets(layouts: list[str], seeds: list[int]) -> Iterator[tuple[str, Synthetic]]:
    """Yield layouts and drawn datasets in the order of their runs."""
    base = mini().scale.datasets["ssv2"].generate
    for layout in layouts:
        for seed in seeds:
            fields = base | LAYOUTS[layout][1] | {"seed": seed}
            yield layout, parse_params(fields, f"studies/drawn.py: {layout}")


def specs(params: Synthetic) -> dict[str, tuple[Pretrain | None, Probe]]:
    """Return the pretraining run and the linear probe of each mask on a drawn dataset.

    The run's seed is the dataset's, so masks are paired within a dataset.
    """
    table, runs, found = mini().registry.tables["4e"], mini().registry.specs, {}
    for name, row in ROWS.items():
        linear = table.cell(row, "SSv2, linear probe").runs[0]
        assert isinstance(linear, Probe)
        parent = on(runs[linear.parent], params) if linear.parent else None
        if name == "shuffled":
            parent = with_mask(parent, guidance="shuffled")
        linear = on(linear, params).model_copy(update={"parent": parent.run_id if parent else ""})
        found[name] = (parent, linear)
    return found


def on(run: Run, params: Synthetic):
    """Return the run on a drawn dataset."""
    data = run.data.model_copy(update={"digest": params.digest})
    return run.model_copy(update={"data": data, "seed": params.seed})


def train(layouts: list[str], seeds: list[int], until: str) -> None:
    """Run what is not done, every mask of a dataset before the next dataset."""
    for _, params in datasets(layouts, seeds):
        if until and time.strftime("%H:%M", time.gmtime()) >= until:
            return print(f"the clock says {until}: stopped between datasets", flush=True)
        place = DATA / f"ssv2-{params.digest}"
        generate(params, place)
        execution = Workplace(RESULTS, {"ssv2": place}, RunOptions(cache_mb=900))
        for parent, linear in specs(params).values():
            if parent:
                run_all([parent], pretrain, execution)
            run_all([linear], probe, execution)
    print("every dataset is done", flush=True)


def cover(clips: int = 240) -> None:
    """Print the share of moving pixels under each mask, over training clips of the drawn sets.

    A pixel moves as `mgm measure coverage` counts it. The interval is over datasets.
    """
    shares: dict[tuple[str, str], dict[int, list[float]]] = {}
    for layout, params in datasets(list(LAYOUTS), list(DATA_SEEDS)):
        place = DATA / f"ssv2-{params.digest}"
        if not (place / "index.json").exists():
            continue
        videos = read_index(place).train
        of_mask = {mask: parent for mask, (parent, _) in specs(params).items() if parent}
        spec, cache, batch = of_mask["mgm"], Cache(900), 60
        grid = Grid(*spec.grid)
        own, other = (
            training_loader(
                videos, spec.clips, 2, spec.seed, batch, how=Loading(motion, cache=cache)
            )
            for motion in ("vectors", "shuffled")
        )
        for true, guide in islice(zip(own, other), clips // batch):
            moving_BSN = moving_pixels(true.motion_BSHW, grid, spec.model.patch)
            for mask, parent in of_mask.items():
                motion = motion_of(guide if mask == "shuffled" else true)
                masked_BL = make_mask(parent.mask, grid, motion, true.seed_B)
                hidden_B = (moving_BSN * masked_BL.view(moving_BSN.shape)).sum((1, 2))
                share_B = 100 * hidden_B / moving_BSN.sum((1, 2))
                of_sets = shares.setdefault((layout, mask), {})
                of_sets.setdefault(params.seed, []).extend(share_B[share_B.isfinite()].tolist())
    for (layout, mask), of_sets in shares.items():
        found = over_datasets(of_sets.values())
        print(f"{layout}, {TITLES[mask]}: {found.mean:.1f} [{found.low:.1f}, {found.high:.1f}] %")


def measure_controls() -> None:
    """Classify the videos of layout `mini` without a model; print means over datasets.

    Labels, draws and test videos are those of each dataset's linear probe.
    """
    found = []
    for _, params in datasets(["mini"], list(DATA_SEEDS[:8])):
        index = generate(params, DATA / f"ssv2-{params.digest}")
        _, linear = specs(params)["none"]
        table = controls(index, linear, weights=False)
        found.append(table[table.top1.notna()].assign(data_seed=params.seed))
    columns = ["data_seed", "control", "title", "top1", "chance", "n_test", "label_draws"]
    rows = pd.concat(found)[columns]
    rows.round(2).to_csv(DOCS / "drawn-controls.csv", index=False, lineterminator="\n")
    for title, some in rows.groupby("title", sort=False):
        print(f"{title}: {interval(some.top1)}")


def interval(values: pd.Series) -> str:
    """Return a mean and its 95 % interval over datasets."""
    estimate = over_datasets([[value] for value in values])
    return f"{estimate.mean:.1f} [{estimate.low:.1f}, {estimate.high:.1f}], n = {len(values)}"


def probes() -> pd.DataFrame:
    """Return a row per probe of a whole dataset: `layout`, `data_seed`, `mask`, `top1`, `run_id`,
    `commit`.

    A dataset counts once all of its masks are done.
    """
    unpack(RESULTS)
    runs = frame(RESULTS)
    runs = runs[runs.status == "run"].set_index("run_id")
    rows = []
    for layout, params in datasets(list(LAYOUTS), list(DATA_SEEDS)):
        ids = {mask: linear.run_id for mask, (_, linear) in specs(params).items()}
        if set(ids.values()) <= set(runs.index):
            rows += [
                (layout, params.seed, mask, runs["metrics.top1"][name], name, runs.commit[name])
                for mask, name in ids.items()
            ]
    return pd.DataFrame(rows, columns=["layout", "data_seed", "mask", "top1", "run_id", "commit"])


def estimates(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per layout and quantity, with its 95 % interval over datasets.

    Quantities are each mask's accuracy and MGM minus every other row, paired within a dataset.
    """
    rows = []
    for layout, some in runs.groupby("layout", sort=False):
        wide = some.pivot_table(index="data_seed", columns="mask", values="top1", sort=False)
        found = {TITLES[mask]: wide[mask] for mask in TITLES}
        found |= {f"MGM minus {name}": wide["mgm"] - wide[mask] for mask, name in OTHERS.items()}
        for name, values in found.items():
            estimate: Estimate = over_datasets([[value] for value in values])
            rows.append((layout, name, estimate.mean, estimate.low, estimate.high, estimate.n))
    return pd.DataFrame(rows, columns=["layout", "what", "mean", "low", "high", "datasets"])


@mpl.rc_context(STYLE)
def draw(table: pd.DataFrame, runs: pd.DataFrame) -> None:
    """Write docs/drawn-sets.png: MGM minus each mask, by layout; a dot per dataset."""
    layouts = list(dict.fromkeys(table.layout))
    figure = blank(9.2, 2.6)
    several = figure.subplots(1, len(layouts), sharey=True, sharex=True, squeeze=False)[0]
    figure.subplots_adjust(left=0.2, right=0.98, top=0.88, bottom=0.2, wspace=0.08)
    for axes, layout in zip(several, layouts):
        wide = runs[runs.layout == layout].pivot(index="data_seed", columns="mask", values="top1")
        for place, mask in enumerate(OTHERS):
            apart = wide["mgm"] - wide[mask]
            found = over_datasets([[value] for value in apart])
            axes.plot(apart, [place] * len(apart), "o", color="#e08214", markersize=3.5, zorder=4)
            if found.has_interval:
                axes.plot([found.low, found.high], [place] * 2, color="#1f5fa8", linewidth=2)
            axes.plot(found.mean, place, "o", color="#1f5fa8", markersize=5)
        axes.axvline(0, color="#6e6e6e", linewidth=0.8)
        axes.set_yticks(range(len(OTHERS)), [TITLES[mask] for mask in OTHERS])
        axes.set_title(f"{LAYOUTS[layout][0]}, {len(wide)} datasets", loc="left", size=8)
        axes.set_xlabel("MGM minus the row (points)")
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
        axes.tick_params(axis="y", length=0)
    several[0].invert_yaxis()
    write(figure, DOCS / "drawn-sets.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "cover", "controls", "table"))
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--data-seeds", nargs="+", type=int, default=list(DATA_SEEDS[:8]))
    parser.add_argument("--until", default="", help="HH:MM in UTC: start no dataset after it")
    args = parser.parse_args()
    if args.what == "train":
        train(args.layouts, args.data_seeds, args.until)
        return
    if args.what in ("cover", "controls"):
        {"cover": cover, "controls": measure_controls}[args.what]()
        return
    runs = probes()
    runs.round(2).to_csv(DOCS / "drawn-sets.csv", index=False, lineterminator="\n")
    table = estimates(runs)
    print(table.round(1).to_string(index=False))
    draw(table, runs)


if __name__ == "__main__":
    main()
