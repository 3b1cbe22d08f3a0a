"""What the native core has beside the contract: bounds, memory, latencies, snapshots that do not stop it."""

import os
import random
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from aimd._native.bench import bench_life
from aimd.dispatch.core import NativeCore
from aimd.dispatch.values import Class, Kind, Limits, ModelConfig, Outcome, PartitionConfig, PartitionSnapshot

PROJECT = Path(__file__).parents[2]
SMALL = Limits(partitions=2, models=4, requests=200, leases=40, connections=4, requests_per_connection=150)
SLOTS = 4


def core_with(*models, capacity=SLOTS, **kwargs):
    core = NativeCore(SMALL)
    core.configure(0, 0, PartitionConfig(models or (ModelConfig(0),), capacity, queue_cap=100, **kwargs))
    return core, core.open(1)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("bound", "most"),
    [
        ("partitions", 4096),
        ("models", 4096),
        ("requests", 2**24),
        ("leases", 65536),
        ("connections", 2**18),
        ("requests_per_connection", 2**31 - 1),
    ],
)
def test_bounds_have_their_ranges(bound, most):
    for wrong in (0, -1, most + 1):
        with pytest.raises(
            ValueError, match=f"{bound} of a core's limits is {wrong}: an integer from 1 to {most} is expected"
        ):
            NativeCore(replace(SMALL, **{bound: wrong}))


@pytest.mark.parametrize("bound", ["partitions", "models", "leases", "connections"])
def test_the_largest_bounds_work(bound):
    most = {"partitions": 4096, "models": 4096, "leases": 65536, "connections": 2**18}[bound]
    core = NativeCore(replace(Limits(), models=64, requests=1000, leases=100) if bound == "connections" else Limits())
    del core
    core = NativeCore(replace(SMALL, **{bound: most}))
    core.configure(0, 0, PartitionConfig((ModelConfig(0),), 4, queue_cap=10))
    connection = core.open(1)
    assert core.acquire(0, connection, 1, 0, 0)[0][0] == Kind.GRANTED


def test_a_bound_that_would_be_passed_is_named():
    core, _ = core_with()
    with pytest.raises(ValueError, match="partition 1 brings the requests to 205: the core has room for 200"):
        core.configure(0, 1, PartitionConfig((), 1, queue_cap=100))
    with pytest.raises(ValueError, match="partition 1 brings the leases to 41: the core has room for 40"):
        core.configure(0, 1, PartitionConfig((), 37, queue_cap=1))
    with pytest.raises(ValueError, match="partition 1 brings the models to 5: the core has room for 4"):
        core.configure(0, 1, PartitionConfig(tuple(map(ModelConfig, range(4))), 1, queue_cap=1))
    core.configure(0, 1, PartitionConfig((), 1, queue_cap=1))
    with pytest.raises(ValueError, match="partition 2 brings the partitions to 3: the core has room for 2"):
        core.configure(0, 2, PartitionConfig((), 1, queue_cap=1))


def test_memory_that_cannot_be_had_is_an_error():
    script = """
        import resource
        from aimd.dispatch.core import NativeCore
        from aimd.dispatch.values import Limits
        resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))
        try:
            NativeCore(Limits())
        except MemoryError as error:
            print(error)
    """
    result = run_script(script)
    assert "memory cannot be had" in result.stdout


def run_script(script, **environment):
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True, check=True)


def test_untouched_memory_is_not_resident():
    before = resident_bytes()
    core = NativeCore(Limits())
    used = resident_bytes() - before
    assert core.memory_bytes > 10 * used
    assert used < 16 * 2**20


