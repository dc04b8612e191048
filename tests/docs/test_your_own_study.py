"""The study on docs/your-own-study.md runs as the page says."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.own_videos import own_videos
from tests.helpers.programs import ENVIRONMENT, snakemake

PAGE = Path(__file__).parents[2] / "docs" / "your-own-study.md"


@pytest.mark.slow
def test_the_pages_study_runs_from_a_folder_of_videos_to_its_page(tmp_path):
    own_videos(tmp_path / "clips", tmp_path / "drawn", train=14, test=4)
    code = dict(re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    assert len(code["yaml"].splitlines()) <= 25
    (tmp_path / "mine.yaml").write_text(code["yaml"])
    prepare = code[""].splitlines()[0].replace("DIR", "clips").split()
    mgm = shutil.which("mgm", path=ENVIRONMENT["PATH"])
    subprocess.run([mgm, *prepare[1:]], cwd=tmp_path, env=ENVIRONMENT, check=True)
    command = snakemake(tmp_path, "--config", "study=mine.yaml", "steps=4")
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reports/mine/index.html").stat().st_size > 10_000
    subprocess.run(
        [mgm, "results", "mine", "--csv", "mine.csv"], cwd=tmp_path, env=ENVIRONMENT, check=True
    )
    runs = pd.read_csv(tmp_path / "mine.csv")
    # Three masks and two seeds; a probe of each and of random weights; the controls.
    assert runs.verb.value_counts().to_dict() == {
        "probe": 8,
        "pretrain": 6,
        "measure": 1,
    }
    assert (runs.status == "run").all()
