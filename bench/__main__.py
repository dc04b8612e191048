"""Compare loading and a step with peers: `make bench`. Each bench takes a few minutes."""

import argparse
import os
from pathlib import Path

import goals
import papers
import peers
import torch
from measuring import ROOT, compared, lend_ffmpeg, machine

BENCHES = {"loader": peers.loader, "step": peers.step, "papers": papers.papers}
GOALS = "goals"
HEAD = ["| | ours | peer | ratio | goal | |", "|---|---|---|---|---|---|"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join([*BENCHES, GOALS])} (all)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench")
    parser.add_argument("--repeats", type=int, default=3, help="turns to measure (3)")
    args = parser.parse_args()
    if unknown := set(args.names) - BENCHES.keys() - {GOALS}:
        parser.error(f"no such bench: {min(unknown)}; choose from {', '.join([*BENCHES, GOALS])}")
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or [*BENCHES, GOALS]:
        print(f"{name}: some minutes on idle cores (load is {os.getloadavg()[0]:.1f} now)")
        rows = list(HEAD)
        if name == GOALS:
            rows += goals.goals(args.repeats)
        for comparison in BENCHES[name](args.repeats) if name in BENCHES else ():
            rows += compared(comparison)
            print("\n".join(rows[-len(comparison.peers) :]), flush=True)
        (args.out / f"{name}.md").write_text("\n".join([*rows, "", machine(), ""]))


if __name__ == "__main__":
    lend_ffmpeg()
    main()
