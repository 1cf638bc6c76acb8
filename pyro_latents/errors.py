"""The one exception of this package that is meant for the person at the keyboard."""


class UserError(ValueError):
    """A mistake the user can mend.

    The message is one line: what is wrong, and what to do about it. The command line prints it
    without a traceback and exits with a non-zero status; in Python it is a ``ValueError``.
    """
