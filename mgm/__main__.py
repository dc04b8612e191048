"""Run `mgm` as a module: `python -m mgm`, or `torchrun ... -m mgm`."""

import gc
import signal
import sys


def main() -> None:
    """Run the command line. Bad input ends it with one line and status 2.

    Ctrl-C during the import of its libraries ends the process without a traceback.
    """
    # By default, garbage collection takes an eighth of the time to start a training.
    gc.set_threshold(50_000)
    # A terminal that cannot show a letter of a name shows a question mark.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    caught = signal.getsignal(signal.SIGINT)
    if caught is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Imported here, so that Ctrl-C is quiet while this takes half a second.
    from mgm.cli import app
    from mgm.errors import one_line

    signal.signal(signal.SIGINT, caught)
    try:
        with one_line():
            app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
