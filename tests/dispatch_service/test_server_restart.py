"""Leases outlive the daemon: kill -9 at any moment, stop and start, and what a new one finds."""

import os
import random
import subprocess
import time

import pytest

from aimd.dispatch import End, Limits, ModelConfig, PartitionConfig, lease_file
from aimd.dispatch.lease_file import HEAD_BYTES, NOTHING, HeldLease, new_lease_file, read_leases
from aimd.dispatch.server import DispatchServer
from aimd.protocol import frames
from aimd.protocol.frames import Adopted, FrameKind, Granted, Queued, Refused, Released
from tests.dispatch_service.hosting import listening, stat_fields
from tests.dispatch_service.load import Load
from tests.dispatch_service.talking import Talk

BOOT = "0" * 36
CAPACITY = 12
HOSTING = """
from pathlib import Path
from aimd.dispatch import ModelConfig, PartitionConfig
from tests.dispatch_service.hosting import Host
config = PartitionConfig((ModelConfig(0),), capacity=12)
host = Host({folder!r}, partitions={{0: config}}, **{options!r})
host.start()
"""
MS = 1_000_000


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def host_elsewhere(make_puppet, folder, **options):
    """A process that hosts a server, to be killed."""
    (folder / "dispatch.sock").unlink(missing_ok=True)
    puppet = make_puppet()
    puppet.do(HOSTING.format(folder=str(folder), options=options))
    return puppet


def wide(slots=CAPACITY, **options):
    return {0: PartitionConfig((ModelConfig(0),), capacity=slots, **options)}


def restart(folder, make_host, **options):
    (folder / "dispatch.sock").unlink(missing_ok=True)
    return make_host(folder, **options)


def a_kill_in_the_load(folder, make_host, make_puppet, seed):
    chance = random.Random(seed)
    daemon = host_elsewhere(make_puppet, folder)
    doomed = make_puppet().connect(folder / "dispatch.sock")
    doomed.do("client.lease(client.open(), 1)")
    load = Load(folder / "dispatch.sock", 4, seed).start()
    time.sleep(chance.uniform(0.01, 0.1))
    daemon.kill()
    load.join()
    doomed.kill()
    in_file = {lease.lease for lease in read_leases(folder / "leases", BOOT).leases}
    assert load.held <= in_file
    assert len(in_file) <= CAPACITY
    assert load.most <= CAPACITY
    host = restart(folder, make_host, partitions=wide(orphan_grace_ns=300 * MS))
    # No lease of a living client is lost, those of the dead are counted as lost, the capacity holds.
    assert len(load.held) <= host.restored <= CAPACITY
    model = host.model()
    assert sum(model.restored) == len(in_file)
    assert sum(ends[End.LOST] for ends in model.ends) == 1
    client = Talk(host.path)
    client.say(*(frames.adopt(lease) for lease in load.held))
    assert all(isinstance(answer, Adopted) for answer in client.hear_many(len(load.held)))
    handle = client.open()
    fresh = 0
    while isinstance(granted := client.acquire(handle, fresh, flags=1), Granted):
        assert granted.lease not in in_file
        assert granted.lease not in load.held | load.unsure
        fresh += 1
    assert host.restored + fresh == CAPACITY
    # What was granted and never heard of is an orphan, and free after its grace.
    host.until(lambda numbers: numbers["mirrored"] == fresh + len(load.held), 3)
    client.say(*(frames.release(lease) for lease in load.held))
    assert all(isinstance(answer, Released) for answer in client.hear_many(len(load.held)))
    host.check_balance()
    client.close()
    host.close()


def test_kill_in_the_middle_of_a_load(folder, make_host, make_puppet):
    for seed in range(3):
        a_kill_in_the_load(folder, make_host, make_puppet, seed)
        (folder / "leases").unlink()


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_many_kills_in_the_middle_of_a_load(folder, make_host, make_puppet):
    for seed in range(1000, 1200):
        a_kill_in_the_load(folder, make_host, make_puppet, seed)
        (folder / "leases").unlink()


def test_leases_go_through_ten_kills(folder, make_host, make_puppet):
    """Each daemon grants one more; none of them is lost or given twice."""
    held = []
    for _ in range(10):
        daemon = host_elsewhere(make_puppet, folder)
        client = Talk(folder / "dispatch.sock")
        client.say(*(frames.adopt(lease) for lease in held))
        assert {type(answer) for answer in client.hear_many(len(held))} <= {Adopted}
        held.append(client.lease(client.open()))
        assert daemon.do("host.server.busy(0)[0]") == len(held) == len(set(held))
        daemon.kill()
    host = restart(folder, make_host, partitions=wide())
    assert host.restored == 10


