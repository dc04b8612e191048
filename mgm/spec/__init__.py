"""What a run is: frozen, validated, hashed. No torch here.

A spec holds science only. `RunOptions` hold how a run is computed (threads, workers, accumulation,
compilation and so on), because that must not change its result.
"""

from mgm.masking import CODEC, Compensate, Distance, Flow, Guidance, Mask
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
    differences,
    dotted,
    parents,
    parse,
    read_spec,
    require_named_sizes,
)
from mgm.spec.values import (
    BACKBONES,
    LARGE,
    PUBLISHED_NAMES,
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
    data_name,
)
