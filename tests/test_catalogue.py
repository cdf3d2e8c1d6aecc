"""Extracts by name, from a server of the test's own that fails in the ways that servers fail."""

import csv
import gzip
import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from geojepa.data import catalogue, download
from geojepa.data.catalogue import locate, record_of
from geojepa.errors import GeoJEPAError
from geojepa.files import place_of

ROOT = Path(os.environ.get("GEOJEPA_DATA", Path(__file__).parents[2] / "shared" / "data"))
BODY = np.random.default_rng(0).bytes(500_000)
NEWER = np.random.default_rng(1).bytes(510_000)
FILE = "/owner/name/0a1b/folder/some.osm.pbf"


def hexdigest(data: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, data).hexdigest()


@dataclass
class Server:
    """What is served, how it misbehaves, and what was asked of it."""

    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    # one for each coming answer: bytes after which the connection breaks, or a status
    cuts: list[int | None] = field(default_factory=list)
    busy: list[int] = field(default_factory=list)
    has_ranges: bool = True
    has_versions: bool = True
    heeds_versions: bool = True
    # bytes by which the server is late in a range
    late: int = 0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(monkeypatch, tmp_path):
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, status, **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def do_GET(self):
            path = self.path.partition("?")[0]
            state.asked.append((path, self.headers.get("Range")))
            if state.busy:
                return self.answer(state.busy.pop(0), Content_Length="0")
            if path in state.redirects:
                return self.answer(302, Location=state.redirects[path], Content_Length="0")
            if path not in state.files:
                return self.answer(404, Content_Length="0")
            body, start, status = state.files[path], 0, 200
            headers = dict(state.headers)
            etag = f'"{hexdigest(body)[:8]}"'
            if state.has_versions:
                headers["ETag"] = etag
            same = not state.heeds_versions or self.headers.get("If-Range") == etag
            if state.has_ranges and self.headers.get("Range") and same:
                start = (
                    int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) + state.late
                )
                if start >= len(body):
                    return self.answer(416, Content_Range=f"bytes */{len(body)}")
                status = 206
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.answer(status, **headers, Content_Length=str(len(body) - start))
            cut = state.cuts.pop(0) if state.cuts else None
            self.wfile.write(body[start:] if cut is None else body[start:][:cut])
            return None

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{service.server_address[1]}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("GEOJEPA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GEOJEPA_MIRROR", raising=False)
    monkeypatch.setattr(download, "WAITS", (0, 0))
    monkeypatch.setattr(catalogue, "GITHUB", state.url)
    monkeypatch.setattr(catalogue, "GEOFABRIK", state.url)
    pin(monkeypatch, BODY)
    state.files[FILE] = BODY
    yield state
    service.shutdown()
    service.server_close()
    thread.join()


def pin(monkeypatch, body: bytes) -> None:
    """A catalogue of one place, `oz`."""
    entry = {
        **{"repository": "owner/name", "commit": "0a1b", "path": "folder/some.osm.pbf"},
        **{"bytes": len(body), "sha256": hexdigest(body)},
    }
    monkeypatch.setattr(catalogue, "places", lambda: {"oz": entry})


def kept(tmp_path: Path) -> list[str]:
    """Names of extracts and what is left of them in the cache."""
    files = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    return sorted(path.name for path in files if path.suffix != ".lock")


def test_catalogue_pins_eight_places():
    places = catalogue.places()
    assert len(places) == 8
    for entry in places.values():
        assert len(bytes.fromhex(entry["sha256"])) == 32
        assert len(bytes.fromhex(entry["commit"])) == 20
        assert entry["path"].endswith(".pbf")
        assert entry["bytes"] > 400_000


@pytest.mark.skipif(not (ROOT / "sources.csv").is_file(), reason="no sources.csv at hand")
def test_catalogue_says_what_the_sources_say():
    with open(ROOT / "sources.csv", newline="") as file:
        rows = {row.pop("place"): row for row in csv.DictReader(file)}
    assert rows == {
        place: {key: str(value) for key, value in entry.items()}
        for place, entry in catalogue.places().items()
    }


@pytest.mark.skipif(not (ROOT / "osm").is_dir(), reason=f"no extracts in {ROOT}")
def test_real_extracts_serve_as_a_mirror(monkeypatch):
    monkeypatch.setenv("GEOJEPA_MIRROR", str(ROOT / "osm"))
    for place, entry in catalogue.places().items():
        path = locate(place)
        assert path == ROOT / "osm" / f"{place}.osm.pbf"
        assert record_of(path) == {
            "url": f"https://raw.githubusercontent.com/{entry['repository']}/{entry['commit']}/"
            + entry["path"],
            "sha256": entry["sha256"],
            "bytes": path.stat().st_size,
        }


