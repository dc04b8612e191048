from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mgm.data.synthetic.generator import generate, load_boxes
from mgm.data.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.models import build_mae, save_weights
from mgm.spec import (
    MASKS,
    Clips,
    Data,
    Decoder,
    Finetune,
    Mask,
    Model,
    Pretrain,
    Visualise,
)
from mgm.stages.job import Job, Workplace
from mgm.stages.visualise import visualise
from mgm.study.recipes import MASK_RATIO

CLIPS = Clips(frames=8, size=48, stride=2, crop="centre")
SPEC = Visualise(data=Data(dataset="ssv2"), clips=CLIPS, model=Model(patch=8))
TRAINED = Pretrain(
    data=SPEC.data,
    clips=CLIPS.model_copy(update={"crop": "multiscale"}),
    model=Model(width=16, depth=2, heads=2, patch=8),
    decoder=Decoder(width=12, depth=1, heads=2),
    mask=Mask(ratio=0.6),
    std_floor=0.1,
)
TUBE = TRAINED.model_copy(update={"mask": Mask(name="tube", ratio=0.9)})


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return generate(
        Synthetic(classes=2, train_per_class=1, test_per_class=2), tmp_path_factory.mktemp("videos")
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return a folder with two finished runs."""
    folder = tmp_path_factory.mktemp("results")
    for trained in (TRAINED, TUBE):
        _leave(folder, trained)
    return folder


def _leave(results, trained, weights=True):
    """Write the folder of a finished run and return the run's id.

    Its random weights are larger than initial ones, so that attention is not uniform.
    """
    folder = results / trained.run_id
    folder.mkdir()
    (folder / "spec.json").write_text(trained.model_dump_json())
    if weights:
        model = build_mae(trained)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        save_weights(model, folder / "weights.safetensors")
    return trained.run_id


def _figure(figure, *parents, **changes):
    return Visualise(
        data=SPEC.data, clips=CLIPS, model=TRAINED.model, figure=figure, parents=parents
    ).model_copy(update=changes)


def _arrays(folder, index, spec=SPEC, results=Path("nowhere")):
    folder.mkdir()
    assert visualise(Job(spec, folder, Workplace(results, {"ssv2": index.root}), index)) == {}
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
    for name, ratio, masked_SHW, box_S4 in zip(
        arrays["names_N"], arrays["ratio_N"], arrays["masked_NSHW"], arrays["boxes_NS4"]
    ):
        assert masked_SHW.sum() == 4 * Mask(name=str(name), ratio=MASK_RATIO[str(name)]).hidden(36)
        assert ratio == MASK_RATIO[str(name)]
        assert np.isfinite(box_S4).all() == (str(name) in ("block", "smm", "mgm"))
    guided = arrays["boxes_NS4"][list(MASKS).index("mgm"), 1:, :2]
    for slot, (x, y) in enumerate(guided, 1):
        if arrays["magnitude_SHW"][slot].any():  # the box is where the motion is
            assert (
                arrays["magnitude_SHW"][slot][int(y), int(x)] == arrays["magnitude_SHW"][slot].max()
            )
    assert (tmp_path / "run" / "arrays.npz").stat().st_size < 100_000


def test_figure_6_looks_into_a_run(tmp_path, index, results):
    arrays = _arrays(tmp_path / "run", index, _figure("6", TRAINED.run_id), results)
    same = _arrays(tmp_path / "five", index)
    assert arrays["source"] == same["source"]
    assert all(
        np.array_equal(arrays[name], same[name])
        for name in ("frames_SHWC", "index_S", "motion_SHW2", "magnitude_SHW")
    )
    assert arrays["names_N"].tolist() == ["mgm"]
    assert arrays["ratio_N"].tolist() == [0.6]  # the run's, not the recipe's
    assert (arrays["masked_NSHW"].sum((2, 3)) == int(0.6 * 36)).all()
    attention_SHW = arrays["attention_SHW"]
    assert (attention_SHW.shape, attention_SHW.dtype) == ((4, 6, 6), np.float32)
    assert attention_SHW.sum() == pytest.approx(1, abs=1e-5)
    assert attention_SHW.std() > 0.1 / attention_SHW.size
    assert arrays["query_3"].tolist() == [2, 3, 3]
    assert arrays["parents_P"].tolist() == [TRAINED.run_id]
    boxes_SK4 = (
        load_boxes(index.root)[Path(str(arrays["source"])).stem][arrays["index_S"]] / 64
    )  # the crop is the whole frame
    np.testing.assert_allclose(arrays["objects_SK4"], boxes_SK4, atol=1e-6)  # float32


def test_figure_7_shows_several_clips(tmp_path, index, results):
    arrays = _arrays(tmp_path / "run", index, _figure("7", TRAINED.run_id), results)
    assert arrays["frames_BSHWC"].shape == (4, 4, 48, 48, 3)
    assert arrays["attention_BSHW"].shape == (4, 4, 6, 6)
    np.testing.assert_allclose(arrays["attention_BSHW"].sum((1, 2, 3)), 1, atol=1e-5)  # float32
    assert len(set(arrays["source_B"])) == 4
    assert {str(name) for name in arrays["class_B"]} == set(index.classes)
    six = _arrays(tmp_path / "six", index, _figure("6", TRAINED.run_id), results)
    assert np.array_equal(arrays["attention_BSHW"][0], six["attention_SHW"])
    assert arrays["query_B3"].tolist() == [[2, 3, 3]] * 4
    few = replace(index, videos=index.test[:3])
    assert (
        len(_arrays(tmp_path / "few", few, _figure("7", TRAINED.run_id), results)["source_B"]) == 3
    )


def test_figure_8_keeps_what_is_visible(tmp_path, index, results):
    arrays = _arrays(tmp_path / "run", index, _figure("8", TRAINED.run_id, TUBE.run_id), results)
    assert arrays["names_P"].tolist() == ["mgm", "tube"]
    assert arrays["ratio_P"].tolist() == [0.6, 0.9]
    assert arrays["masked_BPSHW"].shape == (2, 2, 4, 6, 6)
    assert (
        arrays["masked_BPSHW"].sum((3, 4)) == np.array([int(0.6 * 36), int(0.9 * 36)])[:, None]
    ).all()
    shown = arrays["reconstructed_BPSHWC"]
    assert (shown.shape, shown.dtype) == ((2, 2, 4, 48, 48, 3), np.uint8)
    changed = (shown != arrays["frames_BSHWC"][:, None]).any(-1)
    hidden = arrays["masked_BPSHW"].repeat(8, 3).repeat(8, 4)
    assert not changed[~hidden].any()
    assert changed[hidden].mean() > 0.9


def test_without_vectors_it_says_so(tmp_path, index):
    blind = replace(
        index, videos=tuple(replace(video, has_vectors=False) for video in index.videos)
    )
    with pytest.raises(UserError, match="4 test videos .*vectors"):
        _arrays(tmp_path / "run", blind)


def test_parents_that_do_not_fit_are_one_clear_line(tmp_path, index, results):
    larger = TRAINED.model_copy(update={"clips": CLIPS.model_copy(update={"size": 64})})
    flow = TRAINED.model_copy(update={"mask": Mask(guidance="dis")})
    tuned = Finetune(data=SPEC.data, clips=CLIPS, model=TRAINED.model)
    folder = tmp_path / "results"
    folder.mkdir()
    for trained in (larger, flow, tuned):
        _leave(folder, trained, weights=False)
    wrong = [
        (_figure("6"), "figure 6 .* 1 .*parents has 0"),
        (_figure("6", larger.run_id), f"clips.size is 48, .*{larger.run_id} .* 64"),
        (_figure("7", flow.run_id), f"{flow.run_id} .* dis"),
        (_figure("7", tuned.run_id), f"{tuned.run_id} is a finetune run.*figure 7"),
    ]
    for number, (spec, message) in enumerate(wrong):
        with pytest.raises(UserError, match=message):
            _arrays(tmp_path / str(number), index, spec, folder)
