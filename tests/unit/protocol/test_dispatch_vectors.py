"""The test vectors that other languages are given: two independent codecs agree on each of them, both ways."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from aimd.errors import InvalidInputError
from aimd.protocol import frames
from tests.fakes.dispatch_frames import BadFrameError, decode, encode, whole_frame

PATH = Path(frames.__file__).with_name("dispatch_vectors.json")
VECTORS = json.loads(PATH.read_text())
NAMES = [vector["name"] for vector in VECTORS]
TEXTS = {"kind", "model", "partition", "message"}


def fields_of(vector):
    """Numbers above 2**53 are written as text, since many languages read JSON's numbers as doubles."""
    return {key: value if key in TEXTS else int(value) for key, value in vector["fields"].items()}


def sent_by(fields):
    """The frame of these fields as aimd's client writes it."""
    arguments = {key: value for key, value in fields.items() if key != "kind"}
    name = {"open": "open_model"}.get(fields["kind"], fields["kind"])
    return getattr(frames, name)(**arguments)


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["from"] == "client"], ids=lambda v: v["name"])
def test_a_frame_of_the_client(vector):
    frame, fields = bytes.fromhex(vector["frame"]), fields_of(vector)
    assert sent_by(fields) == frame
    assert decode(frame) == fields


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["from"] == "daemon"], ids=lambda v: v["name"])
def test_a_frame_of_the_daemon(vector):
    frame, fields = bytes.fromhex(vector["frame"]), fields_of(vector)
    kind = fields.pop("kind")
    value = frames.answer(frame)
    assert type(value).__name__.lower() == kind
    assert asdict(value) == fields
    assert encode(kind, **fields) == frame


def test_all_kinds_and_their_largest_values_are_there():
    assert {bytes.fromhex(vector["frame"])[2] for vector in VECTORS} == set(frames.FrameKind)
    assert len(set(NAMES)) == len(NAMES)
    assert max(len(vector["frame"]) // 2 for vector in VECTORS) == frames.MAX_FRAME
    assert any(int(value) == 2**64 - 1 for vector in VECTORS for value in numbers(vector))


def numbers(vector):
    return [value for key, value in fields_of(vector).items() if key not in TEXTS]


def test_numbers_are_exact_for_readers_that_have_doubles_alone():
    plain = [value for vector in VECTORS for value in vector["fields"].values() if type(value) is int]
    assert max(plain) < 2**53


def test_a_stream_is_cut_wherever_it_arrives_in_pieces():
    stream = b"".join(bytes.fromhex(vector["frame"]) for vector in VECTORS)
    for step in (1, 7, 8, 333, len(stream)):
        buffer, cut = bytearray(), []
        for start in range(0, len(stream), step):
            buffer += stream[start : start + step]
            cut += frames.split(buffer)
        assert [frame.hex() for frame in cut] == [vector["frame"] for vector in VECTORS]
        assert not buffer


@pytest.mark.parametrize("size", [0, 8, 12, 15, 17, 513, 520, 65535])
def test_a_size_that_no_frame_has_ends_the_stream(size):
    buffer = bytearray(frames.renew(1) + size.to_bytes(2, "little") + bytes(600))
    pieces = frames.split(buffer)
    assert next(pieces) == frames.renew(1)
    with pytest.raises(InvalidInputError, match=f"a frame of {size} bytes"):
        next(pieces)
    with pytest.raises(BadFrameError):
        whole_frame(bytearray(size.to_bytes(2, "little") + bytes(600)))


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["from"] == "daemon"], ids=lambda v: v["name"])
def test_an_answer_of_another_size_or_kind_is_refused(vector):
    frame = bytes.fromhex(vector["frame"])
    for wrong in (
        frame[:16] if len(frame) > 16 else frame[:8],
        frame[:2] + b"\x63" + frame[3:],
        frame[:2] + b"\x03" + frame[3:],
    ):
        with pytest.raises(InvalidInputError):
            frames.answer(wrong)


@pytest.mark.parametrize("names", [("",), ("m" * 254,), ("a\0b",), ("m", "p" * 65), ("m", "p\0"), ("ö" * 127,)])
def test_names_that_do_not_fit_are_refused(names):
    with pytest.raises(InvalidInputError):
        frames.open_model(1, *names)
