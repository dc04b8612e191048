import av
import numpy as np

from mgm.video.picture import ARROW, draw_box, show_vectors, with_arrows, write_gif, write_png
from tests.helpers.videos import moving_square, write_video


def decoded(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_arrows_point_along_the_motion():
    speed_HW2 = np.zeros((8, 8, 2), np.float32)
    speed_HW2[2:4, 2:4] = 5, 0
    arrow_HW = (with_arrows(np.zeros((64, 64, 3), np.uint8), speed_HW2) == ARROW).all(2)
    row_N, column_N = np.nonzero(arrow_HW)
    assert abs(row_N.mean() - 24) < 1
    # 20 pixels long, and its head is on the right.
    assert (column_N.min(), column_N.max()) == (14, 34)
    assert (np.bincount(column_N)[-4:] > 1).any()
    assert (np.bincount(column_N)[14:24] == 1).all()


def test_pictures_are_read_back(tmp_path):
    frames = moving_square(5, 48, 80, side=16)
    write_png(tmp_path / "x.png", frames[0])
    np.testing.assert_array_equal(decoded(tmp_path / "x.png")[0], frames[0])
    # 256 colours: GIF stores these exactly.
    frames[..., 1:] = frames[..., :1]
    write_gif(tmp_path / "x.gif", frames, 10)
    with av.open(str(tmp_path / "x.gif")) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert times == [0, 0.1, 0.2, 0.3, 0.4]
    found = np.stack(decoded(tmp_path / "x.gif"))
    assert np.abs(found.astype(int) - frames).mean() < 2


def test_a_box_outside_the_frame_is_cut():
    frame_HWC = np.zeros((20, 20, 3), np.uint8)
    draw_box(frame_HWC, 20, 10, 12, 8)
    row_N, column_N = np.nonzero(frame_HWC.any(2))
    assert (row_N.min(), row_N.max(), column_N.min(), column_N.max()) == (6, 15, 14, 19)


def test_the_frames_around_the_middle_are_shown(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving_square(40, 64, 96), gop=12)
    show_vectors(path, tmp_path / "v.gif")
    show_vectors(path, tmp_path / "v.png", start=38)
    assert len(decoded(tmp_path / "v.gif")) == 16
    assert decoded(tmp_path / "v.png")[0].shape == (64, 2 * 96 + 4, 3)
