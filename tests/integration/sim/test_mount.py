"""The simulated /sys as a real mount: unmodified programs, system calls and their errnos."""

import errno
import os
import signal
import stat
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sim_processes import COMMAND, eventually, kfd_client, mounted, open_to_all, unmount

from aimd.sim.node import SimulatedNode
from aimd.sim.spec import parse_spec
from aimd.sim.tree import Directory, Link

FIRST, SECOND = "0000:05:00.0", "0000:27:00.0"


def shell(command, cwd=None):
    """Run a command line; its output, and its error output if it fails."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=cwd, check=False)
    return done.stdout if done.returncode == 0 else f"{done.returncode}: {done.stderr}"


def read(path, size=4096, offset=0):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def write(path, data):
    """open(2), write(2); the name of the call that failed and its errno, or None."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except OSError as error:
        return "open", error.errno
    try:
        os.write(descriptor, data)
    except OSError as error:
        return "write", error.errno
    finally:
        os.close(descriptor)
    return None


def content(read_file, *arguments):
    try:
        return read_file(*arguments)
    except OSError as error:
        return error.errno


def gpu_nodes(root):
    """Location id and gpu_id of each GPU node of the mounted topology."""
    nodes = Path(root, "class/kfd/kfd/topology/nodes")
    found = []
    for folder in sorted(nodes.iterdir(), key=lambda path: int(path.name)):
        properties = dict(line.split() for line in (folder / "properties").read_text().splitlines())
        if int(properties["simd_count"]):
            found.append((int(properties["location_id"]), int((folder / "gpu_id").read_text())))
    return found


# -- unmodified programs ---------------------------------------------------------------------------------------


def test_cat_and_echo_switch_a_gpu(new_driver):
    generation = int(shell(f"cat {new_driver.root}/class/kfd/kfd/topology/generation_id"))
    assert shell(f"cat {new_driver.mode_file}") == "SPX\n"
    assert gpu_nodes(new_driver.root)[0] == (1280, 28851)
    assert shell(f"echo CPX > {new_driver.mode_file}") == ""
    assert shell(f"cat {new_driver.mode_file}") == "CPX\n"
    located = [location for location, _ in gpu_nodes(new_driver.root)]
    assert located[1:] == list(range(1280, 1288)), "the new nodes are at the end"
    assert int(shell(f"cat {new_driver.root}/class/kfd/kfd/topology/generation_id")) == generation + 9


def test_echo_of_a_wrong_mode_fails_as_on_sysfs(new_driver):
    assert "Invalid argument" in shell(f"/bin/echo XPX > {new_driver.mode_file}")


def test_find_and_grep_walk_the_tree(new_driver):
    found = shell("find . -name current_compute_partition", new_driver.root).split()
    assert sorted(found) == [f"./devices/pci{a[:7]}/{a}/current_compute_partition" for a in (FIRST, SECOND)]
    assert shell("find . -type l -name '0000:*' | wc -l", new_driver.root).strip() == "4"
    matches = shell("grep -r '^drm_render_minor 128$' class/kfd/kfd/topology/nodes/", new_driver.root)
    assert matches == "class/kfd/kfd/topology/nodes/2/properties:drm_render_minor 128\n"


def test_links_are_links(new_driver):
    device = f"{new_driver.root}/bus/pci/devices/{FIRST}"
    assert str(Path(device).readlink()) == f"../../../devices/pci0000:05/{FIRST}"
    assert os.path.realpath(f"{new_driver.root}/class/drm/card1/device").endswith(f"/devices/pci0000:05/{FIRST}")
    assert os.path.realpath(f"{new_driver.root}/module/amdgpu/drivers/pci:amdgpu/{FIRST}") == os.path.realpath(device)


def test_files_look_like_sysfs(new_driver):
    status = Path(new_driver.mode_file).stat()
    assert (stat.S_IMODE(status.st_mode), status.st_size, stat.S_ISREG(status.st_mode)) == (0o644, 4096, True)
    assert stat.S_IMODE(Path(new_driver.device("available_compute_partition")).stat().st_mode) == 0o444
    assert shell("touch foo", new_driver.root) == "1: touch: cannot touch 'foo': Permission denied\n"
    assert "Operation not permitted" in shell("mkdir foo", new_driver.root)
    assert "Operation not permitted" in shell(f"rm -f {new_driver.mode_file}")


def test_the_kernel_caches_neither_entries_nor_their_absence(new_driver):
    nodes = Path(new_driver.root, "class/kfd/kfd/topology/nodes")
    device = Path(new_driver.root, "bus/pci/devices", FIRST)
    assert not (nodes / "10").exists(), "two CPU nodes and two GPU nodes"
    assert device.is_symlink()
    assert write(new_driver.mode_file, b"CPX") is None
    assert (nodes / "10").exists()
    with new_driver.client() as client:
        client.fault("device-lost", "gpu0")
    assert not (nodes / "10").exists()
    assert not device.is_symlink()


