"""Something-Something v2 (Goyal et al., 2017) in its official layout becomes an index.

    SOURCE/labels/{labels,train,validation[,test]}.json, or in SOURCE; formerly named
    something-something-v2-NAME.json SOURCE/.../ID.webm                              VP9, which
    gives no motion vectors; or ID.mp4, re-encoded, which is then used instead

labels.json numbers the classes; an entry's class is its template without the brackets around
[something]. Our test split is the validation split, as everyone's: the test split's labels are not
public, so its videos (test.json) are left aside.
"""

from pathlib import Path

from pydantic import BaseModel

from mgm.data.index import Index
from mgm.data.published import PUBLISHED
from mgm.data.published.listed import (
    Entry,
    Lists,
    add,
    find_videos,
    index_listed,
    plain_name,
    read_json,
)
from mgm.errors import UserError

_SPLITS = {"train": "train", "test": "validation"}
_INSTEAD = "put labels.json, train.json and validation.json into --source or a folder labels in it"


class Ssv2Row(BaseModel):
    id: str
    template: str


class TestRow(BaseModel):
    id: str


def index_ssv2(source: Path, out: Path) -> Index:
    found = find_videos(source, lambda _, name: name)
    return index_listed(
        found, read_lists(source), out, "Something-Something v2", PUBLISHED["ssv2"].official
    )


def read_lists(source: Path) -> Lists:
    """What the lists in a source say, by id.

    Raises:
        UserError: a file is missing, or an entry cannot be followed; the file and the entry are
            named.
    """
    path = list_file(source, "labels")
    numbers = read_json(path, dict[str, str], _INSTEAD)
    if sorted(numbers.values(), key=lambda text: (len(text), text)) != [
        str(label) for label in range(len(numbers))
    ]:
        raise UserError(
            f"{path}: its {len(numbers)} classes are not numbered from 0 to {len(numbers) - 1}; download it again"
        )
    label_of = {name: int(number) for name, number in numbers.items()}
    entries: dict[str, Entry] = {}
    for split, official in _SPLITS.items():
        listed = list_file(source, official)
        for number, row in enumerate(read_json(listed, list[Ssv2Row], _INSTEAD)):
            where, name = f"{listed}: {number}", row.template.replace("[", "").replace("]", "")
            if name not in label_of:
                raise UserError(
                    f"{where}: class {name!r} is not one of the {len(label_of)} in {path.name}; correct one"
                )
            video = plain_name(where, row.id)
            add(entries, video, Entry(f"{video}.webm", label_of[name], split, video), where)
    if not entries:
        raise UserError(f"{path.parent}: its lists name no video; download them again")
    unused, test = frozenset[str](), list_file(source, "test")
    if test.is_file():
        unused = frozenset(row.id for row in read_json(test, list[TestRow], _INSTEAD))
    return Lists(
        tuple(sorted(label_of, key=label_of.__getitem__)), entries, unused - entries.keys()
    )


def list_file(source: Path, name: str) -> Path:
    """Find where a list is, or by its present name where it should be."""
    places = [
        folder / f"{prefix}{name}.json"
        for folder in (source / "labels", source)
        for prefix in ("", "something-something-v2-")
    ]
    return next((path for path in places if path.is_file()), places[0])
