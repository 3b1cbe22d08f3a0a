"""From claims and their traffic to messages."""

from __future__ import annotations

from aimd.domain.claim import Claim, QosClass
from aimd.domain.node import NodeSnapshot
from aimd.domain.slo import Compliance
from aimd.domain.traffic import Flow, ModelTraffic, Quantiles, Stage, Traffic, TrafficBoard
from aimd.protocol import models as msg
from aimd.protocol.claims import SloMessage


def model_message(claim: Claim, snapshot: NodeSnapshot, board: TrafficBoard | None) -> msg.ModelMessage:
    """The claim's model, with the traffic that the board has of it."""
    found = board.models.get(claim.name) if board is not None else None
    spec, slo = claim.spec, claim.spec.slo
    return msg.ModelMessage(
        name=claim.name,
        state=claim.state.value,
        qos=spec.qos.value,
        replicas=spec.replicas,
        guarantee=spec.guarantee,
        limit=spec.limit,
        weight=spec.weight,
        slo=SloMessage(
            latency_seconds=slo.latency_seconds, objective=slo.objective, throughput_floor=slo.throughput_floor
        ),
        traffic=traffic_message(found.whole) if found is not None else None,
        compliance=compliance_message(found.whole.compliance) if found is not None else None,
        partitions=_places(claim, snapshot, found),
    )


def _places(claim: Claim, snapshot: NodeSnapshot, found: ModelTraffic | None) -> list[msg.ModelPlaceMessage]:
    names = {status.gpu.pci_address: status.name for status in snapshot.gpus}
    messages = []
    for key, there in sorted(claim.places.items()):
        traffic = found.places.get(key) if found is not None else None
        messages.append(
            msg.ModelPlaceMessage(
                partition=str(key),
                partition_name=f"{names.get(key.gpu, '?')}/{key.index}",
                pci_address=key.gpu,
                index=key.index,
                replicas=len(there),
                guarantee=sum(one.guarantee for one in there),
                limit=None if claim.spec.limit is None else claim.spec.limit * len(there),
                weight=claim.spec.weight,
                traffic=traffic_message(traffic) if traffic is not None else None,
                compliance=compliance_message(traffic.compliance) if traffic is not None else None,
            )
        )
    return messages


def traffic_message(traffic: Traffic) -> msg.TrafficMessage:
    return msg.TrafficMessage(
        since=round(traffic.since, 3),
        slots=traffic.slots,
        whole=_flow(traffic.whole),
        high=_flow(traffic.classes[QosClass.HIGH]),
        medium=_flow(traffic.classes[QosClass.MEDIUM]),
        low=_flow(traffic.classes[QosClass.LOW]),
    )


def _flow(flow: Flow) -> msg.FlowMessage:
    counts = flow.counts
    return msg.FlowMessage(
        running=counts.running,
        waiting=counts.waiting,
        outcomes=dict(counts.outcomes),
        ends=dict(counts.ends),
        good=counts.good,
        bad=counts.bad,
        grants_per_second=round(flow.grants_per_second, 3),
        rejected_per_second=round(flow.rejected_per_second, 3),
        queue=_quantiles(flow.latencies[Stage.QUEUE]),
        service=_quantiles(flow.latencies[Stage.SERVICE]),
        total=_quantiles(flow.latencies[Stage.TOTAL]),
    )


def _quantiles(found: Quantiles) -> msg.QuantilesMessage:
    return msg.QuantilesMessage(count=found.count, p50=found.p50, p95=found.p95, p99=found.p99)


def compliance_message(compliance: Compliance | None) -> msg.ComplianceMessage | None:
    if compliance is None:
        return None
    return msg.ComplianceMessage(
        latency=compliance.latency.value,
        good_ratio=compliance.good_ratio,
        throughput=compliance.throughput.value,
        released_per_second=compliance.released_per_second,
        burns=[
            msg.BurnMessage(
                long_seconds=burn.long_seconds,
                short_seconds=burn.short_seconds,
                threshold=burn.threshold,
                severity=burn.severity.value,
                long=burn.long,
                short=burn.short,
                firing=burn.firing,
            )
            for burn in compliance.burns
        ],
        alert=compliance.alert.value if compliance.alert is not None else None,
    )
