"""Which code made a file: the commit of the repository, and whether it had been changed."""

import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# what a run writes is no change of the code
NOT_CODE = ("results", "runs", "corpus", "data")


def code_state(folder: Path) -> dict[str, str | bool | None]:
    """Commit of the repository that holds `folder`, and whether its code has changed since."""
    apart = [f":(top,exclude){other}" for other in NOT_CODE]
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
        changed = _git(folder, "status", "--porcelain", "--", ":(top)", *apart)
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changed.strip())}


def version_of(package: str) -> str | None:
    """The installed version; None where the code runs from its folder."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str:
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=quiet).stdout