# -- reading and writing ---------------------------------------------------------------------------------------


def test_reads_past_the_end_are_empty_and_pieces_belong_together(new_driver):
    descriptor = os.open(new_driver.mode_file, os.O_RDONLY)
    try:
        assert os.pread(descriptor, 4096, 4) == os.pread(descriptor, 4096, 4096) == b""
        assert os.pread(descriptor, 2, 0) == b"SP"
        assert write(new_driver.mode_file, b"CPX") is None
        assert os.pread(descriptor, 2, 2) == b"X\n", "still of the first rendering"
        assert os.pread(descriptor, 4096, 0) == b"CPX\n", "from the start it is rendered anew"
    finally:
        os.close(descriptor)


def test_each_write_is_one_command_and_truncation_none(new_driver):
    descriptor = os.open(new_driver.mode_file, os.O_RDWR | os.O_TRUNC)
    try:
        assert os.pread(descriptor, 10, 0) == b"SPX\n"
        assert os.write(descriptor, b"DPX") == 3
        assert os.write(descriptor, b"cpx and more\n") == 13
        os.ftruncate(descriptor, 0)
        assert os.pread(descriptor, 10, 0) == b"CPX\n"
        assert os.write(descriptor, b"SPX" + b" " * 9000) == 4096
        assert os.pread(descriptor, 10, 0) == b"SPX\n"
    finally:
        os.close(descriptor)
    assert len(gpu_nodes(new_driver.root)) == 2


