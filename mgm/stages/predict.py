"""`mgm predict SOURCE --weights W --out DIR`:

class scores of videos, and a page that shows them.
"""

import base64
import io
from collections.abc import Sequence
from itertools import groupby, islice, pairwise
from operator import itemgetter
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
from mgm.stages.windows import Part, Windows, apply_windows
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
    windows: Windows | None = None,
) -> str:
    """Write predictions.csv (path, then class and score of the TOP best), scores.parquet (path, a
    column a class) and index.html.

    Where a class is called path, the column of videos in scores.parquet is `path_`.
    A video's scores are the mean over its views' softmax scores. `classes`: an index, or a file
    with a name a line, in the order of labels.

    With `windows`, a score for each window: windows.csv (path, start, end, class, score of the
    best), scores.parquet with start and end, and a time line per video on the page. A video's
    scores are then the mean over its windows.

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
    lines: dict[str, list[tuple[float, float, str, float]]] = {}
    if windows:
        parts, failed = apply_windows(
            lambda frames_BTHWC: model(frames_BTHWC).float().softmax(dim=1),
            given,
            videos,
            windows,
            out / "scores.parquet",
        )
        scored = list(parts)
        found = _mean_scores(scored)
        lines = _time_lines(scored, labels)
    else:
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
    if windows:
        rows = [(name, *row) for name, several in lines.items() for row in several]
        columns = ["path", "start", "end", "class", "score"]
        table = pd.DataFrame(rows, columns=columns)
        files.write(out / "windows.csv", table.to_csv(index=False, float_format="%.4f"))
        scores = pd.concat(
            _with_windows(pd.DataFrame(part.value_N, columns=labels), part, labels)
            for part in scored
        )
    else:
        scores = pd.DataFrame(np.stack(list(found.values())), columns=labels)
        scores.insert(len(labels), free_column("path", labels), list(found))
    with files.atomic_write(out / "scores.parquet") as temporary:
        scores.to_parquet(temporary, index=False)
    shown = [
        (name, _picture(videos[name]), pairs, _segments(lines.get(name, []), labels))
        for name, pairs in islice(best.items(), SHOWN)
    ]
    page = TEMPLATES.get_template("predict.html.j2").render(
        shown=shown, total=len(best), weights=weights.name
    )
    files.write(out / "index.html", page)
    discard_parts(out / "scores.parquet")
    return f"wrote {out}/index.html: {len(best)} videos, {count} classes" + write_failed(
        out / "predictions.csv", unreadable + failed
    )


def free_column(name: str, classes: Sequence[str]) -> str:
    """Return a column's name, such as `path`, or `path_` where a class is called so."""
    while name in classes:
        name += "_"
    return name


def _with_windows(scores: pd.DataFrame, part: Part, classes: Sequence[str]) -> pd.DataFrame:
    """Add the columns of a part's windows to its scores."""
    for name, value in (("path", part.name), ("start", part.start_N), ("end", part.end_N)):
        scores.insert(scores.shape[1], free_column(name, classes), value)
    return scores


def _mean_scores(parts: Sequence[Part]) -> dict[str, np.ndarray]:
    """Return each video's mean over its windows."""
    several: dict[str, list[np.ndarray]] = {}
    for part in parts:
        several.setdefault(part.name, []).append(part.value_N)
    return {name: np.concatenate(values).mean(axis=0) for name, values in several.items()}


def _time_lines(
    parts: Sequence[Part], labels: Sequence[str]
) -> dict[str, list[tuple[float, float, str, float]]]:
    """Return the start, end, best class and its score of each window, by video."""
    lines: dict[str, list[tuple[float, float, str, float]]] = {}
    for part in parts:
        for start, end, x_C in zip(part.start_N, part.end_N, part.value_N, strict=True):
            best = int(x_C.argmax())
            row = (float(start), float(end), labels[best], float(x_C[best]))
            lines.setdefault(part.name, []).append(row)
    return lines


def _segments(
    lines: Sequence[tuple[float, float, str, float]], labels: Sequence[str]
) -> list[dict[str, str]]:
    """Return the coloured parts of a time line: windows in a row with one class are one part.

    A part ends where the next one starts; widths are shares of the video's length.
    """
    if not lines:
        return []
    length = max(end for _, end, *_ in lines)
    found = []
    for label, run in groupby(lines, key=itemgetter(2)):
        own = list(run)
        found.append([own[0][0], own[-1][1], label])
    for before, after in pairwise(found):
        before[1] = after[0]
    return [
        {
            "width": f"{100 * (end - start) / length:.2f}%",
            "colour": f"hsl({(labels.index(label) * 137) % 360} 55% 55%)",
            "title": f"{label}, {start:.1f} to {end:.1f} s",
        }
        for start, end, label in found
    ]


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
