# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Measures the dispatch core from C, without the GIL and without Python in between; for tests/benchmarks only.

Each function makes a core of its own, brings it into a state, and returns nanoseconds. Time inside the core is an
argument that this module makes up: one microsecond per cycle. An argument out of its range raises ValueError.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from aimd._native.core cimport (
    GRANTED_EVENT, WOULD_BLOCK, Bounds, Core, Event, Lease, ModelSpec, PartitionSpec, core_acquire, core_adopt,
    core_advance, core_cancel, core_configure, core_disconnect, core_drain, core_exited, core_free, core_new, core_open,
    core_release, core_remove, core_renew, freeze_begin, freeze_step)

include "compiler.pxi"
include "sketch.pxi"

cdef enum:
    MODELS = 4
    SLOTS = 16
    MICROSECOND = 1000
    LIFE_CONNECTIONS = 16
    LIFE_MODELS = 8
    LIFE_PARTITIONS = 4
    MOST_MODELS = 64
    MOST_TURNS = 1_000_000_000
    MOST_WAITING = 8_000_000        # twice so many and some are the core's bound of requests
    MOST_ROUNDS = 1_000_000

cdef extern from *:
    const int64_t HOUR "(INT64_C(3600) * 1000 * 1000 * 1000)"


cdef inline int64_t clock_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef uint32_t within(str name, object value, uint32_t least, uint32_t most) except? 0xFFFFFFFF:
    if not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r}: an integer from {least} to {most} is expected")
    return <uint32_t>value


cdef inline uint64_t next_random(uint64_t* state) noexcept nogil:
    """xorshift64*"""
    cdef uint64_t x = state[0]
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    state[0] = x
    return (x * <uint64_t>0x2545F4914F6CDD1D) >> 11


# A core with one partition, and the loop's own memory.
cdef struct Bench:
    Core* core
    uint32_t connection
    int64_t now
    uint64_t request
    uint64_t random
    uint32_t models
    bint mixed                  # start_by at random instead of in order of arrival
    uint64_t running[SLOTS]
    uint32_t oldest


cdef int bench_start(Bench* bench, uint32_t waiting, uint32_t models, bint mixed) noexcept nogil:
    cdef Bounds bounds
    cdef PartitionSpec partition
    cdef ModelSpec specs[64]
    cdef uint32_t number, klass
    memset(bench, 0, sizeof(Bench))
    bench.mixed = mixed
    bench.models = models
    bench.random = 88172645463325252
    bounds.partitions = 1
    bounds.models = models
    bounds.requests = 2 * waiting + 4096
    bounds.leases = 64
    bounds.connections = 4
    bounds.requests_per_connection = 0x7FFFFFFF
    bench.core = core_new(bounds, 1)
    if bench.core == NULL:
        return -1
    memset(specs, 0, sizeof(specs))
    for number in range(models):
        specs[number].id = number
        specs[number].guarantee = 2 if number == 0 else 0
        specs[number].limit = SLOTS
        specs[number].weight = number % 5 + 1
        specs[number].queue_cap = waiting + 1024
        specs[number].default_class = 1
        for klass in range(3):
            specs[number].budget[klass] = HOUR
    partition.id = 0
    partition.capacity = SLOTS
    partition.queue_cap = waiting + 1024
    partition.lease_max = HOUR
    partition.orphan_grace = HOUR
    partition.model_count = models
    partition.models = specs
    if core_configure(bench.core, 0, &partition) != 0:
        return -2
    bench.connection = <uint32_t>core_open(bench.core, 1, 0)
    return 0


cdef int bench_begin(Bench* bench, uint32_t waiting, uint32_t models, bint mixed) except -1:
    if bench_start(bench, waiting, models, mixed) != 0:
        core_free(bench.core)
        raise MemoryError("no core to measure")
    return 0


cdef int64_t* times_new(uint32_t count) except NULL:
    cdef int64_t* times = <int64_t*>calloc(<size_t>count + 1, sizeof(int64_t))
    if times == NULL:
        raise MemoryError("no memory for the measurements")
    return times


cdef inline void bench_note(Bench* bench) noexcept nogil:
    """Remember what was granted, in place of the oldest lease."""
    cdef const Event* event
    cdef uint64_t number
    for number in range(bench.core.event_count):
        event = &bench.core.events[number]
        if event.kind == GRANTED_EVENT:
            bench.running[bench.oldest] = event.lease
            bench.oldest = (bench.oldest + 1) % SLOTS


