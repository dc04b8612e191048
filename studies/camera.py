"""Measure how much of moving discs MGM hides under a panning camera, by `mask.compensate`.

    python studies/camera.py FOLDER    # draws the videos there, prints a Markdown table

The positions of the discs are known from drawing them, so they do not depend on motion vectors.
Rows are speeds of the pan, columns are masks. Each number is a mean over test videos, with its 95 %
confidence interval.
"""

import argparse
from pathlib import Path

import numpy as np
from guidance import hidden_share

from mgm.data.index import read_index
from mgm.data.synthetic.drawing import scene, tracks
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.results.statistics import over_seeds
from mgm.spec import Clips, Data, Mask, Model, Pretrain

PANS = (0.0, 0.8, 2.0, 4.0)  # pixels per frame
MASKS = {
    "block": Mask(name="block"),
    **{f"mgm, {way}": Mask(compensate=way) for way in ("none", "median", "affine")},
    **{
        f"mgm-sparse, {way}": Mask(name="mgm-sparse", compensate=way)
        for way in ("none", "median", "affine")
    },
}


def main() -> None:
    """Draw a set for each pan and number of discs, and print its row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print("| discs | pan | " + " | ".join(MASKS) + " |")
    print("|---" * (2 + len(MASKS)) + "|")
    for sprites in (1, 3):
        for pan in PANS:
            params = Synthetic(
                kind="ssv2",
                layout="sway",
                quick=1,
                sprites=sprites,
                diameter=0.2,
                train_per_class=1,
                test_per_class=8,
                classes=12,
                size=128,
                pan=pan,
                seed=1,
            )
            place = folder / f"{sprites}-{pan}"
            generate(params, place, processes=2)
            cells = [_cell(params, place, mask) for mask in MASKS.values()]
            print(f"| {sprites} | {pan:g} | " + " | ".join(cells) + " |", flush=True)


def _cell(params: Synthetic, place: Path, mask: Mask) -> str:
    spec = Pretrain(
        data=Data(dataset="ssv2"),
        clips=Clips(frames=8, size=112, stride=2),
        model=Model(patch=8),
        mask=mask,
    )
    shares = [
        hidden_share(video, tracks(params, scene(params, "test", seed)), spec, seed)
        for seed, video in enumerate(read_index(place).test)
    ]
    found = over_seeds(np.array(shares).tolist())
    return f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]"


if __name__ == "__main__":
    main()
