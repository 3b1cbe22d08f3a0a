/* Measures what native/DESIGN.md says about alternatives: arity and layout of the heap, structure of a lane.
 *
 *     gcc -O3 -o build/measure native/alternatives/measure.c && build/measure
 *
 * Each number is the median of rounds that are shorter than a time slice, in nanoseconds per pop and push with n
 * entries in the structure. Nothing of this is part of aimd.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST 131072
#define NONE UINT32_MAX
#define ROUNDS 301
#define TURNS 1000

typedef struct { int64_t when; uint32_t slot; uint32_t unused; } node;

static uint64_t state = 88172645463325252u;
static uint64_t draw(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

/* ---------------------------------------------------------------------- records, as the core has them: 64 bytes */

typedef struct { int64_t when; uint64_t seq; uint32_t prev, next, child, place; char rest[32]; } record;
static record records[MOST];
static uint32_t count;

/* -------------------------------------------------------------------------- d-ary heaps with keys in the heap */

static _Alignas(64) node storage[MOST + 64];
static node *heap;

#define DARY(D)                                                                                      \
    static void up##D(uint32_t place, node moved) {                                                  \
        while (place) {                                                                              \
            uint32_t parent = (place - 1) / D;                                                       \
            if (!(moved.when < heap[parent].when)) break;                                            \
            heap[place] = heap[parent];                                                              \
            records[heap[place].slot].place = place;                                                 \
            place = parent;                                                                          \
        }                                                                                            \
        heap[place] = moved;                                                                         \
        records[moved.slot].place = place;                                                           \
    }                                                                                                \
    static void push##D(uint32_t slot) {                                                             \
        node added = {records[slot].when, slot, 0};                                                  \
        up##D(count++, added);                                                                       \
    }                                                                                                \
    static uint32_t pop##D(void) {                                                                   \
        uint32_t first = heap[0].slot, place = 0;                                                    \
        node moved = heap[--count];                                                                  \
        for (;;) {                                                                                   \
            uint32_t child = D * place + 1, best = child;                                            \
            if (child >= count) break;                                                               \
            uint32_t end = child + D < count ? child + D : count;                                    \
            for (uint32_t other = child + 1; other < end; other++)                                   \
                if (heap[other].when < heap[best].when) best = other;                                \
            if (!(heap[best].when < moved.when)) break;                                              \
            heap[place] = heap[best];                                                                \
            records[heap[place].slot].place = place;                                                 \
            place = best;                                                                            \
        }                                                                                            \
        heap[place] = moved;                                                                         \
        records[moved.slot].place = place;                                                           \
        return first;                                                                                \
    }
DARY(2)
DARY(4)
DARY(8)

/* --------------------------------------------------- 4-ary heap of slot numbers, the keys stay in the records */

static uint32_t indirect[MOST];

static void push_indirect(uint32_t slot) {
    uint32_t place = count++;
    while (place) {
        uint32_t parent = (place - 1) / 4;
        if (!(records[slot].when < records[indirect[parent]].when)) break;
        indirect[place] = indirect[parent];
        records[indirect[place]].place = place;
        place = parent;
    }
    indirect[place] = slot;
    records[slot].place = place;
}

static uint32_t pop_indirect(void) {
    uint32_t first = indirect[0], moved = indirect[--count], place = 0;
    for (;;) {
        uint32_t child = 4 * place + 1, best = child;
        if (child >= count) break;
        uint32_t end = child + 4 < count ? child + 4 : count;
        for (uint32_t other = child + 1; other < end; other++)
            if (records[indirect[other]].when < records[indirect[best]].when) best = other;
        if (!(records[indirect[best]].when < records[moved].when)) break;
        indirect[place] = indirect[best];
        records[indirect[place]].place = place;
        place = best;
    }
    indirect[place] = moved;
    records[moved].place = place;
    return first;
}

/* ------------------------------------------------------------------------------------- intrusive pairing heap */

static uint32_t root = NONE;

static uint32_t pair(uint32_t a, uint32_t b) {
    if (records[b].when < records[a].when) { uint32_t c = a; a = b; b = c; }
    records[b].prev = a;
    records[b].next = records[a].child;
    if (records[a].child != NONE) records[records[a].child].prev = b;
    records[a].child = b;
    return a;
}

static void push_pairing(uint32_t slot) {
    records[slot].child = records[slot].next = records[slot].prev = NONE;
    root = root == NONE ? slot : pair(root, slot);
    count++;
}

