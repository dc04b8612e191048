"""All benches, one after another, and one table of them: `make bench`, or `python bench OUT`. After
an interruption it goes on with the row it was at."""

import json
import subprocess
import sys
from pathlib import Path

import common

BENCHES = {  # its minutes on two idle cores, and its options here
    "masks": (0.5, []),
    "loader": (1.5, ["--repeats", "3", "--most", "2"]),
    "transcode": (2.5, ["--repeats", "3", "--most", "2"]),
    "step": (5, []),
    "feed": (1, []),
    "start": (1, []),
    "ddp": (1.5, []),
}


def main(out: Path) -> None:
    done = out / "parts"
    print(
        f"{len(BENCHES)} benches, about {sum(minutes for minutes, _ in BENCHES.values()):.0f} minutes on two idle cores",
        flush=True,
    )
    for name, (minutes, options) in BENCHES.items():
        if not (file := done / f"{name}.json").exists():
            print(f"\n{name}: about {minutes:g} minutes", flush=True)
            subprocess.run(
                [sys.executable, Path(__file__).with_name(f"{name}.py"), "--json", file, *options],
                check=True,
            )
    rows = [
        common.Row(**row)
        for name in BENCHES
        for row in json.loads((done / f"{name}.json").read_text())
    ]
    common.finish(rows, out / "bench.json")
    (out / "bench.md").write_text(f"{common.table(rows)}\n\n{common.machine()}\n", encoding="utf-8")
    for name in BENCHES:
        (done / f"{name}.json").unlink()
    print(f"wrote {out / 'bench.md'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else common.ROOT / "reports" / "bench")
