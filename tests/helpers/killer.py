"""Kill real `mgm` processes at random moments, run them again, and compare their results.

Results must be bit-equal to those of undisturbed runs. The long form (`make chaos`) repeats
pretrain, finetune and probe until there were enough kills:

    python -m tests.helpers.killer [KILLS] [SEED]

A kill's phase is read from the files that it left, not from its aim.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mgm.data.synthetic.generator import generate
from mgm.reading import file_digest
from mgm.results.result import examine, log_lines
from mgm.spec import (
    Augment,
    Decoder,
    Finetune,
    FinetuneOptim,
    Mask,
    Optim,
    Pretrain,
    Probe,
    Spec,
    Views,
)
from tests.helpers.small_runs import PARAMS, SMALL

STEPS, CHECKPOINT_S = 60, 0.05
# Approximate duration of the start, of the end after the weights are written, and of a probe.
START_S, FINISH_S, PROBE_S = 3.0, {"pretrain": 0.05, "finetune": 0.15}, 5.0
OPTIM = {"lr": 0.064, "min_lr": 1e-4, "batch": 4, "steps": STEPS, "precision": "float32"}
VIEWS = Views(temporal=4, spatial=3)
PRETRAIN = Pretrain(
    **SMALL, decoder=Decoder(width=8, depth=1, heads=2), mask=Mask(name="mgm"), optim=Optim(**OPTIM)
)
FINETUNE = Finetune(
    **SMALL,
    parent=PRETRAIN.run_id,
    optim=FinetuneOptim(**OPTIM),
    views=VIEWS,
    drop_path=0.3,
    head_dropout=0.3,
    augment=Augment(rand="rand-m7-n4-mstd0.5-inc1", erasing=0.25, mixup=0.8, cutmix=1.0, repeats=2),
)
PROBE = Probe(**SMALL, parent=PRETRAIN.run_id, views=VIEWS)
SPECS: dict[str, Spec] = {"pretrain": PRETRAIN, "finetune": FINETUNE, "probe": PROBE}


@dataclass(frozen=True)
class Kill:
    """The moment of a kill. `late` means after the start, with a checkpoint to continue from."""

    verb: str
    step: int
    phase: str
    late: bool
    seconds: float

    def __str__(self) -> str:
        return f"{self.verb:9} step {self.step:3} of {STEPS}, after {self.seconds:5.2f} s, {self.phase}{'' if self.late else ' (early)'}"


class Run:
    """A run of `mgm VERB`. It can be started, killed and finished."""

    def __init__(self, verb: str, data: Path, results: Path):
        self.verb, self.spec = verb, SPECS[verb]
        self.folder = results / self.spec.run_id
        self.said = results / f"{verb}.log"
        file = results / f"{verb}.json"
        results.mkdir(parents=True, exist_ok=True)
        file.write_text(self.spec.model_dump_json())
        self.command = [
            str(Path(sys.executable).with_name("mgm")),
            verb,
            str(file),
            "--out",
            str(results),
            "--data",
            f"ssv2={data}",
        ]
        if verb != "probe":
            self.command += ["--checkpoint-s", str(CHECKPOINT_S)]

    def start(self) -> subprocess.Popen:
        with self.said.open("a") as said:
            return subprocess.Popen(self.command, stderr=said)

    def finish(self) -> None:
        status = self.start().wait()
        assert status == 0, f"{self.verb}: ended with {status}: {self.said.read_text()}"

    def kill(self, aim: str, draw: random.Random, later: int) -> Kill | None:
        """Start the run and kill it at a random moment, early enough for `later` more kills.

        Return None if the run ended first.
        """
        started, begun = time.time_ns(), self._step()
        target = min(begun + draw.randint(1, max(1, 2 * (STEPS - begun) // (later + 2))), STEPS)
        process = self.start()

        def until(reached: Callable[[], bool], every: float) -> None:
            while not reached() and process.poll() is None:
                time.sleep(every)

        def fresh(name: str) -> bool:
            return _written(self.folder / name) > started

        def writes_checkpoint() -> bool:
            return fresh(f".{process.pid}.checkpoint.pt")

        if self.verb == "probe":
            time.sleep(draw.uniform(0, PROBE_S))
        elif aim == "start":
            time.sleep(draw.uniform(0, START_S))
        elif aim == "finish":
            until(lambda: fresh("weights.safetensors"), 0.001)
            time.sleep(draw.uniform(0, FINISH_S[self.verb]))
        else:
            until(lambda: fresh("log.jsonl") and self._step() >= target, 0.001)
            if aim == "write":
                until(writes_checkpoint, 0)
            else:
                time.sleep(draw.uniform(0, 0.02))
        process.kill()
        if process.wait() == 0:
            return None
        seconds = (time.time_ns() - started) / 1e9
        if fresh("result.json"):
            phase = "its result written"
        elif fresh("weights.safetensors") or (self.verb == "probe" and fresh("spec.json")):
            phase = "evaluation" if self.verb != "pretrain" else "its weights written"
        elif writes_checkpoint():
            phase = "writing a checkpoint"
        else:
            phase = "training" if fresh("log.jsonl") else "starting"
        late = phase != "starting" and any(
            (self.folder / name).exists() for name in ("checkpoint.pt", "checkpoint.before.pt")
        )
        return Kill(self.verb, self._step(), phase, late, seconds)

    def _step(self) -> int:
        lines = log_lines(self.folder)
        return lines[-1]["step"] if lines else 0

    def outcome(self) -> dict[str, object]:
        """Return all that must be bit-equal, and the names of files that are left over (`rest`)."""
        examined = examine(self.folder, self.spec)
        assert examined.result, f"{self.folder}: {examined}: {self.said.read_text()}"
        numbers = [
            [line[name] for name in ("step", "loss", "lr", "grad_norm")]
            for line in log_lines(self.folder)
        ]
        kept = {
            path.name: file_digest(path)
            for path in self.folder.iterdir()
            if path.name in ("weights.safetensors", "predictions.csv")
        }
        rest = {path.name for path in self.folder.iterdir()} - {
            "log.jsonl",
            "result.json",
            "spec.json",
            *kept,
        }
        return {"metrics": examined.result["metrics"], "log": numbers, "rest": sorted(rest), **kept}


def _written(path: Path) -> int:
    """Return the time of the last change in ns, or 0 if there is no such file."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def disturbed(
    data: Path, results: Path, seed: int, kills: dict[str, int], show: Callable[[str], None]
) -> tuple[list[Kill], dict]:
    """Run the verbs of `kills` in turn. Kill each run several times, and then let it finish.

    Return the kills, and the outcomes by verb.
    """
    draw, hit, outcomes = random.Random(seed), list[Kill](), {}
    for verb, count in kills.items():
        run = Run(verb, data, results)
        aims = (
            [*draw.choices(["start", "train", "write"], [1, 5, 4], k=count - 1), "finish"]
            if count
            else []
        )
        for later, aim in zip(reversed(range(count)), aims):
            if not (kill := run.kill(aim, draw, later)):
                break
            hit.append(kill)
            show(str(kill))
        run.finish()
        outcomes[verb] = run.outcome()
    return hit, outcomes


