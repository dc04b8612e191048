"""Two processes that train one run, against one: seconds of the same optimiser steps, on CPUs with
one thread each.

Loading and decoding are part of it, and starting is not: seconds are counted from one line of the
run's log to another. It needs two free cores to say what the processes cost one another; on busy
ones it says what the others leave.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import common
from common import Row, paired

from mgm.data.synthetic.make import generate
from mgm.data.synthetic.params import Synthetic
from mgm.spec import Clips, Data, Decoder, Model, Optim, Pretrain

PARAMS = Synthetic(classes=2, train_per_class=16, test_per_class=2, size=96, frames=32)
WARM = 3  # steps that are not counted
GOAL = 1.6


def spec(steps: int) -> Pretrain:
    return Pretrain(
        data=Data(dataset="ssv2", digest=PARAMS.digest),
        clips=Clips(frames=16, size=96, stride=1, flip=False),
        model=Model(width=192, depth=4, heads=3, patch=16),
        decoder=Decoder(width=96, depth=2, heads=3),
        optim=Optim(batch=16, steps=steps, precision="float32"),
    )


def train(processes: int, steps: int, videos: Path) -> float:
    """Seconds of the run's steps after the first few."""
    with tempfile.TemporaryDirectory() as out:
        run = spec(WARM + steps)
        file = Path(out, "spec.json")
        file.write_text(run.model_dump_json())
        command = ["pretrain", str(file), "--out", out, "--data", f"ssv2={videos}"]
        torchrun = (
            ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            if processes > 1
            else []
        )
        done = subprocess.run(
            [sys.executable, *torchrun, "-m", "mgm", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"mgm pretrain in {processes} processes failed: {done.stderr}")
        times = [
            json.loads(line)["time"]
            for line in Path(out, run.run_id, "log.jsonl").read_text().splitlines()
        ]
        return times[-1] - times[WARM - 1]


def main() -> None:
    parser = common.arguments(__doc__, repeats=3)
    parser.add_argument("--steps", type=int, default=20, help="steps to count, at most 97 (20)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder, "videos")
        generate(PARAMS, videos)

        def run(processes: int) -> float:
            took = train(processes, args.steps, videos)
            print(
                f"{processes} of 1 thread: {took:.2f} s, load {os.getloadavg()[0]:.1f}",
                file=sys.stderr,
                flush=True,
            )
            return took

        def both() -> list[Row]:
            return [
                Row(
                    "mgm pretrain by 2 processes, against 1",
                    *paired(lambda: run(2), lambda: run(1), args.repeats),
                    GOAL,
                    "s",
                )
            ]

        rows = common.measured(
            "ddp", "a minute and a half", {"2 processes against 1": both}, args.json
        )
    common.finish(rows, args.json)


if __name__ == "__main__":
    main()
