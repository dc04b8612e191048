"""Write the tables of scale mini in README.md and docs/results.md from results/mini.csv.xz.

python docs/tables.py
"""

import re
from pathlib import Path

import pandas as pd

from mgm.report.cells import cells, differences, printed, verdicts
from mgm.report.tables import signed, texts_of
from mgm.results.frame import load
from mgm.study.schema import Study

ROOT = Path(__file__).parents[1]
# Ours: the paper's table lacks them.
CONTROLS = ["MGM (Dense), shuffled", "No pretraining"]


def pages() -> dict[Path, str]:
    """Return both pages with each table between its two comments."""
    published = load("mini", ROOT / "results")
    study = published.studies["table4e"]
    frame = published.frame[published.frame.study == "table4e"]
    paper = printed("table4e").set_index("Mask").Acc.astype(float)
    tables = {
        "table4e": table4e(frame, study, paper),
        "predictions": predictions(verdicts(frame, study, published.frozen), study, paper),
    }
    texts = {page: page.read_text() for page in (ROOT / "README.md", ROOT / "docs/results.md")}
    for name, table in tables.items():
        block = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
        shown = table.to_markdown(index=False, disable_numparse=True) + "\n"
        texts = {page: block.sub(shown.replace("\\", "\\\\"), text) for page, text in texts.items()}
    return texts


def table4e(frame: pd.DataFrame, study: Study, paper: pd.Series) -> pd.DataFrame:
    """Return the paper's accuracies beside ours, each with its difference from the tube.

    Accuracies differ more between worlds than between masks, so intervals are of differences, which
    are paired by world.
    """
    tube, rows = "Random Tube", [*paper.index, *CONTROLS]
    said = [
        f"{value:.1f}" + f" ({signed(value - paper[tube])})" * (row != tube)
        for row, value in paper.items()
    ]
    shown = pd.DataFrame({"Mask": rows, "Paper": said + [""] * len(CONTROLS)})
    pairs = [(row, tube) for row in rows if row != tube]
    found, minus = cells(frame), differences(frame, study, pairs)
    for column in ("Fine-tuned", "Linear probe"):
        own, less = (
            one[(one.dataset == "ssv2") & (one.column == column)].set_index("row").reindex(rows)
            for one in (found, minus)
        )
        [n] = {*own.n}
        texts = less.fillna({"share": True}).assign(n=n)
        shown[f"Ours, {column.lower()} (n = {n:.0f})"] = [
            f"{mean:.1f}" + f" ({'+' * (difference >= 0.05)}{text})" * (row != tube)
            for row, mean, difference, text in zip(rows, own["mean"], less["mean"], texts_of(texts))
        ]
    return shown


def predictions(found: pd.DataFrame, study: Study, paper: pd.Series) -> pd.DataFrame:
    """Return the predictions whose runs are finished, with the paper's difference."""
    found = found[found["mean"].notna()]
    said = {
        one.says: signed(paper[one.row] - paper[one.minus])
        for one in study.predictions
        if {one.row, one.minus} <= {*paper.index} and not one.than
    }
    return pd.DataFrame(
        {
            "Prediction": found.says,
            "Paper": found.says.map(said).fillna(""),
            "Found": [text.partition(" (n")[0] for text in texts_of(found)],
            "By": found.column.str.lower() + ", n = " + found.n.astype(int).astype(str),
            "Verdict": found.verdict,
            "Contradicts most (world)": found.against,
        }
    )


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
