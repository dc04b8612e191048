"""A line per row, a column per dataset and column, with intervals and the paper's numbers."""

from mgm.spec import FrozenModel


class Options(FrozenModel):
    """A table has no options."""
