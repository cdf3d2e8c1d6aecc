"""A STAC catalogue of our own: the newest item of each quad, hard seams, plain errors."""

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import rasterio
from rasterio.warp import calculate_default_transform, transform, transform_bounds
from test_imagery import HALF, SIDE, SIZE, TILES, X, Y, area_means, grid_of, write_pixels

from geojepa.data.imagery import open_imagery, stac, web
from geojepa.errors import GeoJEPAError

OLD, MIDDLE, NEW = (250, 240, 230), (90, 120, 60), (30, 20, 10)


class Catalogue:
    """A STAC API with pages, tokens that files ask for, and ranges of files."""

    def __init__(self, folder):
        self.folder, self.items, self.asked, self.faults = folder, [], Counter(), {}
        self.page, self.tokens, self.searches, self.expiry = 2, 0, [], "2999-01-01T00:00:00Z"
        self.next_by_get = False
        catalogue = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                catalogue.get(self)

            def do_HEAD(self):
                catalogue.get(self)

            def do_POST(self):
                catalogue.post(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def add(self, name, path, date, asset="image"):
        with rasterio.open(path) as file:
            bbox = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
        self.items.append(
            {
                "type": "Feature",
                "id": name,
                "bbox": list(bbox),
                "properties": {"datetime": date},
                "assets": {asset: {"href": f"{self.url}/files/{path.name}"}, "metadata": {}},
            }
        )

    def send(self, request, body, status=200, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.send_response(status)
        for key, value in {"Content-Length": len(data), **headers}.items():
            request.send_header(key.replace("_", "-"), str(value))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)

    def fails(self, request, name):
        self.asked[name] += 1
        if self.asked[name] not in self.faults.get(name, ()):
            return False
        self.send(request, b"", 500)
        return True

    def get(self, request):
        path, _, query = request.path.partition("?")
        name = path.rsplit("/", 1)[-1]
        if path.startswith("/token/"):
            self.tokens += 1
            self.send(request, {"token": f"sig={self.tokens}", "msft:expiry": self.expiry})
        elif path == "/api/collections/naip" or path == "/api/collections/other":
            providers = [{"name": "One"}, {"name": "Two"}]
            self.send(request, {"id": name, "providers": providers})
        elif path == "/api/search":
            self.search(request, json.loads(bytes.fromhex(query)))
        elif path.startswith("/files/") and (self.folder / name).is_file():
            if not self.fails(request, name):
                self.file(request, (self.folder / name).read_bytes(), query)
        else:
            self.send(request, b"nothing", 404)

    def file(self, request, data, query):
        if self.tokens and query != f"sig={self.tokens}":
            return self.send(request, b"", 403)
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if not part:
            return self.send(request, data, Accept_Ranges="bytes")
        first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
        about = f"bytes {first}-{last}/{len(data)}"
        return self.send(request, data[first : last + 1], 206, Content_Range=about)

    def post(self, request):
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        if not self.fails(request, "search"):
            self.search(request, body)

    def search(self, request, body):
        self.searches.append(body)
        west, south, east, north = body["bbox"]
        hits = [
            item
            for item in self.items
            if item["bbox"][0] <= east
            and item["bbox"][2] >= west
            and item["bbox"][1] <= north
            and item["bbox"][3] >= south
        ]
        at = body.get("token", 0)
        link = {"rel": "next", "href": f"{self.url}/api/search"}
        if self.next_by_get:
            link["href"] += "?" + json.dumps({**body, "token": at + self.page}).encode().hex()
        else:
            link |= {"method": "POST", "merge": True, "body": {"token": at + self.page}}
        links = [{"rel": "self", "href": "/"}] + [link] * (at + self.page < len(hits))
        self.send(request, {"features": hits[at : at + self.page], "links": links})


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    catalogue = Catalogue(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(web, "WAIT", 1e-3)
    monkeypatch.setattr(stac, "PLANETARY_COMPUTER", f"{catalogue.url}/api")
    monkeypatch.setattr(stac, "TOKENS", f"{catalogue.url}/token")
    yield catalogue
    catalogue.close()


def quad(path, colour, left, top, right, bottom, crs="EPSG:32631"):
    """A tiled GeoTIFF as NAIP's: RGB and infrared in UTM, of ground given in tiles."""
    pixels = np.full((300, 300, 4), (*colour, 99), np.uint8)
    bounds = (left, top, right, bottom)
    if crs == "EPSG:3857":
        return write_pixels(path, pixels, *bounds, tiled=True, blockxsize=64, blockysize=64)
    west, north = X * SIDE - HALF, HALF - Y * SIDE
    west, south, east, north = (
        west + left * SIDE,
        north - bottom * SIDE,
        west + right * SIDE,
        north - top * SIDE,
    )
    place, w, h = calculate_default_transform("EPSG:3857", crs, 300, 300, west, south, east, north)
    about = {"driver": "GTiff", "count": 4, "dtype": "uint8", "crs": crs, "tiled": True}
    with rasterio.open(
        path, "w", height=h, width=w, transform=place, blockxsize=64, blockysize=64, **about
    ) as file:
        file.write(np.broadcast_to(pixels[0, 0, :, None, None], (4, h, w)))
    return path


def western_edge(path):
    """x and y in web mercator of points from south to north."""
    with rasterio.open(path) as file:
        box = file.bounds
        ys = np.linspace(box.bottom, box.top, 50)
        x, y = transform(file.crs, "EPSG:3857", np.full(50, box.left), ys)
    return np.array(x), np.array(y)


def read(source, grid, rows=None):
    with open_imagery(source) as imagery:
        return imagery.read(grid, np.arange(len(grid.tile_id)) if rows is None else rows)


@pytest.mark.parametrize("by_get", [False, True])
def test_the_newest_of_each_quad_and_a_hard_seam(catalogue, tmp_path, by_get):
    catalogue.next_by_get = by_get
    places = {"sw": (-1, -1, 0.5, 3), "se": (0.45, -1, 3, 3)}
    for quarter, bounds in places.items():
        for year, colour in ((2016, OLD), (2020, NEW), (2018, MIDDLE)):
            if (quarter, year) == ("sw", 2020):
                continue
            name = f"ca_m_3712214_{quarter}_10_{'h' if year < 2018 else '060'}_{year}0524"
            path = quad(tmp_path / f"{name}.tif", colour, *bounds)
            catalogue.add(name, path, f"{year}-05-24T16:00:00Z")
    images, has_image = read("stac:naip", grid_of([*TILES, (X + 30, Y)]))
    assert has_image.tolist() == [True] * 4 + [False]
    assert not images[4].any()
    # the newer quad is on top where they overlap, from its own western edge on
    edge_x, edge_y = western_edge(tmp_path / "ca_m_3712214_se_10_060_20200524.tif")
    for tile, (x, y) in enumerate(TILES):
        is_new, is_middle = ((images[tile] == colour).all(axis=-1) for colour in (NEW, MIDDLE))
        assert (is_new ^ is_middle).all()
        row_y = HALF - (y + (np.arange(SIZE) + 0.5) / SIZE) * SIDE
        edge = (np.interp(row_y, edge_y, edge_x) + HALF) / SIDE - x
        assert np.abs((~is_new).sum(axis=1) - np.clip(edge, 0, 1) * SIZE).max() <= 1.2
    read_years = {(name[13:15], name[-12:-8]) for name in catalogue.asked if name != "search"}
    assert read_years == {("se", "2020"), ("sw", "2018")}
    assert {tuple(body["collections"]) for body in catalogue.searches} == {("naip",)}
    assert len(catalogue.searches) > 3


def test_pixels_are_exact_and_the_same_in_every_batch(catalogue, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    path = write_pixels(tmp_path / "a.tif", noise, 0, 0, 2, 2, tiled=True,
                        blockxsize=64, blockysize=64)  # fmt: skip
    catalogue.add("a", path, "2020-01-01T00:00:00Z", asset="visual")
    grid = grid_of(TILES)
    with open_imagery(f"stac:{catalogue.url}/api/#other") as imagery:
        together, has_image = imagery.read(grid, np.arange(4))
        alone = np.concatenate([imagery.read(grid, np.array([row]))[0] for row in (2, 0)])
        # each cell is searched once
        assert len(catalogue.searches) == len({tuple(s["bbox"]) for s in catalogue.searches})
    assert has_image.all()
    for tile, (row, column) in enumerate([(0, 0), (0, 300), (300, 0), (300, 300)]):
        mean = area_means(noise[row : row + 300, column : column + 300], 0, 1)
        assert np.abs(together[tile] - mean).max() <= 0.51
    assert np.array_equal(alone, together[[2, 0]])


def test_credit_says_who_made_it(catalogue):
    with open_imagery("stac:naip") as imagery:
        assert imagery.credit == "USDA NAIP"
    with open_imagery(f"stac:{catalogue.url}/api#other") as imagery:
        assert imagery.credit == "One, Two"


def test_a_token_is_asked_for_once_and_again_before_it_ends(catalogue, tmp_path):
    catalogue.add("a", quad(tmp_path / "a.tif", NEW, -1, -1, 3, 3), "2020-01-01T00:00:00Z")
    grid = grid_of(TILES)
    with open_imagery("stac:naip") as imagery:
        for _ in range(3):
            assert imagery.read(grid, np.arange(4))[1].all()
        assert catalogue.tokens == 1
    catalogue.expiry = "2020-01-01T00:00:00Z"
    with open_imagery("stac:naip") as imagery:
        imagery.read(grid, np.arange(1))
        imagery.read(grid, np.arange(1))
    assert catalogue.tokens == 3


@pytest.mark.parametrize("request_number", [1, 2, 3, 4])
def test_a_passing_fault_is_tried_again(catalogue, tmp_path, request_number):
    catalogue.add("a", quad(tmp_path / "a.tif", NEW, -1, -1, 3, 3), "2020-01-01T00:00:00Z")
    catalogue.faults = {"search": {1}, "a.tif": {request_number, request_number + 1}}
    images, has_image = read("stac:naip", grid_of(TILES[:1]))
    assert has_image.all()
    assert (images == NEW).all()
    assert catalogue.asked["a.tif"] > request_number + 1


def test_a_place_without_a_naip_name_is_its_footprint(catalogue, tmp_path):
    for year, colour in ((2019, OLD), (2021, NEW), (2020, MIDDLE)):
        path = quad(tmp_path / f"{year}.tif", colour, -1, -1, 3, 3)
        catalogue.add(f"scene {year}", path, f"{year}-01-01T00:00:00Z")
    catalogue.items[0]["bbox"] = [value + 1e-5 for value in catalogue.items[0]["bbox"]]
    images, has_image = read(f"stac:{catalogue.url}/api#other", grid_of(TILES))
    assert has_image.all()
    assert (images == NEW).all()
    assert set(catalogue.asked) == {"search", "2021.tif"}


def test_broken_items_are_named(catalogue, tmp_path):
    path = quad(tmp_path / "a.tif", NEW, -1, -1, 3, 3)
    catalogue.add("ca_m_1", path, "2020-01-01T00:00:00Z")
    catalogue.add("ca_m_2", path, "2019-01-01T00:00:00Z", asset="thumbnail")
    with pytest.raises(GeoJEPAError, match=r"^ca_m_2: no asset image or visual .* thumbnail"):
        read("stac:naip", grid_of(TILES))
    del catalogue.items[1]
    whole = path.read_bytes()
    for number, data in enumerate((b"no raster", whole[: len(whole) // 3], None)):
        # GDAL remembers what a URL held
        name = f"broken{number}.tif"
        catalogue.items[0]["assets"]["image"]["href"] = f"{catalogue.url}/files/{name}"
        if data is not None:
            (tmp_path / name).write_bytes(data)
        cause = r"^ca_m_1 at 127.0.0.1:\d+: not a readable raster; try again later"
        with pytest.raises(GeoJEPAError, match=cause):
            read("stac:naip", grid_of(TILES))
    catalogue.items[0]["assets"]["image"]["href"] = "/etc/hostname"
    with pytest.raises(GeoJEPAError, match=r"^ca_m_1: no asset image or visual to read over HTTP"):
        read("stac:naip", grid_of(TILES))


def test_a_catalogue_that_is_none_is_refused(catalogue, monkeypatch):
    for source, cause in {
        "stac:nowhere": r"127.0.0.1:\d+: has no /api/collections/nowhere; check",
        f"stac:{catalogue.url}/api": "no collection; give stac:<API>#<collection>",
        "stac:": "no collection",
    }.items():
        with pytest.raises(GeoJEPAError, match=cause):
            open_imagery(source)
    monkeypatch.setattr(catalogue, "search", lambda request, body: catalogue.send(request, [1]))
    with pytest.raises(GeoJEPAError, match=r"127.0.0.1:\d+: answers something else than STAC"):
        read("stac:naip", grid_of(TILES))
    catalogue.faults["search"] = range(99)
    with pytest.raises(GeoJEPAError, match=r"127.0.0.1:\d+: answers 500; go on later"):
        read("stac:naip", grid_of(TILES))


def test_links_in_a_circle_end(catalogue, tmp_path, monkeypatch):
    catalogue.add("a", quad(tmp_path / "a.tif", NEW, -1, -1, 3, 3), "2020-01-01T00:00:00Z")
    link = {"rel": "next", "href": "/api/search", "method": "POST", "merge": True}
    page = {"features": catalogue.items, "links": [link]}
    monkeypatch.setattr(catalogue, "search", lambda request, body: catalogue.send(request, page))
    assert read("stac:naip", grid_of(TILES[:1]))[1].all()
    assert catalogue.asked["search"] == 2


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("ca_m_3712214_ne_10_060_20200524", "ca_m_3712214_ne_10"),
        ("md_m_3907617_se_18_1_20130907", "md_m_3907617_se_18"),
        ("ca_m_3712214_ne_10_h_20160625_20161004", "ca_m_3712214_ne_10"),
        ("S2B_20200524", None),
    ],
)
def test_a_naip_name_holds_its_quarter_quad(name, place):
    named = stac._NAIP_ID.fullmatch(name)
    assert (named and named[1]) == place
