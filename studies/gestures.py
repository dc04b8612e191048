"""Test the masks on real motion: hand gestures of people that pretraining has not seen.

    python studies/gestures.py prepare --source DIR   # index, shards; DIR has gGG_fF_sSS_eEE.mp4
    python studies/gestures.py cover                  # share of motion that each mask hides
    python studies/gestures.py train                  # repeat to continue
    python studies/gestures.py table                  # docs/gestures.csv, docs/gestures.png
    python studies/gestures.py vectors                # features and histogram in one probe

2,800 clips of 14 gestures by 28 people: the depth videos of the SHREC'17 track, 160 x 120 pixels,
32 frames, H.264. Their terms of use are not verified, so the repository contains no clip.
studies/gestures.md lists the runs and their order, when to stop, and the predictions.
"""

import argparse
import csv
import re
import subprocess
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import torch
from drawn import commit, draw_rows, holm_of_differences

from mgm.data.index import read_index
from mgm.masking import Grid, make_mask
from mgm.models import build_frozen_encoder
from mgm.report.figures.style import STYLE, blank, write
from mgm.results.archive import unpack
from mgm.results.frame import frame, read_specs
from mgm.results.statistics import Estimate, over_datasets, over_seeds
from mgm.spec import Finetune, Pretrain, Probe, Run, RunOptions, Views, parse
from mgm.stages.finetune import finetune
from mgm.stages.job import Job, Split, Workplace, motion_of
from mgm.stages.measure import controls
from mgm.stages.pretrain import pretrain
from mgm.stages.probe import fit_draws, probe, split_features
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
# How the accuracy is measured. `attentive` is first: it stores the features that `linear` reads.
WAYS = {
    "attentive": "Attentive probe",
    "linear": "Linear probe",
    "fine-tuned": "Fine-tuned",
}
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
FINETUNE = PROBE | {"init_std": 0.14, "layer_decay": 0.5, "drop_path": 0}
# Learning rate per step, clips per step, epochs: chosen on training people (studies/gestures.md).
FINETUNE_OPTIM = {"all labels": (4e-3, 16, 12), "5 labels per class": (1e-3, 4, 100)}


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
    command = [
        sys.executable,
        "-m",
        "mgm",
        "prepare",
        "folder",
        "--source",
        DATA / "list.csv",
        "--out",
        DATA,
    ]
    subprocess.run([*command, "--shards", "--short-side", "64"], check=True)


def person_of(video: str | Path) -> int:
    found = re.search(r"_s(\d+)_", Path(video).name)
    assert found
    return int(found[1])


def dataset() -> dict[str, Any]:
    return {"dataset": "gestures", "digest": read_index(DATA).digest}


def specs(seed: int) -> dict[str, tuple[Pretrain | None, dict[tuple[str, str], Probe | Finetune]]]:
    """Return the pretraining run of each mask, and its runs by (way, labels)."""
    found = {}
    for mask, fields in MASKS.items():
        given = {"verb": "pretrain", "data": dataset(), "mask": fields, "seed": seed}
        parent = parse(given | PRETRAIN, mask) if fields else None
        runs = {}
        for name, (labels, draws) in LABELS.items():
            given = {"data": dataset() | {"labels_per_class": labels}, "seed": seed}
            given["parent"] = parent.run_id if parent else ""
            for way, kind in (("attentive", "attentive"), ("linear", "logistic")):
                fields = {"verb": "probe", "kind": kind, "label_draws": draws}
                runs[way, name] = parse(given | fields | PROBE, name)
            fields = {"verb": "finetune", "optim": finetune_optim(name)}
            runs["fine-tuned", name] = parse(given | fields | FINETUNE, name)
        found[mask] = (parent, runs)
    return found


def finetune_optim(labels: str) -> dict[str, Any]:
    """Return the optimiser's fields. A spec's learning rate is that of 256 clips."""
    lr, batch, epochs = FINETUNE_OPTIM[labels]
    return {
        "lr": lr * 256 / batch,
        "min_lr": 1e-5 * 256 / batch,
        "batch": batch,
        "epochs": epochs,
        "warmup_epochs": epochs / 10,
        "clip_grad": 1.0,
        "precision": "float32",
        "betas": [0.9, 0.95],
    }


