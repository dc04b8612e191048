"""Run stages on a device that exists only in Python, and record what would wait for a GPU.

Tensors of the device "gpu" hold a tensor of the CPU. As on CUDA, an operation on tensors of two
devices is an error, unless the CPU's is a number. Waits are recorded with the place in mgm that
causes them: reading a number, shapes that depend on values, and copies that block.

Registering the device changes PyTorch for good, so this runs in a process of its own:

    python -m tests.helpers.emulated_gpu [VIDEOS FOLDER CASE...] > waits.json

Without arguments, only masks and attention are checked.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from mgm.masking import Grid, SlotMotion, make_mask
from mgm.models.vit import Attention
from mgm.spec import MASKS, Mask

ROOT = str(Path(__file__).parents[2] / "mgm")
GPU = "gpu"
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
# Their shapes, or their results on the host, depend on values.
READS = ("nonzero", "masked_select", "unique", "_unique2", "unique_dim", "unique_consecutive",
         "_local_scalar_dense", "item", "equal", "is_nonzero", "bincount")  # fmt: skip


class OnGpu(torch.Tensor):
    """A tensor of the emulated device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        kept = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(GPU, 0),
            requires_grad=inner.requires_grad,
        )
        kept.inner = inner
        return kept

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self):
        return self.cpu().tolist()

    def __tensor_flatten__(self):
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner, _, size, stride):
        return OnGpu(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return emulate(func, args, kwargs or {})


class Waits(list):
    """(case, step, place, operation) of each wait. `step` is None outside of training."""

    case, step = "", None

    def add(self, func: Any) -> None:
        frame, place = sys._getframe(), "outside"
        while frame is not None and place == "outside":
            file = frame.f_code.co_filename
            if file.startswith(ROOT):
                place = f"{Path(file).name}:{frame.f_code.co_name}"
            frame = frame.f_back
        self.append((self.case, self.step, place, str(func)))


waits = Waits()


def emulate(func: Any, args: tuple, kwargs: dict) -> Any:
    """Compute on the CPU, and wrap the results if they are on the emulated device."""
    # In inference mode, operations come before they are decomposed.
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with Emulation():
            return func.decompose(*args, **kwargs)
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, OnGpu)]
    wanted = kwargs.get("device")
    to_gpu = torch.device(wanted).type == GPU if wanted is not None else bool(there)
    if func in COPIES:
        to_gpu = isinstance(args[0], OnGpu) if func is aten.copy_.default else to_gpu
        crosses = {isinstance(x, OnGpu) for x in tensors} != {to_gpu}
        blocks = not (kwargs.get("non_blocking") or (args[2:] and args[2] is True))
        if crosses and (blocks or not to_gpu):
            waits.add(func)
    elif there:
        for x in tensors:
            if not isinstance(x, OnGpu) and x.ndim:
                raise RuntimeError(f"{func}: tensors of the CPU and of the GPU")
        chosen = args[1] if func.__name__.startswith(("index.", "index_put")) else ()
        masks = any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in chosen)
        if func.__name__.partition(".")[0] in READS or masks:
            waits.add(func)
    inner = tree_map(lambda x: x.inner if isinstance(x, OnGpu) else x, (args, kwargs))
    if wanted is not None:
        inner[1]["device"] = torch.device("cpu")
    result = func(*inner[0], **inner[1])
    if not to_gpu:
        return result
    wrapped = tree_map(lambda x: OnGpu(x) if isinstance(x, torch.Tensor) else x, result)
    if func is aten._to_copy.default:
        return wrapped
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