def test_latencies_are_those_that_were_lived():
    core, connection = core_with(ModelConfig(0), ModelConfig(1, guarantee=1))
    dice = random.Random(1)
    now, queue, service, total = 0, [], [], []
    submitted, running = {}, {}
    for number in range(400):
        now += dice.randrange(10**6)
        submitted[number] = now
        events = core.acquire(now, connection, number, 0, 0, Class.LOW, now + 10**12)
        if number >= SLOTS:
            lease = dice.choice(sorted(running))
            now += dice.randrange(10**6)
            granted, asked = running.pop(lease)
            service.append(now - granted)
            total.append(now - asked)
            events += core.release(now, connection, lease, dice.random() < 0.5)
        for event in events:
            if event[0] == Kind.GRANTED:
                asked = submitted.pop(event[2])
                queue.append(now - asked)
                running[event[3]] = now, asked
    told, silent = core.latencies()
    assert (told.partition, told.model, silent.model) == (0, 0, 1)
    for sketch, lived in ((told.queue, queue), (told.service, service), (told.total, total)):
        low = sketch[Class.LOW]
        assert (low.count, low.total, low.largest) == (len(lived), sum(lived), max(lived))
        for fraction in (0.1, 0.5, 0.9, 0.99):
            exact = sorted(lived)[-int(-fraction * len(lived) // 1) - 1]
            assert abs(low.quantile(fraction) - exact) * 128 <= exact
        assert sketch[Class.HIGH].count == sketch[Class.MEDIUM].count == 0
    assert silent.reclaim.count == 0


def test_reclaim_latency_is_the_time_below_the_guarantee_with_something_waiting():
    core, connection = core_with(ModelConfig(0), ModelConfig(1, guarantee=2))
    leases = [core.acquire(0, connection, number, 0, 0)[0][3] for number in range(SLOTS)]
    for number in range(3):
        core.acquire(100, connection, 10 + number, 0, 1, start_by=10**9)
    core.release(150, connection, leases[0])
    core.release(400, connection, leases[1])  # now at its guarantee
    core.release(700, connection, leases[2])  # excess: nothing is reclaimed
    sketch = core.latencies()[1].reclaim
    assert (sketch.count, sketch.total) == (1, 300)


def test_nobody_reclaims_what_nobody_waits_for_any_more():
    core, connection = core_with(ModelConfig(0), ModelConfig(1, guarantee=2))
    for number in range(SLOTS):
        core.acquire(0, connection, number, 0, 0)
    core.acquire(100, connection, 10, 0, 1, start_by=10**9)
    core.cancel(200, connection, 10)
    assert core.latencies()[1].reclaim.count == 0


def test_a_snapshot_is_of_its_beginning_whatever_happens_meanwhile():
    for step in (1, 2, 7):
        core, connection = core_with(ModelConfig(0), ModelConfig(1, guarantee=1))
        core.configure(0, 1, PartitionConfig((ModelConfig(0),), 4, queue_cap=50))
        busy(core, connection, 0, 1)
        before, latencies = core.snapshot(), plain_latencies(core.latencies())
        stepped = core.begin_snapshot()
        busy(core, connection, 1, 2)
        assert stepped.step(step)
        busy(core, connection, 2, 20)
        assert core.snapshot() != before  # the whole one is of now, and does not disturb the stepped one
        core.remove_partition(core.now, 1)
        core.configure(core.now, 1, PartitionConfig((), 3, queue_cap=50))
        busy(core, connection, 3, 20)
        while stepped.step(step):
            core.acquire(core.now, connection, 10**6, 0, 99)
        busy(core, connection, 5, 20)
        assert stepped.read() == before
        assert plain_latencies(stepped.latencies()) == latencies
        assert plain_latencies(core.latencies()) != latencies
        core._check()


def plain_latencies(models):
    """What the sketches tell."""
    told = []
    for one in models:
        sketches = (*one.queue, *one.service, *one.total, one.reclaim)
        told.append((one.partition, one.model, [(s.count, s.total, s.largest, s.values()) for s in sketches]))
    return told


def test_sums_of_latencies_do_not_wrap():
    core, connection = core_with(lease_max_ns=1 << 62)
    end = (1 << 62) - 1
    for number in range(5):
        core.acquire(0, connection, number, 0, 0, Class.LOW, start_by=1 << 62)
    leases = [record.lease for record in core.leases()]
    for lease in leases:
        core.release(end, connection, lease)
    (told,) = core.latencies()
    assert told.service[Class.LOW].total == SLOTS * end
    core.release(2 * end, connection, core.leases()[0].lease)
    (told,) = core.latencies()
    assert told.total[Class.LOW].total == SLOTS * end + 2 * end > 1 << 64


def busy(core, connection, round_, count):
    for number in range(count):
        now = core.now + 1000
        events = core.acquire(now, connection, 1000 * round_ + number, number % 2, number % 3, number % 3, now + 5000)
        if events[0][0] == Kind.GRANTED and number % 2:
            core.release(now + 300, connection, events[0][3])


def test_a_dropped_model_leaves_no_latencies_to_the_next():
    core, connection = core_with(ModelConfig(0))
    lease = core.acquire(0, connection, 1, 0, 0)[0][3]
    core.release(5, connection, lease)
    core.configure(5, 0, PartitionConfig((ModelConfig(1),), SLOTS, queue_cap=50))
    core.configure(5, 0, PartitionConfig((ModelConfig(1), ModelConfig(2)), SLOTS, queue_cap=50))
    assert [one.model for one in core.latencies()] == [1, 2]
    assert all(sketch.count == 0 for one in core.latencies() for sketch in (*one.queue, *one.service, *one.total))
    (place,) = core.snapshot().partitions
    assert isinstance(place, PartitionSnapshot)
    assert all(sum(map(sum, model.outcomes)) == 0 for model in place.models)


def test_who_is_turned_away_is_told_the_pace_of_grants():
    core, connection = core_with(ModelConfig(0, queue_cap=5), capacity=1)
    lease = core.acquire(0, connection, 0, 0, 0)[0][3]
    for number in range(1, 6):
        core.acquire(0, connection, number, 0, 0, start_by=10**15)
    assert core.acquire(0, connection, 100, 0, 0, start_by=10**15)[0][3] == Outcome.QUEUE_FULL_MODEL
    assert core._hint() == 0  # a single grant has no pace
    for number in range(6, 40):
        lease = core.release(1000 * number, connection, lease)[1][3]
        core.acquire(1000 * number, connection, number, 0, 0, start_by=10**15)
    core.acquire(40_000, connection, 100, 0, 0, start_by=10**15)
    assert 0.9 < core._hint() / (6 * 1000) < 1.2
    core.release(10**13, connection, lease)
    core.acquire(10**13, connection, 101, 0, 0, start_by=10**15)
    core.acquire(10**13, connection, 102, 0, 0, start_by=10**15)
    assert core._hint() == 30 * 10**9  # at most


COUNTER = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stddef.h>
    static volatile long calls;
    long allocation_count(void) { return calls; }
    #define COUNTED(result, name, parameters, arguments) \\
        result name parameters { \\
            static result (*real) parameters; \\
            if (!real) real = (result (*) parameters)dlsym(RTLD_NEXT, #name); \\
            __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED); \\
            return real arguments; \\
        }
    COUNTED(void *, malloc, (size_t size), (size))
    COUNTED(void *, realloc, (void *old, size_t size), (old, size))
    COUNTED(void *, aligned_alloc, (size_t align, size_t size), (align, size))
    COUNTED(void *, mmap, (void *at, size_t size, int p, int f, int fd, long off), (at, size, p, f, fd, off))
"""


def test_nothing_is_allocated_after_the_start(tmp_path):
    """A life of all kinds of calls allocates as often when it is two hundred times as long."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc for a malloc that counts")
    source, library = tmp_path / "counter.c", tmp_path / "counter.so"
    source.write_text(textwrap.dedent(COUNTER))
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    script = """
        import ctypes, sys
        from aimd._native.bench import bench_cycle, bench_life
        count = ctypes.CDLL(None).allocation_count
        count.restype = ctypes.c_long
        def allocations(run, n):
            before = count()
            run(n)
            return count() - before
        for run in (bench_life, lambda n: bench_cycle(n, 1000, 4, True)):
            run(10)
            print(allocations(run, 1_000), allocations(run, 200_000))
    """
    lines = run_script(script, LD_PRELOAD=str(library), PYTHONMALLOC="malloc").stdout.splitlines()
    for line in lines:
        short, long = map(int, line.split())
        assert abs(long - short) <= 16  # the ints of what is returned, larger or smaller
    assert len(lines) == 2


def test_memory_stays_flat_over_many_operations():
    bench_life(300_000)
    before = resident_bytes()
    for seed in range(5):
        bench_life(200_000, seed)
    assert resident_bytes() - before < 2**20


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_memory_stays_flat_over_ten_million_operations():
    """By the core's own calls from C, and a tenth of it through Python."""
    bench_life(1_000_000)
    before = resident_bytes()
    bench_life(10_000_000, 7)
    assert resident_bytes() - before < 2**20
    core, connection = core_with()
    for number in range(1_100_000):
        if number == 100_000:
            before = resident_bytes()
        events = core.acquire(number, connection, number, 0, 0, number % 3)
        if events[0][0] == Kind.GRANTED:
            core.release(number, connection, events[0][3])
    assert resident_bytes() - before < 2**20
