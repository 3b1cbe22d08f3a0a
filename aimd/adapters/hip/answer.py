"""Judges what the helper said. A library that was loaded into it may say anything: nothing is believed unchecked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from aimd.domain.probe import PartitionMemory, ProbeReport, ProbeState

LONGEST_ANSWER = 64 * 1024
LONGEST_MESSAGE = 1000
Bytes = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One HIP device, `bus_id` like 0000:05:00.3."""

    bus_id: Text
    free: Bytes
    total: Bytes


class Answered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """HIP answered."""

    library: Text
    runtime: Annotated[int, msgspec.Meta(ge=0, le=10**10)]
    init_seconds: float
    devices: list[Device]


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The library or HIP did not; `failure` is a ProbeState."""

    failure: ProbeState
    message: str


FAILURES = (ProbeState.NO_LIBRARY, ProbeState.WRONG_LIBRARY, ProbeState.NO_DEVICE, ProbeState.FAILED)


def judge(gpu: str, line: bytes, expected: Mapping[str, int | None]) -> ProbeReport:
    """The report that the helper's output amounts to.

    Args:
        gpu: PCI address of the GPU that it was restricted to.
        line: all that it wrote.
        expected: size in bytes by bus id of that GPU's partitions, None where KFD does not tell it.
    """
    if len(line) > LONGEST_ANSWER:
        return _implausible(gpu, f"it is longer than {LONGEST_ANSWER} bytes")
    failed = _decoded(line, Failed)
    if isinstance(failed, Failed) and failed.failure in FAILURES:
        return ProbeReport(gpu, failed.failure, told(failed.message))
    answered = _decoded(line, Answered)
    if not isinstance(answered, Answered):
        return _implausible(gpu, f"it is not understood ({answered})")
    doubt = _doubt(answered.devices, expected)
    if doubt is not None:
        return _implausible(gpu, doubt)
    memory = [PartitionMemory(int(each.bus_id[-1]), each.free, each.total) for each in answered.devices]
    return ProbeReport(
        gpu,
        ProbeState.READ,
        partitions=tuple(sorted(memory, key=lambda each: each.index)),
        library=answered.library,
        runtime_version=answered.runtime,
        init_seconds=max(0.0, answered.init_seconds),
    )


def _decoded(line: bytes, kind: type[Answered | Failed]) -> Answered | Failed | str:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return str(error)


def _doubt(devices: list[Device], expected: Mapping[str, int | None]) -> str | None:
    """What cannot be true of these devices, None if all can.

    A partition's total may be other than KFD's size (the whole memory range in the allocation mode ALL, a share of it
    with GPU_MAX_HEAP_SIZE), but no more than the GPU has.
    """
    sizes = [size for size in expected.values() if size is not None]
    most = sum(sizes) if len(sizes) == len(expected) else None
    seen: set[str] = set()
    for device in devices:
        name = f"device {told(device.bus_id, 40)}"
        if device.bus_id not in expected:
            return f"{name} is no partition of the GPU, expected {', '.join(sorted(expected))}"
        if device.bus_id in seen:
            return f"{name} is there twice"
        seen.add(device.bus_id)
        if device.free > device.total:
            return f"{name} has {device.free} bytes free of {device.total}"
        if device.total == 0 or (most is not None and device.total > most):
            return f"{name} has {device.total} bytes, expected up to the {most} of the whole GPU"
    missing = sorted(expected.keys() - seen)
    return f"it tells nothing of {', '.join(missing)}" if missing else None


def _implausible(gpu: str, doubt: str) -> ProbeReport:
    return ProbeReport(gpu, ProbeState.IMPLAUSIBLE, f"HIP's answer cannot be true: {doubt}")


def told(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """A foreign text as one printable line."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= longest else f"{line[:longest]}..."
