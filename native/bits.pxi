# Sets of small numbers, and the lowest free number of a range.

include "compiler.pxi"


cdef inline uint64_t bit(uint32_t number) noexcept nogil:
    return <uint64_t>1 << (number & 63)


cdef inline void set_add(Set* numbers, uint32_t number) noexcept nogil:
    numbers.words[number >> 6] |= bit(number)
    numbers.top |= bit(number >> 6)


cdef inline void set_discard(Set* numbers, uint32_t number) noexcept nogil:
    numbers.words[number >> 6] &= ~bit(number)
    if numbers.words[number >> 6] == 0:
        numbers.top &= ~bit(number >> 6)


cdef inline bint set_has(const Set* numbers, uint32_t number) noexcept nogil:
    return (numbers.words[number >> 6] >> (number & 63)) & 1


cdef inline uint32_t set_after(const Set* numbers, uint32_t start) noexcept nogil:
    """The least member that is not below `start`, or NONE: `i = set_after(s, 0)`, then `i = set_after(s, i + 1)`."""
    cdef uint32_t word = start >> 6
    cdef uint64_t rest
    if start >= 4096:
        return NONE
    rest = numbers.words[word] & (~<uint64_t>0 << (start & 63)) if (numbers.top >> word) & 1 else 0
    if rest == 0:
        rest = numbers.top & ~((<uint64_t>2 << word) - 1)
        if rest == 0:
            return NONE
        word = lowest_bit(rest)
        rest = numbers.words[word]
    return (word << 6) | lowest_bit(rest)


cdef inline uint32_t numbers_take(Numbers* numbers) noexcept nogil:
    """The lowest free number, or NONE."""
    cdef uint32_t high, middle, number
    if numbers.top == 0:
        return NONE
    high = lowest_bit(numbers.top)
    middle = (high << 6) | lowest_bit(numbers.middle[high])
    number = (middle << 6) | lowest_bit(numbers.low[middle])
    numbers_use(numbers, number)
    return number


cdef inline void numbers_use(Numbers* numbers, uint32_t number) noexcept nogil:
    numbers.low[number >> 6] &= ~bit(number)
    if numbers.low[number >> 6] == 0:
        numbers.middle[number >> 12] &= ~bit(number >> 6)
        if numbers.middle[number >> 12] == 0:
            numbers.top &= ~bit(number >> 12)


cdef inline void numbers_give(Numbers* numbers, uint32_t number) noexcept nogil:
    numbers.low[number >> 6] |= bit(number)
    numbers.middle[number >> 12] |= bit(number >> 6)
    numbers.top |= bit(number >> 12)


cdef inline bint numbers_free(const Numbers* numbers, uint32_t number) noexcept nogil:
    return (numbers.low[number >> 6] >> (number & 63)) & 1
