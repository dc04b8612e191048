"""`mgm predict SOURCE --weights W --out DIR`: class scores of videos, and a page with them."""

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, FileSystemLoader

from mgm.data.index import Index, Video, read_index
from mgm.errors import UserError
from mgm.models import build_classifier, classes_of, load_weights, read_weights
from mgm.reading import read_text
from mgm.results.atomic import table_text
from mgm.results.lock import file_lock
from mgm.results.outputs import output, require_own, write_output
from mgm.spec import ApplyOptions, Data, Finetune
from mgm.stages.apply import (
    apply,
    discard_parts,
    failed_file,
    find_trained,
    find_videos,
    find_views,
    write_failed,
)
from mgm.stages.evaluate import recorded_classes, softmax_mean
from mgm.stages.job import best_device
from mgm.stages.windows import apply_windows, find_windows
from mgm.video import read_clip

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
SHOWN, TOP = 200, 5  # videos on the page, and classes per video
WIDE = 200  # pixels per picture
# The files in the folder that is written.
NAMES = ("scores.parquet", "predictions.csv", "index.html", "windows.csv")


def predict(source: Path, weights: Path, out: Path, classes: Path | None, how: ApplyOptions) -> str:
    """Write the class scores of every video, and a page.

    - predictions.csv: path, then class and score of the TOP best classes.
    - scores.parquet: path and a column per class. If a class is called path, the column of videos
      is `path_`.
    - index.html: the videos with their best classes.

    A video's scores are the mean of its views' softmax scores.

    With windows (`how.every`), each window has scores, and a video's scores are their mean.
    windows.csv has path, start, end, and class and score of the best class. scores.parquet also has
    start and end. The page has a time line per video.

    Args:
        source: a video, a folder of videos, or an index.
        weights: a fine-tuning run's folder, or a classifier's weights in any format.
        out: the folder to write to.
        classes: an index, or a file with a class name per line, in the order of labels.
        how: clips, and views or windows.

    Returns:
        A line about what was written.

    Raises:
        UserError: there are no videos, the weights are not a classifier's, the number of class
            names is wrong, or a file in `out` is not of this command.
    """
    kept, table_file, page_file = (out / name for name in NAMES[:3])
    require_own(*(out / name for name in NAMES), failed_file(table_file), force=how.force)
    torch.set_num_threads(how.threads)
    trained = find_trained(weights, how)
    count = classes_of(read_weights(trained.weights), trained.weights)
    videos, unreadable, index = find_videos(source)
    given_index = read_index(classes) if classes and classes.is_dir() else None
    labels = _names(classes, given_index, count, recorded_classes(weights), index)
    model = build_classifier(
        Finetune(data=Data(dataset="folder"), clips=trained.clips, model=trained.model), count
    )
    load_weights(model, trained.weights)
    model.to(best_device()).eval()
    segments = dict[str, list[dict[str, Any]]]()
    with file_lock(out):
        if windows := find_windows(how):
            parts, failed = apply_windows(model, trained, videos, windows, kept)
            # A window is a video's only view.
            pairs = [(columns, softmax_mean(value_N[:, None])) for columns, value_N in parts]
            places = pd.concat([columns for columns, _ in pairs], ignore_index=True)
            x_NC = np.concatenate([own_NC for _, own_NC in pairs])
            rows = places.assign(score=x_NC.max(axis=1))
            rows.insert(3, "class", np.array(labels, object)[x_NC.argmax(axis=1)])
            write_output(out / "windows.csv", table_text(rows, rows.itertuples(index=False)))
            own_of = {str(name): own for name, own in rows.groupby("path", sort=False)}
            of_video = {name: x_NC[own.index].mean(axis=0) for name, own in own_of.items()}
            segments = {name: _segments(own, labels) for name, own in own_of.items()}
        else:
            views = find_views(how)
            of_video, failed = apply(model, softmax_mean, trained, videos, views, kept, how.workers)
            places, x_NC = pd.DataFrame({"path": list(of_video)}), np.stack(list(of_video.values()))
        places = places.rename(columns=lambda name: free_column(name, labels))
        scores = pd.concat([pd.DataFrame(x_NC, columns=labels), places], axis=1)
        best = {
            name: [(labels[c], float(x_C[c])) for c in np.argsort(-x_C, kind="stable")[:TOP]]
            for name, x_C in of_video.items()
        }
        known = {
            name: (index.classes[videos[name].label], videos[name].split) for name in best if index
        }
        write_output(table_file, _predictions(best, known))
        with output(kept) as temporary:
            scores.to_parquet(temporary, index=False)
        shown = [
            (name, _picture(videos[name]), classes_of_video, segments.get(name, []))
            for name, classes_of_video in islice(best.items(), SHOWN)
        ]
        page = TEMPLATES.get_template("predict.html.j2").render(
            shown=shown, total=len(best), weights=weights.name
        )
        write_output(page_file, page)
        discard_parts(kept)
        return f"wrote {page_file}: {len(best)} videos, {count} classes" + write_failed(
            table_file, unreadable + failed
        )


