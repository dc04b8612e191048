"""The one exception a user is meant to read."""


class UserError(Exception):
    """Bad input. The message is one line: the file or field, both numbers, and the next step.

    The command line prints it without a traceback and exits with status 2.
    """
