"""Check the one-line error that a user sees."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mgm.errors import UserError


@contextmanager
def refused(*says: str) -> Iterator[None]:
    """Assert that the block raises a UserError of one line that contains all of `says`."""
    with pytest.raises(UserError) as error:
        yield
    line = str(error.value)
    assert "\n" not in line
    for text in says:
        assert text in line