cdef inline void bench_arrive(Bench* bench) noexcept nogil:
    cdef uint64_t drawn = next_random(&bench.random)
    cdef int64_t start_by = -1
    if bench.mixed:
        start_by = bench.now + HOUR + <int64_t>(drawn >> 16) % HOUR
    bench.request += 1
    bench.now += MICROSECOND
    core_acquire(bench.core, bench.now, bench.connection, bench.request, 0, drawn % bench.models,
                 (drawn >> 8) % 3, start_by, 0)
    bench_note(bench)


cdef inline void bench_release(Bench* bench) noexcept nogil:
    core_release(bench.core, bench.now, bench.connection, bench.running[bench.oldest], True)
    bench_note(bench)


cdef int bench_fill(Bench* bench, uint32_t waiting) noexcept nogil:
    """All slots are busy and so many wait; with 0 waiting one slot is free."""
    while bench.core.waiting < waiting or bench.core.running < SLOTS - (waiting == 0):
        bench_arrive(bench)
    if waiting == 0:
        bench.oldest = 0
    return 0


cdef void bench_turn(Bench* bench, bint idle) noexcept nogil:
    """A full cycle: acquire, grant, release. With somebody waiting the grant follows from the release."""
    if idle:
        bench.oldest = SLOTS - 1
        bench_arrive(bench)
        bench.oldest = SLOTS - 1
        bench_release(bench)
    else:
        bench_release(bench)
        bench_arrive(bench)


