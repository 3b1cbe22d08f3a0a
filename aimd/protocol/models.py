"""Messages about models: their traffic at the dispatch service, and their service level.

Counts are since `since`, which is never before the start of the daemon; rates and latencies are of the last
`window_seconds`. null is "not known", as when nothing was read yet, or no latency was seen. Outcomes and ends are named
as in aimd/protocol/DISPATCH.md; one that is not there has not happened. Durations are seconds.
"""

from __future__ import annotations

from aimd.protocol.claims import SloMessage
from aimd.protocol.messages import Message


class QuantilesMessage(Message, frozen=True):
    """Of `count` latencies in seconds; off by 1/128 at most."""

    count: int
    p50: float | None
    p95: float | None
    p99: float | None


class FlowMessage(Message, frozen=True):
    """What went through.

    `running` and `waiting` are now. `outcomes` counts how acquires ended, `ends` how leases did, `good` and `bad` what the
    service level counts. Rejected are those that ended without a grant, but for cancelled ones and would_block.
    `queue` is from acquire to grant, `service` from grant to release, `total` both.
    """

    running: int
    waiting: int
    outcomes: dict[str, int]
    ends: dict[str, int]
    good: int
    bad: int
    grants_per_second: float
    rejected_per_second: float
    queue: QuantilesMessage
    service: QuantilesMessage
    total: QuantilesMessage


class TrafficMessage(Message, frozen=True):
    """What went through since `since` (seconds since the epoch): the whole, and by class.

    `slots` are those of the model's partitions, which other models there share.
    """

    since: float
    slots: int
    whole: FlowMessage
    high: FlowMessage
    medium: FlowMessage
    low: FlowMessage


class BurnMessage(Message, frozen=True):
    """A pair of windows: burn rates of the error budget (1 uses it up exactly) over the long and the short one.

    `firing` when both have reached the threshold, and enough was counted. A window is no longer than what was counted.
    """

    long_seconds: int
    short_seconds: int
    threshold: float
    severity: str
    long: float | None
    short: float | None
    firing: bool


class ComplianceMessage(Message, frozen=True):
    """Whether the objectives are met (met, missed, unknown): latency and throughput over the last hour.

    `released_per_second` is of the time with something waiting. `alert` is page, ticket or null.
    """

    latency: str
    good_ratio: float | None
    throughput: str
    released_per_second: float | None
    burns: list[BurnMessage]
    alert: str | None


class ModelPlaceMessage(Message, frozen=True):
    """A model on a partition, with all replicas there together; guarantee and limit (null: all slots) are slots."""

    partition: str
    partition_name: str
    pci_address: str
    index: int
    replicas: int
    guarantee: int
    limit: int | None
    weight: int
    traffic: TrafficMessage | None
    compliance: ComplianceMessage | None


class ModelMessage(Message, frozen=True):
    """A claim's model. `state` is the claim's, `qos` its class, guarantee and limit (null: all slots) are per replica.

    Without objectives in the claim there is no `compliance`; its objective is 0.99 where the claim has none but others.
    """

    name: str
    state: str
    qos: str
    replicas: int
    guarantee: int
    limit: int | None
    weight: int
    slo: SloMessage
    traffic: TrafficMessage | None
    compliance: ComplianceMessage | None
    partitions: list[ModelPlaceMessage]


class ModelListMessage(Message, frozen=True):
    """Answer of `GET /v1/models`. `sample` numbers what it was made of; it grows, across restarts too."""

    models: list[ModelMessage]
    window_seconds: float | None = None
    sample: int | None = None
