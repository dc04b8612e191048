"""Test whether mini's differences between masks hold on other drawn datasets.

    python studies/drawn.py train       # dataset by dataset; repeat to continue
    python studies/drawn.py cover       # docs/drawn-cover.csv: pixels of shapes that masks hide
    python studies/drawn.py controls    # docs/drawn-controls.csv: features that need no model
    python studies/drawn.py table       # docs/drawn-sets.csv, docs/drawn-sets.png and the intervals

studies/drawn.md lists the runs and their order, when to stop, and the predictions. Each run is one
of scale mini, on a dataset drawn from another seed.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from guidance import hidden_share
from matplotlib.axes import Axes

from mgm.dag.study import Workflow
from mgm.data.synthetic.drawing import scene, tracks
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic, parse_params
from mgm.paper.registry import with_mask
from mgm.report.figures.style import STYLE, blank, write
from mgm.results.archive import unpack
from mgm.results.frame import frame
from mgm.results.result import examine
from mgm.results.statistics import Estimate, holm, over_datasets, p_value
from mgm.spec import Pretrain, Probe, Run, RunOptions
from mgm.stages.job import Workplace
from mgm.stages.measure.controls import controls
from mgm.stages.pretrain import pretrain
from mgm.stages.probe import probe
from mgm.stages.runner import git_commit, run_all

ROOT = Path(__file__).parents[1]
RESULTS, DATA, DOCS = ROOT / "results/drawn", ROOT / "data", ROOT / "docs"
# Layout: title, and the fields that differ from mini's generator.
LAYOUTS = {
    "mini": ("Three moving shapes (layout mini)", {}),
    "quick10": ("Three moving shapes, quick: 10", {"quick": 10}),
    "one": ("One moving shape", {"sprites": 1}),
    "pan": ("One moving shape, panning camera", {"sprites": 1, "pan": 4.0}),
}
DATA_SEEDS = tuple(range(701, 721))
# The first data seed that had no results when the study went on to twenty datasets.
NEW = {"mini": 709, "quick10": 705, "one": 705, "pan": 706}
# Names, each with the row of Table 4e that has its spec.
ROWS = {
    "none": "No pretraining",
    "tube": "Random Tube",
    "block": "Random Block",
    "smm": "SMM (Dense)",
    "mgm": "MGM (Dense)",
    "shuffled": "MGM (Dense)",
    "median": "MGM (Dense)",
    "affine": "MGM (Dense)",
}
# Names, each with the fields that differ from the mask of its row.
CHANGES = {
    "shuffled": {"guidance": "shuffled"},
    "median": {"compensate": "median"},
    "affine": {"compensate": "affine"},
}
# Only a moving camera needs compensation.
ONLY_PAN = ("median", "affine")
TITLES = {
    "none": "Random weights",
    "tube": "Random tube",
    "block": "Random block",
    "smm": "SMM",
    "mgm": "MGM",
    "shuffled": "MGM, shuffled guidance",
    "median": "MGM, compensated (median)",
    "affine": "MGM, compensated (affine)",
}
OTHERS = {
    "none": "random weights",
    "tube": "random tube",
    "block": "random block",
    "smm": "SMM",
    "shuffled": "MGM, shuffled guidance",
    "median": "MGM, compensated (median)",
    "affine": "MGM, compensated (affine)",
}


def masks_of(layout: str) -> list[str]:
    """Return the rows that a layout has."""
    return [name for name in ROWS if layout == "pan" or name not in ONLY_PAN]


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

    The run's seed is the seed of the dataset, so masks are paired within a dataset.
    """
    table, runs, found = mini().registry.tables["4e"], mini().registry.specs, {}
    for name, row in ROWS.items():
        linear = table.cell(row, "SSv2, linear probe").runs[0]
        assert isinstance(linear, Probe)
        parent = on(runs[linear.parent], params) if linear.parent else None
        if parent and name in CHANGES:
            parent = with_mask(parent, **CHANGES[name])
        linear = on(linear, params).model_copy(update={"parent": parent.run_id if parent else ""})
        found[name] = (parent, linear)
    return found


def on(run: Run, params: Synthetic):
    """Return the run on a drawn dataset."""
    data = run.data.model_copy(update={"digest": params.digest})
    return run.model_copy(update={"data": data, "seed": params.seed})


def train(layouts: list[str], seeds: list[int]) -> None:
    """Run what is missing, all masks of a dataset before the next dataset."""
    unpack(RESULTS)
    for layout, params in datasets(layouts, seeds):
        of_masks = specs(params)
        runs = [run for mask in masks_of(layout) for run in of_masks[mask] if run]
        if all(examine(RESULTS / run.run_id, run).state == "run" for run in runs):
            print(f"{layout} {params.seed}: done already", flush=True)
            continue
        place = DATA / f"ssv2-{params.digest}"
        generate(params, place)
        execution = Workplace(RESULTS, {"ssv2": place}, RunOptions(cache_mb=900))
        for run in runs:
            run_all([run], pretrain if isinstance(run, Pretrain) else probe, execution)
    print("every dataset is done", flush=True)


