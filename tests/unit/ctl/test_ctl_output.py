"""What aimctl prints for each kind of message, as golden text, and that it reads only fields that there are."""

from __future__ import annotations

import json

import msgspec
import pytest
import yaml

from aimd.ctl.columns import gigabytes
from aimd.ctl.describe import describe
from aimd.ctl.output import FORMATS, KINDS, render
from aimd.ctl.tables import duration, size
from aimd.errors import UnreachableError
from aimd.protocol.claims import AssignmentListMessage, ClaimListMessage
from aimd.protocol.memory import PartitionDetailMessage
from aimd.protocol.messages import ChangeListMessage, EventListMessage, HolderMessage, PartitionListMessage, to_builtins
from aimd.protocol.models import ModelListMessage
from tests.unit.ctl import samples

INVENTORY = to_builtins(samples.inventory())
PAYLOADS = {
    "gpus": INVENTORY,
    "inventory": INVENTORY,
    "gpu": INVENTORY["gpus"][0],
    "partitions": to_builtins(PartitionListMessage(partitions=samples.inventory().gpus[0].partitions)),
    "partition": to_builtins(samples.accounted()),
    "plans": to_builtins(ChangeListMessage(plans=[samples.failed("gpu_busy", "held"), samples.committing()[1]])),
    "plan": to_builtins(samples.committing()[1]),
    "dry-run": to_builtins(samples.plan()),
    "events": to_builtins(EventListMessage(events=samples.events(), next=5)),
    "event": to_builtins(samples.events()[1]),
    "claims": to_builtins(ClaimListMessage(claims=[samples.claim(), samples.waiting()])),
    "claim": to_builtins(samples.claim("switching", change="room-1")),
    "assignments": to_builtins(AssignmentListMessage(assignments=[samples.assignment(), samples.assignment(1)])),
    "assignment": to_builtins(samples.assignment(1)),
    "models": to_builtins(ModelListMessage(models=[samples.model(), samples.unread_model()], sample=7)),
    "model": to_builtins(samples.model()),
    "slos": to_builtins(ModelListMessage(models=[samples.model()], sample=7)),
    "slo": to_builtins(samples.model()),
    "node": to_builtins(samples.node()),
    "differences": {
        "differences": [
            {
                "name": "gpu1",
                "pci_address": samples.GPU1,
                "present": "SPX/NPS1",
                "layout": "CPX/NPS4",
                "pending_memory_mode": "NPS4",
            }
        ]
    },
    "findings": {
        "findings": [{"result": "warn", "check": "gpu1", "message": "draining", "hint": None}],
    },
    "version": {"aimctl": "0.1.0", "aimd": None, "api": None},
}

