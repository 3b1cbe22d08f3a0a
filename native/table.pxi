# Hash table with the key (number, part) and small indexes as values. At most half full, so that a probe is short; a
# deletion shifts the run behind it back instead of leaving a mark, so that years of use do not slow it down.


cdef inline uint64_t table_home(const Table* table, uint64_t number, uint32_t part) noexcept nogil:
    # Clients choose request ids: the seed keeps them from choosing collisions, both multiplications mix all bits.
    # Most count them up: four ids in a row share a cache line.
    cdef uint64_t x = ((number >> 2) ^ table.seed) + part * <uint64_t>0x9E3779B97F4A7C15
    x = (x ^ (x >> 32)) * <uint64_t>0xD6E8FEB86659FD93
    x = (x ^ (x >> 32)) * <uint64_t>0xD6E8FEB86659FD93
    return (((x ^ (x >> 32)) << 2) | (number & 3)) & table.mask


cdef inline uint32_t table_find(const Table* table, uint64_t number, uint32_t part) noexcept nogil:
    """The index stored under the key, or NONE."""
    cdef uint64_t place = table_home(table, number, part)
    cdef const Cell* cell = &table.cells[place]
    while cell.index != 0:
        if cell.number == number and cell.part == part:
            return cell.index - 1
        place = (place + 1) & table.mask
        cell = &table.cells[place]
    return NONE


cdef inline void table_add(Table* table, uint64_t number, uint32_t part, uint32_t index) noexcept nogil:
    """Store under a key that is not there."""
    cdef uint64_t place = table_home(table, number, part)
    while table.cells[place].index != 0:
        place = (place + 1) & table.mask
    table.cells[place].number = number
    table.cells[place].part = part
    table.cells[place].index = index + 1


cdef inline void table_remove(Table* table, uint64_t number, uint32_t part) noexcept nogil:
    """Forget a key that is there."""
    cdef uint64_t hole = table_home(table, number, part)
    cdef uint64_t place, home
    while table.cells[hole].number != number or table.cells[hole].part != part or table.cells[hole].index == 0:
        hole = (hole + 1) & table.mask
    place = hole
    while True:
        place = (place + 1) & table.mask
        if table.cells[place].index == 0:
            break
        home = table_home(table, table.cells[place].number, table.cells[place].part)
        # It may move into the hole unless its home lies cyclically between the hole and its place.
        if ((place - home) & table.mask) >= ((place - hole) & table.mask):
            table.cells[hole] = table.cells[place]
            hole = place
    table.cells[hole].index = 0
