"""Attention and masking for ragged tiles."""
