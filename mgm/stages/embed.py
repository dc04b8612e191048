"""`mgm embed SOURCE --weights W --out FILE`: features of videos, as Parquet or npy."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import torch

from mgm.errors import UserError
from mgm.results.atomic import table_text
from mgm.results.lock import file_lock
from mgm.results.outputs import output, require_own, write_output
from mgm.spec import ApplyOptions
from mgm.stages.apply import (
    apply,
    discard_parts,
    failed_file,
    find_trained,
    find_videos,
    find_views,
    write_failed,
)
from mgm.stages.job import best_device
from mgm.stages.windows import apply_windows, find_windows

FORMATS = (".parquet", ".npy")


def embed(
    source: Path,
    weights: Path,
    out: Path,
    how: ApplyOptions,
    per: str = "video",
    tokens: bool = False,
) -> str:
    """Write the encoder's features of every video.

    A clip's feature is the mean of its tokens after the final norm. A fine-tuned encoder applies
    its own norm to the tokens' mean. Parquet has the columns path, view (per clip) and feature, and
    label, class and split if the source is an index. npy has features (N, D) in float32. Then a CSV
    file of the same name has the other columns.

    Args:
        source: a video, a folder of videos, or an index.
        weights: a run's folder, or weights in any format.
        how: clips, and views or windows along each video (`mgm.stages.windows`).
        per: `clip` keeps each view, `video` their mean.
        tokens: write every token of each window, in float16.

    Returns:
        A line about what was written.

    Raises:
        UserError: there are no videos or no weights, `out` has another file format, another
            process writes it, or it would replace a file that mgm did not write.
    """
    if out.suffix not in FORMATS:
        raise UserError(f"{out}: write features to a file that ends in {' or '.join(FORMATS)}")
    windows = find_windows(how)
    if tokens and (windows is None or out.suffix != ".npy"):
        raise UserError(f"{out}: --tokens needs --every SECONDS, and a file that ends in .npy")
    beside = [out.with_suffix(".csv")] if out.suffix == ".npy" else []
    require_own(out, *beside, failed_file(out), force=how.force)
    torch.set_num_threads(how.threads)
    trained = find_trained(weights, how)
    videos, unreadable, index = find_videos(source)
    model = trained.encoder().to(best_device())
    with file_lock(out):
        if windows:
            compute, dtype = (model.tokens, np.float16) if tokens else (model, np.float32)
            rows, failed = apply_windows(compute, trained, videos, windows, out, dtype)
        else:
            reduce = mean_of_views if per == "video" else each_view
            of_video, failed = apply(
                model, reduce, trained, videos, find_views(how), out, how.workers
            )
            table = pd.DataFrame({"path": list(of_video)})
            if index:
                table["label"] = [videos[name].label for name in of_video]
                table["class"] = [index.classes[videos[name].label] for name in of_video]
                table["split"] = [videos[name].split for name in of_video]
            x_NVD = np.stack(list(of_video.values()))
            table = table.loc[table.index.repeat(x_NVD.shape[1])]
            if per == "clip":
                table["view"] = np.tile(np.arange(x_NVD.shape[1]), len(x_NVD))
            rows = iter([(table, x_NVD.reshape(len(table), -1))])
        text = _write(out, rows, "windows" if windows else "features")
        return text + write_failed(out, unreadable + failed)


def _write(out: Path, parts: Iterator[tuple[pd.DataFrame, np.ndarray]], rows: str) -> str:
    """Write features (N, D) with their columns, or tokens (N, L, D).

    A CSV file next to npy has the columns. Parts are read one at a time, so that tokens need not
    fit in memory.
    """
    tables = list[pd.DataFrame]()
    with output(out) as temporary, temporary.open("wb") as file:
        for table, value_N in parts:
            dtype, shape = value_N.dtype.str, value_N.shape[1:]
            if out.suffix == ".npy":
                if not tables:
                    _write_header(file, dtype, (0, *shape))
                file.write(np.ascontiguousarray(value_N).tobytes())
            else:
                table = table.assign(feature=list(value_N))
            tables.append(table)
        whole = pd.concat(tables, ignore_index=True)
        if out.suffix == ".npy":
            file.seek(0)
            _write_header(file, dtype, (len(whole), *shape))
        else:
            whole.to_parquet(file, index=False)
    if out.suffix == ".npy":
        text = table_text(whole, whole.itertuples(index=False), decimals=3)
        write_output(out.with_suffix(".csv"), text)
    discard_parts(out)
    videos = whole["path"].nunique()
    return f"wrote {out}: {len(whole)} {rows} of width {shape[-1]}, {videos} videos"


def _write_header(file: IO[bytes], dtype: str, shape: tuple[int, ...]) -> None:
    """Write npy's header. NumPy pads it, so that the number of rows can change later."""
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, fields)


def mean_of_views(x_VD: np.ndarray) -> np.ndarray:
    """Return the mean over views, (1, D)."""
    return x_VD.mean(0, keepdims=True)


def each_view(x_VD: np.ndarray) -> np.ndarray:
    """Return all views."""
    return x_VD
