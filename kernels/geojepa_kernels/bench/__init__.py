"""How fast the operations are, beside every other way to compute the same."""
