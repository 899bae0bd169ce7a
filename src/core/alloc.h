/* Memory of a runtime: the user's allocator, or the C library's. */
#ifndef ROUSE_CORE_ALLOC_H
#define ROUSE_CORE_ALLOC_H

#include "os/os.h"

/* The allocator over the C library. */
extern const rouse_allocator alloc_default;

/* `allocator` NULL stands for the default one. */
static inline const rouse_allocator *alloc_choose(const rouse_allocator *allocator)
{
    return allocator ? allocator : &alloc_default;
}

static inline void *alloc_take(const rouse_allocator *a, size_t size, size_t alignment)
{
    return a->alloc(a->context, size, alignment);
}

static inline void alloc_give(const rouse_allocator *a, void *memory, size_t size, size_t alignment)
{
    if (memory)
        a->free(a->context, memory, size, alignment);
}

/* a + b and a * b that answer false instead of wrapping round. */
static inline bool size_add(size_t a, size_t b, size_t *sum)
{
    return *sum = a + b, *sum >= a;
}
static inline bool size_multiply(size_t a, size_t b, size_t *product)
{
    if (b && a > SIZE_MAX / b)
        return false;
    *product = a * b;
    return true;
}

/* `size` rounded up to a multiple of `alignment`, a power of two; wraps to below `size` when it does not fit. */
static inline size_t size_align(size_t size, size_t alignment)
{
    return (size + alignment - 1) & ~(alignment - 1);
}

#endif
