"""How a simulated node is named, and what is said of a bad name or a bad state file."""

import pytest

from aimd.errors import ConflictError, InvalidInputError
from aimd.sim.spec import SWITCH_SECONDS, open_node, parse_spec


@pytest.mark.parametrize(
    ("spec", "model", "count"), [("mi300x:8", "mi300x", 8), ("MI308X:1", "mi308x", 1), ("mi355x:04", "mi355x", 4)]
)
def test_model_and_count(spec, model, count):
    state = parse_spec(spec, "6.12")
    assert (state.model, len(state.gpus), state.profile) == (model, count, "6.12")
    assert state.switch_seconds == SWITCH_SECONDS


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "mi300x",
        "mi300x:",
        ":8",
        "mi300x:0",
        "mi300x:9",
        "mi300x:-1",
        "mi300x:x",
        "mi300x:1:2",
        "h100:8",
        "mi300x:²",
    ],
)
def test_a_bad_name_is_one_sentence_that_says_what_is_expected(spec):
    with pytest.raises(InvalidInputError, match=r"^simulated node .*, expected ") as error:
        parse_spec(spec)
    assert "\n" not in error.value.message


def test_an_unknown_profile_is_told_those_there_are():
    with pytest.raises(InvalidInputError, match=r"6\.8\|6\.12\|7\.2"):
        parse_spec("mi300x:8", "5.15")


def test_the_state_file_outlives_the_node(tmp_path):
    path = tmp_path / "sim.json"
    mode_file = "bus/pci/devices/0000:05:00.0/current_compute_partition"
    open_node(parse_spec("mi300x:1"), path).write(mode_file, b"QPX")
    assert open_node(parse_spec("mi300x:1"), path).read(mode_file) == b"QPX\n"
    with pytest.raises(ConflictError, match="holds a simulated node of mi300x:1"):
        open_node(parse_spec("mi308x:1"), path)


@pytest.mark.parametrize("content", [b"", b"{}", b"junk", b'{"model":"mi300x"}'])
def test_a_file_that_is_no_state_is_left_alone(tmp_path, content):
    path = tmp_path / "sim.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="does not hold a simulated node"):
        open_node(parse_spec("mi300x:1"), path)
    assert path.read_bytes() == content


def test_a_directory_that_is_missing_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match="cannot be used"):
        open_node(parse_spec("mi300x:1"), tmp_path / "missing" / "sim.json")
