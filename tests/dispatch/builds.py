"""Builds of the native modules beside the usual one, with sanitizers or with a fault, and test runs on them.

By hand, for example with sanitizers (gcc):

    AIMD_SANITIZE=1 python setup.py build --build-base build/sanitized --build-lib build/sanitized/lib
    LD_PRELOAD="$(gcc -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
        python -m pytest -o pythonpath="build/sanitized/lib ." tests/dispatch -k "native or queue"
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def copy_sources(tree):
    """What a build needs and what its tests need, copied to `tree`."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.c")
    for name in ("aimd", "native", "tests"):
        shutil.copytree(PROJECT / name, tree / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, tree / name)


def build(tree, **environment):
    """Build the extensions of the sources in `tree` in place."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    result = subprocess.run(command, cwd=tree, env={**os.environ, **environment}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def run_tests(tree, *arguments, **environment):
    """Run pytest in `tree`, on the package there."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    variables = {**os.environ, "PYTHONPATH": str(tree), **environment}
    return subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True)


def runtime_library(name):
    """Path of a sanitizer's runtime, which the interpreter, itself not instrumented, has to load first."""
    return subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
