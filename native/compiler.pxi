# Bit operations and branch hints of the compiler.

cdef extern from *:
    """
    #define aimd_lowest(word) ((uint32_t)__builtin_ctzll(word))
    #define aimd_highest(word) ((uint32_t)(63 - __builtin_clzll(word)))
    #define aimd_unlikely(condition) __builtin_expect(!!(condition), 0)
    """
    uint32_t lowest_bit "aimd_lowest"(uint64_t word) noexcept nogil     # undefined for 0
    uint32_t highest_bit "aimd_highest"(uint64_t word) noexcept nogil
    bint unlikely "aimd_unlikely"(bint condition) noexcept nogil
