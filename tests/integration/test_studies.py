"""What the docs print of a study is what its committed results say."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("study", "csv"), [("guidance", "guidance.csv"), ("real_clips", "real-clips.csv")]
)
def test_the_csv_holds_every_run(study, csv):
    spec = importlib.util.spec_from_file_location(study, ROOT / "studies" / f"{study}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found, printed = module.probes().round(2), pd.read_csv(ROOT / "docs" / csv)
    pd.testing.assert_frame_equal(found.reset_index(drop=True), printed, check_dtype=False)
