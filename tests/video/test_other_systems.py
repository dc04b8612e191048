"""Vectors, masks and the store where the calls of Linux alone are missing, as on macOS."""

import sys

from tests.helpers.programs import ROOT, run

PROGRAM = """
import ctypes, os
import cv2, numpy as np
import mgm
from mgm.video import decode
from mgm.video.store import read_clips

class Library:
    def __init__(self, *words, **named): pass

ctypes.CDLL = Library
for name in ("sched_getaffinity", "posix_fadvise", "process_cpu_count"):
    if hasattr(os, name):
        delattr(os, name)

clip = mgm.read("docs/walk.mp4", range(16))
assert clip.motion.velocity_THW2.any()
assert mgm.masks(clip.cut_to(224), "mgm").shape == (8, 14, 14)
from typer.testing import CliRunner
from mgm.cli import app
import tempfile, shutil
from pathlib import Path
folder = Path(tempfile.mkdtemp())
for name in ("train", "test"):
    (folder / "videos" / name / "walk").mkdir(parents=True)
    shutil.copy("docs/walk.mp4", folder / "videos" / name / "walk" / f"{name}.mp4")
words = ["show", "docs/walk.mp4", "--out", str(folder / "show.gif")]
assert CliRunner().invoke(app, words).exit_code == 0
words = ["prepare", "folder", "--source", str(folder / "videos"), "--out", str(folder / "data")]
done = CliRunner().invoke(app, [*words, "--processes", "1"])
assert done.exit_code == 0, done.output
from mgm.data.index import read_index
video = read_index(folder / "data").train[0]
frames_NTHWC = read_clips(video.path, video.read_track(), [np.arange(4)], None, 0)
assert frames_NTHWC.shape[1] == 4
shutil.rmtree(folder)
"""


def test_vectors_masks_and_the_store_need_nothing_of_linux():
    done = run([sys.executable, "-c", PROGRAM], ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
