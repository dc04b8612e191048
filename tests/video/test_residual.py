import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgm.video import read_pictures
from mgm.video.residual import compensate, read_residuals
from tests.helpers.videos import moving_square, write_video


def grey(frames_THWC: np.ndarray) -> np.ndarray:
    return frames_THWC[..., :1].repeat(3, 3)


def lumas(path) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray()[: frame.height] for frame in container.decode(video=0)]


@given(st.integers(0, 99), st.sampled_from([1, 2, 4]))
def test_compensation_is_that_of_the_slow_version(seed, units):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(3, 12, 2)
    reference_HW = rng.integers(0, 256, (height, width), np.uint8)
    shift_HW2 = rng.integers(-20, 20, (height, width, 2)).astype(np.float32) / units
    found_HW = compensate(reference_HW, shift_HW2)

    def pixel(y, x):
        return float(reference_HW[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    for row, column in np.ndindex(height, width):
        x, y = column + shift_HW2[row, column, 0], row + shift_HW2[row, column, 1]
        left, top = int(np.floor(x)), int(np.floor(y))
        value = sum(
            (1 - abs(y - at_y)) * (1 - abs(x - at_x)) * pixel(at_y, at_x)
            for at_y in (top, top + 1)
            for at_x in (left, left + 1)
        )
        assert found_HW[row, column] == np.floor(value + 0.5)


@pytest.mark.parametrize("b_frames", [0, 2])
def test_whole_vectors_leave_the_exact_residual(tmp_path, b_frames):
    """Compare with a loop over blocks. Losslessly coded pictures have no deblocking."""
    frames = grey(moving_square(16, 64, 96, (4, 2), side=32))
    options = {"qp": 0, "subme": 0, "refs": 1, "weightp": 0, "weightb": 0, "b_pyramid": "none"}
    path = write_video(
        tmp_path / "v.mkv", frames, pix_fmt="yuv420p", b_frames=b_frames, b_adapt=0, **options
    )
    decoded, found = lumas(path), {one.index: one for one in read_residuals(path)}
    kinds = {}
    for picture, _ in read_pictures(path, motion=True):
        vectors = None if picture.vectors is None else picture.vectors.copy()
        kinds[picture.index] = picture.kind, vectors
    references = [index for index, (kind, _) in kinds.items() if kind != "B"]
    assert set(found) == {index for index, (_, vectors) in kinds.items() if vectors is not None}
    explained = 0
    for index, one in found.items():
        kind, vectors = kinds[index]
        assert one.kind == kind
        past = max(at for at in references if at < index)
        future = min((at for at in references if at > index), default=None)
        guesses: dict[tuple[int, int], list[float]] = {}
        skipped = set()
        for v in vectors:
            reference = past if v["source"] < 0 else future
            dx, dy = (int(v[name]) / int(v["motion_scale"]) for name in ("motion_x", "motion_y"))
            top, left = int(v["dst_y"] - v["h"] // 2), int(v["dst_x"] - v["w"] // 2)
            for y in range(max(top, 0), min(top + int(v["h"]), 64)):
                for x in range(max(left, 0), min(left + int(v["w"]), 96)):
                    if dx % 1 or dy % 1 or reference is None:
                        skipped.add((y, x))
                        continue
                    source = min(max(y + int(dy), 0), 63), min(max(x + int(dx), 0), 95)
                    guesses.setdefault((y, x), []).append(float(decoded[reference][source]))
        for (y, x), guess in guesses.items():
            if (y, x) not in skipped:
                expected = int(decoded[index][y, x]) - int(np.floor(np.mean(guess) + 0.5))
                assert one.luma_HW[y, x] == expected
                assert one.predicted_HW[y, x]
                explained += 1
    assert explained > 20_000


def test_motion_that_is_known_leaves_nothing(tmp_path):
    """Inside a square that moves by whole pixels, the residual is zero."""
    frames = grey(moving_square(8, 64, 96, (4, 0), side=48))
    path = write_video(tmp_path / "v.mkv", frames, qp=0, bf=0, refs=1, weightp=0, subme=0)
    residuals = list(read_residuals(path))
    assert len(residuals) == 7
    for residual in residuals:
        left = 8 + 4 * residual.index
        inside_HW = residual.luma_HW[16:48, left + 16 : left + 32]
        assert residual.predicted_HW[16:48, left + 16 : left + 32].all()
        assert not inside_HW.any()


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
def test_the_residual_is_smaller_than_the_change(tmp_path, codec):
    frames = moving_square(12, 64, 96, (3, 1), side=40)
    path = write_video(tmp_path / "v.avi", frames, codec, b_frames=0, gop=12, qmin=2, qmax=2)
    decoded = [luma_HW.astype(int) for luma_HW in lumas(path)]
    residual = change = 0
    for one in read_residuals(path):
        where_HW = one.predicted_HW
        residual += np.abs(one.luma_HW[where_HW]).sum()
        change += np.abs((decoded[one.index] - decoded[one.index - 1])[where_HW]).sum()
    assert residual < change / 3
