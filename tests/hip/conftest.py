"""The stand-in for libamdhip64, built by the compiler at hand, and AMD's own library where it can be had."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import debian

STUB = Path(__file__).parents[2] / "native" / "stub" / "hip_stub.c"
# Debian 12's libamdhip64-5 with what it needs beyond a minimal system.
PACKAGES = (
    *("libamdhip64-5", "libhsa-runtime64-1", "libhsakmt1", "libamd-comgr2", "libllvm15", "libelf1", "libdrm-amdgpu1"),
    *("libdrm2", "libnuma1", "libedit2", "libbsd0", "libmd0", "libicu72", "libxml2", "libz3-4", "libffi8", "liblzma5"),
    "libtinfo6",
)


class Stubs:
    """Shared libraries made of the stand-in, by their flavour."""

    def __init__(self, folder: Path, compiler: str) -> None:
        self._folder = folder
        self._compiler = compiler

    def build(self, *macros: str, name: str = "libamdhip64.so") -> Path:
        """The library with these macros (`HIP_MAJOR=5`), built once."""
        folder = self._folder / ("-".join(macros).replace("=", "_") or "plain")
        target = folder / name
        if not target.exists():
            folder.mkdir(exist_ok=True)
            defined = [f"-D{macro}" for macro in macros]
            flags = ["-shared", "-fPIC", "-pthread", "-O1", "-Wall", "-Wextra", "-Werror"]
            subprocess.run([self._compiler, *flags, *defined, str(STUB), "-o", str(target)], check=True)
        return target


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for libamdhip64 with")
    return Stubs(tmp_path_factory.mktemp("hip"), compiler)


@pytest.fixture(scope="session")
def empty_library(stubs, tmp_path_factory):
    """A shared library without any of HIP's functions."""
    source = tmp_path_factory.mktemp("wrong") / "nothing.c"
    source.write_text("int nothing;\n")
    target = source.with_name("libamdhip64.so.6")
    subprocess.run([stubs._compiler, "-shared", "-fPIC", str(source), "-o", str(target)], check=True)
    return target


@pytest.fixture(scope="session")
def real_library():
    """AMD's libamdhip64 5.2.3; its folder is what LD_LIBRARY_PATH has to name."""
    if platform.machine() != "x86_64":
        pytest.skip(f"AMD's libamdhip64 5.2.3 is for x86_64 alone, this is {platform.machine()}")
    try:
        folder = debian.unpacked("amdhip-5.2.3", *PACKAGES)
    except debian.UnavailableError as error:
        pytest.skip(f"AMD's libamdhip64 5.2.3 cannot be had: {error}")
    return folder / "usr" / "lib" / "x86_64-linux-gnu" / "libamdhip64.so.5"
