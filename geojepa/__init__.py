"""GeoJEPA: self-supervised joint-embedding prediction over map entities and aerial images."""

from typing import Any

__all__ = ["Corpus", "embed_entities", "embed_regions", "load", "prepare", "pretrain"]

# Loaded on first use: the command line should answer before torch is imported.
_HOMES = {
    "Corpus": "geojepa.data.corpus",
    "embed_entities": "geojepa.model.embedding",
    "embed_regions": "geojepa.model.embedding",
    "load": "geojepa.training.checkpoint",
    "prepare": "geojepa.data.prepare",
    "pretrain": "geojepa.training.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'geojepa' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
