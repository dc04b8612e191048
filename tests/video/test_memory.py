import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mgm.spec import Clips, Mask, Model
from mgm.stages.guidance import guided
from mgm.video.loader import training_loader
from tests.helpers.videos import indexed, moving_square, write_video

CODE = """
import sys, random
from pathlib import Path
import numpy as np
from mgm.errors import UserError
from mgm.video import read_clip

paths = sorted(Path(sys.argv[1]).iterdir())
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4  # KB
random.seed(0)
rss, failed = [], 0
for n in range(2000):
    path = paths[n % len(paths)]
    try:
        read_clip(path, sorted(random.sample(range(12), 4)), motion=path.suffix != ".webm")
    except UserError:
        failed += 1
    rss.append(resident())
assert failed > 400, failed
late = np.array(rss[400:])
print(np.polyfit(np.arange(len(late)), late, 1)[0], late[-1] - late[0])
"""


@pytest.mark.slow
def test_memory_is_flat_over_2000_clips(tmp_path):
    """Resident memory grows by less than 1 KB per clip over the last 80 % of the clips.

    Corrupt files and files with B-frames are among them.
    """
    frames_THWC = moving_square(12)
    write_video(tmp_path / "b.mp4", frames_THWC, bf=2, g=6)
    write_video(tmp_path / "b.avi", frames_THWC, codec="mpeg4", b_frames=2)
    write_video(tmp_path / "b.mpg", frames_THWC, codec="mpeg1video", b_frames=2)
    write_video(tmp_path / "v.webm", frames_THWC, codec="libvpx-vp9")
    data = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    half = len(data) // 2
    (tmp_path / "corrupt.mp4").write_bytes(data[:half] + bytes(200) + data[half + 200 :])
    (tmp_path / "corrupt.avi").write_bytes((tmp_path / "b.avi").read_bytes()[:6500])
    (tmp_path / "noise.mp4").write_bytes(b"noise" * 1000)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = [sys.executable, "-c", CODE, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    slope = float(done.stdout.split()[0])
    assert slope < 1, done.stdout


def test_no_picture_waits_for_the_cycle_collector(tmp_path):
    """Pictures are not in reference cycles, which Python collects about once in 2,000 clips."""
    whole = write_video(tmp_path / "b.mp4", moving_square(12), bf=2, g=6)
    cut = indexed(shutil.copy(whole, tmp_path / "cut.mp4"), 12)
    Path(cut.path).write_bytes(Path(whole).read_bytes()[:2000])
    videos = [indexed(whole, 12), cut]
    clips = Clips(frames=4, size=48, stride=3)
    how = guided(Mask(name="mgm"), clips, Model(patch=8))
    batches = training_loader(videos, clips, seed=0, batch=2, **how)
    first = next(batches)
    assert first.weight_B.sum() == 1  # one readable clip and one cut file
    assert first.motion_BSHW.any()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)  # objects that it would free go to gc.garbage
    try:
        next(batches)
        gc.collect()
        assert [
            item for item in gc.garbage if type(item).__module__.partition(".")[0] == "av"
        ] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
