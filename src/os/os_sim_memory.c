/* Memory of the simulated world: the real system's, but of the same shape on every machine, because the library takes other
 * paths where pages are larger or guards are dear, and a seed must mean the same everywhere. */
#include "os/os_sim.h"

#include <stdlib.h>
#include <sys/mman.h>

#define PAGE_BYTES ((size_t)65536) /* a multiple of every system's */

#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif
#if !defined(MAP_NORESERVE)
#define MAP_NORESERVE 0
#endif

void *os_alloc(size_t size, size_t alignment)
{
    void *memory;
    if (sim_memory_fails() || size > PTRDIFF_MAX)
        return NULL;
    if (alignment <= _Alignof(max_align_t))
        return malloc(size > 0 ? size : 1);
    return posix_memalign(&memory, alignment, size > 0 ? size : 1) == 0 ? memory : NULL;
}

void os_free(void *memory)
{
    free(memory);
}

size_t os_page_bytes(void)
{
    return PAGE_BYTES;
}

/* One page more than asked for, so that whole pages of this size lie in it; the rest is given back. */
void *os_pages_reserve(size_t bytes)
{
    if (bytes > PTRDIFF_MAX - PAGE_BYTES)
        return NULL;
    char *all =
        mmap(NULL, bytes + PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)all % PAGE_BYTES;
    if (before > 0)
        (void)munmap(all, before);
    if (before < PAGE_BYTES)
        (void)munmap(all + before + bytes, PAGE_BYTES - before);
    return all + before;
}

void os_pages_release(void *pages, size_t bytes)
{
    (void)munmap(pages, bytes);
}

void os_pages_discard(void *pages, size_t bytes)
{
    (void)madvise(pages, bytes, MADV_DONTNEED);
}

bool os_guard_is_light(void)
{
    return true;
}

int os_guard_install(void *pages, size_t bytes)
{
    return mprotect(pages, bytes, PROT_NONE) == 0 ? ROUSE_OK : ROUSE_NO_MEMORY;
}

void os_guard_remove(void *pages, size_t bytes)
{
    (void)mprotect(pages, bytes, PROT_READ | PROT_WRITE);
}

size_t os_guard_limit(void)
{
    return SIZE_MAX;
}

size_t os_guard_bytes(void)
{
    return PAGE_BYTES;
}

bool os_stacks_grow(void)
{
    return false;
}

int os_stack_commit(void *top, size_t bytes)
{
    (void)top, (void)bytes;
    return ROUSE_OK;
}
