/* What src/os/atomic.h becomes in a model: the same types and functions, each operation a step of the explorer. The
 * names are macros so that a report can say where an operation stands. */
#ifndef MODEL_ATOMIC_H
#define MODEL_ATOMIC_H

#include "explorer.h"

#define MODEL_ATOMIC_TYPE(name, type, to_number, from_number)                                                       \
    typedef struct atomic_##name {                                                                                  \
        type value;                                                                                                 \
    } atomic_##name;                                                                                                \
    static inline void model_##name##_init(atomic_##name *a, type v, const char *where)                             \
    {                                                                                                               \
        model_atomic_init(a, sizeof(type), to_number v, where);                                                     \
    }                                                                                                               \
    static inline type model_##name##_load(const atomic_##name *a, enum model_order order, const char *where)       \
    {                                                                                                               \
        return from_number model_load(a, sizeof(type), order, where);                                               \
    }                                                                                                               \
    static inline void model_##name##_store(atomic_##name *a, type v, enum model_order order, const char *where)    \
    {                                                                                                               \
        model_store(a, sizeof(type), to_number v, order, where);                                                    \
    }                                                                                                               \
    static inline type model_##name##_exchange(atomic_##name *a, type v, enum model_order order, const char *where) \
    {                                                                                                               \
        return from_number model_rmw(a, sizeof(type), MODEL_EXCHANGE, to_number v, order, where);                   \
    }                                                                                                               \
    static inline bool model_##name##_cas(atomic_##name *a, type *expected, type desired, enum model_order success, \
                                          enum model_order failure, bool weak, const char *where)                   \
    {                                                                                                               \
        uint64_t found = to_number * expected;                                                                      \
        bool done = model_cas(a, sizeof(type), &found, to_number desired, success, failure, weak, where);           \
        *expected = from_number found;                                                                              \
        return done;                                                                                                \
    }

#define MODEL_ATOMIC_RMW(name, type, operation, kind)                                                                  \
    static inline type model_##name##_##operation(atomic_##name *a, type v, enum model_order order, const char *where) \
    {                                                                                                                  \
        return (type)model_rmw(a, sizeof(type), kind, (uint64_t)v, order, where);                                      \
    }

#define MODEL_ATOMIC_NUMBER(name, type)               \
    MODEL_ATOMIC_TYPE(name, type, (uint64_t), (type)) \
    MODEL_ATOMIC_RMW(name, type, add, MODEL_ADD)      \
    MODEL_ATOMIC_RMW(name, type, sub, MODEL_SUB)      \
    MODEL_ATOMIC_RMW(name, type, or, MODEL_OR)        \
    MODEL_ATOMIC_RMW(name, type, and, MODEL_AND)

MODEL_ATOMIC_NUMBER(u32, uint32_t)
MODEL_ATOMIC_NUMBER(u64, uint64_t)
MODEL_ATOMIC_NUMBER(i64, int64_t)
MODEL_ATOMIC_NUMBER(size, size_t)
MODEL_ATOMIC_TYPE(ptr, void *, (uint64_t)(uintptr_t), (void *)(uintptr_t))

static inline const uint32_t *atomic_u32_word(const atomic_u32 *a)
{
    return &a->value;
}

#define atomic_u32_init(a, v)              model_u32_init(a, v, MODEL_HERE)
#define atomic_u32_load(a, order)          model_u32_load(a, order, MODEL_HERE)
#define atomic_u32_store(a, v, order)      model_u32_store(a, v, order, MODEL_HERE)
#define atomic_u32_exchange(a, v, order)   model_u32_exchange(a, v, order, MODEL_HERE)
#define atomic_u32_cas(a, e, d, s, f)      model_u32_cas(a, e, d, s, f, false, MODEL_HERE)
#define atomic_u32_cas_weak(a, e, d, s, f) model_u32_cas(a, e, d, s, f, true, MODEL_HERE)
#define atomic_u32_add(a, v, order)        model_u32_add(a, v, order, MODEL_HERE)
#define atomic_u32_sub(a, v, order)        model_u32_sub(a, v, order, MODEL_HERE)
#define atomic_u32_or(a, v, order)         model_u32_or(a, v, order, MODEL_HERE)
#define atomic_u32_and(a, v, order)        model_u32_and(a, v, order, MODEL_HERE)

