"""Which columns the tables have: one tuple per kind of object, `wide` ones marked.

A cell is a function of the object's JSON. Column names are an interface like the messages: scripts cut them out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aimd.ctl.fields import UNKNOWN, flag, item, items, number, required, text, texts
from aimd.ctl.tables import aligned, amount, duration, mode, moment, size
from aimd.domain.memory import UNITS_PER_GB, gb_text
from aimd.domain.ranges import ranges

Object = Mapping[str, Any]


class Column(NamedTuple):
    """A header and the cell under it; `narrow` and `wide` say in which of the two tables it stands."""

    header: str
    cell: Callable[[Object], str]
    narrow: bool = True
    wide: bool = True


def table(columns: tuple[Column, ...], objects: list[dict[str, Any]], *, wide: bool = False) -> str:
    """Aligned text with one line per object."""
    shown = [column for column in columns if (column.wide if wide else column.narrow)]
    return aligned([column.header for column in shown], [[column.cell(each) for column in shown] for each in objects])


def field(key: str) -> Callable[[Object], str]:
    return lambda each: text(each, key)


def modes(each: Object) -> str:
    return mode(text(each, "compute_mode"), text(each, "memory_mode"))


def nominal(each: Object) -> str:
    return size(number(each, "memory_bytes"))


def render_node(each: Object) -> str:
    return UNKNOWN if required(each, "render_minor") is None else f"renderD{text(each, 'render_minor')}"


def drift(each: Object) -> str:
    return "; ".join(texts(each, "drift")) or "no"


def wishes(change: Object) -> str:
    asked = item(change, "wishes")
    return ",".join(f"{gpu}={text(asked, gpu)}" for gpu in asked) or UNKNOWN


def gpu_state(gpu: Object) -> str:
    """`ready`, or `ready,draining`: what kubectl does with a node that is closed for new pods."""
    return f"{text(gpu, 'state')},draining" if flag(gpu, "draining") else text(gpu, "state")


def amounts(key: str) -> Callable[[Object], str]:
    """Memory that is used, reserved or free."""
    return lambda each: amount(number(each, key))


def owner(use: Object) -> str:
    """`llama/0`: the replica that a process belongs to."""
    return UNKNOWN if required(use, "claim") is None else f"{text(use, 'claim')}/{text(use, 'replica')}"


def gigabytes(key: str) -> Callable[[Object], str]:
    """GB as GPUs are sold."""

    def cell(each: Object) -> str:
        amount = number(each, key)
        return UNKNOWN if amount is None else f"{gb_text(round(amount * UNITS_PER_GB))} GB"

    return cell


def pod_name(pod: Object) -> str:
    return f"{text(pod, 'namespace')}/{text(pod, 'name')}"


def pods(claim: Object) -> str:
    """`default/llama-0, default/llama-1`, in the order of their replicas."""
    return ", ".join(pod_name(each) for each in items(claim, "pods")) or UNKNOWN


def places(claim: Object) -> str:
    """`gpu5/0 x24, gpu5/1 x16`, `gpu0/0-7`: the partitions of each GPU, with how many replicas each has."""
    there: dict[str, Counter[int]] = {}
    for each in items(claim, "assignments"):
        gpu = text(each, "partition_name").rpartition("/")[0]
        there.setdefault(gpu, Counter())[int(number(each, "index") or 0)] += 1
    words = []
    for gpu, counts in there.items():
        for count in sorted(set(counts.values()), reverse=True):
            alike = ranges(index for index, each in counts.items() if each == count)
            words += [f"{gpu}/{part}" + (f" x{count}" if count > 1 else "") for part in alike.split(",")]
    return ", ".join(words) or UNKNOWN


def gpus_of(step: Object) -> str:
    return ",".join(texts(step, "gpus"))


def progress(change: Object) -> str:
    switches = items(change, "switches")
    return f"{sum(text(each, 'state') == 'committed' for each in switches)}/{len(switches)}"


def of_step(cell: Callable[[Object], str]) -> Callable[[Object], str]:
    """The cell of a switch's step."""
    return lambda switch: cell(item(switch, "step"))


