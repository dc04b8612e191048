"""The report depends on the result files alone.

A copy without weights gives the same page. An edited result is altered everywhere.
"""

import shutil
from pathlib import Path

import pytest

from mgm.report.build import build_report
from mgm.results.result import read_result, write_result
from tests.helpers.fake_results import draw_arrays, finish, finish_all, registry

ROOT = Path(__file__).parents[2]
KNOWN = registry(seeds=(0,))
RUN = KNOWN.tables["4e"].cell("MGM (Dense)", "SSv2").runs[0]


def test_results_without_weights_build_the_same_page_elsewhere(tmp_path):
    here, there = tmp_path / "here", tmp_path / "another/place"
    known = registry(seeds=(0,))
    for name in [*known.plots][1:]:
        del known.plots[name]
    finish_all(here / "results/smoke", known)
    draw_arrays(here / "results/smoke", known)
    # This run failed.
    (here / "results/smoke" / RUN.run_id / "result.json").unlink()
    (here / "results/smoke" / RUN.run_id / "error.txt").write_text("out of memory")
    for run_id in known.specs:
        (here / "results/smoke" / run_id / "weights.safetensors").write_bytes(b"weights")
        (here / "results/smoke" / run_id / "checkpoint.pt").write_bytes(b"checkpoint")
    shutil.copytree(
        here / "results",
        there / "results",
        ignore=shutil.ignore_patterns("weights.safetensors", "checkpoint.pt"),
    )
    for place in (here, there):
        build_report(known, place / "results/smoke", place / "reports/smoke")
    files = {path.relative_to(here) for path in (here / "reports").rglob("*") if path.is_file()}
    assert files == {
        path.relative_to(there) for path in (there / "reports").rglob("*") if path.is_file()
    }
    assert {
        "index.html",
        "claims.csv",
        "table4e.csv",
        "table4e.tex",
        f"figure{next(iter(known.plots))}.svg",
        "figure5.svg",
    } <= {path.name for path in files}
    for path in files:
        assert (here / path).read_bytes() == (there / path).read_bytes(), path
    assert str(tmp_path) not in (there / "reports/smoke/index.html").read_text()


EDITS = {
    "a better number": lambda folder: (folder / "result.json").write_text(
        (folder / "result.json").read_text().replace('"top1": 60.0', '"top1": 70.0')
    ),
    "a prediction": lambda folder: (folder / "predictions.csv").write_text(
        (folder / "predictions.csv").read_text().replace(",1,1", ",1,2", 1)
    ),
    "half of it": lambda folder: (folder / "result.json").write_bytes(
        (folder / "result.json").read_bytes()[:300]
    ),
    "sealed again without a commit": lambda folder: write_result(
        folder, {**read_result(folder), "commit": None}
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_result_edited_after_the_fact_is_altered_everywhere(tmp_path, edit):
    results = tmp_path / "results/smoke"
    finish(results, KNOWN.specs[RUN.parent])
    folder = finish(results, RUN, top1=60.0)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    EDITS[edit](folder)
    assert before != {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    table = build_report(KNOWN, results, tmp_path / "reports/smoke", "table4e").read_text()
    cell = next(line for line in table.splitlines() if line.startswith("MGM (Dense),SSv2,"))
    assert ",altered," in cell
    assert not any(number in cell for number in ("60.0", "70.0"))


@pytest.mark.parametrize("content", [b"exchanged", b"", b"weigh"])
def test_weights_that_were_exchanged_or_cut_are_altered_in_the_report(tmp_path, content):
    results, reports = tmp_path / "results/smoke", tmp_path / "reports/smoke"
    finish(results, KNOWN.specs[RUN.parent])
    finish(results, RUN)
    (results / "scale.json").write_text(KNOWN.scale.model_dump_json())
    weights = results / RUN.parent / "weights.safetensors"
    weights.write_bytes(content)
    line = table_line(build_report(KNOWN, results, reports, "table4e").read_text())
    assert ",altered," in line
    weights.write_bytes(b"weights")
    line = table_line(build_report(KNOWN, results, reports, "table4e").read_text())
    assert ",altered," not in line


def table_line(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("MGM (Dense),SSv2,"))