TABLES = {
    "gpus": """\
NAME   PCI-ADDRESS    MODEL    MODE       PARTITIONS   MEMORY    STATE   DRIFT
gpu0   0000:05:00.0   MI300X   DPX/NPS1   2            192 GiB   ready   no
gpu1   0000:26:00.0   MI300X   SPX/NPS1   1            192 GiB   ready   yes
gpu2   0000:46:00.0   -        CPX/-      1            -         ready   no
""",
    "partition": """\
NAME     MODE       XCCS   MEMORY   RENDER-NODE
gpu0/1   DPX/NPS1   4      96 GiB   renderD129
""",
    "plans": """\
NAME         STATE                 MODES           STEPS   CREATED
set-mode-1   failed                gpu1=DPX/NPS1   0/2     2023-11-14T22:13:20Z
set-mode-1   waiting_for_clients   gpu1=DPX/NPS1   0/1     2023-11-14T22:13:20Z
""",
    "events": """\
TIME                   SUBJECT        KIND              MESSAGE
2023-11-14T22:13:20Z   node           daemon_started    3 GPUs, 4 partitions
2023-11-14T22:13:21Z   0000:26:00.0   mode_changed      SPX/NPS1 to DPX/NPS1
2023-11-14T22:13:22Z   node           driver_reloaded   rescanned
""",
    "node": """\
READY   GPUS   PARTITIONS   BUSY-RULE   SIMULATED   VERSION   UPTIME
yes     3      4            per-gpu     -           0.1.0     1 h 2 min
""",
    "dry-run": """\
STEP      GPUS   BEFORE     AFTER      WHEN
memory    gpu1   SPX/NPS1   DPX/NPS1   now
compute   gpu1   SPX/NPS1   DPX/NPS1   after a driver reload

These processes would be waited for:
PID    COMMAND            BLOCKS   HOLDS
4711   python3 serve.py   gpu1     0000:27:00.0
9      -                  gpu0     0000:47:00.0

warning: the driver must be reloaded for NPS4
""",
    "claims": """\
NAME    STATE     QOS    MEMORY   GUARANTEE   REPLICAS   PLACES           REASON
llama   placed    high   24 GB    4           2          gpu0/0, gpu0/1   -
bert    pending   high   24 GB    4           1          -                no_room
""",
    "assignments": """\
NAME      PARTITION   MEMORY   GUARANTEE   RENDER-NODE
llama/0   gpu0/0      24 GB    4           renderD128
llama/1   gpu0/1      24 GB    4           renderD129
""",
    "differences": """\
NAME   PCI-ADDRESS    PRESENT    LAYOUT     PENDING-MEMORY
gpu1   0000:26:00.0   SPX/NPS1   CPX/NPS4   NPS4
""",
    "findings": """\
RESULT   CHECK   MESSAGE    DO
warn     gpu1    draining   -
""",
    "version": """\
AIMCTL   AIMD   API
0.1.0    -      -
""",
}

WIDE = {
    "gpus": """\
NAME   PCI-ADDRESS    MODEL    DEVICE-ID   MODE       REPORTED   WISH       PENDING-MEMORY   PARTITIONS   MEMORY    MEMORY-BYTES   STATE   NUMA   HIVE     EPOCH   HOLDERS   CHANGE       DRIFT
gpu0   0000:05:00.0   MI300X   0x74a1      DPX/NPS1   DPX        DPX/NPS1   -                2            192 GiB   206141652992   ready   0      0x1f2e   2       0         -            no
gpu1   0000:26:00.0   MI300X   0x74a1      SPX/NPS1   DPX        DPX/NPS1   NPS4             1            192 GiB   206141652992   ready   0      0x1f2e   2       2         set-mode-1   wished are DPX/NPS1, the partitions show SPX/NPS1; the mode file says DPX
gpu2   0000:46:00.0   -        -           CPX/-      -          -          -                1            -         -              ready   -      -        -       0         -            no
""",
    "partitions": """\
NAME     ID               MODE       XCCS   CUS   MEMORY   MEMORY-BYTES   RESERVED   USED   UNATTRIBUTED   FREE   FINDINGS   RENDER-NODE   EPOCH
gpu0/0   0000:05:00.0/0   DPX/NPS1   4      152   96 GiB   103070826496   -          -      -              -      none       renderD128    2
gpu0/1   0000:05:00.0/1   DPX/NPS1   4      152   96 GiB   103070826496   -          -      -              -      none       renderD129    2
""",
    "partition": """\
NAME     ID               MODE       XCCS   CUS   MEMORY   MEMORY-BYTES   RESERVED    USED        UNATTRIBUTED   FREE        FINDINGS     RENDER-NODE   EPOCH
gpu0/1   0000:05:00.0/1   DPX/NPS1   4      152   96 GiB   103070826496   24.00 GiB   27.00 GiB   1.00 GiB       60.00 GiB   over-limit   renderD129    2
""",
    "plan": """\
NAME         STATE                 MODES           STEPS   CREATED                ORIGIN   UID   FINAL   BLOCKERS
set-mode-1   waiting_for_clients   gpu1=DPX/NPS1   0/1     2023-11-14T22:13:20Z   client   0     no      1
""",
    "claim": """\
NAME    STATE       QOS    MEMORY   GUARANTEE   LIMIT   WEIGHT   REPLICAS   WISH    PARTITION   PREFERRED        PLACES   PODS   OWNER   CREATED                HOLDERS   CHANGE   REASON
llama   switching   high   24 GB    4           -       2        2          CPX/-   -           0000:05:00.0/0   -        -      1000    2023-11-14T22:13:20Z   0         room-1   -
""",
    "assignment": """\
NAME      PARTITION   ID               MEMORY   LIMIT-BYTES   GUARANTEE   RENDER-NODE   POD
llama/1   gpu0/1      0000:05:00.0/1   24 GB    25767706624   4           renderD129    -
""",
    "node": """\
READY   GPUS   PARTITIONS   BUSY-RULE   SIMULATED   VERSION   UPTIME      PID   GENERATION   TOPOLOGY   BOOT-ID
yes     3      4            per-gpu     -           0.1.0     1 h 2 min   321   12           7          6f1c
""",
}

