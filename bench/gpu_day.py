"""Check a GPU before a day of training: what may be wrong or slow there, in at most four minutes.

    python bench/gpu_day.py                   all parts, in order of danger
    python bench/gpu_day.py --index DIR       and steps that workers feed from a prepared set
    python bench/gpu_day.py --tiny            the same code at toy size, on a CPU

Prints a row per check (PASS or FAIL) and per number (NUM). Ends with status 1 if a check fails.
"""

import argparse
import mmap
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mgm.data import loader
from mgm.data.clips import PLANES
from mgm.data.index import read_index
from mgm.data.loader import Reading, on_device, training_batches
from mgm.device import best_device, gpu_name
from mgm.masking import Grid, make_mask
from mgm.models import build_classifier, build_mae
from mgm.rng import generator
from mgm.spec import Augment, Clips, Data, Decoder, Finetune, Mask, Model, Pretrain, RunOptions
from mgm.spec.compute import multiply_adds, passes, peak_of
from mgm.stages.run import readers
from mgm.training.optim import build_optimiser
from mgm.video.augment import ClipAugmentation, augmented
from mgm.video.crop import Crop
from mgm.video.planes import frames_of, no_planes

Row = tuple[str, str, str]  # verdict, what, and numbers
TOY: dict[str, Any] = {
    "model": Model(backbone="toy", width=48, depth=2, heads=4, patch=8),
    "clips": Clips(frames=4, size=32),
}


class Machine:
    """The device, and the size of what is tried on it."""

    def __init__(self, tiny: bool, index: Path | None):
        self.device, self.name, self.tiny, self.index = best_device(), gpu_name(), tiny, index
        self.gpu = bool(self.name)

    def wait(self) -> None:
        """Wait for the GPU."""
        if self.gpu:
            torch.cuda.synchronize()

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """Collect the places of the block in which the host waits for the GPU."""
        places = list[str]()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if self.gpu:
                torch.cuda.set_sync_debug_mode("warn")
            yield places
            if self.gpu:
                torch.cuda.set_sync_debug_mode("default")
        found = {f"{one.filename}:{one.lineno}" for one in said if "synchroniz" in str(one.message)}
        places += sorted(found)


def check(good: bool, what: str, numbers: str = "") -> Row:
    """Return the row of a check."""
    return ("PASS" if good else "FAIL"), what, numbers


# --- The parts. Each yields rows. ---


def environment(on: Machine) -> Iterator[Row]:
    facts = f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, {os.cpu_count()} cores"
    yield "NUM", on.name or "CPU", facts
    if on.gpu:
        peak = peak_of(on.name)
        yield check(peak > 0, "the GPU is known", f"{peak / 1e12:.0f} TFLOP/s")
        yield check(torch.cuda.is_bf16_supported(including_emulation=False), "bf16 units")


def pinned(on: Machine) -> Iterator[Row]:
    """Register memory of `mmap`, as the loader does."""
    if not on.gpu:
        return
    size, addresses = 2**28, list[int]()
    array = np.ndarray(size, np.uint8, mmap.mmap(-1, size))
    array[:] = 3
    loader._pin([array], addresses)
    tensor = torch.from_numpy(array)
    yield check(tensor.is_pinned(), "registered memory is pinned")
    loader._pin([array], addresses)
    yield check(len(addresses) == 1, "registering it again is refused, and no error stays")
    began = time.perf_counter()
    there = tensor.to(on.device, non_blocking=True)
    asked_s = time.perf_counter() - began
    on.wait()
    took_s = time.perf_counter() - began
    numbers = f"{1e3 * asked_s:.2f} of {1e3 * took_s:.2f} ms, {size / took_s / 1e9:.1f} GB/s"
    yield check(asked_s < took_s / 2, "a copy returns before it ends", numbers)
    yield check(int(there.sum(dtype=torch.int64)) == 3 * size, "the copy is right")
    child = os.fork()
    if not child:
        os._exit(array[5] != 3)
    status = os.waitpid(child, 0)[1]
    yield "NUM", "a process forked after pinning", f"status {status} (0: reads it, 11: cannot)"
    for address in addresses:
        torch.cuda.cudart().cudaHostUnregister(address)
    yield check(not tensor.is_pinned(), "memory is given back")


