"""Names of devices are DNS labels that can be read back, and nothing else is taken for one."""

from __future__ import annotations

import re

import pytest

from aimd.domain.device_name import DeviceName
from aimd.domain.modes import ComputeMode
from aimd.errors import InvalidInputError

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@pytest.mark.parametrize("mode", ComputeMode)
@pytest.mark.parametrize(("gpu", "index"), [(0, 0), (7, 3), (15, 7), (127, 15)])
def test_a_name_is_a_label_and_reads_back(mode: ComputeMode, gpu: int, index: int) -> None:
    name = DeviceName(gpu, mode, index)
    assert LABEL.fullmatch(str(name))
    assert DeviceName.parse(str(name)) == name
    assert name.gpu_name == f"gpu{gpu}"


def test_how_it_looks() -> None:
    assert str(DeviceName(0, ComputeMode.CPX, 3)) == "gpu0-cpx-3"


@pytest.mark.parametrize(
    "text",
    ["", "gpu0", "gpu0-cpx", "gpu0-abc-0", "gpu0-CPX-0", "gpu00-cpx-0", "gpu0-cpx-00", "gpu0-cpx-3 ", "x-gpu0-cpx-3"],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidInputError, match="expected a name like gpu0-cpx-3"):
        DeviceName.parse(text)
