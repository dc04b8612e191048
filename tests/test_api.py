"""The short interface returns what the parts return that it calls."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mgm
from mgm.errors import UserError
from mgm.masking import Grid, SlotMotion, make_mask
from mgm.models import build_mae, save_weights
from mgm.reading import file_digest
from mgm.spec import MASKS, ApplyOptions, Clips, Data, Decoder, Mask, Model, Pretrain
from mgm.stages.apply import embed
from mgm.video import read_clip, slot_magnitude
from tests.helpers.videos import moving_square, write_video

ROOT = Path(__file__).parents[1]
SPEC = Pretrain(
    data=Data(dataset="folder"),
    clips=Clips(frames=4, size=24, stride=2),
    model=Model(width=16, depth=2, heads=2, patch=8),
    decoder=Decoder(width=8, depth=1, heads=2),
)


@pytest.fixture
def video(tmp_path) -> str:
    return write_video(tmp_path / "video.mp4", moving_square(40, 64, 96, (3, 1)), gop=12)


def test_load_and_embed_are_the_command(tmp_path, video):
    run = tmp_path / "run"
    run.mkdir()
    (run / "spec.json").write_text(SPEC.model_dump_json())
    save_weights(build_mae(SPEC), run / "weights.safetensors")
    for clips in (1, 3):
        out = tmp_path / f"{clips}.npz"
        embed(tmp_path / "video.mp4", run, out, ApplyOptions(temporal=clips))
        (feature_D,) = np.load(out)["feature_ND"]
        np.testing.assert_allclose(mgm.load(run).embed(video, clips=clips), feature_D, rtol=1e-5)
    # Weights alone do not say what the clips were.
    clips = {"frames": 4, "size": 24, "stride": 2}
    weights = run / "weights.safetensors"
    embed(tmp_path / "video.mp4", weights, out, ApplyOptions(temporal=3, force=True, **clips))
    (feature_D,) = np.load(out)["feature_ND"]
    model = mgm.load(weights, **clips)
    np.testing.assert_allclose(model.embed(video, clips=3), feature_D, rtol=1e-5)


def test_read_and_masks_are_the_parts(video):
    clip, index_T = mgm.read(video, range(0, 32, 2)), range(0, 32, 2)
    known = read_clip(video, index_T)
    np.testing.assert_array_equal(clip.frames_THWC, known.frames_THWC)
    np.testing.assert_array_equal(clip.motion_THW2, known.motion_THW2)
    assert len(mgm.read(video).frames_THWC) == 40
    motion_SHW = slot_magnitude(known.motion_THW2, known.distance_THW, known.has_motion_T, 2)
    motion, grid = SlotMotion(torch.from_numpy(motion_SHW)[None]), Grid(8, 14, 14)
    masked_1L = make_mask("mgm", grid, motion, torch.tensor([3]))
    assert torch.equal(mgm.masks(clip, seed=3).flatten(), masked_1L[0])
    for name in MASKS:
        masked_SHW = mgm.masks(clip, name, grid=(6, 6))
        assert masked_SHW.shape == (8, 6, 6)
        assert masked_SHW.any()
    half = mgm.masks(clip, Mask(name="block", ratio=0.5), tubelet=4)
    assert half.flatten(1).sum(1).tolist() == [98] * 4
    with pytest.raises(ValueError, match=r"name\n.*\|mgm\|"):
        mgm.masks(clip, "mgn")


def test_the_base_imports_no_torch():
    code = "import sys, mgm; mgm.read; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["mgm", "block", "tube"])
def test_the_models_of_the_repository_load_and_are_those_listed(name, video):
    weights = ROOT / "weights" / name / "weights.safetensors"
    assert weights.stat().st_size < 1e6
    digest = file_digest(weights)[:12]
    assert f"| `{name}` | " in (text := (ROOT / "weights" / "README.md").read_text())
    assert digest in text
    model = mgm.load(weights.parent)
    assert model.embed(video).shape == (48,)
    with pytest.raises(UserError, match="weights: is a folder"):
        model.embed(ROOT / "weights")
