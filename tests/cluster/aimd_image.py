"""The image of aimd by its Dockerfile, kept by what it was made from.

What lasts is made once per Dockerfile and constraints: Debian's and Python's packages, two minutes. Changed sources cost
the build of their wheel, the same sources nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from aimd import __version__
from tests.cluster import bases, builds, images
from tests.systemd.tree import PROJECT, fresh

NAME = "aimd.test/aimd"
REFERENCE = f"{NAME}:{__version__}"
BASE = "aimd.test/debian:12"
STAGES = ("packages", "runtime")  # of the Dockerfile, without anything of aimd's sources
RECIPE = ("k8s/Dockerfile", "k8s/constraints.txt")
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "native", "aimd")
KEPT = 2  # other images; somebody may be at another state
# How pip is told of indexes by the environment; its file is among images.REACH.
PIP = ("PIP_INDEX_URL", "PIP_CERT")


def archive() -> Path:
    """The archive of the image of the sources as they are now."""
    cache = builds.cache_folder()
    base = bases.debian(BASE)
    recipe = _digest(RECIPE, base.name)
    with builds.alone(cache / "cluster-image.lock"):
        work = fresh(cache / "cluster-image")
        context = _copied(work / "context")
        wanted = cache / f"cluster-image-{_digest((*RECIPE, *SOURCES), recipe, context)}.tar"
        try:
            if not wanted.exists():
                builder = _prepared(cache / f"cluster-store-{recipe}", context, base)
                stages = {name: _made(name) for name in STAGES}
                made = builder.build(context, REFERENCE, work / "image.tar", stages=stages, **_arguments(context))
                made.replace(wanted)
                builder.forget(REFERENCE)
        finally:
            shutil.rmtree(work)
        _forget_older(cache, wanted)
    return wanted


def _prepared(store: Path, context: Path, base: Path) -> images.Builder:
    """A builder that has the stages that last."""
    for other in store.parent.glob("cluster-store-*"):
        if other != store:
            shutil.rmtree(other)
    builder = images.Builder(store)
    if not builder.has(BASE):
        builder.load(base)
    for name in STAGES:
        if not builder.has(_made(name)):
            builder.make(context, _made(name), target=name, **_arguments(context))
    return builder


def _made(stage: str) -> str:
    return f"aimd.test/{stage}:1"


def _arguments(context: Path) -> dict[str, object]:
    given = {name: os.environ[name] for name in PIP if name in os.environ}
    return {"dockerfile": context / RECIPE[0], "BASE": BASE, **given}


def _copied(folder: Path) -> Path:
    """The sources, which others may change while they are looked at."""
    for path in _files((*RECIPE, *SOURCES), PROJECT):
        target = folder / path.relative_to(PROJECT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def _digest(names: tuple[str, ...], more: str, folder: Path = PROJECT) -> str:
    found = hashlib.sha256(more.encode())
    for path in _files(names, folder):
        found.update(f"\0{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:12]


def _files(names: tuple[str, ...], folder: Path) -> list[Path]:
    below = [path for name in names for path in ([folder / name, *sorted((folder / name).rglob("*"))])]
    return [path for path in below if path.is_file() and path.suffix not in (".so", ".pyc", ".c")]


def _forget_older(cache: Path, kept: Path) -> None:
    others = [path for path in cache.glob("cluster-image-*.tar") if path != kept]
    for path in sorted(others, key=lambda path: path.stat().st_mtime)[:-KEPT]:
        path.unlink()
