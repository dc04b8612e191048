import json
import shutil
from pathlib import Path

import pytest

from mgm.datasets.published.ssv2 import index_ssv2
from tests.helpers.errors import refused

WEBM = Path(__file__).parents[3] / "shared" / "data" / "clips" / "other"
LABELS = {"Closing something": "1", "Moving something away from the camera": "0"}


def row(name, template) -> dict:
    return {"id": name, "label": template.replace("[something]", "a cup"), "template": template, "placeholders": ["a cup"]}


LISTS = {
    "labels": LABELS,
    "train": [row("41", "Moving [something] away from the camera"), row("50", "Closing [something]"), row("51", "Closing [something]")],
    "validation": [row("5", "Closing [something]")],
}


@pytest.fixture
def ssv2(tmp_path, published):
    """Builds a source of these videos and lists (LISTS, but for those given), with a prefix to the lists' names."""
    video = published("ssv2").index.videos[0].path

    def build(*names: str, folder="labels", prefix="", **lists) -> Path:
        source = tmp_path / "ssv2"
        shutil.rmtree(source, ignore_errors=True)
        for name in names or ("videos/41.mp4", "videos/50.mp4", "videos/5.mp4"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video, source / name)
        (source / folder).mkdir(exist_ok=True)
        for name, value in {**LISTS, **lists}.items():
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value)
                (source / folder / f"{prefix}{name}.json").write_text(text, encoding="utf-8")
        return source

    return build


@pytest.mark.parametrize("folder", ["labels", "."])
@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_lists_of_either_name_are_read(ssv2, tmp_path, folder, prefix):
    source = ssv2(folder=folder, prefix=prefix, test=[{"id": "7"}, {"id": "8"}])
    shutil.copy(source / "videos" / "5.mp4", source / "videos" / "7.mp4")
    index = index_ssv2(source, tmp_path / "out")
    assert index.classes == ("Moving something away from the camera", "Closing something")
    assert {(Path(video.path).name, video.label, video.split) for video in index.videos} == {
        ("41.mp4", 0, "train"), ("50.mp4", 1, "train"), ("5.mp4", 1, "test")
    }  # fmt: skip
    assert index.excluded == ()
    assert "2 of 3 train videos are there, 1 of 1 test videos are there" in index.note
    assert "the lists in the source differ from the official 168,913 train and 24,777 test videos" in index.note
    assert "1 others are in neither split" in index.note
    assert (tmp_path / "out" / "missing.txt").read_text() == "51.webm\n"


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ({"labels": None}, "labels/labels.json: no such file; put labels.json, train.json and validation.json into --source"),
        ({"validation": None}, "labels/validation.json: no such file"),
        ({"labels": ["Closing something"]}, "labels.json: Input should be a valid dictionary"),
        ({"labels": {"a": "0", "b": "2"}}, "labels.json: its 2 classes are not numbered from 0 to 1"),
        ({"labels": {"a": "0", "b": "0"}}, "labels.json: its 2 classes are not numbered"),
        ({"train": '[{"id": "1"'}, "train.json: is not JSON (Expecting ',' delimiter: line 1 column 12 (char 11)), perhaps cut short"),
        ({"train": [7]}, "train.json: 0: Input should be"),
        ({"train": [row("41", "Closing [something]"), {"id": "9"}]}, "train.json: 1.template: Field required"),
        ({"train": [{"id": 41, "template": "Closing [something]"}]}, "train.json: 0.id: Input should be a valid string (got 41)"),
        (
            {"train": [row("41", "Opening [something]")]},
            "train.json: 0: class 'Opening something' is not one of the 2 in labels.json",
        ),
        ({"train": [row("../41", "Closing [something]")]}, "train.json: 0: '../41' is not the plain name of a video"),
        ({"validation": [row("50", "Closing [something]")]}, "validation.json: 0: names 50.webm a second time"),
        ({"train": [], "validation": []}, "name no video"),
    ],
)
def test_lists_that_cannot_be_followed_name_file_and_entry(ssv2, tmp_path, lists, says):
    with refused(says):
        index_ssv2(ssv2(**lists), tmp_path / "out")
    assert not (tmp_path / "out").exists()