def test_leases_stay_over_stop_and_start(make_host, make_puppet, folder):
    host = make_host(partitions=wide(2))
    client = Talk(host.path)
    lease = client.lease(client.open())
    puppet = make_puppet().connect(host.path)
    other = puppet.do("client.lease(client.open(), 1)")
    host.close()
    host = restart(folder, make_host, partitions=wide(2))
    assert host.restored == 2
    client = Talk(host.path)
    handle = client.open()
    client.say(frames.adopt(other), frames.adopt(lease))
    assert client.hear() == Refused(other, 0, FrameKind.ADOPT)  # another process's, also after the restart
    assert isinstance(client.hear(), Adopted)
    assert client.acquire(handle, 5) == Queued(5)
    puppet.kill()  # a process without a connection to the new daemon is watched all the same
    assert client.hear().request == 5
    assert host.model().ends[1][End.LOST] == 1


def test_leases_are_restored_before_anyone_is_served(make_host):
    host = make_host(partitions=wide(1))
    with pytest.raises(ValueError, match="before anyone is served"):
        host.server.restore()


def test_a_lease_that_nobody_adopts_is_lost_after_the_grace(make_host, folder):
    host = make_host(partitions=wide(1))
    client = Talk(host.path)
    client.lease(client.open())
    host.close()
    host = restart(folder, make_host, partitions=wide(1, orphan_grace_ns=100 * MS))
    assert host.restored == 1
    assert host.server.busy(0) == (1, 0)
    host.until(lambda numbers: numbers["mirrored"] == 0)
    host.until(lambda numbers: numbers["callers"] == 0)


def test_a_renewed_deadline_is_kept(make_host, folder):
    host = make_host(partitions=wide(1))
    client = Talk(host.path)
    lease = client.lease(client.open())
    before = read_leases(folder / "leases", BOOT).leases[0]
    time.sleep(0.01)
    client.say(frames.renew(lease))
    client.hear()
    after = read_leases(folder / "leases", BOOT).leases[0]
    assert after.deadline >= before.deadline + 10 * MS
    assert (after.pid, after.started, after.klass, after.partition) == (os.getpid(), before.started, 1, 0)
    host.close()
    host = restart(folder, make_host, partitions=wide(1))
    client = Talk(host.path)
    client.say(frames.adopt(lease))
    assert 0 < client.hear().lease_ns <= after.deadline - time.monotonic_ns() + 1000 * MS


def write_leases(path, leases, slots=4096, generation=50):
    """A lease file as an earlier daemon has left it."""
    os.close(new_lease_file(path, BOOT, slots, generation))
    with path.open("r+b") as file:
        for lease in leases:
            file.seek(HEAD_BYTES + (lease.lease & 0xFFFF) * 64)
            file.write(
                lease_file._LINE.pack(
                    lease.lease,
                    lease.pid,
                    lease.start_time,
                    lease.started,
                    lease.deadline,
                    lease.partition,
                    lease.model,
                    lease.klass,
                    1,
                )
            )


def start_time(pid="self"):
    return int(stat_fields(pid)[19])


def held(slot, partition=0, model=0, **changed):
    now = time.monotonic_ns()
    told = {"pid": os.getpid(), "start_time": start_time(), "started": now, "deadline": now + 10**11, "klass": 1}
    return HeldLease((7 << 16) | slot, partition, model, **{**told, **changed})


def test_what_is_written_is_what_is_read(folder):
    leases = (held(3), held(9, 5, 6, klass=2), held(4095))
    write_leases(folder / "leases", leases)
    found = read_leases(folder / "leases", BOOT)
    assert found.leases == leases
    assert found.generation == 51


def test_a_process_that_has_another_start_time_has_not_got_the_lease(folder, make_host, make_puppet):
    """The pid was given again."""
    other = make_puppet().pid
    reused = {"pid": other, "start_time": start_time(other) + 1}
    mixed = [held(1), held(3, start_time=start_time() + 1)]  # of one pid
    write_leases(folder / "leases", [held(0, **reused), *mixed, held(2, pid=4_000_000)])
    host = make_host(partitions=wide(4))
    assert host.restored == 1
    assert host.server.busy(0) == (1, 0)
    model = host.model()
    assert model.restored[1] == 4
    assert model.ends[1][End.LOST] == 3


