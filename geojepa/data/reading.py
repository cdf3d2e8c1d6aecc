"""Read an OpenStreetMap extract, or a GeoParquet table of features, into whole features."""

from pathlib import Path

import osmium

from geojepa.data.extract import read_extract
from geojepa.data.features import Features
from geojepa.data.table import read_table
from geojepa.errors import GeoJEPAError


def read_features(path: str | Path) -> Features:
    """Read `path` (.osm.pbf, .osm.gz, .osm.bz2, .osm or .parquet).

    Raises:
        GeoJEPAError: if the file is missing, empty, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise GeoJEPAError(f"{path}: no such file; check the path of the extract")
    if path.stat().st_size == 0:
        raise GeoJEPAError(f"{path}: the file is empty; download or copy the extract again")
    if path.suffix == ".parquet":
        return read_table(path)
    try:
        return read_extract(path)
    except (RuntimeError, osmium.InvalidLocationError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GeoJEPAError(
            f"{path}: cannot be read as OpenStreetMap data ({reason}); "
            "it is damaged or of another format: download the extract again"
        ) from error
