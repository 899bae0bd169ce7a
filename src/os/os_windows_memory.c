/* Memory: the C library's allocator and stacks.
 *
 * Memory must be committed before it is used, and what is committed counts against what the machine has, used or not. So
 * stacks do here what those of threads do: a little is committed, the page below that is marked, and when it is touched the
 * system clears the mark, commits and marks the next one, and writes into the thread block how far down the stack is usable
 * now. It does so for the stack that the thread block describes; the switch of fibers sees to that. Three pages before the
 * end it reports an overflow instead, so that handlers have room. Committing all lost: 10^5 stacks would need 6.5 GB of a
 * page file that nobody uses.
 *
 * Below each stack lies a guard that is never committed but for what an overflow is reported with. */
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
    return VirtualAlloc(NULL, bytes, MEM_RESERVE, PAGE_READWRITE);
}

void os_pages_release(void *pages, size_t bytes)
{
    (void)bytes;
    (void)VirtualFree(pages, 0, MEM_RELEASE);
}

void os_pages_discard(void *pages, size_t bytes)
{
    (void)VirtualFree(pages, bytes, MEM_DECOMMIT);
}

bool os_stacks_grow(void)
{
    return true;
}

int os_stack_commit(void *top, size_t bytes)
{
    size_t page = os_page_bytes();
    char *low = (char *)top - bytes;
    if (VirtualAlloc(low, bytes, MEM_COMMIT, PAGE_READWRITE) == NULL ||
        VirtualAlloc(low - page, page, MEM_COMMIT, PAGE_READWRITE | PAGE_GUARD) == NULL)
        return ROUSE_NO_MEMORY;
    return ROUSE_OK;
}

/* ---- guards ---- */

/* The last page is never committed, three are for handlers (see os_fault_thread_enter), one of which is the mark. */
size_t os_guard_bytes(void)
{
    return 4 * os_page_bytes();
}

bool os_guard_is_light(void)
{
    return true;
}

size_t os_guard_limit(void)
{
    return SIZE_MAX;
}

/* What is not committed faults. */
int os_guard_install(void *pages, size_t bytes)
{
    (void)pages;
    (void)bytes;
    return ROUSE_OK;
}

void os_guard_remove(void *pages, size_t bytes)
{
    (void)pages;
    (void)bytes;
}
