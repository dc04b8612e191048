"""Compare MGM with a tube and a static block, on variations of scale mini.

    python studies/guidance.py train   # runs in the background; repeat to continue
    python studies/guidance.py draw    # docs/guidance.csv and docs/guidance.png
    python studies/guidance.py cover   # docs/guidance-cover.csv: share of the discs under a box

Each variation is scale mini with a few changed fields. The workflow runs it under its own name. All
have the same seeds, so differences are paired. Masks that a variation does not change have mini's
own runs (`snakemake --cores all --config scale=mini -- table4e`).
"""

import argparse
import subprocess
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
import yaml

from mgm.dag.study import CONFIG, Workflow
from mgm.data.index import Video
from mgm.data.synthetic.drawing import scene, tracks
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import parse_params
from mgm.masking import Grid, Motion, make_mask
from mgm.paper.suite import registry_of
from mgm.reading import read_yaml
from mgm.report.figures.seeds import intervals
from mgm.report.figures.style import STYLE, blank, write
from mgm.results.archive import unpack
from mgm.results.frame import frame
from mgm.results.statistics import over_seeds
from mgm.spec import Pretrain
from mgm.video import read_clip
from mgm.video.transform import view_indices

BASE, RATIO = "as mini", "mask.ratio"
# Name: (title, fields of the generated dataset, fields of pretraining, masks that these change).
VARIATIONS = {
    "mini": (BASE, {}, {}, ("none", "tube", "block", "mgm")),
    "d15": ("smaller discs (0.15)", {"diameter": 0.15}, {}, ("none", "tube", "block", "mgm")),
    "d24": ("larger discs (0.24)", {"diameter": 0.24}, {}, ("none", "tube", "block", "mgm")),
    "still": ("static background", {"pan": 0.0}, {}, ("none", "tube", "block", "mgm")),
    "r60": ("60 % hidden", {}, {RATIO: 0.6}, ("tube", "block", "mgm")),
    "r75": ("tube at 75 %", {}, {RATIO: 0.75}, ("tube",)),
    "r90": ("90 % hidden", {}, {RATIO: 0.9}, ("tube", "block", "mgm")),
    "one": ("one disc instead of three", {"sprites": 1}, {}, ("none", "tube", "block", "mgm")),
    "one60": (
        "one disc, 60 % hidden",
        {"sprites": 1},
        {RATIO: 0.6},
        ("none", "tube", "block", "mgm"),
    ),
    "clamp": ("box kept inside the frame", {}, {"mask.edge": "clamp"}, ("mgm",)),
    "vectors": ("vectors not divided by distance", {}, {"mask.distance": "none"}, ("mgm",)),
    "start": ("guided in slot 0 too", {}, {"mask.guided_start": True}, ("mgm",)),
}
ROWS = {
    "none": "No pretraining",
    "tube": "Random Tube",
    "block": "Random Block",
    "mgm": "MGM (Dense)",
}
PAIRS = {
    "minus random weights": "none",
    "minus random tube": "tube",
    "minus random block": "block",
}
# Means over the variations with this number of discs.
MEANS = {"three discs, mean": 3, "one disc, mean": 1}
# Share of the discs' pixels that MGM hides, minus the share that a block hides.
HIDDEN = "Hidden: MGM minus block"
SEEDS = [0, 1, 2, 3, 4]
ROOT = Path(__file__).parents[1]
COVER = ROOT / "docs/guidance-cover.csv"


def train(seeds: list[int], cores: int, names: list[str]) -> None:
    """Run the probes of these variations by the workflow."""
    for name in names:
        fields, (_, videos, pretrain, masks) = read_yaml(CONFIG / "mini.yaml"), VARIATIONS[name]
        fields |= {"name": folder_of(name), "seeds": seeds, "more_seeds": {}, "specs_per_job": 1}
        fields["datasets"]["ssv2"]["generate"] |= videos
        fields["overrides"]["pretrain"] |= pretrain
        path = ROOT / "results" / f"{fields['name']}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(fields))
        config = {"scale": str(path)}
        table = Workflow(config).registry.tables["4e"]
        cells = [table.cell(ROWS[mask], "SSv2, linear probe") for mask in masks]
        targets = [
            f"results/{fields['name']}/{run.run_id}/result.json"
            for cell in cells
            for run in cell.runs
        ]
        subprocess.run(
            [
                "snakemake",
                "--cores",
                str(cores),
                "--quiet",
                "all",
                "--config",
                f"scale={path}",
                "--",
                *targets,
            ],
            check=True,
        )


