"""Saliency and coverage against slow loops."""

import shutil

import numpy as np
import pytest

from mgm.data.folder import list_folder
from mgm.data.index import read_index, spread
from mgm.data.prepare import prepare
from mgm.errors import UserError
from mgm.masking import Grid, mask_clips
from mgm.rng import clip_seed
from mgm.spec import MASKS, Mask, Measure
from mgm.stages.coverage import (
    MOVES,
    coverage,
    hidden,
    hidden_motion,
    hidden_shares,
    masks_of,
)
from mgm.stages.saliency import read_boxes, saliency
from mgm.video.clip import Clip
from mgm.video.motion import Motion
from mgm.video.store import read_clips
from mgm.video.track import Track
from mgm.video.transform import view_crop, view_indices
from tests.helpers.small_runs import SMALL
from tests.helpers.videos import moving_square, write_video


def test_saliency_is_the_ratio_of_mean_motion(trained, tmp_path):
    found = saliency(Measure(**SMALL, name="saliency"), trained.context(tmp_path))
    boxes, sums, counts = read_boxes(trained.index), [0.0, 0.0], [0, 0]
    for video in trained.index.test:
        track = Track(video.track())
        for t in np.flatnonzero(track.has_mv_T):
            speed_HW = track.motion([t]).speed_THW[0]
            for row in range(32):
                for column in range(32):
                    within = any(
                        top <= row + 0.5 < bottom and left <= column + 0.5 < right
                        for top, left, bottom, right in boxes[video.name][t]
                    )
                    sums[within] += float(speed_HW[row // 8, column // 8])
                    counts[within] += 1
    out, within = (total / count for total, count in zip(sums, counts))
    assert found["saliency"] == pytest.approx(within / out, rel=1e-5)
    assert (found["inside"], found["outside"]) == pytest.approx((within, out), rel=1e-5)
    assert found["videos"] == len(trained.index.test)


def test_boxes_of_ones_own_are_in_a_csv(trained, tmp_path):
    shutil.copytree(trained.data, tmp_path / "data")
    index, path = read_index(tmp_path / "data"), tmp_path / "data" / "boxes.csv"
    name, header = index.test[0].name, "path,frame,top,left,bottom,right\n"
    path.write_text(f"{header}{name},3,0,1.5,8,9\n{name},3,4,4,5,5\n{name},4,0,0,1,1\n")
    boxes = read_boxes(index)
    assert boxes[name][3].tolist() == [[0, 1.5, 8, 9], [4, 4, 5, 5]]
    assert boxes.keys() == {name}
    run = trained.context(tmp_path / "run")
    run.index = index
    assert saliency(Measure(**SMALL, name="saliency"), run)["videos"] == 1
    path.write_text(f"{header}{name},3,0,1.5,8\n")
    with pytest.raises(UserError, match=r"boxes\.csv: .* columns are path,frame"):
        read_boxes(index)
    path.write_text(f"{header}other,3,0,0,1,1\n")
    with pytest.raises(UserError, match="boxes of 0 videos"):
        saliency(Measure(**SMALL, name="saliency"), run)


def test_boxes_are_in_pixels_of_the_source_where_vectors_are_in_others(trained, tmp_path):
    """A source without vectors has those of the smaller store. A box is the left half."""
    for split in ("train", "test"):
        path = tmp_path / "source" / split / "a" / "0.webm"
        path.parent.mkdir(parents=True)
        write_video(path, moving_square(16, side=32), codec="libvpx-vp9")
    listing = list_folder(tmp_path / "source")
    run = trained.context(tmp_path / "run")
    run.index = index = prepare(listing, tmp_path / "data", processes=1, short_side=32)
    lines = [f"{index.test[0].name},{frame},0,0,64,32" for frame in range(16)]
    header = "path,frame,top,left,bottom,right"
    (tmp_path / "data" / "boxes.csv").write_text("\n".join([header, *lines]))
    track = index.test[0].read_track()
    speed_THW = track[np.flatnonzero(track.has_mv_T)].speed_THW
    assert speed_THW.shape[1:] == (4, 4)
    found = saliency(Measure(**SMALL, name="saliency"), run)
    means = speed_THW[:, :, :2].mean(), speed_THW[:, :, 2:].mean()
    assert (found["inside"], found["outside"]) == pytest.approx(means, rel=1e-5)


def slow_share(clip, masked_SHW, tubelet):
    """Return the share of moving pixels that are hidden, pixel by pixel."""
    size, shares = clip.height, []
    # The cells that masks follow, under the crop.
    for masked_HW, speed_HW in zip(masked_SHW, clip.motion.magnitude(tubelet)):
        moves_HW = speed_HW - np.median(speed_HW) >= MOVES
        hidden = [
            masked_HW[y * len(masked_HW) // size, x * len(masked_HW) // size]
            for y in range(size)
            for x in range(size)
            if moves_HW[y * len(moves_HW) // size, x * len(moves_HW) // size]
        ]
        shares += [100 * np.mean(hidden)] if hidden else []
    return np.mean(shares) if shares else np.nan


def middle(spec, video):
    """Return the centre crop of a video's middle clip."""
    track, crop = Track(video.track()), view_crop(video.height, video.width)
    index_T = view_indices(spec.clips, video.frames, 0, 1)
    frames = read_clips(video.path, track, [index_T], [crop], 24)[0]
    return Clip(frames, track.motion(index_T).under(crop, 24, (32, 32)))


def slow_shares(spec, mask, videos, guides):
    """Return the hidden share of each video, whose mask follows the motion of its guide."""
    shares = []
    for sample, (video, guide) in enumerate(zip(videos, guides)):
        clip, seed_1 = middle(spec, video), np.array([clip_seed(0, 0, sample)])
        motion = middle(spec, guide).known
        masked_1L, _ = mask_clips(mask, Grid(*spec.grid), [motion], seed_1, 2, 2)
        shares.append(slow_share(clip, masked_1L.reshape(spec.grid), 2))
    return shares


def test_a_rows_mask_hides_by_its_own_motion_or_by_anothers(trained, tmp_path):
    run, mask = trained.context(tmp_path), Mask(name="mgm", ratio=0.5)
    spec = Measure(**SMALL, name="hidden", mask=mask, videos=2)
    videos = spread(run.index.test, 2)
    own = slow_shares(spec, mask, videos, videos)
    assert hidden(spec, run)["hidden"] == pytest.approx(np.nanmean(own))
    # Of two videos, the other one guides.
    shuffled = mask.model_copy(update={"guidance": "shuffled"})
    others = slow_shares(spec, mask, videos, videos[::-1])
    found = hidden(spec.model_copy(update={"mask": shuffled}), run)["hidden"]
    assert found == pytest.approx(np.nanmean(others))
    assert abs(np.nanmean(own) - np.nanmean(others)) > 1
    with pytest.raises(UserError, match="two test videos"):
        hidden(spec.model_copy(update={"mask": shuffled, "videos": 1}), run)


def test_coverage_is_the_share_of_moving_pixels_under_each_mask(trained, tmp_path):
    spec, index = Measure(**SMALL, name="coverage"), trained.index
    found = coverage(spec, trained.context(tmp_path))
    for name in ("mgm", "tube", "warped"):
        mask = Mask(name=name, ratio=MASKS[name].ratio)
        shares = slow_shares(spec, mask, index.test, index.test)
        assert found[f"coverage_{name}"] == pytest.approx(np.nanmean(shares))
    assert found["videos"] == np.isfinite(shares).sum()
    assert len(found) == len(MASKS) + 1


def test_another_seed_hides_other_pixels(trained):
    how = trained.index.test, SMALL["clips"], Grid(2, 3, 3), 2, [Mask(name="tube", ratio=0.5)]
    assert (hidden_motion(*how, seed=0) != hidden_motion(*how, seed=1)).any()


def test_videos_are_spread_over_the_list():
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(2), 3) == [0, 1]


def test_a_clip_without_motion_has_no_share():
    clip = Clip(np.zeros((4, 24, 24, 3), np.uint8), Motion.none(4, 24, 24))
    assert np.isnan(hidden_shares(clip, np.ones((2, 2, 3, 3), bool), 2)).all()


def test_a_mask_that_would_hide_nothing_is_an_error():
    with pytest.raises(UserError, match=r"ratio 0\.01 hides 0 of 9"):
        masks_of([Motion.none(4, 24, 24)], [Mask(name="tube", ratio=0.01)], Grid(2, 3, 3), 2, 1, 0)