def test_a_file_wins_over_a_place_but_a_folder_does_not(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("oz").mkdir()
    assert locate("oz").read_bytes() == BODY
    Path("oz").rmdir()
    Path("oz").write_text("mine")
    assert locate("oz") == Path("oz")
    assert locate(Path("oz")) == Path("oz")


@pytest.mark.parametrize(
    "name",
    ["absent.osm.pbf", "a/b", "../oz", "x.parquet", "x.osm.gz", "x.bz2", "europe/../x", "a\\b"],
)
def test_what_can_only_be_a_path_is_left_to_the_reader(server, name):
    assert locate(name) == Path(name)
    assert locate(Path(name)) == Path(name)
    assert not server.asked


@pytest.mark.parametrize("name", ["ozz", "europ", "", "a\0b", "x" * 5000, "ist das da?"])
def test_an_unknown_name_is_refused_with_what_would_do(server, name):
    with pytest.raises(GeoJEPAError, match="give a file, an https:// URL, a place") as caught:
        locate(name)
    assert {"ozz": "did you mean oz?", "europ": "mean europe?"}.get(name, "") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not server.asked


def test_a_place_is_fetched_once_under_its_name(server, tmp_path, capsys):
    path = locate("oz")
    assert path.name == "oz.osm.pbf"
    assert place_of(path) == "oz"
    assert path.read_bytes() == BODY
    assert path.is_relative_to(tmp_path / "cache")
    assert kept(tmp_path) == ["oz.osm.pbf", "oz.osm.pbf.sha256.json"]
    assert capsys.readouterr().err.count("\n") == 1
    assert locate("Oz") == path
    assert server.asked == [(FILE, None)]
    pinned = {"url": server.url + FILE, "sha256": hexdigest(BODY), "bytes": len(BODY)}
    assert record_of(path) == pinned
    elsewhere = tmp_path / "other"
    elsewhere.write_bytes(BODY)
    assert record_of(elsewhere) == pinned


def test_a_damaged_file_of_the_cache_is_fetched_anew(server):
    path = locate("oz")
    path.write_bytes(BODY[:100])
    assert locate("oz").read_bytes() == BODY


def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path):
    server.cuts = [200_000, 100_000]
    assert locate("oz").read_bytes() == BODY
    starts = [int((asked or "bytes=0-")[6:-1]) for _, asked in server.asked]
    assert starts[0] == 0
    assert 100_000 < starts[1] < starts[2] <= 300_000
    assert kept(tmp_path) == ["oz.osm.pbf", "oz.osm.pbf.sha256.json"]


def test_a_later_run_goes_on_where_the_last_one_stopped(server, tmp_path):
    server.cuts = [100_000] * 3
    with pytest.raises(GeoJEPAError, match=r"some.osm.pbf: cannot be downloaded.*run again"):
        locate("oz")
    assert kept(tmp_path) == ["oz.osm.pbf.part", "oz.osm.pbf.version.part"]
    size = (tmp_path / "cache" / "places" / "oz.osm.pbf.part").stat().st_size
    assert locate("oz").read_bytes() == BODY
    assert server.asked[-1] == (FILE, f"bytes={size}-")


@pytest.mark.parametrize("lacking", ["has_ranges", "has_versions"])
def test_a_server_that_cannot_resume_is_asked_for_the_whole(server, lacking):
    setattr(server, lacking, False)
    server.cuts = [200_000]
    assert locate("oz").read_bytes() == BODY
    assert len(server.asked) == 2


@pytest.mark.parametrize("heeds", [True, False])
def test_versions_are_never_mixed(server, heeds, monkeypatch):
    server.cuts = [100_000] * 3
    url = server.url + FILE
    with pytest.raises(GeoJEPAError, match="cannot be downloaded"):
        locate(url)
    server.files[FILE], server.heeds_versions = NEWER, heeds
    assert locate(url).read_bytes() == NEWER


def test_an_answer_that_starts_elsewhere_is_not_added(server):
    server.cuts, server.late = [200_000], 7
    assert locate("oz").read_bytes() == BODY
    assert [asked for _, asked in server.asked][::2] == [None, None]


def test_a_part_as_long_as_the_file_is_no_dead_end(server, tmp_path):
    server.cuts = [100_000] * 3
    with pytest.raises(GeoJEPAError, match="cannot be downloaded"):
        locate("oz")
    (tmp_path / "cache" / "places" / "oz.osm.pbf.part").write_bytes(BODY + b"more")
    assert locate("oz").read_bytes() == BODY


