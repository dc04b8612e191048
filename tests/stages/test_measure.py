"""Measurements on generated videos, each against an obvious slow version or a known answer."""

import importlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.index import read_index
from mgm.data.synthetic.generator import load_boxes
from mgm.errors import UserError
from mgm.masking import Grid, make_mask
from mgm.models.mae import motion_coverage
from mgm.results.result import examine
from mgm.results.statistics import over_seeds
from mgm.rng import clip_seed
from mgm.spec import MASKS, Data, Mask, Measure
from mgm.stages.guidance import every_mask
from mgm.stages.measure import choose, measure
from mgm.stages.measure.saliency import saliency_score
from mgm.stages.runner import run_all
from mgm.study.recipes import MASK_RATIO
from mgm.video import read_clip, slot_displacement
from mgm.video.transform import view_indices
from tests.helpers.errors import refused
from tests.helpers.small_runs import PARAMS, SMALL
from tests.helpers.videos import indexed, moving_square, write_video

SALIENCY, COVERAGE = (
    importlib.import_module(f"mgm.stages.measure.{name}") for name in ("saliency", "coverage")
)
SIZE_48 = {"frames": 8, "size": 48, "stride": 1}


def spec(name, **changes):
    return Measure(**{**SMALL, "name": name} | changes)


@pytest.fixture
def index(videos):
    return read_index(videos)


@pytest.fixture
def copied(videos, tmp_path):
    """Return a copy of the set, so that a test may change its boxes."""
    return Path(shutil.copytree(videos, tmp_path / "set"))


def test_every_measurement_is_a_run(execution, result_of):
    specs = [spec(name) for name in ("saliency", "coverage")]
    run_all(specs, measure, execution)
    metrics = {one.name: result_of(one)["metrics"] for one in specs}
    assert metrics["saliency"].keys() == {"saliency", "inside", "outside", "videos"}
    assert metrics["coverage"].keys() == {*(f"coverage_{name}" for name in MASKS), "videos"}
    for one in specs:
        assert examine(execution.results / one.run_id, one).state == "finished"
    assert list(result_of(specs[1])["files"]) == ["arrays.npz"]


# saliency


