from pathlib import Path

import pytest

from tests.helpers.small_runs import small_set


@pytest.fixture(scope="package")
def data(tmp_path_factory) -> Path:
    """Return the folder of a small prepared set."""
    folder = tmp_path_factory.mktemp("data")
    small_set(folder)
    return folder
