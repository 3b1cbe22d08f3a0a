"""Numbers for names: a dispatch core and the lease file know partitions and models by number only.

A name keeps its number for as long as the file lives, so that the leases of an earlier daemon mean the same to the next
one. The file is replaced as a whole before a new number is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

MAX_NUMBER = (1 << 31) - 1


class NumberBook:
    """Numbers of partitions and of models, kept in a JSON file.

    One that is missing or unreadable is begun anew, with numbers above those of `used` leases.
    """

    def __init__(self, path: Path, used: Iterable[int] = ()) -> None:
        self._path = path
        self._numbers: dict[str, int] = {}
        try:
            read = json.loads(path.read_text("utf-8"))
            self._numbers = {name: number for name, number in read.items() if 0 <= number <= MAX_NUMBER}
        except (OSError, ValueError, AttributeError, TypeError):
            self._numbers = {}
        self._next = 1 + max((*self._numbers.values(), *used), default=-1)

    def number(self, name: str) -> int:
        """The number of the name; a new one is on the disk when this returns. Raises OSError."""
        return self.numbers([name])[name]

    def numbers(self, names: Iterable[str]) -> dict[str, int]:
        """As `number`, with one write for all that are new."""
        asked = list(names)
        new = [name for name in dict.fromkeys(asked) if name not in self._numbers]
        if new:
            added = {name: self._next + place for place, name in enumerate(new)}
            self._write({**self._numbers, **added})
            self._numbers.update(added)
            self._next += len(new)
        return {name: self._numbers[name] for name in asked}

    def name(self, number: int) -> str | None:
        """The name of a number, None for one that is not known."""
        return next((name for name, known in self._numbers.items() if known == number), None)

    def forget(self, keep: Iterable[str]) -> None:
        """Drop all names but these; their numbers are not given again by this object. Raises OSError."""
        kept = set(keep)
        self._numbers = {name: number for name, number in self._numbers.items() if name in kept}
        self._write(self._numbers)

    def _write(self, numbers: dict[str, int]) -> None:
        fresh = self._path.with_name(self._path.name + ".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(numbers, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
