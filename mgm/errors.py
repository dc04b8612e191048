"""The one exception a user is meant to read, and what a command's exit status says to whoever runs it.

    0           done; run again, it says so and does nothing
    1           an error of ours, with its traceback: do not retry, report it
    2           bad input (UserError, one line on stderr), a second writer among it: do not retry, do what the line says
    130         Ctrl-C
    138, 143    SIGUSR1 or SIGTERM: run again. Training has left a checkpoint of its last step and continues there; whatever else was
                going on (the test after finetuning, a probe) is done anew
    137         SIGKILL, out of memory too: run again, it continues from the last checkpoint, at most --checkpoint-s back

A scheduler that retries should so retry at 137, 138 and 143 alone (a process that a signal ends outside training shows as -9, -10, -15
to Python). Several processes of one run (torchrun, srun) all end with the status of the first to end; torchrun itself then says 1.
"""


class UserError(Exception):
    """Bad input. The message is one line: the file or field, both numbers, and the next step.

    The command line prints it without a traceback and exits with status 2.
    """
