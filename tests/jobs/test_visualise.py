from dataclasses import replace
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from mgm.datasets.params import Synthetic
from mgm.datasets.synthetic import generate
from mgm.errors import UserError
from mgm.experiments.recipes import MASK_RATIO
from mgm.jobs.show import show
from mgm.jobs.visualise import FIGURE_5, visualise
from mgm.masking import MASKS
from mgm.spec import Clips, Data, Model, Visualise

SPEC = Visualise(data=Data(dataset="ssv2"), clips=Clips(frames=8, size=48, stride=2, crop="centre"), model=Model(patch=8))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return generate(Synthetic(classes=2, train_per_class=1, test_per_class=2), tmp_path_factory.mktemp("videos"))


def _arrays(folder, index, spec=SPEC):
    folder.mkdir()
    assert visualise(SimpleNamespace(spec=spec, folder=folder, index=index)) == {}
    with np.load(folder / "arrays.npz", allow_pickle=False) as file:
        return dict(file)


def test_every_mask_on_one_clip(tmp_path, index):
    arrays = _arrays(tmp_path / "run", index)
    assert set(arrays["names_N"]) == set(MASKS)
    assert arrays["frames_SHWC"].shape == (4, 48, 48, 3)
    assert arrays["magnitude_SHW"].shape == (4, 6, 6)
    assert (arrays["magnitude_SHW"] > 0).any()
    assert arrays["motion_SHW2"].shape == (4, 6, 6, 2)
    assert arrays["has_motion_S"].any()
    assert (np.diff(arrays["index_S"]) == 4).all()
    for name, ratio, masked_SHW, box_S4 in zip(arrays["names_N"], arrays["ratio_N"], arrays["masked_NSHW"], arrays["boxes_NS4"]):
        assert masked_SHW.sum() == 4 * int(MASK_RATIO[str(name)] * 36)
        assert ratio == MASK_RATIO[str(name)]
        assert np.isfinite(box_S4).all() == (MASKS[str(name)].boxes is not None)
    guided = arrays["boxes_NS4"][FIGURE_5.index("mgm"), 1:, :2]
    for slot, (x, y) in enumerate(guided, 1):
        if arrays["magnitude_SHW"][slot].any():  # the box is where the motion is
            assert arrays["magnitude_SHW"][slot][int(y), int(x)] == arrays["magnitude_SHW"][slot].max()
    assert (tmp_path / "run" / "arrays.npz").stat().st_size < 100_000


def test_the_seed_decides(tmp_path, index):
    first, again, other = (
        _arrays(tmp_path / name, index, SPEC.model_copy(update={"seed": seed})) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(np.array_equal(first[name], again[name], equal_nan=first[name].dtype.kind == "f") for name in first)
    assert not np.array_equal(first["masked_NSHW"], other["masked_NSHW"])


def test_without_vectors_it_says_so(tmp_path, index):
    blind = replace(index, videos=tuple(replace(video, has_vectors=False) for video in index.videos))
    with pytest.raises(UserError, match="none of the 4 test videos has motion vectors"):
        _arrays(tmp_path / "run", blind)


def test_show_draws_one_picture(tmp_path, index):
    out = tmp_path / "new folder" / "masks.png"
    show(index.videos[0].path, out)
    height, width, _ = matplotlib.image.imread(out).shape
    assert width > 1500
    assert height > 1500


def test_show_names_a_bad_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.mp4: no such file"):
        show(tmp_path / "nothing.mp4", tmp_path / "masks.png")
    assert not (tmp_path / "masks.png").exists()