def test_wrong_bytes_are_refused_by_both_hashes(server, tmp_path):
    server.files[FILE] = NEWER
    with pytest.raises(GeoJEPAError) as caught:
        locate("oz")
    message = str(caught.value)
    assert hexdigest(BODY) in message
    assert hexdigest(NEWER) in message
    assert FILE in message
    assert not kept(tmp_path)


def test_a_missing_file_is_asked_for_once(server, tmp_path):
    server.files.clear()
    with pytest.raises(GeoJEPAError, match=r"some.osm.pbf: the server answers 404 Not Found"):
        locate("oz")
    assert len(server.asked) == 1
    assert not kept(tmp_path)


def test_a_missing_file_leaves_what_there_is_of_it(server, tmp_path):
    server.cuts = [100_000] * 3
    with pytest.raises(GeoJEPAError, match="cannot be downloaded"):
        locate("oz")
    server.busy = [404]
    with pytest.raises(GeoJEPAError, match="404"):
        locate("oz")
    assert "oz.osm.pbf.part" in kept(tmp_path)


def test_a_busy_server_is_asked_again(server):
    server.busy = [503, 429]
    assert locate("oz").read_bytes() == BODY
    server.busy = [503] * 3
    with pytest.raises(GeoJEPAError, match=r"503.*GEOJEPA_MIRROR"):
        locate(server.url + FILE)


def test_a_file_that_is_always_cut_off_never_appears(server, tmp_path):
    server.has_ranges = False
    server.cuts = [499_999] * 3
    with pytest.raises(GeoJEPAError, match="cannot be downloaded"):
        locate("oz")
    assert "oz.osm.pbf" not in kept(tmp_path)


def test_without_a_network_the_message_names_the_remedy(server, monkeypatch):
    # nothing listens on port 9 of loopback
    monkeypatch.setattr(catalogue, "GITHUB", "http://127.0.0.1:9")
    with pytest.raises(
        GeoJEPAError, match=rf"127.0.0.1:9{FILE}: cannot.* as oz.osm.pbf into"
    ) as caught:
        locate("oz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["europe/malta", "geofabrik:europe/malta", "Europe/Malta"])
def test_a_region_is_fetched_checked_recorded_and_used_again(server, name, capsys):
    file = "/europe/malta-latest.osm.pbf"
    server.files |= {file: BODY, f"{file}.md5": f"{hexdigest(BODY, 'md5')}  x.pbf\n".encode()}
    server.headers = {"Last-Modified": "Sat, 22 Nov 2025 21:30:00 GMT"}
    pinned = catalogue.places()["oz"]
    pinned["sha256"] = hexdigest(b"")
    path = locate(name)
    assert path.name == "malta-latest.osm.pbf"
    assert path.read_bytes() == BODY
    record = record_of(path)
    assert record
    assert len(record.pop("retrieved")) == len("2025-11-22")
    assert record == {
        "url": server.url + file,
        "sha256": hexdigest(BODY),
        "bytes": len(BODY),
        "etag": f'"{hexdigest(BODY)[:8]}"',
        "last_modified": "Sat, 22 Nov 2025 21:30:00 GMT",
    }
    asked = len(server.asked)
    capsys.readouterr()
    assert locate(name) == path
    assert len(server.asked) == asked
    said = capsys.readouterr().err
    assert f"0 days old; to fetch it anew, delete {path}\n" in said
    path.write_bytes(NEWER)
    assert record_of(path) is None


def test_a_region_that_differs_from_its_md5_is_refused(server, tmp_path):
    server.files |= {"/asia-latest.osm.pbf": BODY, "/asia-latest.osm.pbf.md5": b"0" * 32}
    with pytest.raises(GeoJEPAError, match=rf"{'0' * 32} but got {hexdigest(BODY, 'md5')}"):
        locate("asia")
    assert not kept(tmp_path)


@pytest.mark.parametrize("answer", [None, b"<html>no such file</html>", b""])
def test_a_region_without_md5_is_said_to_have_none(server, capsys, answer):
    server.files["/asia/x-latest.osm.pbf"] = BODY
    if answer is not None:
        server.files["/asia/x-latest.osm.pbf.md5"] = answer
    path = locate("asia/x")
    assert "no md5 is published" in capsys.readouterr().err
    assert json.loads(download.record_path(path).read_text())["sha256"] == hexdigest(BODY)


def test_a_region_wants_its_continent(server):
    with pytest.raises(GeoJEPAError, match=r"geofabrik:malta: not a region.*continent"):
        locate("geofabrik:malta")


def test_a_url_keeps_the_file_name_and_its_secrets(server, tmp_path):
    host = server.url.removeprefix("http://")
    path = locate(f"http://me:secret@{host}{FILE}?token=hidden")
    assert path.name == "some.osm.pbf"
    assert path.read_bytes() == BODY
    said = download.record_path(path).read_text()
    assert json.loads(said)["url"] == server.url + FILE
    assert "secret" not in said + str(path)
    assert "hidden" not in said + str(path)
    assert locate(Path(server.url + FILE)).read_bytes() == BODY
    assert len(list((tmp_path / "cache" / "urls").iterdir())) == 2


def test_a_url_may_be_of_any_script(server):
    server.files["/Malm%C3%B6.parquet"] = BODY
    assert place_of(locate(f"{server.url}/Malm%C3%B6.parquet")) == "Malmö"


def test_a_compressed_file_stays_as_it_is_on_the_server(server):
    server.files["/x.osm.gz"] = gzip.compress(BODY)
    server.headers = {"Content-Encoding": "gzip"}
    assert gzip.decompress(locate(f"{server.url}/x.osm.gz").read_bytes()) == BODY


def test_a_redirect_is_followed_but_not_off_the_web(server):
    server.redirects["/latest.osm.pbf"] = FILE
    assert locate(f"{server.url}/latest.osm.pbf").read_bytes() == BODY
    server.redirects["/mine.osm.pbf"] = Path(__file__).as_uri()
    with pytest.raises(GeoJEPAError, match=r"mine.osm.pbf: "):
        locate(f"{server.url}/mine.osm.pbf")


def test_a_web_page_is_no_extract(server, tmp_path):
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(GeoJEPAError, match="a web page instead of a file"):
        locate(server.url + FILE)
    assert not kept(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        *("file:///x.osm.pbf", "ftp://host/x.osm.pbf", "http:///x.osm.pbf", "http://[/x.osm.pbf"),
        *("https://host/page", "https://host/..", "https://host/.pbf", "https://host"),
        *("https://host/..%2Fx.osm.pbf", "https://host/%2Fetc%2Fpasswd"),
        *("geofabrik:../../x", "geofabrik:/europe", "geofabrik:europe/../x", "geofabrik:"),
        *("geofabrik:europe\\..\\x", "geofabrik:europe/x?y"),
    ],
)
def test_odd_names_are_refused(server, tmp_path, name):
    with pytest.raises(GeoJEPAError, match=r"give https://|give the URL|name its continent"):
        locate(name)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["x%2F..%2Fy.osm.pbf", "a%5C..%5Cx.osm.pbf", "%00;$(x).osm.pbf"])
