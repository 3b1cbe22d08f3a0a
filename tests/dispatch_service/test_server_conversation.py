"""What is said on the dispatch socket when all goes as it should, frame by frame."""

import os
import time
from dataclasses import replace

import pytest

from aimd.dispatch import End, Limits, ModelConfig, Outcome, PartitionConfig
from aimd.dispatch.server import Caps
from aimd.protocol import frames
from aimd.protocol.frames import Adopted, Denied, Ended, FrameKind, Granted, Opened, Queued, Refused, Released, Renewed
from tests.dispatch_service.hosting import SECOND, stat_fields
from tests.dispatch_service.talking import Talk

MS = 1_000_000


def test_a_conversation(host, talk):
    client = talk(hello=False)
    client.say(frames.hello(), frames.open_model(2**64 - 1, "llama"))  # without waiting for the answer
    welcome, opened = client.hear_many(2)
    assert welcome.version == 1
    assert welcome.requests == 1024
    assert welcome.handles == 256
    assert welcome.instance
    assert opened == Opened(2**64 - 1, 0, 0, 1, 2, 600 * SECOND, "0000:05:00.0/0")
    granted = client.acquire(0, 2**63 - 1)
    assert granted == Granted(2**63 - 1, granted.lease, 1, 600 * SECOND, guaranteed=False)
    client.say(frames.release(granted.lease), frames.release(granted.lease))
    assert client.hear_many(2) == [Released(granted.lease), Refused(granted.lease, 1, FrameKind.RELEASE)]
    assert host.check_balance() == (1, 1)


def test_acquires_are_pipelined_and_those_that_wait_are_granted_by_release(host, talk):
    client = talk()
    handle = client.open()
    client.say(*(frames.acquire(handle, request) for request in range(5)))
    first, second, *queued = client.hear_many(5)
    assert queued == [Queued(2), Queued(3), Queued(4)]
    client.say(frames.release(second.lease), frames.release(first.lease, frames.ReleaseFlag.QUIET))
    released, third, fourth = client.hear_many(3)
    assert (released, third.request, fourth.request) == (Released(second.lease), 2, 3)
    client.say(frames.cancel(4), frames.cancel(4))
    assert client.hear_many(2) == [Ended(4, Outcome.CANCELLED, 0), Refused(4, 1, FrameKind.CANCEL)]
    assert host.server.busy(0) == (2, 0)


def test_frames_that_arrive_byte_by_byte(host, talk):
    client = talk(hello=False)

    def spell(frame):
        for byte in frame:
            client.say(bytes([byte]))
            time.sleep(0.0003)  # so that the server sees the beginnings
        return client.hear()

    assert spell(frames.hello()).version == 1
    assert spell(frames.open_model(1, "a model that is not there")).outcome == Outcome.UNKNOWN_MODEL
    assert spell(frames.open_model(1, "llama")).handle == 0
    lease = spell(frames.acquire(0, 1)).lease
    assert spell(frames.release(lease)) == Released(lease)
    client.say(frames.acquire(0, 2) + frames.acquire(0, 3) + frames.acquire(0, 4)[:31])
    assert [client.hear().request, client.hear().request, client.silent()] == [2, 3, True]
    client.say(frames.acquire(0, 4)[31:] + frames.cancel(4)[:1])
    assert client.hear() == Queued(4)


def test_flags_of_acquire_and_release(host, talk):
    client = talk()
    handle = client.open()
    leases = [client.lease(handle, request) for request in range(2)]
    assert client.acquire(handle, 5, flags=frames.AcquireFlag.NO_WAIT) == Ended(5, Outcome.WOULD_BLOCK, 0)
    client.say(frames.acquire(handle, 6, flags=frames.AcquireFlag.QUIET))
    assert client.silent()
    client.say(frames.release(leases[0], frames.ReleaseFlag.QUIET | frames.ReleaseFlag.FAILED))
    assert client.hear().request == 6
    model = host.model()
    assert model.ends[1][End.FAILED] == 1
    assert model.bad[1] == 1
    assert model.outcomes[1][Outcome.WOULD_BLOCK] == 1


def test_class_and_default_class(host, talk):
    client = talk()
    handle = client.open()
    assert [client.acquire(handle, 1, klass=klass).klass for klass in (0, 255)] == [0, 1]


