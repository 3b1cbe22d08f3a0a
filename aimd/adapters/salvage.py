"""What a damaged ledger still holds: rows are looked for in the bytes of its pages, and their checksums tell.

Neither header nor b-trees have to be in order. A row is found where a page says, or, on a page that is not flawless, at
any offset. The ledger deletes securely (deleted rows and freed pages are zeroed), so that what is found is current.
File format: https://sqlite.org/fileformat2.html (b-tree pages 1.6, records 2.1, write-ahead log 4).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aimd.adapters.walfile import current_pages

PAGE_SIZE = 4096
TABLE_LEAF = 0x0D
_MOST_LOCAL = PAGE_SIZE - 35  # a longer record continues on overflow pages (1.6, "Cell Payload Overflow Pages")
_LEAST_LOCAL = (PAGE_SIZE - 12) * 32 // 255 - 23
_MOST_PAYLOAD = 1 << 24
_MOST_HEADER = 20  # bytes of a record's header: five columns, each told by at most three bytes
_KEYED = ("meta", "gpus", "claims", "holders")
_INTEGER_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
Value = int | str | None


@dataclass(frozen=True, slots=True)
class SavedRow:
    """A row whose checksum is right; `columns` are those of its table, in order. `number` is its rowid."""

    table: str
    number: int
    columns: tuple[Value, ...]

    @property
    def identity(self) -> tuple[str, Value]:
        return self.table, self.number if self.table == "events" else self.columns[self.table == "changes"]


def row_checksum(table: str, identity: object, payload: str) -> int:
    """Of a row of the ledger: covers what it is and what it says."""
    return zlib.crc32(f"{table}\0{identity}\0{payload}".encode())


def surviving_rows(database: Path) -> list[SavedRow]:
    """All rows that the file, with its write-ahead log, still holds, in the order of their numbers; raises OSError."""
    pages = current_pages(database, PAGE_SIZE)
    found: dict[tuple[str, Value], SavedRow] = {}
    for number in sorted(pages.keys() - {1}):  # the first has the schema
        for row in _rows_of_page(pages, pages[number]):
            found.setdefault(row.identity, row)
    return sorted(found.values(), key=lambda row: (row.table, row.number))


def _rows_of_page(pages: dict[int, bytes], page: bytes) -> Iterator[SavedRow]:
    """By the page's pointers to its cells, also by those that its count leaves out: it may be what was damaged."""
    flawless = page[0] == TABLE_LEAF
    count, content = int.from_bytes(page[3:5], "big"), int.from_bytes(page[5:7], "big")
    end = content if 8 + 2 * count <= content < PAGE_SIZE else PAGE_SIZE
    pointers = [int.from_bytes(page[slot : slot + 2], "big") for slot in range(8, end - 1, 2)] if flawless else []
    cells = [_row_at(pages, page, pointer) for pointer in pointers]
    # A pointer that was flipped may be that of another cell.
    flawless = flawless and None not in cells[:count] and len(set(pointers[:count])) == count
    if not flawless and b'"' in page:  # as every payload has: pages of indexes are passed over
        cells += [_row_at(pages, page, offset) for offset in range(8, PAGE_SIZE - 4)]
    return (row for row in cells if row is not None)


def _row_at(pages: dict[int, bytes], page: bytes, offset: int) -> SavedRow | None:
    """The row of the cell that begins there, None if there is none or it is damaged."""
    try:
        size, at = _varint(page, offset)
        number, at = _varint(page, at)
        if not 6 <= size <= _MOST_PAYLOAD or page[at] > _MOST_HEADER:
            return None
        record = _payload(pages, page, at, size)
        return _as_row(number, _values(record)) if len(record) == size else None
    except (IndexError, ValueError):
        return None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer of 1 to 9 bytes (two's complement of 64 bits), and where it ends."""
    value = 0
    for position in range(at, at + 8):
        byte = data[position]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, position + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9


def _payload(pages: dict[int, bytes], page: bytes, at: int, size: int) -> bytes:
    if size <= _MOST_LOCAL:
        return page[at : at + size]
    local = _LEAST_LOCAL + (size - _LEAST_LOCAL) % (PAGE_SIZE - 4)
    local = local if local <= _MOST_LOCAL else _LEAST_LOCAL
    parts, left = [page[at : at + local]], size - local
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    while left > 0 and following in pages:
        content = pages[following]
        parts.append(content[4 : 4 + min(left, PAGE_SIZE - 4)])
        left -= PAGE_SIZE - 4
        following = int.from_bytes(content[:4], "big")
    return b"".join(parts)


def _values(record: bytes) -> list[Value]:
    """The columns of a record; raises ValueError for what no row of the ledger has."""
    end, at = _varint(record, 0)
    kinds = []
    while at < end:
        kind, at = _varint(record, at)
        kinds.append(kind)
    values: list[Value] = []
    for kind in kinds if at == end and len(kinds) <= 5 else ():
        if kind in (0, 8, 9):
            values.append({0: None, 8: 0, 9: 1}[kind])
            continue
        size = _INTEGER_SIZES[kind] if kind in _INTEGER_SIZES else (kind - 13) // 2
        if kind not in _INTEGER_SIZES and (kind < 13 or kind % 2 == 0):
            raise ValueError(kind)
        raw = record[at : at + size]
        values.append(int.from_bytes(raw, "big", signed=True) if kind in _INTEGER_SIZES else raw.decode())
        at += size
    return values


def _as_row(number: int, values: list[Value]) -> SavedRow | None:
    """The row as that of the table whose checksum it has."""
    if len(values) == 5:
        _, key, ended, payload, checksum = values
        if isinstance(payload, str) and checksum == row_checksum("changes", f"{key} {ended}", payload):
            return SavedRow("changes", number, (number, key, ended, payload, checksum))
    if len(values) != 3 or not isinstance(payload := values[1], str):
        return None
    key, _, checksum = values
    if key is None and checksum == row_checksum("events", number, payload):
        return SavedRow("events", number, (number, payload, checksum))
    for table in _KEYED:
        if isinstance(key, str) and checksum == row_checksum(table, key, payload):
            return SavedRow(table, number, (key, payload, checksum))
    return None
