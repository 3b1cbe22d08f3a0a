"""aimd.toml: every default, every type and range, unknown keys by their path, and `aimd check-config`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aimd.cli import main
from aimd.config import Config, parse_config, read_config
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.errors import ConfigError

DEFAULTS = {
    "sysfs_root": "/sys",
    "allow_memory_mode_change": False,
    "operators": [],
    "poll_seconds": 2.0,
    "log_level": "info",
    "switching.wait_seconds": 30.0,
    "switching.settle_seconds": 30.0,
    "switching.wish_retry_seconds": 60.0,
    "layout": {},
}


def setting(config: Config, path: str) -> object:
    value: object = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "aimd.toml")
    assert caught.value.message.startswith("aimd.toml")
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("path", list(DEFAULTS))
@pytest.mark.parametrize("text", ["", "[switching]\n", "[layout]\n"])
def test_defaults(path: str, text: str) -> None:
    assert setting(parse_config(text, "aimd.toml"), path) == DEFAULTS[path]
    assert setting(Config(), path) == DEFAULTS[path]


def test_everything_set() -> None:
    config = parse_config(
        """
        sysfs_root = "/tmp/sys"
        allow_memory_mode_change = true
        operators = ["daemon", 1000]
        poll_seconds = 0.5
        log_level = "debug"
        [switching]
        wait_seconds = 1
        settle_seconds = 86400
        wish_retry_seconds = 0.05
        [layout]
        default = "SPX"
        gpu0 = "cpx/nps1"
        "0000:0A:00.0" = "NPS4"
        """,
        "aimd.toml",
    )
    assert (config.sysfs_root, config.allow_memory_mode_change, config.log_level) == ("/tmp/sys", True, "debug")
    assert (config.operators, config.poll_seconds) == (["daemon", 1000], 0.5)
    switching = config.switching
    assert (switching.wait_seconds, switching.settle_seconds, switching.wish_retry_seconds) == (1.0, 86400.0, 0.05)
    assert config.modes() == {
        "default": PartitionMode(ComputeMode.SPX),
        "gpu0": PartitionMode(ComputeMode.CPX, MemoryMode.NPS1),
        "0000:0a:00.0": PartitionMode(None, MemoryMode.NPS4),
    }


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        (
            "pol_seconds = 1",
            "pol_seconds",
            "sysfs_root, allow_memory_mode_change, operators, poll_seconds, memory_probe",
        ),
        ("[switching]\nwait = 1", "switching.wait", "wait_seconds, settle_seconds, wish_retry_seconds"),
        ("[swiching]\nwait_seconds = 1", "swiching", "sysfs_root, "),
        ("[switching.more]\nx = 1", "switching.more", "wait_seconds, "),
        ("[switching]\nwait_seconds = 1\nwait_secs = 0", "switching.wait_secs", "wait_seconds, "),
    ],
)
def test_an_unknown_key_is_named_by_its_path(text: str, key: str, expected: str) -> None:
    assert refused(text).message.startswith(f"aimd.toml: {key} is unknown, expected one of {expected}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sysfs_root = 1", "sysfs_root is 1, expected a text"),
        ("allow_memory_mode_change = 1", "allow_memory_mode_change is 1, expected true or false"),
        ('allow_memory_mode_change = "yes"', "allow_memory_mode_change is 'yes', expected true or false"),
        ('operators = "root"', "operators is 'root', expected a list"),
        ("operators = [1.5]", "operators[0] is 1.5, expected a text or a whole number of at least 0"),
        ('operators = ["x", -1]', "operators[1] is -1, expected a text or a whole number of at least 0"),
        ('poll_seconds = "2"', "poll_seconds is '2', expected a number from 0.05 to 86400"),
        ("switching = 3", "switching is 3, expected a table"),
        ("[switching]\nwait_seconds = true", "switching.wait_seconds is true, expected a number from 0.05 to 86400"),
        ("layout = []", "layout is a list, expected a table"),
        ("[layout]\ngpu1 = 'SPX'\ngpu0 = {}", "layout.gpu0 is a table, expected a text"),
        ("log_level = 2026-01-02", "log_level is 2026-01-02, expected a text"),
        ("[placement]\nrepartition = 'no'", "placement.repartition is 'no', expected never or when-idle"),
        (
            "[placement]\nslots_per_partition = 0",
            "placement.slots_per_partition is 0, expected a whole number from 1 to",
        ),
    ],
)
def test_a_value_that_is_not_expected_is_told_with_path_and_expectation(text: str, sentence: str) -> None:
    error = refused(text)
    assert error.message.startswith(f"aimd.toml: {sentence}")
    assert error.hint


@pytest.mark.parametrize("key", ["poll_seconds", "wait_seconds", "settle_seconds", "wish_retry_seconds"])
@pytest.mark.parametrize("value", ["0", "0.049", "-1", "86400.5", "1e9", "inf", "nan"])
def test_seconds_have_a_range(key: str, value: str) -> None:
    text = f"{key} = {value}" if key == "poll_seconds" else f"[switching]\n{key} = {value}"
    assert f"{key} is " in refused(text).message
    assert "expected a number from 0.05 to 86400" in refused(text).message


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_log_levels(level: str) -> None:
    assert parse_config(f'log_level = "{level}"', "aimd.toml").log_level == level


@pytest.mark.parametrize("level", ["", "INFO", "trace"])
def test_other_log_levels_are_refused(level: str) -> None:
    assert (
        f"log_level is {level!r}, expected debug, info, warning or error" in refused(f'log_level = "{level}"').message
    )


@pytest.mark.parametrize("path", ["", "libamdhip64.so.6", "lib/libamdhip64.so"])
def test_a_hip_library_is_named_by_its_whole_path(path: str) -> None:
    assert (
        f"hip_library is {path!r}, expected the absolute path of a file" in refused(f'hip_library = "{path}"').message
    )


def test_hip_is_asked_or_not() -> None:
    assert parse_config('memory_probe = "off"\nhip_library = "/opt/rocm/lib/libamdhip64.so"', "a").memory_probe == "off"
    assert "memory_probe is 'rocm', expected hip or off" in refused('memory_probe = "rocm"').message


@pytest.mark.parametrize("gpu", ["gpu", "gpux", "0", "05:00.0", "0000:05:00.8", "all", "gpu0 "])
def test_a_layout_for_no_gpu(gpu: str) -> None:
    message = refused(f'[layout]\n"{gpu}" = "CPX"').message
    assert message.endswith("names no GPU, expected default, gpu0, gpu1, ... or a PCI address")
    assert repr(gpu) in message


@pytest.mark.parametrize("mode", ["", "XPX", "CPX/", "CPX/NPS5", "NPS1/CPX", "CPX/SPX"])
def test_a_layout_of_no_mode(mode: str) -> None:
    error = refused(f'[layout]\ngpu3 = "{mode}"')
    assert "layout.gpu3: mode" in error.message
    assert "for example CPX/NPS1" in (error.hint or "")


def test_one_gpu_twice_in_a_layout() -> None:
    error = refused('[layout]\ngpu0 = "CPX"\nGPU0 = "SPX"')
    assert "layout: gpu0 is named twice" in error.message


@pytest.mark.parametrize("text", ["a = ", "= 1", "[switching\n", "poll_seconds = 1\npoll_seconds = 2", "\x00"])
def test_no_toml(text: str) -> None:
    assert "aimd.toml is no TOML: " in refused(text).message


def test_the_digest_of_a_layout_follows_its_meaning() -> None:
    def digest(text: str) -> str:
        return parse_config(text, "aimd.toml").layout_digest()

    one = digest('[layout]\ngpu0 = "CPX/NPS1"\ngpu1 = "SPX"')
    assert len(one) == 16
    assert digest('poll_seconds = 1\n[layout]\nGPU1 = "spx"\ngpu0 = "cpx/nps1"') == one
    assert digest('[layout]\ngpu0 = "CPX"\ngpu1 = "SPX"') != one
    assert digest('[layout]\ngpu0 = "SPX"\ngpu1 = "CPX/NPS1"') != one
    assert digest("") == digest("[layout]") == ""


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "aimd.toml"
    path.write_text("poll_seconds = 5\n")
    assert read_config(path).poll_seconds == 5


@pytest.mark.parametrize("kind", ["none", "folder", "latin-1"])
def test_a_file_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "aimd.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "latin-1":
        path.write_bytes('sysfs_root = "/tmp/f\xfc"'.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert caught.value.message.startswith(f"{path} cannot be read: ")
    assert caught.value.message.count(str(path)) == 1
    assert "Errno" not in caught.value.message
    assert caught.value.hint == "name another file with --config"


# -- aimd check-config -------------------------------------------------------------------------------------------


def check(tmp_path: Path, text: str) -> Result:
    path = tmp_path / "aimd.toml"
    path.write_text(text)
    return CliRunner().invoke(main, ["check-config", str(path)])


def test_a_valid_file_is_called_so(tmp_path: Path) -> None:
    result = check(tmp_path, 'operators = ["root", 12345]\n[layout]\ndefault = "CPX"\n')
    assert (result.exit_code, result.output) == (0, f"{tmp_path}/aimd.toml is valid\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pol_seconds = 1", "pol_seconds is unknown, expected one of"),
        ("poll_seconds = 0", "poll_seconds is 0, expected a number from 0.05 to 86400"),
        ('operators = ["no-such-user-here"]', "operators: user 'no-such-user-here' does not exist on this machine"),
        ("operators = [-1]", "operators"),
        ('[layout]\ngpu0 = "XPX"', "layout.gpu0"),
        ("x", "is no TOML"),
    ],
)
def test_an_invalid_file_ends_with_the_code_of_usage(tmp_path: Path, text: str, words: str) -> None:
    result = check(tmp_path, text)
    assert result.exit_code == 2
    assert words in result.output
    assert result.output.startswith("error: ")
    assert "Traceback" not in result.output


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check-config", str(tmp_path / "none.toml")])
    assert result.exit_code == 2
    assert "cannot be read" in result.output
