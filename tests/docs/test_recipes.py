"""The recipes of docs/recipes and of docs/masks-and-weights.md, on real videos and models."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset
from typer.testing import CliRunner

import mgm
from mgm.cli import app
from mgm.masking import Grid, summed_motion
from mgm.video.clip import Clip
from mgm.video.motion import Motion
from mgm.video.store import read_clips
from tests.helpers.programs import RECIPES, ROOT, blocks, recipe, run
from tests.helpers.videos import moving_square, stored, write_video

PAGE = ROOT / "docs" / "masks-and-weights.md"


@pytest.mark.parametrize("keep", [False, True])
def test_v_jepas_collator_splits_all_tokens(keep, tmp_path):
    path = tmp_path / "video.mp4"
    write_video(str(path), moving_square(40, 256, 256, side=64))
    track, samples = mgm.track(path), []
    for n in range(3):
        index_T = np.arange(n, n + 32, 2)
        masked_L = mgm.masks(track[index_T], "mgm", seed=n, grid=(16, 16)).reshape(-1)
        samples.append(([torch.zeros(3, 16, 8, 8)], n, masked_L, [index_T]))
    ((batch, (encoder,), (predictor,)),) = recipe("vjepa").MaskCollator(keep=keep)(samples)
    buffers, labels, clip_indices = batch
    assert buffers[0].shape == (3, 3, 16, 8, 8)
    assert labels.tolist() == [0, 1, 2]
    assert len(clip_indices[0]) == 3
    masked_BL = np.stack([sample[2] for sample in samples])
    hidden = encoder if keep else predictor
    assert torch.equal(hidden, torch.from_numpy(np.nonzero(masked_BL)[1].reshape(3, -1)))
    both = torch.cat([encoder, predictor], 1).sort(1).values
    assert torch.equal(both, torch.arange(8 * 256).repeat(3, 1))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[str]:
    """Return videos with and without B-frames, and without vectors, in the store."""
    folder = tmp_path_factory.mktemp("videos")
    paths = [
        write_video(folder / "video.mp4", moving_square(40, 300, 400, (6, 2), side=64), bf=2, g=12),
        write_video(folder / "plain.mkv", moving_square(40, 256, 340, (-4, 4), side=64), bf=0),
        write_video(folder / "vp9.webm", moving_square(40, 256, 340, side=64), codec="libvpx-vp9"),
    ]
    return [stored(path, folder)[0] for path in paths]


def tracks_of(videos: list[str]) -> list[str]:
    return [video.replace(".mp4", ".npz") for video in videos]


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_a_decoder_has_the_masks_and_the_motion_of_our_own(videos, decoder):
    if decoder != "pyav":
        pytest.importorskip(decoder)
    clips = recipe("decoders").Clips(videos, tracks_of(videos), decoder)
    for n, (video, (crop_THWC, masked_L)) in enumerate(zip(videos, clips)):
        rng, track = np.random.default_rng(n), mgm.track(tracks_of(videos)[n])
        index_T = mgm.draw_frames(40, stride=2, seed=n)
        clip = Clip(read_clips(video, track, [index_T], None, 0)[0], track[index_T])
        height, width = clip.frames_THWC.shape[1:3]
        top, left = rng.integers(height - 199), rng.integers(width - 199)
        own_THWC = clip.frames_THWC[:, top : top + 200, left : left + 200]
        # swscale of decord's FFmpeg rounds differently.
        assert np.abs(crop_THWC.astype(int) - own_THWC).mean() < 2, video
        known_SHW = mgm.masks(clip.cut(mgm.Crop(top, left, 200, 200), 224), "mgm", seed=n)
        np.testing.assert_array_equal(masked_L, known_SHW.ravel())
    source, index_T = videos[0].replace(".stored", ""), np.array([0, 3, 9, 31])
    own = mgm.read(source, index_T)
    frames_THWC, velocity_THW2 = recipe("decoders").frames_and_motion(source, index_T, decoder)
    assert np.abs(frames_THWC.astype(int) - own.frames_THWC).mean() < 2
    np.testing.assert_array_equal(velocity_THW2, own.motion.velocity_THW2)
    assert velocity_THW2.any()


def test_a_small_or_short_video_has_a_clip_of_the_same_size(tmp_path):
    """Without tracks, and with the decoder that comes with mgm."""
    wide = write_video(tmp_path / "wide.mp4", moving_square(40, 96, 320, side=32))
    short = write_video(tmp_path / "short.mp4", moving_square(5, 240, 320, side=64))
    for crop_THWC, masked_L in recipe("decoders").Clips([wide, short]):
        assert crop_THWC.shape == (16, 200, 200, 3)
        assert masked_L.reshape(8, 196).sum(1).tolist() == [147] * 8


def test_tokens_are_dropped_by_motion_in_each_view(tmp_path, monkeypatch):
    """Nothing else moves, so the square has more than its share of the tokens that stay."""
    monkeypatch.syspath_prepend(RECIPES)
    import drop

    path = write_video(tmp_path / "video.mp4", moving_square(40, 224, 224, (4, 0), side=64))
    shares = {}
    for floor in (1, 0.1):
        monkeypatch.setattr(drop, "FLOOR", floor)
        frames_THWC, keep_VK, position_VK3 = drop.Views([path], count=8)[0]
        assert frames_THWC.shape == (16, 224, 224, 3)
        assert keep_VK.shape == (8, 16 * 10)
        assert len({*map(bytes, keep_VK)}) == 8
        clip = mgm.read(path, np.unique(position_VK3[..., 0]))
        numbers_T = np.unique(position_VK3[..., 0])
        place_VK = np.searchsorted(numbers_T, position_VK3[..., 0]) * 196
        place_VK += position_VK3[..., 1] * 14 + position_VK3[..., 2]
        np.testing.assert_array_equal(place_VK, keep_VK)
        moving_TN = summed_motion(Grid(16, 14, 14), clip.motion.magnitude(1)[None])[0] > 0
        shares[floor] = moving_TN.reshape(-1)[keep_VK].mean()
        assert moving_TN.any()
    assert shares[0.1] > 2 * shares[1]


def test_an_encoder_sees_the_kept_patches_alone_and_where_they_lie(tmp_path):
    """Pixels of hidden patches and the order of tokens change nothing; places do."""
    index_T, module = range(0, 16, 2), recipe("onevision")
    path = write_video(tmp_path / "video.mp4", moving_square(16, 224, 224, side=64), g=16)
    pixels_VD, position_V3 = module.kept_patches(path, index_T)
    clip = mgm.read(path, index_T)
    assert 0 < len(position_V3) < 0.3 * 8 * 196
    for pixels_D, (t, row, column) in zip(pixels_VD, position_V3.tolist()):
        frame_HWC = clip.frames_THWC[index_T.index(t)]
        part = frame_HWC[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        np.testing.assert_array_equal((255 * pixels_D).round().numpy(), part.ravel())
    torch.manual_seed(0)
    encoder = module.Encoder().eval()
    feature_1D = encoder(pixels_VD[None], position_V3[None])
    order = torch.randperm(len(position_V3))
    other_1D = encoder(pixels_VD[order][None], position_V3[order][None])
    torch.testing.assert_close(other_1D, feature_1D, rtol=1e-4, atol=1e-5)
    moved_1D = encoder(pixels_VD[None], position_V3[order][None])
    assert (moved_1D - feature_1D).abs().max() > 1e-3


def test_onevisions_recipe_keeps_the_first_frame_and_what_moves(tmp_path):
    module, frames_THWC = recipe("onevision"), moving_square(64, 96, 128, (1, 0), side=32)
    path = write_video(tmp_path / "video.mp4", frames_THWC, g=64, crf=30)
    frames_THWC, position_V3 = module.chosen(path)
    assert frames_THWC.shape == (64, 576, 576, 3)
    assert position_V3.shape == (10_368, 3)
    assert len(np.unique(module.flat(position_V3))) == 10_368
    assert (position_V3[:1296, 0] == 0).all()
    t, row, column = position_V3[1296:].T
    assert t.min() > 0
    # The square has moved t pixels to the right. The frames are scaled by 4.5.
    left, top = 4.5 * (8 + t), 72 + 4.5 * 32
    across, down = 16 * column + 8 - left, 16 * row + 8 - top
    inside = (across > -32) & (across < 176) & (down > -32) & (down < 176)
    assert inside.mean() > 0.7


@pytest.mark.slow
def test_torchcodecs_clips_have_the_masks_of_decords(videos, monkeypatch):
    """torchcodec brings no FFmpeg, so `bench` lends it PyAV's."""
    pytest.importorskip("decord")
    monkeypatch.chdir(Path(videos[0]).parent)
    clips = recipe("decoders").Clips(videos, tracks_of(videos), "decord")
    np.save("known.npy", np.stack([masked_L for _, masked_L in clips]))
    program = (
        "from peers import lend_ffmpeg\nlend_ffmpeg()\nimport numpy as np\n"
        f"from decoders import Clips\nclips = Clips({videos}, {tracks_of(videos)}, 'torchcodec')\n"
        "own = np.stack([clips[n][1] for n in range(3)])\n"
        "assert (own == np.load('known.npy')).all()\n"
        "from decoders import frames_and_motion\nimport mgm\n"
        "frames_THWC, moved = frames_and_motion('video.mp4', np.array([3, 7]), 'torchcodec')\n"
        "known = mgm.read('video.mp4', [3, 7])\n"
        "assert np.abs(frames_THWC.astype(int) - known.frames_THWC).mean() < 2\n"
        "assert (moved == known.motion.velocity_THW2).all()\n"
    )
    path = os.pathsep.join(map(str, (ROOT, ROOT / "bench", RECIPES)))
    done = run([sys.executable, "-c", program], PYTHONPATH=path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_pipeline_of_frames_and_crops_has_the_masks_of_our_own_clips(tmp_path, monkeypatch):
    """`Samples` has the one method of WebDataset's that the page calls."""
    monkeypatch.chdir(tmp_path)

    class Samples(IterableDataset):
        def __init__(self, samples, change=None):
            self.samples, self.change = samples, change

        def map(self, change):
            return Samples(self.samples, change)

        def __iter__(self):
            return map(self.change, self.samples)

    videos = [write_video(f"{n}.mp4", moving_square(40, 256, 340, seed=n)) for n in range(2)]
    given = [
        {"__key__": video, "frames": np.arange(n, n + 16), "box": (n, 20, 200, 180), "seed": n}
        for n, video in enumerate(videos)
    ]
    scope = {"mgm": mgm, "samples": Samples(given)}
    code = next(code for code in blocks(PAGE, "python") if "def mask_of" in code)
    (mapped,) = (code for code in blocks(PAGE, "py") if "samples.map" in code)
    exec(compile(code + mapped, PAGE.name, "exec"), scope)
    for sample in DataLoader(scope["samples"], batch_size=None, num_workers=1):
        clip = mgm.read(sample["__key__"], sample["frames"])
        box = mgm.Crop(*(int(side) for side in sample["box"]))
        known_SHW = mgm.masks(clip.cut(box, 224), "mgm", seed=sample["seed"])
        np.testing.assert_array_equal(sample["mask"], known_SHW.ravel())


def test_motion_of_tokens_is_the_mean_velocity_in_pixels_of_the_crop():
    """Cells of 16 pixels move by (6, 2) and (-3, 1) per frame; the second frame has no motion."""
    vectors_THW2 = np.zeros((4, 16, 16, 2), np.float32)
    vectors_THW2[:, :, :8], vectors_THW2[:, :, 8:] = (6, 2), (-3, 1)
    # The last frame refers to two frames before.
    distance_THW = np.ones((4, 16, 16), np.float32)
    vectors_THW2[3], distance_THW[3] = 2 * vectors_THW2[3], 2
    has_mv_T = np.array([True, False, True, True])
    motion = Motion(vectors_THW2, distance_THW, has_mv_T, (128, 128))
    code = next(code for code in blocks(PAGE, "python") if "def motion_of_tokens" in code)
    scope = {"mgm": mgm, "np": np}
    exec(compile(code.partition("\n\n\n")[0], PAGE.name, "exec"), scope)
    target_SHW2, known_S = scope["motion_of_tokens"](motion, (0, 0, 128, 128), size=256)
    assert target_SHW2.shape == (2, 16, 16, 2)
    np.testing.assert_allclose(target_SHW2[:, :, :8] - [12, 4], 0)
    np.testing.assert_allclose(target_SHW2[:, :, 8:] - [-6, 2], 0)
    assert known_S.all()
    # Patches at the border between them have the mean of both.
    border_SHW2, _ = scope["motion_of_tokens"](motion, (0, 56, 64, 64), size=64)
    np.testing.assert_allclose(border_SHW2[:, :, 0] - [1.5, 1.5], 0)
    still = Motion(vectors_THW2, distance_THW, np.zeros(4, bool), (128, 128))
    target_SHW2, known_S = scope["motion_of_tokens"](still, (0, 0, 128, 128))
    assert not target_SHW2.any()
    assert not known_S.any()


@pytest.mark.slow
def test_the_trainer_pretrains_on_a_prepared_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    for n in range(5):
        (tmp_path / "source").mkdir(exist_ok=True)
        write_video(str(tmp_path / f"source/{n}.mp4"), moving_square(40, 64, 64, seed=n))
    words = ["prepare", "folder", "--source", str(tmp_path / "source")]
    words += ["--out", str(tmp_path / "mine")]
    assert CliRunner().invoke(app, words).exit_code == 0
    small = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    small |= {"decoder_hidden_size": 48, "decoder_num_hidden_layers": 1}
    config = transformers.VideoMAEConfig(use_mean_pooling=False, intermediate_size=64, **small)
    trainer = recipe("trainer").train(
        *(tmp_path / "mine", str(tmp_path / "out"), config),
        **{"max_steps": 2, "per_device_train_batch_size": 2, "report_to": "none"},
    )
    assert np.isfinite(trainer.state.log_history[-1]["train_loss"])


@pytest.mark.slow
def test_the_notebook_shows_masks_and_a_falling_loss(monkeypatch):
    """Run the code of its cells in one scope, in the folder of the notebook, as Jupyter does."""
    monkeypatch.chdir(RECIPES)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    cells = json.loads((RECIPES / "start.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells)
    scope = {}
    for number, cell in enumerate(code):
        exec(compile(cell, f"start.ipynb, code {number}", "exec"), scope)
    assert Image.open(scope["OUT"] / "masks.png").size[0] > 800
    losses, tenth = scope["losses"], scope["tenth"]
    assert sum(losses[-tenth:]) < 0.95 * sum(losses[:tenth])
    assert scope["feature_D"].shape == (48,)
    shutil.rmtree(scope["OUT"])
