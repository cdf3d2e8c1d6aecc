"""The bones of the sample city: its frame on the globe, its quarters, its river and its corridors.

Plan coordinates are ground metres from the south-west corner, x east, y north.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import shapely
import shapely.ops
from numpy.typing import NDArray
from shapely.geometry import LineString

ZOOM = 16
# North-west zoom-16 tile of the city: open ocean, 40 degrees north, 35 west.
WEST, NORTH = 26_382, 24_804
WORLD = 2 * np.pi * 6_378_137.0
QUARTERS = ("old_town", "commercial", "residential", "industrial", "campus", "park", "farmland")
# Share of the plan's cells, in the order in which cells are dealt out; residential takes the rest.
SHARES = {"farmland": 0.30, "old_town": 0.03, "commercial": 0.09, "industrial": 0.11,
          "campus": 0.04, "park": 0.09}  # fmt: skip
# Cells are about two tiles wide; local streets meet arterials at multiples of 1/24 cell.
STEPS = 24

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """Where the plan lies: `size` x `size` whole tiles, `tile` ground metres each."""

    size: int

    @property
    def scale(self) -> float:
        """Ground metres per mercator metre, at the middle of the city."""
        middle = np.pi * (1 - 2 * (NORTH + self.size / 2) / 2**ZOOM)
        return float(1 / np.cosh(middle))

    @property
    def tile(self) -> float:
        return WORLD / 2**ZOOM * self.scale

    @property
    def side(self) -> float:
        return self.tile * self.size

    @property
    def west_north(self) -> tuple[float, float]:
        """Mercator metres of the north-west corner."""
        step = WORLD / 2**ZOOM
        return WEST * step - WORLD / 2, WORLD / 2 - NORTH * step

    def to_mercator(self, xy: Points) -> Points:
        """Plan metres (n, 2) to EPSG:3857 (n, 2)."""
        west, north = self.west_north
        return np.stack(
            [west + xy[:, 0] / self.scale, north + (xy[:, 1] - self.side) / self.scale], axis=1
        )

    def to_degrees(self, xy: Points) -> Points:
        """Plan metres (n, 2) to longitude, latitude (n, 2), rounded to the 1e-7 of OSM."""
        angle = self.to_mercator(xy) * 2 * np.pi / WORLD
        degrees = np.degrees(np.stack([angle[:, 0], np.arctan(np.sinh(angle[:, 1]))], axis=1))
        return np.round(degrees, 7)


@dataclass(frozen=True)
class Plan:
    """Quarters on a warped grid of cells, and the lines that ignore it."""

    frame: Frame
    seed: int
    columns: Points
    rows: Points
    waves: Points
    quarters: NDArray[np.int64] = field(repr=False)
    river: LineString
    water: shapely.Geometry
    streams: list[LineString]
    motorways: list[LineString]
    railway: LineString

    @property
    def cells(self) -> int:
        return len(self.columns) - 1

    def warp(self, uv: Points) -> Points:
        """Grid metres (..., 2) to plan metres (..., 2)."""
        return warp(uv, self.waves, self.frame.side)

    def cell(self, i: int, j: int, st: Points) -> Points:
        """Fractions (..., 2) of cell (i, j) to plan metres (..., 2)."""
        low = np.array([self.columns[i], self.rows[j]])
        high = np.array([self.columns[i + 1], self.rows[j + 1]])
        return self.warp(low + st * (high - low))

    def quarter_at(self, xy: Points) -> NDArray[np.int64]:
        """Index into QUARTERS at each plan point (n, 2), by inverting the warp."""
        uv = xy.copy()
        for _ in range(12):
            uv = uv + xy - self.warp(uv)
        i = np.clip(np.searchsorted(self.columns, uv[:, 0]) - 1, 0, self.cells - 1)
        j = np.clip(np.searchsorted(self.rows, uv[:, 1]) - 1, 0, self.cells - 1)
        return self.quarters[i, j]

    def tile_quarters(self) -> dict[str, str]:
        """tile_id -> the quarter that covers most of the tile."""
        frame, grid = self.frame, (np.arange(8) + 0.5) / 8
        ids = {}
        for row in range(frame.size):
            for column in range(frame.size):
                x, y = np.meshgrid(column + grid, frame.size - 1 - row + grid)
                points = np.stack([x.ravel(), y.ravel()], axis=1) * frame.tile
                most = np.bincount(self.quarter_at(points), minlength=len(QUARTERS)).argmax()
                ids[f"{ZOOM}_{WEST + column}_{NORTH + row}"] = QUARTERS[most]
        return ids


def warp(uv: Points, waves: Points, side: float) -> Points:
    """Bend the grid by sine waves (n, 6) that die out at the border of the city."""
    taper = np.clip(np.minimum(uv, side - uv).min(axis=-1) / 900, 0, 1)[..., None]
    phase = uv @ waves[:, :2].T + waves[:, 2]
    return uv + taper * (np.sin(phase) @ waves[:, 3:5])


def make_plan(size: int, seed: int) -> Plan:
    """Draw the plan of a city of `size` x `size` tiles."""
    frame, rng = Frame(size), np.random.default_rng([seed, 1])
    side, n = frame.side, max(3, round(size / 2))
    lines = [np.arange(n + 1) * side / n for _ in range(2)]
    for line in lines:
        line[1:-1] += rng.uniform(-0.16, 0.16, n - 1) * side / n
    columns, rows = lines
    length, turn = rng.uniform(3200, 6400, 5), rng.uniform(0, 2 * np.pi, (5, 2))
    waves = np.zeros((5, 5))
    waves[:, 0], waves[:, 1] = np.cos(turn[:, 0]), np.sin(turn[:, 0])
    waves[:, :2] *= 2 * np.pi / length[:, None]
    waves[:, 2] = turn[:, 1]
    waves[:, 3:] = rng.normal(0, 62, (5, 2))

    def along(v: Callable[[Points], Points], axis: int = 0, start: float = 0.0) -> LineString:
        """A line along an axis of the grid: `v` gives the other coordinate at each position."""
        u = np.linspace(start, side, 40 * n + 1)
        other = np.clip(v(u), 0, side)
        return LineString(warp(np.stack([u, other] if axis == 0 else [other, u], 1), waves, side))

    def middle(lines: Points, k: int, share: float = 0.5) -> float:
        return float(lines[k] + share * (lines[k + 1] - lines[k]))

    cell, bed = side / n, n // 2
    low, high = middle(rows, max(bed - 1, 0)), middle(rows, bed, 0.55)
    bends = rng.uniform(0, 2 * np.pi, 3)

    def river_row(u: Points) -> Points:
        fall = 1 / (1 + np.exp((u - 0.62 * side) / (0.05 * side)))
        meander = np.sin(u / 430 + bends[0]) * (0.6 + 0.4 * np.sin(u / 1500 + bends[1]))
        return low + (high - low) * fall + 0.3 * cell * meander

    river = along(river_row)
    motorways = [along(lambda u: middle(columns, n // 4, 0.5) + 60 * np.sin(u / 1900), axis=1)]
    if n >= 6:
        start = middle(columns, n // 4, 0.5)
        motorways.append(
            along(lambda u: middle(rows, n * 3 // 4, 0.5) + 60 * np.sin(u / 2300), 0, start)
        )
    railway = along(lambda u: middle(rows, n // 4, 0.74) + 50 * np.sin(u / 1700))

    streams = []
    for u0 in np.linspace(0, side, max(2, size // 3) + 2)[1:-1]:
        u0, north = u0 + rng.uniform(-0.3, 0.3) * cell, rng.random() < 0.5
        t = np.linspace(0, 1, 60)
        drift = (
            u0
            + rng.uniform(-1, 1) * cell * t**2
            + (70 * np.sin(7 * t + u0) + 40 * np.sin(19 * t)) * t * (1 - t) * 4
        )
        mouth = river_row(np.array([drift[-1]]))[0]
        spring = mouth + (0.55 + 0.4 * rng.random()) * ((side - mouth) if north else -mouth)
        v = spring + (mouth - spring) * t + 35 * np.sin(23 * t) * (1 - t)
        uv = np.clip(np.stack([drift, v], axis=1), 0, side)
        streams.append(LineString(warp(uv, waves, side)))

    width = 40 + 16 * np.sin(np.arange(24) + bends[2])
    banks = shapely.line_interpolate_point(river, np.linspace(0, 1, 25), normalized=True)
    reaches = [
        shapely.ops.substring(river, max(river.project(a) - 3, 0), river.project(b) + 3).buffer(w)
        for a, b, w in zip(banks[:-1], banks[1:], width, strict=True)
    ]
    water = shapely.union_all(reaches).buffer(30).buffer(-30).simplify(2.0)
    quarters = deal_quarters(n, rng)
    return Plan(
        frame, seed, columns, rows, waves, quarters, river, water, streams, motorways, railway
    )


def deal_quarters(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Deal the n x n cells out to the quarters: centre, rings and clusters, with noise."""
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    centre = np.hypot(i - (n - 1) / 2, j - (n - 1) / 2 - 0.3) / (n / 2)
    rough = rng.normal(0, 0.12, (n, n))
    rail = np.abs(j - n // 4)
    spots = rng.uniform(0.2, 0.8, (4, 2)) * n
    near = [np.hypot(i - a, j - b) / n for a, b in spots]
    score = {
        "farmland": -centre - rough,
        "old_town": centre,
        "commercial": centre + 1.5 * rough,
        "industrial": rail / n * 2 + np.abs(centre - 0.6) + rough,
        "campus": np.minimum(near[0], near[1]),
        "park": np.minimum(near[2], near[3]) * 0.6 + np.abs(rough) * 2,
    }
    quarters = np.full((n, n), QUARTERS.index("residential"))
    free = np.ones((n, n), bool)
    for name, share in SHARES.items():
        count = max(1, round(share * n * n))
        taken = np.argsort(np.where(free, score[name], np.inf), axis=None, kind="stable")[:count]
        quarters.ravel()[taken] = QUARTERS.index(name)
        free.ravel()[taken] = False
    return quarters
