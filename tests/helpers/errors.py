"""The message that a user reads when something is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mgm.errors import UserError


@contextmanager
def refused(*says: str) -> Iterator[None]:
    """The block ends with one line that says all of these."""
    with pytest.raises(UserError) as error:
        yield
    line = str(error.value)
    assert "\n" not in line
    for text in says:
        assert text in line