def test_a_class_above_what_is_allowed(make_host):
    host = make_host(highest=1)
    client = Talk(host.path)
    handle = client.open()
    assert client.acquire(handle, 1, klass=0) == Ended(1, Outcome.UNAUTHORISED, 0)
    assert client.acquire(handle, 1, klass=1).klass == 1


def test_two_handles_of_one_connection_have_their_own_rights(make_host):
    host = make_host(answering=False)
    client = Talk(host.path)
    for highest in (2, 0):
        client.say(frames.open_model(highest, "llama"))
        while not (questions := host.server.questions()):
            time.sleep(0.001)
        host.names["other"] = (0, 0)
        host.answer(questions[0], highest=highest, default_class=highest)
        assert client.hear().highest == highest
    assert client.acquire(0, 1, klass=0).klass == 0  # the same model: the same handle, with what it may now


def test_expiry_is_answered_within_a_tick(host, talk):
    client = talk()
    handle = client.open()
    for request in range(2):
        client.lease(handle, request)
    late = []
    for request in range(20):
        wait = (3 + request % 7) * MS
        began = time.monotonic_ns()
        client.say(frames.acquire(handle, 100 + request, wait, flags=frames.AcquireFlag.QUIET))
        assert client.hear() == Ended(100 + request, Outcome.EXPIRED, 0)
        late.append(time.monotonic_ns() - began - wait)
    assert min(late) >= 0  # T6: never before its time
    assert sorted(late)[10] < 5 * MS  # a tick is 1 ms; the rest is this machine's


def test_a_wait_of_nothing_has_passed(host, talk):
    client = talk()
    assert client.acquire(client.open(), 1, 0) == Ended(1, Outcome.DEADLINE_PASSED, 0)


def test_the_longest_wait(host, talk):
    client = talk()
    handle = client.open()
    for request in range(2):
        client.lease(handle, request)
    assert client.acquire(handle, 2, frames.MAX_WAIT_NS) == Queued(2)


def test_renew(host, talk):
    client = talk()
    lease = client.lease(client.open())
    client.say(frames.renew(lease), frames.renew(lease + 1), frames.renew(0), frames.renew(2**64 - 1))
    assert client.hear_many(4) == [
        Renewed(lease, 600 * SECOND),
        Refused(lease + 1, 1, FrameKind.RENEW),
        Refused(0, 1, FrameKind.RENEW),
        Refused(2**64 - 1, 1, FrameKind.RENEW),
    ]


def test_renew_is_refused_while_a_guarantee_is_not_met(make_host):
    models = (ModelConfig(0, guarantee=1), ModelConfig(1))
    host = make_host(partitions={0: PartitionConfig(models, capacity=2)}, names={"sure": (0, 0), "excess": (0, 1)})
    client = Talk(host.path)
    sure, excess = client.open("sure"), client.open("excess")
    leases = [client.lease(excess, request) for request in range(2)]
    assert client.acquire(sure, 5) == Queued(5)
    client.say(frames.renew(leases[0]))
    assert client.hear() == Refused(leases[0], 2, FrameKind.RENEW)
    client.say(frames.release(leases[0]))
    assert [client.hear(), client.hear().guaranteed] == [Released(leases[0]), True]


def test_a_lease_ends_with_its_life(make_host):
    config = PartitionConfig((ModelConfig(0),), capacity=1, lease_max_ns=30 * MS)
    host = make_host(partitions={0: config})
    client = Talk(host.path)
    handle = client.open()
    lease = client.lease(handle)
    assert client.acquire(handle, 2) == Queued(2)
    taken, granted = client.hear_many(2)
    assert taken == frames.Taken(lease, End.REVOKED)
    assert granted.request == 2
    client.say(frames.release(lease))
    assert client.hear() == Refused(lease, 1, FrameKind.RELEASE)
    host.until(lambda numbers: numbers["mirrored"] == 0)
    assert host.model().ends[1][End.REVOKED] == 2


def test_unknown_models_are_denied_with_a_sentence(host, talk):
    client = talk()
    for model in ("no", "n" * 253, "ü" * 126):
        client.say(frames.open_model(9, model, "0000:05:00.0/3"))
        assert client.hear() == Denied(9, Outcome.UNKNOWN_MODEL, f"there is no model {model!r}"[:460])


