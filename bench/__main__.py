"""Compare masks, loading and a step with peers: `make bench`.

Each bench takes a few minutes. It prints its rows, and writes its table at the end. A later call at
the same commit continues with the first bench without a table.
"""

import argparse
import os
import sys
from pathlib import Path

import peers
import torch
from measuring import ROOT, commit, compared, lend_ffmpeg, machine

BENCHES = {
    "masks": peers.masks,
    "vectors": peers.vectors,
    "loader": peers.loader,
    "step": peers.step,
}
HEAD = ["| | ours | peer | ratio | goal | |", "|---|---|---|---|---|---|"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)} (all)")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench")
    parser.add_argument("--repeats", type=int, default=3, help="turns to measure (3)")
    parser.add_argument(
        "--videos", type=Path, help="a folder per class, to load (drawn: like K400's)"
    )
    args = parser.parse_args()
    if unknown := set(args.names) - BENCHES.keys():
        sys.exit(f"bench {min(unknown)}: no such bench; choose from {', '.join(BENCHES)}")
    torch.set_num_threads(1)
    chosen = peers.Options(args.repeats, args.videos)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or BENCHES:
        file = args.out / f"{name}.md"
        # A bench that is asked for by name is measured again.
        if not args.names and file.exists() and file.read_text().endswith(f"commit {commit()}\n"):
            print(f"{name}: measured at this commit, see {file}")
            continue
        print(f"{name}: some minutes on idle cores (load is {os.getloadavg()[0]:.1f} now)")
        rows = list(HEAD)
        for comparison in BENCHES[name](chosen):
            rows += compared(comparison)
            print("\n".join(rows[-len(comparison.peers) :]), flush=True)
        file.write_text("\n".join([*rows, "", machine(), ""]), encoding="utf-8")
        print(f"wrote {file}")


if __name__ == "__main__":
    lend_ffmpeg()
    main()
