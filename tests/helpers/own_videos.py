"""A user's own videos and a scale of few steps, for tests that run the Snakefile."""

from pathlib import Path

import yaml

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


def small_scale(
    folder: Path, factor: float, specs_per_job: int, seeds: tuple[int, ...] = (0,)
) -> Path:
    """Write a scale file: smoke with few seeds and steps, and a checkpoint every 0.1 s."""
    scale = yaml.safe_load(SMOKE.read_text())
    scale |= {"seeds": list(seeds), "more_seeds": {}, "specs_per_job": specs_per_job}
    scale["steps"]["factor"] = factor
    scale["execution"]["checkpoint_s"] = 0.1
    scale["overrides"]["finetune"]["data.labels_per_class"] = scale["overrides"]["probe"][
        "data.labels_per_class"
    ] = 4
    path = folder / "scale.yaml"
    path.write_text(yaml.safe_dump(scale, sort_keys=False))
    return path
