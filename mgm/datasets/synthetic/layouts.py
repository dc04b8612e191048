"""How each kind's namesake publishes its videos, labels and splits: the paths and lists of a generated set.

    ssv2      OUT/videos/ID.mp4
              OUT/labels/{labels,train,validation}.json          our test split is its validation split
    k400      OUT/videos/{train,val}/CLASS/ID_START_END.mp4      seconds in a source video that does not exist; val is our test split
              OUT/annotations/{train,val}.csv                    label,youtube_id,time_start,time_end,split,is_cc
    ucf101    OUT/videos/UCF-101/CLASS/v_CLASS_gNN_cMM.avi       split 1: groups 1 to 7 are its test split
              OUT/videos/ucfTrainTestlist/{classInd,trainlist01,testlist01}.txt
    hmdb51    OUT/videos/hmdb51_org/CLASS/ID_CLASS_0.avi
              OUT/videos/testTrainMulti_7030_splits/CLASS_test_split1.txt    after each name 1 (train) or 2 (test)
    diving48  OUT/videos/rgb/ID.mp4
              OUT/videos/Diving48_V2_{train,test}.json           vid_name, label, start_frame, end_frame
              OUT/videos/Diving48_vocab.json                     a class's parts, by label

Ids count from 100000 (train) and 200000 (test), with 11 digits where YouTube has 11 characters.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mgm.datasets.index import SPLITS
from mgm.datasets.synthetic.params import Kind, Synthetic

_FIRST_ID = {"train": 100_000, "test": 200_000}
_K400_SPLIT = {"train": "train", "test": "val"}


class Layout(NamedTuple):
    """`name`: a video's path below OUT/videos, given its split and index. `write_lists`: write the labels and splits below OUT."""

    name: Callable[[Synthetic, str, int], str]
    write_lists: Callable[[Synthetic, Path], None]


def _videos(params: Synthetic, split: str) -> Iterator[tuple[int, int, str]]:
    """(index, label, class) of each video of a split."""
    for index in range(params.counts[split]):
        label = index % params.classes
        yield index, label, params.names[label]


def _class(params: Synthetic, index: int) -> str:
    return params.names[index % params.classes]


def _ssv2_name(params: Synthetic, split: str, index: int) -> str:
    return f"{_FIRST_ID[split] + index}.mp4"


def _write_ssv2(params: Synthetic, out: Path) -> None:
    names = [name[0].upper() + name[1:] for name in params.names]
    _write_json(out / "labels" / "labels.json", {name: str(label) for label, name in enumerate(names)})
    for split, official in (("train", "train"), ("test", "validation")):
        rows = [
            {"id": str(_FIRST_ID[split] + index), "label": name, "template": names[label], "placeholders": []}
            for index, label, name in _videos(params, split)
        ]
        _write_json(out / "labels" / f"{official}.json", rows)


def _seconds(params: Synthetic) -> int:
    return math.ceil(params.frames / params.fps)


def _k400_name(params: Synthetic, split: str, index: int) -> str:
    times = f"{0:06d}_{_seconds(params):06d}"
    return f"{_K400_SPLIT[split]}/{_class(params, index)}/{_FIRST_ID[split] + index:011d}_{times}.mp4"


def _write_k400(params: Synthetic, out: Path) -> None:
    (out / "annotations").mkdir(exist_ok=True)
    for split, official in _K400_SPLIT.items():
        with (out / "annotations" / f"{official}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["label", "youtube_id", "time_start", "time_end", "split", "is_cc"])
            for index, _, name in _videos(params, split):
                writer.writerow([name, f"{_FIRST_ID[split] + index:011d}", 0, _seconds(params), official, 0])


def _ucf101_name(params: Synthetic, split: str, index: int) -> str:
    name, number = _class(params, index), index // params.classes
    first, groups = (1, 7) if split == "test" else (8, 18)
    return f"UCF-101/{name}/v_{name}_g{first + number % groups:02d}_c{1 + number // groups:02d}.avi"


def _write_ucf101(params: Synthetic, out: Path) -> None:
    folder = out / "videos" / "ucfTrainTestlist"
    _write_lines(folder / "classInd.txt", (f"{label + 1} {_class(params, label)}" for label in range(params.classes)))
    for split in SPLITS:
        names = ((_ucf101_name(params, split, index).removeprefix("UCF-101/"), label) for index, label, _ in _videos(params, split))
        _write_lines(folder / f"{split}list01.txt", (f"{name} {label + 1}" if split == "train" else name for name, label in names))


def _hmdb51_name(params: Synthetic, split: str, index: int) -> str:
    name = _class(params, index)
    return f"hmdb51_org/{name}/{_FIRST_ID[split] + index}_{name}_0.avi"


def _write_hmdb51(params: Synthetic, out: Path) -> None:
    for label in range(params.classes):
        lines = (
            f"{Path(_hmdb51_name(params, split, index)).name} {mark}"
            for split, mark in (("train", 1), ("test", 2))
            for index in range(label, params.counts[split], params.classes)
        )
        _write_lines(out / "videos" / "testTrainMulti_7030_splits" / f"{_class(params, label)}_test_split1.txt", lines)


def _diving48_name(params: Synthetic, split: str, index: int) -> str:
    return f"rgb/{_FIRST_ID[split] + index}.mp4"


def _write_diving48(params: Synthetic, out: Path) -> None:
    _write_json(out / "videos" / "Diving48_vocab.json", [name.split(", ") for name in params.names])
    for split in SPLITS:
        rows = [
            {"vid_name": str(_FIRST_ID[split] + index), "label": label, "start_frame": 0, "end_frame": params.frames}
            for index, label, _ in _videos(params, split)
        ]
        _write_json(out / "videos" / f"Diving48_V2_{split}.json", rows)


LAYOUTS: dict[Kind, Layout] = {
    "ssv2": Layout(_ssv2_name, _write_ssv2),
    "k400": Layout(_k400_name, _write_k400),
    "ucf101": Layout(_ucf101_name, _write_ucf101),
    "hmdb51": Layout(_hmdb51_name, _write_hmdb51),
    "diving48": Layout(_diving48_name, _write_diving48),
}


def _write_json(path: Path, value: object) -> None:
    _write(path, json.dumps(value, indent=1))


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    _write(path, "\n".join(lines))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
