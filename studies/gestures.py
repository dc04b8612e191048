"""Test the masks on real motion: hand gestures of people that pretraining has not seen.

    python studies/gestures.py prepare --source DIR   # index, shards; DIR has gGG_fF_sSS_eEE.mp4
    python studies/gestures.py cover                  # share of motion that each mask hides
    python studies/gestures.py train                  # repeat to continue
    python studies/gestures.py table                  # docs/gestures.csv, docs/gestures.png

2,800 clips of 14 gestures by 28 people: the depth videos of the SHREC'17 track, 160 x 120 pixels,
32 frames, H.264. Their terms of use are not verified, so the repository contains no clip.
studies/gestures.md lists the runs and their order, when to stop, and the predictions.
"""

import argparse
import csv
import re
import subprocess
import time
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import torch

from mgm.data.index import read_index
from mgm.masking import Grid, make_mask
from mgm.report.figures.style import STYLE, blank, write
from mgm.results.archive import unpack
from mgm.results.frame import frame, read_specs
from mgm.results.statistics import over_datasets, over_seeds
from mgm.spec import Pretrain, Probe, RunOptions, parse
from mgm.stages.job import Workplace, motion_of
from mgm.stages.pretrain import pretrain
from mgm.stages.probe import probe
from mgm.stages.runner import run_all
from mgm.video.loader import BatchOptions, training_loader

ROOT = Path(__file__).parents[1]
RESULTS, DATA, DOCS = ROOT / "results/gestures", ROOT / "data/gestures", ROOT / "docs"
TEST_PEOPLE = (1, 5, 6, 17, 18, 23, 24, 28)
SEEDS = tuple(range(301, 309))
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "tube": {"name": "tube", "ratio": 0.9},
    "block": {"name": "block", "ratio": 0.75},
    "smm": {"name": "smm", "ratio": 0.75},
    "mgm": {"name": "mgm", "ratio": 0.75},
    "shuffled": {"name": "mgm", "ratio": 0.75, "guidance": "shuffled"},
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
LABELS = {"all labels": (0, 1), "5 labels per class": (5, 5)}  # labels per class, draws of them
CLIPS = {"frames": 8, "size": 48, "stride": 4, "crop": "centre", "flip": False}
MODEL = {"patch": 8, "width": 48, "depth": 2, "heads": 4}
PRETRAIN = {
    "clips": CLIPS,
    "model": MODEL,
    "decoder": {"width": 32, "depth": 1, "heads": 4},
    "head_init": "zero",
    "std_floor": 0.05,
    "optim": {
        "lr": 2.13e-2,  # 5e-4 per step of 6 clips
        "min_lr": 4.3e-4,
        "batch": 6,
        "epochs": 200,
        "steps": 2000,
        "warmup_epochs": 20,
        "clip_grad": 1.0,
        "precision": "float32",
    },
}
PROBE = {"clips": CLIPS, "model": MODEL, "views": {"temporal": 1, "spatial": 1}}