def seconds(key: str) -> Callable[[Object], str]:
    return lambda each: duration(number(each, key))


GPUS = (
    Column("NAME", field("name")),
    Column("PCI-ADDRESS", field("pci_address")),
    Column("MODEL", field("model")),
    Column("DEVICE-ID", field("device_id"), narrow=False),
    Column("MODE", modes),
    Column("REPORTED", field("reported_compute_mode"), narrow=False),
    Column("WISH", field("wish"), narrow=False),
    Column("PENDING-MEMORY", field("pending_memory_mode"), narrow=False),
    Column("PARTITIONS", lambda gpu: str(len(items(gpu, "partitions")))),
    Column("MEMORY", nominal),
    Column("MEMORY-BYTES", field("memory_bytes"), narrow=False),
    Column("STATE", gpu_state),
    Column("NUMA", field("numa_node"), narrow=False),
    Column("HIVE", field("hive_id"), narrow=False),
    Column("EPOCH", field("mode_epoch"), narrow=False),
    Column("HOLDERS", lambda gpu: str(len(items(gpu, "holders"))), narrow=False),
    Column("CHANGE", field("change"), narrow=False),
    Column("DRIFT", lambda gpu: "yes" if texts(gpu, "drift") else "no", wide=False),
    Column("DRIFT", drift, narrow=False),
)

PARTITIONS = (
    Column("NAME", field("name")),
    Column("ID", field("id"), narrow=False),
    Column("MODE", modes),
    Column("XCCS", field("xcc_count")),
    Column("CUS", field("compute_units"), narrow=False),
    Column("MEMORY", nominal),
    Column("MEMORY-BYTES", field("memory_bytes"), narrow=False),
    Column("RESERVED", amounts("reserved_bytes"), narrow=False),
    Column("USED", amounts("used_bytes"), narrow=False),
    Column("UNATTRIBUTED", amounts("unattributed_bytes"), narrow=False),
    Column("FREE", amounts("free_bytes"), narrow=False),
    Column("FINDINGS", lambda part: ",".join(texts(part, "findings")) or "none", narrow=False),
    Column("RENDER-NODE", render_node),
    Column("EPOCH", field("mode_epoch"), narrow=False),
)

CLAIM_USE = (
    Column("CLAIM", field("claim")),
    Column("RESERVED", amounts("reserved_bytes")),
    Column("USED", amounts("used_bytes")),
)

PROCESS_USE = (
    Column("PID", field("pid")),
    Column("COMMAND", field("command")),
    Column("USED", amounts("used_bytes")),
    Column("CLAIM", owner),
    Column("POD", lambda use: text(use, "pod") or "?"),
)

CHANGES = (
    Column("NAME", field("name")),
    Column("STATE", field("state")),
    Column("MODES", wishes),
    Column("STEPS", progress),
    Column("CREATED", lambda change: moment(number(change, "created_at"))),
    Column("ORIGIN", field("origin"), narrow=False),
    Column("UID", field("requester_uid"), narrow=False),
    Column("FINAL", field("final"), narrow=False),
    Column("BLOCKERS", lambda change: str(len(items(change, "blockers"))), narrow=False),
)

EVENTS = (
    Column("SEQUENCE", field("sequence"), narrow=False),
    Column("TIME", lambda event: moment(number(event, "at"))),
    Column("SUBJECT", field("subject")),
    Column("KIND", field("kind")),
    Column("MESSAGE", field("message")),
)

NODES = (
    Column("READY", field("ready")),
    Column("GPUS", field("gpu_count")),
    Column("PARTITIONS", field("partition_count")),
    Column("BUSY-RULE", field("busy_rule")),
    Column("SIMULATED", field("simulated")),
    Column("VERSION", field("version")),
    Column("UPTIME", seconds("uptime_seconds")),
    Column("PID", field("pid"), narrow=False),
    Column("GENERATION", field("generation"), narrow=False),
    Column("TOPOLOGY", field("topology_generation"), narrow=False),
    Column("BOOT-ID", field("boot_id"), narrow=False),
)

