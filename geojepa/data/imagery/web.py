"""Images from web tiles (XYZ), kept on disk once fetched; and how this package asks servers."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.metadata import version
from itertools import product
from urllib.parse import urlsplit

import contextily
import numpy as np
import requests
from PIL import Image
from rasterio.io import MemoryFile
from rasterio.transform import from_bounds
from urllib3 import Retry
from xyzservices import TileProvider

from geojepa.data.grid import EQUATOR_M, ZOOM, Grid
from geojepa.data.imagery.raster import SIZE, Imagery, Raster, mosaic, stack
from geojepa.errors import GeoJEPAError
from geojepa.files import cache_folder, whole

AGENT = f"geojepa/{version('geojepa')}"
CONNECTIONS = 4
RETRIES = 5
BUSY = (429, 500, 502, 503, 504)
# Seconds; a wait doubles with each further try, a server's Retry-After overrules it.
WAIT = 0.5
TIMEOUT = (10, 60)
# pixels a web tile is wide
_WIDTH = 256

Key = tuple[int, int, int]


class WebImagery(Imagery):
    """Web tiles of the zoom whose pixels are no larger than wanted, area-averaged.

    A web tile that the server does not have (404) covers nothing. A picture that says "no data
    here" cannot be told from ground. Tiles are kept in the folder that GEOJEPA_CACHE names, else
    in the user's cache, and never fetched again.

    Args:
        source: a name of xyzservices, or a URL with {z}, {x} and {y}.

    Raises:
        GeoJEPAError: if the provider is unknown or needs a token.
    """

    def __init__(self, source: str) -> None:
        self._provider = _provider(source)
        self.credit = self._provider.attribution
        url = self._provider.build_url()
        self._host = host_of(url)
        self._folder = cache_folder() / "tiles" / hashlib.sha256(url.encode()).hexdigest()[:16]
        self._session = connect()

    def read(self, grid: Grid, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        needs = [self._needs(frame) for frame in grid.frame[rows]]
        wanted = sorted({key for need in needs for key in need})
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            got = dict(zip(wanted, pool.map(self._fetch, wanted), strict=True))
        frames = grid.frame[rows]
        return stack(
            [
                self._tile(frame, {key: got[key] for key in need})
                for frame, need in zip(frames, needs, strict=True)
            ]
        )

    def close(self) -> None:
        self._session.close()

    def _needs(self, frame: np.ndarray) -> list[Key]:
        """The web tiles (zoom, x, y) that a tile, (3,) of u, v and side, lies on."""
        finest = int(self._provider.get("max_zoom", 22))
        zoom = int(np.ceil(ZOOM - np.log2(frame[2] * _WIDTH / SIZE) - 1e-9))
        zoom = min(max(zoom, 0), finest)
        scale = 2.0 ** (zoom - ZOOM)
        u, v, side = frame * scale
        # far less than a pixel: a border that is met by rounding alone is not crossed
        low = np.floor(np.array([u, v]) + 1e-6).astype(int)
        high = np.ceil(np.array([u, v]) + side - 1e-6).astype(int)
        below = 2**zoom - 1
        return [
            (zoom, x, below - y)
            for x, y in product(range(low[0], high[0]), range(low[1], high[1]))
            if 0 <= x <= below and 0 <= y <= below
        ]

    def _fetch(self, key: Key) -> bytes:
        """The picture file of a web tile; empty where the server has none."""
        zoom, x, y = key
        kept = self._folder / str(zoom) / str(x) / str(y)
        if kept.is_file():
            return kept.read_bytes()
        data = ask(self._session, "GET", self._provider.build_url(x=x, y=y, z=zoom))
        if data:
            _decoded(data, self._host)
            with whole(kept) as part:
                part.write_bytes(data)
        return data or b""

    def _tile(self, frame: np.ndarray, files: dict[Key, bytes]) -> np.ndarray | None:
        pictures = {key: _decoded(data, self._host) for key, data in files.items() if data}
        if not pictures:
            return None
        width = max(picture.width for picture in pictures.values())
        zoom, left, top = np.min(list(pictures), axis=0)
        across, down = np.max(list(pictures), axis=0)[1:] - (left, top) + 1
        canvas = np.zeros((down * width, across * width, 4), np.uint8)
        for (_, x, y), picture in pictures.items():
            rows, columns = (y - top) * width, (x - left) * width
            same = picture.resize((width, width), Image.Resampling.NEAREST)
            canvas[rows : rows + width, columns : columns + width] = same
        metres = EQUATOR_M / 2.0**zoom
        west, north = left * metres - EQUATOR_M / 2, EQUATOR_M / 2 - top * metres
        place = from_bounds(
            west,
            north - down * metres,
            west + across * metres,
            north,
            across * width,
            down * width,
        )
        about = {"driver": "GTiff", "count": 4, "dtype": "uint8", "crs": "EPSG:3857"}
        with MemoryFile() as memory:
            with memory.open(
                height=len(canvas),
                width=canvas.shape[1],
                transform=place,
                photometric="RGB",
                alpha="YES",
                **about,
            ) as file:
                file.write(canvas.transpose(2, 0, 1))
            with closing(Raster(memory.name, self._host)) as raster:
                return mosaic(frame, [raster])


def connect() -> requests.Session:
    """A session that waits and tries again, over a few connections only, under our own name."""
    session = requests.Session()
    session.headers["User-Agent"] = AGENT
    again = Retry(
        RETRIES,
        status_forcelist=BUSY,
        allowed_methods=None,
        backoff_factor=WAIT,
        raise_on_status=False,
    )
    adapter = requests.adapters.HTTPAdapter(
        pool_maxsize=CONNECTIONS, pool_block=True, max_retries=again
    )
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def ask(session: requests.Session, method: str, url: str, json: dict | None = None) -> bytes | None:
    """What a server answers; None where it has nothing there (404, 204).

    Raises:
        GeoJEPAError: if it does not answer, or with an error.
    """
    try:
        answer = session.request(method, url, json=json, timeout=TIMEOUT)
    except requests.RequestException as error:
        raise GeoJEPAError(
            f"{host_of(url)}: no answer ({type(error).__name__}); check the address and the "
            "network, or download the imagery and give the file"
        ) from error
    if answer.status_code in (204, 404):
        return None
    if not answer.ok:
        later = "go on later" if answer.status_code in BUSY else "check the address and its token"
        raise GeoJEPAError(f"{host_of(url)}: answers {answer.status_code}; {later}")
    return answer.content


def host_of(url: str) -> str:
    """The server that a URL names: what may be shown of it, as the rest may hold a token."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _provider(source: str) -> TileProvider:
    if "://" in source:
        if not all(part in source for part in ("{x}", "{y}", "{z}")):
            raise GeoJEPAError(f"{source}: no address of web tiles; put {{z}}, {{x}} and {{y}} in")
        return TileProvider(name=host_of(source), url=source, attribution="")
    try:
        provider = contextily.providers.query_name(source)
    except ValueError as error:
        raise GeoJEPAError(
            f"{source}: no provider of xyzservices; give a name such as Esri.WorldImagery, or a "
            "URL with {z}, {x} and {y}"
        ) from error
    if provider.requires_token():
        raise GeoJEPAError(
            f"{source}: asks for a token; give the URL with {{z}}, {{x}} and {{y}} and the token"
        )
    return provider


def _decoded(data: bytes, name: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise GeoJEPAError(f"{name}: a web tile is no readable image; check the address") from error
