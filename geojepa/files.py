"""Files and folders that appear whole or not at all."""

import glob
import hashlib
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geojepa.errors import GeoJEPAError

GENERIC = frozenset({"features", "extract", "map", "data", "osm"})


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` only on success.

    Works for a file and for a folder. On an exception nothing is left behind and an older
    `path` stays as it was.

    Raises:
        GeoJEPAError: if the place cannot be written to.
    """
    given, path = path, Path(path).absolute()
    if path.is_symlink():
        path = path.resolve()
    if os.path.ismount(path):
        raise GeoJEPAError(f"{given}: is a mounted disk; name a folder on it")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    old = path.with_name(f"{path.name}.{os.getpid()}.old.part")
    new_folders = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        _remove(part)
        _remove_stale(path)
        try:
            yield part
            if part.is_dir() and path.is_dir():
                os.replace(path, old)
            os.replace(part, path)
        finally:
            if old.exists() and not path.exists():
                os.replace(old, path)
            _remove(old)
            _remove(part)
            for folder in new_folders if not path.exists() else ():
                # another may have put something there
                with suppress(OSError):
                    folder.rmdir()
    except OSError as error:
        raise GeoJEPAError(f"{given}: cannot be written ({error}); name another place") from error


def recover(path: str | Path) -> None:
    """Put back a folder whose replacement was killed after it had been moved aside."""
    path = Path(path).absolute()
    left = sorted(path.parent.glob(f"{glob.escape(path.name)}.*.old.part"))
    if left and not path.exists() and not _is_at_work(left[-1]):
        os.replace(left[-1], path)


def _remove_stale(path: Path) -> None:
    """Remove what a process left that was killed, a day ago at least, while it wrote `path`."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > 86_400 and not _is_at_work(left):
                _remove(left)


def _is_at_work(part: Path) -> bool:
    """Whether the process that a part is named after lives."""
    number = part.name.removesuffix(".part").removesuffix(".old").rpartition(".")[2]
    try:
        os.kill(int(number), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where downloads and the like are kept: what GEOJEPA_CACHE names, else the user's cache."""
    named = os.environ.get("GEOJEPA_CACHE")
    if named:
        return Path(named).expanduser()
    # pooch imports tqdm's notebook bar, which in a notebook without widgets warns
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        import pooch

    return Path(pooch.os_cache("geojepa"))


def place_of(extract: str | Path) -> str:
    """The place that an extract is named after: its file, or its folder where that says nothing.

    `osm/malta.osm.pbf` is malta, `california/features.parquet` is california.
    """
    extract = Path(extract)
    name = extract.name.split(".")[0]
    name = extract.resolve().parent.name if name in GENERIC else name
    # the name of a file need not be text
    return name.encode(errors="surrogateescape").decode(errors="replace")


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
