/* Atomics for a compiler whose C has no <stdatomic.h>: over the Interlocked functions, which are full barriers, so that the
 * orders do not matter but for loads and stores. These are plain volatile accesses, which on x86-64 acquire and release;
 * only a sequentially consistent store needs more. Included by atomic.h, which says what must be here. */
#ifndef ROUSE_OS_ATOMIC_MSVC_H
#define ROUSE_OS_ATOMIC_MSVC_H

#include <intrin.h>

#if !defined(_M_X64)
#error only for x86-64: others need barriers around loads and stores
#endif

typedef enum memory_order {
    memory_order_relaxed,
    memory_order_acquire,
    memory_order_release,
    memory_order_acq_rel,
    memory_order_seq_cst
} memory_order;

/* `raw` is what the intrinsics named with `suffix` work on; of the same size as `type`. */
#define ROUSE_ATOMIC_TYPE_AS(name, type, raw, suffix)                                                     \
    typedef struct atomic_##name {                                                                        \
        volatile type value;                                                                              \
    } atomic_##name;                                                                                      \
    static __forceinline void atomic_##name##_init(atomic_##name *a, type v)                              \
    {                                                                                                     \
        a->value = v;                                                                                     \
    }                                                                                                     \
    static __forceinline type atomic_##name##_load(const atomic_##name *a, memory_order order)            \
    {                                                                                                     \
        type v = a->value;                                                                                \
        (void)order;                                                                                      \
        _ReadWriteBarrier();                                                                              \
        return v;                                                                                         \
    }                                                                                                     \
    static __forceinline type atomic_##name##_exchange(atomic_##name *a, type v, memory_order order)      \
    {                                                                                                     \
        (void)order;                                                                                      \
        return (type)_InterlockedExchange##suffix((volatile raw *)&a->value, (raw)v);                     \
    }                                                                                                     \
    static __forceinline void atomic_##name##_store(atomic_##name *a, type v, memory_order order)         \
    {                                                                                                     \
        if (order == memory_order_seq_cst) {                                                              \
            (void)atomic_##name##_exchange(a, v, order);                                                  \
            return;                                                                                       \
        }                                                                                                 \
        _ReadWriteBarrier();                                                                              \
        a->value = v;                                                                                     \
    }                                                                                                     \
    static __forceinline bool atomic_##name##_cas(atomic_##name *a, type *expected, type desired,         \
                                                  memory_order success, memory_order failure)             \
    {                                                                                                     \
        raw wanted = (raw)*expected;                                                                      \
        raw found = _InterlockedCompareExchange##suffix((volatile raw *)&a->value, (raw)desired, wanted); \
        (void)success;                                                                                    \
        (void)failure;                                                                                    \
        *expected = (type)found;                                                                          \
        return found == wanted;                                                                           \
    }                                                                                                     \
    static __forceinline bool atomic_##name##_cas_weak(atomic_##name *a, type *expected, type desired,    \
                                                       memory_order success, memory_order failure)        \
    {                                                                                                     \
        return atomic_##name##_cas(a, expected, desired, success, failure);                               \
    }

#define ROUSE_ATOMIC_NUMBER_AS(name, type, raw, suffix)                                             \
    ROUSE_ATOMIC_TYPE_AS(name, type, raw, suffix)                                                   \
    static __forceinline type atomic_##name##_add(atomic_##name *a, type v, memory_order order)     \
    {                                                                                               \
        (void)order;                                                                                \
        return (type)_InterlockedExchangeAdd##suffix((volatile raw *)&a->value, (raw)v);            \
    }                                                                                               \
    static __forceinline type atomic_##name##_sub(atomic_##name *a, type v, memory_order order)     \
    {                                                                                               \
        (void)order;                                                                                \
        return (type)_InterlockedExchangeAdd##suffix((volatile raw *)&a->value, (raw)(0 - (raw)v)); \
    }                                                                                               \
    static __forceinline type atomic_##name##_or(atomic_##name *a, type v, memory_order order)      \
    {                                                                                               \
        (void)order;                                                                                \
        return (type)_InterlockedOr##suffix((volatile raw *)&a->value, (raw)v);                     \
    }                                                                                               \
    static __forceinline type atomic_##name##_and(atomic_##name *a, type v, memory_order order)     \
    {                                                                                               \
        (void)order;                                                                                \
        return (type)_InterlockedAnd##suffix((volatile raw *)&a->value, (raw)v);                    \
    }

typedef void *rouse_atomic_pointer; /* "volatile void *" would be a pointer to something volatile */

ROUSE_ATOMIC_NUMBER_AS(u32, uint32_t, long, )
ROUSE_ATOMIC_NUMBER_AS(u64, uint64_t, __int64, 64)
ROUSE_ATOMIC_NUMBER_AS(i64, int64_t, __int64, 64)
ROUSE_ATOMIC_NUMBER_AS(size, size_t, __int64, 64)
ROUSE_ATOMIC_TYPE_AS(ptr, rouse_atomic_pointer, __int64, 64)

static __forceinline void atomic_fence(memory_order order)
{
    if (order == memory_order_seq_cst)
        _mm_mfence();
    else
        _ReadWriteBarrier();
}

/* Tells the processor that this is a spin loop. */
static __forceinline void cpu_relax(void)
{
    _mm_pause();
}

#endif
