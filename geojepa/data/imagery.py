"""Aerial images of tiles: from one georeferenced raster, or from image files by name."""

from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from tqdm import tqdm

from geojepa.data.cutting import EQUATOR_M, TILES, Grid
from geojepa.errors import GeoJEPAError

SIZE = 224
_SUFFIXES = (".webp", ".png", ".jpg", ".jpeg", ".tif")
# A tile that the raster covers less than this has no image: black borders are not ground.
_COVERED = 0.98


def read_images(source: str | Path, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Images of all tiles.

    Args:
        source: a raster with a CRS (GeoTIFF, VRT), or a folder of images named by the footprint's
            `image` column or `tile_id`.
        grid: the tiles.

    Returns:
        (T, 224, 224, 3) uint8 and (T,) bool, whether the tile has an image.

    Raises:
        GeoJEPAError: if the source is missing, unreadable, has no CRS or covers no tile.
    """
    source = Path(source)
    if not source.exists():
        raise GeoJEPAError(f"{source}: no such imagery; give a GeoTIFF or a folder of images")
    read = _from_folder if source.is_dir() else _from_raster
    images, has_image = read(source, grid)
    if not has_image.any():
        raise GeoJEPAError(
            f"{source}: the imagery covers no tile of the extract; "
            "give imagery of the same place, or none"
        )
    return images, has_image


def _from_folder(folder: Path, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    images = np.zeros((len(grid.tile_id), SIZE, SIZE, 3), dtype=np.uint8)
    has_image = np.zeros(len(grid.tile_id), dtype=bool)
    root = folder.resolve()
    names = list(zip(grid.image, grid.tile_id, strict=True))
    for row, (image, tile_id) in enumerate(tqdm(names, desc="images", disable=None)):
        options = [image] if image else [tile_id + suffix for suffix in _SUFFIXES]
        paths = [(root / option).resolve() for option in options]
        path = next((p for p in paths if p.is_relative_to(root) and p.is_file()), None)
        if path is None:
            continue
        try:
            with Image.open(path) as picture:
                rgb = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise GeoJEPAError(f"{path}: not a readable image; replace or remove it") from error
        images[row], has_image[row] = np.asarray(rgb), True
    return images, has_image


def _from_raster(path: Path, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    images = np.zeros((len(grid.tile_id), SIZE, SIZE, 3), dtype=np.uint8)
    has_image = np.zeros(len(grid.tile_id), dtype=bool)
    try:
        with rasterio.open(path) as raster:
            if raster.crs is None:
                raise GeoJEPAError(f"{path}: the raster has no CRS; write it with one")
            if raster.count < 3:
                raise GeoJEPAError(f"{path}: the raster has {raster.count} bands; RGB is needed")
            if set(raster.dtypes) != {"uint8"}:
                raise GeoJEPAError(
                    f"{path}: the raster holds {raster.dtypes[0]}; "
                    "scale it to 8 bits, as with gdal_translate -ot Byte -scale"
                )
            for row in tqdm(range(len(images)), desc="images", disable=None):
                rgb, covered = _window(raster, *grid.frame[row])
                if covered >= _COVERED:
                    images[row], has_image[row] = rgb, True
    except rasterio.errors.RasterioError as error:
        raise GeoJEPAError(f"{path}: not a readable raster; give a GeoTIFF with a CRS") from error
    return images, has_image


def _window(
    raster: rasterio.DatasetReader, u: float, v: float, side: float
) -> tuple[np.ndarray, float]:
    """One tile's (224, 224, 3) pixels, area-averaged, and the share that the raster covers."""
    metres = EQUATOR_M / TILES
    left, bottom = u * metres - EQUATOR_M / 2, v * metres - EQUATOR_M / 2
    place = from_bounds(left, bottom, left + side * metres, bottom + side * metres, SIZE, SIZE)
    with WarpedVRT(
        raster,
        crs="EPSG:3857",
        transform=place,
        width=SIZE,
        height=SIZE,
        resampling=Resampling.average,
        add_alpha=ColorInterp.alpha not in raster.colorinterp,
    ) as warped:
        rgb, covered = warped.read([1, 2, 3]), warped.dataset_mask() > 0
    return rgb.transpose(1, 2, 0), float(covered.mean())
