"""Test the masks on real clips: pretrain on three small public datasets, then probe each.

    python studies/real_clips.py prepare --clips DIR   # index and shards
    python studies/real_clips.py train                 # runs in the background; repeat to continue
    python studies/real_clips.py table                 # docs/real-clips.csv, means and intervals

DIR/fight has Surveillance Camera Fight (2 classes), DIR/ucf101 has UCF101 (its classes of 20 clips
or more), and DIR/ut_interaction has UT-Interaction (6 classes). Files have the names that their
authors gave them. Each dataset has three folds by the scene in a file's name, so every clip is
tested once per seed. Pretraining uses the three datasets together and no labels. With every mask,
it also sees the test clips.
"""

import argparse
import csv
import re
import subprocess
from collections import Counter
from pathlib import Path

import pandas as pd

from mgm.data.index import read_index
from mgm.results.frame import frame
from mgm.results.statistics import over_seeds
from mgm.spec import RunOptions, parse
from mgm.stages.job import Workplace
from mgm.stages.pretrain import pretrain
from mgm.stages.probe import probe
from mgm.stages.runner import run_all

ROOT = Path(__file__).parents[1]
RESULTS, DATA = ROOT / "results/real-clips", ROOT / "data/real-clips"
SEEDS, FOLDS = (0, 1, 2), (0, 1, 2)
# Masks with their mask ratios.
MASKS = {"none": None, "tube": 0.9, "mgm": 0.75, "block": 0.75}
# Datasets, each with the pattern of its files, and of the scene in a file's name.
SCENES = {
    "fight": ("fight/*/*.mp4", r"(\d+)"),
    "ucf101": ("ucf101/*/*.avi", r"_g(\d+)_"),
    "ut": ("ut_interaction/*/*.avi", r"\d+_(\d+)_"),
}
UT = ["handshake", "hug", "kick", "point", "punch", "push"]  # the last number of a name
CLIPS = {"frames": 8, "size": 64, "stride": 4}
MODEL = {"patch": 8, "width": 96, "depth": 4, "heads": 4}
PRETRAIN = {
    "clips": CLIPS,
    "model": MODEL,
    "decoder": {"width": 48, "depth": 1, "heads": 4},
    "head_init": "zero",
    "optim": {
        "lr": 2.4e-2,
        "min_lr": 1.6e-4,
        "batch": 16,
        "epochs": 100,
        "steps": 3000,
        "warmup_epochs": 10,
        "clip_grad": 1.0,
        "precision": "float32",
    },
}
PROBE = {
    "clips": CLIPS | {"sampling": "window", "crop": "centre"},
    "model": MODEL,
    "train_clips": 4,
    "views": {"temporal": 4, "spatial": 1},
}


def prepare(clips: Path) -> None:
    """Write CSV lists of each dataset and fold, and of all clips, and prepare shards of them."""
    DATA.mkdir(parents=True, exist_ok=True)
    everything = []
    for name, (pattern, scene) in SCENES.items():
        videos = sorted(clips.glob(pattern))
        labels = [
            UT[int(video.stem[-1])] if name == "ut" else video.parent.name for video in videos
        ]
        enough = {label for label, count in Counter(labels).items() if count >= 20}
        everything += videos
        for fold in FOLDS:
            rows = [
                (
                    video.resolve(),
                    label,
                    "test"
                    if int(re.search(scene, video.stem)[1]) % len(FOLDS) == fold
                    else "train",
                )
                for video, label in zip(videos, labels)
                if label in enough
            ]
            write(DATA / f"{name}-{fold}.csv", rows)
    write(
        DATA / "all.csv",
        [
            (video.resolve(), video.parts[len(clips.parts)], "train" if place else "test")
            for place, video in enumerate(everything)
        ],
    )


def write(path: Path, rows: list[tuple[Path, str, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    subprocess.run(
        [
            "mgm",
            "prepare",
            "folder",
            "--source",
            path,
            "--out",
            path.with_suffix(""),
            "--shards",
            "--short-side",
            "72",
        ],
        check=True,
    )


def train() -> None:
    """Run what is missing: one pretraining run per mask and seed, and its probes."""
    execution = Workplace(
        RESULTS,
        {path.stem: path.with_suffix("") for path in DATA.glob("*.csv")},
        RunOptions(cache_mb=2000),
    )
    for mask, ratio in MASKS.items():
        for seed in SEEDS:
            parent = ""
            if ratio:
                spec = parse(
                    {
                        "verb": "pretrain",
                        **data("all"),
                        **PRETRAIN,
                        "mask": {"name": mask, "ratio": ratio},
                        "seed": seed,
                    },
                    mask,
                )
                run_all([spec], pretrain, execution)
                parent = spec.run_id
            probes = [
                parse(
                    {
                        "verb": "probe",
                        **data(f"{name}-{fold}"),
                        **PROBE,
                        "parent": parent,
                        "seed": seed,
                    },
                    name,
                )
                for name in SCENES
                for fold in FOLDS
            ]
            run_all(probes, probe, execution)


def data(dataset: str) -> dict[str, dict[str, str]]:
    return {"data": {"dataset": dataset, "digest": read_index(DATA / dataset).digest}}


def probes() -> pd.DataFrame:
    """Return a row per probe.

    The columns are `set`, `dataset` (set and fold), `mask`, `seed`, `top1`, `n_test`, `run_id` and
    `commit`.
    """
    runs = frame(RESULTS).query("status == 'run' and verb == 'probe'")
    runs = runs.assign(set=runs.dataset.str[:-2], top1=runs["metrics.top1"])
    columns = ["set", "dataset", "mask", "seed", "top1", "n_test", "run_id", "commit"]
    return runs[columns].sort_values(columns[:4]).reset_index(drop=True)


def table() -> None:
    """Write every probe, and print accuracies and differences between masks.

    An accuracy is over all clips of a dataset. Numbers are means over seeds, and differences are
    paired by seed.
    """
    runs = probes()
    runs.round(2).to_csv(ROOT / "docs/real-clips.csv", index=False, lineterminator="\n")
    whole = (
        runs.assign(right=runs.top1 * runs.n_test)
        .groupby(["set", "mask", "seed"])[["right", "n_test"]]
        .sum()
    )
    wide = (whole.right / whole.n_test).unstack("mask")
    for name, some in [*wide.groupby("set"), ("mean of sets", wide.groupby("seed").mean())]:
        for mask in some:
            less = (
                f"less {other} {interval(some[mask] - some[other])}"
                for other in some
                if other != mask
            )
            print(name, mask, interval(some[mask]), *less, sep="; ")


def interval(values: pd.Series) -> str:
    found = over_seeds(values.dropna().tolist())
    return (
        f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]"
        if found.has_interval
        else f"{found.mean:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("prepare", "train", "table"))
    parser.add_argument("--clips", type=Path, default=Path("clips"))
    args = parser.parse_args()
    prepare(args.clips) if args.what == "prepare" else train() if args.what == "train" else table()


if __name__ == "__main__":
    main()
