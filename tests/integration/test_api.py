"""The local API on a real Unix socket: every resource, every error, who may change things, streams.

The daemon runs in a thread on a simulated node; requests come from other threads, and from processes of other users.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aimd import __version__
from aimd.adapters.http.server import LocalApi, NodeFacts
from aimd.adapters.unix.peer import Operators, Peer
from aimd.errors import DeniedError
from aimd.protocol import messages as msg
from aimd.protocol.memory import FindingListMessage, PartitionDetailMessage
from aimd.sim.state import FaultKind, SimFault, SimState
from tests.fakes.node import ADDRESSES, fast_state, running_node
from tests.fakes.traffic import ShownTraffic
from tests.integration.unix_http import Answer, UnixConnection, ask, lines

STRANGER = 65534
OPERATOR = 4711


class Served:
    """The daemon and its API in a thread of their own."""

    def __init__(self, socket_path: Path, state: SimState, uids: set[int]) -> None:
        self.socket = socket_path
        self._state, self._uids = state, frozenset(uids)
        self._begun, self._end = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with running_node(self._state) as self.node:
            facts = NodeFacts(self.node.sim.boot_id, self.node.sim.description, time.monotonic())
            api = LocalApi(self.node.loop, Operators(self._uids), facts, ShownTraffic())
            await api.start(self.socket)
            self._begun.set()
            await self._end.wait()
            await api.close()

    def __enter__(self) -> Served:  # noqa: PYI034
        self._thread.start()
        assert self._begun.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def get(self, path: str, kind: type[msg.Message]) -> Any:
        """A good answer, decoded strictly: no field too much, none missing, all types right."""
        answer = ask(self.socket, path)
        assert (answer.status, answer.type) == (200, "application/json"), answer
        return msgspec.json.decode(answer.body, type=kind)

    def put(self, name: str, **body: object) -> Answer:
        return ask(self.socket, f"/v1/plans/{name}", "PUT", body)

    def switch(self, name: str, **body: object) -> list[msg.ChangeMessage]:
        """Submit and follow to the end; the states that were told."""
        assert self.put(name, **body).status == 202
        return [msgspec.convert(line, msg.ChangeMessage) for line in lines(self.socket, f"/v1/plans/{name}?watch=1")]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where processes of other users get at the socket, too."""
    with tempfile.TemporaryDirectory(prefix="aimd-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Served]]:
    """Starts a daemon; further states and operators as one likes."""
    with contextlib.ExitStack() as stack:

        def start(state: SimState | None = None, uids: set[int] | None = None) -> Served:
            chosen = {0, os.getuid(), OPERATOR} if uids is None else uids
            return stack.enter_context(Served(folder / "aimd.sock", state or fast_state(), chosen))

        yield start


@pytest.fixture
def api(serve) -> Served:
    return serve()


# -- resources -------------------------------------------------------------------------------------------------


def test_gpus(api: Served) -> None:
    inventory = api.get("/v1/gpus", msg.InventoryMessage)
    first, second = inventory.gpus
    assert [gpu.pci_address for gpu in inventory.gpus] == ADDRESSES[:2]
    assert (first.name, first.model, first.state, first.drift) == ("gpu0", "MI300X", "ready", [])
    assert (first.compute_mode, first.memory_mode, first.reported_compute_mode) == ("SPX", "NPS1", "SPX")
    assert first.available_compute_modes == ["SPX", "DPX", "QPX", "CPX"]
    assert first.hive_id == second.hive_id is not None
    assert [(part.id, part.name, part.xcc_count) for part in first.partitions] == [("0000:05:00.0/0", "gpu0/0", 8)]
    assert inventory.topology_generation == 3
    assert inventory.warnings == []


@pytest.mark.parametrize("name", ["gpu1", "1", "GPU1", ADDRESSES[1], ADDRESSES[1].upper()])
def test_a_gpu_by_each_of_its_names(api: Served, name: str) -> None:
    assert api.get(f"/v1/gpus/{name}", msg.GpuMessage) == api.get("/v1/gpus", msg.InventoryMessage).gpus[1]


def test_partitions(api: Served) -> None:
    api.switch("s", modes={"gpu1": "CPX"})
    partitions = api.get("/v1/partitions", msg.PartitionListMessage).partitions
    assert [part.name for part in partitions] == ["gpu0/0", *(f"gpu1/{index}" for index in range(8))]
    assert [part.render_minor for part in partitions] == [128, *range(136, 144)]
    one = api.get("/v1/partitions/gpu1/7", PartitionDetailMessage)
    assert one == PartitionDetailMessage(**msgspec.structs.asdict(partitions[-1]))
    assert api.get(f"/v1/partitions/{ADDRESSES[1]}/7", PartitionDetailMessage) == one
    assert (one.reserved_bytes, one.used_bytes, one.unattributed_bytes, one.free_bytes) == (0, 0, 0, None)
    assert api.get("/v1/findings", FindingListMessage).findings == []
    assert [gpu.partitions for gpu in api.get("/v1/gpus", msg.InventoryMessage).gpus] == [
        partitions[:1],
        partitions[1:],
    ]


def test_node_and_version(api: Served) -> None:
    node = api.get("/v1/node", msg.NodeMessage)
    assert (node.ready, node.gpu_count, node.partition_count, node.pid) == (True, 2, 2, os.getpid())
    assert (node.simulated, node.boot_id) == ("mi300x:2, driver 7.2", api.node.sim.boot_id)
    assert (node.busy_rule, node.version) == ("per-gpu", __version__)
    assert api.get("/v1/version", msg.VersionMessage) == msg.VersionMessage(version=__version__)


def test_holders_are_named(api: Served) -> None:
    api.node.sim.act(lambda driver, now: driver.join(os.getpid(), 1, now, permitted=frozenset(ADDRESSES[:1])))
    deadline = time.monotonic() + 30
    while not api.get("/v1/gpus/gpu0", msg.GpuMessage).holders:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first, second = api.get("/v1/gpus", msg.InventoryMessage).gpus
    assert [holder.pid for holder in first.holders] == [os.getpid()]
    assert Path("/proc/self/cmdline").read_text().split("\0")[0] in (first.holders[0].command or "")
    assert second.holders == []


def test_plans_and_events(api: Served) -> None:
    assert api.get("/v1/plans", msg.ChangeListMessage).plans == []
    api.switch("one", modes={"gpu0": "CPX"})
    api.switch("two", modes={"gpu0": "SPX/NPS1", "gpu1": "DPX"}, wait_seconds=7)
    plans = api.get("/v1/plans", msg.ChangeListMessage).plans
    assert [(plan.name, plan.state, plan.final) for plan in plans] == [
        ("one", "committed", True),
        ("two", "committed", True),
    ]
    two = api.get("/v1/plans/two", msg.ChangeMessage)
    assert two.wishes == {ADDRESSES[0]: "SPX/NPS1", ADDRESSES[1]: "DPX"}
    assert [(s.step.gpus, s.step.before, s.step.after) for s in two.switches] == [
        ([ADDRESSES[0]], "CPX/NPS1", "SPX/NPS1"),
        ([ADDRESSES[1]], "SPX/NPS1", "DPX/NPS1"),
    ]
    assert all(s.seconds >= s.write_seconds >= 0.005 for s in two.switches)
    assert two.requester_uid == os.getuid()
    events = api.get("/v1/events", msg.EventListMessage)
    kinds = [event.kind for event in events.events]
    assert kinds.count("plan_accepted") == 2
    assert kinds.count("switch_committed") == kinds.count("mode_changed") == 3
    assert events.next == events.events[-1].sequence == len(kinds)
    later = api.get(f"/v1/events?since={events.next - 2}", msg.EventListMessage)
    assert later.events == events.events[-2:]
    assert api.get(f"/v1/events?since={events.next}", msg.EventListMessage) == msg.EventListMessage(
        events=[], next=events.next
    )


@pytest.mark.parametrize(
    "path", ["/v1/gpus", "/v1/gpus/gpu0", "/v1/partitions", "/v1/plans", "/v1/node", "/v1/version"]
)
def test_head_has_no_body(api: Served, path: str) -> None:
    answer = ask(api.socket, path, "HEAD")
    assert (answer.status, answer.type, answer.body) == (200, "application/json", b"")


def test_several_requests_on_one_connection(api: Served) -> None:
    connection = UnixConnection(api.socket)
    assert [ask(connection, path).status for path in ("/v1/gpus", "/v1/nothing", "/v1/gpus/gpu9", "/v1/node")] == [
        200,
        404,
        404,
        200,
    ]
    connection.close()


# -- changes ---------------------------------------------------------------------------------------------------


def test_a_repeated_request_is_the_same_request(api: Served) -> None:
    first = api.put("same", modes={"gpu0": "CPX"})
    again = api.put("same", modes={ADDRESSES[0]: "cpx"})
    assert (first.status, again.status) == (202, 200)
    assert list(lines(api.socket, "/v1/plans/same?watch=1"))[-1]["state"] == "committed"
    ended = api.put("same", modes={"gpu0": "CPX"})
    assert (ended.status, ended.json["state"], ended.json["final"]) == (200, "committed", True)
    assert len(api.get("/v1/plans", msg.ChangeListMessage).plans) == 1


def test_a_plan_with_nothing_to_do_has_ended(api: Served) -> None:
    answer = api.put("idle", modes={"gpu0": "SPX"})
    change = msgspec.json.decode(answer.body, type=msg.ChangeMessage)
    assert (answer.status, change.final, change.state, change.switches) == (202, True, "committed", [])
    assert api.get("/v1/gpus/gpu0", msg.GpuMessage).wish == "SPX"


def test_a_dry_run_changes_nothing(api: Served) -> None:
    before = api.get("/v1/node", msg.NodeMessage).generation
    answer = api.put("try", modes={"gpu0": "CPX", "gpu1": "SPX"}, dry_run=True)
    plan = msgspec.json.decode(answer.body, type=msg.PlanMessage)
    assert answer.status == 200
    assert [(step.gpus, step.before, step.after) for step in plan.steps] == [([ADDRESSES[0]], "SPX/NPS1", "CPX/NPS1")]
    assert (plan.refusals, plan.blockers) == ([], [])
    assert api.get("/v1/plans", msg.ChangeListMessage).plans == []
    assert api.get("/v1/events", msg.EventListMessage).events == []
    assert api.get("/v1/node", msg.NodeMessage).generation == before


def test_a_dry_run_tells_refusals_and_blockers(api: Served) -> None:
    api.node.sim.act(lambda driver, now: driver.join(os.getpid(), 1, now))
    time.sleep(0.1)
    answer = api.put("try", modes={"gpu0": "TPX", "gpu1": "CPX"}, dry_run=True)
    assert answer.status == 200
    plan = msgspec.json.decode(answer.body, type=msg.PlanMessage)
    assert [(refusal.gpu, refusal.reason) for refusal in plan.refusals] == [(ADDRESSES[0], "mode_not_available")]
    assert plan.refusals[0].hint.startswith("it offers SPX, DPX, QPX, CPX")
    alone = msgspec.json.decode(api.put("try", modes={"gpu1": "CPX"}, dry_run=True).body, type=msg.PlanMessage)
    assert [(blocker.pid, blocker.gpu, blocker.node_wide) for blocker in alone.blockers] == [
        (os.getpid(), ADDRESSES[1], False)
    ]


def test_of_two_at_once_one_is_a_conflict(serve) -> None:
    state = fast_state()
    state.switch_seconds = 0.3
    api = serve(state)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda gpu: api.put(f"p-{gpu}", modes={gpu: "CPX"}), ["gpu0", "gpu1"]))
    assert sorted(answer.status for answer in answers) == [202, 409]
    problem = next(msgspec.json.decode(a.body, type=msg.ProblemMessage) for a in answers if a.status == 409)
    winner = next(a.json["name"] for a in answers if a.status == 202)
    assert problem.code == "switch_in_progress"
    assert winner in problem.detail
    assert winner in (problem.hint or "")