def test_a_question_says_who_asks_for_what(make_host):
    host = make_host(answering=False)
    client = Talk(host.path)
    client.say(frames.open_model(3, "a model", "0000:05:00.0/3"), frames.open_model(4, "ü"))
    while len(questions := host.server.questions()) < 1:
        time.sleep(0.001)
    assert next((one.model, one.partition) for one in questions) == ("a model", "0000:05:00.0/3")
    fields = stat_fields()
    assert (questions[0].pid, questions[0].start_time) == (os.getpid(), int(fields[19]))
    assert (questions[0].uid, questions[0].gid) == (os.geteuid(), os.getegid())


def test_answers_that_come_late_twice_or_for_another(make_host):
    host = make_host(answering=False)
    first = Talk(host.path)
    first.say(frames.open_model(1, "llama"))
    while not (questions := host.server.questions()):
        time.sleep(0.001)
    first.close()
    host.until(lambda numbers: numbers["connections"] == 0)
    second = Talk(host.path)  # takes the first one's place in the table
    second.say(frames.open_model(2, "llama"))
    while not (own := host.server.questions()):
        time.sleep(0.001)
    assert own[0].key[0] == questions[0].key[0]
    host.answer(questions[0])
    host.server.deny(questions[0], Outcome.UNAUTHORISED, "no")
    assert second.silent()
    host.answer(own[0])
    host.answer(own[0])
    host.server.deny(own[0], Outcome.UNAUTHORISED, "no")
    opened = second.hear()
    assert (opened.tag, opened.handle) == (2, 0)
    assert second.silent()
    second.say(*(frames.open_model(tag, "llama") for tag in range(16)))  # the sixteen are still to be had
    assert second.silent()


def test_answers_without_a_dispatch_thread(make_host):
    """Mail is carried out by whoever brings it before the thread begins and after it has ended."""
    host = make_host(start=False)
    assert host.server.busy(0) == (0, 0)
    assert host.numbers()["connections"] == 0
    assert host.server.latencies()
    host.start()
    assert host.server.snapshot().partitions
    ended = []
    host.server._raw.stop()
    host.server._thread.join()
    ended.append(host.server.busy(0))
    assert host.server.snapshot().partitions
    assert host.server.latencies()
    assert ended == [(0, 0)]


def test_handles_of_a_model_that_is_gone_are_used_again(make_host):
    limits_of_handles = 256
    models = tuple(ModelConfig(number) for number in range(limits_of_handles + 1))
    host = make_host(
        partitions={0: PartitionConfig(models, capacity=2)},
        names={f"m{number}": (0, number) for number in range(limits_of_handles + 1)},
    )
    client = Talk(host.path)
    assert [client.open(f"m{number}") for number in range(limits_of_handles)] == list(range(limits_of_handles))
    assert client.open("m7") == 7
    client.say(frames.open_model(1, "m256"))
    denied = client.hear()
    assert denied.outcome == Outcome.WOULD_BLOCK
    assert "256" in denied.message
    host.server.configure(0, PartitionConfig(models[:9] + models[10:], capacity=2))
    host.server.configure(0, PartitionConfig(models[:9] + models[10:], capacity=2))  # forgets what was removed
    assert client.open("m256") == 256 + 9
    assert client.acquire(9, 1) == Ended(1, Outcome.MODEL_GONE, 0)
    assert client.acquire(256 + 9, 1).request == 1


def test_revalidate_takes_handles_back(host, talk):
    client = talk()
    handle = client.open()
    lease = client.lease(handle)
    host.server.revalidate()
    assert client.acquire(handle, 2) == Ended(2, Outcome.MODEL_GONE, 0)
    client.say(frames.renew(lease))
    assert client.hear() == Renewed(lease, 600 * SECOND)
    assert client.open() == handle
    assert client.acquire(handle, 2).request == 2


def test_drain_and_remove(host, talk):
    client = talk()
    handle = client.open()
    leases = [client.lease(handle, request) for request in range(2)]
    assert [client.acquire(handle, request) for request in (2, 3)] == [Queued(2), Queued(3)]
    host.server.drain(0, draining=True)
    assert client.acquire(handle, 4) == Ended(4, Outcome.DRAINING, 0)
    client.say(frames.release(leases[0], frames.ReleaseFlag.QUIET))
    assert client.hear().request == 2
    assert host.server.busy(0) == (2, 1)
    host.server.remove(0)
    assert client.hear() == Ended(3, Outcome.PARTITION_GONE, 0)
    assert client.acquire(handle, 5) == Ended(5, Outcome.UNKNOWN_PARTITION, 0)
    client.say(frames.release(leases[1]))
    assert client.hear() == Released(leases[1])
    host.server.configure(0, host.partitions[0])
    assert client.acquire(handle, 6).request == 6
    host.check_balance()


