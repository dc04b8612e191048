"""Run `mgm` as a module: `python -m mgm`, or `torchrun ... -m mgm`."""

# Not `signal`: until main begins, Ctrl-C prints a traceback, and its imports take longer than that.
import _signal as signal  # type: ignore[import-not-found]
import atexit
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _stop(number: int, frame: object) -> None:
    """Stop on Ctrl-C. A second one ends the process at once, also in the code of libraries."""
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line. Bad input ends it with one line and status 2."""
    # Ctrl-C during the imports, which take half a second, ends the process without a traceback.
    if stoppable := signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # By default, garbage collection takes an eighth of the time to start a training.
    gc.set_threshold(50_000)
    # Nor need it look at all modules at the end.
    atexit.register(gc.freeze)
    # A closed stream would give its number to the next file, which lines would then be written to.
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115
    # A terminal that cannot show a letter of a name shows a question mark.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    from mgm.cli import app
    from mgm.cli.base import processes
    from mgm.errors import one_line

    try:
        if stoppable:
            signal.signal(signal.SIGINT, _stop)
        with one_line():
            run: Callable[[], None] = app
            if processes() > 1:
                # Otherwise connecting, and closing connections, print pages of warnings.
                os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
                from torch.distributed.elastic.multiprocessing.errors import record

                # torchrun prints the error of the first process that failed.
                run = record(app)
            run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
