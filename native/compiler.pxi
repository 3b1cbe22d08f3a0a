# Bit operations and branch hints of the compiler.

cdef extern from *:
    """
    #define aimd_lowest(word) ((uint32_t)__builtin_ctzll(word))
    #define aimd_highest(word) ((uint32_t)(63 - __builtin_clzll(word)))
    #if defined(__SANITIZE_ADDRESS__)
    #include <sanitizer/asan_interface.h>
    #define AIMD_GUARD 64
    #define aimd_guard(from, bytes) __asan_poison_memory_region((from), (bytes))
    #define aimd_unguard(from, bytes) __asan_unpoison_memory_region((from), (bytes))
    #else
    #define AIMD_GUARD 0
    #define aimd_guard(from, bytes) ((void)0)
    #define aimd_unguard(from, bytes) ((void)0)
    #endif
    #define aimd_unlikely(condition) __builtin_expect(!!(condition), 0)
    #define aimd_prefetch(address) __builtin_prefetch(address)
    #define aimd_flag_take(flag) (!__atomic_exchange_n((uint8_t *)(flag), 1, __ATOMIC_ACQUIRE))
    #define aimd_flag_give(flag) __atomic_store_n((uint8_t *)(flag), 0, __ATOMIC_RELEASE)
    """
    uint32_t lowest_bit "aimd_lowest"(uint64_t word) noexcept nogil     # undefined for 0
    uint32_t highest_bit "aimd_highest"(uint64_t word) noexcept nogil
    bint unlikely "aimd_unlikely"(bint condition) noexcept nogil
    void prefetch "aimd_prefetch"(const void* address) noexcept nogil    # a hint: the address need not be valid
    bint flag_take "aimd_flag_take"(void* flag) noexcept nogil                  # False: somebody else has it
    void flag_give "aimd_flag_give"(void* flag) noexcept nogil
    # With AddressSanitizer: bytes between the pieces of one mapping that nobody may touch.
    const size_t GUARD "AIMD_GUARD"
    void guard "aimd_guard"(char* start, size_t size) noexcept nogil
    void unguard "aimd_unguard"(char* start, size_t size) noexcept nogil
