"""README and docs: links lead somewhere, commands exist, examples run, and the site builds."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from mgm.cli import app
from mgm.dag.cluster import load_cluster
from mgm.report.views import check_views
from mgm.study.load import load_study
from tests.helpers.videos import moving_square, write_video

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = [
    *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "DEVIATIONS", "CHANGELOG", "SECURITY")),
    *(ROOT / folder / "README.md" for folder in ("weights", "results", "reports")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(page.read_text()) if name == language]


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


# docs/extend.md and users make these.
MADE = re.compile(r"checkerboard|views/boxes|bit_rate|centroid|published/clips|NAME|mine\.yaml")
NAMED = re.compile(
    r"(?<![\w/.-])((?:mgm|docs|studies|workflow|tests|weights|bench)/[\w./-]*\w\.(?:py|md|yaml|csv|sh))"
)


def test_every_file_that_is_named_exists():
    """Pages, comments and docstrings name files of the repository."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    texts = [name for name in tracked.split() if re.search(r"\.(md|py|yaml|sh|toml)$", name)]
    dead = [
        f"{text}: {name}"
        for text in texts
        if text not in ("CHANGELOG.md",) and not text.startswith("tests/")
        for name in NAMED.findall((ROOT / text).read_text())
        if not (ROOT / name).exists() and not MADE.search(name)
    ]
    assert not dead


def test_the_cluster_of_the_page_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(ROOT / "docs" / "run-the-paper.md", "yaml")
    Path("mine.yaml").write_text(block)
    assert load_cluster("mine.yaml").jobs["pretrain"].nodes == 4


def test_the_study_of_the_page_is_one(tmp_path):
    (block,) = blocks(ROOT / "docs" / "own-videos.md", "yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(block)
    study = load_study(path)
    check_views(study)
    assert study.rows
    assert study.views


def commands(group=None, words=("mgm",)):
    """Yield the words and the Click command of each command."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        yield (*words, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_is_one_that_mgm_takes(page):
    """The program itself parses every `mgm ...` line of a page. None is run."""
    known = dict(commands())
    for line in "\n".join(blocks(page, "")).splitlines():
        if not line.startswith("mgm "):
            continue
        words = tuple(shlex.split(line, comments=True))
        name = max((name for name in known if name == words[: len(name)]), key=len, default=None)
        assert name, line
        try:
            known[name].make_context(" ".join(name), [*words[len(name) :]])
        except click.ClickException as error:
            pytest.fail(f"{line}: {error.format_message()}")


# Those that take seconds, and need no download and no run of one's own.
CHEAP = ("show", "inspect", "vectors", "embed", "export", "plan", "new-study", "prepare folder")
GIVEN = {"DIR": "videos", "RUN": "weights/mgm", "VIDEO": "video.mp4"}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_cheap_commands_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("docs", "weights"):
        Path(name).symlink_to(ROOT / name)
    write_video("video.mp4", moving_square(40, 96, 128))
    for place in ("up", "down"):
        for number in range(5):
            Path("videos", place).mkdir(parents=True, exist_ok=True)
            write_video(f"videos/{place}/{number}.mp4", moving_square(30, seed=number))
    for line in "\n".join(blocks(page, "")).splitlines():
        if line.startswith(tuple(f"mgm {name} " for name in CHEAP)) and not MADE.search(line):
            words = [GIVEN.get(word, word) for word in shlex.split(line, comments=True)]
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, (line, done.output, done.exception)


# Its example imports transformers, which takes half a minute.
SLOW = {"masks-and-weights.md": pytest.mark.slow}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=SLOW.get(page.name, ()))
        for page in PAGES
        if blocks(page, "python")
    ],
)
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video("video.mp4", moving_square(frames=40, height=256, width=340, side=64))
    Path("weights").symlink_to(ROOT / "weights")
    exec(compile("\n".join(blocks(page, "python")), page.name, "exec"), {})


@pytest.mark.slow
def test_the_site_builds_without_a_network(tmp_path):
    dead = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, **dead, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "quick-start.html").is_file() or (tmp_path / "quick-start").is_dir()
    first = (tmp_path / "index.html").read_text()
    assert "What we found" in first
    pictures = re.findall(r'<img [^>]*src="([^"]+)"', first)
    assert pictures
    assert all((tmp_path / picture).is_file() for picture in pictures)
