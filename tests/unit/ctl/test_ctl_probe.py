"""aimctl doctor --probe: what a kubelet asks, by exit code."""

from aimd.protocol.messages import HealthMessage
from tests.unit.ctl.test_ctl_process import run


def test_alive_and_not_ready_are_told_apart(api, world, socket_path):
    world.health["/readyz"] = HealthMessage(status="failing", failing={"inventory": "has not been read"})
    assert run("--socket", str(socket_path), "doctor", "--probe", "live").returncode == 0
    told = run("--socket", str(socket_path), "doctor", "--probe", "ready")
    assert (told.returncode, told.stdout) == (1, "inventory: has not been read\n")


def test_a_daemon_that_is_not_there_fails_both(tmp_path):
    for probe in ("live", "ready"):
        assert run("--socket", str(tmp_path / "nowhere.sock"), "doctor", "--probe", probe).returncode == 3


def test_it_goes_not_with_preflight(tmp_path):
    assert run("--socket", str(tmp_path / "nowhere.sock"), "doctor", "--probe", "live", "--preflight").returncode == 2
