"""Requirements of Snakemake's workflow catalogue, and of its users' tools.

The tools are Snakemake's lint, snakedeploy, and Snakemake's own report.
"""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from mgm.dag.study import Workflow
from tests.helpers import programs
from tests.helpers.browser import chromium
from tests.helpers.programs import ROOT, snakemake


def run(*words: str, cwd: Path, **environment: str) -> str:
    done = programs.run([*words], cwd, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_catalogue_finds_what_it_asks_for():
    for name in ("Snakefile", "workflow/Snakefile", "config/README.md", "config/config.yml"):
        assert (ROOT / name).is_file()
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert (ROOT / "config").resolve() == ROOT / "workflow" / "config"


@pytest.mark.slow
def test_the_root_file_makes_everything(tmp_path):
    words = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1", "-n"]
    assert "rule all:" in run(*words, "--directory", str(tmp_path), cwd=tmp_path)


@pytest.mark.slow
def test_lint_finds_nothing(tmp_path):
    assert "in a good condition" in run(*snakemake(tmp_path, "--lint"), cwd=tmp_path)


@pytest.mark.slow
def test_snakedeploy_deploys_it_into_an_empty_folder(tmp_path):
    """Deploy it from a GitHub address. Git is configured to read a local clone instead.

    Snakemake fetches the Snakefile and its rules from that address too.
    """
    served, place = tmp_path / "served" / "someone", tmp_path / "mine"
    run("git", "clone", "--quiet", str(ROOT), str(served / "mgm"), cwd=tmp_path)
    commit = run("git", "rev-parse", "HEAD", cwd=served / "mgm").strip()
    here = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{served.parent.as_uri()}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    run(
        "snakedeploy",
        "deploy-workflow",
        "https://github.com/someone/mgm",
        str(place),
        "--commit",
        commit,
        cwd=tmp_path,
        **here,
    )
    assert commit in (place / "workflow" / "Snakefile").read_text()
    assert {path.name for path in (place / "config").iterdir()} == {
        path.name for path in (ROOT / "config").iterdir()
    }
    assert (place / "profiles" / "default" / "config.yaml").is_file()
    told = run("snakemake", "-n", "--cores", "1", "table4e", cwd=place, **here)
    assert "pretrain-table4e-0-1" in told
    assert not (place / "results").exists()


@pytest.mark.slow
@pytest.mark.chromium
def test_snakemakes_report_opens_without_errors(tmp_path):
    index = str(Workflow({}).places["ucf101"] / "index.json")
    # With the PATH of a shell without the virtual environment.
    run(*snakemake(tmp_path, index), cwd=tmp_path, PATH=os.defpath)
    run(*snakemake(tmp_path, index, "--report", "report.zip"), cwd=tmp_path)
    shutil.unpack_archive(tmp_path / "report.zip", tmp_path / "open")
    (page_file,) = (tmp_path / "open").rglob("report.html")
    faults: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:", "blob:")) or faults.append(request.url)
            ),
        )
        page.on("console", lambda message: message.type != "error" or faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(page_file.as_uri())
        page.wait_for_selector("text=reports/NAME/index.html")
        page.click("text=Statistics")
        page.wait_for_selector("svg.marks, canvas.marks")
    assert not faults
