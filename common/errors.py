"""Errors that the user can mend. The message is one line: what was found, where, what to do.

Each script turns a UserError into that line and status 2. The others derive from it where they are
raised. Imports nothing.
"""


class UserError(Exception):
    """Something that the user can mend."""


class OptionError(UserError, ValueError):
    """Options that do not go with this machine or with what lies in the folders they name."""


class DataError(UserError, ValueError):
    """Data that cannot be used; the message names the files. skippable: whether it is about one
    picture or video, of which a script may go on without what is damaged."""

    def __init__(self, message: str, skippable: bool = False) -> None:
        super().__init__(message)
        self.skippable = skippable