def cover(layouts: list[str], seeds: list[int], videos: int = 120) -> None:
    """Measure the share of the shapes' pixels under each mask; print means over datasets.

    The share is the mean over test videos. The positions of the shapes are known from drawing them,
    even if the camera pans. docs/drawn-cover.csv has a row per dataset and mask, and its datasets
    are not measured again.
    """
    path = DOCS / "drawn-cover.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame()
    for layout, params in missing(table, layouts, seeds):
        place, of_masks = DATA / f"ssv2-{params.digest}", specs(params)
        test = generate(params, place).test
        chosen = range(min(videos, len(test)))
        discs = {n: tracks(params, scene(params, "test", n)) for n in chosen}
        rows = []
        for mask in masks_of(layout):
            parent, _ = of_masks[mask]
            if parent is None:
                continue
            # The next video is of another class.
            step = int(mask == "shuffled")
            found = [
                hidden_share(test[n], discs[n], parent, n, test[(n + step) % len(test)])
                for n in chosen
            ]
            rows.append((layout, params.seed, mask, sum(found) / len(found), len(found), commit()))
        columns = ["layout", "data_seed", "mask", "hidden", "videos", "commit"]
        table = append(path, table, pd.DataFrame(rows, columns=columns))
        print(f"{layout} {params.seed}: done", flush=True)
    for (layout, mask), some in table.groupby(["layout", "mask"], sort=False):
        print(f"{layout}, {TITLES[mask]} (%): {interval(some.hidden)}")


def measure_controls(layouts: list[str], seeds: list[int]) -> None:
    """Classify videos without a model; print means over datasets.

    Labels, draws and test videos are the same as in each dataset's linear probe.
    docs/drawn-controls.csv has a row per dataset and control, and its datasets are not measured
    again.
    """
    path = DOCS / "drawn-controls.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame()
    columns = ["layout", "data_seed", "control", "title", "top1", "chance", "n_test", "label_draws"]
    for layout, params in missing(table, layouts, seeds):
        index = generate(params, DATA / f"ssv2-{params.digest}")
        _, linear = specs(params)["none"]
        rows = controls(index, linear, weights=False)
        rows = rows[rows.top1.notna()].assign(layout=layout, data_seed=params.seed)
        table = append(path, table, rows[columns].assign(commit=commit()))
        print(f"{layout} {params.seed}: done", flush=True)
    for (layout, title), some in table.groupby(["layout", "title"], sort=False):
        print(f"{layout}, {title}: {interval(some.top1)}")


def missing(
    table: pd.DataFrame, layouts: list[str], seeds: list[int]
) -> Iterator[tuple[str, Synthetic]]:
    """Yield the datasets that have no row in a table."""
    known = set(zip(table.layout, table.data_seed)) if len(table) else set()
    for layout, params in datasets(layouts, seeds):
        if (layout, params.seed) not in known:
            yield layout, params


