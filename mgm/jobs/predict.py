"""`mgm predict SOURCE --weights W --out DIR`: class scores of videos, and a page that shows them."""

import base64
from pathlib import Path

import cv2
import jinja2
import numpy as np
import pandas as pd
import torch

from mgm.datasets.index import Video, read_index
from mgm.errors import UserError
from mgm.jobs.apply import apply, discard_parts, find_source, find_videos, write_failed
from mgm.jobs.evaluate import softmax_mean
from mgm.models import build_classifier, classes_of, load_weights, read_weights
from mgm.runs import files
from mgm.spec import Data, Finetune, Views
from mgm.video import read_clip

SHOWN, TOP, WIDE = 200, 5, 200  # videos on the page, classes of each, pixels of a picture


def predict(
    source: Path, weights: Path, out: Path, classes: Path | None, views: Views, frames: int, size: int, stride: int, workers: int,
    threads: int,
) -> str:  # fmt: skip
    """Write predictions.csv (path, then class and score of the TOP best), scores.parquet (path, a column a class) and index.html.

    A video's scores are the mean over its views' softmax scores. `classes`: an index, or a file with a name a line, in the order of labels.

    Raises:
        UserError: no videos, weights of no classifier, as many names as it has no classes.
    """
    torch.set_num_threads(threads)
    given = find_source(weights, frames, size, stride)
    count = classes_of(read_weights(given.weights), given.weights)
    labels = _names(classes, count)
    names, videos, unreadable = find_videos(source)
    model = build_classifier(Finetune(data=Data(dataset="folder"), clips=given.clips, model=given.model), count)
    load_weights(model, given.weights)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    scores_NC, failed = apply(model, softmax_mean, given, names, videos, views, out / "scores.parquet", workers)
    read = ~np.isnan(scores_NC[:, 0])
    kept = [(name, video, scores_C) for name, video, scores_C, good in zip(names, videos, scores_NC, read) if good]
    top = min(TOP, count)
    best = [(name, [(labels[c], float(scores_C[c])) for c in np.argsort(-scores_C, kind="stable")[:top]]) for name, _, scores_C in kept]
    columns = ["path", *(f"{what}_{place}" for place in range(1, top + 1) for what in ("class", "score"))]
    table = pd.DataFrame([[name, *(cell for pair in pairs for cell in pair)] for name, pairs in best], columns=columns)
    files.write(out / "predictions.csv", table.to_csv(index=False, float_format="%.4f"))
    with files.atomic_write(out / "scores.parquet") as temporary:
        pd.DataFrame(scores_NC[read], columns=labels).assign(path=[name for name, *_ in kept]).to_parquet(temporary, index=False)
    shown = [(name, _picture(video), pairs) for (name, pairs), (_, video, _) in zip(best[:SHOWN], kept)]
    files.write(out / "index.html", PAGE.render(shown=shown, total=len(best), weights=weights.name))
    discard_parts(out / "scores.parquet")
    return f"wrote {out}/index.html: {len(best)} videos, {count} classes" + write_failed(out / "predictions.csv", unreadable + failed)


def _names(classes: Path | None, count: int) -> list[str]:
    if classes is None:
        return [f"class {label}" for label in range(count)]
    if classes.is_dir():
        names = list(read_index(classes).classes)
    else:
        try:
            names = classes.read_text().splitlines()
        except OSError as error:
            raise UserError(f"{classes}: {error.strerror}; give an index, or a file with a class's name a line") from None
    if len(names) != count or len(set(names)) != count:
        raise UserError(
            f"{classes}: has {len(set(names))} names, the weights tell {count} classes apart; give the names they were trained with"
        )
    return names


def _picture(video: Video) -> str:
    """The middle frame as a JPEG in text."""
    frame_HWC = read_clip(video.path, np.array([video.frames // 2]), motion=False).frames_THWC[0]
    high = max(1, round(WIDE * frame_HWC.shape[0] / frame_HWC.shape[1]))
    _, jpeg = cv2.imencode(".jpg", cv2.resize(frame_HWC, (WIDE, high), interpolation=cv2.INTER_AREA)[..., ::-1])
    return base64.b64encode(jpeg.tobytes()).decode()


PAGE = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Predictions</title>
<style>
body { font: 14px/1.4 sans-serif; margin: 2em; } main { display: grid; grid-template-columns: repeat(auto-fill, 220px); gap: 1.5em; }
figure { margin: 0; } img { width: 200px; display: block; } figcaption { overflow-wrap: anywhere; color: #6b6b6b; font-size: 12px; }
td { padding: 0 .5em 0 0; } td:last-child { text-align: right; font-variant-numeric: tabular-nums; }
</style>
<h1>Predictions of {{ weights }}</h1>
<p>{{ total }} videos{% if shown|length < total %}, the first {{ shown|length }} of them here; all are in predictions.csv{% endif %}.</p>
<main>
{% for name, picture, pairs in shown %}
<figure><img src="data:image/jpeg;base64,{{ picture }}" alt="middle frame"><figcaption>{{ name }}</figcaption>
<table>{% for label, score in pairs %}<tr><td>{{ label }}</td><td>{{ "%.1f"|format(100 * score) }} %</td></tr>{% endfor %}</table></figure>
{% endfor %}
</main></html>
""")
