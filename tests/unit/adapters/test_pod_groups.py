"""Which pod a control group belongs to, and which of such names are anybody's to choose."""

from __future__ import annotations

import pytest

from aimd.adapters.unix.pod_groups import pod_of_groups

UID, OTHER = "0a1b2c3d-0a1b-4c1d-8e9f-001122334455", "99999999-0a1b-4c1d-8e9f-001122334455"
ESCAPED, HASH = UID.replace("-", "_"), "0123456789abcdef0123456789abcdef"
V1 = f"12:devices:/kubepods/burstable/pod{UID}/c0\n3:cpu,cpuacct:/kubepods/burstable/pod{UID}/c0\n"


@pytest.mark.parametrize(
    "groups",
    [
        f"0::/kubepods/burstable/pod{UID}/c0\n",
        f"0::/kubepods/pod{UID}/c0\n",
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{ESCAPED}.slice/cri-containerd-c0.scope\n",
        f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{ESCAPED}.slice/crio-c0.scope\n",
        f"0::/node-a/kubepods/besteffort/pod{UID}/c0\n",
        # The daemon in a control group namespace of its own: beside it, and of another class.
        f"0::/../../pod{UID}/c0\n",
        f"0::/../../../besteffort/pod{UID}/c0\n",
        f"0::/../../kubepods-burstable-pod{ESCAPED}.slice/cri-containerd-c0.scope\n",
        V1 + "1:name=systemd:/kubepods/burstable/pod" + UID + "/c0\n0::/\n",
        # What a container makes below its own group is its own affair.
        f"0::/kubepods/burstable/pod{UID}/c0/kubepods/pod{OTHER}/c1\n",
        f"0::/kubepods/burstable/pod{UID}/c0/user.slice/x.service\n",
    ],
)
def test_a_pod_is_known_by_its_group(groups):
    assert pod_of_groups(groups) == UID


def test_a_pod_of_a_file_has_a_hash():
    assert pod_of_groups(f"0::/kubepods/burstable/pod{HASH}/c0\n") == HASH


@pytest.mark.parametrize(
    "groups",
    [
        f"0::/user.slice/user-7.slice/user@7.service/kubepods.slice/kubepods-pod{ESCAPED}.slice/x.scope\n",
        f"0::/system.slice/build.service/kubepods/pod{UID}/c0\n",
        f"0::/system.slice/docker-77.scope/kubepods/pod{UID}/c0\n",
        f"0::/../../user.slice/user@7.service/pod{UID}\n",
        f"0::/pod{UID}\n",
        f"12:devices:/kubepods/pod{UID}/c0\n1:name=systemd:/kubepods/pod{OTHER}/c0\n",
        f"12:devices:/kubepods/pod{UID}/c0\n1:name=systemd:/user.slice/user@7.service/kubepods/pod{OTHER}\n",
        "0::/kubepods.slice/strange\n",
        "0::/kubepods/podless/c0\n",
    ],
)
def test_what_could_be_anybodys_name_is_a_pod_that_cannot_be_told(groups):
    assert pod_of_groups(groups) == ""


@pytest.mark.parametrize(
    "groups",
    [
        "",
        "0::/\n",
        "0::/../..\n",
        "0::/user.slice/user-1000.slice/session-1.scope\n",
        "12:devices:/system.slice/ssh.service\n0::/\n",
        "0::/machine.slice/podman-1.scope\n",
    ],
)
def test_others_are_in_no_pod(groups):
    assert pod_of_groups(groups) is None
