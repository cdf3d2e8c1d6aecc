"""Images from a STAC API such as NAIP's: the newest item of each place, read over HTTP."""

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from threading import Lock
from urllib.parse import urljoin, urlsplit

import numpy as np
import rasterio

from geojepa.data.grid import TILES, Grid, to_degrees
from geojepa.data.imagery import web
from geojepa.data.imagery.raster import Imagery, Raster, box_in_units, meets, mosaic, stack
from geojepa.errors import GeoJEPAError

PLANETARY_COMPUTER = "https://planetarycomputer.microsoft.com/api/stac/v1"
TOKENS = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
_CREDITS = {"naip": "USDA NAIP"}
_ASSETS = ("image", "visual")
# Tiles a search is wide: what a tile gets depends on its cell, never on its batch.
_CELL = 16
_PAGE = 250
_OPEN_FILES = 8
# ca_m_3712214_ne_10_060_20200524: place, resolution, date of the flight and perhaps of release
_NAIP_ID = re.compile(r"(.+?)_(?:h|\d{1,3})_\d{8}(?:_\d{8})?")


@dataclass(frozen=True, eq=False)
class Item:
    """A raster of the catalogue; `box` is least u, v and greatest u, v in tile units."""

    name: str
    href: str
    box: np.ndarray


class StacImagery(Imagery):
    """The newest item of each quarter quad (or footprint), newest on top where they overlap.

    Args:
        source: `naip`, at the Planetary Computer, or `<API>#<collection>`. A collection's picture
            is its asset `image` or `visual`: an 8-bit RGB GeoTIFF.

    Raises:
        GeoJEPAError: if the API or the collection is not there.
    """

    def __init__(self, source: str) -> None:
        api, _, self._collection = source.rpartition("#")
        self._api = api.rstrip("/") or PLANETARY_COMPUTER
        if not self._collection or "/" in self._collection or "://" not in self._api:
            raise GeoJEPAError(f"stac:{source}: no collection; give stac:<API>#<collection>")
        self._signs = self._api == PLANETARY_COMPUTER
        self._token, self._renewal, self._lock = "", datetime.min.replace(tzinfo=UTC), Lock()
        self._session = web.connect()
        self._items = lru_cache(256)(self._search)
        about = self._ask("GET", f"{self._api}/collections/{self._collection}")
        with self._is_stac():
            providers = [p.get("name", "") for p in about.get("providers") or []]
        self.credit = _CREDITS.get(self._collection, ", ".join(filter(None, providers)))

    def read(self, grid: Grid, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        frames = grid.frame[rows]
        # a tile is searched for where its lower left corner lies, with its own reach
        cells = np.column_stack([frames[:, :2] // _CELL, np.ceil(frames[:, 2])]).astype(int)
        keys, cell = np.unique(cells, axis=0, return_inverse=True)
        groups = [np.flatnonzero(cell.reshape(-1) == number) for number in range(len(keys))]
        tiles: list[np.ndarray | None] = [None] * len(rows)
        with ThreadPoolExecutor(web.CONNECTIONS) as pool:
            found = pool.map(self._read_cell, keys.tolist(), [frames[group] for group in groups])
            for group, images in zip(groups, found, strict=True):
                for row, image in zip(group, images, strict=True):
                    tiles[row] = image
        return stack(tiles)

    def close(self) -> None:
        self._session.close()

    def _read_cell(self, key: list[int], frames: np.ndarray) -> list[np.ndarray | None]:
        items = self._items(*key)
        opened = lru_cache(_OPEN_FILES)(self._open)
        with rasterio.Env(
            GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR",
            GDAL_INGESTED_BYTES_AT_OPEN=2**15,
            GDAL_HTTP_MAX_RETRY=web.RETRIES,
            GDAL_HTTP_RETRY_DELAY=web.WAIT,
            GDAL_HTTP_RETRY_CODES=",".join(map(str, web.BUSY)),
            GDAL_HTTP_CONNECTTIMEOUT=web.TIMEOUT[0],
            GDAL_HTTP_TIMEOUT=web.TIMEOUT[1],
            GDAL_HTTP_USERAGENT=web.AGENT,
        ):
            images = [
                mosaic(frame, (opened(i.name, i.href) for i in items if meets(i.box, frame)))
                for frame in frames
            ]
            opened.cache_clear()
        return images

    def _open(self, name: str, href: str) -> Raster:
        host = web.host_of(href)
        return Raster(
            f"/vsicurl/{self._signed(href)}",
            f"{name} at {host}",
            "try again later, or download the imagery and give the files",
        )

    def _search(self, u: int, v: int, reach: int) -> list[Item]:
        """The newest item of each place that a tile of a cell can meet, newest first."""
        low = np.array([u, v]) * _CELL
        corners = to_degrees(np.clip([low, low + _CELL + reach], 0, TILES).astype(float))
        found: dict[str, dict] = {}
        method, url, body = (
            "POST",
            f"{self._api}/search",
            {
                "collections": [self._collection],
                "bbox": corners.reshape(-1).tolist(),
                "limit": _PAGE,
            },
        )
        with self._is_stac():
            while True:
                page = self._ask(method, url, body)
                fresh = {item["id"]: item for item in page["features"]}
                link = next((x for x in page.get("links", []) if x["rel"] == "next"), None)
                # a page without news ends a circle of links
                if link is None or fresh.keys() <= found.keys():
                    return _newest((found | fresh).values())
                found |= fresh
                method, url = link.get("method", "GET"), urljoin(url, link["href"])
                body = (body if link.get("merge") else {}) | link.get("body", {})

    def _ask(self, method: str, url: str, body: dict | None = None) -> dict:
        answer = web.ask(self._session, method, url, body or None)
        if answer is None:
            raise GeoJEPAError(
                f"{web.host_of(url)}: has no {urlsplit(url).path}; check the API and the collection"
            )
        with self._is_stac():
            return dict(json.loads(answer))

    @contextmanager
    def _is_stac(self) -> Iterator[None]:
        try:
            yield
        except GeoJEPAError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GeoJEPAError(
                f"{web.host_of(self._api)}: answers something else than STAC; check the address"
            ) from error

    def _signed(self, href: str) -> str:
        """A URL with the token that the Planetary Computer asks for."""
        if not self._signs:
            return href
        with self._lock:
            if datetime.now(UTC) > self._renewal:
                answer = self._ask("GET", f"{TOKENS}/{self._collection}")
                with self._is_stac():
                    expiry = datetime.fromisoformat(answer["msft:expiry"])
                    self._renewal = expiry - timedelta(minutes=5)
                    self._token = answer["token"]
            return f"{href}?{self._token}"


def _newest(features: Iterable[dict]) -> list[Item]:
    """The newest of each place, newest first."""
    newest: dict[str | tuple, Item] = {}
    for feature in sorted(features, key=lambda f: (_date(f), f["id"]), reverse=True):
        name, bbox, assets = feature["id"], feature["bbox"], feature["assets"]
        asset = next((assets[key] for key in _ASSETS if key in assets), None)
        if asset is None or not asset["href"].startswith(("https://", "http://")):
            raise GeoJEPAError(
                f"{name}: no asset {' or '.join(_ASSETS)} to read over HTTP, but "
                f"{', '.join(assets)}; choose another collection"
            )
        named = _NAIP_ID.fullmatch(name)
        place = named[1] if named else tuple(np.round(bbox, 2))
        # of six numbers the third and the last are heights
        west, south, east, north = bbox if len(bbox) == 4 else (*bbox[:2], *bbox[3:5])
        newest.setdefault(place, Item(name, asset["href"], box_in_units(west, south, east, north)))
    return list(newest.values())


def _date(feature: dict) -> str:
    """When an item was taken, or ended: RFC 3339, of which a catalogue writes one form."""
    about = feature["properties"]
    return about.get("datetime") or about.get("end_datetime") or ""