def folder_of(name: str) -> str:
    return name if name == "mini" else f"guidance-{name}"


def probes() -> pd.DataFrame:
    """Return a row per run: `variation`, `mask`, `seed`, `top1`, `run_id`, `commit`."""
    parts = []
    for name, (title, *_, masks) in VARIATIONS.items():
        folder = ROOT / "results" / folder_of(name)
        unpack(folder)
        if not folder.exists():
            continue
        cells = registry_of(folder).tables["4e"].cells
        wanted = {
            run.run_id
            for cell in cells
            if cell.column.endswith("linear probe")
            for run in cell.runs
        }
        runs = frame(folder)
        runs = runs[(runs.status == "run") & runs.run_id.isin(wanted)]
        if runs.empty:
            continue
        runs = runs.assign(variation=title, top1=runs["metrics.top1"])
        parts.append(runs[runs["mask"].isin(masks)])
    return pd.concat(parts)[["variation", "mask", "seed", "top1", "run_id", "commit"]]


def differences(runs: pd.DataFrame) -> pd.DataFrame:
    """Return MGM minus the other mask, per variation and pair, with a 95 % interval over seeds.

    Differences are paired by seed. The last rows are means over variations that have all `SEEDS`.
    A variation that changes only MGM's mask is compared with mini's own MGM.
    """
    wide = runs.pivot(index=["variation", "seed"], columns="mask", values="top1")
    apart = {}
    for title, *_, masks in VARIATIONS.values():
        if title in wide.index:
            found, base = wide.loc[title].copy(), wide.loc[BASE]
            if masks == ("mgm",):
                apart[title, "minus MGM as mini"] = (found["mgm"] - base["mgm"]).dropna()
                continue
            for mask in ROWS.keys() - set(masks):
                found[mask] = base[mask].reindex(found.index)
            changed = {pair: other for pair, other in PAIRS.items() if {"mgm", other} & set(masks)}
            apart |= {
                (title, pair): (found["mgm"] - found[other]).dropna()
                for pair, other in changed.items()
            }
    movers = {title: videos.get("sprites", 3) for title, videos, *_ in VARIATIONS.values()}
    for mean, count in MEANS.items():
        for pair in PAIRS:
            some = {
                title: d
                for (title, name), d in apart.items()
                if name == pair and movers.get(title) == count
            }
            if whole := {title: d for title, d in some.items() if set(SEEDS) <= set(d.index)}:
                apart[mean, pair] = pd.DataFrame(whole).loc[SEEDS].mean(axis=1)
    several = {key: over_seeds(some.tolist()) for key, some in apart.items() if len(some) > 1}
    rows = [(*key, found.mean, found.low, found.high, found.n) for key, found in several.items()]
    return pd.DataFrame(rows, columns=["variation", "pair", "mean", "low", "high", "seeds"])


@mpl.rc_context(STYLE)
def draw() -> None:
    """Write docs/guidance.csv, which lists every run, and docs/guidance.png."""
    runs = probes()
    runs.round(2).to_csv(ROOT / "docs/guidance.csv", index=False, lineterminator="\n")
    table = differences(runs)
    print(table.round(1).to_string(index=False))
    table = pd.concat([table, pd.read_csv(COVER)])
    titles = list(dict.fromkeys(table[table.pair.isin(PAIRS)].variation))
    figure = blank(9.2, 0.3 * len(titles) + 0.8)
    several = figure.subplots(1, len(PAIRS) + 1, sharey=True)
    figure.subplots_adjust(
        left=0.2,
        right=0.98,
        top=1 - 0.3 / figure.get_figheight(),
        bottom=0.45 / figure.get_figheight(),
        wspace=0.08,
    )
    for axes, pair in zip(several, (*PAIRS, HIDDEN)):
        some = table[table.pair == pair].rename(columns={"variation": "tick"})
        intervals(axes, some, titles)
        axes.set_yticks(range(len(titles)), titles)
        axes.set_title(pair if pair == HIDDEN else f"MGM {pair}", loc="left", size=9)
        axes.set(
            xlabel="Top-1 accuracy (points)" if pair in PAIRS else "% of the discs' pixels",
            ylabel="",
        )
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
        axes.tick_params(axis="y", length=0)
    several[0].invert_yaxis()
    write(figure, ROOT / "docs/guidance.png")