def test_a_failed_change_says_why(serve) -> None:
    state = fast_state()
    state.faults.append(SimFault(FaultKind.FIRMWARE_REFUSAL, ADDRESSES[0]))
    api = serve(state)
    told = api.switch("refused", modes={"gpu0": "CPX"})
    assert [change.state for change in told][-2:] == ["rolling_back", "failed"]
    assert told[-1].switches[0].reason == "firmware_refused"
    assert api.get("/v1/gpus/gpu0", msg.GpuMessage).drift == []


# -- errors ----------------------------------------------------------------------------------------------------

GOOD = {"modes": {"gpu0": "CPX"}}
PLAN = "/v1/plans/mine"
LONG = "x" * 63

ERRORS = {
    "no such path": ("GET", "/v1/clouds", None, 404, "not_found", "/v1/clouds"),
    "no path at all": ("GET", "/", None, 404, "not_found", "/"),
    "another version": ("GET", "/v2/gpus", None, 404, "not_found", "/v2/gpus"),
    "a method that it has not": ("DELETE", "/v1/gpus", None, 405, None, "DELETE"),
    "POST of a plan": ("POST", PLAN, GOOD, 405, None, "POST"),
    "an unknown GPU": ("GET", "/v1/gpus/gpu2", None, 404, "unknown_gpu", "'gpu2'"),
    "an unknown address": ("GET", "/v1/gpus/0000:99:00.0", None, 404, "unknown_gpu", "0000:99:00.0"),
    "a partition of an unknown GPU": ("GET", "/v1/partitions/gpu2/0", None, 404, "unknown_gpu", "gpu2"),
    "an unknown partition": ("GET", "/v1/partitions/gpu0/1", None, 404, "unknown_partition", "no partition '1'"),
    "a partition without a number": ("GET", "/v1/partitions/gpu0/x", None, 404, "unknown_partition", "'x'"),
    "an unknown plan": ("GET", PLAN, None, 404, "not_found", "'mine'"),
    "an unknown plan watched": ("GET", f"{PLAN}?watch=1", None, 404, "not_found", "'mine'"),
    "since is no number": ("GET", "/v1/events?since=x", None, 400, "invalid", "since is 'x'"),
    "since is negative": ("GET", "/v1/events?since=-1", None, 400, "invalid", "'-1'"),
    "since is too large": ("GET", f"/v1/events?since={10**18}", None, 400, "invalid", "since"),
    "an empty body": ("PUT", PLAN, b"", 400, "invalid", "body is not understood"),
    "no JSON": ("PUT", PLAN, b"{modes", 400, "invalid", "body is not understood"),
    "not UTF-8": ("PUT", PLAN, b'{"modes": {"\xff": "CPX"}}', 400, "invalid", "body is not understood"),
    "a list": ("PUT", PLAN, [], 400, "invalid", "Expected `object`, got `array`"),
    "no modes": ("PUT", PLAN, {}, 400, "invalid", "missing required field `modes`"),
    "modes of another type": ("PUT", PLAN, {"modes": {"gpu0": 1}}, 400, "invalid", "$.modes[...]"),
    "an unknown field": ("PUT", PLAN, {**GOOD, "force": True}, 400, "invalid", "unknown field `force`"),
    "an unknown mode": ("PUT", PLAN, {"modes": {"gpu0": "XPX"}}, 400, "mode_invalid", "'XPX'"),
    "an empty mode": ("PUT", PLAN, {"modes": {"gpu0": ""}}, 400, "mode_invalid", "''"),
    "two compute modes": (
        "PUT",
        PLAN,
        {"modes": {"gpu0": "CPX/SPX"}},
        400,
        "mode_invalid",
        "is not of the form COMPUTE/MEMORY",
    ),
    "no GPU": ("PUT", PLAN, {"modes": {}}, 400, "invalid", "no GPU is named"),
    "a negative wait": ("PUT", PLAN, {**GOOD, "wait_seconds": -1}, 400, "invalid", "wait_seconds: -1"),
    "a wait of more than a day": ("PUT", PLAN, {**GOOD, "wait_seconds": 86401}, 400, "invalid", "86401"),
    "a GPU that is not there": ("PUT", PLAN, {"modes": {"gpu7": "CPX"}}, 404, "unknown_gpu", "'gpu7'"),
    "a GPU twice": (
        "PUT",
        PLAN,
        {"modes": {"gpu0": "CPX", ADDRESSES[0]: "CPX"}},
        400,
        "invalid",
        "named more than once",
    ),
    "a mode that it does not offer": ("PUT", PLAN, {"modes": {"gpu0": "TPX"}}, 422, "mode_not_available", "TPX"),
    "a memory mode": ("PUT", PLAN, {"modes": {"gpu0": "CPX/NPS4"}}, 422, "memory_mode_disabled", "NPS4"),
    "a name in capitals": ("PUT", "/v1/plans/Mine", GOOD, 400, "invalid", "'Mine'"),
    "a name that begins with a dash": ("PUT", "/v1/plans/-mine", GOOD, 400, "invalid", "'-mine'"),
    "a name that ends with a dot": ("PUT", "/v1/plans/mine.", GOOD, 400, "invalid", "'mine.'"),
    "a name that is too long": ("PUT", f"/v1/plans/{LONG}x", GOOD, 400, "invalid", "1 to 63"),
    "a name with a space": ("PUT", "/v1/plans/my%20plan", GOOD, 400, "invalid", "'my plan'"),
    "no name": ("PUT", "/v1/plans/", GOOD, 404, "not_found", "/v1/plans/"),
    "a body that is too large": ("PUT", PLAN, b" " * 70_000, 413, None, ""),
}


