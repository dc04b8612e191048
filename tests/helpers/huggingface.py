"""Hugging Face's VideoMAE with our weights, an independent implementation to compare with.

Some defaults are changed. `use_mean_pooling` is False for pretraining, because True removes the
encoder's final norm. The epsilon of every norm is VideoMAE's 1e-6. The default is 1e-12 in the
blocks, and 1e-5 in `decoder.norm` and `fc_norm`.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mgm.models import MAE, Classifier
from mgm.models.weights import to_huggingface
from mgm.spec import Finetune, Pretrain

if TYPE_CHECKING:
    import transformers


def translated(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights or gradients under the names of transformers 5."""
    return {
        name.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): value
        for name, value in to_huggingface(values).items()
    }


def sharpened(model: nn.Module, std: float) -> None:
    """Change initial values that would hide a mistake.

    Every norm then scales and shifts, and no bias is zero.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(std * torch.randn_like(parameter))
            elif name.startswith("head."):
                nn.init.trunc_normal_(parameter, std=0.02)


def their_pretraining(
    ours: MAE, spec: Pretrain, attention: str
) -> "transformers.VideoMAEForPreTraining":
    import transformers

    config = pretraining_config(spec, attn_implementation=attention, use_mean_pooling=False)
    return _with_weights(transformers.VideoMAEForPreTraining(config), ours)


def pretraining_config(spec: Pretrain, **more) -> "transformers.VideoMAEConfig":
    decoder = spec.decoder
    return _config(
        spec,
        decoder_hidden_size=decoder.width,
        decoder_num_hidden_layers=decoder.depth,
        decoder_num_attention_heads=decoder.heads,
        decoder_intermediate_size=4 * decoder.width,
        **more,
    )


def their_classifier(
    ours: Classifier, spec: Finetune, attention: str
) -> "transformers.VideoMAEForVideoClassification":
    import transformers

    config = _config(spec, attn_implementation=attention, num_labels=ours.head.out_features)
    return _with_weights(transformers.VideoMAEForVideoClassification(config), ours)


def _config(spec: Pretrain | Finetune, **more) -> "transformers.VideoMAEConfig":
    import transformers

    model = spec.model
    return transformers.VideoMAEConfig(
        image_size=spec.clips.size,
        patch_size=model.patch,
        num_frames=spec.clips.frames,
        tubelet_size=model.tubelet,
        hidden_size=model.width,
        num_hidden_layers=model.depth,
        num_attention_heads=model.heads,
        intermediate_size=4 * model.width,
        **more,
    )


def with_our_eps(theirs):
    for module in theirs.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    return theirs


def _with_weights(theirs, ours: nn.Module):
    with_our_eps(theirs).load_state_dict(translated(dict(ours.named_parameters())), strict=True)
    return theirs
