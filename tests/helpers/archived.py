"""The studies of results/, which take seconds to read: once per process of tests."""

from functools import cache

from mgm.results.frame import Results, load
from tests.helpers.programs import ROOT


@cache
def archived(name: str) -> Results:
    return load(name, ROOT / "results")
