"""From extracts to a corpus on disk: read, cut, merge by tile, picture, write."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import osmium
from tqdm import tqdm

from geojepa.data.catalogue import locate, public, record_of
from geojepa.data.extract import GENERATOR
from geojepa.data.grid import Grid, grid_of_codes, grid_of_footprints, save_grid, take_tiles
from geojepa.data.labels import carried_tasks, tile_labels
from geojepa.data.limits import MAX_ENTITIES, MIN_ENTITIES
from geojepa.data.meaning import TASKS
from geojepa.data.opl import reading
from geojepa.data.pieces import count_entities, merge
from geojepa.data.places import Place, cut_places
from geojepa.data.writing import SCHEMA_VERSION, CorpusWriter, tile_rows
from geojepa.errors import GeoJEPAError, printable
from geojepa.files import place_of, sha256, whole
from geojepa.origin import code_state

if TYPE_CHECKING:
    from geojepa.data.imagery import Imagery

ATTRIBUTION = "© OpenStreetMap contributors, ODbL 1.0"
MADE = "lilliput: a made city, no real place"
# tiles of one lot: images of 150 kB each are held at once
_LOT_TILES, _LOT_IMAGES = 4096, 256


def prepare(
    extracts: Sequence[str | Path],
    out: str | Path,
    footprints: str | Path | None = None,
    imagery: str | Path | None = None,
    credit: str = "",
    simplify: float = 0.0,
    processes: int = 0,
) -> Path:
    """Turn extracts into one corpus: a folder of HF datasets shards, one row a tile.

    Args:
        extracts: OpenStreetMap files, GeoParquet tables of features, URLs, or names of the
            catalogue, one a place.
        out: folder of the corpus; it appears whole or not at all.
        footprints: polygons to cut to, as GeoParquet or any vector file; zoom-16 tiles without.
        imagery: whatever `imagery.open_imagery` takes: a raster, a folder, web tiles, STAC.
        credit: whose the imagery is, as every figure will say; without, what its source says.
        simplify: tolerance in metres to which lines and areas are simplified; 0 for none.
        processes: at work at once; as many as there are cores without.

    Returns:
        The folder.

    Raises:
        GeoJEPAError: for unreadable input, and if no tile holds five entities.
    """
    if not extracts:
        raise GeoJEPAError("no extract given; name at least one .osm.pbf or .parquet file")
    if processes < 0:
        raise GeoJEPAError(f"processes={processes}: give a number, or 0 for as many as cores")
    if not 0 <= simplify <= 10:
        raise GeoJEPAError(f"simplify={simplify}: give metres from 0 to 10")
    out = Path(out)
    if out.exists() and not _is_corpus(out) and not _is_empty_folder(out):
        raise GeoJEPAError(f"{out}: exists and is not a corpus; name another folder")
    sources = [_checked(locate(extract)) for extract in extracts]
    names = [place_of(source) for source in sources]
    for source, name in zip(sources, names, strict=True):
        if names.count(name) > 1:
            raise GeoJEPAError(f"{source}: two extracts are named {name}; rename one")
    with whole(out) as part:
        part.mkdir()
        work = part / "work"
        work.mkdir()
        grid = _read_footprints(Path(footprints)) if footprints else None
        if grid is not None:
            save_grid(grid, work / "footprints.arrow")
        cuts, tags = cut_places(sources, names, work, simplify, processes)
        pairs = sorted(tags)
        tag_number = np.empty(len(tags), dtype=np.int32)
        tag_number[[tags[pair] for pair in pairs]] = np.arange(len(tags))
        with CorpusWriter(part) as writer:
            if imagery:
                from geojepa.data.imagery import open_imagery

                with closing(open_imagery(imagery)) as pictures:
                    places = [_write(cut, grid, tag_number, pictures, writer) for cut in cuts]
                    credit = credit or pictures.credit
                _check_images(imagery, places)
            else:
                places = [_write(cut, grid, tag_number, None, writer) for cut in cuts]
            _check_tiles(places, extracts, footprints)
            content = writer.finish()
        footprint_facts = None
        if footprints and grid is not None:
            met = np.unique(np.concatenate([count_entities(cut.spills)[0] for cut in cuts]))
            footprint_facts = {
                "file": Path(footprints).name,
                "sha256": sha256(footprints),
                "without_a_feature": len(grid.tile_id) - len(met),
            }
        digest = hashlib.sha256(content.encode() + json.dumps(pairs).encode())
        info = {
            "schema": SCHEMA_VERSION,
            "hash": digest.hexdigest()[:16],
            "attribution": MADE if all(p["made"] for p in places) else ATTRIBUTION,
            "imagery": _source_name(imagery) if imagery else None,
            "imagery_credit": credit,
            "footprints": footprint_facts,
            "simplify_m": simplify,
            "geojepa": version("geojepa"),
            "code": code_state(Path(__file__).parent),
            "places": places,
            "vocabulary": pairs,
        }
        (part / "corpus.json").write_text(json.dumps(info))
        del cuts
        shutil.rmtree(work)
    return out


def prepared_text(folder: Path) -> str:
    """What prepare tells when it is done, from what it wrote."""
    info = json.loads((folder / "corpus.json").read_text())
    lines = []
    for place in info["places"]:
        skipped = ", ".join(f"{k}: {n:,}" for k, n in place["skipped"].items()) or "nothing"
        lines.append(
            f"{place['place']}: {place['tiles']:,} tiles, "
            f"{place['tiles_with_image']:,} with image; "
            f"{place['entities']:,} entities of {place['features']:,} features; tiles beyond the "
            f"limits: {place['tiles_below_limit']:,} below, {place['tiles_above_limit']:,} above; "
            f"skipped or repaired: {skipped}"
        )
    lines.append(f"{folder}: prepared (hash {info['hash']}); geojepa inspect tells more")
    return "\n".join(lines)


def _checked(source: Path) -> Path:
    if not source.is_file():
        raise GeoJEPAError(f"{source}: no such file; check the path of the extract")
    if source.stat().st_size == 0:
        raise GeoJEPAError(f"{source}: the file is empty; download or copy the extract again")
    return source


def _is_corpus(path: Path) -> bool:
    """Whether a folder is a corpus, or one of which a workflow has taken away the index."""
    return (path / "corpus.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


def _source_name(imagery: str | Path) -> str:
    """What imagery is called: a file's name, or an address without what may be secret."""
    if ":" in str(imagery) and not Path(imagery).exists():
        return public(str(imagery))
    return Path(imagery).name


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _read_footprints(path: Path) -> Grid:
    import geopandas

    if not path.is_file():
        raise GeoJEPAError(f"{path}: no such footprints; check the path")
    read = geopandas.read_parquet if path.suffix == ".parquet" else geopandas.read_file
    try:
        return grid_of_footprints(read(path))
    except GeoJEPAError as error:
        raise GeoJEPAError(f"{path}: {error}") from error
    except Exception as error:
        reason = f"{error}".splitlines()[0] if f"{error}" else type(error).__name__
        raise GeoJEPAError(
            f"{path}: not readable as polygons ({reason}); write GeoParquet"
        ) from error