def verdict(kills: list[Kill]) -> str:
    """Return a table of the number of kills by verb and phase.

    Raises:
        AssertionError: the kills show nothing, since too few had a checkpoint to continue from or
            none hit while a checkpoint was written.
    """
    late, phases = (
        sum(kill.late for kill in kills),
        Counter(f"{kill.verb}: {kill.phase}" for kill in kills),
    )
    table = "\n".join(f"{count:5}  {phase}" for phase, count in sorted(phases.items()))
    assert 3 * late >= len(kills), (
        f"only {late} of {len(kills)} kills came after the first checkpoint\n{table}"
    )
    assert any(kill.phase == "writing a checkpoint" for kill in kills), (
        f"no kill hit while a checkpoint was written\n{table}"
    )
    return f"{table}\n{len(kills):5}  kills, {late} of them after the first checkpoint"


def main(wanted: int = 100, seed: int = 0) -> None:
    started, kills, rounds = time.monotonic(), list[Kill](), 0
    each = {"pretrain": 8, "finetune": 8, "probe": 2}
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        folder = Path(scratch)
        generate(PARAMS, folder / "ssv2")
        _, whole = disturbed(folder / "ssv2", folder / "whole", seed, dict.fromkeys(each, 0), print)
        while len(kills) < wanted:
            futures = []
            for _ in range(2):
                rounds += 1
                here = folder / str(rounds)
                futures.append(
                    pool.submit(
                        disturbed,
                        folder / "ssv2",
                        here,
                        seed + rounds,
                        each,
                        lambda line: print(line, flush=True),
                    )
                )
            for future in futures:
                hit, outcomes = future.result()
                kills += hit
                for verb, outcome in outcomes.items():
                    assert outcome == whole[verb], (
                        f"{verb}: {json.dumps(outcome)} is not {json.dumps(whole[verb])}"
                    )
    print(verdict(kills))
    seconds = time.monotonic() - started
    print(
        f"chaos: {rounds} rounds of {', '.join(each)} in {seconds:.0f} s; weights, logs and results bit-equal to undisturbed ones"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
