"""Find the extract that a user names: a file, a URL, a place of the catalogue, a Geofabrik region.

The places of `catalogue.json` are pinned: whoever fetches them works on the same bytes.
"""

import difflib
import json
import os
import re
import sys
import time
from functools import cache
from hashlib import sha256 as digest
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

from geojepa.errors import GeoJEPAError
from geojepa.files import cache_folder, sha256

GITHUB = "https://raw.githubusercontent.com"
GEOFABRIK = "https://download.geofabrik.de"
CONTINENTS = (
    *("africa", "antarctica", "asia", "australia-oceania", "central-america"),
    *("europe", "north-america", "russia", "south-america"),
)
SUFFIXES = (".pbf", ".osm", ".osm.gz", ".osm.bz2", ".parquet")
_REGION = re.compile(rf"(?:{'|'.join(CONTINENTS)})(?:/[a-z0-9-]+)*")
_FORMS = "a file, an https:// URL, a place of the catalogue, or a Geofabrik region (europe/malta)"


@cache
def places() -> dict[str, dict]:
    """The pinned extracts by place: repository, commit, path, bytes, sha256."""
    return json.loads(Path(__file__).with_name("catalogue.json").read_text(encoding="utf-8"))


def locate(extract: str | Path) -> Path:
    """A local file for what a user names, downloaded if need be.

    A file that exists is taken as it is. A name that can only be a path is returned unchanged,
    for the reader to say that there is no such file. Downloads are kept in the folder that
    GEOJEPA_CACHE names; a folder that GEOJEPA_MIRROR names is looked into first.

    Args:
        extract: a path, a URL of an extract or GeoParquet table, a place of the catalogue, or a
            Geofabrik region with its continent, `geofabrik:` before it or not.

    Raises:
        GeoJEPAError: if the name is unknown, the file cannot be had, or is not the pinned one.
    """
    path, name = Path(extract), os.fspath(extract)
    if os.path.exists(name) and not path.is_dir():
        return path
    # a Path holds one slash of the two
    name = re.sub(r"^(https?):/+", r"\1://", name, flags=re.IGNORECASE)
    if "://" in name:
        return _of_url(name)
    plain = name.lower()
    if plain.startswith("geofabrik:") or _REGION.fullmatch(plain):
        return _of_region(plain.removeprefix("geofabrik:"))
    if plain in places():
        return _of_place(plain)
    if (
        os.path.exists(name)
        or re.search(r"[/\\]", name)
        or plain.endswith((*SUFFIXES, ".gz", ".bz2"))
    ):
        return path
    close = difflib.get_close_matches(plain, [*places(), *CONTINENTS])
    hint = f"did you mean {', '.join(close)}?" if close else f"places: {', '.join(places())}"
    raise GeoJEPAError(f"{name!r}: no such extract; give {_FORMS}; {hint}")


def record_of(path: str | Path) -> dict | None:
    """Where a file's bytes come from, for the provenance of what is made of them.

    Returns:
        `url`, `sha256` and `bytes` of a pinned extract, whatever its file is called; with
        `retrieved` (UTC date), `etag` and `last_modified` for any other download of `locate`;
        None for a file of unknown origin.
    """
    path = Path(path)
    found = sha256(path)
    for entry in places().values():
        if entry["sha256"] == found:
            return {"url": _url(entry), "sha256": found, "bytes": entry["bytes"]}
    try:
        record = json.loads(record_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("sha256") == found else None


def _of_place(place: str) -> Path:
    entry, name = places()[place], f"{place}.osm.pbf"
    if mirrored := _mirrored(name):
        if (found := sha256(mirrored)) != entry["sha256"]:
            raise GeoJEPAError(
                f"{mirrored}: sha256 is {found}, but {place} is pinned to {entry['sha256']}; "
                "replace the file, or take it out of GEOJEPA_MIRROR"
            )
        return mirrored
    from geojepa.data.download import download

    return download(_url(entry), cache_folder() / "places" / name, f"sha256:{entry['sha256']}")


def _of_region(region: str) -> Path:
    if not _REGION.fullmatch(region):
        raise GeoJEPAError(
            f"geofabrik:{region}: not a region; name its continent first, as in "
            f"geofabrik:europe/malta ({', '.join(CONTINENTS)})"
        )
    file = f"{region}-latest.osm.pbf"
    url, target = f"{GEOFABRIK}/{file}", cache_folder() / "geofabrik" / file
    found = _mirrored(file, target.name) or _used_again(region, target)
    if found:
        return found
    from geojepa.data.download import download, published_md5

    md5 = published_md5(url)
    if md5 is None:
        print(f"{url}: no md5 is published; its sha256 will be recorded", file=sys.stderr)
    return download(url, target, md5 and f"md5:{md5}")


def _of_url(url: str) -> Path:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise GeoJEPAError(f"{url}: {error}; give https://host/file.osm.pbf") from error
    name = re.sub(r"[^\w.-]", "_", unquote(PurePosixPath(parts.path).name))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise GeoJEPAError(f"{public(url)}: not on the web; give https://host/file.osm.pbf")
    if name.startswith(".") or not name.lower().endswith(SUFFIXES):
        raise GeoJEPAError(
            f"{public(url)}: not an extract; give the URL of a file ({', '.join(SUFFIXES)})"
        )
    host = re.sub(r"[^\w.-]", "_", parts.hostname)
    # one folder a URL, so that files of the same name never mix
    target = cache_folder() / "urls" / f"{host}-{digest(url.encode()).hexdigest()[:12]}" / name
    if found := _mirrored(name) or _used_again(public(url), target):
        return found
    from geojepa.data.download import download

    return download(url, target)


def _url(entry: dict) -> str:
    return f"{GITHUB}/{entry['repository']}/{entry['commit']}/{entry['path']}"


def _mirrored(*names: str) -> Path | None:
    """The first of these files in the mirror folder, if there is one."""
    named = os.environ.get("GEOJEPA_MIRROR")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise GeoJEPAError(f"GEOJEPA_MIRROR={named}: no such folder; correct or unset it")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _used_again(name: str, target: Path) -> Path | None:
    """A download that is there, announced with its age: it may not be the newest."""
    if not target.is_file():
        return None
    days = int((time.time() - target.stat().st_mtime) / 86400)
    print(f"{name}: {days} days old; to fetch it anew, delete {target}", file=sys.stderr)
    return target


def record_path(target: Path) -> Path:
    """Where the record of a download is: URL, sha256, bytes, date, and the server's version."""
    return target.with_name(f"{target.name}.sha256.json")


def public(url: str) -> str:
    """A URL without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