class Numbered:
    """Clips whose pixels are the number of their batch, in place of `loader.Training`."""

    per_video = 1

    def __init__(self, batch: int, side: int):
        self.batch = batch
        self.blank = {"frames_BTHWC": np.zeros((1, 16, side, side, 3), np.uint8)}

    def write(self, places: range, out: dict[str, np.ndarray]) -> dict[int, Any]:
        out["frames_BTHWC"][:] = places.start // self.batch % 251
        return {}


def life(on: Machine) -> Iterator[Row]:
    """No buffer is overwritten while its copy, or its step, is under way."""
    side, steps, order = (8, 20, 64) if on.tiny else (224, 120, 8192)
    for workers, parts in ((3, 4), (6, 1), (8, 4))[: 1 if on.tiny else 3]:
        batch = loader.PIECE * parts
        pool: Any = loader.Pool(Numbered(batch, side), batch, range(batch), workers)
        made = pool.batches(range(steps + 10 * workers), Reading(), on.gpu)
        wrong = torch.zeros((), dtype=torch.int64, device=on.device)
        load = torch.randn(order, order, device=on.device, dtype=torch.bfloat16)
        began = time.perf_counter()
        with closing(on_device(made, side, on.device)) as batches:
            for number, (own, _) in enumerate(islice(batches, steps)):
                # A GPU that is behind its host.
                load = (load @ load).clamp(-1, 1)
                wrong += (own["frames_BTHWC"] != number % 251).sum()
        on.wait()
        step_ms = 1e3 * (time.perf_counter() - began) / steps
        what = f"life of a batch: {workers} workers, {parts} parts"
        yield check(int(wrong) == 0, what, f"{int(wrong)} wrong, {step_ms:.1f} ms per step")


def planes(on: Machine) -> Iterator[Row]:
    """Planes are converted without waiting, and like on a CPU."""
    count, size = (2, 32) if on.tiny else (64, 224)
    arrays = no_planes(Clips(size=size), size + 32)
    there = [torch.from_numpy(arrays[name].repeat(count, 0)) for name in PLANES]
    for plane in there[:2]:
        plane.random_(0, 256)
    own = [x.to(on.device) for x in there]
    for how, work in (("eager", frames_of), ("compiled", compiled(frames_of, on))):
        got = work(size, *own)
        on.wait()
        with on.watched() as places:
            began = time.perf_counter()
            for _ in range(5):
                got = work(size, *own)
        on.wait()
        clip_us = 1e6 * (time.perf_counter() - began) / 5 / count
        yield check(not places, f"planes, {how}: nothing waits", ", ".join(places))
        yield "NUM", f"planes, {how}", f"{clip_us:.1f} us per clip"
        off = (got[:2].cpu().int() - frames_of(size, *(x[:2] for x in there)).int()).abs()
        yield check(int(off.max()) <= 1, f"planes, {how}: as on a CPU", f"{int(off.max())} of 255")


def augmentation(on: Machine) -> Iterator[Row]:
    """RandAugment and random erasing of whole frames, without waiting."""
    count, size, sides = (2, 32, (40, 50)) if on.tiny else (32, 224, (256, 340))
    drawing = ClipAugmentation(Augment(rand="rand-m7-n4-mstd0.5-inc1", erasing=0.25))
    blank = drawing.blank(Clips(size=size), sides[0] * sides[1])
    arrays = {name: x.repeat(count, 0) for name, x in blank.items()}
    for clip in range(count):
        into = {name: x[clip] for name, x in arrays.items()}
        drawing.draw(generator(clip, "augment"), sides, Crop(0, 0, *sides), size, into)
    host = {name: torch.from_numpy(x) for name, x in arrays.items()}
    host["whole_BTPC"].random_(0, 256)
    host["seed_B"] = torch.arange(count)
    whole_BTPC = host["whole_BTPC"].to(on.device)
    augmented(size, whole_BTPC, host)
    on.wait()
    with on.watched() as places:
        began = time.perf_counter()
        augmented(size, whole_BTPC, host)
        host_ms = 1e3 * (time.perf_counter() - began) / count
    on.wait()
    clip_ms = 1e3 * (time.perf_counter() - began) / count
    yield check(not places, "augmentation: nothing waits", ", ".join(places))
    yield "NUM", "augmentation", f"{clip_ms:.2f} ms per clip (host {host_ms:.2f})"


