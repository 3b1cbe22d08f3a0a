"""What a caller says of a request (seconds, names of classes) as what the wire carries (nanoseconds, numbers)."""

from __future__ import annotations

import os

from aimd.dispatch.values import Class
from aimd.errors import InvalidInputError
from aimd.protocol.frames import DEFAULT_CLASS, DEFAULT_WAIT, MAX_WAIT_NS
from aimd.rundirs import DISPATCH_SOCKET, client_socket

_LONGEST_PATH = 107  # bytes, unix(7)

_CLASSES = {member.name.lower(): member.value for member in Class}


def class_number(klass: str | Class | None) -> int:
    """Of "high", "medium" or "low" in any case, of a Class, of None (the model's default).

    Raises:
        InvalidInputError: it is none of these.
    """
    if klass is None:
        return DEFAULT_CLASS
    number = _CLASSES.get(klass.lower()) if isinstance(klass, str) else klass
    if number is None or number not in _CLASSES.values():
        raise InvalidInputError(f"class {klass!r} is none of {', '.join(_CLASSES)}")
    return int(number)


def wait_ns(timeout: float | None, complete_in: float | None, est_service: float | None) -> int:
    """How long a grant is of use from now on; -1: the model's budget.

    Raises:
        InvalidInputError: a negative number, both ways of saying it, or an estimate alone.
    """
    for name, seconds in (("timeout", timeout), ("complete_in", complete_in), ("est_service", est_service)):
        if seconds is not None and not seconds >= 0:  # `not`: a NaN is no number of seconds either
            raise InvalidInputError(f"{name}={seconds!r}: seconds, 0 or more, are expected")
    if complete_in is not None:
        if timeout is not None:
            raise InvalidInputError("timeout and complete_in say the same in two ways: give one of them")
        timeout = max(0.0, complete_in - (est_service or 0.0))
    elif est_service is not None:
        raise InvalidInputError("est_service is of use with complete_in alone: the wait is what is left between them")
    if timeout is None:
        return DEFAULT_WAIT
    return MAX_WAIT_NS if timeout >= MAX_WAIT_NS / 1e9 else int(timeout * 1e9)


def socket_path(option: str | None) -> str:
    """Of the dispatch socket: the option, then $AIMD_DISPATCH_SOCKET, then where this user's daemon has it.

    Raises:
        InvalidInputError: there is no default, or the path is longer than a socket's may be.
    """
    variable = "AIMD_DISPATCH_SOCKET"
    path = client_socket(os.environ, os.getuid(), option=option, variable=variable, file_name=DISPATCH_SOCKET)
    length = len(os.fsencode(path))
    if length > _LONGEST_PATH:
        raise InvalidInputError(f"the socket's path {path} has {length} bytes: {_LONGEST_PATH} at most are expected")
    return path
