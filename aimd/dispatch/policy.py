"""Configuration of a dispatch core: what a partition may be told, and slots from shares such as "25%". Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from aimd.dispatch.bounds import (
    MAX_DURATION,
    MAX_GENERATION,
    MAX_ID,
    MAX_INSTANT,
    MAX_SLOTS,
    MIN_INT64,
    check_number,
)
from aimd.dispatch.values import SLOT_BITS, Class, LeaseRecord, ModelConfig, PartitionConfig
from aimd.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class ModelShares:
    """A model of a partition as an operator writes it.

    Attributes:
        name: as it is called in messages.
        config: all but guarantee and limit, which are taken from here.
        guarantee: slots (`4`) or a share of the capacity (`"25%"`).
        limit: slots or a share; None: the capacity.
    """

    name: str
    config: ModelConfig
    guarantee: int | str = 0
    limit: int | str | None = None


def share(text: str, name: str) -> Fraction:
    """`"25%"` as 1/4.

    Raises:
        InvalidInputError: the text is no number followed by `%`, or not within 0 % .. 100 %.
    """
    number = text.strip().removesuffix("%").strip()
    if text.strip().endswith("%") and number.replace(".", "", 1).isdecimal():
        value = Fraction(number) / 100
        if value <= 1:
            return value
    raise InvalidInputError(f"{name}: {text!r} is no share: a number of slots or 0% to 100% is expected")


def percent(value: Fraction) -> str:
    """The value as a percentage with two decimals, rounded up, without needless zeros."""
    hundredths = -(-value * 10_000 // 1)
    return f"{hundredths // 100}.{hundredths % 100:02d}".rstrip("0").rstrip(".") + "%"


def seats(shares: Sequence[Fraction], capacity: int) -> list[int]:
    """Slots by largest remainder: `floor(capacity * sum)` in all; equal remainders go to the earlier one."""
    quotas = [capacity * part for part in shares]
    slots = [int(quota) for quota in quotas]
    left = int(sum(quotas)) - sum(slots)
    for index in sorted(range(len(quotas)), key=lambda index: slots[index] - quotas[index])[:left]:
        slots[index] += 1
    return slots


def smallest_share(shares: Sequence[Fraction], index: int, capacity: int) -> Fraction | None:
    """The smallest share of this model, in hundredths of a percent, with which every non-zero share comes to a slot.

    None if the others leave none. Tried one after the other: a larger share can take the slot of another model.
    """
    for hundredths in range(int((1 - sum(shares) + shares[index]) * 10_000) + 1):
        tried = [*shares[:index], Fraction(hundredths, 10_000), *shares[index + 1 :]]
        found = seats(tried, capacity)
        if found[index] and all(seat for part, seat in zip(tried, found, strict=True) if part):
            return Fraction(hundredths, 10_000)
    return None


def guarantees(models: Sequence[ModelShares], capacity: int) -> list[int]:
    """Guaranteed slots of each model.

    Raises:
        InvalidInputError: a share is malformed, a non-zero one would come to nothing, or the sum exceeds the capacity.
    """
    shared = [index for index, model in enumerate(models) if isinstance(model.guarantee, str)]
    shares = [share(str(models[index].guarantee), f"guarantee of {models[index].name}") for index in shared]
    if sum(shares) > 1:
        raise InvalidInputError(f"guarantees come to {percent(Fraction(sum(shares)))}, a partition has 100%")
    slots = [0 if isinstance(model.guarantee, str) else model.guarantee for model in models]
    for position, (index, seat) in enumerate(zip(shared, seats(shares, capacity), strict=True)):
        slots[index] = seat
        if shares[position] and not seat:
            raise refusal(models[index], smallest_share(shares, position, capacity), capacity)
    if sum(slots) > capacity:
        raise InvalidInputError(f"guarantees come to {sum(slots)} slots, the partition has {capacity}")
    return slots


def refusal(model: ModelShares, works: Fraction | None, capacity: int) -> InvalidInputError:
    fact = f"guarantee of {model.name}: {model.guarantee} of {capacity} slots comes to none"
    if works is None:
        return InvalidInputError(fact, hint="The other guarantees leave no slot: lower one of them.")
    return InvalidInputError(fact, hint=f"The smallest share that works here is {percent(works)}.")


def partition_config(models: Sequence[ModelShares], partition: PartitionConfig) -> PartitionConfig:
    """The partition with these models, their shares as slots.

    A limit of share l becomes `max(guarantee, ceil(l * capacity))`.

    Raises:
        InvalidInputError: as `guarantees`, or a value is out of its range.
    """
    capacity = partition.capacity
    configs = []
    for model, guarantee in zip(models, guarantees(models, capacity), strict=True):
        limit = model.limit
        if isinstance(limit, str):
            part = share(limit, f"limit of {model.name}")
            limit = max(guarantee, -int(-part * capacity // 1))
        configs.append(replace(model.config, guarantee=guarantee, limit=limit))
    config = replace(partition, models=tuple(configs))
    try:
        check_partition(0, config)
    except ValueError as error:
        raise InvalidInputError(str(error)) from error
    return config


def check_partition(partition: int, config: PartitionConfig) -> None:
    """Raises ValueError for the first value of a configuration that a core refuses."""
    where = f"partition {partition}"
    _within(where, "id", partition, 0, MAX_ID)
    _within(where, "capacity", config.capacity, 1, MAX_SLOTS)
    _within(where, "queue_cap", config.queue_cap, 0, MAX_ID)
    _within(where, "lease_max_ns", config.lease_max_ns, 1, MAX_DURATION)
    _within(where, "orphan_grace_ns", config.orphan_grace_ns, 1, MAX_DURATION)
    for model in config.models:
        _check_model(f"{where}, model {model.model}", model, config.capacity)
    if len({model.model for model in config.models}) < len(config.models):
        raise ValueError(f"{where} names a model twice")
    guaranteed = sum(model.guarantee for model in config.models)
    if guaranteed > config.capacity:
        raise ValueError(f"{where} has {config.capacity} slots, its models are guaranteed {guaranteed}")


def check_record(now: int, record: LeaseRecord) -> None:
    """Raises ValueError for the first value of a lease that no core can have written before `now`."""
    where = f"lease {record.lease} to restore"
    _within(where, "id", record.lease, 1 << SLOT_BITS, (MAX_GENERATION + 1 << SLOT_BITS) - 1)
    _within(where, "partition", record.partition, 0, MAX_ID)
    _within(where, "model", record.model, 0, MAX_ID)
    _within(where, "class", record.klass, Class.HIGH, Class.LOW)
    _within(where, "process", record.process, MIN_INT64, MAX_INSTANT)
    _within(where, "started", record.started, 0, now)
    _within(where, "deadline", record.deadline, record.started, MAX_INSTANT)


def _check_model(where: str, model: ModelConfig, capacity: int) -> None:
    limit = capacity if model.limit is None else model.limit
    _within(where, "id", model.model, 0, MAX_ID)
    _within(where, "limit", limit, 1, MAX_SLOTS)
    _within(where, "guarantee", model.guarantee, 0, limit)
    _within(where, "weight", model.weight, 1, 1000)
    _within(where, "queue_cap", model.queue_cap, 0, MAX_ID)
    _within(where, "default_class", model.default_class, Class.HIGH, Class.LOW)
    _within(where, "latency_target_ns", model.latency_target_ns, 0, MAX_DURATION)
    if len(model.budget_ns) != len(Class):
        raise ValueError(f"{where} has {len(model.budget_ns)} wait budgets, one per class is expected")
    for budget in model.budget_ns:
        _within(where, "budget_ns", budget, 1, MAX_DURATION)


def _within(where: str, what: str, value: int, least: int, most: int) -> None:
    check_number(f"{where}: {what}", value, least, most)
