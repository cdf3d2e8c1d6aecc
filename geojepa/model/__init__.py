"""Tokens, positions, encoder, predictor, teacher and losses."""