NAMES = {
    "gpus": "gpu0\ngpu1\ngpu2\n",
    "inventory": "gpu0\ngpu0/0\ngpu0/1\ngpu1\ngpu1/0\ngpu2\ngpu2/0\n",
    "gpu": "gpu0\n",
    "partitions": "gpu0/0\ngpu0/1\n",
    "partition": "gpu0/1\n",
    "plans": "set-mode-1\nset-mode-1\n",
    "plan": "set-mode-1\n",
    "dry-run": "gpu1\n",
    "events": "1\n2\n5\n",
    "event": "2\n",
    "claims": "llama\nbert\n",
    "claim": "llama\n",
    "assignments": "llama/0\nllama/1\n",
    "assignment": "llama/1\n",
    "models": "llama\nbert\n",
    "model": "llama\n",
    "slos": "llama\n",
    "slo": "llama\n",
    "differences": "gpu1\n",
    "findings": "gpu1\n",
    "node": "node\n",
    "version": "-\n",
}

DESCRIBED_GPU = """\
Name:                  gpu1
PCI address:           0000:26:00.0
Model:                 MI300X
Device id:             0x74a1
State:                 ready
Mode:                  SPX/NPS1
Mode file:             DPX
Wish:                  DPX/NPS1
Mode epoch:            2
Compute modes:         SPX, DPX, QPX, CPX
Memory modes:          NPS1, NPS4
Memory mode file:      writable
Pending memory mode:   NPS4
Memory:                192 GiB (206141652992 bytes)
NUMA node:             0
XGMI hive:             0x1f2e
Mode change:           set-mode-1
Draining:              no
Memory by HIP:         -
Drift:
  wished are DPX/NPS1, the partitions show SPX/NPS1
  the mode file says DPX
Processes:
  PID    COMMAND
  4711   python3 serve.py
  9      -
Partitions:
  NAME     MODE       XCCS   MEMORY    RENDER-NODE
  gpu1/0   SPX/NPS1   8      192 GiB   renderD128
"""

KEPT = """\
Kept for processes without their claim:
  NAME      PARTITION   MEMORY   GUARANTEE   RELEASED               PIDS
  llama/0   gpu0/1      24 GB    4           2023-11-14T22:13:20Z   7, 8
"""

DESCRIBED_PARTITION = """\
Name:            gpu2/0
Id:              0000:46:00.0/0
GPU:             gpu2
PCI address:     0000:46:00.0
Index:           0
Mode:            -
Mode epoch:      -
XCCs:            -
Compute units:   -
Memory:          -
Reserved:        -
Used:            -
Unattributed:    -
Free:            -
Free now:        -
Render node:     -
Kept back: -
Claims: none
Processes: none
Findings: none
"""

