"""Optical flow of the store's frames."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mgm.errors import UserError
from mgm.video.flow import SHORT, cell_means, estimator, flow, write_flow
from mgm.video.track import Track
from tests.helpers.videos import moving_square, stored, write_video


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "raft.pth"
    torch.save(raft_small().state_dict(), path)
    return path


def textured(frames, height, width, step):
    """Return frames of a smooth texture that moves by `step` (x, y)."""
    t, y, x = np.mgrid[:frames, :height, :width].astype(float)
    x, y = x - step[0] * t, y - step[1] * t
    grey = 128 + 40 * np.sin(x / 5) * np.cos(y / 7) + 40 * np.sin((x + 2 * y) / 11)
    return np.repeat(grey[..., None], 3, 3).astype(np.uint8)


@pytest.mark.parametrize("size", [(96, 128), (40, 50), (97, 131)])
def test_dis_finds_a_known_motion_at_any_size(size):
    found = flow(textured(3, *size, (2, 1)), estimator("dis"), SHORT["dis"])
    assert found.shape == (2, *size, 2)
    assert np.median(found, (0, 1, 2)) == pytest.approx([2, 1], abs=0.2)


def test_cells_are_means_of_the_pixels_inside_the_frame(rng):
    flow_HW2 = rng.normal(size=(13, 21, 2)).astype(np.float32)
    found = cell_means(flow_HW2)
    assert found.shape == (2, 3, 2)
    np.testing.assert_allclose(found[1, 2], flow_HW2[8:, 16:].mean((0, 1)), rtol=1e-5)


def test_a_track_of_flow_lies_next_to_the_codecs(tmp_path):
    drawn = textured(19, 96, 128, (2, 1))
    mp4, track = stored(write_video(tmp_path / "v.mp4", drawn, crf=10), tmp_path)
    write_flow(mp4, track, tmp_path / "v.dis.npz", "dis")
    own = Track(tmp_path / "v.dis.npz")
    motion = own[:]
    assert (own.facts.vectors, motion.frame) == ("dis", (96, 128))
    assert motion.has_mv_T.tolist() == [False] + [True] * 18
    assert (motion.distance_THW == 1).all()
    assert np.median(motion.vectors_THW2[1:], (0, 1, 2)) == pytest.approx([2, 1], abs=0.2)
    # It has the places of the frames, so it serves the store's reader, too.
    np.testing.assert_array_equal(own.offset_N, track.offset_N)


def test_raft_small_runs_with_given_weights(tmp_path, weights):
    from torchvision.models.optical_flow import raft_small

    mp4, track = stored(write_video(tmp_path / "v.mp4", moving_square(3)), tmp_path)
    write_flow(mp4, track, tmp_path / "v.raft-small.npz", "raft-small", weights)
    frames_THWC = np.stack([np.zeros((128, 128, 3)), np.full((128, 128, 3), 9)]).astype(np.uint8)
    found = flow(frames_THWC, estimator("raft-small", weights), SHORT["raft-small"])
    model = raft_small()
    model.load_state_dict(torch.load(weights, weights_only=True))
    pair_TCHW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        known = -model.eval()(pair_TCHW[1:], pair_TCHW[:1])[-1].permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, known.numpy(), rtol=1e-4, atol=1e-4)
    (tmp_path / "others").write_bytes(b"text")
    torch.save({"head.weight": torch.zeros(2)}, tmp_path / "model")
    for name in ("others", "model"):
        with pytest.raises(UserError, match=f"{name}: are not the weights of RAFT-small"):
            estimator("raft-small", tmp_path / name)
