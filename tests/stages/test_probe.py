"""The probe against plain loops."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mgm.stages.evaluate import merged
from mgm.stages.probe import HELD_OUT, PENALTIES, classify, features, fitted, held_out, probe
from tests.stages.conftest import PROBE


def drawn(clips, numbers, classes=3, seed=0):
    """Return features with some information on their labels, and the labels."""
    draw = np.random.default_rng(seed)
    label_N = np.arange(clips) % classes
    x_ND = draw.normal(size=(clips, numbers))
    return x_ND + draw.normal(size=(classes, numbers))[label_N], label_N


@pytest.mark.parametrize("numbers", [5, 80], ids=["more clips", "more numbers"])
@pytest.mark.parametrize("penalty", [1e-4, 1.0])
def test_the_optimum_is_that_of_the_penalised_cross_entropy(numbers, penalty):
    x_ND, label_N = drawn(40, numbers)
    query_MD, _ = drawn(20, numbers, seed=1)
    found = fitted(x_ND, label_N, query_MD, 4, (1.0, penalty))[penalty]
    assert not found[:, 3].any()
    mean, scale = x_ND.mean(0), np.sqrt(x_ND.var(0) + 1e-6)
    plain = LogisticRegression(C=1 / (40 * penalty), tol=1e-9, max_iter=20_000)
    plain.fit((x_ND - mean) / scale, label_N)
    wanted = plain.predict_proba((query_MD - mean) / scale)
    np.testing.assert_allclose(found[:, :3], wanted, atol=2e-3)


def test_the_penalty_is_chosen_on_a_fifth_of_the_groups(trained):
    """The strongest of equally good penalties is chosen. Clips of a group are held out together."""
    videos = [video._replace(group=f"g{n // 3}") for n, video in enumerate(trained.index.train)]
    groups = [video.group for video in videos]
    held = held_out(groups, 5)
    assert len(held) == round(HELD_OUT * len({*groups}))
    assert held == held_out(groups, 5) != held_out(groups, 6)
    x_ND, _ = drawn(2 * len(videos), 6)
    sample_N = np.arange(len(videos)).repeat(2)
    label_N = np.array([video.label for video in videos])[sample_N]
    held_N = np.isin(np.array(groups)[sample_N], held)
    right = {}
    for penalty in PENALTIES:
        found = fitted(x_ND[~held_N], label_N[~held_N], x_ND[held_N], 3, (penalty,))[penalty]
        right[penalty] = (found.argmax(1) == label_N[held_N]).mean()
    _, chosen = classify(videos, x_ND, sample_N, x_ND, 3, 5)
    assert chosen == max(p for p in PENALTIES if right[p] == max(right.values()))


def test_the_penalty_of_a_set_too_small_to_choose_is_the_strongest(trained):
    """Without the held-out videos, one class or none is left."""
    one, other = (next(v for v in trained.index.train if v.label == label) for label in (0, 1))
    for groups in (("a", "b"), ("a", "a")):
        videos = [video._replace(group=group) for video, group in zip((one, other), groups)]
        x_ND, _ = drawn(2, 6)
        score_NC, chosen = classify(videos, x_ND, np.arange(2), x_ND, 3, 5)
        assert chosen == max(PENALTIES)
        assert np.isfinite(score_NC).all()


def test_a_probe_is_its_parts(trained, tmp_path):
    spec = PROBE.model_copy(update={"train_clips": 2, "pool": "grid"})
    run = trained.context(tmp_path)
    metrics = probe(spec, run)
    (x_ND, sample_N), (query_MD, sample_M) = features(spec, run, trained.index.train)
    assert x_ND.shape == (2 * len(trained.index.train), 2 * 3 * 3 * 16)
    classes = len(trained.index.classes)
    score_MC, penalty = classify(trained.index.train, x_ND, sample_N, query_MD, classes, 0)
    label_N = [video.label for video in trained.index.test]
    top1 = 100 * (merged(score_MC, sample_M).argmax(1) == label_N).mean()
    assert metrics == {"top1": pytest.approx(top1), "penalty": penalty}
    assert run.parents.keys() == {spec.parent}
    rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + len(label_N)
    assert rows[1].startswith(f"{trained.index.test[0].name},")
