"""The least that reading costs: one pyosmium loop that makes WKB of every tagged object.

`python scripts/bare_loop.py {nodes_and_ways,lean,areas} FILE...` prints how many it made. `lean`
leaves untagged objects to osmium, which drops them before Python sees them; `areas` assembles
areas of closed ways and multipolygon relations besides.
"""

import sys

import osmium


def wkb_of_tagged(path: str, variant: str) -> int:
    """How many tagged objects of a file became WKB."""
    make = osmium.geom.WKBFactory()
    objects = osmium.FileProcessor(path)
    objects = objects.with_areas() if variant == "areas" else objects.with_locations()
    if variant == "lean":
        objects = objects.with_filter(osmium.filter.EmptyTagFilter())
    made = 0
    for item in objects:
        if not item.tags:
            continue
        try:
            if item.is_node():
                make.create_point(item)
            elif item.is_way():
                make.create_linestring(item)
            elif item.is_area():
                make.create_multipolygon(item)
            else:
                continue
        except (osmium.InvalidLocationError, RuntimeError):
            continue
        made += 1
    return made


if __name__ == "__main__":
    print(sum(wkb_of_tagged(path, sys.argv[1]) for path in sys.argv[2:]))