def test_a_file_may_be_created_only_where_it_exists(new_driver):
    os.close(os.open(new_driver.mode_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    with pytest.raises(PermissionError) as error:
        os.open(f"{new_driver.root}/new", os.O_WRONLY | os.O_CREAT, 0o600)
    assert error.value.errno == errno.EACCES


# -- errnos ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"XPX", b" CPX", b"\n", b"TPX"])
def test_einval(new_driver, data):
    assert write(new_driver.mode_file, data) == ("write", errno.EINVAL)


def test_ebusy_while_a_client_of_this_gpu_lives(new_driver):
    with kfd_client(new_driver.socket, "gpu0") as child:
        assert write(new_driver.mode_file, b"CPX") == ("write", errno.EBUSY)
        assert Path(f"{new_driver.root}/class/kfd/kfd/proc/{child.pid}").is_dir()
        assert write(new_driver.device("current_compute_partition", SECOND), b"CPX") is None
    eventually(lambda: write(new_driver.mode_file, b"CPX") is None)


def test_ebusy_on_the_whole_node_with_the_old_driver(old_driver):
    with kfd_client(old_driver.socket, "gpu1"):
        assert write(old_driver.mode_file, b"CPX") == ("write", errno.EBUSY)
    eventually(lambda: write(old_driver.mode_file, b"CPX") is None)


def test_eacces_without_a_write_bit_even_as_root(old_driver):
    assert write(old_driver.device("available_compute_partition"), b"SPX") == ("open", errno.EACCES)
    assert write(old_driver.device("current_memory_partition"), b"NPS4") == ("open", errno.EACCES)


@pytest.mark.parametrize(("kind", "code"), [("access-denied", errno.EACCES), ("read-only", errno.EROFS)])
def test_faults_at_open(new_driver, kind, code):
    with new_driver.client() as client:
        client.fault(kind, "gpu0", remaining=None)
        assert write(new_driver.mode_file, b"CPX") == ("open", code)
        assert read(new_driver.mode_file) == b"SPX\n"
        client.clear_faults()
    assert write(new_driver.mode_file, b"CPX") is None


def test_eperm_in_reset(new_driver):
    with new_driver.client() as client:
        client.fault("reset", "gpu0", seconds=0.5)
    assert write(new_driver.mode_file, b"CPX") == ("write", errno.EPERM)
    with pytest.raises(PermissionError) as error:
        read(new_driver.mode_file)
    assert error.value.errno == errno.EPERM
    eventually(lambda: write(new_driver.mode_file, b"CPX") is None)


def test_eio_and_no_nodes_until_a_reload(new_driver):
    with new_driver.client() as client:
        client.fault("kfd-failure", "gpu0")
        assert write(new_driver.mode_file, b"CPX") == ("write", errno.EIO)
        assert len(gpu_nodes(new_driver.root)) == 1
        client.reload()
    assert len(gpu_nodes(new_driver.root)) == 2


def test_a_lost_device(new_driver):
    descriptor = os.open(new_driver.mode_file, os.O_RDONLY)
    try:
        with new_driver.client() as client:
            client.fault("device-lost", "gpu0")
        with pytest.raises(OSError, match=os.strerror(errno.ENODEV)) as error:
            os.pread(descriptor, 10, 0)
        assert error.value.errno == errno.ENODEV
        assert write(new_driver.mode_file, b"CPX") == ("open", errno.ENOENT)
        assert shell(f"ls {new_driver.root}/bus/pci/devices") == f"{SECOND}\n"
    finally:
        os.close(descriptor)


def test_kfd_files_are_denied_by_the_device_cgroup(new_driver):
    with new_driver.client() as client:
        client.fault("cgroup-denied", "gpu0", remaining=None)
    nodes = Path(new_driver.root, "class/kfd/kfd/topology/nodes").iterdir()
    assert sorted(content(read, f"{node}/properties") == errno.EPERM for node in nodes)[-2:] == [False, True]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
def test_another_user_reads_and_may_not_write(new_driver):
    open_to_all(new_driver.root.parent)
    line = f"cat {new_driver.mode_file}; cat {new_driver.device('compute_partition_config/xcc/num_inst')}; echo CPX > {new_driver.mode_file}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, user=65534, group=65534, check=False)
    assert done.stdout == "SPX\n"
    assert done.stderr.count("Permission denied") == 2


# -- blocking --------------------------------------------------------------------------------------------------


def test_readers_of_the_mode_file_wait_for_a_slow_write_and_others_do_not(new_driver):
    with new_driver.client() as client:
        client.fault("slow-write", "gpu0", seconds=1.0)
        begun = time.monotonic()
        with ThreadPoolExecutor(40) as pool:
            switch = pool.submit(write, new_driver.mode_file, b"CPX")
            eventually(lambda: client.status()["gpus"][0]["switching_until"])
            waiting = [pool.submit(read, new_driver.mode_file) for _ in range(30)]
            assert read(new_driver.device("current_compute_partition", SECOND)) == b"SPX\n"
            assert read(new_driver.device("vendor")) == b"0x1002\n"
            assert stat.S_IMODE(Path(new_driver.mode_file).stat().st_mode) == 0o644
            assert time.monotonic() - begun < 0.9
            assert not any(reader.done() for reader in waiting)
            assert switch.result() is None
            assert {reader.result() for reader in waiting} == {b"CPX\n"}
        assert time.monotonic() - begun > 1.0


def test_two_switches_on_two_gpus_run_at_the_same_time(new_driver):
    with new_driver.client() as client:
        client.fault("slow-write", remaining=2, seconds=0.6)
    begun = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        paths = [new_driver.device("current_compute_partition", gpu) for gpu in (FIRST, SECOND)]
        assert list(pool.map(write, paths, [b"CPX", b"DPX"])) == [None, None]
    assert time.monotonic() - begun < 1.5
    assert len(gpu_nodes(new_driver.root)) == 10


def test_scanners_meet_a_tree_without_nodes_while_it_is_rebuilt(new_driver):
    with new_driver.client() as client:
        client.fault("rebuild-window", seconds=0.2)
        try:
            nodes = Path(new_driver.root, "class/kfd/kfd/topology/nodes")
            switch = threading.Thread(target=write, args=(new_driver.mode_file, b"DPX"))
            switch.start()
            eventually(lambda: not list(nodes.iterdir()))
            with pytest.raises(FileNotFoundError):
                (nodes / "1" / "properties").read_bytes()
            switch.join()
            eventually(lambda: len(list(nodes.iterdir())) > 2)
            eventually(lambda: len(gpu_nodes(new_driver.root)) == 3)
        finally:
            client.fault("rebuild-window", seconds=0.0005)


# -- the process -----------------------------------------------------------------------------------------------


def tree_of_node(node, path=""):
    """The tree as {path: "folder", link target, content, or errno of the read}."""
    tree = {}
    for name in node.listdir(path):
        below = f"{path}/{name}".lstrip("/")
        entry = node.entry(below)
        if isinstance(entry, Directory):
            tree |= {below: "folder", **tree_of_node(node, below)}
        else:
            tree[below] = entry.target if isinstance(entry, Link) else content(node.read, below)
    return tree


def tree_of_mount(root):
    """The same by system calls relative to each folder."""
    tree = {}
    for path, folders, files, descriptor in os.fwalk(root):
        prefix = path[len(str(root)) :].lstrip("/")
        for name in (*folders, *files):
            below = f"{prefix}/{name}".lstrip("/")
            mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                tree[below] = "folder"
            elif stat.S_ISLNK(mode):
                tree[below] = os.readlink(name, dir_fd=descriptor)
            else:
                tree[below] = content(read_at, name, descriptor)
    return tree


def read_at(name, folder):
    descriptor = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("driver", ["old_driver", "new_driver"])
def test_the_mount_and_the_node_in_process_show_the_same_tree(driver, request):
    mount = request.getfixturevalue(driver)
    node = SimulatedNode(parse_spec("mi300x:2", {"old_driver": "6.12", "new_driver": "7.2"}[driver]))
    node.act(lambda model, now: model.reboot(now))
    node.write(f"bus/pci/devices/{SECOND}/current_compute_partition", b"CPX")
    assert write(mount.device("current_compute_partition", SECOND), b"CPX") is None
    here, there = tree_of_node(node), tree_of_mount(mount.root)
    assert len(here) > 500
    assert {path for path in here if here[path] != there.get(path)} == set()
    assert here.keys() == there.keys()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_and_removes_the_socket(requires_fuse, tmp_path, number):
    with mounted(tmp_path, "--model", "mi308x:1") as mount:
        mount.process.send_signal(number)
        assert mount.process.wait(10) == 0
        assert not os.path.ismount(mount.root)
        assert not mount.socket.exists()


def test_umount_ends_the_process(requires_fuse, tmp_path):
    with mounted(tmp_path, "--model", "mi308x:1") as mount:
        unmount(mount.root)
        assert mount.process.wait(10) == 0


def test_the_state_file_outlives_the_mount(requires_fuse, tmp_path):
    for turn, mode in ((1, b"SPX\n"), (2, b"CPX\n")):
        folder = tmp_path / str(turn)
        folder.mkdir()
        with mounted(folder, "--model", "mi300x:1", "--state", str(tmp_path / "sim.json")) as mount:
            assert read(mount.mode_file) == mode
            assert write(mount.mode_file, b"CPX") is None


def test_a_mount_point_left_by_a_killed_server_is_explained(requires_fuse, tmp_path):
    with mounted(tmp_path, "--model", "mi308x:1") as mount:
        mount.process.kill()
        mount.process.wait()
        options = ["mount", str(mount.root), "--socket", str(tmp_path / "other.sock")]
        done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 5
        assert "was left by a simulation that has died" in done.stderr
        unmount(mount.root)


def test_a_socket_in_use_stops_the_mount(new_driver, tmp_path):
    options = ["mount", str(tmp_path), "--socket", str(new_driver.socket)]
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "is served by another process" in done.stderr
    assert not os.path.ismount(tmp_path)


def test_the_commands_act_on_the_mount(new_driver):
    def sim(*arguments):
        done = subprocess.run(
            [*COMMAND, *arguments, "--socket", str(new_driver.socket)], capture_output=True, text=True, check=False
        )
        return done.stdout if done.returncode == 0 else done.stderr

    assert sim("fault", "firmware-refusal", "--gpu", "gpu1", "--times", "2") == ""
    assert sim("faults") == f"fault firmware-refusal on {SECOND}, 2 times\n"
    assert write(new_driver.device("current_compute_partition", SECOND), b"CPX") is None
    assert f"gpu1  {SECOND}  SPX/NPS1  1 partitions  (mode file CPX)" in sim("status")
    assert sim("clear") == ""
    assert sim("faults") == "no faults armed\n"
    assert write(new_driver.device("current_memory_partition"), b"NPS4") is None
    assert "NPS4 at the next reload" in sim("status")
    assert sim("reload") == ""
    assert f"gpu0  {FIRST}  CPX/NPS4  8 partitions" in sim("status")
    assert "rebooted" in sim("reset")
    assert f"gpu0  {FIRST}  SPX/NPS1  1 partitions" in sim("status")


def test_a_load_takes_its_gpus_away_and_brings_them_one_by_one(new_driver):
    """The other front end: the class of KFD, the module and the driver's links go, then GPU after GPU comes back."""
    root = new_driver.root
    driver, kfd = root / "bus/pci/drivers/amdgpu", root / "class/kfd/kfd"
    seen = []
    with new_driver.client() as client, ThreadPoolExecutor(1) as threads:
        load = threads.submit(client.reload)
        while not load.done():
            bound = tuple(name for name in (FIRST, SECOND) if (driver / name).is_symlink())
            seen.append((kfd.exists(), bound))
        load.result()
    order = [state for number, state in enumerate(seen) if state != seen[number - 1] or not number]
    assert (False, ()) in order
    assert (True, (FIRST,)) in order
    assert order.index((False, ())) < order.index((True, (FIRST,)))
    assert (driver / FIRST).is_symlink()
    assert (driver / SECOND).is_symlink()
    assert len(gpu_nodes(root)) == 2
