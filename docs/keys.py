"""Write the keys of a study's file into docs/extend.md, from the comments of its schema.

python docs/keys.py
"""

import inspect
import re
from pathlib import Path

from mgm.study.schema import Changes, Column, Dataset, Prediction, Row, Selection, Study, View

PAGE = Path(__file__).with_name("extend.md")
BLOCK = re.compile(r"(<!-- keys -->\n).*?(<!-- end -->)", re.S)
# Where each kind of fields stands in a study's file.
KINDS = {
    "": Study,
    "datasets.NAME.": Dataset,
    "rows.NAME.": Row,
    "columns.NAME.": Column,
    "views.NAME.": View,
    "predictions.": Prediction,
}
FIELD = re.compile(r"((?:^    # .*\n)*)^    (\w+): (?!ConfigDict)(.*)$", re.M)


def page() -> str:
    """Return the page with its block as it should be."""
    return BLOCK.sub(lambda found: found[1] + keys() + found[2], PAGE.read_text(encoding="utf-8"))


def keys() -> str:
    """Return a line per key of a study's file, from the comments of its schema."""
    lines = ["| Key | What it says |", "|---|---|"]
    for place, kind in KINDS.items():
        for part in (kind, *(base for base in kind.__bases__ if base in (Selection, Changes))):
            for comments, name, rest in FIELD.findall(inspect.getsource(part)):
                alias = re.search(r'alias="(\w+)"', rest)
                # A method's parameters are no fields.
                if name in part.model_fields and name != "changes":
                    words = " ".join(comments.replace("    # ", "").split())
                    lines.append(f"| `{place}{alias[1] if alias else name}` | {words} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
