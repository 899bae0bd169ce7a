#include "core/alloc.h"

static void *default_alloc(void *context, size_t size, size_t alignment)
{
    (void)context;
    return os_alloc(size, alignment);
}

static void default_free(void *context, void *memory, size_t size, size_t alignment)
{
    (void)context;
    (void)size;
    (void)alignment;
    os_free(memory);
}

const rouse_allocator alloc_default = {default_alloc, default_free, NULL};
