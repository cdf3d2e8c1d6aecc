"""Extracts made by hand: objects as Python literals, written by osmium."""

from pathlib import Path

import osmium
from osmium.osm import mutable


def node(number: int, lon: float, lat: float, **tags: str) -> mutable.Node:
    """A node; "__" in a key stands for a colon."""
    return mutable.Node(id=number, version=1, location=(lon, lat), tags=_keys(tags))


def way(number: int, nodes: list[int], **tags: str) -> mutable.Way:
    """A way along nodes."""
    return mutable.Way(id=number, version=1, nodes=nodes, tags=_keys(tags))


def relation(number: int, members: list[tuple[str, int, str]], **tags: str) -> mutable.Relation:
    """A relation of members (type "n", "w" or "r", id, role)."""
    return mutable.Relation(id=number, version=1, members=members, tags=_keys(tags))


def write_osm(path: Path, objects: list) -> Path:
    """Write objects in the order given, in the format of the path's suffix."""
    with osmium.SimpleWriter(str(path), overwrite=True) as writer:
        for item in objects:
            writer.add(item)
    return path


def _keys(tags: dict[str, str]) -> dict[str, str]:
    return {key.replace("__", ":"): value for key, value in tags.items()}