DESCRIBED_ACCOUNT = """\
Name:            gpu0/1
Id:              0000:05:00.0/1
GPU:             gpu0
PCI address:     0000:05:00.0
Index:           1
Mode:            DPX/NPS1
Mode epoch:      2
XCCs:            4
Compute units:   152
Memory:          96 GiB (103070826496 bytes)
Reserved:        24.00 GiB
Used:            27.00 GiB
Unattributed:    1.00 GiB
Free:            60.00 GiB by HIP at 2023-11-14T22:13:20Z, when 26.00 GiB were used
Free now:        59.00 GiB, estimated
Render node:     renderD129
Kept back:
  Page tables:    235.00 MiB
  Pins and RAS:   0
  Rounding:       -
Claims:
  CLAIM   RESERVED    USED
  llama   24.00 GiB   26.00 GiB
Processes:
  PID   COMMAND   USED        CLAIM     POD
  7     serve     26.00 GiB   llama/0   u-1
  8     -         -           -         ?
Findings:
  over-limit since 2023-11-14T22:13:20Z: claim llama uses 26 GiB; its model gets no new leases there
"""

DESCRIBED_CHANGE = """\
Name:            set-mode-1
State:           failed
Final:           yes
Modes:           gpu1=DPX/NPS1
Origin:          client
Requester uid:   0
Created:         2023-11-14T22:13:20Z
Steps:
  STEP      GPUS   BEFORE     AFTER      STATE    REFUSED-WRITES   TOOK    IN-DRIVER   REASON
  compute   gpu1   SPX/NPS1   DPX/NPS1   failed   3                2.3 s   2.2 s       gpu_busy
  compute   gpu2   SPX/NPS1   DPX/NPS1   failed   3                2.3 s   2.2 s       earlier_step_failed
Reasons:
  gpu1 is held
  the step before it failed
Blocked by: none
"""

DESCRIBED_CLAIM = """\
Name:             llama
State:            placed
Reason:           -
Message:          -
Owner uid:        1000
Created:          2023-11-14T22:13:20Z
Replicas:         2
Memory:           24 GB
QoS class:        high
Guarantee:        4 slots
Limit:            all slots
Weight:           2
Modes:            CPX/-
Partition:        -
Preferred:        0000:05:00.0/0
SLO latency:      0.25 s
SLO objective:    0.99
SLO throughput:   -
Mode change:      -
Assignments:
  NAME      PARTITION   ID               MEMORY   LIMIT-BYTES   GUARANTEE   RENDER-NODE
  llama/0   gpu0/0      0000:05:00.0/0   24 GB    25767706624   4           renderD128
  llama/1   gpu0/1      0000:05:00.0/1   24 GB    25767706624   4           renderD129
Processes: none
"""


@pytest.mark.parametrize("kind", TABLES)
def test_table(kind) -> None:
    assert render(kind, PAYLOADS[kind], "table") == TABLES[kind]


@pytest.mark.parametrize("kind", WIDE)
def test_wide(kind) -> None:
    assert render(kind, PAYLOADS[kind], "wide") == WIDE[kind]


def test_inventory_shows_gpus_and_partitions() -> None:
    text = render("inventory", INVENTORY, "table")
    assert text.startswith(TABLES["gpus"] + "\nNAME     MODE")
    assert text.endswith("gpu2/0   -          -      -         -\n")
    assert text.count("\n") == 4 + 1 + 5
    assert render("inventory", INVENTORY, "wide").startswith(WIDE["gpus"] + "\nNAME     ID")


@pytest.mark.parametrize("kind", NAMES)
def test_one_name_a_line(kind) -> None:
    assert render(kind, PAYLOADS[kind], "name") == NAMES[kind]


