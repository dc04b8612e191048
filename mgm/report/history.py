"""The history of a git repository, read for `mgm verify`.

Files of history have any content: those that cannot be read are passed over.
"""

import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.reading import parse_yaml
from mgm.results.archive import ENDING, Digests, results_in
from mgm.study import CONFIG
from mgm.study.scales import UNSCALED, Scale, load_scale, parse_scale

# Until this commit, lost runs of this repository were run again; older archives have the others.
RERUN = "4c2ec1f15844df4cacf69436e3be3dcd693a8f10"


class Doubt(Exception):
    """Why a prediction, or a whole history, is not believed."""


class History:
    """A git repository, read only. Answers are read once, since commits do not change.

    Raises:
        Doubt: git does not read the repository of `place`.
    """

    def __init__(self, place: Path):
        # Another repository's variables do not count.
        self.env = {key: text for key, text in os.environ.items() if not key.startswith("GIT_")}
        self.root = place
        try:
            top = self._run("rev-parse", "--show-toplevel")
        except FileNotFoundError:
            raise Doubt("git is not installed; install it to check predictions") from None
        if top.returncode:
            raise Doubt(f"{place}: {' '.join(top.stderr.decode(errors='replace').split())}")
        self.root = Path(os.fsdecode(top.stdout.rstrip(b"\n")))
        for name in ("commit", "date", "follows", "studies", "scale", "runs_until"):
            setattr(self, name, cache(getattr(self, name)))

    def _run(self, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = ["git", "--no-replace-objects", "-C", str(self.root), *words]
        return subprocess.run(command, capture_output=True, check=False, env=self.env, input=given)

    def git(self, *words: str, given: bytes = b"") -> bytes | None:
        """Return what git prints; None if it fails."""
        done = self._run(*words, given=given)
        return done.stdout if done.returncode == 0 else None

    def whole(self) -> Iterator[tuple[bool, str]]:
        """Check that the history is here."""
        if (self.git("rev-parse", "--is-shallow-repository") or b"").strip() == b"true":
            yield False, "this clone lacks older commits; `git fetch --unshallow` gets them"

    def commit(self, name: str) -> str:
        """Return the full hash of a commit; empty if there is none. Branches are no commits."""
        if not re.fullmatch("[0-9a-f]{7,40}", name):
            return ""
        known = self.git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        )
        found = (known or b"").decode().strip()
        return found if found.startswith(name) else ""

    def date(self, name: str) -> datetime | None:
        """Return the date of a commit, in UTC; None if the repository lacks it."""
        if not (commit := self.commit(name)):
            return None
        shown = self.git("show", "--no-patch", "--format=%ct", commit) or b"0"
        return datetime.fromtimestamp(int(shown), UTC)

    def follows(self, new: str, old: str) -> bool:
        """Return whether a commit follows another, or is the same."""
        old, new = self.commit(old), self.commit(new)
        return bool(old and new) and self.git("merge-base", "--is-ancestor", old, new) is not None

    def file(self, commit: str, path: str) -> bytes:
        """Return a file of a commit; empty if there is none."""
        return self.git("cat-file", "blob", f"{self.commit(commit) or 'HEAD'}:{path}") or b""

    def studies(self, commit: str) -> list[dict[str, Any]]:
        """Return the studies of a commit, wherever they lie."""
        listed = self.git("ls-tree", "-r", "-z", "--name-only", self.commit(commit)) or b""
        paths = [os.fsdecode(path) for path in listed.split(b"\0")]
        files = (self.file(commit, path) for path in paths if path.endswith((".yaml", ".yml")))
        return [fields for data in files if b"study:" in data for fields in _fields(data)]

    def study(self, commit: str, name: str) -> dict[str, Any]:
        """Return the fields of a study of a commit by its name."""
        return next((one for one in self.studies(commit) if one.get("study") == name), {})

    def scale(self, commit: str, name: str) -> Scale:
        """Return a scale as a commit has it, without fields that a scale no longer has.

        A named one of another repository than this project's is that of the code.
        """
        own = name.endswith((".yaml", ".yml"))
        path = os.path.normpath(name) if own else f"workflow/config/{name}.yaml"
        for fields in _fields(self.file(commit, path)):
            known = {key: fields[key] for key in Scale.model_fields if key in fields}
            return parse_scale(known, f"commit {commit}: {path}")
        if own:
            raise UserError(f"commit {commit}: has no scale {path}")
        return load_scale(CONFIG / f"{name}.yaml") if name else UNSCALED

    @cached_property
    def held(self) -> dict[str, dict[str, str]]:
        """Map each run to its numbers in all of history, each with a file that has them."""
        held, files = defaultdict[str, dict[str, str]](dict), self._files("--all")
        if self.commit(RERUN):
            files = self._files("--all", f"^{RERUN}") | self._files("--no-walk", RERUN)
        for blob, runs in self._results(files).items():
            for run_id, result in runs.items():
                held[run_id].setdefault(result.numbers, files[blob])
        return held

    def runs_until(self, commit: str) -> set[str]:
        """Return the runs with a result in a commit, or in one before it."""
        found = self._results(self._files(self.commit(commit)))
        return {run_id for runs in found.values() for run_id in runs}

    def results_at(self, commit: str, path: str) -> dict[str, Digests]:
        """Return the digests of each run's result in an archive of a commit."""
        name = (self.git("rev-parse", "--verify", "--quiet", f"{commit}:{path}") or b"").decode()
        return self._results(dict.fromkeys(name.split(), path)).get(name.strip(), {})

    def _files(self, *which: str) -> dict[str, str]:
        """Return the archives and results of history, as paths by the names of their blobs."""
        lines = (self.git("rev-list", "--objects", *which) or b"").decode(errors="replace")
        parts = (line.partition(" ") for line in lines.splitlines())
        return {blob: path for blob, _, path in parts if path.endswith((ENDING, "result.json"))}

    def _results(self, files: Mapping[str, str]) -> dict[str, dict[str, Digests]]:
        """Return the digests of each run's result in files of history, by their blobs.

        A damaged file has none.
        """
        new = [blob for blob in files if blob not in _READ]
        data = self.git("cat-file", "--batch", given="\n".join(new).encode()) or b"" if new else b""
        place = 0
        for blob in new:
            # A line such as "HASH blob 1234", the content, and a line feed.
            head, _, _ = data[place : place + 200].partition(b"\n")
            kind, size = (*head.split()[1:], b"", b"0")[:2]
            place += len(head) + 1
            content = data[place : place + int(size)] if kind == b"blob" else b""
            place += int(size) + 1 if kind == b"blob" else 0
            _READ[blob] = results_in(content, files[blob].endswith(ENDING))
        return {blob: _READ[blob] for blob in files}


# The results in files of history. A file never changes.
_READ: dict[str, dict[str, Digests]] = {}


def _fields(data: bytes) -> list[dict[str, Any]]:
    """Return the fields of a YAML file of history, in a list; none if it cannot be read."""
    try:
        return [parse_yaml(data.decode("utf-8-sig"), "a file of history")]
    except (UserError, UnicodeDecodeError):
        return []