def test_a_model_that_is_denied_and_allowed_again(host, talk):
    client = talk()
    handle = client.open()
    lease = client.lease(handle, 0)
    config = host.partitions[0]
    client.lease(handle, 1)
    assert client.acquire(handle, 2) == Queued(2)
    denied = replace(config, models=tuple(replace(model, denied=True) for model in config.models))
    host.server.configure(0, denied)
    assert client.hear() == Ended(2, Outcome.MEMORY_OVERRUN, 0)
    client.say(frames.release(lease))
    assert client.hear() == Released(lease)
    assert client.acquire(handle, 3) == Ended(3, Outcome.MEMORY_OVERRUN, 0)
    host.server.configure(0, config)
    assert client.acquire(handle, 4).request == 4
    assert sum(counts[Outcome.MEMORY_OVERRUN] for counts in host.model().outcomes) == 2
    host.check_balance()


def test_undrain_and_a_capacity_that_grows(host, talk):
    client = talk()
    handle = client.open()
    host.server.drain(0, draining=True)
    assert client.acquire(handle, 1).outcome == Outcome.DRAINING
    host.server.drain(0, draining=False)
    for request in range(2):
        client.lease(handle, request)
    assert client.acquire(handle, 2) == Queued(2)
    host.server.configure(0, PartitionConfig((ModelConfig(0),), capacity=3))
    assert client.hear().request == 2
    with pytest.raises(ValueError, match="room for 4096"):
        host.server.configure(1, PartitionConfig((ModelConfig(0),), capacity=4096))


def test_statistics_and_latencies(host, talk):
    client = talk()
    client.say(frames.release(client.lease(client.open())))
    client.hear()
    numbers = host.numbers()
    assert numbers["connections"] == numbers["callers"] == numbers["accepted"] == 1
    assert numbers["frames"] == 4
    assert numbers["faults"] == numbers["refused"] == numbers["mirrored"] == 0
    assert host.server.latencies()[0].total[1].count == 1


def test_another_instance_after_each_start(make_host):
    instances = []
    for _ in range(2):
        host = make_host()
        instances.append(Talk(host.path).welcome.instance)
        host.close()
    assert instances[0] != instances[1]


def test_a_blocking_listener_does_not_stop_the_service(make_host):
    host = make_host(start=False)
    host.start()
    assert not host.listener.getblocking()
    first = Talk(host.path)
    assert first.open() == 0
    assert host.server.busy(0) == (0, 0)


def test_the_end_of_the_server_is_an_end_of_file(make_host):
    host = make_host()
    client = Talk(host.path)
    client.lease(client.open())
    client.say(frames.acquire(0, 5), frames.acquire(0, 6))
    client.hear_many(2)
    host.close()
    assert client.rest() == []


def test_limits_out_of_range_are_refused(make_host):
    with pytest.raises(ValueError, match="connections of a dispatch service are 262144"):
        make_host(limits=Limits(connections=1 << 18))


def test_adopt_on_a_second_connection(host, talk):
    first, second = talk(), talk()
    handle = first.open()
    lease = first.lease(handle)
    first.close()
    host.until(lambda numbers: numbers["connections"] == 1)
    second.say(frames.adopt(lease))
    adopted = second.hear()
    assert isinstance(adopted, Adopted)
    assert adopted.lease == lease
    assert 590 * SECOND < adopted.lease_ns <= 600 * SECOND
    second.say(frames.release(lease))
    assert second.hear() == Released(lease)
    second.say(frames.adopt(lease))
    assert second.hear() == Refused(lease, 1, FrameKind.ADOPT)


def test_a_lease_can_be_released_on_any_connection_of_its_process(host, talk):
    first, second = talk(), talk()
    lease = first.lease(first.open())
    second.say(frames.release(lease))
    assert second.hear() == Released(lease)
    assert first.silent()


def test_fallback_without_the_kernels_pidfd(make_host):
    host = make_host(caps=Caps(peer_pidfd=False))
    client = Talk(host.path)
    assert client.lease(client.open())
    assert host.numbers()["callers"] == 1