@pytest.mark.parametrize("kind", PAYLOADS)
def test_json_and_yaml_carry_all(kind) -> None:
    assert json.loads(render(kind, PAYLOADS[kind], "json")) == PAYLOADS[kind]
    assert yaml.safe_load(render(kind, PAYLOADS[kind], "yaml")) == PAYLOADS[kind]
    assert render(kind, PAYLOADS[kind], "json").endswith("}\n")


def test_every_kind_and_format_is_in_this_file() -> None:
    assert set(PAYLOADS) == {*KINDS, "inventory", "dry-run"} == set(NAMES)
    assert FORMATS == ("table", "wide", "json", "yaml", "name")


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        ("gpu", INVENTORY["gpus"][1], DESCRIBED_GPU),
        (
            "partition",
            to_builtins(PartitionDetailMessage(**INVENTORY["gpus"][2]["partitions"][0])),
            DESCRIBED_PARTITION,
        ),
        ("partition", to_builtins(samples.accounted()), DESCRIBED_ACCOUNT),
        ("claim", to_builtins(samples.claim()), DESCRIBED_CLAIM),
        ("plan", to_builtins(samples.failed("gpu_busy", "gpu1 is held")), DESCRIBED_CHANGE),
        (
            "gpu",
            {**INVENTORY["gpus"][1], "left_behind": [to_builtins(samples.left_behind())]},
            DESCRIBED_GPU.replace("Partitions:\n", f"{KEPT}Partitions:\n"),
        ),
    ],
)
def test_describe(kind, payload, expected) -> None:
    assert describe(kind, payload) == expected


def test_describe_of_what_is_unknown_has_no_value_made_up() -> None:
    lines = dict(line.split(":", 1) for line in describe("gpu", INVENTORY["gpus"][2]).splitlines() if ":" in line[:30])
    unknown = {name for name, value in lines.items() if value.strip() == "-"}
    assert unknown == {
        *("Model", "Device id", "Mode file", "Wish", "Mode epoch", "Compute modes", "Memory modes"),
        *("Pending memory mode", "Memory", "NUMA node", "XGMI hive", "Mode change", "Memory by HIP"),
    }


def test_a_gpu_tells_how_asking_hip_ended() -> None:
    gpu = {**INVENTORY["gpus"][0], "probe": to_builtins(samples.probe("failed", "hipErrorUnknown"))}
    told = "Memory by HIP:         failed at 2023-11-14T22:13:20Z by /opt/rocm/lib/libamdhip64.so.7: hipErrorUnknown\n"
    assert told in describe("gpu", gpu)


def test_a_draining_gpu_shows_it_in_its_state() -> None:
    gpu = {**INVENTORY["gpus"][0], "draining": True}
    assert render("gpu", gpu, "table").splitlines()[1].split()[-2] == "ready,draining"
    assert "Draining:              yes\n" in describe("gpu", gpu)


def test_refused_plan() -> None:
    payload = to_builtins(samples.plan(refused=True))
    expected = "refused: gpu1 does not offer TPX (mode_not_available)\nhint: it offers SPX, DPX, QPX, CPX\n"
    assert render("dry-run", payload, "table") == expected
    assert render("dry-run", payload, "name") == ""


def test_plan_with_nothing_to_do() -> None:
    payload = {"steps": [], "refusals": [], "blockers": [], "warnings": []}
    assert render("dry-run", payload, "table") == "nothing to do: the GPUs are in these modes\n"


def test_an_empty_list_is_a_header() -> None:
    assert render("partitions", {"partitions": []}, "table") == "NAME   MODE   XCCS   MEMORY   RENDER-NODE\n"


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (None, "-"),
        (0, "0 GiB"),
        (25767706624, "24 GiB"),
        (206141652992, "192 GiB"),
        (192 << 30, "192 GiB"),
        ((192 << 30) + 1, "193 GiB"),
        (536870911, "512 MiB"),
        ((1 << 30) - 1, "1 GiB"),
    ],
)
def test_sizes_are_nominal(size_bytes, expected) -> None:
    assert size(size_bytes) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        *(
            (None, "-"),
            (0.0, "0.0 ms"),
            (0.0123, "12.3 ms"),
            (59.94, "59.9 s"),
            (60, "1 min 0 s"),
            (3599, "59 min 59 s"),
        ),
        *((3725, "1 h 2 min"), (1e6, "11 d 13 h")),
    ],
)
def test_durations(seconds, expected) -> None:
    assert duration(seconds) == expected


