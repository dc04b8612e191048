"""Write Table 4e of README.md, the paper's numbers beside ours, from results/mini.csv.xz.

python docs/table4e.py
"""

import re
from pathlib import Path

import pandas as pd

from mgm.report.cells import cells, printed
from mgm.report.tables import texts_of
from mgm.results.frame import load

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?<=<!-- table4e -->\n).*?(?=<!-- end -->)", re.DOTALL)
# Ours: the paper's table lacks them.
CONTROLS = ["Random Tube at ratio 0.75", "MGM (Dense), shuffled", "No pretraining"]


def table4e() -> str:
    """Return the table as Markdown."""
    published = load("mini", ROOT / "results")
    own = cells(published.frame[published.frame.study == "table4e"])
    own = own[own.dataset == "ssv2"].set_index(["row", "column"])
    paper = printed("table4e").set_index("Mask").Acc
    rows = [*paper.index, *CONTROLS]
    shown = pd.DataFrame({"Mask": rows, "Paper": [paper.get(row, "") for row in rows]})
    for column in ("Fine-tuned", "Linear probe"):
        found = own.loc[[(row, column) for row in rows]]
        [n] = {f"n = {n:.0f}" for n in found.n}
        shown[f"Ours, {column.lower()} ({n})"] = texts_of(found)
    return shown.to_markdown(index=False, disable_numparse=True) + "\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(BLOCK.sub(table4e(), readme.read_text()))