def steps(on: Machine) -> Iterator[Row]:
    """Pretraining at both ratios of the paper, and fine-tuning: alone, compiled and eager."""
    count = 4 if on.tiny else 128
    for ratio, clips in ((0.9, count), (0.75, count // 4)):
        spec = pretraining(on, ratio)
        hidden_BL = make_mask(
            Mask(ratio=ratio, name="tube"), Grid(*spec.grid), None, np.arange(clips)
        )
        rest = torch.from_numpy(hidden_BL), torch.ones(clips)
        yield from compared(f"pretraining at {ratio:.0%}", on, spec, build_mae, clips, rest)
    tuned = Finetune(data=Data(dataset="folder"), drop_path=0.3, **(TOY if on.tiny else {}))
    rest = torch.arange(count // 4) % 174, torch.ones(count // 4)
    made = lambda spec: build_classifier(spec, 174)  # noqa: E731
    yield from compared("fine-tuning", on, tuned, made, count // 4, rest)


def compared(
    what: str,
    on: Machine,
    spec: Any,
    build: Callable[[Any], nn.Module],
    clips: int,
    rest: tuple[Tensor, ...],
) -> Iterator[Row]:
    """Train a few steps on random clips, eager and compiled. The first losses must agree."""
    shape = clips, spec.clips.frames, spec.clips.size, spec.clips.size, 3
    frames_BTHWC = torch.randint(0, 256, shape, dtype=torch.uint8)
    batch = [x.to(on.device) for x in (frames_BTHWC, *rest)]
    losses, count = list[float](), 2 if on.tiny else 12
    for how in ("eager", "compiled"):
        model = build(spec).to(on.device).train()
        step_of = compiled(model, on) if how == "compiled" else model
        step = stepper(spec, model, step_of, on)
        began = time.perf_counter()
        losses.append(step(batch).item())
        compile_s = time.perf_counter() - began
        step(batch)
        on.wait()
        with on.watched() as places:
            began = time.perf_counter()
            for _ in range(count):
                step(batch)
            host_ms = 1e3 * (time.perf_counter() - began) / count
        on.wait()
        step_s = (time.perf_counter() - began) / count
        peak = peak_of(on.name) or np.inf
        share = 2 * passes(spec) * multiply_adds(spec) * clips / step_s / peak
        memory = torch.cuda.max_memory_allocated() / 2**30 if on.gpu else 0.0
        numbers = f"{clips / step_s:.0f} clips/s, MFU {share:.1%}, {1e3 * step_s:.1f} ms per step "
        numbers += f"(host {host_ms:.1f}), {memory:.1f} GiB, first step {compile_s:.0f} s"
        yield "NUM", f"{what}, {clips} clips, {how}", numbers
        yield check(not places, f"{what}, {how}: nothing waits", ", ".join(places))
        if on.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    off = abs(losses[0] / losses[1] - 1)
    yield check(off < 0.01, f"{what}: compiled is eager", f"losses differ by {off:.1e}")


def fed(on: Machine) -> Iterator[Row]:
    """Steps of pretraining that workers feed: near the slower of both."""
    if not on.index:
        return
    clips, count = (4, 8) if on.tiny else (128, 60)
    spec, videos = pretraining(on, 0.9), read_index(on.index).train
    model, workers, reading = (
        build_mae(spec).to(on.device).train(),
        readers(RunOptions()),
        Reading(),
    )
    step = stepper(spec, model, compiled(model, on), on)
    made = training_batches(
        videos * (1 + clips // len(videos)),
        spec.clips,
        0,
        clips,
        mask=spec.mask,
        grid=Grid(*spec.grid),
        tubelet=spec.model.tubelet,
        workers=workers,
        planes=True,
        pin=on.gpu,
        reading=reading,
    )
    with closing(on_device(made, spec.clips.size, on.device, on.gpu)) as batches:
        for number, (own, _) in enumerate(islice(batches, 4 + count)):
            step([own[name] for name in ("frames_BTHWC", "masked_BL", "weight_B")])
            if number == 3:
                on.wait()
                began, reading.waited_s = time.perf_counter(), 0.0
        on.wait()
    took_s = time.perf_counter() - began
    numbers = f"{count * clips / took_s:.0f} clips/s, waiting {reading.waited_s / took_s:.0%}"
    yield "NUM", f"pretraining at 90%, fed by {workers} workers", numbers


def attention(on: Machine) -> Iterator[Row]:
    """Time the kernels of attention for the decoder's tokens, and for the encoder's at 75 %."""
    if not on.gpu:
        return
    kinds = SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION
    for what, shape in (("decoder", (128, 6, 1568, 64)), ("encoder", (128, 12, 392, 64))):
        made = (torch.randn(shape, device=on.device, dtype=torch.bfloat16) for _ in range(3))
        qkv = [x.requires_grad_() for x in made]
        for kind in kinds:
            try:
                with sdpa_kernel(kind):
                    for number in range(13):
                        if number == 3:
                            on.wait()
                            began = time.perf_counter()
                        F.scaled_dot_product_attention(*qkv).sum().backward()
                on.wait()
                numbers = f"{100 * (time.perf_counter() - began):.2f} ms"
            except RuntimeError as error:
                numbers = str(error).splitlines()[0][:80]
            yield "NUM", f"attention of the {what}, {kind.name}", numbers


# --- Helpers ---


def pretraining(on: Machine, ratio: float) -> Pretrain:
    toy = TOY | {"decoder": Decoder(width=24, depth=1, heads=2)} if on.tiny else {}
    return Pretrain(data=Data(dataset="folder"), mask=Mask(name="mgm", ratio=ratio), **toy)


def compiled(work: Any, on: Machine) -> Any:
    """Compile as a run does. A toy on a CPU is only traced, since compiling takes a minute."""
    how: dict[str, Any] = {"options": {"fallback_random": True}} if on.gpu else {"backend": "eager"}
    return torch.compile(work, dynamic=False, **how)


def stepper(
    spec: Any, model: nn.Module, step_of: Any, on: Machine
) -> Callable[[list[Tensor]], Tensor]:
    """Return a function that makes a step with a batch, and returns its loss."""
    optimiser = build_optimiser(model, spec.optim)
    parameters = [x for x in model.parameters() if x.requires_grad]

    def step(batch: list[Tensor]) -> Tensor:
        torch.manual_seed(5)
        optimiser.zero_grad()
        with torch.autocast(on.device.type, torch.bfloat16):
            loss, _ = step_of(*batch)
        loss.backward()
        torch.nn.utils.get_total_norm([x.grad for x in parameters if x.grad is not None])
        optimiser.step()
        detached: Tensor = loss.detach()
        return detached

    return step


PARTS = (environment, pinned, life, planes, augmentation, steps, fed, attention)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--index", type=Path, help="a prepared set")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", nargs="*", help="parts by name")
    parser.add_argument("--seconds", type=int, default=230, help="no part begins later")
    args = parser.parse_args()
    on, began, failed = Machine(args.tiny, args.index), time.monotonic(), False
    if not on.gpu and not args.tiny:
        sys.exit("gpu_day.py: there is no GPU; --tiny tries the same on a CPU")
    signal.alarm(args.seconds + 60)  # a part that hangs
    print("| | What | Numbers |\n|---|---|---|")
    for part in PARTS:
        if args.only and part.__name__ not in args.only:
            continue
        rows = part(on)
        if time.monotonic() - began > args.seconds:
            rows = iter([("SKIP", part.__name__, "no time is left")])
        try:
            for verdict, what, numbers in rows:
                failed |= verdict == "FAIL"
                print(f"| {verdict} | {what} | {numbers} |", flush=True)
        # The next part may work.
        except Exception as error:
            failed = True
            why = (str(error).strip().splitlines() or [""])[0][:200]
            print(f"| FAIL | {part.__name__} | {type(error).__name__}: {why} |", flush=True)
        if on.gpu:
            torch.cuda.empty_cache()
    print(f"\n{time.monotonic() - began:.0f} s", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
