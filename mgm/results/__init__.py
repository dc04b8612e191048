"""The files of runs: write, read and verify them.

`mgm.results.frame.frame` returns all runs of a results folder as one pandas table.
"""
