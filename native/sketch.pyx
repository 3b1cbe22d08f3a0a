# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""LatencySketch: the core's log-linear latency sketch as a Python class, to read, merge and ask for quantiles."""

from libc.stdint cimport uint32_t, uint64_t

include "compiler.pxi"
include "sketch.pxi"


cdef class LatencySketch:
    """Distribution of non-negative integers (nanoseconds) in fixed memory, 20 KiB.

    A value that is read (quantile, values) is off by at most 1/128 of a recorded one; values of 2**44 ns (4.9 h) and
    more are told as just below that, `largest` is exact. Sketches of any origin can be merged, which is exact.
    """

    cdef uint64_t cells[SKETCH_USED]
    cdef readonly uint64_t count
    cdef readonly uint64_t largest
    cdef object _total

    def __cinit__(self):
        self._total = 0

    @classmethod
    def of(cls, cells, total, uint64_t largest):
        """The sketch with these counts by cell, as a core keeps them, their exact sum and largest value."""
        cdef LatencySketch sketch = cls()
        cdef uint32_t cell
        cdef uint64_t number
        for cell, number in cells.items():
            if cell >= SKETCH_USED:
                raise ValueError(f"cell {cell} of a sketch: below {SKETCH_USED} is expected")
            sketch.cells[cell] = number
            sketch.count += number
        sketch._total = total
        sketch.largest = largest
        return sketch

    @property
    def total(self):
        """Exact sum of the recorded values."""
        return self._total

    def record(self, uint64_t value):
        """Count a value; OverflowError for a negative one or one above 64 bits."""
        self.cells[sketch_cell(value)] += 1
        self.count += 1
        self._total += value
        if value > self.largest:
            self.largest = value

    def merge(self, LatencySketch other not None):
        """Add the values of another sketch."""
        cdef uint32_t cell
        for cell in range(SKETCH_USED):
            self.cells[cell] += other.cells[cell]
        self.count += other.count
        self._total += other._total
        self.largest = max(self.largest, other.largest)

    def quantile(self, double fraction):
        """The least value that at least this fraction of all does not exceed; None without values.

        Raises ValueError for a fraction outside 0 to 1.
        """
        cdef uint64_t rank, below = 0
        cdef uint32_t cell
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"quantile {fraction}: 0 to 1 is expected")
        if self.count == 0:
            return None
        rank = max(1, <uint64_t>(fraction * self.count))
        if rank < fraction * self.count:
            rank += 1
        for cell in range(SKETCH_USED):
            below += self.cells[cell]
            if below >= rank:
                return min(sketch_value(cell), self.largest)
        return self.largest

    def values(self):
        """The values with their counts, ascending: [(value, count)]."""
        cdef uint32_t cell
        return [(sketch_value(cell), self.cells[cell]) for cell in range(SKETCH_USED) if self.cells[cell]]
