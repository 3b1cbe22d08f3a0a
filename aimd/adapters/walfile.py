"""A write-ahead log of SQLite as bytes: whether it was damaged, and the newest version of each page.

SQLite takes a log up to the first frame whose checksum is wrong and says nothing: what a flipped bit cuts off would be
lost without a word. Here each frame is checked against the stored checksum of the one before it, so that damage in the
middle is told from an end that was never written completely. Format: https://sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint number, two salts, two checksums
_FRAME = struct.Struct(">6I")  # page number, pages after a commit (0: goes on), two salts, two checksums
_BIG_ENDIAN_SUMS, _LITTLE_ENDIAN_SUMS = 0x377F0683, 0x377F0682
_WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Frame:
    """One page version. `whole`: its checksum continues that of the frame before; `ours`: it is of this log's run.

    `else_page` is the number with which the checksum would be right.
    """

    page: int
    commits: bool
    data: bytes
    whole: bool
    ours: bool
    else_page: int | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """A log's frames up to the last one that belongs to its run, and what is wrong with it.

    Attributes:
        damage: damaged before the end of what was committed; None: SQLite reads all that was.
        cut: at its end is a commit that is damaged or was never written completely (killed in the middle of it).
    """

    frames: tuple[Frame, ...] = ()
    damage: str | None = None
    cut: bool = False


def log_of(database: Path, page_size: int) -> Log:
    """The write-ahead log beside a database; empty if there is none. Raises OSError."""
    try:
        raw = Path(f"{database}-wal").read_bytes()
    except FileNotFoundError:
        return Log()
    if len(raw) < _HEADER.size + _FRAME.size + page_size:
        return Log()
    header = _HEADER.unpack_from(raw)
    order = ">" if header[0] == _BIG_ENDIAN_SUMS else "<"
    intact = header[0] in (_BIG_ENDIAN_SUMS, _LITTLE_ENDIAN_SUMS) and _sums(order, raw[:24], (0, 0)) == header[6:8]
    salts = header[4:6] if intact else _FRAME.unpack_from(raw, _HEADER.size)[2:4]
    frames = _frames(raw, page_size, order, salts, header[6:8], _most_pages(database, len(raw), page_size))
    if not intact:
        return Log(tuple(frames), "the header of its write-ahead log is damaged")
    committed = max((number for number, frame in enumerate(frames, 1) if frame.whole and frame.commits), default=0)
    if not all(frame.whole and frame.ours for frame in frames[:committed]):
        return Log(tuple(frames), "its write-ahead log is damaged")
    # What is left of a transaction that was rolled back has no commit.
    return Log(tuple(frames[:committed]), cut=any(frame.commits for frame in frames[committed:]))


def _frames(
    raw: bytes, page_size: int, order: str, salts: tuple[int, ...], before: tuple[int, ...], pages: int
) -> list[Frame]:
    """All frames up to the last one of this run: later ones are left over from a longer run before it."""
    frames: list[Frame] = []
    ours = 0
    for at in range(_HEADER.size, len(raw) - _FRAME.size - page_size + 1, _FRAME.size + page_size):
        page, size, *rest = _FRAME.unpack_from(raw, at)
        data = raw[at + _FRAME.size : at + _FRAME.size + page_size]
        sums = tuple(rest[2:])
        whole = _sums(order, raw[at : at + 8] + data, before) == sums
        mine = tuple(rest[:2]) == tuple(salts)
        other = _else_page(order, raw[at + 4 : at + 8] + data, before, sums, pages) if mine and not whole else None
        frames.append(Frame(page, size != 0, data, whole, mine, other))
        before = sums
        if mine or whole:
            ours = len(frames)
        elif len(frames) > ours + 2:
            break  # one damaged frame spoils the sums of the next; three strangers in a row are a longer run's
    return frames[:ours]


def _else_page(order: str, rest: bytes, before: tuple[int, ...], sums: tuple[int, ...], pages: int) -> int | None:
    """The page number with which the checksum is right: that was damaged, or, rarely, it is right by chance."""
    numbers = range(1, pages + 1)
    return next((n for n in numbers if _sums(order, n.to_bytes(4, "big") + rest, before) == sums), None)


def _sums(order: str, data: bytes, start: tuple[int, ...]) -> tuple[int, int]:
    """The running checksum of the format, over words in the byte order of the log."""
    first, second = start
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for one, two in zip(words, words, strict=True):
        first = first + one + second & _WORD
        second = second + two + first & _WORD
    return first, second


def current_pages(database: Path, page_size: int) -> dict[int, bytes]:
    """The newest version of each page, from 1; the last versions that are complete, or damaged but told as ours."""
    raw = database.read_bytes() if _size(database) else b""
    pages = {at // page_size + 1: raw[at : at + page_size] for at in range(0, len(raw), page_size)}
    pages = {number: page.ljust(page_size, b"\0") for number, page in pages.items()}
    for frame in log_of(database, page_size).frames:
        known = pages.get(frame.page, b"")
        wrong_number = frame.else_page is not None and not _alike(frame.data, known)
        pages[frame.else_page if wrong_number and frame.else_page is not None else frame.page] = frame.data
    return pages


def _alike(data: bytes, before: bytes) -> bool:
    """Whether these are two versions of one page: most of what is not zero is the same."""
    used = [(now, old) for now, old in zip(data, before, strict=False) if now]
    return 2 * sum(now == old for now, old in used) > len(used)


def _most_pages(database: Path, log_size: int, page_size: int) -> int:
    """What the database can have at most: a new page is in the log."""
    return (_size(database) + log_size) // page_size


def _size(database: Path) -> int:
    return database.stat().st_size if database.exists() else 0
