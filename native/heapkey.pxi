# Node of the heap of PriorityQueue: key and slot side by side, 32 bytes; four children fill two cache lines.

from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>
    #include <stddef.h>

    /* Priority above deadline in one number: one comparison of two words instead of two branches. */
    typedef unsigned __int128 aimd_heap_key;

    typedef struct {
        aimd_heap_key key;
        uint64_t seq;
        uint64_t slot;
    } aimd_node;

    static inline aimd_heap_key aimd_make_key(int64_t priority, int64_t deadline) {
        uint64_t high = (uint64_t)priority ^ (UINT64_C(1) << 63);    /* order of signed numbers as unsigned */
        uint64_t low = (uint64_t)deadline ^ (UINT64_C(1) << 63);
        return ((aimd_heap_key)high << 64) | low;
    }

    static inline int aimd_before(const aimd_node *a, const aimd_node *b) {
        return (a->key < b->key) | ((a->key == b->key) & (a->seq < b->seq));
    }

    /* Two independent comparisons, then one: no chain through a running minimum, no branch to mispredict. */
    static inline uint32_t aimd_least_of_four(const aimd_node *heap, uint32_t first) {
        uint32_t left = first + (uint32_t)aimd_before(&heap[first + 1], &heap[first]);
        uint32_t right = first + 2 + (uint32_t)aimd_before(&heap[first + 3], &heap[first + 2]);
        uint32_t swap = (uint32_t)-aimd_before(&heap[right], &heap[left]);
        return left ^ ((left ^ right) & swap);
    }

    /* The root is put three nodes behind a cache line's start: then every group of four children starts one. */
    static inline aimd_node *aimd_heap_new(size_t capacity) {
        size_t bytes = ((capacity + 3) * sizeof(aimd_node) + 63) / 64 * 64;
        aimd_node *block = (aimd_node *)aligned_alloc(64, bytes);
        return block ? block + 3 : NULL;
    }

    static inline void aimd_heap_free(aimd_node *heap) {
        if (heap) free(heap - 3);
    }

    static inline size_t aimd_round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }
    """
    ctypedef unsigned long long HeapKey "aimd_heap_key"
    ctypedef struct Node "aimd_node":
        HeapKey key
        uint64_t seq
        uint64_t slot
    HeapKey heap_key "aimd_make_key"(int64_t priority, int64_t deadline) noexcept nogil
    bint node_before "aimd_before"(const Node* a, const Node* b) noexcept nogil
    uint32_t least_of_four "aimd_least_of_four"(const Node* heap, uint32_t first) noexcept nogil
    Node* heap_new "aimd_heap_new"(size_t capacity) noexcept nogil
    void heap_free "aimd_heap_free"(Node* heap) noexcept nogil
    size_t round_up "aimd_round_up"(size_t size) noexcept nogil
    void* aligned_alloc(size_t alignment, size_t size) noexcept nogil