def _predictions(
    best: Mapping[str, list[tuple[str, float]]], known: Mapping[str, tuple[str, str]]
) -> str:
    """Return path, classes and scores as CSV. `known` has the class and split of an index.

    `correct` is 1 if the best class is the video's.
    """
    rows = []
    for name, pairs in best.items():
        columns_of_video: list[Any] = [name]
        if name in known:
            label, split = known[name]
            columns_of_video += [label, split, int(pairs[0][0] == label)]
        rows.append([*columns_of_video, *chain(*pairs)])
    columns = ["path", *(("label", "split", "correct") if known else ())]
    for place in range(1, len(pairs) + 1):
        columns += [f"class_{place}", f"score_{place}"]
    return table_text(columns, rows)


def free_column(name: str, classes: Sequence[str]) -> str:
    """Return a column's name, such as `path`, or `path_` if a class is called `path`."""
    while name in classes:
        name += "_"
    return name


def _segments(rows: pd.DataFrame, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the coloured parts of a time line. Successive windows of the same class are one part.

    A part ends where the next one starts. Widths are shares of the video's length.

    Args:
        rows: a video's windows, with start, end and class.
    """
    length, last = rows["end"].max(), rows["end"].iloc[-1]
    first = rows[rows["class"] != rows["class"].shift()]
    return [
        {
            "width": f"{100 * (end - start) / length:.2f}%",
            "colour": f"hsl({(labels.index(label) * 137) % 360} 55% 55%)",
            "title": f"{label}, {start:.1f} to {end:.1f} s",
            "label": label,
            "end": end,
        }
        for label, start, end in zip(
            first["class"], first["start"], [*first["start"][1:], last], strict=True
        )
    ]


def _names(
    classes: Path | None,
    given_index: Index | None,
    count: int,
    recorded: list[str],
    index: Index | None,
) -> list[str]:
    """Return the names that are given, or those of the weights, or those of the videos' index."""
    if classes is None:
        numbers = [f"class {label}" for label in range(count)]
        of_index = list(index.classes) if index else []
        return next((names for names in (recorded, of_index) if len(names) == count), numbers)
    if given_index:
        names = list(given_index.classes)
    else:
        # str.splitlines would split names at further characters.
        names = [line.rstrip("\r\n") for line in io.StringIO(read_text(classes), newline=None)]
    if len(names) != count or len(set(names)) != count or recorded not in ([], names):
        raise UserError(
            f"{classes}: has {len(set(names))} names ({', '.join(names[:3])}), the weights "
            f"distinguish {count} classes ({', '.join(recorded[:3])}); "
            "pass the names of the classes that they were trained on"
        )
    return names


def _picture(video: Video) -> str:
    """Return the middle frame as a JPEG in base64; empty if it cannot be read."""
    try:
        clip = read_clip(video.path, np.array([video.frames // 2]), motion=False)
    except UserError:
        return ""
    frame_HWC = clip.frames_THWC[0]
    high = max(1, round(WIDE * frame_HWC.shape[0] / frame_HWC.shape[1]))
    _, jpeg = cv2.imencode(
        ".jpg", cv2.resize(frame_HWC, (WIDE, high), interpolation=cv2.INTER_AREA)[..., ::-1]
    )
    return base64.b64encode(jpeg.tobytes()).decode()
