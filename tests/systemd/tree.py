"""A Debian 12 tree with systemd 252 and the package of aimd, both made once and kept outside of the project.

AIMD_TEST_CACHE names the folder where they are kept, /var/cache/aimd-tests by default. What is kept is named by what it
was made from, so nothing old is used; a tree takes half a minute, a package a minute.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("AIMD_TEST_CACHE") or "/var/cache/aimd-tests")
SUITE = "bookworm"
# python3 is what the package depends on; the others are systemd itself, what it needs to boot, and a bus for aimctl exec.
PACKAGES = ("dbus", "procps", "python3", "systemd", "systemd-sysv")
TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "systemd-analyze": "systemd"}
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
INGREDIENTS = ("aimd", "native", "systemd", "pyproject.toml", "setup.py", "CHANGELOG.md", "LICENSE", "README.md")
KEPT = 6  # of each kind; other runs may use theirs at the same time


def done(*command, **more):
    """Standard output of a command that has to succeed."""
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, **more)
    assert result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
    return result.stdout


def install_tools():
    """Those that are missing, as root."""
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done("apt-get", "update", env=environ)
        done("apt-get", "install", "--yes", "--no-install-recommends", *missing, env=environ)


def base_tree():
    """Its folder. Machines boot from overlays over it."""
    recipe = hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:12]
    wanted = CACHE / f"tree-{SUITE}-{recipe}"
    if not wanted.exists():
        folder = fresh(wanted)
        here = SOURCES.exists() and SUITE in SOURCES.read_text()
        sources = [SOURCES] if here else []  # else mmdebstrap's own
        made = ["mmdebstrap", "--quiet", "--format=directory", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        done(*made, SUITE, folder, *sources)
        (folder / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")  # a machine lives for a minute
        keep(folder, wanted)
    return wanted


def package():
    """The .deb of the project as it is, built by the documented command; or the file that AIMD_TEST_PACKAGE names."""
    if named := os.environ.get("AIMD_TEST_PACKAGE"):
        return Path(named)
    wanted = CACHE / f"aimd-{digest()}.deb"
    if not wanted.exists():
        folder = fresh(wanted)
        found = done(sys.executable, sources(folder) / "systemd/deb/build.py", "--output", folder).strip()
        keep(Path(found), wanted)
        shutil.rmtree(folder)
    return wanted


def repacked(package, folder, version):
    """The same package as another version, with a mark in it that tells them apart."""
    root = folder / "repacked"
    done("dpkg-deb", "-R", package, root)
    control = root / "DEBIAN/control"
    lines = control.read_text().splitlines(keepends=True)
    control.write_text("".join(f"Version: {version}\n" if line.startswith("Version:") else line for line in lines))
    (root / "usr/share/doc/aimd/version").write_text(version)
    made = folder / f"aimd_{version}.deb"
    done("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", root, made)
    shutil.rmtree(root)
    return made


def fresh(wanted):
    """Where to make it; what runs that have ended have left half done is removed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for left in CACHE.glob("[0-9]*-*"):
        if not Path(f"/proc/{left.name.partition('-')[0]}").exists():
            _remove(left)
    return wanted.with_name(f"{os.getpid()}-{wanted.name}")


def keep(made, wanted):
    """Put it where it belongs at once, and forget the oldest of its kind."""
    try:
        made.replace(wanted)
    except OSError:  # another run was first with the same tree
        if not wanted.exists():
            raise
        shutil.rmtree(made)
    forget_old(wanted)


def forget_old(wanted, number=KEPT):
    kind = wanted.name.partition("-")[0]
    for old in sorted(CACHE.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime)[:-number]:
        _remove(old)


def _remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def ingredients():
    """Files that packages and distributions are made of."""
    for name in INGREDIENTS:
        top = PROJECT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix not in (".so", ".pyc", ".c"):
                yield path


def sources(folder):
    """A copy of them: a build writes beside its sources, where another one may be at work, or nobody may write."""
    for path in ingredients():
        target = folder / "sources" / path.relative_to(PROJECT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder / "sources"


def digest():
    found = hashlib.sha256()
    for path in ingredients():
        found.update(f"{path.relative_to(PROJECT)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]
