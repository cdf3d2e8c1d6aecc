"""Embeddings, probes, baselines and metrics."""
