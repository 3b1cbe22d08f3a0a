"""Files for the container runtime: whole or not there, ours alone."""

import contextlib
import json
import os
import stat
import subprocess
import threading

import pytest

from aimd.adapters.dra.cdi import CdiFiles
from aimd.domain.dra import ContainerDevice, DeviceNode, Mount, Rewritten
from aimd.errors import CdiError, InvalidInputError

UID = "0c5a3c1e-3f0b-4a57-9d1c-4c1d2f4b8a11"
NAME = f"gpu.aimd.dev-claim_{UID}.json"
DEVICE = ContainerDevice(
    "gpu",
    (DeviceNode("/dev/kfd"), DeviceNode("/dev/dri/renderD128", "/dev/dri/renderD135")),
    {"ROCR_VISIBLE_DEVICES": "0", "AIM_PARTITION_ID": "gpu0p1"},
    (Mount("/run/aimd", "/run/aimd"),),
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run/cdi"


@pytest.fixture
def files(folder):
    return CdiFiles(folder)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_claim(files, folder):
    assert files.write(UID, [DEVICE]) == {"gpu": f"gpu.aimd.dev/claim={UID}-gpu"}
    assert names(folder) == [NAME]
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o644
    assert json.loads((folder / NAME).read_text()) == {
        "cdiVersion": "0.5.0",
        "kind": "gpu.aimd.dev/claim",
        "devices": [
            {
                "name": f"{UID}-gpu",
                "containerEdits": {
                    "deviceNodes": [
                        {"path": "/dev/kfd"},
                        {"path": "/dev/dri/renderD128", "hostPath": "/dev/dri/renderD135"},
                    ],
                    "env": ["AIM_PARTITION_ID=gpu0p1", "ROCR_VISIBLE_DEVICES=0"],
                    "mounts": [
                        {
                            "hostPath": "/run/aimd",
                            "containerPath": "/run/aimd",
                            "options": ["ro", "nosuid", "nodev", "noexec", "bind"],
                        }
                    ],
                },
            }
        ],
    }


def test_requests_of_a_claim_have_devices_of_their_own(files, folder):
    ids = files.write(UID, [ContainerDevice("a"), ContainerDevice("b/first")])
    assert ids == {"a": f"gpu.aimd.dev/claim={UID}-a", "b/first": f"gpu.aimd.dev/claim={UID}-b.first"}
    assert [each["name"] for each in json.loads((folder / NAME).read_text())["devices"]] == [
        f"{UID}-a",
        f"{UID}-b.first",
    ]


def test_it_is_replaced_and_removed(files, folder):
    files.write(UID, [DEVICE])
    files.write(UID, [ContainerDevice("gpu")])
    assert json.loads((folder / NAME).read_text())["devices"] == [{"name": f"{UID}-gpu", "containerEdits": {}}]
    files.remove(UID)
    files.remove(UID)
    assert names(folder) == []


def test_removing_where_nothing_ever_was(files):
    files.remove(UID)


@pytest.mark.parametrize("uid", ["", "../../etc/x", ".hidden", "a/b", "a\n", "x" * 300])
def test_a_uid_that_is_no_name(files, folder, uid):
    with pytest.raises(InvalidInputError, match="expected a UUID"):
        files.write(uid, [DEVICE])
    with pytest.raises(InvalidInputError):
        files.remove(uid)
    assert not folder.exists()


def test_a_request_that_is_no_name(files):
    with pytest.raises(InvalidInputError, match="DNS label"):
        files.write(UID, [ContainerDevice("a b")])


def test_a_rewrite_brings_what_is_missing_and_takes_what_is_too_much(files, folder):
    files.write("kept", [DEVICE])
    files.write("changed", [DEVICE])
    files.write("orphan", [DEVICE])
    before = (folder / "gpu.aimd.dev-claim_kept.json").stat().st_ino
    others = ["nvidia.com-gpu.json", "gpu.aimd.dev-claim.json", "gpu.aimd.devil-claim_x.json", "gpu.aimd.dev.yaml"]
    for name in others:
        (folder / name).write_text("another's")
    (folder / ".gpu.aimd.dev-claim_dead.json.1a2b").write_text("half")
    told = files.rewrite({"kept": [DEVICE], "changed": [ContainerDevice("x")], "new": [DEVICE]})
    assert told == Rewritten(
        ("gpu.aimd.dev-claim_changed.json", "gpu.aimd.dev-claim_new.json"),
        (".gpu.aimd.dev-claim_dead.json.1a2b", "gpu.aimd.dev-claim_orphan.json"),
    )
    assert names(folder) == sorted([*others, *(f"gpu.aimd.dev-claim_{uid}.json" for uid in ("kept", "changed", "new"))])
    assert (folder / "gpu.aimd.dev-claim_kept.json").stat().st_ino == before
    assert all((folder / name).read_text() == "another's" for name in others)
    assert files.rewrite({"kept": [DEVICE], "changed": [ContainerDevice("x")], "new": [DEVICE]}) == Rewritten()


def test_a_rewrite_of_nothing_where_nothing_is(files, folder):
    assert files.rewrite({}) == Rewritten()
    assert names(folder) == []


def test_a_file_of_another_mode_is_written_anew(files, folder):
    files.write(UID, [DEVICE])
    (folder / NAME).chmod(0o600)
    assert files.rewrite({UID: [DEVICE]}).written == (NAME,)
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o644


def test_the_mode_is_that_whatever_the_umask_is(files, folder):
    before = os.umask(0o077)
    try:
        files.write(UID, [DEVICE])
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o644


def test_who_reads_sees_a_whole_file(files, folder):
    files.write(UID, [DEVICE])
    stop, seen = threading.Event(), []

    def read():
        while not stop.is_set():
            seen.append(len(json.loads((folder / NAME).read_text())["devices"]))

    reading = threading.Thread(target=read)
    reading.start()
    for number in range(100):
        files.write(UID, [ContainerDevice(f"r{each}") for each in range(1 + number % 50)])
    stop.set()
    reading.join()
    assert seen
    assert min(seen) >= 1


def fill(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        with contextlib.suppress(OSError):
            while os.write(descriptor, b"x" * 4096):
                pass
    finally:
        os.close(descriptor)


def test_no_room(requires_root, tmp_path):
    """A full file system of the test's own."""
    folder = tmp_path / "full"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    try:
        files = CdiFiles(folder)
        files.write(UID, [DEVICE])
        before = (folder / NAME).read_text()
        fill(folder / "filler")
        with pytest.raises(CdiError, match=r"CDI file .*\(No space left on device\)") as caught:
            files.write(UID, [ContainerDevice("gpu", environment={"X": "x" * 8192})])
        assert str(caught.value).count(". ") == 0
        assert (folder / NAME).read_text() == before
        assert names(folder) == sorted(["filler", NAME])
        files.remove(UID)  # what makes room works
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    files = CdiFiles(tmp_path / "file/cdi")
    for act in (lambda: files.write(UID, [DEVICE]), lambda: files.remove(UID), lambda: files.rewrite({})):
        with pytest.raises(CdiError):
            act()
