"""A user's own videos and a study of them in few steps, for tests that run the Snakefile."""

from functools import partial
from pathlib import Path

import yaml

from mgm.data.folder import index_folder
from mgm.data.prepare import prepare_tracks
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic

SMOKE = Path(__file__).parents[2] / "workflow" / "config" / "smoke.yaml"


def own_videos(folder: Path, drawn: Path, train: int, test: int) -> Path:
    """Return `folder`, filled with a folder of videos for each of two classes.

    The videos are drawn in `drawn` and moved there.
    """
    index = generate(
        Synthetic(classes=2, train_per_class=train, test_per_class=test, size=64), drawn
    )
    for video in index.videos:
        target = folder / index.classes[video.label].replace(" ", "_") / Path(video.path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        Path(video.path).rename(target)
    return folder


def own_study(
    folder: Path, factor: float, specs_per_job: int, seeds: str = "0", train: int = 6
) -> Path:
    """Write own videos, and a study `mine` of three masks on them, to a folder. Return its file.

    Its scale is smoke with few steps, and a checkpoint every 0.1 s.
    """
    videos = own_videos(folder / "videos", folder / "drawn", train, 2)
    prepare_tracks(partial(index_folder, videos), folder / "data", 1)
    scale = yaml.safe_load(SMOKE.read_text()) | {"specs_per_job": specs_per_job}
    scale["steps"]["factor"] = factor
    scale["execution"]["checkpoint_s"] = 0.1
    for stage in ("finetune", "probe"):
        scale["overrides"][stage]["data.labels_per_class"] = 4
    study = {
        "study": "mine",
        "question": "Which mask?",
        "scale": str(folder / "scale.yaml"),
        "datasets": {"clips": {"root": str(folder / "data"), "recipe": "ssv2"}},
        "seeds": seeds,
        "rows": {"None": "none", "Tube": {"mask": "tube"}, "Block": {"mask": "block"}, "MGM": {}},
        "columns": {"Probe": {}, "Fine-tuned": {"stage": "finetune"}},
        "compare": ["MGM minus *"],
    }
    for name, fields in (("scale", scale), ("mine", study)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    return folder / "mine.yaml"