def train(seeds: list[int]) -> None:
    """Run what is missing, all masks of a seed before the next seed."""
    unpack(RESULTS)
    execution = Workplace(RESULTS, {"gestures": DATA}, RunOptions(cache_mb=1500))
    for seed in seeds:
        for parent, runs in specs(seed).values():
            run_mask(parent, runs, execution)
    print("every seed is done", flush=True)


def run_mask(
    parent: Pretrain | None,
    runs: Mapping[tuple[str, str], Probe | Finetune],
    execution: Workplace,
) -> None:
    """Run the pretraining of a mask, and then what starts from it, in the order of `WAYS`."""
    if parent:
        run_all([parent], pretrain, execution)
    for way in WAYS:
        some = [run for (of, _), run in runs.items() if of == way]
        run_all(some, finetune if way == "fine-tuned" else probe, execution)


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
        print(f"{TITLES[mask]} (%): {in_words(over_datasets(of_people.values()))}")


def measured(results: Path) -> pd.DataFrame:
    """Return a row per run that measures accuracy.

    The columns are `seed`, `way`, `labels`, `mask`, `top1`, `run_id` and `commit`.
    """
    unpack(results)
    runs, specs_of = frame(results), read_specs(results)
    runs = runs[(runs.status == "run") & (runs.verb != "pretrain")]
    number = [specs_of[run].data.labels_per_class for run in runs.run_id]
    names = {labels: name for name, (labels, _) in LABELS.items()}
    masks = runs["mask"].where(runs.guidance != "shuffled", "shuffled")
    ways = [way_of(specs_of[run]) for run in runs.run_id]
    runs = runs.assign(mask=masks, labels=[names[n] for n in number], way=ways)
    runs = runs.assign(top1=runs["metrics.top1"])
    found = runs[["seed", "way", "labels", "mask", "top1", "run_id", "commit"]]
    order = {name: place for place, name in enumerate([*MASKS, *LABELS, *WAYS])}
    by = ["way", "labels", "seed", "mask"]
    return found.sort_values(by, key=lambda x: x.map(order).fillna(x))


def probes() -> pd.DataFrame:
    """Return the rows of `measured` of the complete seeds.

    A seed is complete for a way if all its masks are done with all numbers of labels.
    """
    runs = measured(RESULTS)
    groups = runs.groupby(["seed", "way"])
    return runs[groups.run_id.transform("size") == len(MASKS) * len(LABELS)]


def way_of(spec: Run) -> str:
    """Return the name in `WAYS` of a run that measures accuracy."""
    if isinstance(spec, Finetune):
        return "fine-tuned"
    return {"attentive": "attentive", "logistic": "linear"}[spec.kind]


