"""How each kind's namesake publishes its videos, labels and splits: the paths and lists of a
generated set.

    ssv2      OUT/videos/ID.mp4 OUT/labels/{labels,train,validation}.json          our test split is
              its validation split
    k400      OUT/videos/{train,val}/CLASS/ID_START_END.mp4      seconds in a source video that does
              not exist; val is our test split OUT/annotations/{train,val}.csv
              label,youtube_id,time_start,time_end,split,is_cc
    ucf101    OUT/videos/UCF-101/CLASS/v_CLASS_gNN_cMM.avi       split 1: groups 1 to 7 are its test
              split OUT/videos/ucfTrainTestlist/{classInd,trainlist01,testlist01}.txt
    hmdb51    OUT/videos/hmdb51_org/CLASS/ID_CLASS_0.avi
              OUT/videos/testTrainMulti_7030_splits/CLASS_test_split1.txt    after each name 1
              (train) or 2 (test)
    diving48  OUT/videos/rgb/ID.mp4 OUT/videos/Diving48_V2_{train,test}.json           vid_name,
              label, start_frame, end_frame OUT/videos/Diving48_vocab.json                     a
              class's parts, by label

Ids count from 100000 (train) and 200000 (test), with 11 digits where YouTube has 11 characters.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from mgm.data.index import SPLITS
from mgm.data.synthetic.params import Synthetic
from mgm.results.files import table_writer, write

_FIRST_ID = {"train": 100_000, "test": 200_000}
_OFFICIAL = {
    "ssv2": {"train": "train", "test": "validation"},
    "k400": {"train": "train", "test": "val"},
}  # names of splits


def video_name(params: Synthetic, split: str, index: int) -> str:
    """A video's path below OUT/videos."""
    name, number, identity = (
        params.names[index % params.classes],
        index // params.classes,
        _FIRST_ID[split] + index,
    )
    match params.kind:
        case "ssv2":
            return f"{identity}.mp4"
        case "k400":
            return f"{_OFFICIAL['k400'][split]}/{name}/{identity:011d}_{0:06d}_{_seconds(params):06d}.mp4"
        case "ucf101":
            first, groups = (1, 7) if split == "test" else (8, 18)
            return f"UCF-101/{name}/v_{name}_g{first + number % groups:02d}_c{1 + number // groups:02d}.avi"
        case "hmdb51":
            return f"hmdb51_org/{name}/{identity}_{name}_0.avi"
        case "diving48":
            return f"rgb/{identity}.mp4"


def _seconds(params: Synthetic) -> int:
    return math.ceil(params.frames / params.fps)


def write_lists(params: Synthetic, out: Path) -> None:
    """Write the labels and splits below OUT."""
    videos = {  # (label, class, id, path below the folder of all classes) of each
        split: [
            (
                index % params.classes,
                params.names[index % params.classes],
                _FIRST_ID[split] + index,
                video_name(params, split, index),
            )
            for index in range(count)
        ]
        for split, count in params.counts.items()
    }
    rows: list[dict[str, object]]
    match params.kind:
        case "ssv2":
            names = [name[0].upper() + name[1:] for name in params.names]
            _write_json(
                out / "labels" / "labels.json",
                {name: str(label) for label, name in enumerate(names)},
            )
            for split, official in _OFFICIAL["ssv2"].items():
                rows = [
                    {
                        "id": str(identity),
                        "label": name,
                        "template": names[label],
                        "placeholders": [],
                    }
                    for label, name, identity, _ in videos[split]
                ]
                _write_json(out / "labels" / f"{official}.json", rows)
        case "k400":
            (out / "annotations").mkdir(exist_ok=True)
            for split, official in _OFFICIAL["k400"].items():
                with (out / "annotations" / f"{official}.csv").open(
                    "w", newline="", encoding="utf-8"
                ) as file:
                    writer = table_writer(file)
                    writer.writerow(
                        ["label", "youtube_id", "time_start", "time_end", "split", "is_cc"]
                    )
                    for _, name, identity, _ in videos[split]:
                        writer.writerow(
                            [name, f"{identity:011d}", 0, _seconds(params), official, 0]
                        )
        case "ucf101":
            folder = out / "videos" / "ucfTrainTestlist"
            _write_lines(
                folder / "classInd.txt",
                (f"{label} {name}" for label, name in enumerate(params.names, 1)),
            )
            for split in SPLITS:
                names = [
                    path.removeprefix("UCF-101/") + f" {label + 1}" * (split == "train")
                    for label, _, _, path in videos[split]
                ]
                _write_lines(folder / f"{split}list01.txt", names)
        case "hmdb51":
            for name in params.names:
                marked = (
                    (path, mark)
                    for mark, split in enumerate(SPLITS, 1)
                    for _, of, _, path in videos[split]
                    if of == name
                )
                lines = (f"{Path(path).name} {mark}" for path, mark in marked)
                _write_lines(
                    out / "videos" / "testTrainMulti_7030_splits" / f"{name}_test_split1.txt", lines
                )
        case "diving48":
            _write_json(
                out / "videos" / "Diving48_vocab.json", [name.split(", ") for name in params.names]
            )
            for split in SPLITS:
                rows = [
                    {
                        "vid_name": str(identity),
                        "label": label,
                        "start_frame": 0,
                        "end_frame": params.frames,
                    }
                    for label, _, identity, _ in videos[split]
                ]
                _write_json(out / "videos" / f"Diving48_V2_{split}.json", rows)


def _write_json(path: Path, value: object) -> None:
    write(path, json.dumps(value, indent=1) + "\n")


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write(path, "\n".join(lines) + "\n")
