"""Paint the sample city as a georeferenced aerial picture, strip by strip."""

from pathlib import Path

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.windows import Window
from scipy.ndimage import map_coordinates

from geojepa.data.city.crossings import WIDTH
from geojepa.data.city.plan import Plan
from geojepa.data.city.world import World
from geojepa.files import whole

# Pixels across a zoom-16 tile: about 2.1 m on the ground, as an image of 224 px a tile asks.
PIXELS = 224
# Order of painting; within a layer, later things lie on top.
LAYERS = ("ground", "field", "green", "school", "grass", "garden", "wood", "pitch", "playground",
          "plaza", "parking", "shadow", "tree", "water", "pond", "stream", "road", "bridge",
          "roof")  # fmt: skip
# Colours to draw from, and the strength of texture in grey levels.
COLOURS: dict[str, tuple[tuple[tuple[int, int, int], ...], float]] = {
    "ground:old_town": (((138, 132, 124),), 7), "ground:commercial": (((140, 138, 132),), 7),
    "ground:residential": (((112, 124, 92), (120, 126, 98), (106, 120, 84)), 11),
    "ground:industrial": (((146, 140, 128), (136, 132, 120)), 9),
    "ground:campus": (((118, 134, 92),), 9), "ground:park": (((98, 128, 74), (106, 130, 80)), 10),
    "ground:farmland": (((140, 142, 96), (126, 136, 86)), 10),
    "field": (((160, 150, 104), (128, 148, 84), (104, 134, 68), (176, 160, 118), (146, 122, 92),
               (150, 158, 98)), 6),
    "green": (((100, 132, 76),), 9), "grass": (((112, 142, 80),), 7),
    "wood": (((54, 80, 46), (60, 88, 50)), 16), "water": (((64, 86, 92),), 4),
    "pond": (((62, 84, 84),), 4), "stream": (((72, 92, 84),), 6),
    "garden": (((116, 138, 82),), 13), "school": (((124, 138, 98),), 9),
    "pitch": (((104, 146, 78), (150, 104, 84), (96, 128, 120)), 3),
    "playground": (((176, 156, 122),), 8), "plaza": (((172, 164, 152),), 5),
    "parking": (((118, 118, 118), (132, 130, 126)), 15),
    "tree": (((58, 86, 48), (70, 98, 54), (50, 76, 44), (84, 104, 58)), 12),
    "roof:old_town": (((168, 98, 76), (154, 88, 70), (178, 112, 84), (140, 120, 108)), 6),
    "roof:commercial": (((196, 194, 188), (168, 168, 166), (212, 210, 206), (150, 144, 138)), 4),
    "roof:residential": (((124, 106, 94), (152, 104, 82), (108, 104, 102), (136, 128, 118),
                          (92, 88, 86)), 6),
    "roof:industrial": (((186, 190, 194), (160, 170, 178), (204, 202, 196), (150, 128, 116)), 4),
    "roof:campus": (((176, 148, 126), (186, 182, 174), (156, 120, 100)), 5),
    "roof:park": (((128, 110, 96),), 5),
    "roof:farmland": (((140, 96, 82), (172, 172, 168), (120, 112, 104)), 5),
    "bridge": (((172, 170, 164),), 4),
}  # fmt: skip
ROADS = {"motorway": (104, 104, 106), "motorway_link": (108, 108, 110), "track": (156, 140, 110),
         "path": (158, 146, 116), "footway": (164, 160, 150), "pedestrian": (166, 156, 144),
         "rail": (110, 98, 90), "cycleway": (136, 128, 122)}  # fmt: skip
ASPHALT, SHADOW = (116, 116, 117), (52, 54, 58)


def _shape(geometry: shapely.Geometry, look: str, rng: np.random.Generator) -> shapely.Geometry:
    layer, _, kind = look.partition(":")
    if layer == "tree":
        return geometry.buffer(rng.uniform(2.2, 5.0), quad_segs=2)
    if layer == "stream":
        return geometry.buffer(2.6, quad_segs=2)
    if layer in ("road", "bridge"):
        extra = 1.4 if layer == "bridge" else 0.0
        return geometry.buffer(WIDTH[kind] / 2 + extra, quad_segs=2, cap_style="flat")
    return geometry


