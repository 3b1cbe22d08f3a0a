"""Nobody gets into a core while a call is under way: finalizers wait, other threads get an error."""

import gc
import threading

import pytest

from aimd.dispatch import Kind, LeaseRecord, Limits, ModelConfig, NativeCore, Outcome, PartitionConfig

LIMITS = Limits(partitions=8, models=64, requests=4000, leases=64, connections=4, requests_per_connection=4000)


class Meddler:
    """Garbage in a ring that calls the core when it is collected."""

    def __init__(self, core, done):
        self.ring = self
        self.core = core
        self.done = done

    def __del__(self):
        try:
            self.done.append(self.core.acquire(self.core.now, 0, 10**6 + len(self.done), 0, 9))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to see it
            self.done.append(error)


@pytest.fixture
def core():
    core = NativeCore(LIMITS)
    models = tuple(ModelConfig(model, queue_cap=3000) for model in range(8))
    for partition in range(6):
        core.configure(0, partition, PartitionConfig(models, 4, queue_cap=600 if partition == 0 else 3))
    core.open(1)
    for request in range(604):
        core.acquire(0, 0, request, 0, 0, start_by=1000)
    return core


@pytest.fixture
def eager_collector():
    """Garbage is collected at nearly every allocation that the collector sees."""
    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)


def test_a_finalizer_waits_until_the_call_has_told_all(core, eager_collector):
    done = []
    for _ in range(20):
        Meddler(core, done)
        events = core.advance(1000)  # each event a tuple: room for many collections
        if events:
            assert [event[0] for event in events] == [Kind.ENDED] * 600
            assert {event[3] for event in events} == {Outcome.EXPIRED}
    gc.collect()
    assert len(done) == 20
    assert all(told[0][3] == Outcome.UNKNOWN_MODEL for told in done), done


@pytest.mark.parametrize("reading", ["snapshot", "latencies", "leases", "stepped"])
def test_a_finalizer_waits_until_all_is_read(core, eager_collector, reading):
    done = []
    expected = core.snapshot()
    gc.disable()
    Meddler(core, done)
    gc.enable()
    if reading == "stepped":
        stepped = core.begin_snapshot()
        while stepped.step():
            pass
        assert stepped.read().partitions == expected.partitions
    else:
        getattr(core, reading)()
    gc.collect()
    assert all(told[0][3] == Outcome.UNKNOWN_MODEL for told in done), done


def test_the_collector_is_left_as_it_was(core):
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            core.advance(2)
            core.snapshot()
            with pytest.raises(ValueError, match="lies before"):
                core.advance(1)
            assert gc.isenabled() == enabled
        finally:
            gc.enable()


CALLS = {
    "advance": (5,),
    "open": (1,),
    "acquire": (5, 0, 700, 0, 0),
    "release": (5, 0, 1 << 16),
    "renew": (5, 0, 1 << 16),
    "cancel": (5, 0, 4),
    "adopt": (5, 0, 1 << 16),
    "disconnect": (5, 0, True),
    "exited": (5, 1),
    "configure": (5, 0, PartitionConfig((), 4, queue_cap=3)),
    "remove_partition": (5, 0),
    "drain": (5, 0),
    "undrain": (5, 0),
    "restore": (5, ()),
    "leases": (),
    "snapshot": (),
    "latencies": (),
    "begin_snapshot": (),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_within_a_call_is_refused(core, call):
    """As another thread would find it, or a core that a server has for itself."""
    before = core.snapshot()
    core._occupy(True)
    with pytest.raises(RuntimeError, match="the core is inside another call or belongs to a server: expected one call"):
        getattr(core, call)(*CALLS[call])
    core._occupy(False)
    assert core.snapshot() == before
    core._check()
    if call != "restore":
        getattr(core, call)(*CALLS[call])


def test_steps_are_refused_but_the_complete_copy_is_read(core):
    before = core.snapshot()
    stepped = core.begin_snapshot()
    core._occupy(True)
    with pytest.raises(RuntimeError, match="one call at a time"):
        stepped.step()
    core._occupy(False)
    while stepped.step():
        pass
    core._occupy(True)
    assert stepped.read() == before
    assert stepped.latencies() != ()
    core._occupy(False)


def test_a_refused_call_does_not_lock_the_core(core):
    for call, arguments in (
        ("advance", (-1,)),
        ("acquire", (0, 3, 1, 0, 0)),
        ("acquire", (0, 0, 5, 0, 0)),
        ("drain", (0, 77)),
        ("configure", (0, 7, PartitionConfig((), 40_000))),
        ("restore", (0, [LeaseRecord(1 << 16, 0, 0, 0, 1, 0, 9)])),
    ):
        with pytest.raises(ValueError, match=" "):
            getattr(core, call)(*arguments)
        assert core.advance(0) == []
    for _ in range(3):
        core.open(2)
    with pytest.raises(ValueError, match="all 4 connections are open"):
        core.open(2)
    assert core.advance(0) == []


def test_threads_at_one_core_are_never_mixed_up(core):
    """The GIL lets one thread through a call at a time; each gets the answers to its own questions."""
    wrong = []

    def ask(connection):
        for number in range(3000):
            try:
                ((kind, who, request, outcome),) = core.acquire(core.now, connection, number, 5, 99)
            except RuntimeError:
                continue
            if (kind, who, request, outcome) != (Kind.ENDED, connection, number, Outcome.UNKNOWN_MODEL):
                wrong.append((connection, number))

    threads = [threading.Thread(target=ask, args=(core.open(process),)) for process in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
