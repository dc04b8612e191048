"""Lists and tables: every form that is read, and that none is misread in silence."""

import random
from collections import Counter

import pytest

from mgm.data.lists import UNLABELLED, Row, is_list, read_list, read_names
from mgm.errors import UserError

VIDEOS = ("walk/a 1.mp4", "run/b.AVI", "walk/c, d.webm", "x;y.mkv", "走る/é.mov", 'say "hi".mp4')


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a list, and returns its path."""

    def written(text: str | bytes, name="list.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written


def labels(rows: list[Row]) -> dict[str, str]:
    return {row.path: row.label for row in rows}


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("separator", [" ", ",", ";", "\t", ", "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff", "# a remark\n\n,,\n#\n"])
def test_every_form_of_a_list(written, frames, separator, end, start):
    expected = {video: ("0", "12")[n % 2] for n, video in enumerate(VIDEOS[:-1])}
    lines = [
        separator.join([video, *(["20"] if frames else []), label])
        for video, label in expected.items()
    ]
    rows = read_list(written(start + end.join(lines) + end))
    assert labels(rows) == expected
    assert rows[1].where.endswith(f"line {2 + start.count(chr(10))}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4\nb.mp4\n", [UNLABELLED, UNLABELLED]),
        ("a.mp4 -1\nb.mp4 -1\n", [UNLABELLED, UNLABELLED]),
        ("a.mp4 1.0\nb.mp4 02\n", ["1", "2"]),
        ("deep/a 120 7\ndeep/b 60 8\n", ["7", "8"]),
        ("deep/a,7\ndeep/b,8\n", ["7", "8"]),
        ("my clip 120 7\nclip 2 60 8\n", ["7", "8"]),
    ],
)
def test_labels_of_lists(written, text, expected):
    assert [row.label for row in read_list(written(text))] == expected


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("index", [None, "", "Unnamed: 0"])
def test_every_form_of_a_table(written, separator, index):
    """As pandas and spreadsheets write them."""
    header, rows = ["Group", "path", "frames", "Label", "split"], []
    for n, video in enumerate(VIDEOS):
        rows.append([f"g{n}", video, "12", str(float(n)), ("train", "TEST", "val")[n % 3]])
    if index is not None:
        header, rows = [index, *header], [[str(n), *row] for n, row in enumerate(rows)]
    blank = separator * (len(header) - 1)
    text = "\r\n".join(separator.join(map(quoted, row)) for row in [header, *rows])
    found = read_list(written(f"\ufeff{text}\r\n{blank}\r\n{blank}\r\n"))
    assert [row[:4] for row in found] == [
        (video, str(n), ("train", "test", "val")[n % 3], f"g{n}") for n, video in enumerate(VIDEOS)
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "a.mp4 1\nb.mp4\nc.mp4 1\n",
            "line 2 has 0 numbers after the path, and the first line has 1",
        ),
        ("a.mp4 9 1\nb.mp4 9 1\nc.mp4 9\n", "line 3 has 1 numbers"),
        ("a.mp4 1 2 3\n", "line 1 is not PATH"),
        ("a.mp4 1\nb.mp4 x\n", "line 2 is not PATH.*need a table, path"),
        ("a.mp4,walk\n", "line 1 is not PATH.*need a table, path"),
        ("a.mp4 1\nb.mp4 -1\n", "line 2 has no label, and others have one"),
        ("a.mp4 -2\n", "line 1: has .'-2'., and counts and labels are from 0"),
        ("a.mp4 0.5\n", "line 1 is not PATH"),
        ("a.mp4 9999999999999999999\n", "line 1 is not PATH"),
        ('a.mp4,1,""\n', "line 1 is not PATH"),
        ("a.mp4 x 1\n", "line 1 is not PATH"),
        ("a.mp4 -1 2\n", "line 1: has .'-1', '2'., and counts"),
        ("a.mp4 1 b.mp4 1\n", "line 1 is not PATH"),
        ("#a.mp4 1\n", "line 1 begins with #"),
        ("a.mp4 1\n\n\nword\n", "line 4 is not PATH, PATH LABEL"),
        ('"a.mp4" 1\n', "line 1 is not PATH"),
        ("name,walk\n", "line 1 is not PATH"),
        ("video,action\na.mp4,run\n", "line 1 is not .* the column of the videos is `path`"),
        ("a.mp4 1\nb\x07.mp4 1\n", r"line 2 has U\+0007 \(control character\)"),
        ("a.mp4 1\nb\u200b.mp4 1\n", r"line 2 has U\+200B \(zero width space\)"),
        ("a.mp4 1\nb\tc.mp4 1\n", r"line 2 has U\+0009 \(control character\)"),
        (b"a.mp4 1\n\xff.mp4 1\n", "is not text in UTF-8"),
        ("path,label,names\na.mp4,1,2\n", "line 1: the columns are path,label,names"),
        ("path,label,label\na.mp4,1,2\n", "line 1: the columns are path,label,label"),
        ("path,label\na.mp4,1\n,1\n", "line 3 has no path"),
        ("path,label\na.mp4,1\nb.mp4\n", "line 3 has 1 values, and the first line has 2"),
        ('path,label\n"a.mp4,1\nb.mp4",1\n', "line 2: .*put quotes around whole cells"),
        ("path,split\na.mp4,tset\n", "line 2: split 'tset' is not train, val or test"),
        ("path,split\na.mp4,train\nb.mp4,\n", "line 3 has no split"),
        ("path,label\na.mp4,x\nb.mp4,\n", "line 3 has no label"),
        (",path\n0,a.mp4\nx,b.mp4\n", "line 3: column '' has 'x'"),
    ],
)
def test_what_is_not_understood_is_a_line(written, text, fault):
    path = written(text)
    with pytest.raises(UserError, match=f"{path}: {fault}"):
        read_list(path)


def test_lists_are_known_by_what_they_say(written):
    assert is_list(written("path,label\n"))
    assert is_list(written("some words\nx/y.MP4\n"))
    assert not is_list(written("some words\nof a.mp4x\n"))
    assert is_list(written('{"x/y.mp4": 1}', "labels.json"))
    with pytest.raises(UserError, match="is not text in UTF-8"):
        is_list(written(b"\xff\xfe"))
    assert read_names(written("1 A\r\n2 B c\r\n")) == {"1": "A", "2": "B c"}
    assert read_names(written("A,0\nB,1\n")) == {"0": "A", "1": "B"}
    assert read_names(written("3 points 1\n2 points 2\n")) == {"1": "3 points", "2": "2 points"}
    for text in ("A\nB\n", "1 A\n1 B\n", "run 1\n3 points 2\nwalk\n"):
        assert read_names(written(text)) == {}


# --- Lists that somebody damaged ---


def lists(rng: random.Random) -> tuple[list[str], dict[str, str]]:
    """Return the lines of a valid list, and {path: label}."""
    form = rng.choice(["plain", "frames", "table"])
    separator = rng.choice(",;\t" if form == "table" else " ,;\t")
    names = ("walk", "run", "ride horse") if form == "table" else ("0", "3", "12")
    expected, lines = {}, ["path,label,split".replace(",", separator)] * (form == "table")
    for n in range(rng.randrange(3, 8)):
        path = f"{rng.choice(['a', 'b c', 'd'])}/{n}{rng.choice('xyz')}.mp4"
        expected[path] = label = rng.choice(names)
        cells = {
            "plain": [path, label],
            "frames": [path, str(rng.randrange(10, 99)), label],
            "table": [path, label, rng.choice(["train", "test"])],
        }[form]
        lines.append(separator.join(cells))
    return lines, expected


def damaged(rng: random.Random, lines: list[str], expected: dict[str, str]) -> tuple:
    """Return a kind of damage, the damaged lines, and the paths whose labels it may change.

    Those are of lines whose label has other letters: nobody can see that.
    """
    lines, n = list(lines), rng.randrange(len(lines))
    line, mark = lines[n], rng.choice(" ,;\t")
    kind, at = rng.choice(["letters", "cut", "cell", "again", "join", "break"]), 0
    own = {path for path in expected if path in line}
    if kind in ("letters", "cut", "break"):
        at = rng.randrange(len(line))
    if kind == "letters":
        new = rng.choice(["", *" ,;\t\"'#.-0aé\u00a0\u200b\ufeff\r\x00\x1c\u2028"])
        lines[n] = line[:at] + new + line[at + rng.randrange(2) :]
    elif kind == "cut":
        lines[n:] = [line[:at]]
    elif kind == "cell":
        cells = line.split(mark)
        cells.pop(rng.randrange(len(cells)))
        lines[n] = mark.join(cells)
    elif kind == "again":
        lines.insert(rng.randrange(len(lines)), line)
    elif kind == "join":
        lines[n : n + 2] = ["".join(lines[n : n + 2])]
    else:
        lines[n : n + 1] = [line[:at], line[at:]]
    # The label, which no reader can know.
    place = line.rfind(next((expected[path] for path in own), "\0"))
    inside = kind in ("letters", "cut", "break") and at >= max(place, 1)
    # Of one line that was cut, nobody knows whether its number is of frames.
    return kind, lines, own if inside or (kind == "cut" and n == 0) else set()


def test_500_damaged_lists_change_no_label_in_silence(written):
    """Each is refused, or every path that it still has keeps its label."""
    rng, refused, read, unnamed = random.Random(0), Counter(), Counter(), 0
    for _ in range(500):
        lines, expected = lists(rng)
        kind, lines, free = damaged(rng, lines, expected)
        path = written("\n".join(lines) + "\n")
        try:
            found = labels(read_list(path))
        except UserError as error:
            refused[kind] += 1
            unnamed += str(path) not in str(error)
            continue
        read[kind] += 1
        for name, label in found.items():
            if name in expected and name not in free:
                assert label == expected[name], (kind, lines)
        # A row that is gone is one that was taken away, or has another path.
        gone = {*expected} - {*found}
        assert len(gone) <= 1 or kind in ("cut", "cell"), (kind, lines)
    assert min(refused.total(), read.total()) > 100
    assert not unnamed
