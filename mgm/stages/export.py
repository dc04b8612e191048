"""Export a run's weights as a folder of Hugging Face's transformers."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from mgm.errors import UserError, require_new
from mgm.files import replacing, write_text
from mgm.models.vit import IMAGENET_MEAN, IMAGENET_STD
from mgm.models.weights import read_weights, to_huggingface
from mgm.results.run import read_result
from mgm.spec import GENERATED, Finetune, Pretrain, title_of
from mgm.stages.apply import recorded_classes, trained_spec
from mgm.stages.run import verified_weights

NAMES = {"pretrain": "VideoMAEForPreTraining", "finetune": "VideoMAEForVideoClassification"}


def export(run: Path, out: Path, force: bool = False) -> str:
    """Write model.safetensors, config.json and preprocessor_config.json for `from_pretrained`.

    Transformers 4 and 5 read them. The field "mgm" of config.json says where they come from. Return
    lines for the user.
    """
    spec, (source, digest) = trained_spec(run), verified_weights(run)
    if spec.model.divided or getattr(spec, "head", "linear") != "linear":
        raise UserError(
            f"{run}: transformers has no TimeSformer of this kind and no attentive probe; export a "
            "ViT's pretraining or fine-tuning"
        )
    require_new(out / "model.safetensors", force)
    weights, about = read_weights(source), {"run": spec.run_id, "weights_sha256": digest}
    result = read_result(run)
    drawn = " stand-in (generated)" * bool(result and result.data.note.startswith(GENERATED))
    about |= {"dataset": title_of(spec.data.dataset) + drawn, "data_digest": spec.data.digest}
    config = _config(spec) | {"mgm": {**about, "seed": spec.seed, "stride": spec.clips.stride}}
    if isinstance(spec, Finetune):
        names = recorded_classes(run) or [f"LABEL_{n}" for n in range(len(weights["head.bias"]))]
        config["id2label"] = {str(number): name for number, name in enumerate(names)}
        config["label2id"] = {name: number for number, name in enumerate(names)}
    side = spec.clips.size
    processor = {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }
    path = out / "model.safetensors"
    with replacing(path) as temporary:
        # transformers refuses a file that does not name its format.
        temporary.write_bytes(save(to_huggingface(weights), metadata={"format": "pt"}))
        # Wherever this is stopped, no config lies next to weights that are not its own.
        path.unlink(missing_ok=True)
        write_text(out / "config.json", json.dumps(config, indent=2) + "\n")
        write_text(out / "preprocessor_config.json", json.dumps(processor, indent=2) + "\n")
    norm = "fc_norm" if isinstance(spec, Finetune) else "decoder.norm"
    return (
        f'wrote {out}: model = transformers.{NAMES[spec.stage]}.from_pretrained("{out}")\n'
        f"Set model.{norm}.eps = 1e-6 after loading: transformers has 1e-5 there, and no field."
    )


def _config(spec: Pretrain | Finetune) -> dict[str, Any]:
    model = spec.model
    config = {
        "architectures": [NAMES[spec.stage]],
        "model_type": "videomae",
        "image_size": spec.clips.size,
        "patch_size": model.patch,
        "num_channels": 3,
        "num_frames": spec.clips.frames,
        "tubelet_size": model.tubelet,
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "intermediate_size": 4 * model.width,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,  # the name in 4.x, which 5.x reads as qv_bias
        # For pretraining, True would remove the encoder's final norm.
        "use_mean_pooling": isinstance(spec, Finetune),
    }
    if isinstance(spec, Pretrain):
        config |= {
            "decoder_hidden_size": spec.decoder.width,
            "decoder_num_hidden_layers": spec.decoder.depth,
            "decoder_num_attention_heads": spec.decoder.heads,
            "decoder_intermediate_size": 4 * spec.decoder.width,
        }
    return config