class Emulation(TorchDispatchMode):
    """Emulates operations without tensors of the device too, such as torch.zeros(device="gpu")."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return emulate(func, args, kwargs or {})


@contextmanager
def emulation() -> Iterator[None]:
    """Add the device to PyTorch."""
    _setup_privateuseone_for_python_backend(GPU)
    torch.get_device_module(GPU).get_amp_supported_dtype = lambda: [torch.bfloat16]  # autocast
    # Views of weights would need the version counters of inference tensors, which have none.
    torch.inference_mode = torch.no_grad
    kernels = torch.library.Library("aten", "IMPL")  # torch.tensor(..., device=) needs these

    def empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
        return OnGpu(torch.empty(size, dtype=dtype))

    def empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
        return OnGpu(torch.empty_strided(size, stride, dtype=dtype))

    def copy_from(source, target, non_blocking=False):
        waits.add("torch.tensor")
        target.inner.copy_(source)
        return target

    kernels.impl("_copy_from", copy_from, "PrivateUse1")
    kernels.impl("empty.memory_format", empty, "PrivateUse1")
    kernels.impl("empty_strided", empty_strided, "PrivateUse1")
    with Emulation():
        yield
    kernels._destroy()


def check() -> None:
    """Check that the emulation finds what it is for."""
    x = torch.arange(3, device=GPU)
    try:
        x + torch.arange(3)
        raise AssertionError("a sum over two devices is no error")
    except RuntimeError:
        pass
    reads = (x.sum().item, x.cpu, x.tolist, x.nonzero, lambda: x[x > 1], lambda: bool(x[0]))
    for number, read in enumerate(reads, 1):
        read()
        assert len(waits) == number, read
    waits.clear()


def check_attention() -> None:
    """Check that attention computes what it computes on the CPU. Its products differ."""
    torch.manual_seed(0)
    attention, x_BVD, results = Attention(8, 2), torch.randn(2, 5, 8), []
    torch.nn.init.normal_(attention.q_bias)
    torch.nn.init.normal_(attention.v_bias)
    for device in ("cpu", GPU):
        attention.to(device).zero_grad()
        for last in (0, 2):
            out_BVD = attention(x_BVD.to(device), last=last)
            out_BVD.square().sum().backward()
            grads = [x.grad.cpu().clone() for x in attention.parameters()]
            results.append([out_BVD.cpu(), *grads])
    for here, there in zip(results[:2], results[2:]):
        for one, other in zip(here, there, strict=True):
            torch.testing.assert_close(other, one)
    waits.clear()


def check_masks() -> None:
    """Check that masks are those of the CPU and wait for nothing. Runs draw them on the CPU."""
    grid, seed_B = Grid(4, 4, 4), torch.arange(3)
    draw = torch.Generator().manual_seed(0)
    moved_BSHW2 = 0.1 * torch.randn(3, 4, 6, 6, 2, generator=draw)
    motion = SlotMotion(moved_BSHW2.norm(dim=-1), moved_BSHW2)
    there = SlotMotion(motion.magnitude_BSHW.to(GPU), moved_BSHW2.to(GPU))
    settings = [Mask(name=name) for name in MASKS]
    waits.clear()
    for mask in settings:
        copied_B = seed_B.to(GPU, non_blocking=True)
        masked_BL = make_mask(mask, grid, there, copied_B)
        assert not waits, mask
        here_BL = make_mask(mask, grid, motion, seed_B)
        assert torch.equal(masked_BL.cpu(), here_BL), mask
        waits.clear()


def main(videos: str, folder: str, *chosen: str) -> None:
    """Run the cases for three steps, of which the last is logged, and print the waits."""
    import mgm.stages.job as jobs

    jobs.best_device = lambda: torch.device(GPU, 0)
    from mgm.stages import fit

    # As on CUDA, where batches are copied from pinned memory during the step before.
    fit.device_copy = lambda device: (
        lambda batch: batch.map(lambda x: x.to(device, non_blocking=True))
    )
    from mgm.spec import (
        ApplyOptions,
        Augment,
        Decoder,
        Finetune,
        FinetuneOptim,
        Measure,
        Optim,
        Pretrain,
        Probe,
        RunOptions,
        Views,
        Visualise,
    )
    from mgm.stages import probe_kinds
    from mgm.stages.apply import embed, predict
    from mgm.stages.evaluate import evaluate
    from mgm.stages.finetune import finetune
    from mgm.stages.measure import measure, step_time
    from mgm.stages.pretrain import pretrain
    from mgm.stages.probe import probe
    from mgm.stages.runner import run_all
    from mgm.stages.visualise import visualise
    from mgm.training import loop
    from tests.helpers.small_runs import SMALL

    # Enough steps to see each operation.
    probe_kinds.ATTENTIVE_EPOCHS = probe_kinds.ATTENTIVE_STEPS = 2
    step_time.SECONDS = 0
    loop.LOGGED, rate = 1, loop.learning_rate

    def learning_rate(step, *others):
        waits.step = step
        return rate(step, *others)

    loop.learning_rate = learning_rate
    stages = (pretrain, finetune, probe, visualise, measure)
    results, compute = Path(folder), {stage.__name__: stage for stage in stages}
    data = {"ssv2": Path(videos)}
    workplace = jobs.Workplace(results, data, RunOptions(cache_mb=100))
    optim = {"batch": 4, "steps": 3, "precision": "float32"}
    first = Pretrain(
        **SMALL, decoder=Decoder(width=8, depth=1, heads=2), optim=Optim(**optim, clip_grad=1.0)
    )
    divided = SMALL["model"].model_copy(update={"backbone": "timesformer-toy"})
    # Masks are drawn on the CPU, where clips are read: one of each kind of boxes is enough.
    cases: dict[str, Any] = {name: {"mask": Mask(name=name)} for name in ("mgm", "tube", "warped")}
    cases |= {
        "timesformer": {"model": divided},
    }
    runs: dict[str, Any] = {name: first.model_copy(update=case) for name, case in cases.items()}
    parent = {"parent": first.run_id, "views": Views(temporal=2, spatial=1)}
    tuned = Finetune(**SMALL, **parent, optim=FinetuneOptim(**optim), drop_path=0.3)
    mixed = Augment(mixup=0.8, cutmix=1.0, repeats=2)
    runs |= {
        "finetune": tuned,
        "mixed": tuned.model_copy(update={"augment": mixed, "head_dropout": 0.3}),
    }
    kinds = ("logistic", "v-jepa", "knn")
    runs |= {kind: Probe(**SMALL, **parent, kind=kind, neighbours=3) for kind in kinds}
    parents = {"6": ("mgm",), "7": ("mgm",), "8": ("mgm", "tube")}
    for figure, names in parents.items():
        shown = tuple(runs[name].run_id for name in names)
        runs[f"figure {figure}"] = Visualise(**SMALL, figure=figure, parents=shown)
    for name in get_args(Measure.model_fields["name"].annotation):
        small = {"decoder": first.decoder, "flow": "dis", "views": parent["views"]}
        if name == "explained":
            small["parent"] = first.run_id
        runs[name] = Measure(**SMALL, **small, name=name)
    if chosen:  # to look into some cases
        runs = {name: spec for name, spec in runs.items() if name in chosen}
    for name, spec in runs.items():
        waits.case, waits.step = name, None
        run_all([spec], compute[spec.stage], workplace)
    if chosen:
        return
    video = next(Path(videos).rglob("*.mp4"))
    waits.case = "embed"
    embed(video, results / first.run_id, results / "x.npz", ApplyOptions(temporal=2))
    waits.case = "predict"
    predict(video, results / tuned.run_id, results / "p.csv", None, ApplyOptions(temporal=2))
    waits.case = "evaluate"
    here = jobs.Workplace(results, {"ssv2": data["ssv2"]})
    evaluate(results / tuned.run_id, None, here, {"temporal": 3}, results / "again")


if __name__ == "__main__":
    with emulation():
        check()
        check_attention()
        check_masks()
        if sys.argv[1:]:
            main(*sys.argv[1:])
    print(json.dumps(waits))
