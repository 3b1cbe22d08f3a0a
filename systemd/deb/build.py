#!/usr/bin/env python3
"""Builds the Debian package: aimd and the Python packages that it needs in a virtual environment below /opt/aimd.

    python3 systemd/deb/build.py [--output DIR] [--python /usr/bin/python3] [--wheel FILE]

prints the path of the package. Needs what compiles the extensions (gcc, headers of that Python) and dpkg-deb; the wheel
is built from the source distribution in a clean folder, unless one is given. The Python has to be that of the system
where the package is installed, same minor version: the package depends on it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
UNITS = PROJECT / "systemd"
HOME = "opt/aimd"
PROGRAMS = ("aimd", "aimctl")
# Where files of systemd/ go, with their mode.
FILES = {
    "aimctl": "usr/bin/aimctl",
    "aimd.service": "usr/lib/systemd/system/aimd.service",
    "aimd.socket": "usr/lib/systemd/system/aimd.socket",
    "aimd-dispatch.socket": "usr/lib/systemd/system/aimd-dispatch.socket",
    "aimd-metrics.socket": "usr/lib/systemd/system/aimd-metrics.socket",
    "aimd.catalog": "usr/lib/systemd/catalog/aimd.catalog",
    "sysusers.conf": "usr/lib/sysusers.d/aimd.conf",
    "tmpfiles.conf": "usr/lib/tmpfiles.d/aimd.conf",
    "60-aimd.rules": "usr/lib/udev/rules.d/60-aimd.rules",
    "partition-files": "usr/lib/aimd/partition-files",
    "aimd.toml": "etc/aimd/aimd.toml",
}
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/aimctl",
    "zsh": "usr/share/zsh/vendor-completions/_aimctl",
    "fish": "usr/share/fish/vendor_completions.d/aimctl.fish",
}


def run(*command: str | Path, **more: object) -> str:
    """Standard output of a command; ends the program with its output if it fails."""
    result = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    if result.returncode:
        sys.exit(f"{' '.join(str(word) for word in command)} failed:\n{result.stdout}{result.stderr}")
    return str(result.stdout)


def built_wheel(python: str, folder: Path) -> Path:
    """Through the source distribution: what it lacks is noticed, and nothing of an earlier build gets in."""
    run(python, "-m", "venv", folder / "builder")
    run(folder / "builder/bin/pip", "install", "--quiet", "build")
    run(folder / "builder/bin/python", "-m", "build", "--outdir", folder / "dist", PROJECT)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def environment(python: str, wheel: Path, root: Path, folder: Path) -> None:
    """A virtual environment that is at home in /opt/aimd, with nothing in it that tells where it was built."""
    home = root / HOME
    run(python, "-m", "venv", folder / "pip")
    run(python, "-m", "venv", "--without-pip", home)
    install = ["install", "--quiet", "--no-compile", "--no-warn-script-location"]
    run(folder / "pip/bin/pip", "--python", home / "bin/python", *install, f"{wheel}[kube]")
    for path in (home / "bin").iterdir():
        if path.name in PROGRAMS:
            text = path.read_text()
            path.write_text(re.sub(r"\A#!.*", f"#!/{HOME}/bin/python -I", text))
        elif not path.name.startswith("python"):
            path.unlink()
    for path in home.rglob("direct_url.json"):
        path.unlink()
    (home / "pyvenv.cfg").write_text(f"home = {Path(python).parent}\ninclude-system-site-packages = false\n")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/aimd").symlink_to(f"/{HOME}/bin/aimd")
    script = (
        "import compileall, py_compile, sys; sys.exit(not compileall.compile_dir(sys.argv[1], quiet=2, stripdir=sys.argv[2],"
        " invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH))"
    )
    subprocess.run([python, "-c", script, str(home / "lib"), str(root)], check=False)  # some packages ship templates


def documents(root: Path) -> None:
    """Man pages, completions, licence and change log."""
    python, environ = root / HOME / "bin/python", {"PATH": os.environ["PATH"]}
    environ["PYTHONPATH"] = str(next((root / HOME / "lib").glob("*/site-packages")))
    pages = root.parent / "man"
    pages.mkdir()
    run(python, UNITS / "man/pages.py", pages, env=environ)
    for page in sorted(pages.iterdir()):
        target = root / f"usr/share/man/man{page.suffix[1:]}/{page.name}.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(page.read_bytes(), mtime=0))
    for shell, name in COMPLETIONS.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(run(python, "-m", "aimd.ctl", "completion", shell, env=environ))
    folder = root / "usr/share/doc/aimd"
    folder.mkdir(parents=True)
    shutil.copy(PROJECT / "LICENSE", folder / "copyright")
    (folder / "changelog.gz").write_bytes(gzip.compress((PROJECT / "CHANGELOG.md").read_bytes(), mtime=0))


def control(python: str, version: str, root: Path) -> None:
    """DEBIAN/: what dpkg is told."""
    major, minor = run(python, "-c", "import sys; print(*sys.version_info[:2])").split()
    values = {
        "VERSION": version,
        "ARCHITECTURE": run("dpkg", "--print-architecture").strip(),
        "PYTHON_DEPENDS": f"python3 (>= {major}.{minor}), python3 (<< {major}.{int(minor) + 1})",
    }
    text = (UNITS / "deb/control").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    folder = root / "DEBIAN"
    folder.mkdir()
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    size = sum(path.stat().st_size for path in files) // 1024
    (folder / "control").write_text(text.replace("Section:", f"Installed-Size: {size}\nSection:"))
    (folder / "conffiles").write_text("/etc/aimd/aimd.toml\n")
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files)  # noqa: S324 - dpkg's format
    (folder / "md5sums").write_text("".join(sums))
    for script in ("postinst", "prerm", "postrm"):
        shutil.copy(UNITS / "deb" / script, folder / script)
        (folder / script).chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds the Debian package of aimd.")
    parser.add_argument("--output", type=Path, default=PROJECT / "dist")
    parser.add_argument("--python", default="/usr/bin/python3", help="that of the system it is for")
    parser.add_argument("--wheel", type=Path, help="of aimd, for this Python; else it is built")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), Path(name) / "root"
        wheel = chosen.wheel or built_wheel(chosen.python, folder)
        version = f"{wheel.name.split('-')[1]}-1"
        environment(chosen.python, wheel.resolve(), root, folder)
        for source, target in FILES.items():
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(UNITS / source, root / target)
        documents(root)
        control(chosen.python, version, root)
        for path in root.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        root.chmod(0o755)
        chosen.output.mkdir(parents=True, exist_ok=True)
        package = chosen.output / f"aimd_{version}_{run('dpkg', '--print-architecture').strip()}.deb"
        run("dpkg-deb", "--root-owner-group", "-Zzstd", "--build", root, package)
        print(package)


if __name__ == "__main__":
    main()
