"""Asking systemd's own tools, which know what no file tells: a command is run to its end and never waited for long."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple

ANSWER_SECONDS = 10


class Ran(NamedTuple):
    """What a command wrote; `failure` is why it could not be run or did not succeed, None if it did."""

    output: str
    failure: str | None = None


Run = Callable[[Sequence[str]], Ran]


def run(words: Sequence[str]) -> Ran:
    """Run a command line."""
    program = shutil.which(words[0])
    if program is None:
        return Ran("", f"{words[0]} is not installed")
    try:
        ended = subprocess.run(  # noqa: S603 - constants of aimd.doctor.unit_reading
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ran("", f"{words[0]} does not answer")
    except OSError as error:
        return Ran("", f"{words[0]} cannot be run: {error.strerror}")
    if ended.returncode == 0:
        return Ran(ended.stdout)
    told = ended.stderr.strip().splitlines()
    return Ran(ended.stdout, told[-1] if told else f"{words[0]} ended with {ended.returncode}")
