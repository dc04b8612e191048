"""What a run leaves in its folder, and how it is read back:

`frame` gives all runs of a results folder as one pandas table.
"""

from mgm.results.frame import frame

__all__ = ["frame"]