@pytest.mark.parametrize("case", list(ERRORS))
def test_every_error_is_a_problem(api: Served, case: str) -> None:
    method, path, body, status, code, words = ERRORS[case]
    answer = ask(api.socket, path, method, body)
    assert (answer.status, answer.type) == (status, "application/problem+json"), answer
    problem = msgspec.json.decode(answer.body, type=msg.ProblemMessage)
    assert problem.status == status
    assert problem.code == code or (code is None and problem.code)
    assert words in problem.detail
    assert problem.title
    assert api.get("/v1/plans", msg.ChangeListMessage).plans == [], "an error changes nothing"


@pytest.mark.parametrize(
    ("case", "hint"),
    [
        ("an unknown GPU", "GPUs of this node: gpu0 (0000:05:00.0), gpu1 (0000:27:00.0)"),
        ("an unknown partition", "it has 1 in mode SPX/NPS1"),
        ("an unknown plan", "aimctl get plans"),
        ("an unknown field", '{"modes": {"gpu0": "CPX/NPS1"}}'),
        ("an unknown mode", "SPX|DPX|TPX|QPX|CPX"),
        ("a negative wait", "time in seconds"),
        ("a mode that it does not offer", "it offers SPX, DPX, QPX, CPX"),
        ("a memory mode", "allow_memory_mode_change"),
    ],
)
def test_hints_say_what_to_do(api: Served, case: str, hint: str) -> None:
    method, path, body, *_ = ERRORS[case]
    assert hint in ask(api.socket, path, method, body).json["hint"]


