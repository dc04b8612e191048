"""Errors for the user: one exception, printed as one line.

docs/faq.md lists the exit statuses.
"""

import difflib
import errno
import operator
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Errors of a disk without room.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# The modules that each extra of the package installs.
EXTRAS = {
    # First, since what draws masks on videos needs its other modules too.
    "train": ("PIL", "cv2", "safetensors", "torch"),
    "report": (
        *("jinja2", "markupsafe", "PIL", "matplotlib", "mlflow"),
        *("pandas", "pyarrow", "scipy", "seaborn", "sqlalchemy", "tabulate"),
        "threadpoolctl",
    ),
    "suite": ("snakemake", "timm", "torchvision"),
}
# Parts of PyTorch's messages when the disk is full.
FULL_DISK = ("No space left", "unexpected pos", "PytorchStreamWriter failed writing")

MOST_PROCESSES = 1024  # also the most threads per process
LONGEST = 1600  # characters of an error message


class UserError(Exception):
    """Bad input. The message is one line: the file or field, both numbers, and the next step.

    The command line prints it without a traceback and exits with status 2. The message can contain
    names from files of unknown origin, so `plain` makes it safe to print.

    All code that reads files or options may raise it. So docstrings of internal functions list only
    other exceptions.
    """

    def __init__(self, message: str):
        super().__init__(plain(message, LONGEST))


class NoMotion(UserError):
    """A video has no motion of the kind that is asked for, or a wrong one, so a run must stop."""


class LostWorkers(UserError):
    """Worker processes died or hang. What they have read before is whole."""


class WrongValue(UserError, ValueError):
    """An argument of the Python interface has a value that is not possible."""


class WrongType(UserError, TypeError):
    """An argument of the Python interface has a type that is not possible."""


def whole(name: str, value: Any, low: int = 0, high: int = 2**63 - 1) -> int:
    """Return an argument of the Python interface as an int.

    Raises:
        WrongType: it is not a whole number, of Python or of NumPy.
        WrongValue: it is not from `low` to `high`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise WrongType(f"{name} is {value!r}; pass a whole number") from None
    if not low <= number <= high:
        raise WrongValue(f"{name} is {number}; pass a whole number from {low} to {high}")
    return number


def flag(name: str, value: Any) -> bool:
    """Return an argument of the Python interface that is True or False, or raise WrongType."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise WrongType(f"{name} is {value!r}; pass True or False")
    return bool(value)


def several(name: str, values: Any, count: int = 0) -> list[Any]:
    """Return an argument of the Python interface as a list, of `count` items unless that is 0.

    Raises:
        WrongType: it is no sequence, or one of another length.
    """
    try:
        items = list(values)
    except TypeError:
        raise WrongType(f"{name} is {values!r}; pass a sequence") from None
    if count and len(items) != count:
        raise WrongType(f"{name} is {values!r}; pass {count} numbers")
    return items


def path_of(name: str, value: Any) -> Path:
    """Return an argument of the Python interface as a path. Raise WrongType if it is none."""
    if not isinstance(value, str | os.PathLike) or not value:
        raise WrongType(f"{name} is {value!r}; pass a path")
    return Path(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return what to do about a name that does not exist: the most similar one, or all names."""
    names = list(known)
    similar = difflib.get_close_matches(name, names, 1)
    return f"did you mean {similar[0]}?" if similar else f"choose from {', '.join(names) or 'none'}"


def require_new(path: Path, force: bool) -> None:
    """Check that an output does not exist yet, or may be replaced."""
    if path.exists() and not force:
        raise UserError(f"{path}: exists; choose another --out, or replace it by --force")


def plain(text: str, longest: int | None = None) -> str:
    """Return one line that is safe to print.

    Control characters, escape codes and changes of the writing direction are escaped, so that a
    terminal does not act on them. A text longer than `longest` loses its middle.
    """
    if not text.isprintable():
        text = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode()
            for letter in text
        )
    if longest is not None and len(text) > longest:
        text = f"{text[: longest // 2]} ... {text[-longest // 2 :]}"
    return text


@contextmanager
def valid(before: str, then: str = "", below: int = 0) -> Iterator[None]:
    """Turn pydantic's ValidationError into one line, as "field: what is wrong (got VALUE)".

    Args:
        before: text before the fault, such as "FILE: ".
        then: what the user can do about it.
        below: number of leading parts of the field's path to leave out.
    """
    try:
        yield
    except ValueError as error:
        if type(error).__name__ != "ValidationError":
            raise
        first = error.errors()[0]  # type: ignore[attr-defined]
        where = ".".join(str(part) for part in first["loc"][below:])
        if first["type"] == "extra_forbidden":
            fault = f"{where} is not a field; remove it or correct its name"
        else:
            fault = ": ".join(filter(None, (where, first["msg"].removeprefix("Value error, "))))
            if not isinstance(first["input"], dict | list):
                fault += f" (got {first['input']!r})"
        raise UserError(before + "; ".join(filter(None, (fault, then)))) from None


@contextmanager
def one_line() -> Iterator[None]:
    """Turn an error for the user into one line on stderr and exit status 2.

    Other exceptions are bugs of this package and keep their tracebacks.
    """
    try:
        yield
    except Exception as error:
        if not (known := as_user_error(error)):
            raise
        print(f"mgm: {known}", file=sys.stderr)
        sys.exit(2)


def as_user_error(error: BaseException) -> UserError | None:
    """Return an error for the user, or None if the error is a bug of this package.

    Errors for the user are system errors (a full disk, a folder without write access) and extras
    that are not installed.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return UserError("a path contains a NUL character, which is not allowed; correct it")
    if isinstance(error, ModuleNotFoundError):
        module = str(error.name).partition(".")[0]
        extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
        if extra is None:
            return None
        return UserError(f"{module} is not installed; run pip install 'mgm-video[{extra}]'")
    if not (system := system_error(error)):
        return None
    names = (system.filename, system.filename2)
    places = [os.fsdecode(name) for name in names if isinstance(name, str | bytes)]
    why = system.strerror or f"{type(system).__name__}: {system}".splitlines()[0]
    return UserError(": ".join([*places, why]))


def system_error(error: BaseException) -> OSError | None:
    """Return the OSError that an error is or wraps; None if there is none.

    PyTorch and safetensors wrap it in a RuntimeError or in an error of their own.
    """
    if type(error).__name__ in ("RuntimeError", "SafetensorError"):
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            return OSError(code := int(number[1]), os.strerror(code))
        if any(sign in str(error) for sign in FULL_DISK):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = error.__cause__ or error.__context__ or error
    return error if isinstance(error, OSError) else None
