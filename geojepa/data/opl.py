"""OpenStreetMap objects in columns, by way of OPL, osmium's text format of one line an object.

osmium reads, locates, filters and writes OPL in C++ without a Python object a node; Arrow reads
the text in columns (https://osmcode.org/opl-file-format/). A million objects take a second.
"""

import ctypes
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

import numpy as np
import osmium
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from geojepa.data.vocabulary import Pair, Tagging, Vocabulary

_OPTIONS = "opl,add_metadata=version,locations_on_ways=true"
# also shows objects in the state "deleted", which only files with history should hold
_COLUMNS = {
    b"n": ("id", "version", "visible", "tags", "lon", "lat"),
    b"w": ("id", "version", "visible", "tags", "nodes"),
    b"r": ("id", "version", "visible", "tags", "members"),
}
_ESCAPE = re.compile(r"%([0-9a-fA-F]+)%")
# nNUMBERxLONyLAT,... of a way becomes a line a node: NUMBER,LON,LAT
_NODE_LINES = bytes.maketrans(b"N,xy", b"\n\n,,")


def write_opl(
    source: Path, target: Path, entities: osmium.osm.osm_entity_bits, *handlers: object
) -> None:
    """Write the objects of an OSM file, through osmium's handlers and filters, as OPL."""
    with (
        reading(source, entities) as reader,
        writing(target, _OPTIONS) as writer,
    ):
        osmium.apply(reader, *handlers, writer)


def reading(path: Path, entities: osmium.osm.osm_entity_bits) -> osmium.io.Reader:
    """A reader of an OSM file."""
    # absolute, for osmium takes a name such as "http:a" for an address, and "-" for a pipe
    return osmium.io.Reader(str(path.absolute()), entities)


@contextmanager
def writing(path: Path, options: str = "pbf") -> Iterator[osmium.SimpleWriter]:
    """A writer of an OSM file, closed at the end.

    Raises:
        OSError: if there is no room for the file.
    """
    writer = osmium.SimpleWriter(osmium.io.File(str(path.absolute()), options))
    try:
        yield writer
    finally:
        try:
            writer.close()
        except BaseException:
            # the end of a writer that has failed would be the end of the process
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(writer))
            # a full disk, which osmium does not tell from bad input, is full for others as well
            with open(path, "ab") as file:
                file.write(bytes(1 << 20))
            raise


def blocks(path: Path, size: int) -> Iterator[tuple[int, int]]:
    """Byte ranges of about `size` that hold whole lines."""
    end = path.stat().st_size
    with open(path, "rb") as file:
        start = 0
        while start < end:
            file.seek(min(start + size, end))
            file.readline()
            stop = file.tell()
            yield start, stop
            start = stop


def read_text(path: Path, start: int = 0, stop: int | None = None) -> bytes:
    """A range of lines."""
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(-1 if stop is None else stop - start)