def test_a_refused_plan_lists_every_refusal(api: Served) -> None:
    answer = api.put("mine", modes={"gpu0": "TPX", "gpu1": "DPX/NPS2"})
    problem = msgspec.json.decode(answer.body, type=msg.ProblemMessage)
    assert {(refusal.gpu, refusal.reason) for refusal in problem.refusals} >= {(ADDRESSES[1], "memory_mode_disabled")}
    assert all(refusal.message and refusal.hint for refusal in problem.refusals)


def test_a_name_is_taken_by_another_wish(api: Served) -> None:
    api.switch("mine", modes={"gpu0": "CPX"})
    answer = api.put("mine", modes={"gpu0": "DPX"})
    assert (answer.status, answer.json["code"]) == (409, "name_taken")
    assert answer.json["hint"] == "choose another name"


@pytest.mark.parametrize("name", ["a", "0", LONG, "a.b_c-d", "wish-1"])
def test_names_that_are_allowed(api: Served, name: str) -> None:
    assert api.put(name, modes={"gpu0": "SPX"}).status == 202


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "aimd.evil.example", ""])
def test_a_foreign_host_is_refused(api: Served, host: str) -> None:
    """What a browser sends that was led to a forwarded socket by a foreign page."""
    for method, path, body in (("GET", "/v1/gpus", None), ("PUT", PLAN, GOOD)):
        answer = ask(api.socket, path, method, body, {"Host": host})
        assert (answer.status, answer.json["code"]) == (400, "host_invalid")
    assert api.get("/v1/plans", msg.ChangeListMessage).plans == []


