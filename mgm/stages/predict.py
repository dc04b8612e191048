"""`mgm predict SOURCE --weights W --out DIR`:

class scores of videos, and a page that shows them.
"""

import base64
import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, FileSystemLoader

from mgm.data.index import Video, read_index
from mgm.errors import UserError
from mgm.models import build_classifier, classes_of, load_weights, read_weights
from mgm.reading import read_text
from mgm.results import files
from mgm.spec import Data, Finetune, Views
from mgm.stages.apply import apply, discard_parts, find_source, find_videos, write_failed
from mgm.stages.evaluate import softmax_mean
from mgm.video import read_clip

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
SHOWN, TOP, WIDE = 200, 5, 200  # videos on the page, classes of each, pixels of a picture


def predict(
    source: Path,
    weights: Path,
    out: Path,
    classes: Path | None,
    views: Views,
    frames: int,
    size: int,
    stride: int,
    workers: int,
    threads: int,
) -> str:
    """Write predictions.csv (path, then class and score of the TOP best), scores.parquet (path, a
    column a class) and index.html.

    Where a class is called path, the column of videos in scores.parquet is `path_`.
    A video's scores are the mean over its views' softmax scores. `classes`: an index, or a file
    with a name a line, in the order of labels.

    Raises:
        UserError: no videos, weights of no classifier, as many names as it has no classes.
    """
    torch.set_num_threads(threads)
    given = find_source(weights, frames, size, stride)
    count = classes_of(read_weights(given.weights), given.weights)
    labels = _names(classes, count)
    videos, unreadable = find_videos(source)
    model = build_classifier(
        Finetune(data=Data(dataset="folder"), clips=given.clips, model=given.model), count
    )
    load_weights(model, given.weights)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    found, failed = apply(
        model, softmax_mean, given, videos, views, out / "scores.parquet", workers
    )
    top = min(TOP, count)
    best = {
        name: [(labels[c], float(x_C[c])) for c in np.argsort(-x_C, kind="stable")[:top]]
        for name, x_C in found.items()
    }
    columns = [
        "path",
        *(f"{what}_{place}" for place in range(1, top + 1) for what in ("class", "score")),
    ]
    table = pd.DataFrame(
        [[name, *(cell for pair in pairs for cell in pair)] for name, pairs in best.items()],
        columns=columns,
    )
    files.write(out / "predictions.csv", table.to_csv(index=False, float_format="%.4f"))
    with files.atomic_write(out / "scores.parquet") as temporary:
        scores = pd.DataFrame(np.stack(list(found.values())), columns=labels)
        scores.insert(len(labels), path_column(labels), list(found))
        scores.to_parquet(temporary, index=False)
    shown = [(name, _picture(videos[name]), pairs) for name, pairs in islice(best.items(), SHOWN)]
    page = TEMPLATES.get_template("predict.html.j2").render(
        shown=shown, total=len(best), weights=weights.name
    )
    files.write(out / "index.html", page)
    discard_parts(out / "scores.parquet")
    return f"wrote {out}/index.html: {len(best)} videos, {count} classes" + write_failed(
        out / "predictions.csv", unreadable + failed
    )


def path_column(classes: Sequence[str]) -> str:
    """Return the name of the column of videos: `path`, or `path_` where a class is called so."""
    name = "path"
    while name in classes:
        name += "_"
    return name


def _names(classes: Path | None, count: int) -> list[str]:
    if classes is None:
        return [f"class {label}" for label in range(count)]
    if classes.is_dir():
        names = list(read_index(classes).classes)
    else:  # a name may hold what str.splitlines takes for a line's end
        names = [line.rstrip("\r\n") for line in io.StringIO(read_text(classes), newline=None)]
    if len(names) != count or len(set(names)) != count:
        raise UserError(
            f"{classes}: has {len(set(names))} names, the weights tell {count} classes apart; give the names they were trained with"
        )
    return names


def _picture(video: Video) -> str:
    """The middle frame as a JPEG in text; empty if the video has gone meanwhile."""
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