def estimates(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per way, number of labels and quantity, with its 95 % interval over seeds.

    Differences are paired by seed. The interval does not extend to other people or gestures. `holm`
    is True for a difference from 0 at a family-wise level of 5 %, over the differences of a way and
    number of labels.
    """
    rows = []
    for (way, labels), some in runs.groupby(["way", "labels"], sort=False):
        wide = some.pivot(index="seed", columns="mask", values="top1")
        found = {TITLES[mask]: wide[mask] for mask in TITLES}
        found |= {f"MGM minus {name}": wide["mgm"] - wide[mask] for mask, name in OTHERS.items()}
        of = {name: over_seeds(values.tolist()) for name, values in found.items()}
        passes = holm_of_differences(of)
        rows += [(way, labels, name, *one, passes.get(name, "")) for name, one in of.items()]
    columns = ["way", "labels", "what", "mean", "low", "high", "seeds", "holm"]
    return pd.DataFrame(rows, columns=columns)


@mpl.rc_context(STYLE)
def draw(runs: pd.DataFrame) -> None:
    """Draw docs/gestures.png: top-1 of each mask by way and labels, with a dot per seed."""
    ways = [way for way in ("linear", "attentive", "fine-tuned") if way in set(runs.way)]
    height = 0.8 + 1.6 * len(ways)
    figure = blank(9.2, height)
    several = figure.subplots(len(ways), len(LABELS), sharey=True, sharex="col", squeeze=False)
    figure.subplots_adjust(left=0.2, right=0.98, wspace=0.08, hspace=0.25)
    figure.subplots_adjust(top=1 - 0.3 / height, bottom=0.5 / height)
    for way, row in zip(ways, several):
        for labels, axes in zip(LABELS, row):
            some = runs[(runs.labels == labels) & (runs.way == way)]
            wide = some.pivot(index="seed", columns="mask", values="top1")
            draw_rows(axes, {TITLES[mask]: wide[mask] for mask in TITLES}, over_seeds)
            axes.axvline(100 / 14, color="#6e6e6e", linewidth=0.8)
            axes.set_title(f"{WAYS[way]}, {labels}, {len(wide)} seeds", loc="left", size=8)
    for axes in several[-1]:
        axes.set_xlabel("Top-1 accuracy (%); the line is chance")
    several[0, 0].invert_yaxis()
    write(figure, DOCS / "gestures.png")


def vectors(seeds: list[int]) -> None:
    """Print the accuracy of a linear probe on features and vectors together, all labels.

    The vectors are the histogram by quadrant of `mgm measure controls`. docs/gestures-vectors.csv
    has a row per seed, mask and what the probe is given.
    """
    unpack(RESULTS)
    index, version = read_index(DATA), commit()
    vectors_ND = torch.from_numpy(controls.read(index).features["vector_quadrants"]).float()
    place_of = {video.path: place for place, video in enumerate(index.videos)}
    test_N = torch.tensor([place_of[video.path] for video in index.test])
    label_N = torch.tensor([video.label for video in index.test])
    rows = []
    for seed in seeds:
        of_masks = specs(seed)
        for mask, (parent, runs) in of_masks.items():
            spec = runs["linear", "all labels"]
            job = Job(spec, DATA, Workplace(RESULTS, {"gestures": DATA}, RunOptions()), index)
            videos = job.training_videos(0)
            train_N = torch.tensor([place_of[video.path] for video in videos])
            weights = job.weights(parent.run_id) if parent else None
            model = build_frozen_encoder(spec, weights)
            one = Views(temporal=1, spatial=1)
            train, test = (
                split_features(job, model, of, one, False) for of in (videos, index.test)
            )
            given = {
                "features": (train.x_ND, test.x_ND),
                "features and vectors": (
                    torch.cat((train.x_ND, vectors_ND[train_N]), 1),
                    torch.cat((test.x_ND, vectors_ND[test_N]), 1),
                ),
            }
            if mask == "none":
                given["vectors"] = (vectors_ND[train_N], vectors_ND[test_N])
            for what, (x_ND, y_ND) in given.items():
                order = torch.arange
                own, other = Split(x_ND, order(len(x_ND))), Split(y_ND, order(len(y_ND)))
                (logits_NC,), _ = fit_draws(job, [videos], videos, own, other)
                right = torch.from_numpy(logits_NC).argmax(1) == label_N
                rows.append((seed, mask, what, 100 * right.float().mean().item()))
        print(f"seed {seed}: done", flush=True)
    table = pd.DataFrame(rows, columns=["seed", "mask", "given", "top1"]).assign(commit=version)
    path = DOCS / "gestures-vectors.csv"
    table.round(2).to_csv(path, index=False, lineterminator="\n")
    alone = table[table.given == "vectors"].set_index("seed").top1
    for (mask, what), some in table.groupby(["mask", "given"], sort=False):
        values = some.set_index("seed").top1
        print(f"{TITLES[mask]}, {what}: {in_words(over_seeds(values.tolist()))}")
        print(f"    minus vectors alone: {in_words(over_seeds((values - alone).tolist()))}")


def in_words(estimate: Estimate) -> str:
    return f"{estimate.mean:.1f} [{estimate.low:.1f}, {estimate.high:.1f}], n = {estimate.n}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("prepare", "cover", "train", "table", "vectors"))
    parser.add_argument("--source", type=Path, help="folder of the clips, for prepare")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    args = parser.parse_args()
    if args.what == "prepare":
        if args.source is None:
            parser.error("prepare needs --source DIR, the folder of the clips")
        prepare(args.source)
    elif args.what == "cover":
        cover()
    elif args.what == "train":
        train(args.seeds)
    elif args.what == "vectors":
        vectors(args.seeds)
    else:
        runs = probes()
        runs.round(2).to_csv(DOCS / "gestures.csv", index=False, lineterminator="\n")
        print(estimates(runs).round(1).to_string(index=False))
        draw(runs)


if __name__ == "__main__":
    main()