def test_leases_of_what_is_not_configured_any_more_run_on(folder, make_host):
    write_leases(folder / "leases", [held(0, 5, 5), held(1, 0, 8)])
    host = make_host(partitions=wide(2))
    assert host.restored == 2
    assert host.server.busy(0) == (1, 0)
    assert host.server.busy(5) == (1, 0)
    client = Talk(host.path)
    client.say(frames.release((7 << 16) | 0))
    assert client.hear() == Released(7 << 16)
    assert host.server.busy(5) == (0, 0)


@pytest.mark.parametrize(
    ("limits", "leases", "fit"),
    [
        (Limits(partitions=2, leases=16), [(0, 0), (1, 0), (2, 0), (3, 0)], 2),
        (Limits(models=3, leases=16), [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)], 3),
        (Limits(leases=4), [(1, 0), (1, 0), (1, 0), (0, 0)], 3),
    ],
)
def test_leases_beyond_the_bounds_are_forgotten_with_a_word(folder, make_host, caplog, limits, leases, fit):
    write_leases(folder / "leases", [held(slot, *where) for slot, where in enumerate(leases)], limits.leases)
    host = make_host(partitions=wide(2), limits=limits)
    assert host.restored == fit
    assert f"{len(leases) - fit} leases of the earlier daemon are forgotten" in caplog.text
    client = Talk(host.path)
    client.acquire(client.open(), 1)
    host.check_balance()


def test_slots_beyond_the_bounds_are_forgotten_with_a_word(folder, make_host, caplog):
    write_leases(folder / "leases", [held(0), held(100)])
    host = make_host(partitions=wide(2), limits=Limits(leases=10))
    assert host.restored == 1
    assert "1 leases" in caplog.text


def damaged(data):
    line = HEAD_BYTES
    yield "empty", b""
    yield "short head", data[:4000]
    yield "lines missing", data[:-1]
    yield "other magic", b"X" + data[1:]
    yield "other version", data[:8] + b"\2" + data[9:]
    yield "other boot", data[:24] + b"1" + data[25:]
    yield "class 3", data[: line + 48] + b"\3" + data[line + 49 :]
    yield "no process", data[: line + 8] + bytes(8) + data[line + 16 :]
    yield "other slot", data[:line] + b"\1" + data[line + 1 :]
    yield "ends before it begins", data[: line + 32] + bytes(8) + data[line + 40 :]
    yield "not live", data[: line + 49] + b"\0" + data[line + 50 :]
    yield "half written", data[: line + 49] + b"\2" + data[line + 50 :]


def test_damaged_files_hold_no_lease(folder):
    path = folder / "leases"
    write_leases(path, [held(0)], slots=4)
    data = path.read_bytes()
    assert len(read_leases(path, BOOT).leases) == 1
    for name, bad in damaged(data):
        path.write_bytes(bad)
        assert read_leases(path, BOOT).leases == (), name
    path.unlink()
    assert read_leases(path, BOOT) == NOTHING
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        read_leases(path, BOOT)


def test_generations_grow_over_restarts_even_without_the_file(folder, make_host):
    seen = []
    for _ in range(3):
        host = make_host(partitions=wide(1))
        client = Talk(host.path)
        seen.append(client.lease(client.open()))
        client.say(frames.release(seen[-1]))
        client.hear()
        host.close()
        time.sleep(0.002)
        if len(seen) == 2:
            (folder / "leases").unlink()
    assert len(set(seen)) == 3
    assert sorted(seen) == seen


def test_killed_before_the_new_file_is_in_place(folder, make_host):
    """A daemon that was killed before restore had ended leaves the old file as it was."""
    write_leases(folder / "leases", [held(0), held(1)])
    before = (folder / "leases").read_bytes()
    with listening(folder / "half.sock") as listener:
        half = DispatchServer(Limits(), listener, folder / "leases", BOOT)
        half.configure(0, wide()[0])
        assert (folder / "leases.new").exists()
        assert (folder / "leases").read_bytes() == before
        half._raw.restore([])
        assert (folder / "leases").read_bytes() == before
        half.stop()
    host = make_host(partitions=wide())
    assert host.restored == 2
    assert not (folder / "leases.new").exists()


