"""KFD's list of clients: what is counted, what is unknown, and what is kept between two looks."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from aimd.adapters.amdgpu.clients import KNOWN_SECONDS, ClientReader, Identification
from aimd.adapters.amdgpu.sysfs import OsSysfs, read_numbers
from aimd.errors import DriverError

PROC = "class/kfd/kfd/proc"
GPU = "0000:05:00.0"
PLACES = {11: (GPU, 0), 12: (GPU, 1)}


class Tree:
    """A kfd/proc on disk, its reader, and who the processes are."""

    def __init__(self, root: Path) -> None:
        self.root = root / PROC
        self.root.mkdir(parents=True)
        self.started: dict[int, int] = {}
        self.commands: dict[int, str] = {}
        self.now = 0.0
        identify = Identification(self.commands.get, lambda _pid: (9, 9), self.start_time, lambda _pid, _start: "u-1")
        self.reader = ClientReader(OsSysfs(root), PROC, identify, lambda: self.now)

    def start_time(self, pid: int) -> int | None:
        if self.started.get(pid) == -1:
            raise OSError(errno.EMFILE, "too many open files")
        return self.started.get(pid)

    def write(self, pid: int, **counters: str) -> None:
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        for name, text in counters.items():
            (folder / name).write_text(text)

    def vram(self, pid: int = 7) -> tuple[tuple[str, int, int], ...]:
        return next(client.vram for client in self.reader.read(PLACES) if client.pid == pid)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_counters_by_partition(tree: Tree) -> None:
    tree.write(7, vram_11="4096\n", vram_12="0\n", vram_99="5\n", sdma_11="1\n", pasid="0\n", vram_x="1")
    tree.commands[7], tree.started[7] = "serve", 3
    (client,) = tree.reader.read(PLACES)
    assert (client.pid, client.command, client.start_time, client.pod) == (7, "serve", 3, "u-1")
    assert (client.gpus, client.vram, client.unread) == (frozenset({GPU}), ((GPU, 0, 4096),), ())


@pytest.mark.parametrize("text", ["", "many\n", "-1\n", "1.5\n"])
def test_a_counter_that_is_no_number_is_unknown(tree: Tree, text: str) -> None:
    tree.write(7, vram_11=text, vram_12="8\n")
    (client,) = tree.reader.read(PLACES)
    assert (client.vram, client.unread) == (((GPU, 1, 8),), ((GPU, 0),))


def test_a_counter_that_cannot_be_read_is_unknown_and_one_that_is_gone_is_not(tree: Tree) -> None:
    tree.write(7, vram_12="8\n")
    (tree.root / "7" / "vram_11").mkdir()  # EISDIR
    tree.started[7] = 1
    (client,) = tree.reader.read(PLACES)
    assert (client.vram, client.unread) == (((GPU, 1, 8),), ((GPU, 0),))
    (tree.root / "7" / "vram_11").rmdir()
    (client,) = tree.reader.read(PLACES)
    assert client.unread == ()


def test_a_process_that_is_released_between_two_looks(tree: Tree) -> None:
    tree.write(7, vram_11="8\n")
    tree.started[7] = 1
    assert tree.vram()
    (tree.root / "7" / "vram_11").unlink()
    (tree.root / "7").rmdir()
    assert tree.reader.read(PLACES) == ()


def test_counters_are_of_now_and_identity_is_kept_for_a_while(tree: Tree) -> None:
    tree.write(7, vram_11="8\n")
    tree.started[7], tree.commands[7] = 1, "python"
    assert tree.vram() == ((GPU, 0, 8),)
    tree.write(7, vram_11="16\n", vram_12="4\n")
    tree.commands[7] = "VLLM::EngineCore"
    (client,) = tree.reader.read(PLACES)
    assert (client.command, client.vram) == ("python", ((GPU, 0, 16),))
    tree.now = KNOWN_SECONDS
    (client,) = tree.reader.read(PLACES)
    assert (client.command, client.vram) == ("VLLM::EngineCore", ((GPU, 0, 16), (GPU, 1, 4)))


def test_another_process_of_the_pid_is_looked_at_anew(tree: Tree) -> None:
    tree.write(7, vram_11="8\n")
    tree.started[7], tree.commands[7] = 1, "old"
    tree.reader.read(PLACES)
    tree.started[7], tree.commands[7] = 2, "new"
    assert [client.command for client in tree.reader.read(PLACES)] == ["new"]


@pytest.mark.parametrize("unknown", [-1, None])
def test_one_whose_start_time_is_unknown_is_never_kept(tree: Tree, unknown: int | None) -> None:
    tree.write(7, vram_11="8\n")
    if unknown is not None:
        tree.started[7] = unknown
    for command in ("one", "two"):
        tree.commands[7] = command
        (client,) = tree.reader.read(PLACES)
        assert (client.command, client.start_time, client.pod) == (command, None, None)


def test_a_new_scan_moves_the_counters(tree: Tree) -> None:
    tree.write(7, vram_11="8\n", vram_12="4\n")
    tree.started[7] = 1
    assert tree.vram() == ((GPU, 0, 8), (GPU, 1, 4))
    (client,) = tree.reader.read({12: (GPU, 0)})
    assert client.vram == ((GPU, 0, 4),)


def test_a_list_that_cannot_be_read_is_not_nobody(tree: Tree) -> None:
    for folder in (tree.root, tree.root.parent):
        folder.rmdir()
    assert tree.reader.read(PLACES) == ()
    tree.root.parent.symlink_to(tree.root.parent)  # ELOOP
    with pytest.raises(DriverError, match="the list of KFD clients could not be read"):
        tree.reader.read(PLACES)


def test_numbers_of_any_sysfs(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "one").write_text("1\n")

    class Other:
        def read(self, path: str) -> bytes:
            return OsSysfs(tmp_path).read(path)

    for sysfs in (OsSysfs(tmp_path), Other()):
        one, none = read_numbers(sysfs, "d", ["one", "none"])  # type: ignore[arg-type]
        assert one == b"1\n"
        assert isinstance(none, OSError)
        assert none.errno == errno.ENOENT
