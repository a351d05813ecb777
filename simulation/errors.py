"""The one exception type that reaches a user as a sentence."""


class MTDriveError(Exception):
    """Bad input. The message is one sentence that names the file or value and the cure.

    The command line prints it without a traceback and exits with status 2. Any other
    exception is a defect of MTDrive and keeps its traceback.
    """