def append(path: Path, table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return a table with more rows, sorted by dataset, and write it."""
    order = list(LAYOUTS)
    table = pd.concat([table, rows.round(2)]).sort_values(
        ["layout", "data_seed"],
        key=lambda column: column.map(order.index) if column.name == "layout" else column,
        kind="stable",
    )
    table.to_csv(path, index=False, lineterminator="\n")
    return table


@cache
def commit() -> str:
    """Return the commit when first asked: a table that this script writes is a change too."""
    name, dirty = git_commit()
    return name + ("-dirty" if dirty else "")


def interval(values: pd.Series) -> str:
    """Return a mean and its 95 % interval over datasets."""
    estimate = over_datasets([[value] for value in values])
    return f"{estimate.mean:.1f} [{estimate.low:.1f}, {estimate.high:.1f}], n = {len(values)}"


def probes() -> pd.DataFrame:
    """Return a row per probe of the complete datasets.

    The columns are `layout`, `data_seed`, `mask`, `top1`, `run_id` and `commit`. A dataset is
    complete if all its masks are done.
    """
    unpack(RESULTS)
    runs = frame(RESULTS)
    runs = runs[runs.status == "run"].set_index("run_id")
    rows = []
    for layout, params in datasets(list(LAYOUTS), list(DATA_SEEDS)):
        of_masks = specs(params)
        ids = {mask: of_masks[mask][1].run_id for mask in masks_of(layout)}
        if set(ids.values()) <= set(runs.index):
            rows += [
                (layout, params.seed, mask, runs["metrics.top1"][name], name, runs.commit[name])
                for mask, name in ids.items()
            ]
    return pd.DataFrame(rows, columns=["layout", "data_seed", "mask", "top1", "run_id", "commit"])


def estimates(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per layout and quantity, with its 95 % interval over datasets.

    Quantities are each mask's accuracy and differences, paired within a dataset: MGM minus every
    other row, and shuffled guidance and compensated masks minus the random block. `holm` is True
    for a difference from 0 at a family-wise level of 5 %, over the differences of a layout.
    """
    rows = []
    for layout, some in runs.groupby("layout", sort=False):
        wide = some.pivot_table(index="data_seed", columns="mask", values="top1", sort=False)
        found = {TITLES[mask]: wide[mask] for mask in masks_of(layout)}
        found |= {
            f"MGM minus {OTHERS[mask]}": wide["mgm"] - wide[mask]
            for mask in masks_of(layout)
            if mask != "mgm"
        }
        found |= {
            f"{TITLES[mask]} minus random block": wide[mask] - wide["block"]
            for mask in ("shuffled", *ONLY_PAN)
            if mask in wide
        }
        of = {name: over_datasets([[value] for value in found[name]]) for name in found}
        passes = holm_of_differences(of)
        rows += [(layout, name, *one, passes.get(name, "")) for name, one in of.items()]
    columns = ["layout", "what", "mean", "low", "high", "datasets", "holm"]
    return pd.DataFrame(rows, columns=columns)


def holm_of_differences(of: dict[str, Estimate]) -> dict[str, bool]:
    """Return for each "A minus B" of a family whether it differs from 0 by Holm's method."""
    apart = [name for name in of if "minus" in name]
    return dict(zip(apart, holm([p_value(of[name]) for name in apart])))


@mpl.rc_context(STYLE)
def draw(table: pd.DataFrame, runs: pd.DataFrame) -> None:
    """Draw docs/drawn-sets.png: MGM minus each mask, by layout, with a dot per dataset."""
    layouts = list(dict.fromkeys(table.layout))
    columns = min(len(layouts), 2)
    rows = -(-len(layouts) // columns)
    figure = blank(9.2, 2.4 * rows)
    several = figure.subplots(rows, columns, sharey=True, sharex=True, squeeze=False).ravel()
    figure.subplots_adjust(
        left=0.22, right=0.98, top=1 - 0.12 / rows, bottom=0.2 / rows, wspace=0.08, hspace=0.2
    )
    others = [mask for mask in OTHERS if mask in set(runs["mask"])]
    for axes in several[len(layouts) :]:
        axes.set_visible(False)
    for axes, layout in zip(several, layouts):
        wide = runs[runs.layout == layout].pivot(index="data_seed", columns="mask", values="top1")
        apart = {TITLES[mask]: wide["mgm"] - wide[mask] if mask in wide else [] for mask in others}
        draw_rows(axes, apart, lambda values: over_datasets([[value] for value in values]))
        axes.axvline(0, color="#6e6e6e", linewidth=0.8)
        axes.set_title(f"{LAYOUTS[layout][0]}, {len(wide)} datasets", loc="left", size=8)
    for axes in several[len(layouts) - columns : len(layouts)]:
        axes.set_xlabel("MGM minus the row (points)")
    several[0].invert_yaxis()
    write(figure, DOCS / "drawn-sets.png")


def draw_rows(
    axes: Axes,
    values_of: Mapping[str, Iterable[float]],
    estimate: Callable[[list[float]], Estimate],
) -> None:
    """Draw a row per title: its values as dots, and their mean with its interval above them."""
    for place, values in enumerate(map(list, values_of.values())):
        if not values:
            continue
        found = estimate(values)
        # Dots are below the interval, so neither hides the other.
        axes.plot(values, [place + 0.28] * len(values), "o", color="#e08214", markersize=3)
        if found.has_interval:
            axes.plot([found.low, found.high], [place] * 2, color="#1f5fa8", linewidth=2)
        axes.plot(found.mean, place, "o", color="#1f5fa8", markersize=5)
    axes.set_yticks(range(len(values_of)), list(values_of))
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axes.tick_params(axis="y", length=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "cover", "controls", "table"))
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--data-seeds", nargs="+", type=int, default=list(DATA_SEEDS))
    args = parser.parse_args()
    if args.what == "train":
        return train(args.layouts, args.data_seeds)
    if args.what == "cover":
        return cover(args.layouts, args.data_seeds)
    if args.what == "controls":
        return measure_controls(args.layouts, args.data_seeds)
    runs = probes()
    runs.round(2).to_csv(DOCS / "drawn-sets.csv", index=False, lineterminator="\n")
    table = estimates(runs)
    print(table.round(1).to_string(index=False))
    new = estimates(runs[runs.data_seed >= runs.layout.map(NEW)])
    print("\nNew datasets alone:")
    print(new[new.what.str.contains("minus")].round(1).to_string(index=False))
    draw(table, runs)


if __name__ == "__main__":
    main()
