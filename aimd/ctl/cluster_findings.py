"""What `aimctl doctor` says of the node's part in its cluster. Pure.

Nothing here says that the node does not work: while the cluster is away, what is placed goes on, and so does the local
API. A part of the daemon that has ended by a defect is another matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aimd.ctl.fields import flag, item, items, number, required, shown, text, texts
from aimd.ctl.tables import duration
from aimd.doctor.finding import FAIL, OK, WARN, Finding

SILENT_SECONDS = 300.0  # the API server sends a bookmark each minute
IDLE_SECONDS = 30.0  # the part that follows the cluster turns each second
CHECK = "cluster"
RESTART = "restart aimd, models go on meanwhile; the log has a traceback: it is a defect"
MEANWHILE = "what is placed goes on; no other pod gets a partition meanwhile"
NAMES = {"node": "the node's NodePartitions", "service": "the status of InferenceServices", "event": "Events"}

Object = Mapping[str, Any]


def cluster_findings(cluster: Object | None, now: float) -> Iterator[Finding]:
    """Of the answer of /v1/cluster, at seconds since the epoch; None: the daemon is too old to have it."""
    if cluster is None:
        return
    if not flag(cluster, "enabled"):
        yield Finding(OK, CHECK, "this node takes part in no cluster: [kubernetes] of aimd.toml is not enabled")
        return
    yield Finding(OK, CHECK, f"node {text(cluster, 'node')} of the API server at {text(cluster, 'server')}")
    yield from _daemon(cluster)
    for watch in items(cluster, "watches"):
        yield _watch(watch, text(cluster, "server"), now)
    for writes in items(cluster, "writes"):
        yield from _writes(writes, required(cluster, "problem"), now)
    yield from _in_the_way(cluster)


def _daemon(cluster: Object) -> Iterator[Finding]:
    """Parts of the daemon that have ended, or turn no more."""
    idle, failures = number(cluster, "idle_seconds") or 0.0, number(cluster, "failures") or 0
    if not flag(cluster, "running"):
        yield Finding(FAIL, CHECK, "the thread that reads or writes objects of the cluster has ended", RESTART)
    if idle > IDLE_SECONDS:
        message = f"node and cluster have not been compared for {duration(idle)}, expected each second"
        yield Finding(FAIL, CHECK, message, RESTART)
    if failures:
        message = f"the comparison of node and cluster has ended by a defect {failures:g} times since the daemon began"
        yield Finding(WARN, CHECK, message, "the log has a traceback; it is tried again by itself")


def _watch(watch: Object, server: str, now: float) -> Finding:
    resource, told_at = text(watch, "resource"), number(watch, "told_at")
    silent = max(0.0, now - told_at) if told_at is not None else None
    because = "" if required(watch, "problem") is None else f": {text(watch, 'problem')}"
    last = "never said anything of it" if silent is None else f"last word {duration(silent)} ago"
    if not flag(watch, "running"):
        return Finding(FAIL, CHECK, f"the thread that watches {resource} has ended", RESTART)
    if flag(watch, "missing"):
        hint = f"install it: kubectl apply -f k8s/crd/{resource}.yaml"
        return Finding(WARN, CHECK, f"the API server has no resource {resource}{because}", hint)
    if not flag(watch, "synced"):
        hint = f"see that {server} answers this machine and knows its account; {MEANWHILE}"
        return Finding(WARN, CHECK, f"{resource} have not been listed since the daemon began{because}", hint)
    if not flag(watch, "connected"):
        hint = f"see that {server} answers this machine and knows its account; {MEANWHILE}"
        return Finding(WARN, CHECK, f"the API server tells of no changes of {resource}, {last}{because}", hint)
    if silent is None or silent > SILENT_SECONDS:
        hint = "restart aimd if it does not say more; compare the clocks"
        return Finding(WARN, CHECK, f"the API server is silent about {resource}, {last}, expected each minute", hint)
    return Finding(OK, CHECK, f"{resource}: {text(watch, 'objects')} of this node, {last}")


def _writes(writes: Object, problem: str | None, now: float) -> Iterator[Finding]:
    kind = text(writes, "kind")
    name, failing, dropped = NAMES.get(kind, kind), number(writes, "failing"), number(writes, "dropped")
    if failing:
        because = f": {shown(problem)}" if problem is not None else ""
        yield Finding(WARN, CHECK, f"{name} cannot be written{because}", "it is tried again until it succeeds")
    if dropped and kind != "event":
        message = f"{dropped:g} writes of {name} were given up since the daemon began"
        yield Finding(WARN, CHECK, message, "the log says what the API server does not accept")
    done_at = number(writes, "done_at")
    if kind == "node" and not failing:
        when = f"made sure of {duration(max(0.0, now - done_at))} ago" if done_at is not None else "not written yet"
        yield Finding(OK, CHECK, f"{name}: {when}")


def _in_the_way(cluster: Object) -> Iterator[Finding]:
    synced = all(flag(watch, "synced") or flag(watch, "missing") for watch in items(cluster, "watches"))
    if required(cluster, "conflicting_managers") is None:
        if synced:
            message = "it is not known yet whether another manager of partitions is on the node"
            yield Finding(WARN, CHECK, message, "the account needs get of nodes and list of resourceslices")
    else:
        for rival in texts(cluster, "conflicting_managers"):
            hint = "aimd changes no mode of the node as long as it is there: remove it, or leave the modes to it"
            yield Finding(WARN, CHECK, rival, hint)
    if required(cluster, "spec_refused") is not None:
        message = f"the spec of the node's NodePartitions is not carried out: {text(cluster, 'spec_refused')}"
        yield Finding(WARN, CHECK, message, f"correct it: kubectl edit nodepartitions {text(cluster, 'node')}")
    refused = item(cluster, "pods_refused")
    for pod in sorted(refused):
        message = f"pod {shown(pod)} gets no partition: {text(refused, pod)}"
        yield Finding(WARN, CHECK, message, "correct the annotations or spec.gpuSharing of what makes the pod")
