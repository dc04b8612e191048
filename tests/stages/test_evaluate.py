from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mgm.errors import UserError
from mgm.spec import Views
from mgm.stages import evaluate
from mgm.stages.evaluate import merged, over_videos, record
from mgm.video.store import read_clips
from mgm.video.track import Track
from mgm.video.transform import view_crop, view_indices
from tests.helpers.small_runs import without_file
from tests.stages.conftest import TUNED


class Loud(nn.Module):
    """Returns logits that are large, and others for each view."""

    def forward(self, frames_BTHWC):
        return 9 * torch.sin(7 * frames_BTHWC.float().mean((1, 2, 3)))


def test_the_test_is_the_mean_softmax_of_each_videos_views(trained, tmp_path):
    """The test equals a slow loop over videos and views. Logits' means have other maxima."""
    model = Loud()
    metrics = evaluate.score(TUNED, trained.context(tmp_path), model)
    wanted, by_logits = [], []
    for video in trained.index.test:
        track = Track(video.track())
        index_VT = [view_indices(TUNED.clips, video.frames, view, 2) for view in range(2)]
        crops = [view_crop(video.height, video.width)] * 2
        frames_VTHWC = read_clips(video.path, track, index_VT, crops, TUNED.clips.size)
        with torch.inference_mode():
            logits_VC = model(torch.from_numpy(frames_VTHWC))
        wanted.append(int(logits_VC.softmax(1).mean(0).argmax()))
        by_logits.append(int(logits_VC.mean(0).argmax()))
    right = [label == video.label for label, video in zip(wanted, trained.index.test)]
    assert metrics == {"top1": pytest.approx(100 * np.mean(right))}
    lines = (tmp_path / "predictions.csv").read_text().splitlines()[1:]
    assert [line.split(",")[-1] for line in lines] == [trained.index.classes[n] for n in wanted]
    assert wanted != by_logits


def test_views_are_merged_by_the_mean_of_probabilities():
    logits_NC = np.array([[9.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 2.0], [0, 3, 0]])
    score_NC = torch.from_numpy(logits_NC).softmax(1).numpy()
    found = merged(score_NC, np.array([1, 0, 1, 0, 1]))
    np.testing.assert_allclose(found, [score_NC[[1, 3]].mean(0), score_NC[[0, 2, 4]].mean(0)])


def test_predictions_of_classes_without_test_videos_are_counted(trained, tmp_path):
    run = trained.context(tmp_path)
    run.index = replace(run.index, classes=(*run.index.classes, "outside, say"))
    count = len(run.index.test)
    score_NC = np.eye(4)[[video.label for video in run.index.test]]
    score_NC[:3] = [0, 0, 0, 1]
    metrics = record(run, score_NC, np.arange(count))
    share = 100 * 3 / count
    assert metrics == {"top1": pytest.approx(100 - share), "outside": pytest.approx(share)}
    assert '"outside, say"' in (tmp_path / "predictions.csv").read_text()


def test_an_unreadable_video_is_left_out_or_an_error(trained, tmp_path):
    videos = list(trained.index.test[:4])
    videos[1] = without_file(videos[1], tmp_path)
    how = TUNED.clips, Views(temporal=1, spatial=1), "cpu"

    def sums(frames_BTHWC):
        return frames_BTHWC.float().mean((1, 2, 3))

    failed = {}
    values, sample_N = over_videos(sums, videos, *how, failed=failed)
    assert (sample_N.tolist(), [*failed]) == ([0, 2, 3], [1])
    whole, _ = over_videos(sums, trained.index.test[:4], *how)
    np.testing.assert_array_equal(values, np.delete(whole, 1, 0))
    with pytest.raises(UserError, match=f"{videos[1].name}: {tmp_path}"):
        over_videos(sums, videos, *how)
