"""Write the tables of scale mini in README.md and docs/results.md from results/mini.csv.xz.

python docs/tables.py
"""

from pathlib import Path

import pandas as pd

from mgm.report.cells import cells, differences, verdicts
from mgm.report.page import Report
from mgm.report.tables import signed, texts_of
from mgm.results.frame import Published, load

ROOT = Path(__file__).parents[1]
# The views that are shown as tables, with the row that is subtracted from the others.
TABLES = {
    "masks": "Random Tube",
    "figure1": "VideoMAE, 200",
    "figure4a": "MGM (Dense)",
    "ablations": "MGM (ViT-B, vectors, jitter)",
}
# The studies whose predictions are shown.
STUDIES = ["table4e", "table1", "table4"]


def pages() -> dict[Path, str]:
    """Return both pages with each table between its two comments."""
    published = load("mini", ROOT / "results")
    tables = {key: accuracies(published, key, base) for key, base in TABLES.items()}
    tables["predictions"] = predictions(published)
    texts = {page: page.read_text() for page in (ROOT / "README.md", ROOT / "docs/results.md")}
    for name, table in tables.items():
        shown = table.to_markdown(index=False, disable_numparse=True) + "\n"
        for page, text in texts.items():
            before, mark, rest = text.partition(f"<!-- {name} -->\n")
            if mark:
                texts[page] = before + mark + shown + rest[rest.index("<!-- end -->") :]
    return texts


def accuracies(published: Published, key: str, base: str) -> pd.DataFrame:
    """Return a view's accuracies beside the paper's, each with its difference from the row `base`.

    Accuracies differ more between worlds than between masks, so intervals are of differences, which
    are paired by world.
    """
    study = next(study for study in published.studies.values() if key in study.views)
    view, frame = study.views[key], published.frame[published.frame.study == study.study]
    dataset = next(iter(view.datasets or study.datasets))
    rows = [*view.rows] or [*frame[~frame.control & (frame.row != "")].row.unique()]
    paper = printed_of(published, study.study)
    shown = pd.DataFrame({"Pretraining": rows})
    if len({*rows} & {*paper}) > 1:
        shown["Paper"] = [
            f"{paper[row]:.1f}" + f" ({signed(paper[row] - paper[base])})" * (row != base)
            if row in paper
            else ""
            for row in rows
        ]
    pairs = [(row, base) for row in rows if row != base]
    found, minus = cells(frame), differences(frame, study, pairs)
    for column in ("Fine-tuned", "Linear probe"):
        own, less = (
            one[(one.dataset == dataset) & (one.column == column)].set_index("row").reindex(rows)
            for one in (found, minus)
        )
        [n] = {*own.n}
        texts = less.fillna({"share": True}).assign(n=n)
        shown[f"Ours, {column.lower()} (n = {n:.0f})"] = [
            f"{mean:.1f}" + f" ({'+' * (difference >= 0.05)}{text})" * (row != base)
            for row, mean, difference, text in zip(rows, own["mean"], less["mean"], texts_of(texts))
        ]
    return shown


def predictions(published: Published) -> pd.DataFrame:
    """Return the predictions of `STUDIES` whose runs are finished, with the paper's difference."""
    tables = []
    for name in STUDIES:
        study = published.studies[name]
        frame = published.frame[published.frame.study == name]
        found = verdicts(frame, study, published.frozen)
        found = found[found["mean"].notna()]
        paper = printed_of(published, name)
        said = {
            one.says: signed(paper[one.row] - paper[one.minus])
            for one in study.predictions
            if {one.row, one.minus} <= {*paper} and not one.than
        }
        tables.append(
            pd.DataFrame(
                {
                    "Prediction": found.says,
                    "Paper": [said.get(says, "") for says in found.says],
                    "Found": [text.partition(" (n")[0] for text in texts_of(found)],
                    "By": found.column.str.lower() + ", n = " + found.n.astype(int).astype(str),
                    "Verdict": found.verdict,
                    "Contradicts most (world)": found.against,
                }
            )
        )
    return pd.concat(tables)


def printed_of(published: Published, study: str) -> dict[str, float]:
    """Return the fine-tuned accuracies on SSv2 that the paper prints, by row of a study."""
    quoted = Report(published, ROOT).quoted
    own = quoted[(quoted.study == study) & (quoted.dataset == "ssv2")]
    return dict(zip(own.row, own.paper))


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
