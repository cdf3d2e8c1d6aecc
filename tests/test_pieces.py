"""From features to sorted pieces and back to whole tiles, in lots of any size."""

import numpy as np
import pyarrow as pa
import pytest
import shapely
from handmade import node, way, write_osm

from geojepa.data.corpus import Corpus
from geojepa.data.grid import to_degrees
from geojepa.data.pieces import Spill, count_entities, merge
from geojepa.data.prepare import prepare
from geojepa.errors import GeoJEPAError

U, V = 33000, 2**16 - 1 - 30500


def coast(steps: int) -> list:
    """A winding line of many vertices through two tiles, and six trees in each."""
    along = np.linspace(0.1, 1.9, steps)
    line = np.stack([U + along, V + 0.5 + 0.3 * np.sin(4 * along)], axis=1)
    trees = np.array([[U + x, V + y / 10] for x in (0.3, 1.3) for y in range(1, 7)])
    nodes = [node(k + 1, *place) for k, place in enumerate(to_degrees(line))]
    more = [
        node(steps + k + 1, *place, natural="tree") for k, place in enumerate(to_degrees(trees))
    ]
    return [*nodes, *more, way(1, [k + 1 for k in range(steps)], natural="coastline")]


def lines(corpus) -> list:
    data = corpus.read(np.arange(len(corpus)))
    return data.geometry[data.kind == 1].tolist()


def test_simplified_outlines_stay_within_the_tolerance(tmp_path):
    path = write_osm(tmp_path / "a.osm.pbf", coast(400))
    whole = Corpus.open(prepare([path], tmp_path / "whole"))
    before, ground = lines(whole), whole.tiles.ground_m.iloc[0]
    for metres in (0.3, 3.0):
        simple = Corpus.open(prepare([path], tmp_path / "simple", simplify=metres))
        for a, b in zip(before, lines(simple), strict=True):
            assert shapely.get_num_points(b) < 0.5 * shapely.get_num_points(a)
            assert shapely.hausdorff_distance(a, b) * ground <= metres * 1.001
        assert simple.infos[0]["simplify_m"] == metres
        assert simple.hash != whole.hash
    with pytest.raises(GeoJEPAError, match="metres from 0 to 10"):
        prepare([path], tmp_path / "simple", simplify=-1)


def test_shares_of_a_line_are_those_of_its_length(tmp_path):
    path = write_osm(tmp_path / "a.osm.pbf", coast(50))
    corpus = Corpus.open(prepare([path], tmp_path / "c"))
    data = corpus.read(np.arange(len(corpus)))
    is_line = data.kind == 1
    length = shapely.length(data.geometry[is_line])
    np.testing.assert_allclose(data.share[is_line], length / length.sum(), rtol=1e-5)
    assert (data.share[~is_line] == 1).all()


def test_lots_hold_whole_tiles_and_every_piece_once(tmp_path):
    rng = np.random.default_rng(0)
    tile = np.sort(rng.integers(0, 60, 900)) * 7
    spills = []
    for part in np.array_split(rng.permutation(900), 4):
        part.sort()
        table = pa.table(
            {
                "tile": tile[part],
                "key": rng.permutation(len(part)),
                "feature_id": [f"way/{i}" for i in part],
                "is_entity": rng.random(len(part)) < 0.9,
                "tags": pa.array([[0, 1]] * len(part), pa.list_(pa.int32())),
            }
        )
        # a tag of its own, and one that all share
        spills.append(Spill(table, tile[part], np.array([len(spills), 4])))
    tiles, counts = count_entities(spills)
    kept = counts >= 5
    number = np.array([1, 2, 3, 4, 0], dtype=np.int32)
    expected = None
    for max_tiles, max_entities in ((1, 10**6), (7, 10**6), (100, 40), (3, 55), (100, 10**6)):
        found = []
        for rows, pieces in merge(
            spills, tiles[kept], counts[kept], number, max_tiles, max_entities
        ):
            assert len(rows) <= max_tiles
            assert (tiles[kept][rows][pieces["row"].to_numpy()] == pieces["tile"].to_numpy()).all()
            assert all(a == 0 and b > 0 for a, b in pieces["tags"].to_pylist())
            found += pieces["feature_id"].to_pylist()
        assert sorted(found) == sorted(
            f"way/{i}" for i in np.flatnonzero(np.isin(tile, tiles[kept]))
        )
        expected = expected or found
        assert found == expected
