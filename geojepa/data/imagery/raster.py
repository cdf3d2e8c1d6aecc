"""Tiles of georeferenced rasters of any CRS and resolution: windows, area-averaged, mosaics."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from scipy.ndimage import distance_transform_edt

from geojepa.data.grid import EQUATOR_M, TILES, Grid, to_units
from geojepa.errors import GeoJEPAError

SIZE = 224
# what rasterio lets through of a damaged file; ValueError is that of its names and CRS
UNREADABLE = (rasterio.errors.RasterioError, CPLE_BaseError, ValueError)
# A tile that is covered less than this has no image: black borders are not ground.
_COVERED = 0.98
# No bounds reach as far, in any unit; PROJ takes for ever over those of a damaged file.
_EARTH = 1e9


class Imagery(ABC):
    """A source of images of tiles, of which only those asked for are in memory."""

    # the attribution that the source itself demands, "" where it says none
    credit: str = ""

    @abstractmethod
    def read(self, grid: Grid, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images of some tiles; the same pixels whatever else is read with them.

        Args:
            grid: the tiles.
            rows: (n,) which of them.

        Returns:
            (n, 224, 224, 3) uint8, zero where there is no image, and (n,) bool, whether there is.

        Raises:
            GeoJEPAError: if what should be there cannot be read.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Raster:
    """An open raster of 8-bit RGB with a CRS; further bands are not read, a mask is heeded.

    Args:
        path: whatever GDAL opens.
        name: what errors call it.
        remedy: what errors advise if it cannot be read.

    Raises:
        GeoJEPAError: if it is unreadable, has no CRS or is no 8-bit RGB.
    """

    def __init__(
        self,
        path: str | Path,
        name: str = "",
        remedy: str = "give a GeoTIFF with a CRS",
    ) -> None:
        self.name, self._remedy = name or str(path), remedy
        with self._readable():
            self._file = rasterio.open(path)
        wrong = _what_is_wrong(self._file)
        if wrong:
            self._file.close()
            raise GeoJEPAError(f"{self.name}: the raster {wrong}")
        with self._readable():
            self.box = _box(self._file)
        self.credit = " ".join(self._file.tags().get("TIFFTAG_COPYRIGHT", "").split())

    def window(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One tile, (3,) of u, v and side: (224, 224, 3) pixels and which of them are covered.

        A pixel is the mean over its area of what the raster holds there; what is masked counts
        for nothing.
        """
        if not meets(self.box, frame):
            return np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE), bool)
        metres = EQUATOR_M / TILES
        left, bottom = frame[:2] * metres - EQUATOR_M / 2
        side = frame[2] * metres
        return self.read((left, bottom, left + side, bottom + side), SIZE, SIZE)

    def read(
        self, bounds: tuple[float, float, float, float], width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """What lies within left, bottom, right, top in web-mercator metres, averaged over areas.

        Returns:
            (height, width, 3) uint8 pixels and (height, width) bool, which of them are covered.
        """
        with (
            self._readable(),
            WarpedVRT(
                self._file,
                crs="EPSG:3857",
                transform=from_bounds(*bounds, width, height),
                width=width,
                height=height,
                resampling=Resampling.average,
                add_alpha=ColorInterp.alpha not in self._file.colorinterp,
            ) as warped,
        ):
            # dataset_mask() overlooks the alpha of more than four bands
            alpha = warped.colorinterp.index(ColorInterp.alpha) + 1
            *rgb, covered = warped.read([1, 2, 3, alpha])
        return np.stack(rgb, axis=-1), covered > 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except UNREADABLE as error:
            raise GeoJEPAError(f"{self.name}: not a readable raster; {self._remedy}") from error


class RasterImagery(Imagery):
    """Images of tiles from one raster."""

    def __init__(self, path: str | Path) -> None:
        self._raster = Raster(path)
        self.credit = self._raster.credit

    def read(self, grid: Grid, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return stack([mosaic(frame, [self._raster]) for frame in grid.frame[rows]])

    def close(self) -> None:
        self._raster.close()


def mosaic(frame: np.ndarray, rasters: Iterable[Raster]) -> np.ndarray | None:
    """One tile from several rasters: each pixel is the first's that covers it, never a blend."""
    rgb, covered = np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE), bool)
    for raster in rasters:
        pixels, known = raster.window(frame)
        fresh = known & ~covered
        np.copyto(rgb, pixels, where=fresh[..., None])
        covered |= known
        if covered.all():
            break
    return completed(rgb, covered)


def completed(rgb: np.ndarray, covered: np.ndarray) -> np.ndarray | None:
    """An image (224, 224, 3) whose few uncovered pixels take the colour of the nearest covered.

    Returns:
        None where less than 98 % of the tile is covered.
    """
    if covered.mean() < _COVERED:
        return None
    if covered.all():
        return rgb
    row, column = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return rgb[row, column]


def stack(tiles: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 224, 224, 3), zero where there is none, and (n,) whether there is one."""
    images = np.zeros((len(tiles), SIZE, SIZE, 3), np.uint8)
    has_image = np.zeros(len(tiles), dtype=bool)
    for row, tile in enumerate(tiles):
        if tile is not None:
            images[row], has_image[row] = tile, True
    return images, has_image


def meets(box: np.ndarray, frame: np.ndarray) -> bool:
    """Whether a box (4,) of least u, v and greatest u, v has ground in common with a tile (3,)."""
    return bool((box[:2] < frame[:2] + frame[2]).all() and (box[2:] > frame[:2]).all())


def box_in_units(west: float, south: float, east: float, north: float) -> np.ndarray:
    """Bounds in degrees as least u, v and greatest u, v in tile units (4,).

    Bounds that cross the date line reach around the world.
    """
    if west > east:
        west, east = -180.0, 180.0
    return to_units(np.array([[west, south], [east, north]])).reshape(-1)


def _box(file: rasterio.DatasetReader) -> np.ndarray:
    return box_in_units(*transform_bounds(file.crs, "EPSG:4326", *file.bounds))


def _what_is_wrong(file: rasterio.DatasetReader) -> str:
    """Why a raster is no picture of the ground, and the remedy; "" where it is one."""
    if file.crs is None:
        return "has no CRS; write it with one"
    if not np.abs(file.bounds).max() < _EARTH:
        return "lies beyond the Earth; mend its geotransform"
    if ColorInterp.palette in file.colorinterp:
        return "has a palette; expand it, as with gdal_translate -expand rgb"
    if file.count < 3:
        return f"has {file.count} bands; RGB is needed"
    if set(file.dtypes) != {"uint8"}:
        return f"holds {file.dtypes[0]}; scale it to 8 bits, as with gdal_translate -ot Byte -scale"
    return ""
