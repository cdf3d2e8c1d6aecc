"""Figures, tables and their provenance."""
