"""What stands in the sample city, in the map, in the picture or in both."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

Tags = dict[str, str]


class Thing(NamedTuple):
    """A geometry in plan metres; `tags` None keeps it off the map, `look` None off the picture."""

    geometry: shapely.Geometry
    tags: Tags | None
    look: str | None


@dataclass
class World:
    """Things and relations (tags, [(index of a thing, role)]) in the order they were added."""

    side: float
    things: list[Thing] = field(default_factory=list)
    relations: list[tuple[Tags, list[tuple[int, str]]]] = field(default_factory=list)

    def add(self, geometry: shapely.Geometry, tags: Tags | None, look: str | None = None) -> int:
        self.things.append(Thing(geometry, tags, look))
        return len(self.things) - 1

    def add_points(self, xy: NDArray[np.float64], tags: Tags) -> None:
        """Each row of (n, 2) becomes a node with the same tags."""
        for point in shapely.points(xy):
            self.add(point, tags)

    def clip(self) -> None:
        """Cut everything to the city, one metre inside its border; keep the largest piece."""
        border = shapely.box(1, 1, self.side - 1, self.side - 1)
        inside = shapely.contains_properly(border, [thing.geometry for thing in self.things])
        for k in np.flatnonzero(~inside):
            thing = self.things[k]
            pieces = pieces_of(thing.geometry.intersection(border), thing.geometry.geom_type)
            if pieces:
                self.things[k] = thing._replace(geometry=pieces[0])
            else:
                self.things[k] = Thing(thing.geometry, None, None)


def pieces_of(geometry: shapely.Geometry, kind: str) -> list[shapely.Geometry]:
    """The parts of one geometry type, largest first."""
    parts = [p for p in shapely.get_parts(geometry) if p.geom_type == kind and not p.is_empty]
    return sorted(parts, key=lambda p: -(p.area or p.length))
