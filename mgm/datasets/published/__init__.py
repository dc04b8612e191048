# ruff: noqa: F401  an import is how a dataset is listed
"""The published datasets, by name. Another takes a file beside the others and an import here. Importing this needs no torch and no PyAV."""

from mgm.datasets.published.descriptor import Published
from mgm.datasets.published.diving48 import DIVING48
from mgm.datasets.published.hmdb51 import HMDB51
from mgm.datasets.published.k400 import K400
from mgm.datasets.published.mini_k200 import MINI_K200
from mgm.datasets.published.pda import HMDB14_UCF7, UCF14_HMDB7
from mgm.datasets.published.ssv2 import SSV2
from mgm.datasets.published.ucf101 import UCF101

PUBLISHED: dict[str, Published] = {dataset.name: dataset for dataset in list(vars().values()) if isinstance(dataset, Published)}
