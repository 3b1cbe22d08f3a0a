"""Container images without a registry: archives of files for small ones, buildah for what a Dockerfile describes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

from tests.systemd.tree import done

PAUSE = "aimd.test/pause:1"
SHELL = "aimd.test/busybox:1"
FORMAT = "2"  # of what `archive` writes: another one where that changes
DRIVER = "vfs"  # works on any file system, and is no slower here than overlayfs
BUSYBOX = Path("/bin/busybox")
# How this machine reaches packages: seen by what a Dockerfile runs, not in the image.
REACH = ("/etc/apt/apt.conf.d", "/etc/pip.conf", "/etc/ssl/certs", "/usr/share/ca-certificates")


def archive(path: Path, reference: str, layer: bytes, command: list[str]) -> Path:
    """An image of one layer, a tar file, in the format that `docker save` writes and everybody loads."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": command or None, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "tests.cluster.images"}],  # buildah wants one per layer
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            _add(tar, name, content, 0o644)
    return path


def pause_image(path: Path, program: Path) -> Path:
    """What the node runs for each pod itself."""
    return archive(path, PAUSE, _layer({"pause": program.read_bytes()}, {}), ["/pause"])


def shell_image(path: Path) -> Path:
    """A shell with the usual tools (Debian: busybox-static)."""
    tools = done(BUSYBOX, "--list").split()
    links = {f"bin/{tool}": "busybox" for tool in tools if tool != "busybox"}
    return archive(path, SHELL, _layer({"bin/busybox": BUSYBOX.read_bytes()}, links), ["/bin/sh", "-c"])


class Builder:
    """buildah with a store of its own in a folder; needs no daemon and no overlay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, image: Path) -> None:
        """Make an archive's image known, as a base to build upon."""
        self._buildah("pull", f"docker-archive:{image}")

    def has(self, reference: str) -> bool:
        """Whether it is known, as a base to build upon."""
        return bool(self._buildah("images", "--quiet", "--filter", f"reference={reference}").strip())

    def make(
        self,
        context: Path,
        reference: str,
        *,
        dockerfile: Path | None = None,
        target: str | None = None,
        stages: dict[str, str] | None = None,
        **arguments: str,
    ) -> None:
        """Have what the Dockerfile makes known by the reference, or its stage `target`.

        Bases have to be loaded, nothing is fetched but by its own commands. `stages`: images that are made already, by
        their stages' names.
        """
        file = dockerfile or context / "Dockerfile"
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        given += [f"--volume={path}:{path}:ro" for path in REACH if Path(path).exists()]
        given += [f"--build-context={name}=container-image://{image}" for name, image in (stages or {}).items()]
        given += [f"--target={target}"] if target else []
        self._buildah("build", "--pull-never", "--layers=false", *given, "-t", reference, "-f", file, context)

    def build(self, context: Path, reference: str, image: Path, **more: Any) -> Path:
        """The archive of what `make` makes."""
        self.make(context, reference, **more)
        image.unlink(missing_ok=True)
        self._buildah("push", reference, f"docker-archive:{image}:{reference}")
        return image

    def forget(self, reference: str) -> None:
        """Free what an image takes, and what nothing names: of builds that were killed, for example."""
        self._buildah("rm", "--all")
        self._buildah("rmi", "--force", reference)
        self._buildah("rmi", "--prune")

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _buildah(self, *words: object) -> str:
        places = ("--root", self._folder / "store", "--runroot", self._folder / "run")
        environ = {**os.environ, "STORAGE_DRIVER": DRIVER, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self._folder)}
        self._folder.mkdir(parents=True, exist_ok=True)
        return done("nice", "buildah", *places, *words, env=environ)


def _layer(files: dict[str, bytes], links: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            _add(tar, name, content, 0o755)
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name in ("tmp", "etc", "run"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
