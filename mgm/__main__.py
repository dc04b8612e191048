"""`python -m mgm` is `mgm`: what `torchrun ... -m mgm` starts."""

import signal


def main() -> None:
    """Run the command line.

    Ctrl-C while its libraries are imported ends the process as it ends any other, without a
    traceback through them.
    """
    caught = signal.getsignal(signal.SIGINT)
    if caught is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mgm.cli import main as run

    signal.signal(signal.SIGINT, caught)
    run()


if __name__ == "__main__":
    main()