def test_a_command_line_cannot_steer_the_terminal() -> None:
    gpu = json.loads(json.dumps(INVENTORY["gpus"][1]))
    gpu["holders"] = [{"pid": 1, "command": "evil\x1b]0;owned\x07\nName: gpu9\x9b2J"}]
    for text in (describe("gpu", gpu), render("gpu", gpu, "json"), render("gpu", gpu, "yaml")):
        assert not {"\x1b", "\x07", "\x9b"} & set(text)
        assert not any(line.startswith("Name: gpu9") for line in text.splitlines())


def paths(value: object, at: tuple = ()) -> list[tuple]:
    """Where the objects' fields are, at any depth."""
    found = []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += [(*at, key), *paths(inner, (*at, key))]
    if isinstance(value, list):
        for index, inner in enumerate(value):
            found += paths(inner, (*at, index))
    return found


def complaint(kind: str, payload: dict, fmt: str) -> str | None:
    """Code of the error, or None where it was rendered: most odd values are shown as they are."""
    try:
        render(kind, payload, fmt)
    except UnreachableError as error:
        return error.code
    return None


@pytest.mark.parametrize("kind", [kind for kind in PAYLOADS if kind not in ("version", "findings", "differences")])
def test_a_missing_or_odd_field_is_one_sentence(kind) -> None:
    """Fields are read strictly: so the goldens above also prove that every field read is one of the messages'."""
    for path in paths(PAYLOADS[kind]):
        for odd in (None, 7, "x", [7], {}, "absent"):
            payload = json.loads(json.dumps(PAYLOADS[kind]))
            *way, last = path
            holder = payload
            for key in way:
                holder = holder[key]
            if odd == "absent":
                del holder[last]
            else:
                holder[last] = odd
            for fmt in ("table", "wide", "name"):
                assert complaint(kind, payload, fmt) in (None, "answer_malformed")


def test_absent_fields_do_raise() -> None:
    for kind, key in (
        ("gpus", "gpus"),
        ("gpu", "drift"),
        ("plan", "wishes"),
        ("node", "ready"),
        ("dry-run", "refusals"),
    ):
        payload = {name: value for name, value in PAYLOADS[kind].items() if name != key}
        with pytest.raises(UnreachableError, match=f"has no field '{key}'"):
            render(kind, payload, "wide")


def test_samples_hold_no_field_that_the_messages_lack() -> None:
    assert msgspec.convert(INVENTORY, type(samples.inventory())) == samples.inventory()


def test_an_orphan_is_not_told_to_run() -> None:
    orphan = HolderMessage(pid=8, command="python b.py", ended_at=1700000000.0)
    told = describe("claim", to_builtins(samples.claim(holders=(HolderMessage(pid=7, command="python a.py"), orphan))))
    assert told.split("Processes:\n")[1] == (
        "  PID   COMMAND       STATE\n"
        "  7     python a.py   running\n"
        "  8     python b.py   orphan since 2023-11-14T22:13:20Z\n"
    )


@pytest.mark.parametrize(
    ("amount", "cell"),
    [(24.0, "24 GB"), (1.5, "1.5 GB"), (1 / 1024, "0.001 GB"), (24 + 1 / 1024, "24.001 GB"), (1048576.0, "1048576 GB")],
)
def test_amounts_of_memory_are_written_as_the_daemon_writes_them(amount, cell) -> None:
    assert gigabytes("memory_gb")({"memory_gb": amount}) == cell
