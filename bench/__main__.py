"""All benches, one after another, and one table of them: `make bench`, or `python bench OUT`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import common


def main(out: Path) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("masks", "loader", "transcode", "step", "feed", "start", "ddp"):
            file = Path(folder, f"{name}.json")
            subprocess.run([sys.executable, Path(__file__).with_name(f"{name}.py"), "--json", file], check=True)
            rows += [common.Row(**row) for row in json.loads(file.read_text())]
    common.finish(rows, out / "bench.json")
    (out / "bench.md").write_text(f"{common.table(rows)}\n\n{common.machine()}\n", encoding="utf-8")
    print(f"wrote {out / 'bench.md'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else common.ROOT / "reports" / "bench")