def slow_saliency(index, boxes, videos):
    """Compute saliency pixel by pixel from the decoded frames."""
    motion, pixels = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for video in videos:
        clip = read_clip(video.path, range(video.frames))
        for t in np.flatnonzero(clip.has_motion_T):
            for y in range(clip.height):
                for x in range(clip.width):
                    dx, dy = clip.motion_THW2[t, y // 8, x // 8]
                    drawn = boxes[Path(video.path).stem][t]
                    within = any(
                        top <= y + 0.5 < bottom and left <= x + 0.5 < right
                        for top, left, bottom, right in drawn
                    )
                    motion[within] += (dx**2 + dy**2) ** 0.5 / clip.distance_THW[t, y // 8, x // 8]
                    pixels[within] += 1
    means = {within: motion[within] / pixels[within] for within in (True, False)}
    return {
        "saliency": means[True] / means[False],
        "inside": means[True],
        "outside": means[False],
        "videos": len(videos),
    }


def test_saliency_is_what_a_slow_loop_over_pixels_finds(videos, index):
    chosen = choose(index, 4)
    found = saliency_score(index, videos, chosen)
    assert found == pytest.approx(
        slow_saliency(index, load_boxes(videos), chosen), rel=1e-4
    )  # magnitudes are float32
    assert found["saliency"] > 1  # sprites move; the background pans slowly


def test_a_users_boxes_go_before_the_generators(copied, index):
    index = read_index(copied)
    boxes = load_boxes(copied)
    lines = ["path,frame,top,left,bottom,right"]
    for video in index.test:
        for frame, drawn in enumerate(boxes[Path(video.path).stem]):
            lines += [",".join([index.name(video), str(frame), *map(str, box)]) for box in drawn]
    (copied / "boxes.csv").write_text("\n".join(lines) + "\n")
    both = saliency_score(index, copied, index.test)
    (copied / "boxes.npz").unlink()
    assert both == saliency_score(index, copied, index.test)
    (copied / "boxes.csv").write_text("\n".join(lines[:200]) + "\n")
    assert saliency_score(index, copied, index.test)["videos"] < both["videos"] == 12


def test_bad_boxes_are_one_line(copied):
    index = read_index(copied)
    name, head = index.name(index.test[0]), "path,frame,top,left,bottom,right\n"
    for text, message in [
        (
            "path,frame\n",
            "boxes.csv: its first line is path,frame; write path,frame,top,left,bottom,right",
        ),
        ("", "its first line is ; write"),
        (head + f"{name},0,1,2,3\n", f"line 2 is {name},0,1,2,3; write a path and five numbers"),
        (head + f"{name},0,1,2,3,four\n", "write a path and five numbers"),
        (
            head + "none.mp4,0,1,2,3,4\n",
            "line 2: none.mp4 is not a video of the index",
        ),
        (head + f"{name},12,1,2,3,4\n", f"{name} has 12 frames, no frame 12"),
        (head + f"{name},0,5,2,3,4\n", "the box ends before it begins"),
        (
            head,
            "none of the 12 videos with vectors has boxes",
        ),
        (head + f"{name},1,0,0,0,0\n", "0 pixels lie inside boxes and 1024 outside"),
    ]:
        (copied / "boxes.csv").write_text(text)
        with refused(message):
            saliency_score(index, copied, index.test)
    (copied / "boxes.csv").unlink()
    (copied / "boxes.npz").unlink()
    with pytest.raises(UserError, match=r"boxes\.csv .*boxes\.npz"):
        saliency_score(index, copied, index.test)


def test_videos_are_evenly_spaced(index):
    assert choose(index, 0) == choose(index, 12) == choose(index, 99) == list(index.test)
    assert choose(index, 3) == [index.test[0], index.test[4], index.test[8]]
    blind = replace(
        index, videos=tuple(replace(video, has_vectors=False) for video in index.videos)
    )
    with pytest.raises(UserError, match="ssv2: .*12 test videos .*vectors"):
        choose(blind, 0)


# coverage


def slow_coverage(one, videos):
    """Return coverage in per cent, (masks, clips, slots), computed pixel by pixel.

    It is NaN where nothing moves.
    """
    slots, rows, columns = one.grid
    size, tubelet, patch = one.clips.size, one.model.tubelet, one.model.patch
    share_NBS = np.full((len(MASKS), len(videos), slots), np.nan)
    for b, video in enumerate(videos):
        clip = read_clip(video.path, view_indices(one.clips, video.frames, 0, 1))
        clip = clip.cut_to(size)
        speed_THW = (
            np.linalg.norm(clip.motion_THW2, axis=-1)
            / clip.distance_THW
            * clip.has_motion_T[:, None, None]
        )
        speed_SHW = np.stack(
            [speed_THW[tubelet * s : tubelet * (s + 1)].sum(0) for s in range(slots)]
        )
        cells = speed_SHW.shape[1]
        motion = (clip.motion_THW2, clip.distance_THW, clip.has_motion_T)
        shift_BSHW2 = slot_displacement(*motion, tubelet, one.clips.stride)[None] / size
        for n, name in enumerate(MASKS):
            masked_BL = make_mask(
                Mask(name=name, ratio=MASK_RATIO[name]),
                Grid(*one.grid),
                speed_SHW[None],
                np.array([clip_seed(one.seed, 0, b)]),
                shift_BSHW2,
            )
            masked_SHW = masked_BL.reshape(slots, rows, columns)
            for s in range(slots):
                median, moving, hidden = np.median(speed_SHW[s]), 0, 0
                for y in range(size):
                    for x in range(size):
                        if speed_SHW[s, y * cells // size, x * cells // size] >= median + 0.5:
                            moving += 1
                            hidden += bool(masked_SHW[s, y // patch, x // patch])
                if moving:
                    share_NBS[n, b, s] = 100 * hidden / moving
    return share_NBS


def test_a_camera_that_follows_a_small_object_hides_it_from_uncompensated_guidance(tmp_path):
    """The background moves and the object does not, so raw motion is the background's."""
    videos = []
    for seed in range(4):
        ground = moving_square(1, 96, 240, side=24, seed=seed)[0]
        ground[:, :60] = ground[:, 100:160]  # cover the bright square
        frames_THWC = np.stack([ground[:, 4 * t : 4 * t + 96] for t in range(20)])
        top, left = 24 + 8 * seed, 56 - 8 * seed
        object_HWC = moving_square(1, 16, 16, side=16, seed=seed)[0]
        frames_THWC[:, top : top + 16, left : left + 16] = object_HWC
        videos.append(indexed(write_video(tmp_path / f"{seed}.mp4", frames_THWC, bf=0, g=30), 20))
    for method in ("median", "affine"):
        one = spec("coverage", compensate=method, clips=SMALL["clips"].model_copy(update=SIZE_48))
        found = COVERAGE.coverage(one, videos)[0]
        assert found[f"coverage_mgm-sparse {method}"] > 95
        assert found["coverage_mgm-sparse"] < found[f"coverage_mgm-sparse {method}"] - 15
        assert "coverage_warped median" not in found


@pytest.mark.parametrize("patch", [8, 6])  # as large as a cell of motion vectors, or smaller
def test_coverage_is_what_a_slow_loop_over_pixels_finds(index, patch):
    one = spec("coverage", model=SMALL["model"].model_copy(update={"patch": patch}), seed=3)
    videos = choose(index, 6)
    metrics, arrays = COVERAGE.coverage(one, videos)
    share_NBS = slow_coverage(one, videos)
    assert metrics["videos"] == np.isfinite(share_NBS[0]).any(1).sum() > 1
    assert arrays["names_N"].tolist() == list(MASKS)
    assert arrays["clips_S"].tolist() == np.isfinite(share_NBS[0]).sum(0).tolist()
    for n, name in enumerate(MASKS):
        patches = (24 // patch) ** 2
        hidden = Mask(name=name, ratio=MASK_RATIO[name]).hidden(patches)
        assert arrays["hidden_N"][n] == 100 * hidden / patches
        of_slots = [share_NBS[n, :, s] for s in range(2)]
        per_clip = np.nanmean(share_NBS[n][np.isfinite(share_NBS[n]).any(1)], axis=1)
        for values, keys, at in [
            *(
                (values[np.isfinite(values)], ("share_NS", "low_NS", "high_NS"), (n, s))
                for s, values in enumerate(of_slots)
            ),
            (per_clip, ("overall_N", "overall_low_N", "overall_high_N"), n),
        ]:
            expected = over_seeds(values.tolist()).within(0, 100)
            found = [arrays[key][at] for key in keys]
            bounds = expected[1:3] if expected.has_interval else (np.nan, np.nan)
            # Shares are float32.
            assert found == pytest.approx([expected.mean, *bounds], rel=1e-5, nan_ok=True)
        assert metrics[f"coverage_{name}"] == arrays["overall_N"][n]
    assert metrics["coverage_mgm-sparse"] > metrics["coverage_smm-sparse"]


def test_all_masks_have_the_runs_settings():
    masks = {mask.name: mask for mask in every_mask(Mask(cells="max", compensate="median"))}
    assert [*masks] == [*MASKS]
    assert {mask.compensate for mask in masks.values()} == {"median"}
    assert {name for name, mask in masks.items() if mask.cells == "max"} == {"mgm", "mgm-sparse"}
    assert masks["tube"] == Mask(name="tube", ratio=0.9, compensate="median")


def test_coverage_of_videos_in_which_nothing_moves_is_an_error(monkeypatch, index):
    monkeypatch.setattr(COVERAGE, "MOVES", 1000.0)
    with pytest.raises(UserError, match="12 test videos .*1000.0 pixels"):
        COVERAGE.coverage(spec("coverage"), index.test)


# the command line


@pytest.mark.slow
def test_the_command(videos, tmp_path, monkeypatch):
    def mgm(*words):
        return CliRunner().invoke(app, ["measure", *map(str, words)])

    monkeypatch.setattr(
        importlib.import_module("mgm.stages.measure"),
        "MODELS",
        {"vit-b": SMALL["model"].model_copy(update={"patch": 16})},
    )
    for words, told in (
        (("saliency", "--index", videos), "saliency"),
        (("coverage", "--index", videos), "coverage_mgm"),
    ):
        done = mgm(*words)
        assert done.exit_code == 0, done.exception
        assert told in done.output
    one = spec("coverage", data=Data(dataset="ssv2", digest=PARAMS.digest))
    (tmp_path / "spec.json").write_text(one.model_dump_json())
    assert (
        mgm(
            tmp_path / "spec.json", "--out", tmp_path / "results", "--data", f"ssv2={videos}"
        ).exit_code
        == 0
    )
    assert (tmp_path / "results" / one.run_id / "arrays.npz").exists()
    for words, message in [
        (
            ["salience"],
            "salience: name spec files, or one of saliency, ",
        ),
        (["saliency", "coverage"], "saliency coverage: name spec files, or one of"),
        (
            [tmp_path / "spec.json"],
            "spec.json",
        ),
        (["coverage"], "coverage: has no dataset; add --index DIR"),
    ]:
        assert message in str(mgm(*words).exception), words


def test_logged_coverage_does_not_depend_on_how_a_batch_is_shared():
    """The mean over the parts of a batch is the value of the whole batch.

    A ratio of sums per part would change with the number of processes.
    """
    generator = torch.Generator().manual_seed(0)
    motion = torch.rand(8, 2, 8, 8, generator=generator) * torch.arange(8)[:, None, None, None]
    masked = torch.rand(8, 32, generator=generator) < 0.5
    whole = motion_coverage(masked, motion, (2, 4, 4))
    for shares in (2, 4):
        parts = [
            motion_coverage(own, moved, (2, 4, 4))
            for own, moved in zip(masked.chunk(shares), motion.chunk(shares), strict=True)
        ]
        torch.testing.assert_close(torch.stack(parts).mean(), whole)
    assert motion_coverage(masked[:1], motion[:1], (2, 4, 4)) == masked[0].float().mean()
