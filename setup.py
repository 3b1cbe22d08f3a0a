"""Builds the Cython extensions of native/ into aimd._native; everything else stands in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

NATIVE = Path("native")


def extensions() -> list[Extension]:
    """One extension per native/*.pyx; `depends` puts the sources into the source distribution, too."""
    shared = sorted(map(str, [*NATIVE.glob("*.pxi"), *Path("aimd/_native").glob("*.pxd")]))
    return [
        Extension(
            f"aimd._native.{source.stem}",
            [str(source)],
            depends=[str(source), *shared],
            extra_compile_args=["-Wno-sign-compare"],  # Cython compares the bound of a range, an int, with the counter
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
