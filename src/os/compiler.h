/* What compilers spell differently. Every other file uses these names. */
#ifndef ROUSE_OS_COMPILER_H
#define ROUSE_OS_COMPILER_H

#include <stdint.h>

#if defined(_MSC_VER)
#include <intrin.h>
#include <malloc.h>
#endif

/* INLINE_ALWAYS: for functions that take a function: with its body in sight, the compiler calls neither.
 * INLINE_NEVER: for the rare half of a function, whose registers the frequent half need not save.
 * OS_NOINLINE: for functions with thread-local variables: inlined into a function that switches fibers, they would use the
 * variables of the thread that it came from. */
#if defined(_MSC_VER)
#define INLINE_ALWAYS static __forceinline
#define INLINE_NEVER  static __declspec(noinline)
#define OS_NOINLINE   __declspec(noinline)
#else
#define INLINE_ALWAYS static inline __attribute__((always_inline))
#define INLINE_NEVER  static __attribute__((noinline))
#define OS_NOINLINE   __attribute__((noinline))
#endif

/* Keeps a sanitizer's own calls out of a function. */
#if defined(_MSC_VER)
#define OS_NO_SANITIZER
#else
#define OS_NO_SANITIZER __attribute__((no_sanitize_address, no_sanitize_thread))
#endif

/* Defines a function without arguments that runs when the library is loaded: OS_WHEN_LOADED(name) { ... } */
#if defined(_MSC_VER)
#pragma section(".CRT$XCU", read)
#define OS_WHEN_LOADED(name)                                                        \
    static void name(void);                                                         \
    __declspec(allocate(".CRT$XCU")) void (*const name##_when_loaded)(void) = name; \
    __pragma(comment(linker, "/include:" #name "_when_loaded")) static void name(void)
#else
#define OS_WHEN_LOADED(name)                             \
    static void name(void) __attribute__((constructor)); \
    static void name(void)
#endif

/* Ends the process at this instruction: something is wrong that cannot be survived. */
#if defined(_MSC_VER)
#define OS_TRAP() __fastfail(7 /* FAST_FAIL_FATAL_APP_EXIT */)
#else
#define OS_TRAP() __builtin_trap()
#endif

/* An address in the frame of the calling function, and memory that lasts as long as this frame. */
#if defined(_MSC_VER)
#define OS_FRAME_ADDRESS() _AddressOfReturnAddress()
#define OS_ALLOCA(bytes)   _alloca(bytes)
#else
#define OS_FRAME_ADDRESS() __builtin_frame_address(0)
#define OS_ALLOCA(bytes)   __builtin_alloca(bytes)
#endif

/* The place of the lowest and of the highest bit that is set, from 0. The word is not 0. */
static inline unsigned os_lowest_bit(uint64_t word)
{
#if defined(_MSC_VER) && defined(_WIN64)
    unsigned long place;
    _BitScanForward64(&place, word);
    return place;
#elif defined(_MSC_VER)
    unsigned long place;
    if (_BitScanForward(&place, (unsigned long)word))
        return place;
    _BitScanForward(&place, (unsigned long)(word >> 32));
    return place + 32;
#else
    return (unsigned)__builtin_ctzll(word);
#endif
}

static inline unsigned os_highest_bit(uint64_t word)
{
#if defined(_MSC_VER) && defined(_WIN64)
    unsigned long place;
    _BitScanReverse64(&place, word);
    return place;
#elif defined(_MSC_VER)
    unsigned long place;
    if (_BitScanReverse(&place, (unsigned long)(word >> 32)))
        return place + 32;
    _BitScanReverse(&place, (unsigned long)word);
    return place;
#else
    return 63U - (unsigned)__builtin_clzll(word);
#endif
}

#endif
