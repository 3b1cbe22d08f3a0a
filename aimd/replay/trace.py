"""Traces of requests as CSV files, read a line at a time: rows or a sentence that says which field of which line is wrong.

The form is that of the Azure LLM inference traces, with optional columns. Column names are matched in any case, other
columns are passed over:

    TIMESTAMP        arrival: `2023-11-16 18:15:46.6805900` (with or without a zone; UTC without), or seconds as a number
    ContextTokens    prompt tokens, a whole number
    GeneratedTokens  output tokens, a whole number
    Class            optional: high, medium or low in any case; drawn where it is empty
    Model            optional: a name; the name of the file without `.csv` where it is empty
    Deadline         optional: seconds from the arrival within which the request has to be complete; drawn where it is empty

Rows are in order of TIMESTAMP in each file. Several files are merged, by default as if all had begun at one instant, so
that traces of different days can be joined.
"""

from __future__ import annotations

import csv
import heapq
import re
import stat
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple, TextIO

from aimd.dispatch.values import SECOND, Class
from aimd.errors import InvalidInputError

REQUIRED = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
OPTIONAL = ("Class", "Model", "Deadline")

MAX_LINE = 1 << 16  # characters; a file without line ends must not be read as one line
MAX_TOKENS = 1_000_000_000
MAX_SECONDS = 100_000_000_000  # year 5138; milliseconds since 1970 are above it
MAX_DEADLINE_SECONDS = 10_000_000

_DATE = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):?(\d\d))?", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}(?:\.\d*)?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - zones are subtracted here, and naive arithmetic is exact
_CLASSES = {each.name.lower(): int(each) for each in Class}
_DATE_FORM = "a date and time such as 2023-11-16 18:15:46.68"
_NUMBER_FORM = f"a number of seconds from 0 to {MAX_SECONDS:g}"


class Row(NamedTuple):
    """A request as the trace has it; None where the trace does not say.

    Attributes:
        arrival_ns: since the file's first row, or by the clock: since 1970, or whatever the trace's seconds count from.
        klass: a Class.
        deadline_ns: from arrival to completion.
    """

    arrival_ns: int
    context_tokens: int
    generated_tokens: int
    klass: int | None
    model: str
    deadline_ns: int | None


class Timestamps:
    """Reads TIMESTAMP. The first one decides whether they are dates or seconds."""

    def __init__(self) -> None:
        self.form: str | None = None
        self._second = ""
        self._second_ns = 0

    def instant(self, text: str) -> int | None:
        """Nanoseconds; None for what is none, or is of the other form."""
        found = _DATE.fullmatch(text)
        form = _DATE_FORM if found else _NUMBER_FORM
        instant = self._date(found) if found else seconds(text, MAX_SECONDS)
        if instant is None or self.form not in {None, form}:
            return None
        self.form = form
        return instant

    def _date(self, found: re.Match[str]) -> int | None:
        second, fraction, sign, hours, minutes = found.groups()
        if second != self._second:  # neighbours share it
            try:
                since = datetime.fromisoformat(second) - _EPOCH
            except ValueError:
                return None
            self._second, self._second_ns = second, since // timedelta(seconds=1) * SECOND
        instant = self._second_ns + (int(fraction[:9].ljust(9, "0")) if fraction else 0)
        if sign:
            offset = (int(hours) * 60 + int(minutes)) * 60 * SECOND
            instant += offset if sign == "-" else -offset
        return instant


def seconds(text: str, most: int) -> int | None:
    """A number of seconds from 0 to `most` as nanoseconds, else None."""
    if not _NUMBER.fullmatch(text):
        return None
    value = Decimal(text)  # of a float, nanoseconds since 1970 would not be exact
    return int(value * SECOND) if value <= most else None


def rows(paths: Sequence[Path], *, by_clock: bool = False) -> Iterator[Row]:
    """The rows of all files by arrival; equal ones in the order of the files.

    Args:
        by_clock: compare the timestamps of different files, instead of beginning all files at one instant.

    Raises:
        InvalidInputError: a file cannot be read, or a line is not of the documented form.
    """
    if by_clock:
        common = Timestamps()
        sources = [_TraceFile(path, common).rows() for path in paths]
    else:
        sources = [_from_zero(_TraceFile(path, Timestamps()).rows()) for path in paths]
    return heapq.merge(*sources, key=lambda row: row.arrival_ns)


def _from_zero(source: Iterator[Row]) -> Iterator[Row]:
    first = None
    for row in source:
        first = row.arrival_ns if first is None else first
        yield row._replace(arrival_ns=row.arrival_ns - first)


