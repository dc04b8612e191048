"""The files of runs: write and read them.

`mgm.results.frame.load` returns studies with all their numbers as one pandas table.
"""
