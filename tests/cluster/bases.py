"""A Debian image to build upon where no registry can be asked: made by mmdebstrap once, kept by what it holds."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tests.cluster import builds, images
from tests.systemd.tree import SOURCES, SUITE, done

PYTHON = ("ca-certificates", "python3", "python3-venv")


def debian(reference: str, packages: tuple[str, ...] = PYTHON) -> Path:
    """The archive of an image with this name: Debian 12's smallest system and the packages. Half a minute at first."""
    recipe = hashlib.sha256(" ".join((images.FORMAT, SUITE, reference, *packages)).encode()).hexdigest()[:12]
    folder = builds.cache_folder()
    wanted = folder / f"cluster-base-{recipe}.tar"
    with builds.alone(folder / "cluster-base.lock"):
        if not wanted.exists():
            _make(wanted, reference, packages)
    return wanted


def _make(wanted: Path, reference: str, packages: tuple[str, ...]) -> None:
    tree = wanted.with_name(f"{os.getpid()}-tree.tar")
    here = SOURCES.exists() and SUITE in SOURCES.read_text()
    sources = [SOURCES] if here else []  # else mmdebstrap's own
    try:
        include = f"--include={','.join(packages)}"
        done("nice", "mmdebstrap", "--quiet", "--variant=minbase", include, SUITE, tree, *sources)
        fresh = images.archive(wanted.with_name(f"{os.getpid()}-{wanted.name}"), reference, tree.read_bytes(), [])
        shutil.move(fresh, wanted)
    finally:
        tree.unlink(missing_ok=True)