@pytest.mark.parametrize("host", ["aimd", "localhost", "localhost:80"])
def test_hosts_of_the_daemon(api: Served, host: str) -> None:
    assert ask(api.socket, "/v1/node", headers={"Host": host}).status == 200


def test_what_is_no_http(api: Served) -> None:
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(str(api.socket))
        rude.sendall(b"\x00\x01\x02 hello\r\n\r\n")
        rude.settimeout(5)
        assert rude.recv(4096)[:12] in (b"HTTP/1.0 400", b"HTTP/1.1 400")
    assert api.get("/v1/node", msg.NodeMessage).ready


# -- who may change things -----------------------------------------------------------------------------------------


def as_user(uid: int, work: Callable[[], object]) -> Any:
    """What `work()` returned in a process of that user."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            answer = work()
        except BaseException as error:  # noqa: BLE001 -- the parent shows it
            answer = repr(error)
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return answer


@pytest.mark.usefixtures("requires_root")
def test_everyone_may_look_and_few_may_change(api: Served) -> None:
    def look_and_change() -> list[object]:
        looks = [ask(api.socket, path).status for path in ("/v1/gpus", "/v1/plans", "/v1/events", "/v1/node")]
        tries = ask(api.socket, PLAN, "PUT", {**GOOD, "dry_run": True}).status
        change = ask(api.socket, PLAN, "PUT", GOOD)
        return [looks, tries, change.status, change.json]

    looks, tries, status, problem = as_user(STRANGER, look_and_change)
    assert (looks, tries, status) == ([200] * 4, 200, 403)
    assert problem["code"] == "denied"
    assert f"uid {STRANGER} may read but not change" in problem["detail"]
    assert "operators in aimd.toml" in problem["hint"]
    assert api.get("/v1/plans", msg.ChangeListMessage).plans == []
    assert api.get("/v1/gpus/gpu0", msg.GpuMessage).compute_mode == "SPX"


@pytest.mark.usefixtures("requires_root")
def test_a_configured_operator_may_change(api: Served) -> None:
    assert as_user(OPERATOR, lambda: ask(api.socket, PLAN, "PUT", GOOD).status) == 202
    assert api.get(PLAN, msg.ChangeMessage).requester_uid == OPERATOR


def peer(**known: object) -> Peer:
    return Peer(**{field.name: known.get(field.name, "") for field in dataclasses.fields(Peer)})


@pytest.mark.parametrize("uid", [0, OPERATOR, STRANGER])
def test_operators(uid: int) -> None:
    operators = Operators(frozenset({0, OPERATOR}))
    with pytest.raises(DeniedError, match="pid 7 runs in a pod"):
        operators.require(peer(pid=7, uid=uid, in_pod=True))
    if uid == STRANGER:
        with pytest.raises(DeniedError, match=f"uid {uid} may read but not change"):
            operators.require(peer(pid=7, uid=uid, in_pod=False))
    else:
        operators.require(peer(pid=7, uid=uid, in_pod=False))


@pytest.fixture
def pod_cgroup() -> Iterator[Path]:
    """A cgroup as the kubelet names those of pods."""
    name = "kubepods-besteffort-pod0a1b2c3d_0000_1111_2222_333344445555.slice"
    base = Path("/sys/fs/cgroup")
    for parent in (base, base / "pids", base / "memory"):
        if not (parent / "cgroup.procs").exists():
            continue
        try:
            (parent / name).mkdir()
        except OSError:
            continue
        yield parent / name
        (parent / name).rmdir()
        return
    pytest.skip("no cgroup can be made here")


@pytest.mark.usefixtures("requires_root")
def test_root_in_a_pod_changes_nothing(api: Served, pod_cgroup: Path) -> None:
    def change() -> list[object]:
        (pod_cgroup / "cgroup.procs").write_text(str(os.getpid()))
        return [ask(api.socket, "/v1/gpus").status, ask(api.socket, PLAN, "PUT", GOOD).json["code"]]

    assert as_user(0, change) == [200, "denied"]
    assert api.get("/v1/plans", msg.ChangeListMessage).plans == []


# -- streams ---------------------------------------------------------------------------------------------------


def test_a_plan_is_told_from_any_moment_to_its_end(serve) -> None:
    state = fast_state()
    state.switch_seconds = 0.2
    api = serve(state)
    told = api.switch("slow", modes={"gpu0": "CPX", "gpu1": "CPX"})
    assert [change.final for change in told] == [False] * (len(told) - 1) + [True]
    assert [s.state for s in told[-1].switches] == ["committed", "committed"]
    assert any(change.state == "switching" for change in told)
    assert any([s.state for s in change.switches] == ["committed", "switching"] for change in told)
    again = list(lines(api.socket, "/v1/plans/slow?watch=1"))
    assert [line["final"] for line in again] == [True], "of an ended plan there is only the end"


def test_watched_events_go_on(api: Served) -> None:
    api.switch("before", modes={"gpu0": "DPX"})
    known = api.get("/v1/events", msg.EventListMessage).next
    stream = lines(api.socket, f"/v1/events?since={known - 1}&watch=1")
    assert next(stream)["sequence"] == known
    api.switch("after", modes={"gpu0": "CPX"})
    first = next(stream)
    assert (first["sequence"], first["kind"], first["subject"]) == (known + 1, "plan_accepted", "after")
    while (event := next(stream))["kind"] != "switch_committed":
        msgspec.convert(event, msg.EventMessage)
    stream.close()


def test_a_watcher_that_leaves_is_no_loss(api: Served) -> None:
    for _ in range(20):
        stream = lines(api.socket, "/v1/events?watch=1")
        api.put("x", modes={"gpu0": "SPX"})
        next(stream)
        stream.close()
    assert api.get("/v1/node", msg.NodeMessage).ready


def test_a_stopping_daemon_ends_its_streams(folder: Path) -> None:
    with Served(folder / "aimd.sock", fast_state(), {os.getuid()}) as api:
        stream = lines(api.socket, "/v1/events?watch=1")
        api.put("x", modes={"gpu0": "SPX"})
        next(stream)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    with contextlib.suppress(OSError, AssertionError, ValueError):
        assert list(stream) == []


def test_a_left_over_socket_is_replaced(folder: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "aimd.sock"))
    dead.close()
    with Served(folder / "aimd.sock", fast_state(), {os.getuid()}) as api:
        assert api.get("/v1/node", msg.NodeMessage).ready
        assert (folder / "aimd.sock").stat().st_mode & 0o777 == 0o666
