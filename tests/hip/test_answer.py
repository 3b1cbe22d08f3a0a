"""What the helper may say, and what is not believed."""

from __future__ import annotations

import json

import pytest

from aimd.adapters.hip.answer import LONGEST_ANSWER, judge
from aimd.adapters.hip.child import quoted
from aimd.domain.probe import PartitionMemory, ProbeState

GPU = "0000:05:00.0"
SIZES = {"0000:05:00.0": 1000, "0000:05:00.1": 1000}


def device(bus_id: str = "0000:05:00.0", free: object = 400, total: object = 1000) -> dict[str, object]:
    return {"bus_id": bus_id, "free": free, "total": total}


def answer(*devices: dict[str, object], **more: object) -> bytes:
    return json.dumps(
        {"library": "/lib/x.so", "runtime": 60443484, "init_seconds": 0.25, "devices": devices, **more}
    ).encode()


def test_an_answer_is_read_by_partition() -> None:
    report = judge(GPU, answer(device("0000:05:00.1", 0, 900), device()), SIZES)
    assert (report.state, report.message, report.gpu) == (ProbeState.READ, None, GPU)
    assert report.partitions == (PartitionMemory(0, 400, 1000), PartitionMemory(1, 0, 900))
    assert (report.library, report.runtime_version, report.init_seconds) == ("/lib/x.so", 60443484, 0.25)


def test_partitions_that_share_all_memory_may_show_all_of_it() -> None:
    assert judge(GPU, answer(device(total=2000), device("0000:05:00.1", total=2000)), SIZES).state is ProbeState.READ


def test_without_kfd_s_sizes_there_is_no_bound() -> None:
    sizes = {"0000:05:00.0": None, "0000:05:00.1": 1000}
    assert judge(GPU, answer(device(total=1 << 50), device("0000:05:00.1")), sizes).state is ProbeState.READ


OTHER = device("0000:05:00.1")


@pytest.mark.parametrize(
    ("line", "doubt"),
    [
        (b"", "it is not understood"),
        (b"null", "it is not understood"),
        (b"[]", "it is not understood"),
        (b"\xff\xfe", "it is not understood"),
        (b"a" * (LONGEST_ANSWER + 1), f"it is longer than {LONGEST_ANSWER} bytes"),
        (answer(device(), OTHER) * 2, "it is not understood"),
        (answer(device(), OTHER, more=1), "it is not understood"),
        (answer(device(), OTHER)[:-1], "it is not understood"),
        (answer(), "it tells nothing of 0000:05:00.0, 0000:05:00.1"),
        (answer(device()), "it tells nothing of 0000:05:00.1"),
        (answer(device(), device()), "device 0000:05:00.0 is there twice"),
        (answer(device(), OTHER, OTHER), "device 0000:05:00.1 is there twice"),
        (answer(device(), OTHER, device("0000:05:00.2")), "device 0000:05:00.2 is no partition of the GPU"),
        (answer(device(), device("0000:27:00.1")), "device 0000:27:00.1 is no partition of the GPU"),
        (answer(device("x" * 99), OTHER), f"device {'x' * 40}... is no partition of the GPU"),
        (answer(device("5\n\x1b[2J")), "device 5 [2J is no partition of the GPU"),
        (answer(device(free=1001), OTHER), "device 0000:05:00.0 has 1001 bytes free of 1000"),
        (answer(device(free=0, total=0), OTHER), "device 0000:05:00.0 has 0 bytes, expected up to the 2000"),
        (answer(device(total=2001), OTHER), "device 0000:05:00.0 has 2001 bytes, expected up to the 2000"),
        (answer(device(free=-1), OTHER), "it is not understood"),
        (answer(device(free=0.5), OTHER), "it is not understood"),
        (answer(device(free=1 << 63, total=1 << 63), OTHER), "it is not understood"),
        (answer(device(free="1"), OTHER), "it is not understood"),
        (answer(device(), OTHER, library="x" * 5000), "it is not understood"),
        (answer(device(), OTHER, runtime=-1), "it is not understood"),
        (b'{"failure":"read","message":"x"}', "it is not understood"),
        (b'{"failure":"held","message":"x"}', "it is not understood"),
        (b'{"failure":"crashed","message":"x","more":1}', "it is not understood"),
    ],
)
def test_what_cannot_be_true(line: bytes, doubt: str) -> None:
    report = judge(GPU, line, SIZES)
    assert report.state is ProbeState.IMPLAUSIBLE
    assert report.message.startswith(f"HIP's answer cannot be true: {doubt}")
    assert (report.partitions, len(report.message) < 1000) == ((), True)


@pytest.mark.parametrize("state", ["no-library", "wrong-library", "no-device", "failed"])
def test_failures_are_told_in_one_printable_line(state: str) -> None:
    report = judge(GPU, json.dumps({"failure": state, "message": "a\n\x1b[31m  b" + "x" * 5000}).encode(), SIZES)
    assert (report.state, report.message[:8], len(report.message)) == (ProbeState(state), "a [31m b", 1003)


@pytest.mark.parametrize("text", ["", 'a"b\\c', "/opt/rocm-7.2/lib", "\x00\n\x7f", "ß→", "\udcff", "\U0001f600"])
def test_the_helper_writes_json_by_hand(text: str) -> None:
    expected = "".join(each if each < "\ud800" else "?" for each in text)
    assert json.loads(quoted(text)) == expected
