"""Web tiles from a server of our own land where they are, are kept, and fail in plain words."""

import io
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from test_imagery import SIZE, TILES, N, X, Y, area_means, grid_of

from geojepa.data.imagery import open_imagery, web
from geojepa.errors import GeoJEPAError


class TileServer:
    """Tiles by (z, x, y) as pixels, or a list of answers (status, body) to give in turn."""

    def __init__(self):
        self.tiles, self.asked, self.agents = {}, Counter(), set()
        self._now, self.most_at_once, self._lock = 0, 0, threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                with server._lock:
                    server._now += 1
                    server.most_at_once = max(server.most_at_once, server._now)
                key = tuple(int(part) for part in self.path.split("?")[0].strip("/").split("/"))
                server.asked[key] += 1
                server.agents.add(self.headers["User-Agent"])
                status, body = server.answer(key)
                with server._lock:
                    server._now -= 1
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/{{z}}/{{x}}/{{y}}"

    def answer(self, key):
        tile = self.tiles.get(key)
        if tile is None:
            return 404, b"none"
        if isinstance(tile, list):
            return tile.pop(0) if len(tile) > 1 else tile[0]
        return 200, png(tile)

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def noise(seed, size=256, bands=3):
    return np.random.default_rng(seed).integers(0, 256, (size, size, bands), np.uint8)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOJEPA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(web, "WAIT", 0)
    server = TileServer()
    yield server
    server.close()


def read(source, grid, rows=None):
    with open_imagery(source) as imagery:
        return imagery.read(grid, np.arange(len(grid.tile_id)) if rows is None else rows)


def test_a_tile_is_the_area_mean_of_the_web_tile(server):
    for number, (x, y) in enumerate(TILES[:3]):
        server.tiles[16, x, y] = noise(number)
    images, has_image = read(server.url, grid_of(TILES))
    assert has_image.tolist() == [True, True, True, False]
    assert not images[3].any()
    for number in range(3):
        assert np.abs(images[number] - area_means(noise(number), 0, 1)).max() <= 0.51


def test_zoom_and_place_follow_the_footprint(server):
    # a quarter of a tile wide, over the border of two tiles of zoom 18
    grid = grid_of(TILES[:1])
    grid.frame[0] = X + 0.125, N - Y - 0.25, 0.25
    server.tiles[18, 4 * X, 4 * Y] = noise(0)
    server.tiles[18, 4 * X + 1, 4 * Y] = noise(1)
    images, has_image = read(server.url, grid)
    both = np.concatenate([noise(0), noise(1)], axis=1)
    assert has_image.all()
    assert set(server.asked) == {(18, 4 * X, 4 * Y), (18, 4 * X + 1, 4 * Y)}
    assert np.abs(images[0] - area_means(both[:, 128:384], 0, 1)).max() <= 0.51


@pytest.mark.parametrize(("side", "zoom"), [(1, 16), (0.75, 17), (0.4375, 17), (2, 15), (4, 14)])
def test_pixels_of_the_zoom_are_no_larger_than_wanted(server, side, zoom):
    grid = grid_of(TILES[:1])
    grid.frame[0] = X, N - Y - side, side
    read(server.url, grid)
    assert {key[0] for key in server.asked} == {zoom}
    assert 2.0 ** (16 - zoom) / 256 <= side / SIZE


def test_half_a_tile_is_none_and_transparency_darkens_nothing(server):
    for x, missing in ((X, 3), (X + 1, 9)):
        pixels = np.full((256, 256, 4), (200, 90, 40, 255), np.uint8)
        pixels[:, :missing] = 0
        server.tiles[16, x, Y] = pixels
    # one of four
    server.tiles[17, 2 * X, 2 * Y + 2] = noise(0)
    grid = grid_of([*TILES[:2], (X, Y + 1)])
    grid.frame[2] = X, N - Y - 1.75, 0.75
    images, has_image = read(server.url, grid)
    assert has_image.tolist() == [True, False, False]
    assert (images[0] == (200, 90, 40)).all()


def test_tiles_are_fetched_once_politely_and_kept(server):
    grid = grid_of([(X + i, Y + j) for i in range(6) for j in range(4)])
    for x, y in grid.xy:
        server.tiles[16, x, y] = noise(x * y, 64)
    rows = np.arange(24)
    with open_imagery(server.url) as imagery:
        first, has_image = imagery.read(grid, rows)
        again, _ = imagery.read(grid, rows[::-1])
    assert has_image.all()
    assert server.most_at_once <= web.CONNECTIONS
    assert server.agents == {web.AGENT}
    server.tiles.clear()
    alone = np.concatenate([read(server.url, grid, rows[[row]])[0] for row in (3, 5)])
    assert np.array_equal(first, again[::-1])
    assert np.array_equal(first[[3, 5]], alone)
    assert set(server.asked.values()) == {1}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server, status):
    server.tiles[16, X, Y] = [(status, b"")] * 3 + [(200, png(noise(0)))]
    assert read(server.url, grid_of(TILES[:1]))[1].all()
    assert server.asked[16, X, Y] == 4


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ((503, b""), "answers 503; go on later"),
        ((403, b""), "answers 403; check the address and its token"),
        ((200, b"<html>log in"), "a web tile is no readable image"),
        ((200, png(noise(0))[:900]), "a web tile is no readable image"),
    ],
    ids=str,
)
def test_errors_name_the_host_and_no_token(server, tmp_path, answer, cause):
    server.tiles[16, X, Y] = [answer]
    with pytest.raises(GeoJEPAError, match=rf"^127.0.0.1:\d+: {cause}") as error:
        read(f"{server.url}?token=secret", grid_of(TILES[:1]))
    assert "secret" not in str(error.value)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_no_server_is_an_error(server):
    server.close()
    with pytest.raises(GeoJEPAError, match=r"^127.0.0.1:\d+: no answer \(ConnectionError\); check"):
        read(server.url, grid_of(TILES[:1]))


def test_providers_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOJEPA_CACHE", str(tmp_path))
    with open_imagery("xyz:Esri.WorldImagery") as imagery:
        assert "Esri" in imagery.credit
    with open_imagery("https://tiles.example/{z}/{x}/{y}.png") as imagery:
        assert imagery.credit == ""
    for source, cause in {
        "xyz:Nobody.Nothing": "Nobody.Nothing: no provider of xyzservices",
        "xyz:MapBox": "MapBox: asks for a token",
        "https://tiles.example/{x}.png": "no address of web tiles",
    }.items():
        with pytest.raises(GeoJEPAError, match=cause):
            open_imagery(source)