def test_a_url_never_leaves_the_cache(server, tmp_path, name):
    server.files[f"/{name}"] = BODY
    before = set(tmp_path.iterdir())
    path = locate(f"{server.url}/{name}")
    assert path.parent.parent == tmp_path / "cache" / "urls"
    assert set(tmp_path.iterdir()) - before == {tmp_path / "cache"}


def test_a_mirror_comes_first(server, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    (mirror / "europe").mkdir(parents=True)
    monkeypatch.setenv("GEOJEPA_MIRROR", str(mirror))
    files = {
        "oz": "oz.osm.pbf",
        "europe/malta": "europe/malta-latest.osm.pbf",
        "europe/germany/bremen": "bremen-latest.osm.pbf",
        "https://example.invalid/a/b.parquet?c": "b.parquet",
    }
    for file in files.values():
        (mirror / file).write_bytes(BODY)
    assert {name: locate(name) for name in files} == {k: mirror / v for k, v in files.items()}
    assert not server.asked
    (mirror / "oz.osm.pbf").write_bytes(NEWER)
    with pytest.raises(GeoJEPAError, match=rf"{hexdigest(NEWER)}.*{hexdigest(BODY)}"):
        locate("oz")
    (mirror / "oz.osm.pbf").unlink()
    assert locate("oz").read_bytes() == BODY


def test_a_mirror_that_is_not_there_is_not_passed_over(server, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOJEPA_MIRROR", str(tmp_path / "mirrror"))
    with pytest.raises(GeoJEPAError, match="mirrror: no such folder"):
        locate("oz")


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(GeoJEPAError, match=r"oz.osm.pbf: cannot be written .*GEOJEPA_CACHE"):
        locate("oz")


def test_two_at_once_fetch_once(server):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(locate, ["oz"] * 4))
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == BODY
    assert server.asked == [(FILE, None)]
