"""Copies of an extract that can be exported: without what is unsound, and sorted."""

from collections import Counter
from pathlib import Path
from typing import Any

import osmium
from osmium import osm

from geojepa.data.opl import writing

NO_PLACE = "nodes without a location"
NO_TEXT = "objects whose text is not UTF-8"


def copy_sound(source: Path, target: Path, skipped: Counter[str]) -> None:
    """Copy an extract object by object, without those that no writer takes, which are counted."""
    with writing(target) as writer:
        for item in osmium.FileProcessor(str(source.absolute())):
            if isinstance(item, osm.Node) and not item.location.valid():
                skipped[NO_PLACE] += 1
            elif not _is_text(item):
                skipped[NO_TEXT] += 1
            else:
                writer.add(item)


def _is_text(item: Any) -> bool:
    try:
        for tag in item.tags:
            _ = tag.k, tag.v
        for member in item.members if isinstance(item, osm.Relation) else ():
            _ = member.role
    except UnicodeDecodeError:
        return False
    return True


def copy_sorted(source: Path, target: Path) -> None:
    """Copy an extract in the order of types and ids, each object once."""
    merge = osmium.MergeInputReader()
    merge.add_file(str(source.absolute()))
    with writing(target) as writer:
        merge.apply(writer)
