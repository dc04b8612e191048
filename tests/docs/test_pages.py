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

from mgm.cli import app
from tests.helpers.videos import moving_square, write_video

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(page.read_text()) if name == language]


def anchor(heading: str) -> str:
    """Return the anchor that GitHub and MkDocs give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target, fragment in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert fragment in map(anchor, headings), f"{target}#{fragment}"


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
