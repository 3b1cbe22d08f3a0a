"""Programs and libraries of Debian's packages, for tests: fetched and unpacked beside the system, by any user.

Nothing is installed and no service started. What was unpacked is kept in the user's cache, by name and version.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

DOWNLOAD_SECONDS = 300


class UnavailableError(Exception):
    """The packages cannot be had here; the text says why."""


def unpacked(name: str, *packages: str) -> Path:
    """The folder called `name` in the cache with the packages' files, fetched if it is not there."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aimd-tests" / name
    if not folder.exists():
        _fetch(folder, packages)
    return folder


def candidate(package: str) -> str:
    """The file of the version that apt would install, like prometheus_2.42.0+ds-5_amd64.deb."""
    needed()
    _, file, *_ = _apt("--print-uris", package).split()
    return file


def needed() -> None:
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise UnavailableError(f"{' and '.join(missing)} is not there to fetch it with")


def _fetch(folder: Path, packages: tuple[str, ...]) -> None:
    needed()
    parts = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    try:
        _apt(*packages, where=parts)
        for package in parts.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(parts / "root")], check=True, timeout=60)
        if not folder.exists():  # another run may have been first
            (parts / "root").rename(folder)
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(str(error)) from error
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _apt(*arguments: str, where: Path | None = None) -> str:
    command = ["apt-get", "download", *arguments]
    for again in (os.geteuid() == 0, False):  # a machine may have no lists of packages yet, which root can mend
        try:
            done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)
            if done.returncode == 0:
                return done.stdout
            if not again:
                break
            subprocess.run(["apt-get", "update"], capture_output=True, check=True, timeout=DOWNLOAD_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            raise UnavailableError(str(error)) from error
    raise UnavailableError((done.stderr.strip().splitlines() or ["apt-get download fails"])[-1])
