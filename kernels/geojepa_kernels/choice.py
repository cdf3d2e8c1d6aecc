"""Which implementation of an operation runs."""

IMPLS = ("auto", "reference")


def check_impl(impl: str) -> None:
    """Fails at once on an implementation that does not exist."""
    if impl not in IMPLS:
        raise ValueError(f"impl={impl!r} does not exist: choose one of {', '.join(IMPLS)}")
