"""A driver is found by its socket: what it says of itself, who may call it, what it finds in its place."""

import socket
import stat
import threading
import time

import pytest

from aimd.adapters.dra.driver import KubeletDriver
from aimd.domain.dra import Registration
from aimd.errors import ConfigError, ConflictError
from tests.systemd.machine import until


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_driver_is_found_and_taken(drive, kubelet, root):
    driver = drive()
    assert driver.registration is None
    info = kubelet.register()
    assert kubelet.found == root / "plugins_registry/gpu.aimd.dev-reg.sock"
    assert (info.type, info.name) == ("DRAPlugin", "gpu.aimd.dev")
    assert info.endpoint == str(root / "plugins/gpu.aimd.dev/dra.sock")
    assert list(info.supported_versions) == ["v1.DRAPlugin", "v1alpha1.DRAResourceHealth"]
    told = driver.registration
    assert told == Registration(True, "", told.at)
    assert abs(told.at - time.time()) < 5
    assert driver.problem is None


def test_a_driver_that_is_not_taken_says_why(drive, kubelet):
    driver = drive()
    kubelet.register(error="no such version")
    assert not driver.registration.registered
    assert "no such version" in driver.problem


def test_nobody_else_may_call_it(drive, root):
    drive()
    for path in ("plugins_registry/gpu.aimd.dev-reg.sock", "plugins/gpu.aimd.dev/dra.sock"):
        assert mode(root / path) == 0o600
    assert mode(root / "plugins/gpu.aimd.dev") == 0o700


def test_it_is_there_only_once_it_is_served(drive, root):
    """Whoever sees the file can connect to it, and nobody before its mode is right."""
    path, seen, stop = root / "plugins_registry/gpu.aimd.dev-reg.sock", [], threading.Event()

    def look():
        while not stop.is_set():
            if path.exists():
                with socket.socket(socket.AF_UNIX) as asking:
                    asking.connect(str(path))
                seen.append(mode(path))
                return

    looking = threading.Thread(target=look)
    looking.start()
    drive()
    until(lambda: seen, "never seen")
    stop.set()
    looking.join()
    assert seen == [0o600]
    assert sorted(each.name for each in root.rglob("*sock*")) == ["dra.sock", "gpu.aimd.dev-reg.sock"]


def test_what_a_dead_process_left_is_replaced(drive, kubelet, root):
    for path in ("plugins_registry/gpu.aimd.dev-reg.sock", "plugins/gpu.aimd.dev/.dra.sock.0badcafe"):
        (root / path).parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(root / path))
    drive()
    kubelet.register()
    assert not (root / "plugins/gpu.aimd.dev/.dra.sock.0badcafe").exists()


@pytest.mark.parametrize("path", ["plugins_registry/gpu.aimd.dev-reg.sock", "plugins/gpu.aimd.dev/dra.sock"])
def test_a_socket_that_somebody_serves_is_left_alone(daemon, root, path):
    (root / path).parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(root / path))
        other.listen()
        before = (root / path).stat().st_ino
        with pytest.raises(ConflictError, match="another process serves"):
            KubeletDriver(daemon, root).start()
        assert (root / path).stat().st_ino == before
    left = [each for each in root.rglob("*") if each.is_socket() and each != root / path]
    assert left == []


def test_two_drivers_on_one_node(drive, kubelet, daemon, root):
    drive()
    with pytest.raises(ConflictError):
        KubeletDriver(daemon, root).start()
    kubelet.register()
    assert kubelet.prepare(("default", "a", "u1"))["u1"].error == ""


def test_a_file_that_is_no_socket_is_left_alone(daemon, root):
    path = root / "plugins/gpu.aimd.dev/dra.sock"
    path.parent.mkdir(parents=True)
    path.write_text("kept")
    with pytest.raises(ConfigError, match="is no socket"):
        KubeletDriver(daemon, root).start()
    assert path.read_text() == "kept"


def test_a_path_that_is_too_long_is_told(daemon, root):
    with pytest.raises(ConfigError, match="expected 107 at most"):
        KubeletDriver(daemon, root / ("long" * 20)).start()


def test_a_folder_that_cannot_be_made_is_told(daemon, root):
    (root / "plugins").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be made"):
        KubeletDriver(daemon, root).start()


def test_it_goes_when_it_is_closed_and_is_found_again(drive, kubelet, root):
    drive().close()
    assert [each for each in root.rglob("*") if each.is_socket()] == []
    drive()
    kubelet.register()
    assert kubelet.prepare(("default", "a", "u1"))["u1"].error == ""


def test_a_socket_that_another_took_is_told_and_stays(drive, root):
    driver = drive()
    path = root / "plugins_registry/gpu.aimd.dev-reg.sock"
    path.unlink()
    assert "restart aimd" in driver.problem
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        assert "restart aimd" in driver.problem
        driver.close()
        assert path.exists()


def test_it_can_be_closed_before_it_was_started_and_twice(daemon, root):
    driver = KubeletDriver(daemon, root)
    driver.close()
    driver.close()