#define atomic_u64_init(a, v)              model_u64_init(a, v, MODEL_HERE)
#define atomic_u64_load(a, order)          model_u64_load(a, order, MODEL_HERE)
#define atomic_u64_store(a, v, order)      model_u64_store(a, v, order, MODEL_HERE)
#define atomic_u64_exchange(a, v, order)   model_u64_exchange(a, v, order, MODEL_HERE)
#define atomic_u64_cas(a, e, d, s, f)      model_u64_cas(a, e, d, s, f, false, MODEL_HERE)
#define atomic_u64_cas_weak(a, e, d, s, f) model_u64_cas(a, e, d, s, f, true, MODEL_HERE)
#define atomic_u64_add(a, v, order)        model_u64_add(a, v, order, MODEL_HERE)
#define atomic_u64_sub(a, v, order)        model_u64_sub(a, v, order, MODEL_HERE)
#define atomic_u64_or(a, v, order)         model_u64_or(a, v, order, MODEL_HERE)
#define atomic_u64_and(a, v, order)        model_u64_and(a, v, order, MODEL_HERE)

#define atomic_i64_init(a, v)              model_i64_init(a, v, MODEL_HERE)
#define atomic_i64_load(a, order)          model_i64_load(a, order, MODEL_HERE)
#define atomic_i64_store(a, v, order)      model_i64_store(a, v, order, MODEL_HERE)
#define atomic_i64_exchange(a, v, order)   model_i64_exchange(a, v, order, MODEL_HERE)
#define atomic_i64_cas(a, e, d, s, f)      model_i64_cas(a, e, d, s, f, false, MODEL_HERE)
#define atomic_i64_cas_weak(a, e, d, s, f) model_i64_cas(a, e, d, s, f, true, MODEL_HERE)
#define atomic_i64_add(a, v, order)        model_i64_add(a, v, order, MODEL_HERE)
#define atomic_i64_sub(a, v, order)        model_i64_sub(a, v, order, MODEL_HERE)
#define atomic_i64_or(a, v, order)         model_i64_or(a, v, order, MODEL_HERE)
#define atomic_i64_and(a, v, order)        model_i64_and(a, v, order, MODEL_HERE)

#define atomic_size_init(a, v)              model_size_init(a, v, MODEL_HERE)
#define atomic_size_load(a, order)          model_size_load(a, order, MODEL_HERE)
#define atomic_size_store(a, v, order)      model_size_store(a, v, order, MODEL_HERE)
#define atomic_size_exchange(a, v, order)   model_size_exchange(a, v, order, MODEL_HERE)
#define atomic_size_cas(a, e, d, s, f)      model_size_cas(a, e, d, s, f, false, MODEL_HERE)
#define atomic_size_cas_weak(a, e, d, s, f) model_size_cas(a, e, d, s, f, true, MODEL_HERE)
#define atomic_size_add(a, v, order)        model_size_add(a, v, order, MODEL_HERE)
#define atomic_size_sub(a, v, order)        model_size_sub(a, v, order, MODEL_HERE)
#define atomic_size_or(a, v, order)         model_size_or(a, v, order, MODEL_HERE)
#define atomic_size_and(a, v, order)        model_size_and(a, v, order, MODEL_HERE)

#define atomic_ptr_init(a, v)              model_ptr_init(a, v, MODEL_HERE)
#define atomic_ptr_load(a, order)          model_ptr_load(a, order, MODEL_HERE)
#define atomic_ptr_store(a, v, order)      model_ptr_store(a, v, order, MODEL_HERE)
#define atomic_ptr_exchange(a, v, order)   model_ptr_exchange(a, v, order, MODEL_HERE)
#define atomic_ptr_cas(a, e, d, s, f)      model_ptr_cas(a, e, d, s, f, false, MODEL_HERE)
#define atomic_ptr_cas_weak(a, e, d, s, f) model_ptr_cas(a, e, d, s, f, true, MODEL_HERE)

#define atomic_fence(order) model_fence(order, MODEL_HERE)
#define cpu_relax()         model_relax(MODEL_HERE)

#endif
