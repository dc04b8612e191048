"""The files of runs: write and read them.

`mgm.results.frame.frame` returns all runs of a results folder as one pandas table.
"""
