"""The arrays of Figures 5 to 8."""

from dataclasses import replace

import numpy as np
import pytest

from mgm.errors import UserError
from mgm.files import write_text
from mgm.masking import Grid, make_boxes
from mgm.rng import clip_seed
from mgm.spec import MASKS, Mask, Sample
from mgm.stages.samples import CLIPS, sample
from tests.helpers.small_runs import PRETRAIN, SMALL
from tests.stages.conftest import TUBE, TUNED

PARENTS = {"5": (), "6": (PRETRAIN,), "7": (PRETRAIN,), "8": (PRETRAIN, TUBE)}


@pytest.fixture(params=PARENTS)
def figure(request, trained, tmp_path):
    """Return a figure's number and its arrays."""
    parents = tuple(run.run_id for run in PARENTS[request.param])
    spec = Sample(**SMALL, figure=request.param, parents=parents)
    run = trained.context(tmp_path)
    assert sample(spec, run) == {}
    assert {*run.parents} == {*parents}
    return request.param, dict(np.load(tmp_path / "arrays.npz"))


def test_a_figure_has_its_clips_masks_and_pictures(figure):
    number, arrays = figure
    clips, several = CLIPS[number], number in ("7", "8")
    shown = arrays["frames_BSHWC" if several else "frames_SHWC"]
    assert shown.shape == ((clips,) if several else ()) + (2, 24, 24, 3)
    if number in ("5", "6"):
        names = [*MASKS] if number == "5" else ["mgm"]
        assert arrays["names_N"].tolist() == names
        masked_NSHW = arrays["masked_NSHW"]
        hidden = [Mask(name=name, ratio=MASKS[name].ratio).hidden(9) for name in names]
        assert masked_NSHW.sum((1, 2, 3)).tolist() == [2 * count for count in hidden]
        assert arrays["motion_SHW2"].shape == (2, 3, 3, 2)
        mgm = names.index("mgm")
        seed_1, guide_1SHW = np.array([clip_seed(0, 0, -1)]), arrays["magnitude_SHW"][None]
        boxes = make_boxes(Mask(name="mgm"), Grid(2, 3, 3), guide_1SHW, seed_1)
        np.testing.assert_array_equal(arrays["boxes_NS4"][mgm, :, 0], boxes.x_BS[0])
        boxed = np.isfinite(arrays["boxes_NS4"]).all((1, 2))
        assert [name for name, has in zip(names, boxed) if has] == (
            ["block", "smm", "mgm"] if number == "5" else ["mgm"]
        )
    if number == "6":
        assert arrays["objects_SK4"].shape == (2, 5, 4)
        assert np.nanmax(arrays["objects_SK4"]) <= 1
    if number in ("6", "7"):
        attention = arrays["attention_BSHW" if several else "attention_SHW"]
        np.testing.assert_allclose(attention.sum((-3, -2, -1)), 1, atol=1e-5)
        assert arrays["query_B3" if several else "query_3"].reshape(-1, 3)[0].tolist() == [1, 1, 1]
    if several:
        # Of the three classes, none twice before each is shown.
        assert len({*arrays["class_B"][:3]}) == min(clips, 3)
    if number == "8":
        assert arrays["names_P"].tolist() == ["mgm", "tube"]
        made = arrays["reconstructed_BPSHWC"]
        kept = ~arrays["masked_BPSHW"].repeat(8, 3).repeat(8, 4)
        same = (made == shown[:, None]).all(-1)
        assert same[kept].all()
        assert not same[~kept].all()


def test_a_figure_of_a_studys_masks_has_their_rows_ratios_and_guides(trained, tmp_path):
    rows = {"Tube, 50 %": Mask(name="tube", ratio=0.5), "MGM": Mask()}
    rows |= {"MGM, shuffled": Mask(guidance="shuffled")}
    run = trained.context(tmp_path)
    sample(Sample(**SMALL, masks=tuple(rows.items())), run)
    assert not run.parents
    arrays = np.load(tmp_path / "arrays.npz")
    assert arrays["names_N"].tolist() == [*rows]
    assert arrays["ratio_N"].tolist() == [0.5, 0.75, 0.75]
    tube_SHW, mgm_SHW, shuffled_SHW = arrays["masked_NSHW"]
    assert [tube_SHW.sum(), mgm_SHW.sum(), shuffled_SHW.sum()] == [2 * 4, 2 * 6, 2 * 6]
    boxes_NS4 = arrays["boxes_NS4"]
    assert np.isfinite(boxes_NS4).all((1, 2)).tolist() == [False, True, True]
    assert (boxes_NS4[1] != boxes_NS4[2]).any()


DIVIDED = PRETRAIN.model_copy(
    update={"model": PRETRAIN.model.model_copy(update={"backbone": "timesformer-toy"})}
)


@pytest.mark.parametrize(
    ("number", "parent", "says"),
    [
        ("7", TUNED, "no pretraining run"),
        ("6", DIVIDED, "is a TimeSformer"),
        ("7", DIVIDED, "is a TimeSformer"),
    ],
)
def test_a_figure_of_a_run_without_masks_or_whole_attention_is_refused(
    trained, tmp_path, number, parent, says
):
    run = replace(trained.context(tmp_path), results=tmp_path)
    write_text(tmp_path / parent.run_id / "spec.json", parent.model_dump_json())
    with pytest.raises(UserError, match=says):
        sample(Sample(**SMALL, figure=number, parents=(parent.run_id,)), run)
