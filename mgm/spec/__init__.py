"""Specs of runs: frozen, validated and hashed. This package does not import torch.

A spec contains only the fields that determine a run's result. `RunOptions` contains the fields
that must not change it: threads, workers, accumulation, compilation and so on.
"""

from mgm.spec.datasets import GENERATED, PUBLISHED, Published, data_name, title_of
from mgm.spec.masks import (
    FLOWS,
    MASKS,
    Flow,
    FrozenModel,
    Guidance,
    Mask,
    MaskInfo,
    MaskName,
    Method,
    mask_info,
)
from mgm.spec.options import (
    CONTROLS,
    ApplyOptions,
    Control,
    PredictOptions,
    ReadOptions,
    RunOptions,
)
from mgm.spec.run_specs import (
    BACKBONES,
    LARGE,
    SIZES,
    STAGES,
    Augment,
    BackboneName,
    Clips,
    Data,
    Decoder,
    Finetune,
    FinetuneOptim,
    KnownBackbone,
    Measure,
    Model,
    Name,
    Optim,
    Pretrain,
    Probe,
    Run,
    Sample,
    Spec,
    Views,
    changed_fields,
    dotted,
    nested,
    parents,
    parse,
    read_spec,
)
