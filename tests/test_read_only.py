"""Commands that may not write exit with status 2 and one line that names the place.

Root may write anywhere, so the commands run without root's right to ignore permissions.
"""

import os

import pytest

from mgm.spec import Model
from tests.helpers.fake_results import finish_all, suite
from tests.helpers.programs import ROOT, run

pytestmark = pytest.mark.slow
MERE_USER = (
    ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]
    if os.geteuid() == 0
    else []
)


@pytest.fixture
def here(tmp_path):
    """Yield a folder with results and reports in which nothing may be written."""
    known = suite(seeds=(0,))
    finish_all(tmp_path / "results" / "x", known)
    spec = next(iter(known.specs.values()))
    known.write(tmp_path / "results" / "x")
    (tmp_path / "spec.json").write_text(
        spec.model_copy(
            update={"seed": 9, "model": Model(backbone="toy", width=24, depth=2, heads=4, patch=8)}
        ).model_dump_json()
    )
    (tmp_path / "reports").mkdir()
    (tmp_path / "videos").mkdir()
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield tmp_path
    for folder in folders:
        folder.chmod(0o755)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("mgm report x", "reports/x:"),
        ("mgm sync x", "results/mlflow.db"),
        ("mgm pretrain spec.json --out results/x --data ssv2=videos", "Permission denied"),
        (
            "snakemake --snakefile {root}/workflow/Snakefile --cores 1 --quiet all",
            "results/smoke:",
        ),
    ],
)
def test_one_line_names_the_place(command, named, here):
    done = run([*MERE_USER, *command.format(root=ROOT).split()], cwd=here)
    assert done.returncode == 2, done.stderr
    [line] = [
        line
        for line in done.stderr.splitlines()
        if not line.startswith("Using workflow specific profile")
    ]
    assert line.startswith("mgm: ")
    assert named in line
