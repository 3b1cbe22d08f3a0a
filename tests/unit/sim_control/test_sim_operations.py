"""The mount's file operations without a mount: kernfs' rules at open, read and write."""

import errno
import itertools
import os
import stat

import pytest

from aimd.sim.fuse import PAGE, OpenFile, SysfsOperations
from aimd.sim.node import SimulatedNode
from aimd.sim.state import new_state

DEVICE = "/bus/pci/devices/0000:05:00.0"
REAL = "/devices/pci0000:05/0000:05:00.0"
MODE_FILE = f"{REAL}/current_compute_partition"


class CountingNode:
    """A node with one file whose content is another one at each look."""

    def __init__(self):
        self.looks = itertools.count(1)
        self.gone = False

    def read(self, path):
        if self.gone:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return b"look %d\n" % next(self.looks)


@pytest.fixture
def operations():
    node = SimulatedNode(new_state("mi300x", 1, "7.2", switch_seconds=0.0))
    return SysfsOperations(node, lambda: None)


def errno_of(call, *arguments):
    with pytest.raises(OSError) as error:
        call(*arguments)
    return error.value.errno


def test_content_is_rendered_at_the_start_and_read_on_from_there():
    file, node = OpenFile("a"), CountingNode()
    assert [file.read(node, 4, 0), file.read(node, 4, 4), file.read(node, 4, 7)] == [b"look", b" 1\n", b""]
    assert file.read(node, 99, 0) == b"look 2\n", "a read from the start looks again, as lseek(0) and read on sysfs"
    assert file.read(node, 99, 5) == b"3\n", "a jump renders anew, as seq_file's traverse"


def test_a_read_past_the_end_is_empty():
    assert OpenFile("a").read(CountingNode(), 10, 4096) == b""


def test_two_openers_have_contents_of_their_own():
    node = CountingNode()
    first, second = OpenFile("a"), OpenFile("a")
    assert first.read(node, 6, 0) == b"look 1"
    assert second.read(node, 99, 0) == b"look 2\n"
    assert first.read(node, 9, 6) == b"\n"


def test_an_open_file_whose_device_has_gone_answers_enodev():
    file, node = OpenFile("a"), CountingNode()
    node.gone = True
    assert errno_of(file.read, node, 10, 0) == errno.ENODEV


def test_attributes_of_each_kind(operations):
    folder, link, file = (operations.getattr(path) for path in ("/", DEVICE, MODE_FILE))
    assert stat.S_ISDIR(folder["st_mode"])
    assert stat.S_ISLNK(link["st_mode"])
    assert link["st_size"] == len(operations.readlink(DEVICE))
    assert stat.S_ISREG(file["st_mode"])
    assert (stat.S_IMODE(file["st_mode"]), file["st_size"]) == (0o644, 4096)


def test_fstat_has_no_path(operations):
    handle = operations.open(MODE_FILE, os.O_RDONLY)
    assert operations.getattr(None, handle) == operations.getattr(MODE_FILE)


@pytest.mark.parametrize(
    ("name", "flags", "code"),
    [
        ("current_compute_partition", os.O_RDONLY, 0),
        ("current_compute_partition", os.O_WRONLY, 0),
        ("current_compute_partition", os.O_RDWR | os.O_TRUNC | os.O_APPEND, 0),
        ("available_compute_partition", os.O_RDONLY, 0),
        ("available_compute_partition", os.O_WRONLY, errno.EACCES),
        ("available_compute_partition", os.O_RDWR, errno.EACCES),
        ("nothing", os.O_RDONLY, errno.ENOENT),
        ("nothing", os.O_WRONLY, errno.ENOENT),
    ],
)
def test_open(operations, name, flags, code):
    path = f"{REAL}/{name}"
    if code:
        assert errno_of(operations.open, path, flags) == code
    else:
        assert operations.open(path, flags) != operations.open(path, flags)


def test_a_write_is_one_command_whatever_its_offset_and_at_most_a_page(operations):
    handle = operations.open(MODE_FILE, os.O_WRONLY)
    assert operations.write(None, b"CPX\n", 4096, handle) == 4
    assert operations.write(None, b"SPX" + b"x" * 9000, 0, handle) == PAGE
    assert operations.read(None, 99, 0, operations.open(MODE_FILE, os.O_RDONLY)) == b"SPX\n"
    assert errno_of(operations.write, None, b" CPX", 0, handle) == errno.EINVAL


def test_truncation_does_nothing(operations):
    assert operations.truncate(MODE_FILE, 0) == 0
    assert operations.getattr(MODE_FILE)["st_size"] == 4096


@pytest.mark.parametrize(
    ("operation", "arguments", "code"),
    [
        ("create", ("/new", 0o644), errno.EACCES),
        ("mknod", ("/new", 0o644, 0), errno.EPERM),
        ("mkdir", ("/new", 0o755), errno.EPERM),
        ("unlink", (MODE_FILE,), errno.EPERM),
        ("rmdir", ("/class",), errno.EPERM),
        ("rename", (MODE_FILE, "/new"), errno.EPERM),
        ("symlink", ("/new", "target"), errno.EPERM),
        ("link", ("/new", MODE_FILE), errno.EPERM),
        ("chmod", (REAL, 0o777), errno.EPERM),  # of an attribute they are a udev rule's business
        ("chown", (REAL, 1, 1), errno.EPERM),
    ],
)
def test_the_tree_cannot_be_changed(operations, operation, arguments, code):
    assert errno_of(getattr(operations, operation), *arguments) == code


def test_directories_are_listed_by_handle(operations):
    handle = operations.opendir(REAL)
    assert {".", "..", "current_compute_partition"} <= set(operations.readdir(None, handle))
    assert operations.releasedir(None, handle) == 0
