"""Describe a dataset in `croissant.json`, next to its index.

The format is Croissant 1.0 (MLCommons), which dataset searches and loaders read. This module does
not use the package mlcroissant, which takes seconds to import and brings eight packages. The tests
use it to validate the file and to load its records.
"""

import json
from pathlib import Path
from typing import Any

from mgm.data.videos import Index
from mgm.reading import file_digest, read_json
from mgm.results.outputs import write_output

# The description of a set without videos: the columns of index.csv, and the splits.
TEMPLATE = Path(__file__).with_name("croissant_template.json")


def write_croissant(index: Index, out: Path) -> None:
    """Write `out`/croissant.json for an index. Its index.csv must be in `out`.

    The file describes the table of videos, the classes, and the shards if there are any.
    """
    shards = sorted(index.root.glob("*.tar")) if (index.root / "shards.json").is_file() else []
    about = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    about |= {
        "name": out.resolve().name,
        "description": (
            f"{len(index.train):,} training and {len(index.test):,} test videos of "
            f"{len(index.classes)} classes; {index.note}"
        ),
        "identifier": index.digest,
        "distribution": [
            _file(out / "index.csv", "index.csv", "text/csv", file_digest(out / "index.csv")),
            *(
                _file(
                    path,
                    f"shards/{path.name}",
                    "application/x-tar",
                    read_json(path.with_suffix(".json"))["sha256"],
                )
                for path in shards
            ),
        ],
    }
    videos, classes, _ = about["recordSet"]
    classes["data"] = [
        {"classes/label": label, "classes/name": name} for label, name in enumerate(index.classes)
    ]
    if index.several_labels:
        # A cell with several labels is text, and refers to no single class.
        column = next(column for column in videos["field"] if column["name"] == "label")
        column["dataType"] = "sc:Text"
        del column["references"]
    write_output(out / "croissant.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def _file(path: Path, name: str, kind: str, digest: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "encodingFormat": kind,
        "contentSize": f"{path.stat().st_size} B",
        "sha256": digest,
    }
