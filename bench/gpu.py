"""All that only a GPU can show, in parts of at most 8 minutes that continue when called again:
`make gpu`.

    --part day        a step of each stage of scale day in both sizes, and its loader
    --part parity     masks, model, gradients and a step on the GPU against the CPU; NCCL; resume
    --part step       clips/s, memory, share of the peak; compiled or not; against transformers
    --part ladder     batch size against memory and speed; checkpointing, accumulation
    --part feed       the device's idle share by number of workers, from files and from shards
    --part mini       as much of scale mini as fits

Each row is written to OUT/PART.jsonl when it is measured, and a row that is there is not measured
again. What cannot run here (memory, a compiler that is missing) is a row that says why. OUT/PART.md
shows the rows; `mgm plan` reads OUT, and `--docs` writes it into docs/speed.md. `--dry` runs every
part at toy size on a CPU.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from torch import Tensor, nn

from mgm.dag.study import CONFIG
from mgm.data.synthetic.make import generate
from mgm.data.synthetic.params import Synthetic
from mgm.masking import MASKS, Grid, Motion, make_mask
from mgm.models import build_classifier, build_mae, reconstruction_loss
from mgm.paper.cost import multiply_adds
from mgm.paper.scales import load_scale
from mgm.paper.suite import make_registry
from mgm.spec import Clips, Data, Decoder, Finetune, Mask, Model, Pretrain
from mgm.stages.measure.step_time import step_seconds
from mgm.training import mix
from mgm.training.compiling import block_compiler
from mgm.training.memory import recomputed, wrapped_blocks
from mgm.training.optim import build_optimiser
from mgm.video import training_loader
from mgm.video.loader import WITH_MOTION

DATA = Data(dataset="folder")
SIZES = {  # encoder and decoder of VideoMAE's scripts
    "ViT-S": (Model(width=384, depth=12, heads=6), Decoder(width=192, depth=4, heads=3)),
    "ViT-B": (Model(width=768, depth=12, heads=12), Decoder(width=384, depth=4, heads=6)),
    "ViT-L": (Model(width=1024, depth=24, heads=16), Decoder(width=512, depth=4, heads=8)),
}
TOY = {"toy": (Model(width=64, depth=2, heads=2), Decoder(width=32, depth=1, heads=2))}
Row = dict[str, Any]
Task = tuple[str, Callable[[], Row]]  # a row's name, and what measures it


class Bench:
    """Where and how large: the GPU at the paper's size, or a CPU at toy size."""

    def __init__(self, dry: bool):
        self.dry = dry
        self.device = torch.device("cpu" if dry else "cuda")
        self.sizes = TOY if dry else SIZES
        self.clips = Clips(frames=4, size=64) if dry else Clips()
        self.batch = 2 if dry else 64
        self.steps = 2 if dry else 10  # timed, after as many that warm up
        self.bf16 = not dry

    def pretraining(self, size: str, ratio: float, mask: str = "tube") -> Pretrain:
        model, decoder = self.sizes[size]
        return Pretrain(
            data=DATA,
            clips=self.clips,
            model=model,
            decoder=decoder,
            mask=Mask(name=mask, ratio=ratio),
        )

    def frames(self, batch: int, device: torch.device | None = None) -> Tensor:
        noise = torch.Generator().manual_seed(0)
        shape = (batch, self.clips.frames, self.clips.size, self.clips.size, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=noise).to(
            device or self.device
        )

    @cache  # noqa: B019  one bench a process
    def peak(self) -> float:
        """FLOP/s of a large matrix product in bf16 on this chip: what a step is held against."""
        n = 256 if self.dry else 8192
        a, b = (torch.randn(n, n, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        times = [self._seconds(lambda: a @ b) for _ in range(5 if self.dry else 30)]
        return 2 * n**3 / min(times)

    def _seconds(self, work: Callable[[], object]) -> float:
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def timed(
    bench: Bench, optimiser, loss_of: Callable[[], Tensor], clips: int, flops_a_clip: float
) -> Row:
    """Clips/s (median step), peak memory, and the share of the chip's measured peak that the
    counted FLOPs make.
    """
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(bench.steps):
        step_seconds(optimiser, loss_of, bench.device, bench.bf16)
    seconds = statistics.median(
        step_seconds(optimiser, loss_of, bench.device, bench.bf16) for _ in range(bench.steps)
    )
    memory = torch.cuda.max_memory_allocated() / 1e9 if bench.device.type == "cuda" else 0.0
    rate = clips / seconds
    return {"clips_per_s": rate, "memory_gb": memory, "mfu": flops_a_clip * rate / bench.peak()}


COMPILED = {
    "whole model compiled": "default",
    "CUDA graphs": "reduce-overhead",
}  # "compile" is what jobs do: block by block


def compiled(model: nn.Module, how: str) -> nn.Module:
    return torch.compile(model, mode=COMPILED[how], dynamic=False) if how in COMPILED else model  # type: ignore[return-value]


def wraps(bench: Bench, how: str, recompute: bool = False) -> list[Callable]:
    """What its blocks run through.

    Raises:
        RuntimeError: torch.compile does not work here.
    """
    if how != "compile":
        return [recomputed] if recompute else []
    said = list[str]()
    if not (compiler := block_compiler("on", bench.device, said.append)):
        raise RuntimeError(said[0])
    return [compiler]


def ours_pretraining(
    bench: Bench,
    size: str,
    ratio: float,
    how: str,
    batch: int = 0,
    recompute: bool = False,
    accumulate: int = 1,
) -> Row:
    spec, batch = bench.pretraining(size, ratio), batch or bench.batch
    model = build_mae(spec).to(bench.device).train()
    optimiser = build_optimiser(model, spec.optim)
    frames_BTHWC = bench.frames(batch // accumulate)
    seed_B = torch.arange(batch // accumulate, device=bench.device)
    weight_B = torch.ones(len(seed_B), device=bench.device)
    forward = compiled(model, how)

    def loss_of() -> Tensor:
        masked_BL = make_mask(
            Mask(name="tube", ratio=ratio), Grid(*spec.grid), None, seed_B
        )  # made on the device, as in training
        return reconstruction_loss(*forward(frames_BTHWC, masked_BL), weight_B) / accumulate

    def accumulated() -> Tensor:
        for _ in range(accumulate - 1):
            loss_of().backward()
        return loss_of()

    with wrapped_blocks(model, *wraps(bench, how, recompute)):
        return timed(bench, optimiser, accumulated, batch, 6 * multiply_adds(spec))


def ours_finetuning(bench: Bench, size: str, how: str) -> Row:
    spec = Finetune(data=DATA, clips=bench.clips, model=bench.sizes[size][0])
    classes, batch = 400, max(2, bench.batch // 4)
    model = build_classifier(spec, classes).to(bench.device).train()
    optimiser = build_optimiser(model, spec.optim)
    frames_BTHWC, forward = bench.frames(batch), compiled(model, how)
    label_B = torch.arange(batch, device=bench.device) % classes
    with wrapped_blocks(model, *wraps(bench, how)):
        return timed(
            bench,
            optimiser,
            lambda: nn.functional.cross_entropy(forward(frames_BTHWC), label_B),
            batch,
            6 * multiply_adds(spec),
        )


def theirs_pretraining(bench: Bench, size: str, ratio: float, attention: str, how: str) -> Row:
    """transformers' VideoMAE with the same masks; its frames are normalised already."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    spec = bench.pretraining(size, ratio)
    config = VideoMAEConfig(
        image_size=spec.clips.size,
        num_frames=spec.clips.frames,
        use_mean_pooling=False,
        attn_implementation=attention,
        hidden_size=spec.model.width,
        num_hidden_layers=spec.model.depth,
        num_attention_heads=spec.model.heads,
        intermediate_size=4 * spec.model.width,
        decoder_hidden_size=spec.decoder.width,
        decoder_num_hidden_layers=spec.decoder.depth,
        decoder_num_attention_heads=spec.decoder.heads,
        decoder_intermediate_size=4 * spec.decoder.width,
    )
    model = VideoMAEForPreTraining(config).to(bench.device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    pixels_BTCHW = (bench.frames(bench.batch) / 255).permute(0, 1, 4, 2, 3).contiguous()
    masked_BL = make_mask(
        Mask(name="tube", ratio=ratio),
        Grid(*spec.grid),
        None,
        torch.arange(bench.batch, device=bench.device),
    )
    forward = compiled(model, how)
    loss_of = lambda: forward(pixel_values=pixels_BTCHW, bool_masked_pos=masked_BL).loss  # noqa: E731
    return timed(bench, optimiser, loss_of, bench.batch, 6 * multiply_adds(spec))


def step(bench: Bench) -> Iterator[Task]:
    ways = ("eager",) if bench.dry else ("eager", "compile", *COMPILED)
    middle = "toy" if bench.dry else "ViT-B"
    if bench.dry:  # compiling takes a minute of a CPU, so once
        yield (
            "toy, pretraining at 0.75, ours compile",
            partial(ours_pretraining, bench, "toy", 0.75, "compile"),
        )
    for size in sorted(bench.sizes, key=lambda size: size != middle):  # the paper's model first
        for ratio in (0.75, 0.9):
            for how in ways:
                yield (
                    f"{size}, pretraining at {ratio:g}, ours {how}",
                    partial(ours_pretraining, bench, size, ratio, how),
                )
            if size == middle:
                for attention in ("eager", "sdpa"):
                    for how in ("eager", "whole model compiled")[: len(ways)]:
                        name = f"{size}, pretraining at {ratio:g}, transformers {attention} {how}"
                        yield name, partial(theirs_pretraining, bench, size, ratio, attention, how)
        for how in ways:
            yield f"{size}, finetuning, ours {how}", partial(ours_finetuning, bench, size, how)


def ladder(bench: Bench) -> Iterator[Task]:
    size = "toy" if bench.dry else "ViT-B"
    for batch in (2, 4) if bench.dry else (16, 32, 64, 128, 256, 512):
        yield (
            f"{size} at 0.75, batch {batch}",
            partial(ours_pretraining, bench, size, 0.75, "eager", batch),
        )
        name = f"{size} at 0.75, batch {batch}, activation checkpointing"
        yield name, partial(ours_pretraining, bench, size, 0.75, "eager", batch, recompute=True)
        yield (
            f"{size} at 0.75, batch {batch}, in 2 parts",
            partial(ours_pretraining, bench, size, 0.75, "eager", batch, accumulate=2),
        )


def parity(bench: Bench) -> Iterator[Task]:
    size = "toy" if bench.dry else "ViT-B"
    for name in MASKS:
        yield (
            f"mask {name}: share of tokens that differ from the CPU's",
            partial(mask_difference, bench, name),
        )
    for precision in ("float32", "bf16"):
        yield (
            f"{size}, {precision}: loss, gradients, one step against the CPU in float32",
            partial(model_difference, bench, size, precision),
        )
    yield "ten steps without a wait for the device", partial(steps_without_waiting, bench)
    yield "one process of DistributedDataParallel against none", partial(ddp_difference, bench)
    yield (
        "training killed and continued against one that was not",
        partial(resume_difference, bench),
    )


def day(bench: Bench) -> Iterator[Task]:
    """Scale day's two sizes: a step of each stage, and the loader that feeds it."""
    for size in ("rehearsal",) if bench.dry else ("24gb", "80gb"):
        registry = make_registry(load_scale(CONFIG / "day.yaml", size=size))
        pretraining, finetuning = (
            next(spec for spec in registry.specs.values() if isinstance(spec, kind))
            for kind in (Pretrain, Finetune)
        )
        yield f"day, {size}: a pretraining step", partial(day_step, bench, pretraining)
        yield f"day, {size}: a fine-tuning step", partial(day_step, bench, finetuning)
        yield f"day, {size}: the loader", partial(day_loader, bench, pretraining)


def day_step(bench: Bench, spec: Pretrain | Finetune) -> Row:
    """Time a step in the fewest parts that the memory allows."""
    repeats = spec.augment.repeats if isinstance(spec, Finetune) else 1
    clips = spec.optim.batch * repeats
    for parts in (1, 2, 4, 8, 16):
        try:
            return {"parts": parts} | step_in_parts(bench, spec, clips, parts)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    raise RuntimeError(f"a batch of {clips} does not fit, not even in 16 parts")


def step_in_parts(bench: Bench, spec: Pretrain | Finetune, clips: int, parts: int) -> Row:
    own = max(1, clips // parts)
    noise = torch.Generator().manual_seed(0)
    shape = (own, spec.clips.frames, spec.clips.size, spec.clips.size, 3)
    frames_BTHWC = torch.randint(0, 256, shape, dtype=torch.uint8, generator=noise)
    frames_BTHWC = frames_BTHWC.to(bench.device)
    seed_B = torch.arange(own, device=bench.device)
    if isinstance(spec, Pretrain):
        model = build_mae(spec).to(bench.device).train()
        weight_B = torch.ones(own, device=bench.device)
        cells = spec.clips.size // 8
        motion = Motion(torch.rand(own, spec.grid[0], cells, cells, device=bench.device))

        def loss_of() -> Tensor:
            masked_BL = make_mask(spec.mask, Grid(*spec.grid), motion, seed_B)
            return reconstruction_loss(*model(frames_BTHWC, masked_BL), weight_B) / parts

    else:
        model = build_classifier(spec, 101).to(bench.device).train()

        def loss_of() -> Tensor:
            return nn.functional.cross_entropy(model(frames_BTHWC), seed_B % 101) / parts

    def accumulated() -> Tensor:
        for _ in range(parts - 1):
            loss_of().backward()
        return loss_of()

    optimiser = build_optimiser(model, spec.optim)
    with wrapped_blocks(model, *wraps(bench, "eager" if bench.dry else "compile")):
        return timed(bench, optimiser, accumulated, own * parts, 6 * multiply_adds(spec))


def day_loader(bench: Bench, spec: Pretrain) -> Row:
    """Read batches of drawn videos of 256 x 256 (H.264), with motion vectors, on every core."""
    workers = 0 if bench.dry else os.cpu_count() or 1
    params = Synthetic(classes=2, train_per_class=8, test_per_class=1, size=256, frames=96)
    with tempfile.TemporaryDirectory() as folder:
        index = generate(params, Path(folder))
        batch = min(spec.optim.batch, 16)
        batches = training_loader(
            index.train,
            spec.clips,
            spec.model.tubelet,
            0,
            batch,
            how=replace(WITH_MOTION, workers=workers),
        )
        next(batches)  # workers start
        rounds = 1 if bench.dry else 40
        started = time.perf_counter()
        for _ in range(rounds):
            next(batches)
        return {
            "videos_per_s": rounds * batch / (time.perf_counter() - started),
            "cores": float(max(workers, 1)),
        }


def bounded(bounds: dict[str, float], **values: float) -> Row:
    """The values, and whether each is within its bound."""
    return values | {
        "bounds": bounds,
        "holds": all(values[name] <= bound for name, bound in bounds.items()),
    }


def mask_difference(bench: Bench, name: str) -> Row:
    grid, seed_B = Grid(8, 14, 14), torch.arange(64)
    shift_BSHW2 = 4 * torch.rand(64, 8, 28, 28, 2, generator=torch.Generator().manual_seed(0)) - 2
    motion_BSHW = shift_BSHW2.norm(dim=-1)

    def mask(device: torch.device) -> Tensor:
        moving = motion_BSHW.to(device), shift_BSHW2.to(device)
        return make_mask(name, grid, Motion(*moving), seed_B.to(device)).cpu()

    masks = [mask(device) for device in (torch.device("cpu"), bench.device)]
    return bounded({"differ": 0.0}, differ=(masks[0] != masks[1]).float().mean().item())


def model_difference(bench: Bench, size: str, precision: str) -> Row:
    """Relative differences.

    float32 differs by the order of sums through 24 blocks' products (TF32 is off); bf16 has 8 bits.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    spec, found = bench.pretraining(size, 0.75), []
    for device, bf16 in ((torch.device("cpu"), False), (bench.device, precision == "bf16")):
        model = build_mae(spec).to(device).train()
        optimiser = build_optimiser(model, spec.optim)
        masked_BL = make_mask("tube", Grid(*spec.grid), None, torch.arange(2, device=device))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = reconstruction_loss(
                *model(bench.frames(2, device), masked_BL), torch.ones(2, device=device)
            )
        loss.backward()
        gradient = (
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            .double()
            .cpu()
        )
        before = torch.cat([p.detach().flatten() for p in model.parameters()]).cpu()
        optimiser.step()
        moved = torch.cat([p.detach().flatten() for p in model.parameters()]).cpu() - before
        found.append((loss.item(), gradient, moved))
    (loss, gradient, moved), (loss_2, gradient_2, moved_2) = found
    values = {
        "loss": abs(loss_2 / loss - 1),
        "gradient": ((gradient_2 - gradient).norm() / gradient.norm()).item(),
        "step": ((moved_2 - moved).norm() / moved.norm()).item(),
    }
    # Adam's first step is the sign of a gradient, so the smallest gradients decide its difference.
    return bounded(
        {"loss": 1e-5, "gradient": 1e-3, "step": 0.05}
        if precision == "float32"
        else {"loss": 1e-2, "gradient": 0.1},
        **values,
    )


def steps_without_waiting(bench: Bench) -> Row:
    """Masks, forward, backward, optimiser, and Mixup of a finetuning step.

    A wait is an error that names its operation.
    """
    spec = bench.pretraining("toy" if bench.dry else "ViT-B", 0.75, "mgm")
    model = build_mae(spec).to(bench.device).train()
    optimiser = build_optimiser(model, spec.optim)
    batch, side = 8, spec.clips.size // 8
    frames_BTHWC, seed_B = bench.frames(batch), torch.arange(batch, device=bench.device)
    motion_BSHW = torch.rand(batch, spec.grid[0], side, side, device=bench.device)
    weight_B, on_host_B = torch.ones(batch, device=bench.device), torch.ones(batch)

    def one_step() -> None:
        mixed_BTHWC, _ = mix(
            frames_BTHWC, seed_B % 4, on_host_B, 4, 0.8, 1.0, np.random.default_rng(0)
        )
        masked_BL = make_mask("mgm", Grid(*spec.grid), Motion(motion_BSHW), seed_B)
        optimiser.zero_grad()
        reconstruction_loss(*model(mixed_BTHWC, masked_BL), weight_B).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    one_step()
    if bench.device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(10):
            one_step()
    finally:
        if bench.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return {"holds": True}


def ddp_difference(bench: Bench) -> Row:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    spec = bench.pretraining("toy" if bench.dry else "ViT-B", 0.75)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(
            "gloo" if bench.dry else "nccl",
            init_method=f"file://{folder}/store",
            rank=0,
            world_size=1,
        )
        gradients = []
        for wrap in (lambda model: model, DistributedDataParallel):
            model = build_mae(spec).to(bench.device).train()
            masked_BL = make_mask(
                "tube", Grid(*spec.grid), None, torch.arange(2, device=bench.device)
            )
            reconstruction_loss(
                *wrap(model)(bench.frames(2), masked_BL), torch.ones(2, device=bench.device)
            ).backward()
            gradients.append(
                torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            )
        dist.destroy_process_group()
    return bounded(
        {"gradient": 1e-6},
        gradient=((gradients[1] - gradients[0]).norm() / gradients[0].norm()).item(),
    )


def resume_difference(bench: Bench) -> Row:
    """The loss of the last step, relative.

    CUDA's atomic sums come in any order, and training amplifies that; a wrong state is far off.
    """
    from mgm.spec import Optim

    params = Synthetic(classes=3, train_per_class=16, test_per_class=1, size=32, frames=12)
    spec = Pretrain(
        data=Data(dataset="ssv2", digest=params.digest),
        clips=Clips(frames=4, size=32, stride=2),
        model=Model(width=32, depth=2, heads=2, patch=8),
        decoder=Decoder(width=16, depth=1, heads=2),
        optim=Optim(lr=0.03, batch=8, steps=300, precision="float32"),
        std_floor=0.1,
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate(params, root / "data")
        (root / "spec.json").write_text(spec.model_dump_json())

        def train(out: str, kill: bool) -> list[dict]:
            command = [
                sys.executable,
                "-m",
                "mgm",
                "pretrain",
                root / "spec.json",
                "--out",
                root / out,
                "--data",
                f"ssv2={root / 'data'}",
            ]
            command += ["--checkpoint-s", "0.2"]
            log = root / out / spec.run_id / "log.jsonl"
            process = subprocess.Popen(command, cwd=common.ROOT, stderr=subprocess.DEVNULL)
            while kill and process.poll() is None:
                time.sleep(0.05)
                if log.exists() and log.read_text().count("\n") > 20:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return train(out, kill=False)
            if process.wait():
                raise RuntimeError(f"mgm pretrain ended with status {process.returncode}")
            return [json.loads(line) for line in log.read_text().splitlines()]

        whole, parts = train("whole", kill=False), train("killed", kill=True)
    return bounded(
        {"loss": 1e-2}, loss=abs(parts[-1]["loss"] / whole[-1]["loss"] - 1), steps=len(parts)
    )


def feed(bench: Bench) -> Iterator[Task]:
    for workers in (1,) if bench.dry else (4, 8, 16):
        for source in ("shards", "files"):
            yield f"{workers} workers, from {source}", partial(fed, bench, workers, source)


def fed(bench: Bench, workers: int, source: str) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.json")
        command = [
            sys.executable,
            Path(__file__).with_name("feed.py"),
            "--workers",
            str(workers),
            "--json",
            rows,
        ]
        command += ["--files"] if source == "files" else []
        command += ["--repeats", "3", "--frames", "60"] if bench.dry else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=common.ROOT)
        row = json.loads(rows.read_text())[0]
        return {"busy_percent": row["ours"], "predicted_percent": row["peer"]}


def mini(bench: Bench) -> Iterator[Task]:
    yield "a part of mini's Table 4e", partial(part_of_mini, bench)


def part_of_mini(bench: Bench) -> Row:
    command = [
        str(Path(sys.executable).with_name("snakemake")),
        "--cores",
        str(os.cpu_count()),
        "--config",
        "scale=mini",
        "--",
        "table4e",
    ]
    if bench.dry:
        command.insert(1, "--dry-run")
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=common.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, said = process.communicate(timeout=420)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate()
        done = len(list((common.ROOT / "results" / "mini").glob("*/result.json")))
        return {
            "runs_done": done,
            "seconds": time.monotonic() - started,
            "again": True,
        }  # the next call continues
    if process.returncode:
        raise RuntimeError(
            said.strip().splitlines()[-1]
            if said.strip()
            else f"snakemake ended with status {process.returncode}"
        )
    return {"seconds": time.monotonic() - started}


PARTS = {
    "day": day,
    "parity": parity,
    "step": step,
    "ladder": ladder,
    "feed": feed,
    "mini": mini,
}


def run_part(name: str, bench: Bench, out: Path, seconds: float) -> bool:
    """Measure what is missing, within `seconds`. True when nothing is missing any more."""
    tasks = {task: partial(tried, bench, work) for task, work in PARTS[name](bench)}
    print(
        f"{name}: {len(tasks)} rows, {'some minutes' if bench.dry else 'at most 8 minutes a call'}",
        flush=True,
    )
    rows = common.each(
        name,
        tasks,
        out / f"{name}.jsonl",
        again=lambda row: row.get("again", False),
        seconds=seconds,
    )
    (out / f"{name}.md").write_text(markdown(name, rows) + "\n")
    print(markdown(name, rows))
    if len(rows) < len(tasks):
        print(f"{name}: {len(rows)} of {len(tasks)} rows; call again for the others")
    return len(rows) == len(tasks)


def tried(bench: Bench, work: Callable[[], Row]) -> Row:
    """Its row; of what cannot run here, one that says why."""
    try:
        return work()
    except Exception as error:  # memory, a compiler, a library: each fails in its own way
        why = (str(error).strip().splitlines() or [""])[0]
        return {"error": f"{type(error).__name__}: {why}"}
    finally:
        if bench.device.type == "cuda":
            torch.compiler.reset()
            torch.cuda.empty_cache()


def markdown(name: str, rows: dict[str, Row]) -> str:
    shown = [f"## {name}", "", "| | |", "|---|---|"]
    for task, row in rows.items():
        values = "; ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}".strip()
            for key, value in row.items()
        )
        shown.append(f"| {task} | {values} |")
    return "\n".join(shown)


PAGE = common.ROOT / "docs" / "speed.md"
MARK = "<!-- from bench/gpu.py --docs -->"


def page(out: Path) -> str:
    """The part of docs/speed.md between its marks:

    every row of every part but mini, from the results in `out`, where some are.
    """
    where = (
        json.loads((out / "machine.json").read_text()) if (out / "machine.json").exists() else None
    )
    told = (
        f"{where['chip']}, {where['date'][:10]}; {where['machine']}"
        if where
        else "No GPU has been measured yet."
    )
    shown = [MARK, "", told, ""]
    for part in ("day", "parity", "step", "ladder", "feed"):
        file = out / f"{part}.jsonl"
        rows = dict(map(json.loads, file.read_text().splitlines())) if file.exists() else {}
        tasks = (task for task, _ in PARTS[part](Bench(dry=False)))
        shown += [
            markdown(part, {task: rows.get(task, {"": "not measured"}) for task in tasks}).replace(
                "## ", "### ", 1
            ),
            "",
        ]
    return "\n".join([*shown, MARK])


def no_cuda() -> str:
    """Why there is none:

    no device, a driver that is too old, a torch without CUDA; empty where there is one.
    """
    if torch.cuda.is_available():
        return ""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return "torch.cuda.is_available() is False"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--out", type=Path, default=common.ROOT / "reports" / "gpu")
    parser.add_argument(
        "--seconds", type=float, default=400, help="start no row later than this into a part (400)"
    )
    parser.add_argument("--dry", action="store_true", help="toy size, on a CPU")
    parser.add_argument(
        "--docs", action="store_true", help="measure nothing; write what OUT has into docs/speed.md"
    )
    args = parser.parse_args()
    if args.docs:
        before, _, after = PAGE.read_text().split(MARK)
        PAGE.write_text(before + page(args.out) + after)
        return
    if not args.dry and (why := no_cuda()):
        sys.exit(
            f"bench/gpu.py: no CUDA device here ({why}); install a driver that fits torch, or pass --dry"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(args.dry)
    where = {
        "chip": "CPU, toy size" if args.dry else torch.cuda.get_device_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "machine": common.machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "peak_tflops": bench.peak() / 1e12,
    }
    (args.out / "machine.json").write_text(json.dumps(where, indent=1) + "\n")
    done = [
        run_part(name, bench, args.out, args.seconds)
        for name in (PARTS if args.part == "all" else [args.part])
    ]
    sys.exit(0 if all(done) else 3)  # 3: call again


if __name__ == "__main__":
    main()