static uint32_t pop_pairing(void) {
    uint32_t first = root, pairs = NONE, child = records[root].child;
    while (child != NONE) {
        uint32_t a = child, b = records[a].next;
        child = b == NONE ? NONE : records[b].next;
        records[a].next = NONE;
        if (b != NONE) { records[b].next = NONE; a = pair(a, b); }
        records[a].next = pairs;
        pairs = a;
    }
    root = NONE;
    while (pairs != NONE) {
        uint32_t following = records[pairs].next;
        records[pairs].next = NONE;
        root = root == NONE ? pairs : pair(root, pairs);
        pairs = following;
    }
    if (root != NONE) records[root].prev = records[root].next = NONE;
    count--;
    return first;
}

/* ----------------------------------------------------------------------- list sorted by insertion from the tail */

static uint32_t head = NONE, tail = NONE;

static void push_list(uint32_t slot) {
    uint32_t before = tail;
    while (before != NONE && records[slot].when < records[before].when) before = records[before].prev;
    records[slot].prev = before;
    records[slot].next = before == NONE ? head : records[before].next;
    if (before == NONE) head = slot; else records[before].next = slot;
    if (records[slot].next == NONE) tail = slot; else records[records[slot].next].prev = slot;
    count++;
}

static uint32_t pop_list(void) {
    uint32_t first = head;
    head = records[first].next;
    if (head == NONE) tail = NONE; else records[head].prev = NONE;
    count--;
    return first;
}

/* --------------------------------------------- what the core does: list for those in order, heap for the late */

static uint32_t listed;

static void push_lane(uint32_t slot) {
    if (tail == NONE || records[slot].when >= records[tail].when) {
        records[slot].prev = tail;
        records[slot].next = NONE;
        if (tail == NONE) head = slot; else records[tail].next = slot;
        tail = slot;
        listed++;
    } else {
        push4(slot);
    }
}

static uint32_t pop_lane(void) {
    if (count == 0 || (head != NONE && records[head].when <= heap[0].when)) {
        uint32_t first = head;
        head = records[first].next;
        if (head == NONE) tail = NONE; else records[head].prev = NONE;
        listed--;
        return first;
    }
    return pop4();
}

/* ---------------------------------------------------------------------------------------------------- measuring */

typedef struct { const char *name; void (*push)(uint32_t); uint32_t (*pop)(void); } structure;

/* `late` of a thousand arrivals want to go earlier than their turn, by up to the whole queue. */
static double measure(structure one, uint32_t size, uint32_t late) {
    static double times[ROUNDS];
    static uint32_t order[MOST];
    int64_t now = 0;
    count = listed = 0;
    root = head = tail = NONE;
    heap = storage + 3;
    for (uint32_t slot = 0; slot < size; slot++) order[slot] = slot;
    for (uint32_t slot = size; slot > 1; slot--) {      /* slots are not in the order of memory after a while */
        uint32_t other = draw() % slot, kept = order[slot - 1];
        order[slot - 1] = order[other];
        order[other] = kept;
    }
    for (uint32_t number = 0; number < size; number++) {
        int64_t spread = draw() % 1000 < late ? draw() % size : 0;
        records[order[number]].when = ++now + size - spread;
        one.push(order[number]);
    }
    for (int round = -ROUNDS / 2; round < ROUNDS; round++) {
        int64_t begin = clock_ns();
        for (int turn = 0; turn < TURNS; turn++) {
            uint32_t slot = one.pop();
            int64_t spread = draw() % 1000 < late ? draw() % size : 0;
            records[slot].when = ++now + size - spread;
            one.push(slot);
        }
        if (round >= 0) times[round] = (double)(clock_ns() - begin) / TURNS;
    }
    qsort(times, ROUNDS, sizeof *times, ascending);
    return times[ROUNDS / 2];
}

static void table(const char *title, const structure *ones, uint32_t late) {
    static const uint32_t sizes[] = {100, 1000, 10000, 100000};
    printf("%-34s", title);
    for (int size = 0; size < 4; size++) printf("%10u", sizes[size]);
    printf("\n");
    for (; ones->name; ones++) {
        printf("  %-32s", ones->name);
        for (int size = 0; size < 4; size++)
            if (ones->push == push_list && late && sizes[size] > 10000) printf("%10s", "-");
            else printf("%10.1f", measure(*ones, sizes[size], late));
        printf("\n");
    }
}

int main(void) {
    static const structure heaps[] = {
        {"2-ary, keys in the heap", push2, pop2}, {"4-ary, keys in the heap", push4, pop4},
        {"8-ary, keys in the heap", push8, pop8}, {"4-ary, keys in the records", push_indirect, pop_indirect}, {0}};
    static const structure lanes[] = {
        {"list and 4-ary heap", push_lane, pop_lane}, {"4-ary heap alone", push4, pop4},
        {"pairing heap", push_pairing, pop_pairing}, {"sorted list", push_list, pop_list}, {0}};
    table("heaps, all at random", heaps, 1000);
    table("lanes, all in order", lanes, 0);
    table("lanes, 1 % late", lanes, 10);
    table("lanes, all at random", lanes, 1000);
    return 0;
}
