import pytest

from mgm.datasets.params import Synthetic
from mgm.datasets.synthetic import generate


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """A small generated set: (its folder, its index)."""
    out = tmp_path_factory.mktemp("generated") / "set"
    return out, generate(Synthetic(train_per_class=3, test_per_class=1), out)