def prepare(source: Path) -> None:
    """Write the list of clips, split by people, and prepare shards of them."""
    DATA.mkdir(parents=True, exist_ok=True)
    with (DATA / "list.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "split", "group"))
        for video in sorted(source.resolve().glob("g*_f*_s*_e*.mp4")):
            person = person_of(video)
            split = "test" if person in TEST_PEOPLE else "train"
            rows.writerow((video, video.name[1:3], split, person))
    command = ["mgm", "prepare", "folder", "--source", DATA / "list.csv", "--out", DATA]
    subprocess.run([*command, "--shards", "--short-side", "64"], check=True)


def person_of(video: str | Path) -> int:
    found = re.search(r"_s(\d+)_", Path(video).name)
    assert found
    return int(found[1])


def dataset() -> dict[str, Any]:
    return {"dataset": "gestures", "digest": read_index(DATA).digest}


def specs(seed: int) -> dict[str, tuple[Pretrain | None, dict[str, Probe]]]:
    """Return the pretraining run of each mask and its linear probes."""
    found = {}
    for mask, fields in MASKS.items():
        given = {"verb": "pretrain", "data": dataset(), "mask": fields, "seed": seed}
        parent = parse(given | PRETRAIN, mask) if fields else None
        probes = {}
        for name, (labels, draws) in LABELS.items():
            given = {"data": dataset() | {"labels_per_class": labels}, "label_draws": draws}
            given |= {"verb": "probe", "seed": seed, "parent": parent.run_id if parent else ""}
            probes[name] = parse(given | PROBE, name)
        found[mask] = (parent, probes)
    return found


def train(seeds: list[int], until: str) -> None:
    """Run what is missing, all masks of a seed before the next seed."""
    unpack(RESULTS)
    execution = Workplace(RESULTS, {"gestures": DATA}, RunOptions(cache_mb=1500))
    for seed in seeds:
        if until and time.strftime("%H:%M", time.gmtime()) >= until:
            return print(f"the clock says {until}: stopped between seeds", flush=True)
        for parent, probes in specs(seed).values():
            if parent:
                run_all([parent], pretrain, execution)
            run_all(list(probes.values()), probe, execution)
    print("every seed is done", flush=True)


def cover(clips: int = 400) -> None:
    """Print the share of a clip's motion under each mask, over the clips of training people.

    Motion is the magnitude of the motion vectors, summed over a patch. The interval is over people,
    who have several clips each.
    """
    videos = read_index(DATA).train
    found: dict[str, dict[int, list[float]]] = {}
    for mask in MASKS:
        if mask == "none":
            continue
        parent, _ = specs(0)[mask]
        assert parent
        own = training_loader(videos, parent.clips, 2, 0, 20)
        other = training_loader(
            videos, parent.clips, 2, 0, 20, how=BatchOptions(parent.mask.guidance)
        )
        grid = Grid(*parent.grid)
        for true, guide in islice(zip(own, other), clips // 20):
            masked_BL = make_mask(parent.mask, grid, motion_of(guide), true.seed_B)
            motion_BSHW = torch.nn.functional.adaptive_avg_pool2d(
                true.motion_BSHW, (grid.height, grid.width)
            )
            moved_B = motion_BSHW.flatten(1).sum(1)
            hidden_B = (motion_BSHW.flatten(1) * masked_BL).sum(1)
            for sample, moved, hidden in zip(true.sample_B.tolist(), moved_B, hidden_B):
                if moved > 0:
                    of_mask = found.setdefault(mask, {})
                    person = person_of(videos[sample].path)
                    of_mask.setdefault(person, []).append(100 * float(hidden / moved))
    for mask, of_people in found.items():
        estimate = over_datasets(of_people.values())
        print(f"{TITLES[mask]}: {estimate.mean:.1f} [{estimate.low:.1f}, {estimate.high:.1f}] %")


def probes() -> pd.DataFrame:
    """Return a row per probe of the complete seeds.

    The columns are `seed`, `mask`, `labels`, `top1`, `run_id` and `commit`. A seed is complete if
    all its masks are done.
    """
    unpack(RESULTS)
    runs, specs_of = frame(RESULTS), read_specs(RESULTS)
    runs = runs[(runs.status == "run") & (runs.verb == "probe")]
    number = [specs_of[run].data.labels_per_class for run in runs.run_id]
    names = {labels: name for name, (labels, _) in LABELS.items()}
    masks = runs["mask"].where(runs.guidance != "shuffled", "shuffled")
    runs = runs.assign(mask=masks, labels=[names[n] for n in number], top1=runs["metrics.top1"])
    whole = runs.groupby("seed").filter(lambda some: len(some) == len(MASKS) * len(LABELS))
    found = whole[["seed", "mask", "labels", "top1", "run_id", "commit"]]
    order = {name: place for place, name in enumerate([*MASKS, *LABELS])}
    return found.sort_values(["seed", "labels", "mask"], key=lambda x: x.map(order).fillna(x))


def estimates(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per number of labels and quantity, with its 95 % interval over seeds.

    Differences are paired by seed. The interval does not extend to other people or gestures.
    """
    rows = []
    for labels, some in runs.groupby("labels", sort=False):
        wide = some.pivot(index="seed", columns="mask", values="top1")
        found = {TITLES[mask]: wide[mask] for mask in TITLES}
        found |= {f"MGM minus {name}": wide["mgm"] - wide[mask] for mask, name in OTHERS.items()}
        for name, values in found.items():
            estimate = over_seeds(values.tolist())
            rows.append((labels, name, estimate.mean, estimate.low, estimate.high, estimate.n))
    return pd.DataFrame(rows, columns=["labels", "what", "mean", "low", "high", "seeds"])


@mpl.rc_context(STYLE)
def draw(runs: pd.DataFrame) -> None:
    """Draw docs/gestures.png: top-1 of each mask, with a dot per seed."""
    figure = blank(9.2, 2.4)
    several = figure.subplots(1, len(LABELS), sharey=True)
    figure.subplots_adjust(left=0.2, right=0.98, top=0.88, bottom=0.2, wspace=0.08)
    for axes, labels in zip(several, LABELS):
        wide = runs[runs.labels == labels].pivot(index="seed", columns="mask", values="top1")
        for place, mask in enumerate(TITLES):
            values = wide[mask]
            found = over_seeds(values.tolist())
            axes.plot(values, [place] * len(values), "o", color="#e08214", markersize=3.5, zorder=4)
            if found.has_interval:
                axes.plot([found.low, found.high], [place] * 2, color="#1f5fa8", linewidth=2)
            axes.plot(found.mean, place, "o", color="#1f5fa8", markersize=5)
        axes.axvline(100 / 14, color="#6e6e6e", linewidth=0.8)
        axes.set_yticks(range(len(TITLES)), list(TITLES.values()))
        axes.set_title(f"{labels.capitalize()}, {len(wide)} seeds", loc="left", size=8)
        axes.set_xlabel("Top-1 accuracy (%); the line is chance")
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
        axes.tick_params(axis="y", length=0)
    several[0].invert_yaxis()
    write(figure, DOCS / "gestures.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("prepare", "cover", "train", "table"))
    parser.add_argument("--source", type=Path, help="folder of the clips, for prepare")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--until", default="", help="HH:MM in UTC: start no seed after it")
    args = parser.parse_args()
    if args.what == "prepare":
        if args.source is None:
            parser.error("prepare needs --source DIR, the folder of the clips")
        prepare(args.source)
    elif args.what == "cover":
        cover()
    elif args.what == "train":
        train(args.seeds, args.until)
    else:
        runs = probes()
        runs.round(2).to_csv(DOCS / "gestures.csv", index=False, lineterminator="\n")
        print(estimates(runs).round(1).to_string(index=False))
        draw(runs)


if __name__ == "__main__":
    main()
