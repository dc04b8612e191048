import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgm.spec import Clips
from mgm.video import sample

LENGTH, FRAMES, STEP = st.integers(1, 300), st.integers(1, 16), st.integers(1, 5)


@given(LENGTH, FRAMES, STEP, st.sampled_from(["stride", "window", "segments"]), st.integers(0, 9))
def test_indices_are_in_range_sorted_and_a_function_of_the_generator(
    n, frames, step, sampling, seed
):
    clips = Clips(frames=frames, stride=step, sampling=sampling)
    one, two = (sample.training_indices(clips, n, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    views = [sample.view_indices(clips, n, view, 3) for view in range(3)]
    for index_T in (one, *views):
        assert index_T.shape == (frames,)
        assert index_T.dtype == np.int64
        assert index_T.min() >= 0
        assert index_T.max() < n
        assert (np.diff(index_T) >= 0).all()


@given(LENGTH, FRAMES, STEP, st.integers(0, 9))
def test_stride_is_exact_where_the_video_is_long_enough(n, frames, step, seed):
    index_T = sample.stride(n, frames, step, np.random.default_rng(seed))
    if n > (frames - 1) * step:
        assert (np.diff(index_T) == step).all()
    else:
        assert index_T.tolist() == [min(t * step, n - 1) for t in range(frames)]


def kinetics_window(n, frames, rate, rng):
    """kinetics.py, line by line."""
    converted = frames * rate
    if n <= converted:
        index = np.linspace(0, n, num=n // rate)
        index = np.concatenate((index, np.ones(frames - n // rate) * n))
        return np.clip(index, 0, n - 1).astype(np.int64)
    end = rng.integers(converted, n)
    start = end - converted
    return np.clip(np.linspace(start, end, num=frames), start, end - 1).astype(np.int64)


@given(LENGTH, FRAMES, STEP, st.integers(0, 9))
def test_window_matches_videomae(n, frames, step, seed):
    fast = sample.window(n, frames, step, np.random.default_rng(seed))
    np.testing.assert_array_equal(
        fast, kinetics_window(n, frames, step, np.random.default_rng(seed))
    )


@given(LENGTH, FRAMES, st.integers(0, 9))
def test_segments_take_one_frame_of_each(n, frames, seed):
    index_T = sample.segments(n, frames, np.random.default_rng(seed))
    if n < frames:
        assert index_T.tolist() == [0] * frames
    else:
        assert (index_T // (n // frames)).tolist() == list(range(frames))


@given(st.integers(1, 300))
def test_segment_views_match_videomae(n):
    """ssv2.py: 32 sorted indices, of which view k takes [k::2]."""
    tick = n / 16
    both = sorted(
        [int(tick / 2 + tick * x) for x in range(16)] + [int(tick * x) for x in range(16)]
    )
    for view in (0, 1):
        assert sample.segment_view(n, 16, view, 2).tolist() == both[view::2]
    assert sample.segment_view(n, 16, 0, 1).tolist() == [
        int(tick / 2 + tick * x) for x in range(16)
    ]


@given(LENGTH, st.integers(1, 5))
def test_stride_views_spread_evenly_from_the_first_frame_to_the_last(n, views):
    starts = [int(sample.stride_view(n, 8, 4, view, views)[0]) for view in range(views)]
    last = [int(sample.stride_view(n, 8, 4, view, views)[-1]) for view in range(views)]
    if n > 28:
        assert all(
            (np.diff(sample.stride_view(n, 8, 4, view, views)) == 4).all() for view in range(views)
        )
    if views > 1:
        assert starts[0] == 0
        assert last[-1] >= n - 4
        assert np.ptp(np.diff(starts)) <= 4


@given(LENGTH, FRAMES, STEP, st.integers(1, 5), st.integers(0, 9))
def test_starts_can_be_multiples_of_a_number(n, frames, step, multiple, seed):
    clips = Clips(frames=frames, stride=step, start_multiple=multiple)
    starts = {
        int(sample.training_indices(clips, n, np.random.default_rng(k))[0])
        for k in range(seed, seed + 30)
    }
    assert all(
        start % multiple == 0 and start <= max(n - (frames - 1) * step - 1, 0) for start in starts
    )
    with pytest.raises(
        ValueError, match="is for sampling stride; set it to 1 for sampling segments"
    ):
        Clips(sampling="segments", start_multiple=multiple + 1)


def test_every_multiple_is_a_start():
    rng = np.random.default_rng(0)
    assert {int(sample.stride(12, 4, 3, rng)[0]) for _ in range(200)} == {0, 1, 2}
    assert {int(sample.stride(30, 4, 3, rng, 4)[0]) for _ in range(200)} == {0, 4, 8, 12, 16, 20}
