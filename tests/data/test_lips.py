"""`studies/lips.py`: word clips of a clone, with the vectors of the original."""

import importlib.util
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

import mgm
from mgm.data.index import read_index
from mgm.errors import UserError
from mgm.video.store import read_clips
from mgm.video.track import Track

CLIPS = ("bbaf1n", "bbaf2n", "bbaf1s", "bbaf2s", "bbaf1p", "bbaf2p")
ROWS = "name,fold,commands,colours,letters,digits,why\n"


def git(folder, *words):
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, check=True)
    return done.stdout.decode().strip()


def write_mpeg1(path, seed):
    """Write 40 pictures in which texture moves, as MPEG-1 with a key frame every 12."""
    ground = np.random.default_rng(seed).integers(100, 150, (36, 45, 3), np.uint8)
    ground = ground.repeat(10, 0).repeat(10, 1)
    with av.open(str(path), "w", format="mpeg") as container:
        stream = container.add_stream("mpeg1video", rate=25, options={"g": "12", "bf": "0"})
        stream.width, stream.height, stream.bit_rate = 360, 288, 2_000_000
        for number in range(40):
            picture = np.roll(ground, (2 * number, 3 * number), (0, 1))[:288, :360]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone")
    (folder / "data/s1").mkdir(parents=True)
    for seed, name in enumerate(CLIPS):
        write_mpeg1(folder / f"data/s1/{name}.mpg", seed)
    (folder / "data/s1/bbaf3s.mpg").write_bytes(b"no video" * 100)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "clips")
    return folder


@pytest.fixture
def lips(clone, tmp_path, monkeypatch):
    """Return the program, for this clone and a list of its clips and three that it cannot use."""
    path = Path(__file__).parents[2] / "studies/lips.py"
    spec = importlib.util.spec_from_file_location("lips", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    words = "1-2,1-2,1-2"
    rows = [f"{name},{n},{words},14.25-{20 + n},\n" for n, name in enumerate(CLIPS)]
    rows += ["bbaf3s,0,1-2,1-2,1-2,14-20,\n", "bbaf4p,0,1-2,1-2,1-2,14-20,\n", "aa00,,,,,,is odd\n"]
    (tmp_path / "lips.csv").write_text("# head\n" + ROWS + "".join(rows))
    monkeypatch.setattr(program, "LIST", tmp_path / "lips.csv")
    monkeypatch.setattr(program, "COMMIT", git(clone, "rev-parse", "HEAD"))
    return program


def test_word_clips_have_the_vectors_and_pixels_of_the_original(lips, clone, tmp_path, capsys):
    lips.main(str(clone), data=str(tmp_path))
    said = capsys.readouterr().out
    assert "3 of 9 clips are left out" in said
    assert "aa00: is odd" in said
    assert "bbaf4p: is not in the clone" in said
    assert "bbaf3s: cannot be read as a video" in said
    tested = []
    for fold in range(lips.FOLDS):
        index = read_index(tmp_path / f"lips-{fold}")
        assert len(index.videos) == len(CLIPS)
        tested += [video.name for video in index.test]
    assert sorted(tested) == sorted(CLIPS)
    for video in index.videos:
        start, end = 14.25, 20 + CLIPS.index(video.name)
        chosen = np.array(lips.window(video.name, start, end))
        assert chosen[0] <= start
        assert end <= chosen[-1] + 1
        original = mgm.read(clone / f"data/s1/{video.name}.mpg", chosen)
        track = Track(video.track())
        motion = track[:]
        vectors_THW2 = original.motion_THW2[:, 18:34, 12:28]
        assert np.abs(vectors_THW2).max() > 1
        np.testing.assert_array_equal(motion.vectors_THW2, vectors_THW2)
        np.testing.assert_array_equal(motion.has_mv_T, original.has_motion_T)
        assert (video.codec, video.vectors, video.width) == ("mpeg1video", "source", 96)
        frames_THWC = read_clips(video.path, track, np.arange(16)[None], None, 0)[0]
        part_THWC = original.frames_THWC[:, 144:272, 96:224]
        blocks = [
            x_THWC.reshape(16, 4, side, 4, side, 3).mean((2, 4))
            for x_THWC, side in ((frames_THWC, 24), (part_THWC, 32))
        ]
        assert np.abs(blocks[0] - blocks[1]).mean() < 4


def test_another_commit_or_word_is_one_line(lips, clone, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="choose from digits, letters"):
        lips.main(str(clone), "vowels", str(tmp_path))
    monkeypatch.setattr(lips, "COMMIT", "1" * 40)
    with pytest.raises(UserError, match="is not a clone that has commit 1111111"):
        lips.main(str(clone), data=str(tmp_path))
    with pytest.raises(UserError, match="is not a clone"):
        lips.main(str(tmp_path / "nowhere"), data=str(tmp_path))


def test_lost_packets_are_found(lips, clone, tmp_path):
    whole = (clone / f"data/s1/{CLIPS[0]}.mpg").read_bytes()
    source = tmp_path / "cut.mpg"
    source.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(UserError, match="is damaged"):
        lips.cut(source, range(20, 36), tmp_path / "out.y4m")
    assert not (tmp_path / "out.y4m").exists()


def test_no_frame_is_always_the_middle_of_the_word(lips):
    middles = np.array([20 - lips.window(f"clip{n}", 17, 23)[0] for n in range(300)])
    assert (middles.min(), middles.max()) == (3, 13)
    assert np.bincount(middles)[3:].max() < 60
