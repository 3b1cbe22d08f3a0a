# Indexed 4-ary heap of (time, slot) in chunks of a common pool: each heap can grow to all requests, and yet all heaps
# together take the memory of one. A node is 16 bytes; the root has position 3, so that the children of a node, four
# neighbours, fill one cache line and lie in one chunk.


cdef inline Node* heap_node(const Heap* heap, uint32_t place) noexcept nogil:
    cdef uint32_t position = place + 3
    return &heap.pool.nodes[(heap.chunks[position >> CHUNK_BITS] << CHUNK_BITS) | (position & ((1 << CHUNK_BITS) - 1))]


cdef inline bint heap_before(const Heap* heap, const Node* a, const Node* b) noexcept nogil:
    if unlikely(a.when == b.when) and heap.ties != NULL:
        return heap.ties[a.slot].seq < heap.ties[b.slot].seq
    return a.when < b.when


cdef inline void heap_put(Heap* heap, uint32_t place, Node node) noexcept nogil:
    heap_node(heap, place)[0] = node
    (<uint32_t*>(heap.places + <size_t>node.slot * heap.stride))[0] = place


cdef inline void heap_sift_up(Heap* heap, uint32_t place, Node node) noexcept nogil:
    cdef uint32_t parent
    while place:
        parent = (place - 1) >> 2
        if not heap_before(heap, &node, heap_node(heap, parent)):
            break
        heap_put(heap, place, heap_node(heap, parent)[0])
        place = parent
    heap_put(heap, place, node)


cdef inline void heap_sift_down(Heap* heap, uint32_t place, Node node) noexcept nogil:
    cdef uint32_t child, best, other, end
    cdef Node* nodes
    while True:
        child = 4 * place + 1
        if child >= heap.count:
            break
        nodes = heap_node(heap, child)          # all four lie behind one another
        end = heap.count - child if heap.count - child < 4 else 4
        best = 0
        for other in range(1, end):
            if heap_before(heap, &nodes[other], &nodes[best]):
                best = other
        if not heap_before(heap, &nodes[best], &node):
            break
        heap_put(heap, place, nodes[best])
        place = child + best
    heap_put(heap, place, node)


cdef inline void heap_push(Heap* heap, int64_t when, uint32_t slot) noexcept nogil:
    cdef uint32_t position = heap.count + 3
    cdef Node node
    if heap.count == 0 or (position & ((1 << CHUNK_BITS) - 1)) == 0:
        heap.pool.free_count -= 1
        heap.chunks[position >> CHUNK_BITS] = heap.pool.free_chunks[heap.pool.free_count]
    node.when = when
    node.slot = slot
    node.unused = 0
    heap.count += 1
    heap_sift_up(heap, heap.count - 1, node)


cdef inline uint32_t heap_chunks_of(uint32_t count) noexcept nogil:
    """How many chunks so many nodes take."""
    return ((count + 2) >> CHUNK_BITS) + 1 if count else 0


cdef void heap_sweep(Heap* heap, int64_t now) noexcept nogil:
    """Take out all nodes with `when <= now` and put the others in order anew: O(nodes), however many go."""
    cdef uint32_t kept = 0
    cdef uint32_t place, chunk
    for place in range(heap.count):
        if heap_node(heap, place).when > now:
            heap_put(heap, kept, heap_node(heap, place)[0])
            kept += 1
    chunk = heap_chunks_of(heap.count)
    while chunk > heap_chunks_of(kept):
        chunk -= 1
        heap.pool.free_chunks[heap.pool.free_count] = heap.chunks[chunk]
        heap.pool.free_count += 1
    heap.count = kept
    place = (kept + 2) >> 2             # from the last one with children to the root
    while place:
        place -= 1
        heap_sift_down(heap, place, heap_node(heap, place)[0])


cdef inline void heap_remove(Heap* heap, uint32_t place) noexcept nogil:
    cdef Node last
    cdef uint32_t position
    heap.count -= 1
    last = heap_node(heap, heap.count)[0]
    if place != heap.count:
        if place and heap_before(heap, &last, heap_node(heap, (place - 1) >> 2)):
            heap_sift_up(heap, place, last)
        else:
            heap_sift_down(heap, place, last)
    position = heap.count + 3
    if heap.count == 0 or (position & ((1 << CHUNK_BITS) - 1)) == 0:
        heap.pool.free_chunks[heap.pool.free_count] = heap.chunks[position >> CHUNK_BITS]
        heap.pool.free_count += 1