class _TraceFile:
    """One file, and where its reading stands."""

    def __init__(self, path: Path, timestamps: Timestamps) -> None:
        self.path = path
        self.timestamps = timestamps
        self.line = 0
        self.columns: dict[str, int] = {}
        self.width = 0
        self.last = ""
        self.last_ns = -(1 << 63)
        self.default_model = path.name.removesuffix(".csv")

    def rows(self) -> Iterator[Row]:
        try:
            if not stat.S_ISREG(
                self.path.stat().st_mode
            ):  # asked before it is opened: a pipe would wait for its writer
                raise InvalidInputError(
                    f"trace {self.path} is no regular file, expected one, because it is read several times",
                    hint="write the stream to a file first",
                )
            with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                yield from self._rows(file)
        except OSError as error:
            raise InvalidInputError(
                f"trace {self.path} cannot be read ({error.strerror}), expected a CSV file"
            ) from error

    def _rows(self, file: TextIO) -> Iterator[Row]:
        reader = csv.reader(self._lines(file), strict=True)
        try:
            self._header(next(reader, []))
            row = self._row
            for fields in reader:
                if fields:  # a blank line says nothing
                    yield row(fields)
        except csv.Error as error:
            raise self._mistake(f"is no CSV ({error})", "comma-separated fields, quotes in pairs") from error

    def _lines(self, file: TextIO) -> Iterator[str]:
        while line := file.readline(MAX_LINE):
            self.line += 1
            if len(line) == MAX_LINE:
                raise self._mistake(f"is longer than {MAX_LINE - 1} characters", "a CSV file, a request a line")
            yield line

    def _header(self, fields: list[str]) -> None:
        names = [field.strip() for field in fields]
        if not any(names):
            raise InvalidInputError(
                f"trace {self.path} has no header, expected {', '.join(REQUIRED)} in its first line"
            )
        known = {name.lower(): name for name in (*REQUIRED, *OPTIONAL)}
        for index, name in enumerate(names):
            column = known.get(name.lower())
            if column in self.columns:
                raise self._mistake(f"names column {column} twice", "each column once")
            if column is not None:
                self.columns[column] = index
        self.width = len(fields)
        for column in REQUIRED:
            if column not in self.columns:
                shown = ", ".join(map(_quoted, names[:8])) + (", ..." if len(names) > 8 else "")
                raise self._mistake(f"names no column {column} but {shown}", f"{', '.join(REQUIRED)}")

    def _row(self, fields: list[str]) -> Row:
        if len(fields) != self.width:
            raise self._mistake(f"has {_counted(len(fields), 'field')}", f"{self.width} as in the header")
        columns = self.columns
        return Row(
            self._arrival(fields[columns["TIMESTAMP"]].strip()),
            self._tokens("ContextTokens", fields[columns["ContextTokens"]].strip()),
            self._tokens("GeneratedTokens", fields[columns["GeneratedTokens"]].strip()),
            self._class(self._optional("Class", fields)),
            self._model(self._optional("Model", fields)),
            self._deadline(self._optional("Deadline", fields)),
        )

    def _optional(self, column: str, fields: list[str]) -> str:
        index = self.columns.get(column)
        return "" if index is None else fields[index].strip()

    def _arrival(self, text: str) -> int:
        instant = self.timestamps.instant(text)
        if instant is None:
            form = self.timestamps.form
            expected = f"{_DATE_FORM} or {_NUMBER_FORM}" if form is None else f"{form}, as in the first row"
            raise self._mistake(f"is {_quoted(text)}", expected, "TIMESTAMP")
        if instant < self.last_ns:
            raise self._mistake(f"is {text}, before {self.last}", "rows in order of arrival", "TIMESTAMP")
        self.last, self.last_ns = text, instant
        return instant

    def _tokens(self, column: str, text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) <= 10 and (number := int(text)) <= MAX_TOKENS:
            return number
        raise self._mistake(f"is {_quoted(text)}", f"a whole number from 0 to {MAX_TOKENS}", column)

    def _class(self, text: str) -> int | None:
        klass = _CLASSES.get(text.lower())
        if text and klass is None:
            raise self._mistake(f"is {_quoted(text)}", f"{', '.join(_CLASSES)} or nothing", "Class")
        return klass

    def _model(self, text: str) -> str:
        if not text.isprintable():  # nor are bytes that were no UTF-8
            raise self._mistake(f"is {_quoted(text)}", "a name in printable UTF-8", "Model")
        return text or self.default_model

    def _deadline(self, text: str) -> int | None:
        if not text:
            return None
        deadline = seconds(text, MAX_DEADLINE_SECONDS)
        if deadline is None:
            expected = f"a number of seconds from 0 to {MAX_DEADLINE_SECONDS:,}, or nothing"
            raise self._mistake(f"is {_quoted(text)}", expected, "Deadline")
        return deadline

    def _mistake(self, fact: str, expected: str, column: str | None = None) -> InvalidInputError:
        where = f"trace {self.path}, line {self.line}" + (f", column {column}:" if column else "")
        return InvalidInputError(f"{where} {fact}, expected {expected}")


def _quoted(text: str) -> str:
    """What stands in the file, in a form that any terminal can show; nothing at all is `empty`."""
    return ascii(text if len(text) <= 60 else text[:57] + "...") if text else "empty"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
