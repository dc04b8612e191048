"""README and docs: links lead somewhere, commands exist, examples run, and the site builds."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from mgm.cli import app
from mgm.study.schema import load_study
from tests.helpers.programs import ROOT, blocks, run
from tests.helpers.videos import moving_square, write_video

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = ("CONTRIBUTING", "DEVIATIONS", "CHANGELOG", "SECURITY", "config/README")
OTHERS = [ROOT / f"{name}.md" for name in NAMES]
GIVEN = {"DIR": "videos", "RUN": "weights/mgm", "VIDEO": "video.mp4"}


def anchor(heading: str) -> str:
    """Return the anchor that GitHub and MkDocs give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES + OTHERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for target, fragment in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert fragment in map(anchor, headings), f"{target}#{fragment}"


def test_every_file_that_is_named_exists():
    """Pages, comments and docstrings name files of the repository."""
    named = re.compile(
        r"(?<![\w/.-])((?:mgm|docs|studies|workflow|tests|weights|bench)/[\w./-]*\w\.(?:py|md|yaml|sh))"
    )
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    texts = [name for name in tracked.split() if re.search(r"\.(md|py|yaml|sh|toml)$", name)]
    dead = [
        f"{text}: {name}"
        for text in texts
        if not text.startswith("tests/")
        for name in named.findall((ROOT / text).read_text())
        if not (ROOT / name).exists() and not re.search("NAME|mine", name)
    ]
    assert not dead


def test_the_study_of_the_page_is_one(tmp_path):
    (block,) = blocks(ROOT / "docs" / "own-videos.md", "yaml")
    (tmp_path / "mine.yaml").write_text(block)
    assert load_study(tmp_path / "mine.yaml").study == "mine"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_is_one_that_mgm_takes(page):
    """The program itself parses every `mgm ...` line of a page. None is run."""
    known = typer.main.get_command(app).commands
    for line in "\n".join(blocks(page, "")).splitlines():
        if line.startswith("mgm "):
            name, *words = shlex.split(line, comments=True)[1:]
            try:
                known[name].make_context(name, words)
            except (KeyError, click.ClickException) as error:
                pytest.fail(f"{line}: {error}")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Make a folder with what the pages name."""
    monkeypatch.chdir(tmp_path)
    for name in ("docs", "weights", "results"):
        Path(name).symlink_to(ROOT / name)
    write_video("video.mp4", moving_square(40, 256, 340, side=64))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_cheap_commands_run(page, place):
    """Run the commands that take seconds, and need no download and no run of one's own."""
    for name in ("up", "down"):
        for number in range(5):
            Path("videos", name).mkdir(parents=True, exist_ok=True)
            write_video(f"videos/{name}/{number}.mp4", moving_square(30, seed=number))
    cheap = tuple(
        f"mgm {name} " for name in ("show", "embed", "plan", "new-study", "prepare folder")
    )
    for line in "\n".join(blocks(page, "")).splitlines():
        if line.startswith(cheap) and "--study mine" not in line:
            words = [GIVEN.get(word, word) for word in shlex.split(line, comments=True)]
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, (line, done.output, done.exception)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda p: p.name
)
def test_python_examples_run_and_print_what_the_page_shows(page, place, capsys):
    if page.name == "masks-and-weights.md":
        pytest.importorskip("transformers")
    exec(compile("\n".join(blocks(page, "python")), page.name, "exec"), {})
    for said in blocks(page, "text"):
        assert said in capsys.readouterr().out


def test_the_keys_of_a_study_are_those_of_its_schema():
    made = runpy.run_path(str(ROOT / "docs/keys.py"))
    assert made["PAGE"].read_text() == made["page"](), "python docs/keys.py"


def test_readme_names_the_commands_of_the_suite():
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", text))
    assert {"setup", "reproduce", "test", "dashboard"} <= named <= targets
    known = typer.main.get_command(app).commands
    for line in re.findall(r"`mgm (\w[^`]*)`", text):
        name, *words = shlex.split(line)
        known[name].make_context(name, words)


@pytest.mark.slow
def test_the_site_builds_without_a_network(tmp_path):
    dead = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    words = [
        sys.executable,
        *["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"],
        tmp_path,
    ]
    done = run(words, ROOT, NO_MKDOCS_2_WARNING="1", **dead)
    assert done.returncode == 0, done.stdout + done.stderr
    first = (tmp_path / "index.html").read_text()
    files = re.findall(r'<img [^>]*src="([^"]+)"', first)
    files += re.findall(r'href="(reports/[^"]+)"', first)
    assert {"show.gif", "charts/headline.svg", "reports/mini/index.html"} <= {*files}
    files += re.findall(r'href="(reports/[^"]+)"', (tmp_path / "results.html").read_text())
    assert all((tmp_path / file).is_file() for file in files)