def test_the_file_cannot_be_made(folder, make_puppet):
    puppet = make_puppet()
    puppet.do("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))")
    puppet.do("from pathlib import Path; from aimd.dispatch.lease_file import new_lease_file")
    puppet.do(
        f"path = Path({str(folder / 'leases.new')!r})\n"
        "try:\n    new_lease_file(path, '', 4096, 1)\nexcept OSError as error:\n    told = error.errno"
    )
    assert puppet.do("told") == 27
    assert not (folder / "leases.new").exists()


@pytest.mark.usefixtures("requires_root")
def test_a_full_file_system_is_an_error_and_no_end_of_the_process(tmp_path, make_puppet):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", small]).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(OSError, match="No space left"):
            new_lease_file(small / "leases.new", BOOT, 4096, 1)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


SCARCE = """
import resource
from aimd.dispatch import Limits
from aimd.dispatch.server import DispatchServer
listener = socket.socket(socket.AF_UNIX)
listener.bind({folder!r} + "/scarce.sock")
listener.listen(10)
from pathlib import Path
used = len(os.listdir("/proc/self/fd")) - 1
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
failed = []
for more in range(9):
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + more, hard))
    try:
        server = DispatchServer(Limits(), listener, Path({folder!r}) / "leases", "0" * 36)
    except OSError as error:
        failed.append(error.errno)
    else:
        break
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
after = len(os.listdir("/proc/self/fd")) - 1
free = os.dup(0)
os.close(free)
"""


def test_without_descriptors_it_is_not_set_up_and_nothing_is_closed(folder, make_puppet):
    puppet = make_puppet()
    puppet.do(SCARCE.format(folder=str(folder)))
    failed = puppet.do("failed")
    assert len(failed) >= 5
    assert set(failed) == {24}
    assert puppet.do("after - used") == 6  # epoll, a timer, three for mail and questions, a spare one
    assert puppet.do("1") == 1


@pytest.mark.parametrize("left", [0, 1])
def test_restore_without_descriptors_is_an_error_and_the_file_stays(folder, make_puppet, left):
    """A living process must not count as dead because its pidfd cannot be had, or its start time not be read."""
    write_leases(folder / "leases", [held(0), held(1)])
    before = (folder / "leases").read_bytes()
    puppet = make_puppet()
    puppet.do(SCARCE.format(folder=str(folder)))
    puppet.do(
        "from aimd.dispatch import ModelConfig, PartitionConfig\n"
        "server.configure(0, PartitionConfig((ModelConfig(0),), capacity=2))\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (free + {left}, hard))\n"
        "try:\n    told = server.restore()\nexcept OSError as error:\n    told = str(error)"
    )
    assert "cannot be told" in puppet.do("told")
    assert (folder / "leases").read_bytes() == before
    puppet.do("resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard)); told = server.restore()")
    assert puppet.do("told") == 2


def test_connections_without_descriptors_are_turned_away_and_it_does_not_spin(folder, make_puppet):
    daemon = host_elsewhere(make_puppet, folder)
    daemon.do("import resource; used = len(os.listdir('/proc/self/fd')) - 1")
    first = Talk(folder / "dispatch.sock")
    handle = first.open()
    daemon.do("resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, 4096))")
    waiting = [Talk(folder / "dispatch.sock", hello=False) for _ in range(10)]
    told = waiting[1].rest()
    assert told[0].error == frames.FrameError.TOO_MANY_CONNECTIONS
    assert "descriptor" in told[0].message
    busy = daemon.do("time.process_time()")
    began = time.monotonic()
    time.sleep(0.5)
    assert daemon.do("time.process_time()") - busy < 0.3 * (time.monotonic() - began)
    assert isinstance(first.acquire(handle, 1), Granted)
    daemon.do("resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))")
    for client in waiting:
        client.close()
    assert Talk(folder / "dispatch.sock").welcome.version == 1


def test_without_even_the_spare_descriptor_it_does_not_spin(folder, make_puppet):
    daemon = host_elsewhere(make_puppet, folder)
    daemon.do("import resource")
    first = Talk(folder / "dispatch.sock")
    handle = first.open()
    daemon.do("resource.setrlimit(resource.RLIMIT_NOFILE, (3, 4096))")
    waiting = [Talk(folder / "dispatch.sock", hello=False) for _ in range(3)]
    busy = daemon.do("time.process_time()")
    began = time.monotonic()
    time.sleep(0.5)
    assert daemon.do("time.process_time()") - busy < 0.3 * (time.monotonic() - began)
    assert isinstance(first.acquire(handle, 1), Granted)
    daemon.do("resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))")
    for client in waiting:
        client.say(frames.hello())
        assert client.hear().version == 1
