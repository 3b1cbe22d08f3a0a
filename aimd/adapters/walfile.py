"""A write-ahead log of SQLite as bytes: whether it was damaged, and the newest version of each page.

SQLite takes a log up to the first frame whose checksum is wrong and says nothing: what a flipped bit cuts off would be
lost without a word. Here each frame is checked against the stored checksum of the one before it, so that damage in the
middle is told from an end that was never written completely. Format: https://sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path

_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint number, two salts, two checksums
_FRAME = struct.Struct(">6I")  # page number, pages after a commit (0: goes on), two salts, two checksums
_BIG_ENDIAN_SUMS, _LITTLE_ENDIAN_SUMS = 0x377F0683, 0x377F0682
_WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Frame:
    """One page version.

    Attributes:
        commits: it ends a transaction.
        whole: its checksum continues that of the frame before.
        ours: it is of this log's run.
        complete: whole, or damaged after it was written: what is not damaged is right. A write that was never
            completed looks otherwise.
        else_page: the number with which the checksum would be right.
    """

    page: int
    commits: bool
    data: bytes
    whole: bool
    ours: bool
    complete: bool
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
    starts = {(header[6], header[7]), _sums(order, raw[:24], (0, 0))}
    intact = header[0] in (_BIG_ENDIAN_SUMS, _LITTLE_ENDIAN_SUMS) and len(starts) == 1
    salts = header[4:6] if intact else _FRAME.unpack_from(raw, _HEADER.size)[2:4]
    frames = _frames(raw, page_size, order, salts, starts, _most_pages(database, len(raw), page_size))
    committed = max((number for number, frame in enumerate(frames, 1) if frame.complete and frame.commits), default=0)
    kept = tuple(frames[:committed])
    if not intact:  # of a log with one frame nothing tells whether it was completed
        return Log(kept or tuple(frames), "the header of its write-ahead log is damaged")
    if not all(frame.whole and frame.ours for frame in kept):
        return Log(kept, "its write-ahead log is damaged")
    # What is left of a transaction that was rolled back has no commit.
    return Log(kept, cut=any(frame.commits for frame in frames[committed:]))


def _frames(
    raw: bytes, page_size: int, order: str, salts: tuple[int, ...], starts: set[tuple[int, int]], pages: int
) -> list[Frame]:
    """All frames up to the last one of this run: later ones are left over from a longer run before it.

    `starts` are the checksums that the first may continue: more than one where what is stored may be what was damaged.
    """
    frames: list[Frame] = []
    ours = 0
    for at in range(_HEADER.size, len(raw) - _FRAME.size - page_size + 1, _FRAME.size + page_size):
        page, size, *rest = _FRAME.unpack_from(raw, at)
        data = raw[at + _FRAME.size : at + _FRAME.size + page_size]
        sums = rest[2], rest[3]
        mine = tuple(rest[:2]) == tuple(salts)
        summed = raw[at : at + 8] + data
        computed = {_sums(order, summed, start) for start in starts}
        whole = sums in computed
        frame = Frame(page, size != 0, data, whole, mine, whole)
        if mine and not whole:
            frame = _examined(frame, order, summed, computed, sums, pages)
        frames.append(frame)
        starts = {sums, *(computed if mine and frame.complete else ())}
        if mine or whole:
            ours = len(frames)
        elif len(frames) > ours + 2:
            break  # one damaged frame spoils the sums of the next; three strangers in a row are a longer run's
    return frames[:ours]


def _examined(
    frame: Frame, order: str, summed: bytes, computed: set[tuple[int, int]], sums: tuple[int, int], pages: int
) -> Frame:
    """A damaged frame with what its checksum tells: whether it was complete, its page number and commit mark."""
    # Half a checksum that is right: the other half was damaged, or the last word of the page.
    half = any(one == sums[0] or two == sums[1] for one, two in computed)
    number = _else_word(order, summed, 0, range(1, pages + 1), computed, sums)
    mark = _else_word(order, summed, 4, range(pages + 1), computed, sums)
    return replace(
        frame,
        complete=half or number is not None or mark is not None,
        commits=frame.commits if mark is None else mark != 0,
        else_page=number,
    )


def _else_word(
    order: str, summed: bytes, at: int, numbers: range, computed: set[tuple[int, int]], sums: tuple[int, int]
) -> int | None:
    """The number with which, in place of the word there, the checksum is right.

    That word was damaged, or, rarely, the sum is right by chance. The sum is linear: what a one adds to it, each adds.
    """
    one = bytearray(len(summed))
    struct.pack_into(f"{order}I", one, at, 1)
    factors = _sums(order, bytes(one), (0, 0))
    (present,) = struct.unpack_from(f"{order}I", summed, at)
    for number in numbers:
        (word,) = struct.unpack(f"{order}I", number.to_bytes(4, "big"))
        added = [(word - present) * factor for factor in factors]
        if any((first + added[0] & _WORD, second + added[1] & _WORD) == sums for first, second in computed):
            return number
    return None


def _sums(order: str, data: bytes, start: tuple[int, int]) -> tuple[int, int]:
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
