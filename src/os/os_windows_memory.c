/* Memory: the C library's allocator, pages for stacks, and the guards between them. */
#include "os/os_windows.h"

#include <malloc.h>
#include <stdalign.h>

/* ---- the C library's allocator ---- */

/* One function for all alignments, since each has a way of its own to free. */
void *os_alloc(size_t size, size_t alignment)
{
    if (size == 0)
        size = 1; /* NULL means out of memory, nothing else */
    if (size > PTRDIFF_MAX)
        return NULL;
    return _aligned_malloc(size, alignment > alignof(max_align_t) ? alignment : alignof(max_align_t));
}

void os_free(void *memory)
{
    _aligned_free(memory);
}

/* ---- pages ---- */

size_t os_page_bytes(void)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwPageSize;
}

void *os_pages_reserve(size_t bytes)
{
    return VirtualAlloc(NULL, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

void os_pages_release(void *pages, size_t bytes)
{
    (void)bytes;
    (void)VirtualFree(pages, 0, MEM_RELEASE);
}

void os_pages_discard(void *pages, size_t bytes)
{
    (void)DiscardVirtualMemory(pages, bytes);
}

/* ---- guards ---- */

bool os_guard_is_light(void)
{
    return true;
}

size_t os_guard_limit(void)
{
    return SIZE_MAX;
}

int os_guard_install(void *pages, size_t bytes)
{
    DWORD before;
    return VirtualProtect(pages, bytes, PAGE_NOACCESS, &before) ? ROUSE_OK : ROUSE_NO_MEMORY;
}

void os_guard_remove(void *pages, size_t bytes)
{
    DWORD before;
    (void)VirtualProtect(pages, bytes, PAGE_READWRITE, &before);
}
