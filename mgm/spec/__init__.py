"""Specs of runs: frozen, validated and hashed. This package does not import torch.

A spec contains only the fields that determine a run's result. `RunOptions` contains the fields
that must not change it: threads, workers, accumulation, compilation and so on.
"""

from mgm.spec.controls import CONTROLS, Control
from mgm.spec.datasets import (
    GENERATED,
    PUBLISHED,
    Published,
    data_name,
    title_of,
)
from mgm.spec.masks import (
    CODEC,
    EDGES,
    FLOWS,
    MASKS,
    Cells,
    Compensate,
    Distance,
    Edge,
    Flow,
    Guidance,
    Mask,
    MaskInfo,
    MaskName,
    Method,
)
from mgm.spec.options import (
    ApplyOptions,
    LoadOptions,
    PredictOptions,
    ReadOptions,
    RunOptions,
)
from mgm.spec.run_specs import (
    MOST_TOKENS,
    Finetune,
    Measure,
    Pretrain,
    Probe,
    Run,
    Spec,
    Visualise,
    changed_fields,
    dotted,
    nested,
    parents,
    parse,
    read_spec,
)
from mgm.spec.values import (
    BACKBONES,
    LARGE,
    Augment,
    BackboneName,
    Clips,
    Data,
    Decay,
    Decoder,
    FinetuneOptim,
    FrozenModel,
    KnownBackbone,
    Model,
    Name,
    Optim,
    ProbeKind,
    Views,
)
