# Log-linear latency sketch: cells of one value each below 128, then 64 cells per power of two up to 2**44 ns (4.9 h);
# what is longer counts in the last cell. The middle of a cell is off by at most 1/128 of any value in it.

cdef enum:
    SKETCH_BITS = 6
    SKETCH_TOP = 44             # values have so many bits at most
    SKETCH_USED = ((SKETCH_TOP - 1 - SKETCH_BITS) << SKETCH_BITS) + (2 << SKETCH_BITS)


cdef inline uint32_t sketch_cell(uint64_t value) noexcept nogil:
    cdef uint32_t shift
    if unlikely(value >> SKETCH_TOP):
        value = (<uint64_t>1 << SKETCH_TOP) - 1
    shift = highest_bit(value | (1 << SKETCH_BITS)) - SKETCH_BITS
    return (shift << SKETCH_BITS) + <uint32_t>(value >> shift)


cdef inline uint64_t sketch_value(uint32_t cell) noexcept nogil:
    """The middle of a cell."""
    cdef uint32_t shift
    if cell < (2 << SKETCH_BITS):
        return cell
    shift = (cell >> SKETCH_BITS) - 1
    return ((<uint64_t>((cell & 63) + 64)) << shift) + (<uint64_t>1 << (shift - 1))
