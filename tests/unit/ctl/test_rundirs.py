from __future__ import annotations

import pytest

from aimd.errors import InvalidInputError
from aimd.rundirs import RunDirectories, client_socket, daemon_directories

SYSTEMD = {"RUNTIME_DIRECTORY": "/run/aimd:/run/other", "STATE_DIRECTORY": "/var/lib/aimd"}
USER = {"XDG_RUNTIME_DIR": "/run/user/1000/", "XDG_STATE_HOME": "/home/u/state", "HOME": "/home/u"}


@pytest.mark.parametrize(
    ("environ", "uid", "options", "expected"),
    [
        ({}, 0, {}, ("/run/aimd", "/var/lib/aimd")),
        (USER, 0, {}, ("/run/aimd", "/var/lib/aimd")),
        (SYSTEMD, 990, {}, ("/run/aimd", "/var/lib/aimd")),
        ({**USER, **SYSTEMD}, 1000, {}, ("/run/aimd", "/var/lib/aimd")),
        (SYSTEMD, 0, {"runtime_dir": "r", "state_dir": "/s"}, ("r", "/s")),
        ({}, 1000, {"runtime_dir": "r", "state_dir": "/s"}, ("r", "/s")),
        (USER, 1000, {}, ("/run/user/1000/aimd", "/home/u/state/aimd")),
        ({"HOME": "/home/u"}, 1000, {}, ("/home/u/.local/state/aimd/run", "/home/u/.local/state/aimd")),
        ({"HOME": "/home/u"}, 1000, {"state_dir": "/s"}, ("/s/run", "/s")),
        ({**USER, "XDG_STATE_HOME": "state"}, 1000, {}, ("/run/user/1000/aimd", "/home/u/.local/state/aimd")),
        (
            {**USER, "XDG_RUNTIME_DIR": "", "RUNTIME_DIRECTORY": ""},
            1000,
            {},
            ("/home/u/state/aimd/run", "/home/u/state/aimd"),
        ),
    ],
)
def test_daemon_directories(environ, uid, options, expected) -> None:
    assert daemon_directories(environ, uid, **options) == RunDirectories(*expected)


def test_no_home_no_state() -> None:
    with pytest.raises(InvalidInputError) as refused:
        daemon_directories({"XDG_RUNTIME_DIR": "/run/user/1"}, 1)
    assert refused.value.code == "state_dir_unknown"
    assert "--state-dir" in refused.value.hint


@pytest.mark.parametrize(
    ("environ", "uid", "option", "expected"),
    [
        ({"AIMD_SOCKET": "/a", **USER}, 1000, "/o", "/o"),
        ({"AIMD_SOCKET": "/a", **USER}, 1000, None, "/a"),
        ({"AIMD_SOCKET": "/a"}, 0, None, "/a"),
        ({"AIMD_SOCKET": "", **USER}, 1000, None, "/run/user/1000/aimd/aimd.sock"),
        (USER, 0, None, "/run/aimd/aimd.sock"),
        ({**USER, "RUNTIME_DIRECTORY": "/run/some-unit"}, 1000, None, "/run/user/1000/aimd/aimd.sock"),
    ],
)
def test_client_socket(environ, uid, option, expected) -> None:
    assert client_socket(environ, uid, option=option) == expected


def test_client_socket_of_another_service() -> None:
    names = {"variable": "AIMD_SIM_SOCKET", "file_name": "sim.sock"}
    assert client_socket({"AIMD_SOCKET": "/a"}, 0, **names) == "/run/aimd/sim.sock"
    assert client_socket({"AIMD_SIM_SOCKET": "/a"}, 0, **names) == "/a"


def test_nowhere_to_look_is_said() -> None:
    with pytest.raises(InvalidInputError, match="none of XDG_RUNTIME_DIR, XDG_STATE_HOME and HOME is set") as refused:
        client_socket({}, 1000)
    assert "AIMD_SOCKET" in refused.value.hint


def test_daemon_and_client_of_one_user_meet() -> None:
    for environ, uid in ((USER, 1000), ({}, 0), ({"HOME": "/home/u"}, 1000)):
        assert client_socket(environ, uid) == f"{daemon_directories(environ, uid).runtime}/aimd.sock"
