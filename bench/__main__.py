"""Masks, loading and a step against peers: `make bench`. Rows are printed as they come."""

import argparse
import os
import sys
from pathlib import Path

import peers
import torch
from measuring import ROOT, compared, machine

BENCHES = {  # what it compares, and its minutes on two idle cores
    "masks": (peers.masks, 0.5),
    "loader": (peers.loader, 3),
    "step": (peers.step, 4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)} (all)")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench")
    parser.add_argument("--repeats", type=int, default=3, help="turns to measure (3)")
    parser.add_argument("--videos", type=Path, help="a folder per class, to load (drawn ones)")
    args = parser.parse_args()
    if unknown := set(args.names) - BENCHES.keys():
        sys.exit(f"bench {min(unknown)}: no such bench; choose from {', '.join(BENCHES)}")
    names = args.names or list(BENCHES)
    minutes = sum(BENCHES[name][1] for name in names)
    print(f"about {minutes:g} minutes on two idle cores (load is {os.getloadavg()[0]:.1f} now)")
    torch.set_num_threads(1)
    chosen = peers.Options(args.repeats, args.videos)
    rows = ["| | ours | peer | ratio | goal | |", "|---|---|---|---|---|---|"]
    for comparison in (one for name in names for one in BENCHES[name][0](chosen)):
        rows += compared(comparison)
        print("\n".join(rows[-len(comparison.peers) :]), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench.md").write_text("\n".join([*rows, "", machine(), ""]), encoding="utf-8")
    print(f"wrote {args.out / 'bench.md'}")


if __name__ == "__main__":
    main()
