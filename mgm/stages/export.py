"""`mgm export`: a run's weights for Hugging Face's transformers, or for VideoMAE's code."""

import json
import math
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from mgm.errors import UserError, require_new
from mgm.models import (
    build_classifier,
    build_mae,
    classes_of,
    load_weights,
    read_weights,
)
from mgm.models.formats import to_huggingface, to_videomae
from mgm.models.vit import IMAGENET_MEAN, IMAGENET_STD
from mgm.models.weights_file import weights_digest
from mgm.results.atomic import atomic_write, write
from mgm.spec import ApplyOptions, Data, Finetune, Pretrain, data_name
from mgm.stages.apply import find_trained
from mgm.stages.evaluate import recorded_classes
from mgm.stages.parents import sizes_of, trained_spec, verified_weights

# The files of each format.
FILES = {
    "hf": ("model.safetensors", "config.json", "preprocessor_config.json"),
    "videomae": ("checkpoint.pth", "config.json"),
}
HUGGINGFACE = {
    "pretrain": "VideoMAEForPreTraining",
    "finetune": "VideoMAEForVideoClassification",
}


def export(
    source: Path,
    to: Literal["hf", "videomae"],
    out: Path,
    force: bool = False,
) -> str:
    """Write weights in another format, and return notes for their users.

    The field "mgm" of the configuration says where they come from.

    Args:
        source: a run's folder, or weights in any format.
        to: `hf` writes model.safetensors, config.json and preprocessor_config.json, for
            `from_pretrained` of transformers 4.x and 5.x. `videomae` writes checkpoint.pth,
            {"model": state_dict, "config": fields}, and config.json with the same fields, from
            which mgm reads heads and clips.
        force: replace files.

    Raises:
        UserError: there are no weights, the format does not have their model, or files exist.
    """
    run = source.parent if source.name == "weights.safetensors" else source
    of_run = (run / "spec.json").exists() or not source.exists()
    spec = trained_spec(run) if of_run else _spec_of(source)
    for name in FILES[to]:
        require_new(out / name, force)
    path, digest = verified_weights(run) if of_run else (source, weights_digest(source))
    weights, names = read_weights(path), list[str]()
    origin: dict[str, Any] = {"weights_sha256": digest}
    if of_run:
        origin |= {"run": spec.run_id, "seed": spec.seed}
        origin |= {"dataset": data_name(spec.data), "data_digest": spec.data.digest}
    if spec.model.misnamed:
        origin["model"] = f"toy: {spec.model.misnamed}"
    origin |= {"stride": spec.clips.stride}
    # Loading checks that the weights fit the spec.
    if isinstance(spec, Finetune):
        count = classes_of(weights, path)
        names = recorded_classes(run) or [f"LABEL_{label}" for label in range(count)]
        load_weights(build_classifier(spec, count), path)
    if isinstance(spec, Finetune) and spec.head == "attentive":
        raise UserError(
            f"{run}: is an attentive probe, which the format does not have; export its parent, "
            f"{spec.parent or 'random weights'}"
        )
    if spec.model.divided:
        raise UserError(f"{run}: is a TimeSformer, which the format does not have; export a ViT")
    if isinstance(spec, Pretrain):
        load_weights(build_mae(spec), path)
    config = _config(spec, names) | {"mgm": origin}
    if isinstance(spec, Finetune):
        config["problem_type"] = "single_label_classification"
    write(out / "config.json", json.dumps(config, indent=2) + "\n")
    if to == "videomae":
        with atomic_write(out / "checkpoint.pth") as temporary:
            torch.save({"model": to_videomae(weights), "config": config}, temporary)
        return _about_videomae(spec, out)
    with atomic_write(out / "model.safetensors") as temporary:
        # transformers refuses a file that does not name its format.
        save_file(to_huggingface(weights), temporary, metadata={"format": "pt"})
    write(out / "preprocessor_config.json", json.dumps(_preprocessor(spec), indent=2) + "\n")
    return _about_huggingface(spec, out)


def _spec_of(source: Path) -> Pretrain | Finetune:
    """Return a spec of the model and the clips of weights without a run."""
    tuned = "head.bias" in read_weights(source)
    fields = sizes_of(source, "finetune" if tuned else "pretrain")
    fields |= {"data": Data(dataset="folder"), "clips": find_trained(source, ApplyOptions()).clips}
    return Finetune(**fields) if tuned else Pretrain(**fields)


def _config(spec: Pretrain | Finetune, names: list[str]) -> dict[str, Any]:
    model = spec.model
    config = {
        "architectures": [HUGGINGFACE[spec.stage]],
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
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,  # the name in 4.x, which 5.x reads as qv_bias
        # For pretraining, True would remove the encoder's final norm.
        "use_mean_pooling": isinstance(spec, Finetune),
    }
    if isinstance(spec, Finetune):
        return config | {
            "id2label": {str(label): name for label, name in enumerate(names)},
            "label2id": {n: i for i, n in enumerate(names)},
        }
    return config | {
        "decoder_hidden_size": spec.decoder.width,
        "decoder_num_hidden_layers": spec.decoder.depth,
        "decoder_num_attention_heads": spec.decoder.heads,
        "decoder_intermediate_size": 4 * spec.decoder.width,
        "norm_pix_loss": True,
    }


def _preprocessor(spec: Pretrain | Finetune) -> dict[str, Any]:
    size = spec.clips.size
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 2,  # bilinear
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }


def _about_huggingface(spec: Pretrain | Finetune, out: Path) -> str:
    name = HUGGINGFACE[spec.stage]
    norm = "fc_norm" if spec.stage == "finetune" else "decoder.norm"
    text = (
        f'wrote {out}: model = transformers.{name}.from_pretrained("{out}")\n'
        f"The files cannot store the epsilon of {norm}, which is 1e-5 in Hugging Face's code and "
        f"1e-6 here. Set model.{norm}.eps = 1e-6 after loading to get our predictions up to "
        "rounding."
    )
    if isinstance(spec, Pretrain) and spec.std_floor != 1e-6:
        text += (
            f"\nThey cannot store std_floor, which is {spec.std_floor} in this run and 1e-6 there. "
            "Predictions are the same, but the loss is not."
        )
    return text


def _about_videomae(spec: Pretrain | Finetune, out: Path) -> str:
    model, clips = spec.model, spec.clips
    sizes = {
        "img_size": clips.size,
        "patch_size": model.patch,
        "tubelet_size": model.tubelet,
        "qkv_bias": True,
    }
    encoder = {"embed_dim": model.width, "depth": model.depth, "num_heads": model.heads}
    if isinstance(spec, Finetune):
        name = "VisionTransformer"
        sizes = sizes | encoder | {"all_frames": clips.frames}
    else:
        name = "PretrainVisionTransformer"
        decoder = spec.decoder
        sizes |= {f"encoder_{field}": number for field, number in encoder.items()} | {
            "decoder_num_classes": 3 * model.tubelet * model.patch**2,
            "decoder_embed_dim": decoder.width,
            "decoder_depth": decoder.depth,
            "decoder_num_heads": decoder.heads,
        }
    arguments = ", ".join(f"{field}={number}" for field, number in sizes.items())
    text = (
        f"wrote {out}/checkpoint.pth for {name}({arguments}, "
        "norm_layer=partial(nn.LayerNorm, eps=1e-6))"
    )
    if isinstance(spec, Pretrain) and clips.frames != 16:
        text += (
            f"\nThat class has positions only for 16 frames. For {clips.frames} frames, set tables "
            f"of {math.prod(spec.grid)} positions."
        )
    return text
