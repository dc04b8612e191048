"""`mgm embed SOURCE --weights W --out FILE`:

features of videos, from any weights, as Parquet or npy.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mgm.data.index import read_index
from mgm.errors import UserError
from mgm.models import build_features
from mgm.results import files
from mgm.spec import Data, Probe, Views
from mgm.stages.apply import apply, discard_parts, find_source, find_videos, write_failed

FORMATS = (".parquet", ".npy")


def embed(
    source: Path,
    weights: Path,
    out: Path,
    views: Views,
    per: str,
    frames: int,
    size: int,
    stride: int,
    workers: int,
    threads: int,
) -> str:
    """Write the encoder's features of every video: the mean of its tokens after the final norm, or
    a finetuned encoder's own norm of the mean. `per` clip keeps each view, `per` video their mean.

    Parquet: columns path, view (per clip), feature; of an index also label, class and split. npy: features (N, D)
    float32, and the other columns in a CSV file of the same name.

    Raises:
        UserError: no videos, no weights, another file format.
    """
    if out.suffix not in FORMATS:
        raise UserError(f"{out}: write features to a file that ends in {' or '.join(FORMATS)}")
    torch.set_num_threads(threads)
    given = find_source(weights, frames, size, stride)
    videos, unreadable = find_videos(source)
    model = build_features(
        Probe(data=Data(dataset="folder"), clips=given.clips, model=given.model), given.weights
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    found, failed = apply(
        model, mean_of_views if per == "video" else each_view, given, videos, views, out, workers
    )
    table, features = pd.DataFrame({"path": list(found)}), np.stack(list(found.values()))
    if (source / "index.json").is_file():
        classes = read_index(source).classes
        table["label"] = [videos[name].label for name in found]
        table["class"] = [classes[label] for label in table["label"]]
        table["split"] = [videos[name].split for name in found]
    table = table.loc[table.index.repeat(features.shape[1])].reset_index(drop=True)
    if per == "clip":
        table["view"] = np.tile(np.arange(features.shape[1]), len(features))
    features = features.reshape(len(table), -1)
    with files.atomic_write(out) as temporary, temporary.open("wb") as file:
        if out.suffix == ".npy":
            np.save(file, features)
        else:
            table.assign(feature=list(features)).to_parquet(file, index=False)
    if out.suffix == ".npy":
        files.write(out.with_suffix(".csv"), table.to_csv(index=False))
    discard_parts(out)
    text = (
        f"wrote {out}: {len(features)} features of width {features.shape[1]}, {len(found)} videos"
    )
    return text + write_failed(out, unreadable + failed)


def mean_of_views(x_VD: np.ndarray) -> np.ndarray:
    return x_VD.mean(0, keepdims=True)


def each_view(x_VD: np.ndarray) -> np.ndarray:
    return x_VD
