"""Objects as the bytes of OpenStreetMap's XML and PBF, without a writer that would refuse them."""

import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import quoteattr

from fuzz_scene import Item

_KINDS = ("node", "way", "relation")


def spoil(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes: flipped, overwritten, removed, repeated, cut off."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(out) + 1)
        length = rng.choice([1, 2, 4, 50])
        what = rng.randrange(8)
        if what == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            out[at : at + length] = rng.randbytes(length)
        elif what == 2:
            del out[at : at + length]
        elif what == 3:
            out[at:at] = out[at : at + length] * rng.choice([1, 1000])
        elif what == 4:
            out[at:at] = rng.randbytes(length)
        elif what == 5:
            out[at : at + length] = rng.choice([b"\x00", b"\xff", b"\x7f"]) * length
        elif what == 6:
            other = rng.randrange(len(out) + 1)
            out[at : at + length] = out[other : other + length]
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def xml(items: Sequence[Item], rng: random.Random) -> bytes:
    """OSM XML; some control characters as references, others raw."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<osm version="0.6" generator="fuzz">']
    for item in items:
        place = [f" {name}={_quoted(str(value), rng)}" for name, value in
                 (("lon", item.lon), ("lat", item.lat)) if value is not None]  # fmt: skip
        lines.append(f'<{item.kind} id="{item.id}" version="1"{"".join(place)}>')
        lines += [f'<nd ref="{ref}"/>' for ref in item.refs]
        lines += [f'<member type="{kind}" ref="{ref}" role={_quoted(role, rng)}/>'
                  for kind, ref, role in item.members]  # fmt: skip
        lines += [f"<tag k={_quoted(k, rng)} v={_quoted(v, rng)}/>" for k, v in item.tags]
        lines.append(f"</{item.kind}>")
    return "\n".join([*lines, "</osm>"]).encode("utf-8", "surrogateescape")


def _quoted(text: str, rng: random.Random) -> str:
    marks = {"\n": "&#10;", "\t": "&#9;"} if rng.random() < 0.9 else {}
    return quoteattr(text, marks)


def pbf(items: Sequence[Item], rng: random.Random, is_spoilt: bool) -> bytes:
    """OSM PBF; with `is_spoilt`, bytes change inside the compressed blocks."""
    header = _text(4, b"OsmSchema-V0.6") + _text(4, b"DenseNodes") + _text(16, b"fuzz")
    blocks = [(b"OSMHeader", header)]
    for start in range(0, len(items), 8000):
        blocks.append((b"OSMData", _block(items[start : start + 8000], rng)))
    chosen = rng.choice([0, 1, 1, 1, len(blocks) - 1]) if is_spoilt else -1
    out = b""
    for i, (kind, block) in enumerate(blocks):
        if i == chosen:
            block = spoil(block, rng)
        size = rng.choice([0, 1 << 30, len(block) + 1]) if is_spoilt and rng.random() < 0.05 else 0
        blob = _number(2, size or len(block)) + _text(3, zlib.compress(block, 1))
        if rng.random() < 0.2:
            blob = _text(1, block)
        head = _text(1, kind) + _number(3, len(blob))
        out += struct.pack(">I", len(head)) + head + blob
    return out


def _block(items: Sequence[Item], rng: random.Random) -> bytes:
    strings: dict[bytes, int] = {b"": 0}

    def number(text: str) -> int:
        return strings.setdefault(text.encode("utf-8", "surrogateescape"), len(strings))

    groups = []
    for run in _runs(items):
        if run[0].kind == "node" and rng.random() < 0.7:
            groups.append(_text(2, _dense(run, number, rng)))
        else:
            field = (1, 3, 4)[_KINDS.index(run[0].kind)]
            groups.append(b"".join(_text(field, _object(item, number, rng)) for item in run))
    table = b"".join(_text(1, text) for text in strings)
    return _text(1, table) + b"".join(_text(2, group) for group in groups)


def _runs(items: Sequence[Item]) -> Iterator[list[Item]]:
    run: list[Item] = []
    for item in items:
        if run and run[0].kind != item.kind:
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _units(degrees: float | str | None, rng: random.Random) -> int:
    wild = [0, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 10**10]
    if isinstance(degrees, float | int) and abs(degrees) < 1e9:
        return round(degrees * 1e7)
    return rng.choice(wild)


def _dense(items: list[Item], number, rng: random.Random) -> bytes:
    tags = b""
    for item in items:
        tags += b"".join(_varint(number(k)) + _varint(number(v)) for k, v in item.tags) + b"\0"
    columns = ([i.id for i in items], [_units(i.lat, rng) for i in items],
               [_units(i.lon, rng) for i in items])  # fmt: skip
    ids, lats, lons = (_deltas(column) for column in columns)
    return _text(1, ids) + _text(8, lats) + _text(9, lons) + _text(10, tags)


def _object(item: Item, number, rng: random.Random) -> bytes:
    out = _number(1, _zigzag(item.id) if item.kind == "node" else item.id)
    out += _text(2, b"".join(_varint(number(k)) for k, _ in item.tags))
    out += _text(3, b"".join(_varint(number(v)) for _, v in item.tags))
    if item.kind == "node":
        places = (_zigzag(_units(place, rng)) for place in (item.lat, item.lon))
        return out + b"".join(_number(8 + i, place) for i, place in enumerate(places))
    if item.kind == "way":
        return out + _text(8, _deltas(item.refs))
    out += _text(8, b"".join(_varint(number(role)) for _, _, role in item.members))
    out += _text(9, _deltas([ref for _, ref, _ in item.members]))
    return out + _text(10, bytes(_KINDS.index(kind) for kind, _, _ in item.members))


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _deltas(values: Sequence[int]) -> bytes:
    before = [0, *values][: len(values)]
    return b"".join(_varint(_zigzag(v - b)) for v, b in zip(values, before, strict=True))


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
