import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.folder import index_folder
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.stages.inspect import inspect_folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Return a folder with two classes of four videos, a broken video and a hidden file."""
    made = generate(
        Synthetic(classes=2, train_per_class=3, test_per_class=1, size=32, frames=12),
        tmp_path_factory.mktemp("made"),
    )
    folder = tmp_path_factory.mktemp("videos")
    for number, video in enumerate(made.videos):
        place = folder / f"class {video.label}"
        place.mkdir(exist_ok=True)
        shutil.copy(video.path, place / f"{number}.mp4")
    (folder / "class 0" / "broken.mp4").write_bytes(b"no video" * 99)
    (folder / ".hidden").write_text("")
    return folder


def test_an_index_tells_what_its_dataset_holds(videos, tmp_path):
    index = index_folder(videos, tmp_path / "index")
    text = inspect_folder(tmp_path / "index", videos=3)
    for part in (
        f"{len(index.train)} train and {len(index.test)} test, of 2 classes, digest {index.digest}",
        "codecs      h264 (8)\n  sizes       32 x 32 (8)\n  vectors     100% of videos have them",
        "decoded     3 videos with vectors, evenly spread",
        "windows     0 of 0 clips",
        "unreadable  1 files:\n    class 0/broken.mp4: cannot be read as a video",
    ):
        assert part in text
    assert "opened" not in text
    assert text.count(" % of textured patches, none in ") == 4


def test_a_folder_without_an_index_is_opened_evenly_spread(videos, tmp_path):
    result = CliRunner().invoke(app, ["inspect", str(videos), "--videos", "3"])
    assert result.exit_code == 0, result.output
    for part in (
        "9 files, without an index",
        "opened      3 of 9, evenly spread",
        "unreadable  0 files",
    ):
        assert part in result.output
    assert "unreadable  1 files:" in inspect_folder(videos)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: "):
        inspect_folder(tmp_path / "empty")


def test_a_files_inspection_takes_no_options_of_folders(videos):
    path = next(videos.rglob("1.mp4"))
    assert "h264, 32 x 32" in CliRunner().invoke(app, ["inspect", str(path)]).output
    result = CliRunner().invoke(app, ["inspect", str(path), "--videos", "3"])
    assert isinstance(result.exception, UserError)
    assert "is not a folder" in str(result.exception)
