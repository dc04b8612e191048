"""Specs of runs: frozen, validated and hashed. This package does not import torch.

A spec contains only the fields that determine a run's result. `RunOptions` contains the fields
that must not change it: threads, workers, accumulation, compilation and so on.
"""

from mgm.spec.datasets import GENERATED, PUBLISHED, SHARED, title_of
from mgm.spec.masks import FLOWS, MASKS, Flow, FrozenModel, Mask, mask_info
from mgm.spec.options import CONTROLS, ApplyOptions, Control, PredictOptions, RunOptions
from mgm.spec.run_specs import (
    BACKBONES,
    STAGES,
    Augment,
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
    dotted,
    drawn_masks,
    leaves,
    nested,
    parents,
    parse,
    read_spec,
)
