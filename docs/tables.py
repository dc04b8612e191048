"""Write the tables of README.md and docs/results.md from results/*.csv.xz.

python docs/tables.py
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mgm.report.cells import cells, differences, verdicts
from mgm.report.page import Report
from mgm.report.tables import signed, texts_of
from mgm.results.frame import Published, load

ROOT = Path(__file__).parents[1]
# Columns of a table: dataset and column. Without a dataset, it is the view's first one.
OF_MINI = [("", "Fine-tuned"), ("", "Linear probe")]
OF_HANDS = [
    ("all", "Linear probe, change"),
    ("folds", "Fine-tuned"),
    ("folds", "Linear probe, 4 x 4"),
]
# Views that are shown as tables: their results, the row that is subtracted from the others, and
# their columns.
VIEWS = {
    "masks": ("mini", "Random Tube", OF_MINI),
    "figure1": ("mini", "VideoMAE, 200", OF_MINI),
    "figure4a": ("mini", "MGM (Dense)", OF_MINI),
    "ablations": ("mini", "MGM (ViT-B, vectors, jitter)", OF_MINI),
    "folds": ("hands", "Random weights", OF_HANDS),
}
# The studies whose predictions are shown.
STUDIES = {"mini": ["table4e", "table1", "table4"], "hands": ["hands"]}


def pages() -> dict[Path, str]:
    """Return both pages with each table between its two comments."""
    results = {name: load(name, ROOT / "results") for name in STUDIES}
    tables = {
        key: accuracies(results[name], key, base, columns)
        for key, (name, base, columns) in VIEWS.items()
    }
    for name, studies in STUDIES.items():
        tables[f"predictions of {name}"] = predictions(results[name], studies)
    texts = {page: page.read_text() for page in (ROOT / "README.md", ROOT / "docs/results.md")}
    for name, table in tables.items():
        shown = table.to_markdown(index=False, disable_numparse=True) + "\n"
        for page, text in texts.items():
            before, mark, rest = text.partition(f"<!-- {name} -->\n")
            if mark:
                texts[page] = before + mark + shown + rest[rest.index("<!-- end -->") :]
    return texts


def accuracies(
    published: Published, key: str, base: str, columns: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """Return a view's accuracies beside the paper's, each with its difference from the row `base`.

    Accuracies differ more between worlds than between masks, so intervals are of differences, which
    are paired by world. Rows that did not run as often as the others are left out.
    """
    study = next(study for study in published.studies.values() if key in study.views)
    view, frame = study.views[key], published.frame[published.frame.study == study.study]
    first = next(iter(view.datasets or study.datasets))
    rows = [*view.rows] or [*frame[~frame.control & (frame.row != "")].row.unique()]
    found = cells(frame)
    of_columns = {
        column: found[(found.dataset == (dataset or first)) & (found.column == column)]
        .set_index("row")
        .reindex(rows)
        for dataset, column in columns
    }
    rows = [row for row in rows if all(own.n[row] == own.n[base] for own in of_columns.values())]
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
    minus = differences(frame, study, pairs)
    for column, own in of_columns.items():
        less = minus[(minus.dataset == own.dataset[base]) & (minus.column == column)]
        less = less.set_index("row").reindex(rows)
        texts = texts_of(less.fillna({"share": True}).assign(n=own.n[base]))
        shown[f"Ours, {column.lower()} (n = {own.n[base]:.0f})"] = [
            f"{mean:.1f}" + f" ({'+' * (difference >= 0.05)}{text})" * (row != base)
            for row, mean, difference, text in zip(rows, own["mean"][rows], less["mean"], texts)
        ]
    return shown


def predictions(published: Published, studies: Sequence[str]) -> pd.DataFrame:
    """Return the predictions whose runs are finished, with the paper's difference."""
    tables = []
    for name in studies:
        study = published.studies[name]
        frame = published.frame[published.frame.study == name]
        found = verdicts(frame, study, published.frozen)
        found = found[found["mean"].notna()]
        paper, first = printed_of(published, name), found.dataset.iloc[0]
        others = (" (" + found.title.str.lower() + ")").where(found.dataset != first, "")
        said = {
            one.says: signed(paper[one.row] - paper[one.minus])
            for one in study.predictions
            if {one.row, one.minus} <= {*paper} and not one.than
        }
        table = pd.DataFrame(
            {
                "Prediction": found.says,
                "Paper": [said.get(says, "") for says in found.says],
                "Found": [text.partition(" (n")[0] for text in texts_of(found)],
                "By": found.column.str.lower()
                + others
                + ", n = "
                + found.n.astype(int).astype(str),
                "Verdict": found.verdict + (" (" + found.note + ")").where(found.note != "", ""),
                "Contradicts most (seed)": found.against,
            }
        )
        tables.append(table)
    whole = pd.concat(tables)
    return whole if whole.Paper.any() else whole.drop(columns="Paper")


def printed_of(published: Published, study: str) -> dict[str, float]:
    """Return the fine-tuned accuracies on SSv2 that the paper prints, by row of a study."""
    quoted = Report(published, ROOT).quoted
    own = quoted[(quoted.study == study) & (quoted.dataset == "ssv2")]
    return dict(zip(own.row, own.paper))


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
