"""Readers of the published datasets of `mgm.spec.datasets`."""

from importlib import import_module
from typing import Any

from mgm.data.index import Index
from mgm.spec.datasets import PUBLISHED


def index_published(name: str, *folders: Any, **options: Any) -> Index:
    """Write the index of a published dataset and return it.

    The arguments are (source, out), or (source, target, out) if the dataset is derived from two.
    With several official splits there is the option `split=N`. Only that dataset's reader is
    imported.
    """
    module = import_module(f"{__name__}.{PUBLISHED[name].file or name.replace('-', '_')}")
    return getattr(module, f"index_{name.replace('-', '_')}")(*folders, **options)
