"""Run a notebook's cells in this process and keep what they print and draw.

`python -m tests.helpers.notebook docs/first-look.ipynb` runs it in an empty folder and saves its
new outputs. No Jupyter is needed.
"""

import base64
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path


def run_cells(path: Path) -> list[list[dict]]:
    """Run every code cell in the current folder, and return the outputs of each."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    cells: list[list[dict]] = []
    names: dict = {}
    for number, cell in enumerate(code_cells(json.loads(path.read_text()))):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
        outputs = []
        if text := printed.getvalue():
            lines = text.splitlines(keepends=True)
            outputs.append({"output_type": "stream", "name": "stdout", "text": lines})
        for figure in map(plt.figure, plt.get_fignums()):
            png = io.BytesIO()
            figure.savefig(png, dpi=60, bbox_inches="tight")
            small = io.BytesIO()
            # With a palette, the file has a third of the bytes.
            picture = Image.open(png).convert("RGB").quantize(256, dither=Image.Dither.NONE)
            picture.save(small, "PNG", optimize=True)
            data = {"image/png": base64.b64encode(small.getvalue()).decode()}
            outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
        plt.close("all")
        cells.append(outputs)
    return cells


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


if __name__ == "__main__":
    path = Path(sys.argv[1]).resolve()
    os.chdir(tempfile.mkdtemp())
    made = run_cells(path)
    notebook = json.loads(path.read_text())
    for number, (cell, outputs) in enumerate(zip(code_cells(notebook), made), 1):
        cell |= {"outputs": outputs, "execution_count": number}
    path.write_text(json.dumps(notebook, indent=1) + "\n")
