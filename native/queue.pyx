# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""PriorityQueue: an indexed 4-ary heap with handles, for any Python objects.

The heap array holds keys and slot numbers side by side, so that sifting never leaves it; the slot table holds the
way back (position in the heap) and a generation, so that cancel and rekey find an entry in O(1) and a handle of an
entry that left names nothing. Items lie in a Python list at their slot's number: the list's own traversal shows them
to the garbage collector. See native/DESIGN.md.
"""

cimport cython
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_SET_ITEM
from cpython.long cimport PyLong_CheckExact
from cpython.number cimport PyNumber_Index
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from types import GenericAlias

include "heapkey.pxi"

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1

cdef enum:
    FIRST_CAPACITY = 60             # nodes; with the three unused in front 64 of them, 2 KiB
    LAST_GENERATION = 0x7FFFFFFF    # a slot that reached it is used no more: handles fit 63 bits and never repeat
    NO_SLOT = 0xFFFFFFFF
    MOST_CAPACITY = (63 << 24) - 3  # the last of the steps 60, 123, 249, ... whose child numbers fit 32 bits

# One slot of the table. While free, `place` is the next free slot.
cdef struct Slot:
    uint32_t place
    uint32_t generation


cdef inline int64_t int64_of(object value) except? -1:
    if not isinstance(value, int):
        value = PyNumber_Index(value)       # not a float, which Cython's conversion would cut
    return value                            # faster than the interpreter's own conversion


cdef inline int64_t as_int64(object value, str name) except? -1:
    """The usual int without a `try`, which would save and restore the exception that is being handled."""
    cdef int overflow = 0
    cdef int64_t number
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if not overflow:
            return number
    return unusual_int64(value, name)


cdef int64_t unusual_int64(object value, str name) except? -1:
    try:
        return int64_of(value)
    except OverflowError:
        raise OverflowError(
            f"{name} {value} does not fit a signed 64-bit integer: expected -2**63 to 2**63 - 1") from None
    except TypeError:
        raise TypeError(f"{name} is of type {type(value).__name__}: expected an int") from None


cdef int64_t unusual_handle(object handle) except? -1:
    """Of a subclass of int and the like; -1, which names nothing, for what is too large."""
    try:
        return int64_of(handle)
    except OverflowError:
        return -1
    except TypeError:
        raise TypeError(f"handle is of type {type(handle).__name__}: expected what push returned") from None


cdef class PriorityQueue:
    """Queue ordered by smaller priority, then earlier deadline, then insertion; entries can leave or move by handle.

    Priority and deadline are integers of 64 signed bits; their unit is the caller's. Items are any objects and are
    never compared. push, pop, cancel and rekey take O(log n), a push behind all others and peek O(1). Under the GIL
    each call is atomic; there is no blocking get.
    """

    cdef Node* heap                 # root at [0]; allocated three nodes earlier, see heapkey.pxi
    cdef Slot* slots
    cdef list items                 # by slot
    cdef uint64_t pushed
    cdef uint32_t count
    cdef uint32_t capacity
    cdef uint32_t used              # slots handed out at least once
    cdef uint32_t retired
    cdef uint32_t free_slot
    cdef uint32_t first_generation

    def __cinit__(self):
        self.items = []
        self.free_slot = NO_SLOT

    def __dealloc__(self):
        heap_free(self.heap)
        free(self.slots)

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __len__(self):
        return self.count

    def __bool__(self):
        return self.count != 0

    def __sizeof__(self):
        return object.__sizeof__(self) + self.capacity * (sizeof(Node) + sizeof(Slot))

    def push(self, item, priority=0, deadline=0):
        """Add `item` and return its handle, an int that is never given out again by this queue.

        The default deadline 0 comes before every positive one; 2**63 - 1 means last of its priority.
        Raises OverflowError for a priority or deadline outside 64 signed bits, TypeError for one that is no int.
        """
        cdef Node node
        cdef uint32_t slot
        node.key = heap_key(as_int64(priority, "priority"), as_int64(deadline, "deadline"))
        slot = <uint32_t>self.take_slot()
        node.seq = self.pushed
        node.slot = slot
        self.pushed += 1
        self.count += 1
        self.sift_up(self.count - 1, node)
        Py_INCREF(item)
        PyList_SET_ITEM(self.items, slot, item)
        Py_DECREF(None)                             # it stood there, and SET_ITEM forgets what it overwrites
        return (<int64_t>self.slots[slot].generation << 32) | slot

    def pop(self):
        """Remove and return the first item. Raises IndexError when the queue is empty."""
        if self.count == 0:
            raise IndexError("pop from an empty PriorityQueue: expected at least one entry")
        return self.leave(0)

    def peek(self):
        """Return the first item and leave it there. Raises IndexError when the queue is empty."""
        if self.count == 0:
            raise IndexError("peek into an empty PriorityQueue: expected at least one entry")
        self.check_items()
        return <object>PyList_GET_ITEM(self.items, self.heap[0].slot)

    def cancel(self, handle):
        """Remove the entry named by `handle`: True, or False when it already left the queue."""
        cdef int64_t place = self.find(handle)
        if place < 0:
            return False
        self.leave(<uint32_t>place)
        return True

    def rekey(self, handle, priority, deadline):
        """Give the entry a new priority and deadline: True, or False when it already left the queue.

        Among equals it keeps the rank of its insertion. Raises OverflowError and TypeError as push does.
        """
        cdef Node node
        cdef int64_t place
        cdef HeapKey key = heap_key(as_int64(priority, "priority"), as_int64(deadline, "deadline"))
        place = self.find(handle)
        if place < 0:
            return False
        node = self.heap[place]
        if key < node.key:
            node.key = key
            self.sift_up(<uint32_t>place, node)
        else:
            node.key = key
            self.sift_down(<uint32_t>place, node)
        return True

    def _check(self):
        """Assert the invariants (tests): heap order, back-indexes, free list disjoint from live and complete."""
        cdef uint32_t place, slot
        cdef set free_slots = set()
        cdef set live = set()
        assert self.count <= self.capacity
        assert PyList_GET_SIZE(self.items) == self.used
        for place in range(self.count):
            if place:
                assert not node_before(&self.heap[place], &self.heap[(place - 1) >> 2]), "heap order"
            slot = self.heap[place].slot
            assert slot < self.used, "slot of a node"
            assert self.slots[slot].place == place, "back-index"
            assert self.slots[slot].generation < LAST_GENERATION, "a retired slot lives"
            live.add(slot)
        assert len(live) == self.count
        slot = self.free_slot
        while slot != NO_SLOT:
            assert slot not in free_slots, "free list is a ring"
            assert self.items[slot] is None, "a free slot holds an item"
            free_slots.add(slot)
            slot = self.slots[slot].place
        assert not (live & free_slots), "a slot is free and live"
        assert len(live) + len(free_slots) + self.retired == self.used, "a slot is lost"

    def _start_generation(self, uint32_t generation):
        """Let fresh slots begin at `generation` (tests: what happens when a slot's generations are used up)."""
        self.first_generation = generation

    # ------------------------------------------------------------------------------------------- slots

    @cython.final
    cdef int check_items(self) except -1:
        """The garbage collector clears the list of a queue that is part of a dead cycle before its last owner goes."""
        if self.items is None or <uint32_t>PyList_GET_SIZE(self.items) != self.used:
            raise RuntimeError("PriorityQueue was cleared by the garbage collector: expected it to be in use no more")
        return 0

    @cython.final
    cdef int grow(self) except -1:
        cdef uint32_t capacity = FIRST_CAPACITY if self.capacity == 0 else 2 * self.capacity + 3
        cdef Node* heap
        cdef Slot* slots
        if capacity > MOST_CAPACITY:
            raise MemoryError(f"PriorityQueue holds {self.capacity} entries and would grow to {capacity}: expected no"
                              f" more than {<uint32_t>MOST_CAPACITY}")
        heap = heap_new(capacity)
        slots = <Slot*>aligned_alloc(64, round_up(capacity * sizeof(Slot)))
        if heap == NULL or slots == NULL:
            heap_free(heap)
            free(slots)
            raise MemoryError(f"PriorityQueue with {self.count} entries cannot grow to {capacity}: out of memory")
        if self.capacity:
            memcpy(heap, self.heap, self.count * sizeof(Node))
            memcpy(slots, self.slots, self.used * sizeof(Slot))
        heap_free(self.heap)
        free(self.slots)
        self.heap = heap
        self.slots = slots
        self.capacity = capacity
        return 0

    @cython.final
    cdef int64_t take_slot(self) except -1:
        """A slot for a new entry, with room for it in the heap; None stands in its place in the list of items."""
        cdef uint32_t slot = self.free_slot
        self.check_items()
        if slot != NO_SLOT:
            self.free_slot = self.slots[slot].place
        else:
            if self.used == self.capacity:
                self.grow()
            self.items.append(None)
            slot = self.used
            self.used += 1
            self.slots[slot].generation = self.first_generation
        return slot

    @cython.final
    cdef inline int64_t find(self, object handle) except? -1:
        """The place in the heap of the entry that `handle` names, or -1."""
        cdef int overflow = 0
        cdef int64_t value
        cdef uint32_t slot, place
        value = PyLong_AsLongLongAndOverflow(handle, &overflow) if PyLong_CheckExact(handle) else unusual_handle(handle)
        if overflow:
            return -1
        if value < 0:
            return -1
        slot = <uint32_t>(value & 0xFFFFFFFF)
        if slot >= self.used or self.slots[slot].generation != <uint32_t>(value >> 32):
            return -1
        place = self.slots[slot].place
        if place >= self.count or self.heap[place].slot != slot:    # a number that push never returned
            return -1
        return place

    @cython.final
    cdef object leave(self, uint32_t place):
        """Take out the entry at `place` and return its item; the structure is whole before anything can run."""
        cdef uint32_t slot = self.heap[place].slot
        cdef Node last
        cdef object item
        self.check_items()
        item = <object>PyList_GET_ITEM(self.items, slot)
        Py_DECREF(item)                             # the list's reference; `item` holds its own
        Py_INCREF(None)
        PyList_SET_ITEM(self.items, slot, None)
        self.slots[slot].generation += 1
        if self.slots[slot].generation >= LAST_GENERATION:
            self.retired += 1
        else:
            self.slots[slot].place = self.free_slot
            self.free_slot = slot
        self.count -= 1
        if place != self.count:
            last = self.heap[self.count]
            if place and node_before(&last, &self.heap[(place - 1) >> 2]):
                self.sift_up(place, last)
            else:
                self.sift_down(place, last)
        return item

    # -------------------------------------------------------------------------------------------- heap

    @cython.final
    cdef inline void sift_up(self, uint32_t place, Node node) noexcept nogil:
        cdef uint32_t parent
        while place:
            parent = (place - 1) >> 2
            if not node_before(&node, &self.heap[parent]):
                break
            self.heap[place] = self.heap[parent]
            self.slots[self.heap[place].slot].place = place
            place = parent
        self.heap[place] = node
        self.slots[node.slot].place = place

    @cython.final
    cdef void sift_down(self, uint32_t place, Node node) noexcept nogil:
        """The hole at `place` moves to the bottom by the least child, then `node` rises from there.

        A node from the end of the heap belongs near the bottom: not comparing it on the way saves a quarter.
        """
        cdef Node* heap = self.heap
        cdef uint32_t top = place
        cdef uint32_t child = 4 * place + 1
        cdef uint32_t best, parent
        while child + 3 < self.count:
            best = least_of_four(heap, child)
            heap[place] = heap[best]
            self.slots[heap[place].slot].place = place
            place = best
            child = 4 * place + 1
        if child < self.count:
            best = child
            child += 1
            while child < self.count:
                if node_before(&heap[child], &heap[best]):
                    best = child
                child += 1
            heap[place] = heap[best]
            self.slots[heap[place].slot].place = place
            place = best
        while place > top:
            parent = (place - 1) >> 2
            if not node_before(&node, &heap[parent]):
                break
            heap[place] = heap[parent]
            self.slots[heap[place].slot].place = place
            place = parent
        heap[place] = node
        self.slots[node.slot].place = place
