"""The one exception that the commands turn into a message."""


class SeparatorError(Exception):
    """A one-line message that names the file or key, what is wrong, and the fix."""