def _strokes(plan: Plan, world: World) -> tuple[list[shapely.Geometry], NDArray[np.float32]]:
    """What to paint, in order, and its colour and texture (n, 4)."""
    rng = np.random.default_rng([plan.seed, 18])
    layers: dict[str, list[tuple[shapely.Geometry, tuple[float, ...]]]] = {k: [] for k in LAYERS}
    for thing in world.things:
        if thing.look is None:
            continue
        layer, _, kind = thing.look.partition(":")
        shape = _shape(thing.geometry, thing.look, rng)
        shade = rng.normal(0, 8 if layer == "ground" else 5)
        if layer == "road":
            colour, texture = ROADS.get(kind, ASPHALT), 4.0
        else:
            colours, texture = COLOURS.get(thing.look, COLOURS.get(layer, (((0, 0, 0),), 0.0)))
            colour = colours[int(rng.integers(len(colours)))]
        if layer == "roof":
            shadow = shapely.transform(shape, lambda xy: xy + np.array([2.4, 3.2]))
            layers["shadow"].append((shadow, (*SHADOW, 3.0)))
        layers[layer].append((shape, (*(c + shade for c in colour), texture)))
        if layer == "bridge":
            inner = thing.geometry.buffer(WIDTH[kind] / 2 - 0.6, quad_segs=2, cap_style="flat")
            layers[layer].append((inner, (*ROADS.get(kind, ASPHALT), 4.0)))
    strokes = [stroke for layer in LAYERS for stroke in layers[layer]]
    return [s for s, _ in strokes], np.array([c for _, c in strokes], np.float32)


def write_imagery(path: Path, plan: Plan, world: World) -> None:
    """GeoTIFF in EPSG:3857, 8-bit RGB, tiled, lossless, one strip of zoom-16 tiles at a time."""
    shapes, colours = _strokes(plan, world)
    tree, frame = shapely.STRtree(shapes), plan.frame
    pixel, side = frame.tile / PIXELS, PIXELS * frame.size
    west, north = frame.west_north
    rng = np.random.default_rng([plan.seed, 19])
    clouds = rng.normal(0, 1, (2, side // 24 + 3, side // 24 + 3)).astype(np.float32)
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 3, "width": side, "height": side,
        "crs": "EPSG:3857", "tiled": True, "blockxsize": PIXELS, "blockysize": PIXELS,
        "transform": Affine(pixel / frame.scale, 0, west, 0, -pixel / frame.scale, north),
        "compress": "deflate", "predictor": 2, "photometric": "RGB",
    }  # fmt: skip
    with whole(path) as part, rasterio.open(part, "w", **profile) as picture:
        picture.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        for row in range(frame.size):
            top = frame.side - row * frame.tile
            strip = shapely.box(0, top - frame.tile, frame.side, top)
            index = np.sort(tree.query(strip))
            ids = rasterize(
                ((shapes[k], n) for n, k in enumerate(index, start=1)),
                out_shape=(PIXELS, side),
                transform=Affine(pixel, 0, 0, 0, -pixel, top),
                dtype="int32",
            )
            table = np.concatenate([np.full((1, 4), 110, np.float32), colours[index]])[ids]
            y, x = np.mgrid[0:PIXELS, 0:side].astype(np.float32) / 24
            where = np.stack([y + row * PIXELS / 24, x])
            broad = map_coordinates(clouds[0], where, order=1)
            fine = rng.integers(-2, 3, (PIXELS, side)).astype(np.float32) / 2
            grey = np.round(fine * table[..., 3]) + 5 * broad
            rgb = np.clip(table[..., :3] + grey[..., None], 0, 255).astype(np.uint8)
            picture.write(np.moveaxis(rgb, 2, 0), window=Window(0, row * PIXELS, side, PIXELS))
