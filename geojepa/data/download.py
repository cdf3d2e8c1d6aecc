"""Download a file once: resumed where it stopped, checked, and there whole or not at all.

pooch keeps the cache and checks the hash; it cannot resume, so the transfer itself is here.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pooch
import requests
import urllib3
from filelock import FileLock
from pooch.hashes import hash_matches
from tqdm import tqdm

from geojepa.data.catalogue import public, record_path
from geojepa.errors import GeoJEPAError
from geojepa.files import sha256, whole

# seconds before each new attempt
WAITS = (0.5, 1.0, 2.0)
# seconds to connect, and of silence
TIMEOUT = (10, 60)
_CHUNK = 2**16
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_BY_HAND = "run again, or put it by hand as {} into the folder that GEOJEPA_MIRROR names"

T = TypeVar("T")


class _Unfinished(Exception):
    """An attempt that another may mend."""


_TRANSIENT = (
    _Unfinished,
    requests.ConnectionError,
    requests.Timeout,
    urllib3.exceptions.HTTPError,
)


def download(url: str, target: Path, known_hash: str | None = None) -> Path:
    """Fetch a URL to a file, unless the file is there.

    An interrupted transfer stays beside the file as `.part` and is taken up again, if the server
    can and still holds the same version. Where a file came from is kept in `record_path(target)`.

    Args:
        url: http or https.
        target: where the file is to be; another process that wants it too waits.
        known_hash: `sha256:...`, also checked on a file that is there, or `md5:...`.

    Raises:
        GeoJEPAError: if the file cannot be had, or is not what the hash says.
    """
    if target.is_file() and hash_matches(target, known_hash):
        return target
    pooch.get_logger().setLevel(logging.WARNING)
    fetch = partial(_fetch, part=target.with_name(f"{target.name}.part"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            pooch.retrieve(url, known_hash, target.name, target.parent, downloader=fetch)
    except GeoJEPAError:
        raise
    except ValueError as error:
        record_path(target).unlink(missing_ok=True)
        by_hand = _BY_HAND.format(target.name)
        raise GeoJEPAError(f"{public(url)}: {error} Nothing was kept; {by_hand}") from error
    except OSError as error:
        raise GeoJEPAError(
            f"{target}: cannot be written ({error}); make room, or name a folder in GEOJEPA_CACHE"
        ) from error
    return target


def published_md5(url: str) -> str | None:
    """The md5 that a server publishes beside a file as `<url>.md5`; None where it has none.

    Raises:
        GeoJEPAError: if the server cannot be asked.
    """
    name = urlsplit(url).path.rpartition("/")[2]

    def ask() -> str:
        with requests.get(f"{url}.md5", stream=True, timeout=TIMEOUT) as response:
            if response.status_code in (401, 403, 404, 410):
                return ""
            _raise_if_not_served(response)
            return response.raw.read(4096, decode_content=True).decode("latin-1")

    found = re.match(r"[0-9a-fA-F]{32}\b", _persist(url, name, ask))
    return found.group().lower() if found else None


def _fetch(url: str, output: str, _: object, *, part: Path) -> None:
    """A downloader of pooch's."""
    print(f"{public(url)}: downloading to {part.parent}", file=sys.stderr)
    headers = _persist(url, part.stem, partial(_attempt, url, part))
    record = {
        "url": public(url),
        "sha256": sha256(part),
        "bytes": part.stat().st_size,
        "retrieved": datetime.now(UTC).date().isoformat(),
        "etag": headers.get("ETag"),
        "last_modified": headers.get("Last-Modified"),
    }
    with whole(record_path(part.with_suffix(""))) as path:
        path.write_text(json.dumps(record, indent=2) + "\n")
    part.replace(output)
    _validator_path(part).unlink(missing_ok=True)


def _persist(url: str, name: str, attempt: Callable[[], T]) -> T:
    """The result of the first attempt that succeeds; `name` is what the file is kept as."""
    cause: Exception
    for wait in (0.0, *WAITS):
        time.sleep(wait)
        try:
            return attempt()
        except _TRANSIENT as error:
            cause = error
        except requests.RequestException as error:
            raise GeoJEPAError(f"{public(url)}: {_line(error)}; check the name") from error
    raise GeoJEPAError(
        f"{public(url)}: cannot be downloaded ({_line(cause)}); {_BY_HAND.format(name)}"
    ) from cause


def _attempt(url: str, part: Path) -> requests.structures.CaseInsensitiveDict:
    """Bring `part` to the end of the file; the server's headers."""
    start, asked = _resumption(part)
    # as they are on the server: a .gz that is sent as an encoding stays a .gz
    headers = {"Accept-Encoding": "identity", **asked}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        is_whole = response.status_code == 200
        if not is_whole and not _continues(response, start, asked):
            _raise_if_not_served(response)
            part.unlink(missing_ok=True)
            raise _Unfinished("the server continued another file")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise requests.RequestException("the server sent a web page instead of a file")
        if is_whole:
            start = 0
            part.unlink(missing_ok=True)
            _validator_path(part).write_text(_validator(response))
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        bar = tqdm(
            desc=part.stem, total=total, initial=start, unit="B", unit_scale=True, disable=None
        )
        with bar, open(part, "ab") as file:
            for chunk in response.raw.stream(_CHUNK, decode_content=False):
                bar.update(file.write(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise _Unfinished(f"it ended after {size:,} of {total:,} bytes")
    return response.headers


def _resumption(part: Path) -> tuple[int, dict[str, str]]:
    """Bytes that are there, and the headers that ask for the rest of the same file."""
    kept = _validator_path(part)
    validator = kept.read_text() if part.is_file() and kept.is_file() else ""
    if not validator or not part.stat().st_size:
        return 0, {}
    start = part.stat().st_size
    return start, {"Range": f"bytes={start}-", "If-Range": validator}


def _continues(response: requests.Response, start: int, asked: dict[str, str]) -> bool:
    """Whether the answer starts where the part ends, in the same version of the file."""
    ranged = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    same = _validator(response) in ("", asked.get("If-Range"))
    return bool(start) and response.status_code == 206 and ranged and same


def _validator(response: requests.Response) -> str:
    """What names this version of the file to the byte; empty where nothing does."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _validator_path(part: Path) -> Path:
    return part.with_name(f"{part.stem}.version.part")


def _raise_if_not_served(response: requests.Response) -> None:
    answer = f"the server answers {response.status_code} {response.reason}"
    if response.status_code in _BUSY:
        raise _Unfinished(answer)
    # 416: the part is not shorter than the file
    if not response.ok and response.status_code != 416:
        raise requests.RequestException(answer)


def _line(error: Exception) -> str:
    reason = getattr(error.args[0], "reason", error) if error.args else error
    return " ".join(str(reason).split()) or type(error).__name__
