"""Builds the Cython extensions of native/ into aimd._native; everything else stands in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

NATIVE = Path("native")


def extensions() -> list[Extension]:
    """One extension per native/*.pyx; `depends` puts the sources into the source distribution, too."""
    shared = sorted(str(path) for pattern in ("*.pxi", "*.pxd", "*.h") for path in NATIVE.glob(pattern))
    return [
        Extension(f"aimd._native.{source.stem}", [str(source)], depends=[str(source), *shared])
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