def _write(
    cut: Place,
    footprints: Grid | None,
    tag_number: np.ndarray,
    imagery: "Imagery | None",
    writer: CorpusWriter,
) -> dict:
    """Write the tiles of a place; returns what corpus.json says of it."""
    tiles, counts = count_entities(cut.spills)
    kept = counts >= MIN_ENTITIES
    tasks = carried_tasks(cut.said) if cut.is_table else list(TASKS)
    lot_tiles = _LOT_TILES if imagery is None else _LOT_IMAGES
    lots = merge(cut.spills, tiles[kept], counts[kept], tag_number, lot_tiles)
    with_image = 0
    with tqdm(
        total=int(kept.sum()), desc=printable(cut.name), unit=" tiles", disable=None
    ) as progress:
        for rows, pieces in lots:
            chosen = tiles[kept][rows]
            grid = grid_of_codes(chosen) if footprints is None else take_tiles(footprints, chosen)
            labels = tile_labels(pieces, pieces["row"].to_numpy(), len(rows))
            for task in set(TASKS) - set(tasks):
                for rule in ("", "paper_"):
                    labels[f"{rule}{task}"] = np.full(len(rows), np.nan, dtype=np.float32)
            images, has_image = None, np.zeros(len(rows), dtype=bool)
            if imagery is not None:
                images, has_image = imagery.read(grid, np.arange(len(rows)))
            with_image += int(has_image.sum())
            entities = pieces.filter(pieces["is_entity"])
            writer.write(tile_rows(cut.name, grid, labels, entities, images, has_image))
            progress.update(len(rows))
    return {
        "place": cut.name,
        "source_sha256": sha256(cut.source),
        "source": record_of(cut.source),
        "tiles": int(kept.sum()),
        "tiles_with_image": with_image,
        "tiles_below_limit": int((~kept).sum()),
        "tiles_above_limit": int((counts > MAX_ENTITIES).sum()),
        "entities": int(counts[kept].sum()),
        "features": cut.features,
        "tasks": tasks,
        "skipped": {k: v for k, v in sorted(cut.skipped.items()) if v},
        "made": _is_made(cut.source),
    }


def _is_made(extract: Path) -> bool:
    """Whether an extract is of a made city, as its header says."""
    if extract.suffix == ".parquet":
        return False
    with reading(extract, osmium.osm.NOTHING) as reader:
        header = reader.header()
    return header.get("generator") == GENERATOR


def _check_images(imagery: str | Path, places: list[dict]) -> None:
    if not any(place["tiles_with_image"] for place in places) and any(p["tiles"] for p in places):
        raise GeoJEPAError(
            f"{imagery}: the imagery covers no tile of the extract; "
            "give imagery of the same place, or none"
        )


def _check_tiles(
    places: list[dict], extracts: Sequence[str | Path], footprints: str | Path | None
) -> None:
    for place, extract in zip(places, extracts, strict=True):
        if footprints and not place["tiles"] + place["tiles_below_limit"]:
            raise GeoJEPAError(
                f"{footprints}: no feature of {extract} lies in any footprint; "
                "give footprints of the same place"
            )
    if not any(place["tiles"] for place in places):
        where = ", ".join(map(str, extracts))
        raise GeoJEPAError(
            f"{where}: no tile holds {MIN_ENTITIES} entities; give a larger or richer extract"
        )
