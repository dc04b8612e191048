"""`mgm export RUN --to onnx`: the encoder, and a finetuned run's classifier, as ONNX graphs from uint8 frames, checked with onnxruntime."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from mgm.errors import UserError
from mgm.models import build_classifier, build_features, classes_of, load_weights, read_weights
from mgm.runs import files
from mgm.spec import Finetune, Pretrain, Probe

TOLERANCE = 1e-4  # largest difference of an output, in units of the outputs' largest magnitude (at least 1)


def export_onnx(spec: Pretrain | Finetune, weights: Path, out: Path) -> str:
    """Write encoder.onnx (frames to features, as `mgm embed`), and classifier.onnx (frames to logits) of a finetuning run.

    Input: `frames`, (batch, T, H, W, C) uint8, any batch. Each file is run with onnxruntime on two clips of noise.

    Raises:
        UserError: the two differ by more than TOLERANCE.
    """
    features = build_features(Probe(data=spec.data, clips=spec.clips, model=spec.model), weights)
    models: dict[str, nn.Module] = {"encoder": features}
    if isinstance(spec, Finetune):
        classifier = build_classifier(spec, classes_of(read_weights(weights), weights))
        load_weights(classifier, weights)
        models["classifier"] = classifier
    return "\n".join(_write(model.eval(), spec, out / f"{name}.onnx") for name, model in models.items())


def _write(model: nn.Module, spec: Pretrain | Finetune, path: Path) -> str:
    import onnx  # noqa: F401  PyTorch would hide that it or the next is missing
    import onnxruntime
    import onnxscript  # noqa: F401

    clips = spec.clips
    shape = (2, clips.frames, clips.size, clips.size, spec.model.channels)
    frames_BTHWC = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    with files.atomic_write(path) as temporary, torch.inference_mode():
        expected = model(frames_BTHWC).numpy()
        torch.onnx.export(
            model, (frames_BTHWC,), temporary, input_names=["frames"], output_names=["output"], dynamo=True, external_data=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},), verbose=False,
        )  # fmt: skip
        session = onnxruntime.InferenceSession(temporary.read_bytes(), providers=["CPUExecutionProvider"])
        found = [session.run(None, {"frames": frames_BTHWC[:n].numpy()})[0] for n in (2, 1)]
        off = max(float(np.abs(got - expected[: len(got)]).max()) for got in found) / max(1.0, float(np.abs(expected).max()))
        if not off <= TOLERANCE:
            raise UserError(f"{path}: onnxruntime's output differs by {off:.1e}, more than {TOLERANCE:.0e}; report this as a bug of mgm")
    return f"wrote {path}: frames {shape[1:]} uint8 to {expected.shape[1]} numbers; onnxruntime agrees within {off:.0e}"
