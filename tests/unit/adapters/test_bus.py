"""Where GPUs are on the buses, on a simulated node and on trees with less."""

from __future__ import annotations

import pytest

from aimd.adapters.amdgpu.bus import driver_version, pcie_roots
from aimd.sim.node import SimulatedNode
from tests.fakes.node import ADDRESSES, fast_state


class Tree:
    """A sysfs of these files and links."""

    def __init__(self, **entries: str) -> None:
        self._entries = entries

    def read(self, path: str) -> bytes:
        return self.readlink(path).encode()

    def readlink(self, path: str) -> str:
        try:
            return self._entries[path.rpartition("/")[2]]
        except KeyError:
            raise FileNotFoundError(2, "no such file", path) from None


def test_the_roots_of_a_simulated_node() -> None:
    roots = pcie_roots(SimulatedNode(fast_state(count=2)), [*ADDRESSES[:2], "0000:ff:00.0"])
    assert set(roots) == set(ADDRESSES[:2])
    assert all(root.startswith("pci0000:") for root in roots.values())


@pytest.mark.parametrize(
    ("link", "root"),
    [
        ("../../../devices/pci0000:e0/0000:e0:01.1/0000:e1:00.0/0000:e5:00.0", "pci0000:e0"),
        ("../../../devices/platform/something/0000:e5:00.0", None),
    ],
)
def test_the_root_is_the_first_folder_of_the_device_s_path(link: str, root: str | None) -> None:
    assert pcie_roots(Tree(**{"0000:e5:00.0": link}), ["0000:e5:00.0"]).get("0000:e5:00.0") == root  # type: ignore[arg-type]


@pytest.mark.parametrize(("said", "expected"), [("6.12.12\n", "6.12.12"), ("", "6.1.0-30"), (None, "6.1.0-30")])
def test_the_driver_is_as_old_as_the_kernel_unless_it_says_otherwise(said: str | None, expected: str) -> None:
    tree = Tree() if said is None else Tree(version=said)
    assert driver_version(tree, "6.1.0-30") == expected  # type: ignore[arg-type]
