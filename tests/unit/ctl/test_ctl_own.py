"""exec and gate without a name: the caller's own claim is asked for, waited for within a bound, and told why it is late."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from aimd.ctl.environment import variables
from aimd.ctl.executing import fenced
from aimd.dispatch.client.own import NotPlacedError, own_model
from aimd.errors import DeniedError, NotFoundError, UnreachableError
from aimd.protocol.claims import SelfMessage
from aimd.protocol.messages import ProblemMessage, to_builtins
from tests.fakes.api import FakeApi, World
from tests.unit.ctl import samples
from tests.unit.ctl.test_ctl_exec import aimctl_exec

NAME, UID = "default/llama", "0a1b2c3d-0000-4000-8000-00000000000a"
NO_ROOM = "claim default/llama asks for 24 GB, the most that is free is 8 GB on partition gpu0/0"
BUSY = ProblemMessage(title="Busy", status=503, detail="too many connections", code="busy")
IN_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}


def own(state: str = "placed", **fields) -> SelfMessage:
    told = {"claim": NAME, "replica": 0, "pod": "default/llama-0", "reason": None, "message": None, **fields}
    facts = {"pid": 4711, "uid": 0, "operator": False, "in_pod": True, "pod_uid": UID, "assignment": None}
    return SelfMessage(state=state, **{**facts, **told})


def unknown(**fields) -> SelfMessage:
    return own("none", **{"claim": None, "replica": None, "pod": None, "message": "no claim (yet)", **fields})


@pytest.fixture
def pod(world: World) -> World:
    """The caller is a pod with a claim."""
    world.claims[NAME] = world.claims["llama"]
    world.environments[0] = msgspec.structs.replace(samples.environment(), claim=NAME, pod="default/llama-0")
    world.own = [own()]
    return world


def asked(world: World) -> list[str]:
    return [f"{request.method} {request.target}" for request in world.requests]


def test_the_pods_own_claim_is_held_and_its_environment_set(api: FakeApi, pod: World, socket_path: Path) -> None:
    done = aimctl_exec(socket_path, "--", "sh", "-c", "echo $AIM_CLAIM $AIM_PARTITION_ID $ROCR_VISIBLE_DEVICES")
    assert (done.returncode, done.stdout) == (0, "default/llama 0000:05:00.0/0 1\n"), done.stderr
    assert asked(pod) == ["GET /v1/self", "PUT /v1/claims/default%2Fllama/holders/self"]
    (note,) = done.stderr.splitlines()
    assert note == (
        "note: default/llama uses 0000:05:00.0/0 in pod default/llama-0: its container is the fence, there is no scope "
        "of its own."
    )


@pytest.mark.parametrize("options", [("--replica", "0"), ("--fence", "require"), ("--wait", "5")])
def test_options_before_the_command_are_no_name(api: FakeApi, pod: World, socket_path: Path, options) -> None:
    done = aimctl_exec(socket_path, *options, "--", "echo", "--wait", "--", "x")
    assert (done.returncode, done.stdout) == (0, "--wait -- x\n"), done.stderr


def test_it_waits_until_it_is_placed_and_says_what_for(api: FakeApi, pod: World, socket_path: Path) -> None:
    pending = own("pending", reason="no_room", message=NO_ROOM)
    pod.own = [unknown(), pending, pending, own("switching", message="mode change c1 makes room for it"), own()]
    done = aimctl_exec(socket_path, "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert [line for line in done.stderr.splitlines() if line.startswith("waiting")] == [
        "waiting for a partition: no claim (yet)",
        f"waiting for a partition: {NO_ROOM}",
        "waiting for a partition: mode change c1 makes room for it",
    ]


def test_one_that_is_not_placed_in_time_is_told_why_and_nothing_runs(
    api: FakeApi, pod: World, socket_path: Path
) -> None:
    pod.own = [own("pending", reason="no_room", message=NO_ROOM)]
    began = time.monotonic()
    done = aimctl_exec(socket_path, "--wait", "0.6", "--", "echo", "ran")
    assert time.monotonic() - began < 30
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr.splitlines()[-2:] == [
        f"error: pod default/llama-0 had no partition within 0.6 s: {NO_ROOM} (NoRoom)",
        "hint: kubectl describe pod tells what became of it; --wait SECONDS waits longer",
    ]


def test_a_place_that_a_switch_takes_in_between_is_waited_for(api: FakeApi, pod: World, socket_path: Path) -> None:
    path = "PUT /v1/claims/default%2Fllama/holders/self"
    pod.overrides[path] = ProblemMessage(title="C", status=409, detail="not now", code="not_placed")
    threading.Timer(2.0, pod.overrides.pop, (path,)).start()
    done = aimctl_exec(socket_path, "--wait", "30", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    assert asked(pod).count("GET /v1/self") > 1


def test_a_name_is_not_waited_for(api: FakeApi, pod: World, socket_path: Path) -> None:
    pod.overrides["PUT /v1/claims/llama/holders/self"] = ProblemMessage(
        title="C", status=409, detail="not now", code="not_placed"
    )
    assert aimctl_exec(socket_path, "llama", "--", "true").returncode == 5


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            unknown(in_pod=False, pod_uid=None, message="this process runs in no pod and holds no claim"),
            "error: this process runs in no pod and holds no claim, expected a process of a claim\nhint: name the claim\n",
        ),
        (
            unknown(pod_uid=None, message="the pod of this process cannot be told from its control group"),
            (
                "error: the pod of this process cannot be told from its control group, expected a process of a claim\n"
                "hint: mount the directory /run/aimd of a daemon of this very node\n"
            ),
        ),
    ],
)
def test_without_a_name_and_a_pod_it_is_told_at_once(
    api: FakeApi, pod: World, socket_path: Path, told, message
) -> None:
    pod.own = [told]
    done = aimctl_exec(socket_path, "--", "echo", "ran")
    assert (done.returncode, done.stdout, done.stderr) == (6, "", message)


def test_a_pod_waits_for_an_aimd_that_is_not_there_yet(pod: World, socket_path: Path) -> None:
    api = FakeApi(socket_path.with_name("other"), pod)
    with api:
        threading.Timer(2.0, socket_path.with_name("other").rename, (socket_path,)).start()
        done = aimctl_exec(socket_path, "--", "echo", "ran", **IN_POD)
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    assert "waiting for a partition: no aimd answers at" in done.stderr


def test_elsewhere_an_aimd_that_is_not_there_is_told_at_once(socket_path: Path) -> None:
    began = time.monotonic()
    done = aimctl_exec(socket_path, "--", "true")
    assert (done.returncode, "no aimd answers at" in done.stderr) == (3, True)
    assert time.monotonic() - began < 30
    assert aimctl_exec(socket_path, "--wait", "0.1", "--", "true", **IN_POD).returncode == 3


def test_a_crowd_at_the_socket_is_waited_for(api: FakeApi, pod: World, socket_path: Path) -> None:
    pod.own = [BUSY, own()]
    assert aimctl_exec(socket_path, "--", "true", **IN_POD).returncode == 0


def test_the_gate_takes_the_pods_model(api: FakeApi, pod: World, aimctl) -> None:
    pod.own = [own("pending", reason="no_room", message=NO_ROOM)]
    done = aimctl("gate", "--upstream", "http://127.0.0.1:8000", "--wait", "0")
    assert (done.exit_code, "had no partition within 0 s" in done.output) == (7, True)
    pod.own = [own()]
    busy = socket_in_use(api)
    done = aimctl("gate", "--upstream", "http://127.0.0.1:8000", "--listen", f"unix:{busy}")
    assert asked(pod).count("GET /v1/self") == 2
    assert "somebody listens on" in done.output


def test_the_gate_asks_nobody_where_the_model_is_named(api: FakeApi, pod: World, aimctl) -> None:
    aimctl("gate", "--model", "llama", "--upstream", "http://h:1", "--listen", f"unix:{socket_in_use(api)}")
    assert asked(pod) == []


def socket_in_use(api: FakeApi) -> str:
    return str(api.server_address)


def test_programs_are_told_their_model(api: FakeApi, pod: World, socket_path: Path, monkeypatch) -> None:
    pod.own = [unknown(), own()]
    assert own_model(str(socket_path)) == NAME
    monkeypatch.setenv("AIMD_SOCKET", str(socket_path))
    assert own_model() == NAME
    pod.own = [own("pending", reason="no_room", message=NO_ROOM)]
    with pytest.raises(NotPlacedError, match=r"within 0\.1 s.*NoRoom") as caught:
        own_model(wait=0.1)
    assert caught.value.code == "no_room"
    pod.own = [unknown(in_pod=False, pod_uid=None)]
    with pytest.raises(NotFoundError):
        own_model()


@pytest.mark.parametrize("answer", ["absent", "problem"])
def test_programs_wait_for_a_daemon(api: FakeApi, pod: World, socket_path: Path, answer) -> None:
    pod.own = [BUSY]
    path = socket_path if answer == "problem" else socket_path.with_name("absent")
    with pytest.raises(UnreachableError):
        own_model(str(path), wait=0.1)


# -- what the container may open -------------------------------------------------------------------------------


def in_pod(**fields) -> dict[str, object]:
    """GPU 0 has partitions of render nodes 129 and 130, GPU 1 one of 128; the pod is on 0000:05:00.0/0."""
    told = msgspec.structs.replace(samples.environment(), pod="default/llama-0", render_minors=[128, 129, 130])
    return to_builtins(msgspec.structs.replace(told, **fields))


def render_nodes(folder: Path, *minors: int) -> Path:
    for minor in minors:
        (folder / f"renderD{minor}").touch()
    return folder


@pytest.mark.parametrize(
    ("minors", "ordinal"), [((), "1"), ((129,), "0"), ((129, 130), "0"), ((128, 129), "1"), ((128, 129, 130), "1")]
)
def test_the_ordinal_counts_what_the_container_has(tmp_path: Path, minors, ordinal) -> None:
    assert variables(in_pod(), render_nodes(tmp_path, *minors))["ROCR_VISIBLE_DEVICES"] == ordinal


def test_a_container_without_the_render_node_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeniedError, match="no render node in its /dev/dri") as caught:
        variables(in_pod(), render_nodes(tmp_path, 128))
    assert caught.value.code == "partition_hidden"


def test_a_pod_that_does_not_see_the_nodes_list_goes_by_its_render_nodes(tmp_path: Path) -> None:
    elsewhere = in_pod(sysfs_root=str(tmp_path / "not-mounted-here"))
    assert variables(elsewhere, render_nodes(tmp_path, 129))["ROCR_VISIBLE_DEVICES"] == "0"


def test_a_daemon_that_tells_no_minors_is_believed_its_order(tmp_path: Path) -> None:
    assert variables(in_pod(render_minors=[]), render_nodes(tmp_path, 129))["ROCR_VISIBLE_DEVICES"] == "1"


def test_the_container_is_the_fence_if_it_has_its_own_device_alone(tmp_path: Path) -> None:
    note = "in pod default/llama-0: its container is the fence"
    assert note in fenced(in_pod(), "require", render_nodes(tmp_path, 129))
    render_nodes(tmp_path, 128)
    told = fenced(in_pod(), "auto", tmp_path)
    assert f"may open 1 render nodes of others, {tmp_path}/renderD128 among them" in told
    with pytest.raises(DeniedError) as caught:
        fenced(in_pod(), "require", tmp_path)
    assert caught.value.code == "no_fence"


def test_a_program_of_the_standard_library_alone_may_ask(tmp_path: Path) -> None:
    code = "import sys; from aimd.dispatch.client.own import own_model; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"msgspec", "click", "aiohttp", "asyncio"} & set(json.loads(loaded.replace("'", '"')))
