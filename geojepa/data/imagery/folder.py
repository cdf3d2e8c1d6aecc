"""Images from a folder: pictures by name, and a mosaic of the georeferenced rasters in it."""

import re
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
import shapely
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from geojepa.data.grid import Grid
from geojepa.data.imagery.raster import SIZE, UNREADABLE, Imagery, Raster, completed, mosaic, stack
from geojepa.errors import GeoJEPAError

_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg", ".tif")
_OPEN_FILES = 16
_TILE_NAME = re.compile(r"\d+_\d+_\d+")


class FolderImagery(Imagery):
    """A tile takes the picture of its name, else what the folder's rasters hold of its ground.

    A picture is named by the tile's `image`, or by its `tile_id` where that is empty. Rasters are
    the .tif files with a CRS whose name is not a tile's; where they overlap, the one whose name
    sorts last is on top, so that names that begin with a date show the newest.

    Raises:
        GeoJEPAError: if a .tif is unreadable, or georeferenced and no 8-bit RGB.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()
        self._paths = _georeferenced(folder)
        boxes, credits = [], []
        for path in self._paths:
            raster = Raster(path)
            boxes.append(shapely.box(*raster.box))
            credits.append(raster.credit)
            raster.close()
        self._tree = shapely.STRtree(boxes)
        self._open = lru_cache(_OPEN_FILES)(Raster)
        self.credit = "; ".join(dict.fromkeys(filter(None, credits)))

    def read(self, grid: Grid, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return stack([self._tile(grid, row) for row in rows])

    def close(self) -> None:
        self._open.cache_clear()

    def _tile(self, grid: Grid, row: int) -> np.ndarray | None:
        path = self._picture(grid.image[row], grid.tile_id[row])
        if path is not None:
            return _read(path)
        u, v, side = frame = grid.frame[row]
        meeting = np.sort(self._tree.query(shapely.box(u, v, u + side, v + side)))
        return mosaic(frame, (self._open(self._paths[i]) for i in meeting))

    def _picture(self, image: str, tile_id: str) -> Path | None:
        """The file of a name, unless it leads out of the folder."""
        names = [image] if image else [tile_id + suffix for suffix in _SUFFIXES]
        paths = ((self._root / name).resolve() for name in names)
        return next((p for p in paths if p.is_relative_to(self._root) and p.is_file()), None)


def _read(path: Path) -> np.ndarray | None:
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGBA").resize((SIZE, SIZE), Image.Resampling.BOX)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise GeoJEPAError(f"{path}: not a readable image; replace or remove it") from error
    rgba = np.asarray(small)
    return completed(rgba[..., :3], rgba[..., 3] > 0)


def _georeferenced(folder: Path) -> list[Path]:
    """The rasters of a folder, last name first."""
    found = []
    for path in sorted(folder.iterdir(), reverse=True):
        named = path.name.startswith(".") or _TILE_NAME.fullmatch(path.stem)
        if named or path.suffix.lower() not in (".tif", ".tiff"):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(path) as file:
                    if file.crs is not None:
                        found.append(path)
        except UNREADABLE as error:
            raise GeoJEPAError(f"{path}: not a readable raster; replace or remove it") from error
    return found