CLAIMS = (
    Column("NAME", field("name")),
    Column("STATE", field("state")),
    Column("QOS", field("qos")),
    Column("MEMORY", gigabytes("memory_gb")),
    Column("GUARANTEE", field("guarantee")),
    Column("LIMIT", field("limit"), narrow=False),
    Column("WEIGHT", field("weight"), narrow=False),
    Column("REPLICAS", field("replicas")),
    Column("WISH", modes, narrow=False),
    Column("PARTITION", field("partition"), narrow=False),
    Column("PREFERRED", field("preferred"), narrow=False),
    Column("PLACES", places),
    Column("PODS", pods, narrow=False),
    Column("OWNER", field("owner_uid"), narrow=False),
    Column("CREATED", lambda claim: moment(number(claim, "created_at")), narrow=False),
    Column("HOLDERS", lambda claim: str(len(items(claim, "holders"))), narrow=False),
    Column("CHANGE", field("change"), narrow=False),
    Column("REASON", field("reason")),
)

PLACES = (
    Column("NAME", field("name")),
    Column("PARTITION", field("partition_name")),
    Column("ID", field("partition"), narrow=False),
    Column("MEMORY", gigabytes("memory_gb")),
    Column("LIMIT-BYTES", field("memory_bytes"), narrow=False),
    Column("GUARANTEE", field("guarantee")),
    Column("RENDER-NODE", render_node),
)

ASSIGNMENTS = (
    *PLACES,
    Column("POD", field("pod"), narrow=False),
)

PODS = (
    Column("POD", pod_name),
    Column("REPLICA", field("replica")),
    Column("UID", field("uid")),
)

DIFFERENCES = (
    Column("NAME", field("name")),
    Column("PCI-ADDRESS", field("pci_address")),
    Column("PRESENT", field("present")),
    Column("LAYOUT", field("layout")),
    Column("PENDING-MEMORY", field("pending_memory_mode")),
)

FINDINGS = (
    Column("RESULT", field("result")),
    Column("CHECK", field("check")),
    Column("MESSAGE", field("message")),
    Column("DO", field("hint")),
)

STEPS = (
    Column("STEP", field("kind")),
    Column("GPUS", gpus_of),
    Column("BEFORE", field("before")),
    Column("AFTER", field("after")),
    Column("WHEN", lambda step: "after a driver reload" if flag(step, "after_reload") else "now"),
)

BLOCKERS = (
    Column("PID", field("pid")),
    Column("COMMAND", field("command")),
    Column("BLOCKS", field("gpu")),
    Column("HOLDS", lambda blocker: ",".join(texts(blocker, "holds")) or UNKNOWN),
)

SWITCHES = (
    Column("STEP", of_step(field("kind"))),
    Column("GPUS", of_step(gpus_of)),
    Column("BEFORE", of_step(field("before"))),
    Column("AFTER", of_step(field("after"))),
    Column("STATE", field("state")),
    Column("REFUSED-WRITES", field("attempts")),
    Column("TOOK", seconds("seconds")),
    Column("IN-DRIVER", seconds("write_seconds")),
    Column("REASON", field("reason")),
)

HOLDERS = (
    Column("PID", field("pid")),
    Column("COMMAND", field("command")),
)

PROCESSES = (
    *HOLDERS,
    Column(
        "STATE",
        lambda each: "running" if each.get("ended_at") is None else f"orphan since {moment(number(each, 'ended_at'))}",
    ),
)

LEFT_BEHIND = (
    Column("NAME", field("name")),
    Column("PARTITION", field("partition_name")),
    Column("MEMORY", gigabytes("memory_gb")),
    Column("GUARANTEE", field("guarantee")),
    Column("RELEASED", lambda each: moment(number(each, "released_at"))),
    Column("PIDS", lambda each: ", ".join(text(one, "pid") for one in items(each, "processes"))),
)

VERSIONS = (
    Column("AIMCTL", field("aimctl")),
    Column("AIMD", field("aimd")),
    Column("API", field("api")),
)
