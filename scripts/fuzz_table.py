"""Small GeoParquet tables, and ways to spoil them before they are written."""

import io
import json
import random
import struct
from collections.abc import Callable

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import shapely

SIDE = 0.002
_TEXTS = ["", "yes", " ", "x\ny", "\x00", "\x1b[31m", "../..", "<b>", "é" * 300, "nan", "1e999",
          "x" * 1_000_000, "%0a%", "\ud7ff", "\U0010ffff", "-5"]  # fmt: skip
_NAMES = ["geometry", "feature_id", "id", "element", "", " ", "\n", "index", "__index_level_0__",
          "building", "geometry_2", "\x00", "tile", "type"]  # fmt: skip
Table = pa.Table


def town(rng: random.Random) -> Table:
    """Points, lines and buildings of one tile or two, as geopandas writes them."""
    west, south = rng.choice([(11.2, 55.7), (-74.0, 40.7), (0.0, 0.0), (179.99, -16.5), (25, 84)])
    rows = []
    for k in range(rng.choice([12, 30])):
        x, y = west + rng.random() * SIDE, south + rng.random() * SIDE
        line = shapely.LineString([(x, y), (x + SIDE / 2, y), (x, y + SIDE / 3)])
        shape = (shapely.Point(x, y), line, shapely.box(x, y, x + 3e-4, y + 2e-4))[k % 3]
        kind = [("shop", "books"), ("highway", "service"), ("building", "yes")][k % 3]
        rows.append({"feature_id": f"way/{k}", "geometry": shape, kind[0]: kind[1], "maxspeed": k})
    table = geopandas.GeoDataFrame(rows, crs=4326)
    file = io.BytesIO()
    table.to_parquet(file)
    return pa.parquet.read_table(io.BytesIO(file.getvalue()))


def _shapes(rng: random.Random) -> list[bytes | None]:
    """Well-known binary of odd and of broken geometries."""
    nan, inf = float("nan"), float("inf")
    nested = shapely.GeometryCollection([shapely.Point(11.2, 55.7)])
    for _ in range(rng.choice([3, 200])):
        nested = shapely.GeometryCollection([nested, shapely.Point(11.2, 55.7)])
    square = shapely.box(11.2, 55.7, 11.201, 55.701)
    shapes = [
        shapely.Point(), shapely.Point(nan, nan), shapely.Point(0, inf),
        shapely.Point(1e300, 1e300), shapely.Point(11.2, 55.7, 9), shapely.Point(11.2, 90), nested,
        shapely.Point(180, -90), shapely.box(0, 0, 9, 9),
        shapely.LineString(), shapely.LineString([(11.2, 55.7)] * 3), shapely.MultiPoint(),
        shapely.LineString([(-179.9, 80), (179.9, -80)]), shapely.box(-180, -90, 180, 90),
        shapely.LineString([(11.2, 55.7), (nan, 55.7), (11.3, 55.8)]),
        shapely.LineString([((-170, 170)[k % 2], k % 80) for k in range(2000)]),
        shapely.Polygon([(11.2, 55.7), (11.3, 55.8), (11.3, 55.7), (11.2, 55.8)]),
        shapely.Polygon([(11.2, 55.7)] * 4), square.exterior, shapely.force_3d(square, 7.0),
        shapely.Polygon(shapely.box(11.2, 55.7, 11.3, 55.8).exterior, [square.exterior] * 3),
        shapely.MultiPolygon([square, square]), shapely.GeometryCollection(),
        shapely.GeometryCollection([square, shapely.MultiLineString([[(0, 0), (1e-3, 0)]])]),
    ]  # fmt: skip
    good = shapely.to_wkb(square)
    broken = [b"", b"\x01", good[:-9], good + b"x", rng.randbytes(40), b"\x00" * 30, None,
              struct.pack("<BII", 1, 3, 2**31), struct.pack("<BI", 1, 8) + good[5:],
              struct.pack("<BII", 1, 7, 1) * 5000, good.replace(b"\x03", b"\x07")]  # fmt: skip
    usual = [shapely.to_wkb(shape) for shape in shapes]
    return usual if rng.random() < 0.6 else usual + broken


def odd_geometry(table: Table, rng: random.Random) -> Table:
    shapes, column = _shapes(rng), table["geometry"].cast(pa.binary()).to_pylist()
    for _ in range(rng.choice([1, 4, 30])):
        column[rng.randrange(len(column))] = rng.choice(shapes)
    return _put(table, "geometry", pa.array(column, pa.binary()))


def no_geometry(table: Table, rng: random.Random) -> Table:
    wrong = [pa.nulls(len(table)), pa.array(["POINT (1 2)"] * len(table)),
             pa.array(range(len(table))), pa.nulls(len(table), pa.binary())]  # fmt: skip
    return _put(table, "geometry", rng.choice(wrong))


