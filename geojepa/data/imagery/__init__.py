"""Aerial images of tiles, read a few tiles at a time from files, web tiles or a STAC catalogue."""

from pathlib import Path

from geojepa.data.imagery.folder import FolderImagery
from geojepa.data.imagery.raster import SIZE, Imagery, RasterImagery
from geojepa.data.imagery.stac import StacImagery
from geojepa.data.imagery.web import WebImagery
from geojepa.errors import GeoJEPAError

__all__ = ["SIZE", "Imagery", "open_imagery"]


def open_imagery(source: str | Path) -> Imagery:
    """Open a source of images; nothing is read yet.

    Args:
        source: one of
            a raster that GDAL reads (GeoTIFF, VRT; a path, or a URL);
            a folder of images named by the footprint's `image` column or `tile_id`, or of
            GeoTIFFs;
            `xyz:` and a provider of xyzservices (`xyz:Esri.WorldImagery`), or a URL with {z}, {x}
            and {y}: web tiles;
            `stac:naip`, or `stac:<API>#<collection>`: a search for the newest items.

    Raises:
        GeoJEPAError: if the source is missing, unreadable, has no CRS or is no 8-bit RGB.
    """
    name = str(source)
    kind, _, rest = name.partition(":")
    if kind == "stac":
        return StacImagery(rest)
    if kind == "xyz":
        return WebImagery(rest)
    if "://" in name:
        return WebImagery(name) if "{x}" in name else RasterImagery(name)
    path = Path(source)
    if not path.exists():
        raise GeoJEPAError(f"{path}: no such imagery; give a GeoTIFF or a folder of images")
    return FolderImagery(path) if path.is_dir() else RasterImagery(path)
