"""Frames of the dispatch socket, as bytes and as values. DISPATCH.md beside this file explains them for any language.

The standard library alone. Integers are little-endian; each frame begins with its size in bytes (u16, a multiple of
8), its kind (u8), its flags (u8) and a word (u32) whose meaning the kind gives. Reserved bytes are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from struct import error as StructError  # noqa: N812 - a class

from aimd.errors import InvalidInputError

MAGIC = 0x444D4941  # "AIMD"
VERSION = 1
MIN_FRAME = 16
MAX_FRAME = 512
MAX_MODEL = 253  # bytes of UTF-8, as of a name in Kubernetes
MAX_PARTITION = 64
DEFAULT_WAIT = -1
DEFAULT_CLASS = 255
MAX_WAIT_NS = 1 << 62


class FrameKind(IntEnum):
    """Third byte of a frame; below 64 from the client, above from the daemon."""

    HELLO = 1
    OPEN = 2
    ACQUIRE = 3
    RELEASE = 4
    RENEW = 5
    ADOPT = 6
    CANCEL = 7
    WELCOME = 65
    OPENED = 66
    GRANTED = 67
    QUEUED = 68
    ENDED = 69
    RELEASED = 70
    RENEWED = 71
    ADOPTED = 72
    REFUSED = 73
    TAKEN = 74
    DENIED = 75
    ERROR = 127


class AcquireFlag(IntFlag):
    NO_WAIT = 1
    QUIET = 2


class ReleaseFlag(IntFlag):
    FAILED = 1
    QUIET = 2


class FrameError(IntEnum):
    """Word of an ERROR frame, after which the daemon closes the connection."""

    BAD_SIZE = 1
    UNKNOWN_KIND = 2
    BAD_MAGIC = 3
    BAD_VERSION = 4
    OUT_OF_ORDER = 5
    BAD_FIELD = 6
    DUPLICATE_REQUEST = 7
    UNKNOWN_HANDLE = 8
    TOO_MANY_CONNECTIONS = 9
    TOO_SLOW = 10
    NOT_VISIBLE = 11
    TOO_MANY_OPENS = 12


_HEAD = Struct("<HBBI")
_HELLO = Struct("<HBBIHHIQ")
_OPEN = Struct("<HBBHHQ")
_ACQUIRE = Struct("<HBBIQqB7x")
_NUMBER = Struct("<HBBIQ")
_WELCOME = Struct("<HBBIQIII4x")
_OPENED = Struct("<HBBIQBBHIq")
_GRANTED = Struct("<HBBIQQq")
_ENDED = Struct("<HBBIQqQ")
_UNTIL = Struct("<HBBIQq")
_REFUSED = Struct("<HBBIQB7x")
_DENIED = Struct("<HBBIQH6x")
_ERROR = Struct("<HBBIH6x")


def hello(features: int = 0, first: int = VERSION, last: int = VERSION) -> bytes:
    """Begins a connection: the versions that are spoken, from first to last."""
    return _HELLO.pack(_HELLO.size, FrameKind.HELLO, 0, MAGIC, first, last, features, 0)


def open_model(tag: int, model: str, partition: str = "") -> bytes:
    """Asks for a handle; `tag` comes back in the answer. Without a partition the daemon chooses.

    Raises:
        InvalidInputError: a name is empty, too long or holds a zero.
    """
    name, place = model.encode(), partition.encode()
    if not 0 < len(name) <= MAX_MODEL or b"\0" in name:
        raise InvalidInputError(f"model {model!r} is no name: 1 to {MAX_MODEL} bytes without a zero are expected")
    if len(place) > MAX_PARTITION or b"\0" in place:
        raise InvalidInputError(f"partition {partition!r}: expected one like 0000:05:00.0/3")
    size = _OPEN.size + (len(name) + len(place) + 7) // 8 * 8
    return _OPEN.pack(size, FrameKind.OPEN, 0, len(name), len(place), tag) + (name + place).ljust(
        size - _OPEN.size, b"\0"
    )


def acquire(
    handle: int, request: int, wait_ns: int = DEFAULT_WAIT, klass: int = DEFAULT_CLASS, flags: AcquireFlag | int = 0
) -> bytes:
    """Asks for a lease that is of use if granted within wait_ns; `request` is unique among the connection's waiting."""
    return _ACQUIRE.pack(_ACQUIRE.size, FrameKind.ACQUIRE, flags, handle, request, wait_ns, klass)


def release(lease: int, flags: ReleaseFlag | int = 0) -> bytes:
    return _NUMBER.pack(_NUMBER.size, FrameKind.RELEASE, flags, 0, lease)


def renew(lease: int) -> bytes:
    return _NUMBER.pack(_NUMBER.size, FrameKind.RENEW, 0, 0, lease)


def adopt(lease: int) -> bytes:
    return _NUMBER.pack(_NUMBER.size, FrameKind.ADOPT, 0, 0, lease)


def cancel(request: int) -> bytes:
    return _NUMBER.pack(_NUMBER.size, FrameKind.CANCEL, 0, 0, request)


@dataclass(frozen=True, slots=True)
class Welcome:
    """Attributes:
    version: spoken from here on.
    instance: another number after each start of the daemon.
    requests: most acquires that may wait on this connection; `handles`: most models that may be opened.
    """

    version: int
    instance: int
    features: int
    requests: int
    handles: int


@dataclass(frozen=True, slots=True)
class Opened:
    """Attributes:
    highest: best class that this caller may ask for on this handle (0: high).
    default_class: of an acquire that names none.
    slots: capacity of the partition.
    lease_ns: life of a lease, from its grant or renewal.
    partition: like 0000:05:00.0/3.
    """

    tag: int
    handle: int
    highest: int
    default_class: int
    slots: int
    lease_ns: int
    partition: str


