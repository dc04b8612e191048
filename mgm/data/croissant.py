"""Describe a dataset in `croissant.json`, next to its index.

The format is Croissant 1.0 (MLCommons), which dataset searches and loaders read. This module does
not use the package mlcroissant, which takes seconds to import and brings eight packages. The tests
use it to validate the file and to load its records.
"""

import json
from pathlib import Path
from typing import Any, get_type_hints

from mgm.data.videos import Index, Video
from mgm.reading import file_digest, read_json
from mgm.results.outputs import write_output

TYPES = {str: "sc:Text", int: "sc:Integer", float: "sc:Float", bool: "sc:Boolean"}
REFERENCES = {"label": "classes/label", "split": "splits/name"}
SPLITS = {"train": "cr:TrainingSplit", "test": "cr:TestSplit"}
# The JSON-LD context that the standard prescribes.
CONTEXT = json.loads(Path(__file__).with_name("croissant_context.json").read_text(encoding="utf-8"))


def write_croissant(index: Index, out: Path) -> None:
    """Write `out`/croissant.json for an index. Its index.csv must be in `out`.

    The file describes the table of videos, the classes, and the shards if there are any.
    """
    columns = [
        _field("videos", name, kind)
        for name, kind in get_type_hints(Video).items()
        if name != "content"
    ]
    for column in columns:
        column["source"] = {
            "fileObject": {"@id": "index.csv"},
            "extract": {"column": column["name"]},
        }
        if column["name"] in REFERENCES:
            column["references"] = {"field": {"@id": REFERENCES[column["name"]]}}
    classes = [
        {"classes/label": label, "classes/name": name} for label, name in enumerate(index.classes)
    ]
    splits = [{"splits/name": name, "splits/url": url} for name, url in SPLITS.items()]
    dataset = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": out.resolve().name,
        "description": (
            f"{len(index.train):,} training and {len(index.test):,} test videos of "
            f"{len(index.classes)} classes; {index.note}"
        ),
        "identifier": index.digest,
        "distribution": [
            _file(out / "index.csv", "index.csv", "text/csv", file_digest(out / "index.csv")),
            *_shards(index.root),
        ],
        "recordSet": [
            _records("videos", columns, key="path"),
            _records(
                "classes",
                [_field("classes", "label", int), _field("classes", "name", str)],
                "label",
                classes,
            ),
            _records(
                "splits",
                [_field("splits", "name", str), _field("splits", "url", str)],
                "name",
                splits,
            )
            | {"dataType": "cr:Split"},
        ],
    }
    write_output(out / "croissant.json", json.dumps(dataset, indent=1, ensure_ascii=False) + "\n")


def _shards(root: Path) -> list[dict[str, Any]]:
    """Return the shards of an index, with the digests from their .json files."""
    shards = []
    for path in sorted(root.glob("*.tar")) if (root / "shards.json").is_file() else ():
        digest = read_json(path.with_suffix(".json"))["sha256"]
        shards.append(_file(path, f"shards/{path.name}", "application/x-tar", digest))
    return shards


def _file(path: Path, name: str, kind: str, digest: str) -> dict[str, Any]:
    fields = {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "encodingFormat": kind,
    }
    return fields | {"contentSize": f"{path.stat().st_size} B", "sha256": digest}


def _records(
    name: str, columns: list[dict[str, Any]], key: str, data: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    fields = {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "key": {"@id": f"{name}/{key}"},
        "field": columns,
    }
    return fields | ({"data": data} if data else {})


def _field(records: str, name: str, kind: type) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": f"{records}/{name}", "name": name, "dataType": TYPES[kind]}