def bench_cycle(n, waiting, models=MODELS, bint mixed=False, rounds=1):
    """Nanoseconds per full cycle with `waiting` requests waiting all the time: the median of `rounds` of n cycles.

    On a machine that others use, too, choose n so that a round is shorter than a time slice.
    """
    cdef Bench bench
    cdef uint32_t turns = within("n", n, 1, MOST_TURNS)
    cdef uint32_t queued = within("waiting", waiting, 0, MOST_WAITING)
    cdef uint32_t each = within("models", models, 1, MOST_MODELS)
    cdef uint32_t count = within("rounds", rounds, 1, MOST_ROUNDS)
    cdef uint32_t turn, _
    cdef int64_t begin
    cdef int64_t* times = times_new(count)
    try:
        bench_begin(&bench, queued, each, mixed)
        with nogil:
            bench_fill(&bench, queued)
            for turn in range(count):
                begin = clock_ns()
                for _ in range(turns):
                    bench_turn(&bench, queued == 0)
                times[turn] = clock_ns() - begin
        core_free(bench.core)
        found = sorted([<double>times[turn] / <double>turns for turn in range(count)])
        return found[count // 2]
    finally:
        free(times)


def bench_decision(n, waiting, models=MODELS, bint mixed=False):
    """Sorted nanoseconds from a release to the next grant, measured one by one (a call of the clock included)."""
    cdef Bench bench
    cdef uint32_t turns = within("n", n, 1, MOST_TURNS // 10)
    cdef uint32_t queued = within("waiting", waiting, 1, MOST_WAITING)
    cdef uint32_t each = within("models", models, 1, MOST_MODELS)
    cdef uint32_t number
    cdef int64_t begin
    cdef int64_t* times = times_new(turns)
    try:
        bench_begin(&bench, queued, each, mixed)
        with nogil:
            bench_fill(&bench, queued)
            for number in range(turns):
                begin = clock_ns()
                core_release(bench.core, bench.now, bench.connection, bench.running[bench.oldest], True)
                times[number] = clock_ns() - begin
                bench_note(&bench)
                bench_arrive(&bench)
        core_free(bench.core)
        return sorted([times[number] for number in range(turns)])
    finally:
        free(times)


def bench_expiry(waiting, double fraction):
    """(nanoseconds, number): this fraction of `waiting` requests expires in one call; others wait for long."""
    cdef Bench bench
    cdef uint32_t queued = within("waiting", waiting, 1, MOST_WAITING)
    cdef uint32_t number
    cdef int64_t begin = 0
    cdef int64_t end = 0
    cdef int64_t start_by
    cdef uint32_t expiring
    cdef uint64_t done = 0
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction is {fraction}: 0 to 1 is expected")
    expiring = <uint32_t>(queued * fraction)
    bench_begin(&bench, queued, MODELS, False)
    with nogil:
        bench_fill(&bench, 1)
        for number in range(queued):
            bench.request += 1
            bench.now += MICROSECOND
            # The due ones are spread over all arrivals and over 100 ms.
            start_by = HOUR
            if <uint64_t>number * expiring // queued != (<uint64_t>number + 1) * expiring // queued:
                start_by = HOUR // 2 + <int64_t>number * MICROSECOND % (100 * 1000 * MICROSECOND)
            core_acquire(bench.core, bench.now, bench.connection, bench.request, 0, number % MODELS, number % 3,
                         start_by, 0)
        begin = clock_ns()
        core_advance(bench.core, HOUR // 2 + 200 * 1000 * MICROSECOND)
        end = clock_ns()
        done = bench.core.event_count
    core_free(bench.core)
    return end - begin, done


# Many partitions of models that are all in use.
cdef struct Node:
    Core* core
    uint32_t connection
    uint32_t partitions
    uint32_t models
    int64_t now
    uint64_t request
    uint64_t random


cdef int node_start(Node* node, uint32_t partitions, uint32_t models) noexcept nogil:
    cdef Bounds bounds
    cdef PartitionSpec partition
    cdef ModelSpec specs[MOST_MODELS]
    cdef uint32_t number, klass
    memset(node, 0, sizeof(Node))
    node.random = 88172645463325252
    node.partitions = partitions
    node.models = models
    bounds.partitions = partitions
    bounds.models = partitions * models
    bounds.requests = partitions * (SLOTS + 64)
    bounds.leases = partitions * SLOTS
    bounds.connections = 4
    bounds.requests_per_connection = 0x7FFFFFFF
    node.core = core_new(bounds, 1)
    if node.core == NULL:
        return -1
    memset(specs, 0, sizeof(specs))
    for number in range(models):
        specs[number].id = number
        specs[number].limit = SLOTS
        specs[number].weight = 1
        specs[number].queue_cap = 64
        for klass in range(3):
            specs[number].budget[klass] = HOUR
    partition.capacity = SLOTS
    partition.queue_cap = 64
    partition.lease_max = HOUR
    partition.orphan_grace = HOUR
    partition.model_count = models
    partition.models = specs
    for number in range(partitions):
        partition.id = number
        if core_configure(node.core, 0, &partition) != 0:
            return -2
    node.connection = <uint32_t>core_open(node.core, 1, 0)
    return 0


cdef inline void node_acquire(Node* node, uint64_t drawn) noexcept nogil:
    core_acquire(node.core, node.now, node.connection, node.request, (drawn >> 34) % node.partitions,
                 (drawn >> 42) % node.models, (drawn >> 50) % 3, node.now + HOUR, 0)


cdef void node_turn(Node* node) noexcept nogil:
    """A request somewhere, and the release of some lease, after a time of any magnitude."""
    cdef uint64_t drawn = next_random(&node.random)
    cdef const Lease* lease = &node.core.leases[(drawn >> 20) % (node.partitions * SLOTS)]
    node.now += <int64_t>(next_random(&node.random) & ((<uint64_t>1 << (drawn & 15)) - 1))
    node.request += 1
    node_acquire(node, drawn)
    if lease.live:
        core_release(node.core, node.now, node.connection, lease.id, True)


def bench_snapshot(partitions, models, rounds, blocks=4):
    """How long a snapshot in steps keeps others out of the core, everything in use and dispatching going on between.

    Nanoseconds by the wall, in a dict. `begin`, `step`, `call`: the longest begin, step, and request with release
    between two steps (which copies what it is the first to write to), when for each step the least of the rounds is
    taken: what the work itself takes at most. `step_99`, `step_99_99`, `step_most`: quantiles and maximum of all steps;
    `idle_most`: the longest of as many steps that do nothing, which is the machine's part of `step_most`. `first_most`:
    the longest of the first round, in which the copy's pages are new. `steps`: their number in one snapshot.
    """
    cdef Node node
    cdef uint32_t places = within("partitions", partitions, 1, 1024)
    cdef uint32_t each = within("models", models, 1, MOST_MODELS)
    cdef uint32_t count = within("rounds", rounds, 1, MOST_ROUNDS)
    cdef uint32_t pieces = within("blocks", blocks, 1, MOST_ROUNDS)
    cdef uint32_t _turn, _
    cdef int64_t start
    cdef int64_t begin = HOUR
    cdef int64_t idle = 0
    cdef bint more
    cdef list steps = []
    cdef list calls = []
    if places * each > 4096:
        raise ValueError(f"{places} partitions of {each} models: 4096 models in all are expected at most")
    if node_start(&node, places, each) != 0:
        core_free(node.core)
        raise MemoryError("no core to measure")
    try:
        for _ in range(places * each * 400):
            node_turn(&node)
        for _turn in range(count):
            one_step, one_call = [], []
            start = clock_ns()
            freeze_begin(node.core)
            begin = min(begin, clock_ns() - start)
            more = True
            while more:
                start = clock_ns()
                more = freeze_step(node.core, pieces)
                one_step.append(clock_ns() - start)
                start = clock_ns()
                node_turn(&node)
                one_call.append(clock_ns() - start)
                start = clock_ns()
                idle = max(idle, clock_ns() - start)
            steps.append(one_step)
            calls.append(one_call)
    finally:
        core_free(node.core)
    every = sorted([time for one in steps for time in one])
    return {
        "begin": begin, "step": max([min(times) for times in zip(*steps)]),
        "call": max([min(times) for times in zip(*calls)]),
        "step_99": every[len(every) * 99 // 100], "step_99_99": every[len(every) * 9999 // 10000],
        "step_most": every[len(every) - 1], "idle_most": idle, "first_most": max(steps[0]), "steps": len(steps[0])}


def bench_sketch(n, rounds=101):
    """Nanoseconds per value recorded in a latency sketch, n different ones from 1 ns to 17 s: the median of rounds."""
    cdef uint32_t size = within("n", n, 1, MOST_WAITING)
    cdef uint32_t count = within("rounds", rounds, 1, MOST_ROUNDS)
    cdef uint64_t* values = <uint64_t*>calloc(size, sizeof(uint64_t))
    cdef int64_t* times = <int64_t*>calloc(count, sizeof(int64_t))
    cdef uint64_t* cells = <uint64_t*>calloc(SKETCH_USED, sizeof(uint64_t))
    cdef uint64_t random = 88172645463325252
    cdef uint32_t number, turn
    cdef int64_t begin
    try:
        if values == NULL or times == NULL or cells == NULL:
            raise MemoryError("no memory for the measurements")
        with nogil:
            for number in range(size):
                values[number] = next_random(&random) >> (19 + next_random(&random) % 34)
            for turn in range(count):
                begin = clock_ns()
                for number in range(size):
                    cells[sketch_cell(values[number])] += 1
                times[turn] = clock_ns() - begin
        found = sorted([<double>times[turn] / <double>size for turn in range(count)])
        return found[count // 2]
    finally:
        free(values)
        free(times)
        free(cells)


cdef void life_configure(Core* core, int64_t now, uint64_t drawn) noexcept nogil:
    """A partition of a random size with random models; the core may refuse it."""
    cdef PartitionSpec partition
    cdef ModelSpec specs[LIFE_MODELS]
    cdef uint32_t number, klass
    partition.id = drawn % LIFE_PARTITIONS
    partition.capacity = 1 + (drawn >> 4) % 24
    partition.queue_cap = 1 << ((drawn >> 9) % 10)
    partition.lease_max = 1 + (<int64_t>1 << ((drawn >> 13) % 24 + 8))
    partition.orphan_grace = 1 + (<int64_t>1 << ((drawn >> 18) % 20))
    partition.model_count = 1 + (drawn >> 23) % (LIFE_MODELS - 1)
    partition.models = specs
    for number in range(partition.model_count):
        specs[number].id = number
        specs[number].guarantee = partition.capacity // partition.model_count if (drawn >> number) & 1 else 0
        specs[number].limit = partition.capacity - (drawn >> (number + 3)) % 2 * (partition.capacity // 2)
        if specs[number].limit < specs[number].guarantee:
            specs[number].limit = specs[number].guarantee
        specs[number].weight = 1 + (drawn >> (number + 11)) % 1000
        specs[number].queue_cap = 1 << ((drawn >> (number + 5)) % 11)
        specs[number].default_class = (drawn >> (number + 7)) % 3
        specs[number].latency_target = 1 << 20
        for klass in range(3):
            specs[number].budget[klass] = 1 + (<int64_t>1 << ((drawn >> (number + klass)) % 30))
    core_configure(core, now, &partition)


cdef void life_step(Core* core, int64_t now, uint64_t drawn, uint64_t number) noexcept nogil:
    """One random call, of the wrong ones, too."""
    cdef uint32_t move = drawn & 127
    cdef int64_t start_by = -1
    cdef uint32_t connection = (drawn >> 7) % LIFE_CONNECTIONS
    cdef uint32_t slot = (drawn >> 11) % 16 if drawn >> 60 & 3 else (drawn >> 11) % core.bounds.leases
    cdef const Lease* lease = &core.leases[slot]        # low slots are rarely free
    if move < 60:
        if drawn >> 50 & 1:
            start_by = now + (<int64_t>(drawn >> 26) & ((1 << ((drawn >> 30) % 24)) - 1))
        core_acquire(core, now, connection, number, (drawn >> 19) % LIFE_PARTITIONS,
                     (drawn >> 21) % LIFE_MODELS & (drawn >> 16), <int>((drawn >> 24) % 4) - 1, start_by,
                     WOULD_BLOCK if (drawn >> 51) % 16 == 0 else 0)
    elif move < 90:
        core_release(core, now, connection if (drawn >> 40 & 7) == 0 or lease.connection >= LIFE_CONNECTIONS
                     else lease.connection, lease.id, (drawn >> 41 & 7) != 0)
    elif move < 105:
        core_cancel(core, now, connection, number - (drawn >> 12) % 4096)
    elif move < 112:
        core_renew(core, now, connection, lease.id)
    elif move < 115:
        core_adopt(core, now, connection, lease.id)
    elif move < 121:
        core_advance(core, now)
    elif move < 124:
        core_open(core, <int64_t>(drawn >> 12) % 8, (drawn >> 16) % 8 == 0)
    elif drawn >> 11 & 31:
        core_advance(core, now)
    elif move == 124:
        core_disconnect(core, now, connection, drawn >> 16 & 1)
    elif move == 125:
        core_exited(core, now, <int64_t>(drawn >> 12) % 8)
    elif move == 126:
        life_configure(core, now, drawn >> 12)
    elif drawn >> 21 & 7:
        core_drain(core, now, (drawn >> 19) % LIFE_PARTITIONS, (drawn >> 17 & 3) == 0)
    else:
        core_remove(core, now, (drawn >> 19) % LIFE_PARTITIONS)


def bench_life(n, seed=1, requests=2500):
    """A random life of `n` calls of all kinds; events by kind. Raises AssertionError where T1 or T7 do not hold."""
    cdef Bounds bounds
    cdef Core* core
    cdef uint32_t calls = within("n", n, 0, MOST_TURNS)
    cdef uint32_t room = within("requests", requests, 4, MOST_WAITING)
    cdef uint64_t random = within("seed", seed, 0, MOST_TURNS) * <uint64_t>2654435761 + 88172645463325252
    cdef uint64_t _, number, drawn, event
    cdef uint64_t kinds[10]
    cdef int64_t now = 0
    cdef bint broken = False
    memset(kinds, 0, sizeof(kinds))
    bounds.partitions = LIFE_PARTITIONS
    bounds.models = LIFE_PARTITIONS * LIFE_MODELS
    bounds.requests = room
    bounds.leases = 128
    bounds.connections = LIFE_CONNECTIONS
    bounds.requests_per_connection = room // 4
    core = core_new(bounds, 1)
    if core == NULL:
        raise MemoryError("no core to measure")
    with nogil:
        for _ in range(LIFE_PARTITIONS):
            life_configure(core, 0, next_random(&random))
        for number in range(calls):
            drawn = next_random(&random) ^ (next_random(&random) << 32)
            if drawn >> 52 & 3 == 0:
                now += <int64_t>(next_random(&random) & ((<uint64_t>1 << (drawn >> 54 & 15)) - 1))
            life_step(core, now, drawn, number)
            for event in range(core.event_count):
                kinds[core.events[event].kind] += 1
            if number % 4096 == 0:
                freeze_begin(core)
            elif number % 4096 < 2048:
                freeze_step(core, 2)
            broken = broken or core.waiting > room or core.running > bounds.leases
    counts = [kinds[event] for event in range(10)]
    running = core.running
    core_free(core)
    assert not broken, "T1"
    # Each lease that began has ended or runs.
    assert counts[1] == counts[3] + counts[4] + counts[5] + running, f"T7: {counts}, {running} running"
    return counts
