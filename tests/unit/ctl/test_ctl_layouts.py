"""apply, assert, diff and export against the fake API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aimd.config import parse_layout
from aimd.protocol.messages import ProblemMessage
from tests.fakes.api import World
from tests.unit.ctl import samples

# gpu0 is in DPX/NPS1 (its wish, too), gpu1 in SPX/NPS1 with the wish DPX/NPS1, gpu2 in CPX with unknown memory mode.
EXPORTED = """\
[layout]
"0000:05:00.0" = "DPX/NPS1"  # gpu0, MI300X
"0000:26:00.0" = "SPX/NPS1"  # gpu1, MI300X
"0000:46:00.0" = "CPX"  # gpu2, -
"""
NOTHING = "nothing to do: the GPUs are in this layout\n"
DIFFERENCES = """\
NAME   PCI-ADDRESS    PRESENT    LAYOUT     PENDING-MEMORY
gpu1   0000:26:00.0   SPX/NPS1   CPX/NPS1   NPS4
"""


@pytest.fixture
def layout(tmp_path: Path):
    def write(*lines: str) -> str:
        path = tmp_path / "layout.toml"
        path.write_text("\n".join(["[layout]", *lines]) + "\n")
        return str(path)

    return write


def test_export(aimctl, tmp_path: Path) -> None:
    assert aimctl("export").stdout == EXPORTED
    assert aimctl("export", "-f", str(tmp_path / "here")).stdout == ""
    assert (tmp_path / "here").read_text() == EXPORTED


def test_export_to_nowhere(aimctl, tmp_path: Path) -> None:
    path = tmp_path / "no" / "here"
    result = aimctl("export", "-f", str(path))
    assert (result.exit_code, result.stderr) == (1, f"error: {path} cannot be written: No such file or directory\n")


def test_export_of_a_lost_gpu_is_a_comment(aimctl, world: World) -> None:
    lost = {"state": "lost", "compute_mode": None, "memory_mode": None, "partitions": []}
    world.inventory = type(world.inventory)(
        gpus=[type(samples.unknown_gpu())(**(_fields(samples.unknown_gpu()) | lost))]
    )
    text = aimctl("export").stdout
    assert text == "[layout]\n# 0000:46:00.0: modes unknown (lost)\n"
    assert parse_layout(text, "x") == {}


def _fields(message) -> dict:
    return {name: getattr(message, name) for name in message.__struct_fields__}


def test_what_is_exported_is_met(aimctl, tmp_path: Path) -> None:
    path = str(tmp_path / "layout.toml")
    aimctl("export", "-f", path)
    for command in ("assert", "diff"):
        result = aimctl(command, "-f", path)
        assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    "lines",
    [
        ('gpu1 = "SPX"',),
        ('gpu1 = "nps1"', 'gpu0 = "dpx/nps1"'),
        ('default = "CPX"', 'gpu0 = "DPX"', '"0000:26:00.0" = "SPX"'),
        ('gpu1 = "SPX/NPS1"', '"0000:26:00.0" = "SPX/NPS1"'),
        (),
    ],
)
def test_assert_holds(aimctl, layout, lines) -> None:
    result = aimctl("assert", "-f", layout(*lines))
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (('gpu1 = "CPX"',), ["gpu1"]),
        (('default = "CPX"',), ["gpu0", "gpu1"]),
        (('default = "SPX"', 'gpu0 = "DPX"'), ["gpu2"]),
        (('gpu2 = "CPX/NPS1"',), ["gpu2"]),
        (('gpu1 = "NPS4"',), ["gpu1"]),
    ],
)
def test_assert_fails(aimctl, layout, lines, names) -> None:
    """What is unknown is not met, and a memory mode that is only requested neither."""
    result = aimctl("assert", "-f", layout(*lines), "-o", "name")
    assert (result.exit_code, result.stdout.split()) == (1, names)


@pytest.mark.parametrize("command", ["apply", "assert", "diff"])
def test_a_gpu_with_two_modes_is_refused_by_both_names(aimctl, layout, world: World, command) -> None:
    result = aimctl(command, "-f", layout('gpu1 = "SPX"', '"0000:26:00.0" = "SPX/NPS1"'))
    assert result.exit_code == 2
    assert "names one GPU twice, as 0000:26:00.0 and as gpu1, with different modes; expected one" in result.stderr
    assert [request for request in world.requests if request.method == "PUT"] == []


def test_differences_in_every_format(aimctl, layout, world: World) -> None:
    path = layout('gpu1 = "CPX/NPS1"')
    assert aimctl("assert", "-f", path).stdout == DIFFERENCES
    assert json.loads(aimctl("assert", "-f", path, "-o", "json").stdout)["differences"][0]["layout"] == "CPX/NPS1"
    assert json.loads(aimctl("assert", "-f", layout(), "-o", "json").stdout) == {"differences": []}
    assert all(request.method == "GET" for request in world.requests)


def test_diff_shows_what_apply_would_meet(aimctl, layout, world: World) -> None:
    result = aimctl("diff", "-f", layout('gpu1 = "CPX/NPS1"', 'gpu0 = "DPX"'))
    assert result.exit_code == 1
    assert result.stdout.startswith(DIFFERENCES + "\nSTEP ")
    assert "These processes would be waited for:" in result.stdout
    assert world.requests[-1].body == {
        "modes": {samples.GPU0: "DPX", samples.GPU1: "CPX/NPS1"},
        "drain": False,
        "dry_run": True,
    }


def test_diff_lists_refusals(aimctl, layout, world: World) -> None:
    world.plan = samples.plan(refused=True)
    result = aimctl("diff", "-f", layout('gpu1 = "TPX"'), "--drain")
    assert (result.exit_code, world.requests[-1].body["drain"]) == (1, True)
    assert "refused: gpu1 does not offer TPX (mode_not_available)" in result.stdout


def test_apply_is_one_change_of_the_whole_layout(aimctl, layout, world: World) -> None:
    result = aimctl("apply", "-f", layout('default = "CPX"', 'gpu0 = "SPX/NPS1"'), "--name", "mine", "--wait", "5")
    assert (result.exit_code, result.stdout) == (0, "mine: committed\ngpu1 SPX/NPS1 -> DPX/NPS1\n")
    puts = [request for request in world.requests if request.method == "PUT"]
    assert [request.target for request in puts] == ["/v1/plans/mine"]
    assert puts[0].body == {
        "modes": {samples.GPU0: "SPX/NPS1", samples.GPU1: "CPX", samples.GPU2: "CPX"},
        "wait_seconds": 5,
        "drain": False,
        "dry_run": False,
    }


def test_apply_with_nothing_to_do_asks_for_nothing(aimctl, layout, world: World) -> None:
    result = aimctl("apply", "-f", layout('gpu0 = "DPX/NPS1"'))
    assert (result.exit_code, result.stdout) == (0, NOTHING)
    assert [request.method for request in world.requests] == ["GET"]


def test_apply_makes_what_is_there_the_wish(aimctl, layout, world: World) -> None:
    """gpu2 is in CPX, but nobody has wished that: a claim that needs another mode would leave it there for good."""
    aimctl("apply", "-f", layout('gpu2 = "CPX"'))
    assert world.requests[1].body["modes"] == {samples.GPU2: "CPX"}


def test_apply_replaces_a_wish_that_would_undo_the_layout(aimctl, layout, world: World) -> None:
    """gpu1 is as the layout says, but aimd would switch it to its wish when it is idle."""
    aimctl("apply", "-f", layout('gpu1 = "SPX/NPS1"'))
    assert world.requests[1].body["modes"] == {samples.GPU1: "SPX/NPS1"}


def test_apply_follows_or_not(aimctl, layout) -> None:
    path = layout('gpu1 = "CPX"')
    assert len(aimctl("apply", "-f", path).stderr.splitlines()) == 4
    later = aimctl("apply", "-f", path, "--no-follow", "--drain", "--name", "later")
    assert later.stdout == "later: accepted, planned; follow it with: aimctl describe plan later\n"


@pytest.mark.parametrize(("reason", "code"), [("gpu_busy", 5), ("firmware_refused", 1)])
def test_apply_that_fails(aimctl, layout, world: World, reason, code) -> None:
    world.change = [samples.failed(reason, "gpu1 did not switch")]
    result = aimctl("apply", "-f", layout('gpu1 = "CPX"'))
    assert result.exit_code == code
    assert f"gpu1 did not switch ({reason})" in result.stdout


def test_refusals_are_listed(aimctl, layout, world: World) -> None:
    world.overrides["PUT /v1/plans/*"] = ProblemMessage(
        title="No",
        status=422,
        detail="the change is refused",
        code="mode_not_available",
        refusals=[samples.refusal(), samples.refusal()],
    )
    result = aimctl("apply", "-f", layout('gpu1 = "TPX"'))
    assert (result.exit_code, result.stderr.count("refused: gpu1 does not offer TPX")) == (1, 2)


@pytest.mark.parametrize("command", ["apply", "assert", "diff"])
def test_a_gpu_that_the_node_has_not(aimctl, layout, command) -> None:
    result = aimctl(command, "-f", layout('gpu9 = "CPX"', 'gpu7 = "CPX"'))
    assert (result.exit_code, result.stdout) == (6, "")
    assert "names gpu7, gpu9, which this node has not" in result.stderr


@pytest.mark.parametrize("command", ["apply", "assert", "diff"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layout", "is no TOML"),
        ("", "layout is missing, expected a table"),
        ('[layout]\ngpu0 = "CPX"\n[switching]\n', "switching is unknown, expected one of layout"),
        ("[layout]\ngpu0 = 3\n", "layout.gpu0 is 3, expected a text"),
        ('[layout]\ngpu0 = "XPX"\n', "mode 'XPX' names 'XPX', which is no partition mode"),
        ('[layout]\ncloud = "CPX"\n', "names no GPU"),
        (b"[layout]\n\xff", "no UTF-8 text"),
    ],
)
def test_a_file_that_is_no_layout(aimctl, world: World, tmp_path: Path, command, text, words) -> None:
    path = tmp_path / "layout.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = aimctl(command, "-f", str(path))
    assert (result.exit_code, result.stdout, world.requests) == (2, "", [])
    assert words in result.stderr


def test_a_file_that_is_not_there(aimctl, world: World) -> None:
    assert (aimctl("apply", "-f", "/nonexistent/layout.toml").exit_code, world.requests) == (2, [])