def odd_column(table: Table, rng: random.Random) -> Table:
    n = len(table)
    columns: list[Callable[[], pa.Array]] = [
        lambda: pa.array([rng.choice(_TEXTS) for _ in range(n)]),
        lambda: pa.array([rng.randbytes(4) for _ in range(n)]),
        lambda: pa.array([{"a": k, "b": None} for k in range(n)]),
        lambda: pa.array([["a", None]] * n),
        lambda: pa.array([[("k", "v")]] * n, pa.map_(pa.string(), pa.string())),
        lambda: pa.array([rng.choice([float("nan"), float("inf"), 1e300, -0.0]) for _ in range(n)]),
        lambda: pa.array([2**63 - k - 1 for k in range(n)]),
        lambda: pa.array(np.arange(n).astype("datetime64[ns]")),
        lambda: pa.array([k % 2 == 0 for k in range(n)]),
        lambda: pa.array(["a", "b"]).take(pa.array([k % 2 for k in range(n)])).dictionary_encode(),
        lambda: pa.nulls(n),
        lambda: pa.array([b"\xff\xfe%d" % k for k in range(n)], pa.binary()).view(pa.string()),
        lambda: pa.array(np.zeros(n, "timedelta64[s]")),
        lambda: pa.array(["same"] * n),
        lambda: pa.array([None, *["x"] * (n - 1)]),
    ]
    for _ in range(rng.choice([1, 3])):
        name = rng.choice([*_NAMES[1:], "maxspeed", "highway"])
        table = _put(table, name, rng.choice(columns)())
    return table


def many_columns(table: Table, rng: random.Random) -> Table:
    names = [f"key{k}" for k in range(3000)]
    values = [pa.array(["v"] * len(table))] * len(names)
    metadata = table.schema.metadata
    both = [*table.columns, *values], [*table.column_names, *names]
    return pa.table(both[0], names=both[1]).replace_schema_metadata(metadata)


def twice_a_column(table: Table, rng: random.Random) -> Table:
    name = rng.choice(table.column_names)
    return table.append_column(name, table[name])


def no_rows(table: Table, rng: random.Random) -> Table:
    return table.slice(0, rng.choice([0, 1]))


def repeated_rows(table: Table, rng: random.Random) -> Table:
    return pa.concat_tables([table] * rng.choice([2, 400]))


def odd_metadata(table: Table, rng: random.Random) -> Table:
    metadata = dict(table.schema.metadata)
    geo = json.loads(metadata[b"geo"])
    column = geo["columns"]["geometry"]
    what = rng.randrange(9)
    if what == 0:
        del metadata[b"geo"]
    elif what == 1:
        metadata[b"geo"] = rng.choice([b"", b"{}", b"[]", b"\xff", b"[" * 50_000, b"null", b"7"])
    elif what == 2:
        column["crs"] = rng.choice(
            [None, {}, "EPSG:3031", "EPSG:99999", 7, {"type": "GeographicCRS"}]
        )
    elif what == 3:
        column["encoding"] = rng.choice(["WKT", "point", None, 5])
    elif what == 4:
        geo["primary_column"] = rng.choice(["nothing", None, "feature_id", 5])
    elif what == 5:
        geo["version"] = rng.choice(["99.0.0", None, "x", 5])
    elif what == 6:
        column["geometry_types"] = column["bbox"] = rng.choice([None, "x", [1e300]])
    elif what == 7:
        metadata[b"pandas"] = rng.choice([b"", b"{}", b"\xff", b"[]", metadata[b"pandas"][:-4]])
    else:
        geo["columns"] = rng.choice([{}, None, {"other": column}, []])
    if what > 1 and what != 7:
        metadata[b"geo"] = json.dumps(geo).encode()
    return table.replace_schema_metadata(metadata)


def odd_index(table: Table, rng: random.Random) -> Table:
    count = len(table)
    ids = rng.choice(
        [list(range(count)), [1] * count, [None] * count, [2**62 + k for k in range(count)]]
    )
    kinds = [rng.choice(["node", "way", "\n", ""]) for _ in range(count)]
    table = _put(_put(table, "element", pa.array(kinds)), "id", pa.array(ids))
    metadata = dict(table.schema.metadata)
    about = json.loads(metadata[b"pandas"]) | {"index_columns": ["element", "id"]}
    metadata[b"pandas"] = json.dumps(about).encode()
    return table.replace_schema_metadata(metadata)


def _put(table: Table, name: str, column: pa.Array) -> Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)


MUTATIONS: list[Callable[[Table, random.Random], Table]] = [
    odd_geometry, odd_geometry, no_geometry, odd_column, odd_column, many_columns, twice_a_column,
    no_rows, repeated_rows, odd_metadata, odd_index,
]  # fmt: skip


def parquet(table: Table, rng: random.Random) -> bytes:
    """The table as a file."""
    file = io.BytesIO()
    pa.parquet.write_table(
        table,
        file,
        compression=rng.choice(["none", "snappy", "zstd", "gzip"]),
        row_group_size=rng.choice([None, 4]),
        use_dictionary=rng.random() < 0.5,
    )
    return file.getvalue()