def names_of(text: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the n lines of a text tell at their beginning.

    Returns:
        Whether each is a way (n,), its id (n,) int64, and where lines start in the text (n + 1,).
    """
    letters = np.frombuffer(text, np.uint8)
    starts = np.append(0, np.flatnonzero(letters == ord("\n")) + 1)
    at = starts[:-1] + 1
    is_negative = letters[at] == ord("-")
    at = at + is_negative
    ids = np.zeros(len(at), dtype=np.int64)
    while (is_digit := letters[at] != ord(" ")).any():
        ids = np.where(is_digit, 10 * ids + letters[at] - ord("0"), ids)
        at = at + is_digit
    return letters[starts[:-1]] == ord("w"), np.where(is_negative, -ids, ids), starts


def read_block(path: Path, start: int = 0, stop: int | None = None) -> dict[bytes, pa.Table]:
    """Objects of a range of lines by kind b"n", b"w" or b"r", each a table of text columns."""
    text = read_text(path, start, stop)
    found = {}
    kinds = [kind for kind in _COLUMNS if text.startswith(kind) or b"\n" + kind in text]
    for kind, later in zip_longest(kinds, kinds[1:]):
        cut = len(text) if later is None else text.index(b"\n" + later) + 1
        found[kind] = _table(text[:cut], _COLUMNS[kind])
        text = text[cut:]
    return found


def _table(text: bytes, columns: Sequence[str]) -> pa.Table:
    return pa.csv.read_csv(
        pa.BufferReader(text),
        read_options=pa.csv.ReadOptions(
            column_names=columns, block_size=len(text) + 1, use_threads=False
        ),
        parse_options=pa.csv.ParseOptions(delimiter=" ", quote_char=False),
        convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
    ).combine_chunks()


def _after_letter(column: pa.ChunkedArray) -> pa.Array:
    """The text of a column without the letter that names it."""
    return pc.binary_replace_slice(column.combine_chunks(), 0, 1, "")


def ids_of(table: pa.Table) -> np.ndarray:
    """(n,) int64."""
    return _after_letter(table["id"]).cast(pa.int64()).to_numpy()


def tags_of(table: pa.Table, vocabulary: Vocabulary) -> Tagging:
    """What the tags of n objects say."""
    text = _after_letter(table["tags"])
    lists = pc.split_pattern(text, ",")
    offsets = lists.offsets.to_numpy()
    # an object without tags is one empty string
    empty = pc.equal(text, "").to_numpy(zero_copy_only=False)
    values = lists.flatten()
    if empty.any():
        values = values.filter(pc.not_equal(values, ""))
        offsets = offsets - np.concatenate([[0], np.cumsum(empty)])
    encoded = pc.dictionary_encode(values)
    distinct = [_pair(tag) for tag in encoded.dictionary.to_pylist()]
    return vocabulary.describe(distinct, encoded.indices.to_numpy(), offsets.astype(np.int64))


def _pair(text: str) -> Pair:
    key, _, value = text.partition("=")
    return (_plain(key), _plain(value)) if "%" in text else (key, value)


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)


def places_of(table: pa.Table) -> np.ndarray:
    """(n, 2) float64 degrees of nodes, NaN where there is no location."""
    text = [_after_letter(table[name]) for name in ("lon", "lat")]
    values = [pc.if_else(pc.equal(column, ""), "nan", column) for column in text]
    return np.stack([value.cast(pa.float64()).to_numpy() for value in values], axis=1)


def lines_of(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes of n ways: ids (m,), degrees (m, 2) with NaN where missing, and offsets (n + 1,)."""
    nodes = table["nodes"].combine_chunks()
    count = pc.count_substring(nodes, "x").to_numpy(zero_copy_only=False)
    cu = np.concatenate([[0], np.cumsum(count, dtype=np.int64)])
    first, last = (int(i) for i in np.frombuffer(nodes.buffers()[1], np.int32)[[0, len(nodes)]])
    text = nodes.buffers()[2][first:last].to_pybytes().translate(_NODE_LINES, b"n")
    if not cu[-1]:
        return np.empty(0, np.int64), np.empty((0, 2)), cu
    names = ("id", "lon", "lat")
    read = pa.csv.read_csv(
        pa.BufferReader(text),
        read_options=pa.csv.ReadOptions(
            column_names=names, block_size=len(text) + 1, use_threads=False
        ),
        convert_options=pa.csv.ConvertOptions(
            column_types={"id": pa.int64(), "lon": pa.float64(), "lat": pa.float64()}
        ),
    )
    places = [read[name].to_numpy(zero_copy_only=False) for name in ("lon", "lat")]
    return read["id"].to_numpy(), np.stack(places, axis=1), cu


def missing_nodes(text: bytes) -> list[int]:
    """Nodes without a place among the nodes of ways."""
    found = []
    at = text.find(b"xy")
    while at >= 0:
        start = text.rfind(b"n", 0, at)
        is_node = text[start - 1 : start] in (b"N", b",") and text[at + 2 : at + 3] in (b",", b"\n")
        if is_node and (number := text[start + 1 : at]).removeprefix(b"-").isdigit():
            found.append(int(number))
        at = text.find(b"xy", at + 2)
    return found


def members_of(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct members of n relations in order.

    Returns:
        Elements (m,), 0 node, 1 way or 2 relation; ids (m,); and offsets (n + 1,).
    """
    lists = pc.split_pattern(_after_letter(table["members"]), ",")
    row = np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))
    text = lists.flatten()
    is_member = pc.not_equal(text, "")
    text, row = text.filter(is_member), row[is_member.to_numpy(zero_copy_only=False)]
    parts = pc.split_pattern(text, "@", max_splits=1)
    name = pc.list_element(parts, 0)
    letter = pc.binary_replace_slice(name, 1, 1 << 20, "").to_numpy(zero_copy_only=False)
    element = np.select([letter == "n", letter == "w"], [0, 1], 2)
    ref = _after_letter(pa.chunked_array([name])).cast(pa.int64()).to_numpy()
    # a relation may repeat a member; the first counts
    _, first = np.unique(np.stack([row, element, ref]), axis=1, return_index=True)
    first.sort()
    cu = np.append(0, np.cumsum(np.bincount(row[first], minlength=len(lists))))
    return element[first], ref[first], cu
