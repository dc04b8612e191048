"""Run `mgm` as a module: `python -m mgm`, or `torchrun ... -m mgm`."""

import gc
import os
import re
import signal
import sys
from collections.abc import Callable

from mgm.processes import end_with


def main() -> None:
    """Run the command line. Bad input ends it with one line and status 2.

    Ctrl-C during the import of its libraries ends the process without a traceback.
    """
    # Daemons start programs without standard streams.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if parent := os.environ.pop("MGM_PARENT", ""):
        end_with(int(parent), signal.SIGTERM)
    # By default, garbage collection takes an eighth of the time to start a training.
    gc.set_threshold(50_000)
    # A terminal that cannot show a letter of a name shows a question mark.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    # No option has a single dash, so such a word is the name of a file.
    sys.argv[1:] = [
        f"./{word}" if re.match("-[^-]", word) and os.path.exists(word) else word
        for word in sys.argv[1:]
    ]
    caught = signal.getsignal(signal.SIGINT)
    if caught is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Imported here, so that Ctrl-C is quiet while this takes half a second.
    from mgm.cli import app
    from mgm.cli.base import processes
    from mgm.errors import one_line

    signal.signal(signal.SIGINT, caught)
    try:
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