@dataclass(frozen=True, slots=True)
class Granted:
    """`lease_ns`: how long it lives from now on; `guaranteed`: within the model's guarantee."""

    request: int
    lease: int
    klass: int
    lease_ns: int
    guaranteed: bool


@dataclass(frozen=True, slots=True)
class Queued:
    request: int


@dataclass(frozen=True, slots=True)
class Ended:
    """`outcome`: an Outcome other than granted; `retry_after_ns`: 0 when unknown."""

    request: int
    outcome: int
    retry_after_ns: int


@dataclass(frozen=True, slots=True)
class Released:
    lease: int


@dataclass(frozen=True, slots=True)
class Renewed:
    lease: int
    lease_ns: int


@dataclass(frozen=True, slots=True)
class Adopted:
    lease: int
    lease_ns: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A release, renew, adopt or cancel (`asked`) of `number` that changed nothing; `fault`: a Fault."""

    number: int
    fault: int
    asked: FrameKind


@dataclass(frozen=True, slots=True)
class Taken:
    """The lease has ended without the client: revoked at its deadline (2) or lost (3)."""

    lease: int
    end: int


@dataclass(frozen=True, slots=True)
class Denied:
    """An open that was refused; `outcome`: unknown_model, unknown_partition, unauthorised, draining or would_block."""

    tag: int
    outcome: int
    message: str


@dataclass(frozen=True, slots=True)
class Error:
    """The daemon closes the connection after it."""

    error: int
    message: str


Answer = Welcome | Opened | Granted | Queued | Ended | Released | Renewed | Adopted | Refused | Taken | Denied | Error


def split(buffer: bytearray) -> Iterator[bytes]:
    """Takes whole frames off the front of what was received; what is left is the beginning of one.

    Raises:
        InvalidInputError: a size that no frame has; the stream cannot be read any further.
    """
    at = 0
    try:
        while len(buffer) - at >= _HEAD.size:
            size = int.from_bytes(buffer[at : at + 2], "little")
            if not MIN_FRAME <= size <= MAX_FRAME or size % 8:
                raise InvalidInputError(
                    f"a frame of {size} bytes arrived: {MIN_FRAME} to {MAX_FRAME} in steps of 8 are expected"
                )
            if len(buffer) - at < size:
                return
            at += size
            yield bytes(buffer[at - size : at])
    finally:
        del buffer[:at]


def answer(frame: bytes) -> Answer:
    """The value of a whole frame from the daemon.

    Raises:
        InvalidInputError: its kind or its size is none that a daemon of this version sends.
    """
    try:
        kind = FrameKind(frame[2])
        return _ANSWERS[kind](frame)
    except (KeyError, ValueError, IndexError):
        raise InvalidInputError(
            f"a frame of kind {frame[2]} and {len(frame)} bytes arrived: expected an answer of version {VERSION}"
        ) from None
    except StructError as error:
        raise InvalidInputError(f"a frame of kind {frame[2]} has {len(frame)} bytes: {error}") from error


def _welcome(frame: bytes) -> Welcome:
    _, _, _, version, instance, features, requests, handles = _WELCOME.unpack(frame)
    return Welcome(version, instance, features, requests, handles)


def _opened(frame: bytes) -> Opened:
    _, _, _, handle, tag, highest, klass, length, slots, lease_ns = _OPENED.unpack_from(frame)
    return Opened(tag, handle, highest, klass, slots, lease_ns, _text(frame, _OPENED.size, length))


def _granted(frame: bytes) -> Granted:
    _, _, flags, klass, request, lease, lease_ns = _GRANTED.unpack(frame)
    return Granted(request, lease, klass, lease_ns, bool(flags & 1))


def _ended(frame: bytes) -> Ended:
    _, _, _, outcome, request, retry_after_ns, _ = _ENDED.unpack(frame)
    return Ended(request, outcome, retry_after_ns)


def _refused(frame: bytes) -> Refused:
    _, _, _, fault, number, asked = _REFUSED.unpack(frame)
    return Refused(number, fault, FrameKind(asked))


def _denied(frame: bytes) -> Denied:
    _, _, _, outcome, tag, length = _DENIED.unpack_from(frame)
    return Denied(tag, outcome, _text(frame, _DENIED.size, length))


def _error(frame: bytes) -> Error:
    _, _, _, error, length = _ERROR.unpack_from(frame)
    return Error(error, _text(frame, _ERROR.size, length))


def _text(frame: bytes, start: int, length: int) -> str:
    if start + length > len(frame):
        raise ValueError(length)
    return frame[start : start + length].decode("utf-8", "replace")


def _number(frame: bytes) -> tuple[int, int]:
    _, _, _, word, number = _NUMBER.unpack(frame)
    return number, word


def _until(frame: bytes) -> tuple[int, int]:
    _, _, _, _, lease, lease_ns = _UNTIL.unpack(frame)
    return lease, lease_ns


_ANSWERS: dict[FrameKind, Callable[[bytes], Answer]] = {
    FrameKind.WELCOME: _welcome,
    FrameKind.OPENED: _opened,
    FrameKind.GRANTED: _granted,
    FrameKind.QUEUED: lambda frame: Queued(_number(frame)[0]),
    FrameKind.ENDED: _ended,
    FrameKind.RELEASED: lambda frame: Released(_number(frame)[0]),
    FrameKind.RENEWED: lambda frame: Renewed(*_until(frame)),
    FrameKind.ADOPTED: lambda frame: Adopted(*_until(frame)),
    FrameKind.REFUSED: _refused,
    FrameKind.TAKEN: lambda frame: Taken(*_number(frame)),
    FrameKind.DENIED: _denied,
    FrameKind.ERROR: _error,
}
