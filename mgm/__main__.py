"""Run `mgm` as a module: `python -m mgm`, or `torchrun ... -m mgm`."""

import signal


def main() -> None:
    """Run the command line.

    Ctrl-C during the import of its libraries ends the process without a traceback.
    """
    caught = signal.getsignal(signal.SIGINT)
    if caught is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mgm.cli import main as run

    signal.signal(signal.SIGINT, caught)
    run()


if __name__ == "__main__":
    main()
