"""The one exception that users see."""


class GeoJEPAError(ValueError):
    """A mistake in the input: one line that names the file or object, the cause and the remedy."""
