"""The one exception that users see."""


class GeoJEPAError(ValueError):
    """A mistake in the input: one line that names the file or object, the cause and the remedy."""

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    r"""Text for a terminal: whatever does not print, such as a line's end, is written as \n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