def cover() -> None:
    """Write the share of the discs' pixels that a block and MGM hide, in per cent.

    The difference is paired by test video, and so is its interval.
    """
    rows = []
    for name, (title, *_, masks) in VARIATIONS.items():
        registry = registry_of(ROOT / "results" / folder_of(name))
        dataset = registry.scale.datasets["ssv2"]
        place = ROOT / "data" / f"ssv2-{dataset.digest}"
        params = parse_params(dataset.generate, name)
        videos = generate(params, place).test
        specs = {
            spec.mask.name: spec
            for spec in registry.runs_of("table4e")
            if isinstance(spec, Pretrain)
        }
        shares = {
            mask: np.array(
                [
                    hidden_share(
                        video, tracks(params, scene(params, "test", seed)), specs[mask], seed
                    )
                    for seed, video in enumerate(videos)
                ]
            )
            for mask in masks
            if mask in ("block", "mgm")
        }
        if len(shares) == 2:
            shares[HIDDEN] = shares["mgm"] - shares["block"]
        for what, share in shares.items():
            found = over_seeds(share.tolist())
            rows.append(
                (title, what, round(found.mean, 1), round(found.low, 1), round(found.high, 1))
            )
    pd.DataFrame(rows, columns=["variation", "pair", "mean", "low", "high"]).to_csv(
        COVER, index=False, lineterminator="\n"
    )


def hidden_share(
    video: Video,
    discs: tuple[np.ndarray, np.ndarray],
    spec: Pretrain,
    seed: int,
    guide: Video | None = None,
) -> float:
    """Return the share of a video's discs under a mask, in per cent, in its middle clip.

    Args:
        discs: centres (x, y) of whole discs, (T, K, 2), and diameters, (T, K), in pixels. Parts
            outside the frame do not count.
        guide: another video, to guide the mask by its motion; by default the video itself.
    """
    mask, tubelet, patch = spec.mask, spec.model.tubelet, spec.model.patch
    index_T = view_indices(spec.clips, video.frames, view=0, views=1)
    clip, side = read_clip((guide or video).path, index_T), spec.clips.size // patch
    grid = Grid(spec.clips.frames // tubelet, side, side)
    motion_SHW = clip.magnitude(tubelet, mask.distance, mask.compensate)
    motion = Motion(torch.from_numpy(motion_SHW)[None])
    masked_BL = make_mask(mask, grid, motion, torch.tensor([seed]))
    y_H, x_W = np.arange(clip.height), np.arange(clip.width)
    masked_THW = masked_BL.view(grid.slots, side, side).numpy().repeat(tubelet, 0)
    hidden_THW = masked_THW[:, y_H * side // clip.height][:, :, x_W * side // clip.width]
    centre_TK2, diameter_TK = (some[index_T] for some in discs)
    x_TK11, y_TK11 = np.moveaxis(centre_TK2, 2, 0)[..., None, None]
    across_TKHW = (x_W + 0.5 - x_TK11) ** 2 + (y_H[:, None] + 0.5 - y_TK11) ** 2
    disc_THW = (across_TKHW <= (diameter_TK[..., None, None] / 2) ** 2).any(1)
    return 100 * (disc_THW & hidden_THW).sum() / disc_THW.sum()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "draw", "cover"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument(
        "--names",
        nargs="+",
        choices=VARIATIONS,
        default=[name for name in VARIATIONS if name != "mini"],
    )
    args = parser.parse_args()
    if args.what == "train":
        train(args.seeds, args.cores, args.names)
    else:
        {"draw": draw, "cover": cover}[args.what]()


if __name__ == "__main__":
    main()
