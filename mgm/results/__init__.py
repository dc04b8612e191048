"""The files of runs: write, read and verify them.

`frame` returns all runs of a results folder as one pandas table.
"""

from mgm.results.frame import frame

__all__ = ["frame"]
