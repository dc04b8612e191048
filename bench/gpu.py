"""Measure on a GPU: `make gpu`. Each part takes at most 8 minutes; a later call continues it.

    --part day        a step of each stage of the study day in both sizes, and its loader
    --part parity     masks, model, gradients and a step, compared with the CPU
    --part step       clips/s, memory, share of the peak; compiled or not; next to transformers
    --part ladder     memory and speed by batch size; recomputation, micro-batches
    --part feed       share of time in which the GPU computes, by number of workers
    --part mini       as much of scale mini as fits in 7 minutes

A measured row is written to OUT/PART.jsonl and not measured again. If a measurement cannot run
(too little memory, a missing compiler), its row has the reason. `mgm plan` reads OUT, and `--docs`
writes it into docs/speed.md. `--dry` runs every part at toy size on a CPU.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import ROOT, machine
from peers import frames, hugging_face
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from mgm.data.shards import Settings, write_shards
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.masking import Grid, SlotMotion, make_mask
from mgm.models import build_classifier, build_mae, reconstruction_loss
from mgm.spec import MASKS, Clips, Data, Decoder, Finetune, Mask, Model, Pretrain
from mgm.spec.compute import multiply_adds
from mgm.stages.measure.step_time import step_seconds
from mgm.stages.pretrain import masks_of
from mgm.study import STUDIES
from mgm.study.recipes import DECODERS, MODELS
from mgm.study.runs import load_study, scale_of, study_registry
from mgm.training import mix
from mgm.training.efficiency import block_compiler, recomputed, wrapped_blocks
from mgm.training.optim import build_optimiser
from mgm.video import training_loader
from mgm.video.loader import WITH_MOTION

NAMES = {"ViT-B": "vit-b", "ViT-S": "vit-s", "ViT-L": "vit-l"}  # the paper's model first
TOY = Model(backbone="toy", width=64, depth=2, heads=2), Decoder(width=32, depth=1, heads=2)
Row = dict[str, Any]
Task = tuple[str, Callable[[], Row]]  # the name of a row, and the function that measures it


@dataclass(frozen=True)
class Bench:
    """The device and the sizes: the GPU at the paper's sizes, or a CPU at toy size (`dry`)."""

    dry: bool
    peak: float = 0.0  # FLOP/s of a large matrix product in bf16 on this chip

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.dry else "cuda")

    @property
    def sizes(self) -> list[str]:
        return ["toy"] if self.dry else list(NAMES)

    def spec(self, kind: type, size: str, ratio: float = 0.75) -> Any:
        clips = Clips(frames=4, size=64) if self.dry else Clips()
        model, decoder = TOY if self.dry else (MODELS[NAMES[size]], DECODERS[NAMES[size]])
        spec = kind(data=Data(dataset="folder"), clips=clips, model=model)
        more = {"decoder": decoder, "mask": Mask(name="tube", ratio=ratio)}
        return spec.model_copy(update=more) if kind is Pretrain else spec


