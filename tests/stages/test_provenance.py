"""A result records the commit that made it, and whether its code was changed."""

import os
import subprocess
from pathlib import Path

from mgm.stages import runner


def test_a_tree_is_dirty_by_its_code_and_not_by_its_studies(tmp_path, monkeypatch, capsys):
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *who, *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    code, study = tmp_path / "mgm/stages/runner.py", tmp_path / "studies/mine.yaml"
    for path in (code, study):
        path.parent.mkdir(parents=True)
        path.write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(runner, "__file__", str(code))
    head = git("rev-parse", "HEAD")
    assert runner.git_commit() == (head, False)
    # A hook of another repository, or one in a linked worktree, sets git's variables.
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.setenv(name, str(Path(__file__).parents[2] / ".git"))
    assert runner.git_commit() == (head, False)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name)
    study.write_text("2\n")
    assert runner.git_commit() == (head, False)
    code.write_text("2\n")
    assert runner.git_commit() == (head, True)
    monkeypatch.setattr(
        runner, "__file__", str(Path(tmp_path.parent / "elsewhere/mgm/stages/runner.py"))
    )
    assert runner.git_commit() == ("", False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(runner, "__file__", str(code))
    if os.geteuid() == 0:
        os.chown(tmp_path / ".git", 12345, 12345)
        os.chown(tmp_path, 12345, 12345)
        assert runner.git_commit() == ("", False)
        assert "dubious ownership" in capsys.readouterr().err
