"""aimd as its distributions bring it to each Python of this machine. Both are built once and kept (tests/systemd/tree.py)."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.systemd import tree

# Optimised code of the compiled modules is what the Debian package has; this is about being built and found at all.
QUICKLY = {"CFLAGS": "-O0"}


def pytest_collection_modifyitems(items):
    """What compiles for another Python at its first use takes longer than a usual test may."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(600))


def interpreter(version):
    """Of this version, `3.12`; None if there is none."""
    candidates = [sys.executable] if sys.version_info[:2] == tuple(map(int, version.split("."))) else []
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    with contextlib.suppress(PermissionError):  # somebody else's
        candidates += map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python")))
    candidates += [f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"]
    return next((path for path in candidates if has_what_is_needed(path)), None)


def has_what_is_needed(path):
    """venv, and headers to compile against."""
    code = "import ensurepip, os, sysconfig, venv; os.stat(sysconfig.get_path('include') + '/Python.h')"
    try:
        return subprocess.run([path, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="session")
def distributions():
    """A folder with the wheel for this Python and the source distribution that it was made of, by `python -m build`."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler (cc)")
    wanted = kept(f"dist-{tree.digest()}")
    if not wanted.exists():
        folder = tree.fresh(wanted)
        builder = folder / "builder"
        tree.done(sys.executable, "-m", "venv", builder)
        tree.done(builder / "bin/pip", "install", "--quiet", "build")
        command = [builder / "bin/python", "-m", "build", "--outdir", folder, tree.sources(folder)]
        tree.done(*command, env={**os.environ, **QUICKLY})
        shutil.rmtree(builder)
        shutil.rmtree(folder / "sources")
        tree.keep(folder, wanted)
    return wanted


@pytest.fixture(scope="module", params=["3.10", "3.11", "3.12", "3.13"])
def installed(request, distributions):
    """bin/ of a virtual environment with aimd: from the source distribution, or for this Python from the wheel."""
    if (python := interpreter(request.param)) is None:
        pytest.skip(f"there is no Python {request.param} with venv and headers")
    wanted = kept(f"venv{request.param}-{distributions.name.partition('-')[2]}")
    complete = wanted / "complete"
    if not complete.exists():
        shutil.rmtree(wanted, ignore_errors=True)
        (source,) = distributions.glob("*.whl" if python == sys.executable else "*.tar.gz")
        tree.done(python, "-m", "venv", wanted)  # in its place: a virtual environment cannot be moved
        environ = {**os.environ, **QUICKLY}
        tree.done(wanted / "bin/python", "-I", "-m", "pip", "install", "--quiet", source, env=environ, cwd="/")
        complete.touch()
        tree.forget_old(wanted, 2)
    return wanted / "bin"


def kept(name):
    try:
        tree.CACHE.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        pytest.skip(f"{tree.CACHE} cannot be made ({error.strerror}); AIMD_TEST_CACHE names another folder")
    if not os.access(tree.CACHE, os.W_OK):
        pytest.skip(f"{tree.CACHE} is not writable; AIMD_TEST_CACHE names another folder")
    return tree.CACHE / name