def measured_peak(bench: Bench) -> float:
    n = 256 if bench.dry else 8192
    a, b = (torch.randn(n, n, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    timer = Timer("a @ b", globals={"a": a, "b": b})
    return 2 * n**3 / min(timer.blocked_autorange(min_run_time=0.1 if bench.dry else 1).times)


def timed(bench: Bench, spec: Any, clips: int, optimiser: Any, loss: Callable[[], Tensor]) -> Row:
    """Return clips/s, peak memory, and the counted FLOP/s as a share of the chip's peak."""
    if not bench.dry:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    work = partial(step_seconds, optimiser, loss, bench.device, bf16=not bench.dry)
    # Warm up: PyTorch chooses kernels and allocates memory.
    for _ in range(2 if bench.dry else 10):
        work()
    found = Timer("work()", globals={"work": work}).blocked_autorange(
        min_run_time=0.01 if bench.dry else 2.0
    )
    rate = clips / found.median
    memory = 0.0 if bench.dry else torch.cuda.max_memory_allocated() / 1e9
    share = 6 * multiply_adds(spec) * rate / bench.peak
    return {"clips_per_s": rate, "memory_gb": memory, "mfu": share}


def ours(bench: Bench, spec: Any, clips: int, how: str = "eager", parts: int = 1) -> Row:
    """Time a step on `clips` clips in `parts` micro-batches.

    Args:
        how: eager, compile or recompute.
    """
    wraps: list[Any] = [recomputed] if how == "recompute" else []
    said = list[str]()
    if how == "compile":
        if not (compiler := block_compiler("on", bench.device, said.append)):
            raise RuntimeError(said[0])
        wraps = [compiler]
    own = max(1, clips // parts)
    frames_BTHWC = frames(spec, own, bench.device)
    seed_B, weight_B = torch.arange(own, device=bench.device), torch.ones(own, device=bench.device)
    pretrains = isinstance(spec, Pretrain)
    model = (build_mae(spec) if pretrains else build_classifier(spec, 400)).to(bench.device).train()
    if pretrains:
        # In training, masks come with the clips.
        mask = Mask(name="tube", ratio=spec.mask.ratio)
        masked_BL = make_mask(mask, Grid(*spec.grid), None, seed_B)

    def loss() -> Tensor:
        if not pretrains:
            return nn.functional.cross_entropy(model(frames_BTHWC), seed_B % 400) / parts
        return reconstruction_loss(*model(frames_BTHWC, masked_BL), weight_B) / parts

    def in_parts() -> Tensor:
        for _ in range(parts - 1):
            loss().backward()
        return loss()

    with wrapped_blocks(model, *wraps):
        return timed(bench, spec, own * parts, build_optimiser(model, spec.optim), in_parts)


def theirs(bench: Bench, spec: Pretrain, clips: int, attention: str) -> Row:
    frames_BTHWC = frames(spec, clips, bench.device)
    seed_B = torch.arange(clips, device=bench.device)
    masked_BL = make_mask(spec.mask, Grid(*spec.grid), None, seed_B)
    return timed(bench, spec, clips, *hugging_face(spec, attention, frames_BTHWC, masked_BL))


def step(bench: Bench) -> Iterator[Task]:
    clips = 2 if bench.dry else 64
    for size in bench.sizes:
        for ratio in (0.75, 0.9):
            spec, name = bench.spec(Pretrain, size, ratio), f"{size}, pretraining at {ratio:g}"
            for how in ("eager", "compile"):
                # This one would take a minute on a CPU.
                if not (bench.dry and how == "compile" and ratio == 0.9):
                    yield f"{name}, ours {how}", partial(ours, bench, spec, clips, how)
            for attention in ("eager", "sdpa") if size == bench.sizes[0] else ():
                work = partial(theirs, bench, spec, clips, attention)
                yield f"{name}, transformers {attention}", work
        spec = bench.spec(Finetune, size)
        yield f"{size}, finetuning, ours", partial(ours, bench, spec, max(2, clips // 4))


def ladder(bench: Bench) -> Iterator[Task]:
    spec = bench.spec(Pretrain, bench.sizes[0])
    for clips in (2, 4) if bench.dry else (16, 32, 64, 128, 256, 512):
        name = f"{bench.sizes[0]} at 0.75, batch {clips}"
        yield name, partial(ours, bench, spec, clips)
        yield f"{name}, recomputing", partial(ours, bench, spec, clips, "recompute")
        yield f"{name}, in 2 parts", partial(ours, bench, spec, clips, parts=2)


def day(bench: Bench) -> Iterator[Task]:
    """Measure a step of each stage and the loader, in both sizes of the study day."""
    for size in ("rehearsal",) if bench.dry else ("24gb", "80gb"):
        study = load_study(STUDIES / "day.yaml").without_absent(())
        specs = study_registry(scale_of(study, size=size)).specs.values()
        for kind, name in ((Pretrain, "pretraining"), (Finetune, "fine-tuning")):
            spec = next(spec for spec in specs if isinstance(spec, kind))
            yield f"day, {size}: a {name} step", partial(day_step, bench, spec)
        spec = next(spec for spec in specs if isinstance(spec, Pretrain))
        yield f"day, {size}: the loader", partial(loaded, bench, spec)


def day_step(bench: Bench, spec: Pretrain | Finetune) -> Row:
    """Time a step in as few micro-batches as the memory allows."""
    clips = spec.optim.batch * (spec.augment.repeats if isinstance(spec, Finetune) else 1)
    for parts in (1, 2, 4, 8, 16):
        try:
            how = "eager" if bench.dry else "compile"
            return {"parts": parts} | ours(bench, spec, clips, how, parts)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    raise RuntimeError(f"a batch of {clips} does not fit, not even in 16 parts")


def loaded(bench: Bench, spec: Pretrain) -> Row:
    """Read batches of drawn videos of 256 x 256 (H.264), with motion vectors."""
    workers = 0 if bench.dry else os.cpu_count() or 1
    rounds = 1 if bench.dry else 40
    with batches(spec, workers, min(spec.optim.batch, 16)) as found:
        # Wait until the workers have started.
        next(found)
        started = time.perf_counter()
        read = sum(len(next(found).seed_B) for _ in range(rounds))
        took = time.perf_counter() - started
    return {"videos_per_s": read / took, "cores": float(max(workers, 1))}


@contextmanager
def batches(spec: Pretrain, workers: int, batch: int, shards: bool = False) -> Iterator[Any]:
    """Yield the training loader's batches of drawn videos, from files or from shards."""
    params = Synthetic(classes=2, train_per_class=8, test_per_class=1, size=256, frames=96)
    with tempfile.TemporaryDirectory() as folder:
        index = generate(params, Path(folder, "drawn"))
        if shards:
            index = write_shards(index, Path(folder, "shards"), Settings())
        masks = partial(masks_of, spec.mask, Grid(*spec.grid), spec.hidden)
        how = replace(WITH_MOTION, workers=workers, masks=masks)
        yield training_loader(index.train, spec.clips, spec.model.tubelet, 0, batch, how=how)


def feed(bench: Bench) -> Iterator[Task]:
    for workers in (1,) if bench.dry else (4, 8, 16):
        for source in ("shards", "files"):
            yield f"{workers} workers, from {source}", partial(fed, bench, workers, source)


def fed(bench: Bench, workers: int, source: str) -> Row:
    """Return the share of time in which steps of a ViT-B run, with batches from `workers`."""
    spec, clips = bench.spec(Pretrain, bench.sizes[0], 0.9), 2 if bench.dry else 64
    model = build_mae(spec).to(bench.device).train()
    optimiser, rounds = build_optimiser(model, spec.optim), 3 if bench.dry else 40

    def stepping(batch: Any) -> float:
        started = time.perf_counter()
        batch = batch.map(lambda x: x.to(bench.device, non_blocking=True))
        shown = partial(model, batch.frames_BTHWC, batch.masked_BL)
        loss = lambda: reconstruction_loss(*shown(), batch.weight_B)  # noqa: E731
        step_seconds(optimiser, loss, bench.device, bf16=not bench.dry)
        return time.perf_counter() - started

    with batches(spec, workers, clips, source == "shards") as found:
        # Use up the batches that were loaded in advance.
        for batch in itertools.islice(found, 3 * workers):
            stepping(batch)
        started = time.perf_counter()
        busy = sum(stepping(batch) for batch in itertools.islice(found, rounds))
        return {"busy_percent": 100 * busy / (time.perf_counter() - started)}


def bounded(bounds: dict[str, float], **values: float) -> Row:
    """Return the values, and whether each is within its bound."""
    holds = all(values[name] <= bound for name, bound in bounds.items())
    return values | {"bounds": bounds, "holds": holds}


def parity(bench: Bench) -> Iterator[Task]:
    for name in MASKS:
        said = f"mask {name}: share of tokens that differ from the CPU's"
        yield said, partial(mask_difference, bench, name)
    for precision in ("float32", "bf16"):
        said = (
            f"{bench.sizes[0]}, {precision}: loss, gradients, one step against the CPU in float32"
        )
        yield said, partial(model_difference, bench, precision)
    yield "ten steps without a wait for the device", partial(steps_without_waiting, bench)


def mask_difference(bench: Bench, name: str) -> Row:
    grid, noise = Grid(8, 14, 14), torch.Generator().manual_seed(0)
    shift_BSHW2 = 4 * torch.rand(64, 8, 28, 28, 2, generator=noise) - 2

    def mask(device: torch.device) -> Tensor:
        motion = SlotMotion(shift_BSHW2.norm(dim=-1).to(device), shift_BSHW2.to(device))
        return make_mask(name, grid, motion, torch.arange(64).to(device)).cpu()

    differ = mask(torch.device("cpu")) != mask(bench.device)
    return bounded({"differ": 0.0}, differ=differ.float().mean().item())


def model_difference(bench: Bench, precision: str) -> Row:
    """Return relative differences.

    float32 differs by the order of sums through 24 blocks' products (TF32 is off); bf16 has 8 bits.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    spec, found = bench.spec(Pretrain, bench.sizes[0]), []
    for device, bf16 in ((torch.device("cpu"), False), (bench.device, precision == "bf16")):
        model = build_mae(spec).to(device).train()
        optimiser = build_optimiser(model, spec.optim)
        masked_BL = make_mask("tube", Grid(*spec.grid), None, torch.arange(2, device=device))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            shown = model(frames(spec, 2, device), masked_BL)
            loss = reconstruction_loss(*shown, torch.ones(2, device=device))
        loss.backward()
        moved = [parameter for parameter in model.parameters() if parameter.grad is not None]
        gradient = torch.cat([parameter.grad.flatten() for parameter in moved]).double().cpu()
        before = torch.cat([parameter.detach().flatten() for parameter in moved]).cpu()
        optimiser.step()
        after = torch.cat([parameter.detach().flatten() for parameter in moved]).cpu()
        found.append((loss.item(), gradient, after - before))
    (loss, gradient, moved), (loss_2, gradient_2, moved_2) = found
    values = {
        "loss": abs(loss_2 / loss - 1),
        "gradient": ((gradient_2 - gradient).norm() / gradient.norm()).item(),
        "step": ((moved_2 - moved).norm() / moved.norm()).item(),
    }
    # Adam's first step is the sign of a gradient, so the smallest gradients decide its difference.
    exact = {"loss": 1e-5, "gradient": 1e-3, "step": 0.05}
    return bounded(exact if precision == "float32" else {"loss": 1e-2, "gradient": 0.1}, **values)


def steps_without_waiting(bench: Bench) -> Row:
    """Run ten steps with Mixup. A wait for the device is an error that names it."""
    spec, batch = bench.spec(Pretrain, bench.sizes[0]), 8
    model = build_mae(spec).to(bench.device).train()
    optimiser = build_optimiser(model, spec.optim)
    seed_B = torch.arange(batch, device=bench.device)
    masked_BL = make_mask(spec.mask, Grid(*spec.grid), None, seed_B)
    frames_BTHWC, weight_B = frames(spec, batch, bench.device), torch.ones(batch)
    on_device_B = weight_B.to(bench.device)

    def one_step() -> None:
        draws = np.random.default_rng(0)
        mixed, _ = mix(frames_BTHWC, seed_B % 4, weight_B, 4, 0.8, 1.0, draws)
        optimiser.zero_grad()
        reconstruction_loss(*model(mixed, masked_BL), on_device_B).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    one_step()
    watched = torch.cuda.set_sync_debug_mode if not bench.dry else lambda mode: None
    watched("error")
    try:
        for _ in range(10):
            one_step()
    finally:
        watched("default")
    return {"holds": True}


def mini(bench: Bench) -> Iterator[Task]:
    yield "a part of mini's Table 4e", partial(part_of_mini, bench)


def part_of_mini(bench: Bench) -> Row:
    """Run mini's Table 4e for seven minutes; the next call continues."""
    cores = str(os.cpu_count())
    words = ["snakemake", *(["-n"] if bench.dry else []), "--cores", cores]
    words += ["--config", "scale=mini", "--", "table4e"]
    started = time.monotonic()
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    command = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
    process = subprocess.Popen(command, cwd=ROOT, **silent)
    try:
        _, said = process.communicate(timeout=420)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate()
        done = len(list((ROOT / "results" / "mini").glob("*/result.json")))
        return {"runs_done": done, "seconds": time.monotonic() - started, "again": True}
    if process.returncode:
        raise RuntimeError(said.strip().rpartition("\n")[2] or f"status {process.returncode}")
    return {"seconds": time.monotonic() - started}


PARTS = {part.__name__: part for part in (day, parity, step, ladder, feed, mini)}


def run_part(name: str, bench: Bench, out: Path, seconds: float) -> bool:
    """Measure the rows that OUT lacks, and return whether all are there.

    No row starts later than `seconds`.
    """
    lines, tasks = out / f"{name}.jsonl", list(PARTS[name](bench))
    rows = dict(map(json.loads, lines.read_text().splitlines())) if lines.exists() else {}
    missing = [task for task in tasks if rows.get(task[0], {"again": True}).get("again")]
    print(f"{name}: {len(missing)} of {len(tasks)} rows to measure, at most 8 minutes a call")
    started = time.monotonic()
    for number, (task, work) in enumerate(missing, 1):
        if time.monotonic() - started > seconds:
            print(f"{name}: call again for the other {len(missing) - number + 1} rows")
            return False
        print(f"{number} of {len(missing)}: {task} ...", flush=True)
        rows[task] = tried(bench, work)
        with lines.open("a") as file:
            file.write(json.dumps([task, rows[task]]) + "\n")
    print(markdown(name, rows), flush=True)
    return not any(row.get("again") for row in rows.values())


def tried(bench: Bench, work: Callable[[], Row]) -> Row:
    """Return its row; of what cannot run here, one that says why."""
    try:
        return work()
    except Exception as error:  # memory, a compiler, a library: each fails in its own way
        why = (str(error).strip().splitlines() or [""])[0]
        return {"error": f"{type(error).__name__}: {why}"}
    finally:
        torch.compiler.reset()
        if not bench.dry:
            torch.cuda.empty_cache()


def markdown(name: str, rows: dict[str, Row]) -> str:
    shown = [f"### {name}", "", "| | |", "|---|---|"]
    for task, row in rows.items():
        values = (
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()
        )
        shown.append(f"| {task} | {'; '.join(values)} |")
    return "\n".join(shown)


PAGE, MARK = ROOT / "docs" / "speed.md", "<!-- from bench/gpu.py --docs -->"


def page(out: Path) -> str:
    """Return the part of docs/speed.md between its marks: what was measured, from `out`."""
    about = out / "machine.json"
    where = json.loads(about.read_text()) if about.exists() else None
    told = "No GPU has been measured yet."
    if where:
        told = f"{where['chip']}, {where['date'][:10]}; {where['machine']}"
    shown = [MARK, "", told, ""]
    for part in ("day", "parity", "step", "ladder", "feed"):
        if (file := out / f"{part}.jsonl").exists():
            rows = dict(map(json.loads, file.read_text().splitlines()))
            shown += [markdown(part, rows), ""]
    return "\n".join([*shown, MARK])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "gpu")
    parser.add_argument("--seconds", type=float, default=400, help="no row starts later (400)")
    parser.add_argument("--dry", action="store_true", help="toy size, on a CPU")
    parser.add_argument("--docs", action="store_true", help="only write OUT into docs/speed.md")
    args = parser.parse_args()
    if args.docs:
        before, _, after = PAGE.read_text().split(MARK)
        PAGE.write_text(before + page(args.out) + after)
        return
    if not args.dry and not torch.cuda.is_available():
        sys.exit("bench/gpu.py: no CUDA device; install a driver that fits torch, or pass --dry")
    args.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(args.dry, measured_peak(Bench(args.dry)))
    where = {
        "chip": "CPU, toy size" if args.dry else torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "machine": machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "peak_tflops": bench.peak / 1e12,
    }
    (args.out / "machine.json").write_text(json.dumps(where, indent=1) + "\n")
    names = PARTS if args.part == "all" else [args.part]
    done = [run_part(name, bench, args.out, args.seconds) for name in names]
    sys.exit(0 if all(done) else 3)  # 3: call again


if __name__ == "__main__":
    main()
