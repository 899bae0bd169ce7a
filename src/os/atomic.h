/* The only place with atomics, fences and spin hints. Every other file names what it needs through these functions, with
 * the memory order spelled out at each use.
 *
 * Alternatives that lost: <stdatomic.h> in every file (MSVC's C mode has none in the versions we support, and a model
 * checker cannot get between the code and the processor); macros over __atomic builtins (no type checking).
 *
 * With ROUSE_ATOMIC_MODEL the explorer of tests/model takes the place of the processor: the files of src/core are then
 * compiled unchanged against it. */
#ifndef ROUSE_OS_ATOMIC_H
#define ROUSE_OS_ATOMIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/compiler.h"

#if defined(ROUSE_ATOMIC_MODEL)
#include "model_atomic.h"
#else

#if defined(_MSC_VER) && !defined(__clang__)
#include "os/atomic_msvc.h"
#else
#include <stdatomic.h>
#endif

/* In the simulated world threads may change places at each of these steps, and nowhere else between two calls. */
#if defined(ROUSE_ATOMIC_SIM)
void os_sim_step(void);
#define ATOMIC_STEP() os_sim_step()
#else
#define ATOMIC_STEP() ((void)0)
#endif

/* Memory orders, weakest first. */
#define RELAXED memory_order_relaxed
#define ACQUIRE memory_order_acquire
#define RELEASE memory_order_release
#define ACQ_REL memory_order_acq_rel
#define SEQ_CST memory_order_seq_cst

#if !defined(_MSC_VER) || defined(__clang__)

/* One struct type for each width, so that a plain access does not compile by accident.
 * load, store, exchange and compare-exchange for all; add, sub, or, and (answering the old value) for the numbers.
 * atomic_X_cas writes the value it found to *expected when it fails; the weak form may fail for no reason. */
#define ROUSE_ATOMIC_TYPE(name, type)                                                                                 \
    typedef struct atomic_##name {                                                                                    \
        _Atomic(type) value;                                                                                          \
    } atomic_##name;                                                                                                  \
    static inline void atomic_##name##_init(atomic_##name *a, type v)                                                 \
    {                                                                                                                 \
        atomic_init(&a->value, v);                                                                                    \
    }                                                                                                                 \
    static inline type atomic_##name##_load(const atomic_##name *a, memory_order order)                               \
    {                                                                                                                 \
        ATOMIC_STEP();                                                                                                \
        return atomic_load_explicit(&((atomic_##name *)(uintptr_t)a)->value, order);                                  \
    }                                                                                                                 \
    static inline void atomic_##name##_store(atomic_##name *a, type v, memory_order order)                            \
    {                                                                                                                 \
        ATOMIC_STEP();                                                                                                \
        atomic_store_explicit(&a->value, v, order);                                                                   \
    }                                                                                                                 \
    static inline type atomic_##name##_exchange(atomic_##name *a, type v, memory_order order)                         \
    {                                                                                                                 \
        ATOMIC_STEP();                                                                                                \
        return atomic_exchange_explicit(&a->value, v, order);                                                         \
    }                                                                                                                 \
    static inline bool atomic_##name##_cas(atomic_##name *a, type *expected, type desired, memory_order success,      \
                                           memory_order failure)                                                      \
    {                                                                                                                 \
        ATOMIC_STEP();                                                                                                \
        return atomic_compare_exchange_strong_explicit(&a->value, expected, desired, success, failure);               \
    }                                                                                                                 \
    static inline bool atomic_##name##_cas_weak(atomic_##name *a, type *expected, type desired, memory_order success, \
                                                memory_order failure)                                                 \
    {                                                                                                                 \
        ATOMIC_STEP();                                                                                                \
        return atomic_compare_exchange_weak_explicit(&a->value, expected, desired, success, failure);                 \
    }

#define ROUSE_ATOMIC_NUMBER(name, type)                                                  \
    ROUSE_ATOMIC_TYPE(name, type)                                                        \
    static inline type atomic_##name##_add(atomic_##name *a, type v, memory_order order) \
    {                                                                                    \
        ATOMIC_STEP();                                                                   \
        return atomic_fetch_add_explicit(&a->value, v, order);                           \
    }                                                                                    \
    static inline type atomic_##name##_sub(atomic_##name *a, type v, memory_order order) \
    {                                                                                    \
        ATOMIC_STEP();                                                                   \
        return atomic_fetch_sub_explicit(&a->value, v, order);                           \
    }                                                                                    \
    static inline type atomic_##name##_or(atomic_##name *a, type v, memory_order order)  \
    {                                                                                    \
        ATOMIC_STEP();                                                                   \
        return atomic_fetch_or_explicit(&a->value, v, order);                            \
    }                                                                                    \
    static inline type atomic_##name##_and(atomic_##name *a, type v, memory_order order) \
    {                                                                                    \
        ATOMIC_STEP();                                                                   \
        return atomic_fetch_and_explicit(&a->value, v, order);                           \
    }

ROUSE_ATOMIC_NUMBER(u32, uint32_t)
ROUSE_ATOMIC_NUMBER(u64, uint64_t)
ROUSE_ATOMIC_NUMBER(i64, int64_t)
ROUSE_ATOMIC_NUMBER(size, size_t)
ROUSE_ATOMIC_TYPE(ptr, void *)

/* ThreadSanitizer knows no fences, and GCC says so: a read-modify-write orders as much on the machine. */
static inline void atomic_fence(memory_order order)
{
#if defined(__SANITIZE_THREAD__)
    static atomic_u32 fence;
    atomic_u32_add(&fence, 0, order);
#else
    atomic_thread_fence(order);
#endif
}

/* Tells the processor that this is a spin loop. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif

/* The word as os_wait_on and os_wake_one take it, without the type that keeps plain accesses out. Never to be read or
 * written through this pointer. */
static inline const uint32_t *atomic_u32_word(const atomic_u32 *a)
{
    return (const uint32_t *)(const void *)a;
}

#endif
#endif
