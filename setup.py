"""Builds the Cython extensions of native/ into aimd._native; everything else stands in pyproject.toml.

With AIMD_SANITIZE=1 in the environment they are instrumented by AddressSanitizer and UBSan: tests/dispatch/builds.py
says how such a build is made beside the usual one and run.
"""

import os
import re
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

NATIVE = Path("native")
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def flags() -> dict[str, list[str]]:
    """Cython compares the bound of a range, an int, with the unsigned counter: no warning about that."""
    if os.environ.get("AIMD_SANITIZE") == "1":
        compile_args = ["-Wno-sign-compare", "-O1", "-g", "-fno-omit-frame-pointer", *SANITIZERS]
        return {"extra_compile_args": compile_args, "extra_link_args": SANITIZERS}
    return {"extra_compile_args": ["-Wno-sign-compare"]}


def included(source: Path) -> set[Path]:
    """What a Cython source includes, and what that includes."""
    names = re.findall(r'^include "(.+)"', source.read_text(), re.MULTILINE)
    direct = {NATIVE / name for name in names}
    return direct.union(*map(included, direct))


def extensions() -> list[Extension]:
    """One extension per native/*.pyx; `depends` puts the sources into the source distribution, too."""
    layouts = [str(path) for path in sorted(Path("aimd/_native").glob("*.pxd"))]
    return [
        Extension(
            f"aimd._native.{source.stem}",
            [str(source)],
            depends=[str(source), *sorted(map(str, included(source))), *layouts],
            **flags(),
        )
        for source in sorted(NATIVE.glob("*.pyx"))
    ]


setup(
    ext_modules=cythonize(
        extensions(),
        build_dir="build/cython",
        include_path=["native", "."],
        compiler_directives={"language_level": "3"},
    )
)
