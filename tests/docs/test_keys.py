"""The page of a study's keys is that of the schema."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_keys_of_a_study_are_those_of_its_schema():
    made = runpy.run_path(str(ROOT / "docs/keys.py"))
    assert made["PAGE"].read_text() == made["page"](), "python docs/keys.py"
    assert "| `predictions.in` |" in made["page"]()
