/* The C library's allocator. */
#include "os/os.h"

#include <stdalign.h>
#include <stdlib.h>

void *os_alloc(size_t size, size_t alignment)
{
    if (size == 0)
        size = 1; /* NULL means out of memory, nothing else */
    if (size > PTRDIFF_MAX)
        return NULL;
    if (alignment <= alignof(max_align_t))
        return malloc(size);
    void *memory;
    return posix_memalign(&memory, alignment, size) == 0 ? memory : NULL;
}

void os_free(void *memory)
{
    free(memory);
}
