"""`mgm report`: tables, claims and the page from the results that exist.

It never trains. Each step reads only the frames of `mgm.report.findings`.
"""

from pathlib import Path

import pandas as pd

from mgm.report.claims import judge, write_claims
from mgm.report.findings import read_findings
from mgm.results import atomic


def build_report(results: Path, reports: Path, only: str | None = None) -> Path:
    """Write the tables of `results`, and return the page's path."""
    found = read_findings(results, weights=True)
    for findings in found.values():
        for name in findings.study.parts:
            text = findings.csv(name).to_csv(index=False, lineterminator="\n")
            atomic.write(reports / "tables" / f"table{name}.csv", text)
    cells = pd.concat([one.cells.assign(study=name) for name, one in found.items()])
    atomic.write(reports / "tables" / "cells.csv", cells.to_csv(index=False))
    if {"table1", "table4e"} & found.keys():
        write_claims(reports, judge(found))
    return atomic.write(reports / "index.html", "")
