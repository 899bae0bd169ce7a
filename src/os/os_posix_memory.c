/* Memory: pages for stacks, and the guards between them.
 *
 * A guard is light where the kernel can mark single pages of one mapping (MADV_GUARD_INSTALL, Linux 6.13), else heavy:
 * mprotect cuts the mapping, and the system limits the number of mappings. A light guard that only seems to be there is
 * worse than none, and emulators answer success to advice that they do not know; so the kernel is asked to write to a
 * guarded page, which must fail with EFAULT. (Touching it ourselves would need a signal handler.) The call for that is
 * uname: it needs no descriptor, never waits, and no sandbox forbids it; getrandom and a pipe lost for these reasons.
 *
 * Locked memory (mlockall) refuses light guards one by one, so a process may have both kinds. */
#include "os/os_posix.h"

#include <errno.h>
#include <stdalign.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/atomic.h"

#if defined(__linux__)
#include <fcntl.h>
#include <sys/utsname.h>
#endif

/* ---- pages ---- */

#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif
#if !defined(MAP_NORESERVE)
#define MAP_NORESERVE 0
#endif
#if defined(__linux__) || defined(__OpenBSD__)
#define STACK_FLAG MAP_STACK /* OpenBSD kills processes whose stack lies elsewhere */
#else
#define STACK_FLAG 0 /* FreeBSD: memory that grows downwards, which is something else */
#endif

size_t os_page_bytes(void)
{
    long bytes = sysconf(_SC_PAGESIZE);
    return bytes > 0 ? (size_t)bytes : 4096;
}

void *os_pages_reserve(size_t bytes)
{
    void *pages =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | STACK_FLAG, -1, 0);
    if (pages == MAP_FAILED)
        return NULL;
#if defined(MADV_NOHUGEPAGE)
    /* One touched page of a stack must not cost a huge one. Kernels without huge pages refuse, which is as good. */
    (void)madvise(pages, bytes, MADV_NOHUGEPAGE);
#endif
    return pages;
}

void os_pages_release(void *pages, size_t bytes)
{
    /* Cutting a mapping in two may be refused; then at least the memory goes back, and only addresses are lost. */
    if (munmap(pages, bytes) != 0)
        os_pages_discard(pages, bytes);
}

void os_pages_discard(void *pages, size_t bytes)
{
#if defined(__linux__)
    (void)madvise(pages, bytes, MADV_DONTNEED); /* refused for locked memory, which stays as it is */
#elif defined(MADV_FREE)
    (void)madvise(pages, bytes, MADV_FREE);
#else
    (void)pages;
    (void)bytes;
#endif
}

bool os_stacks_grow(void)
{
    return false;
}

int os_stack_commit(void *top, size_t bytes)
{
    (void)top;
    (void)bytes;
    return ROUSE_OK;
}

/* ---- guards ---- */

size_t os_guard_bytes(void)
{
    return os_page_bytes();
}

#define GUARD_INSTALL 102 /* MADV_GUARD_INSTALL and _REMOVE, which the headers may not know yet */
#define GUARD_REMOVE  103

static atomic_size heavy_guards; /* how many there are */

#if defined(__linux__)
/* May the kernel write to this page? Dirties it if so. */
static bool kernel_writes(void *page)
{
    return uname((struct utsname *)page) == 0;
}

static int prove_light_guard(void)
{
    size_t bytes = os_page_bytes();
    void *page = os_pages_reserve(bytes);
    if (page == NULL)
        return -1;
    bool light = kernel_writes(page) && madvise(page, bytes, GUARD_INSTALL) == 0 && !kernel_writes(page) &&
                 errno == EFAULT && madvise(page, bytes, GUARD_REMOVE) == 0 && kernel_writes(page);
    os_pages_release(page, bytes);
    return light;
}

bool os_guard_is_light(void)
{
    static atomic_u32 known; /* 0: not yet, 1: heavy, 2: light. Two threads that prove it at once agree. */
    uint32_t answer = atomic_u32_load(&known, RELAXED);
    if (answer == 0) {
        int light = prove_light_guard();
        if (light < 0)
            return false;
        answer = light ? 2 : 1;
        atomic_u32_store(&known, answer, RELAXED);
    }
    return answer == 2;
}

/* A number in a file of /proc, or 0. */
static size_t read_number(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    char text[24];
    ssize_t length = read(file, text, sizeof text);
    (void)close(file);
    size_t number = 0;
    for (ssize_t i = 0; i < length && text[i] >= '0' && text[i] <= '9' && number <= SIZE_MAX / 10 - 1; i++)
        number = number * 10 + (size_t)(text[i] - '0');
    return number;
}

size_t os_guard_limit(void)
{
    static atomic_size known; /* read once: later changes by the administrator are not seen */
    size_t limit = atomic_size_load(&known, RELAXED);
    if (limit == 0) {
        size_t mappings = read_number("/proc/sys/vm/max_map_count");
        limit = mappings > 1 ? mappings / 2 : 65530 / 2; /* without /proc: the kernel's default */
        atomic_size_store(&known, limit, RELAXED);
    }
    return limit;
}

/* OK, NO_MEMORY, or NOT_SUPPORTED: it takes a heavy one. */
static int install_light(void *pages, size_t bytes)
{
    if (!os_guard_is_light())
        return ROUSE_NOT_SUPPORTED;
    if (madvise(pages, bytes, GUARD_INSTALL) == 0)
        return ROUSE_OK;
    return errno == EINVAL ? ROUSE_NOT_SUPPORTED : ROUSE_NO_MEMORY; /* EINVAL: the memory is locked */
}

/* False: it may be a heavy one still. */
static bool remove_light(void *pages, size_t bytes)
{
    if (!os_guard_is_light())
        return false;
    (void)madvise(pages, bytes, GUARD_REMOVE);
    return atomic_size_load(&heavy_guards, RELAXED) == 0 || kernel_writes(pages);
}
#else
bool os_guard_is_light(void)
{
    return false;
}

size_t os_guard_limit(void)
{
    return SIZE_MAX;
}

static int install_light(void *pages, size_t bytes)
{
    (void)pages;
    (void)bytes;
    return ROUSE_NOT_SUPPORTED;
}

static bool remove_light(void *pages, size_t bytes)
{
    (void)pages;
    (void)bytes;
    return false;
}
#endif

int os_guard_install(void *pages, size_t bytes)
{
    int status = install_light(pages, bytes);
    if (status != ROUSE_NOT_SUPPORTED)
        return status;
    if (atomic_size_add(&heavy_guards, 1, RELAXED) < os_guard_limit() && mprotect(pages, bytes, PROT_NONE) == 0)
        return ROUSE_OK;
    /* The other limit, of all mappings, is what mprotect runs into: others use mappings too. */
    (void)atomic_size_sub(&heavy_guards, 1, RELAXED);
    return ROUSE_LIMIT;
}

void os_guard_remove(void *pages, size_t bytes)
{
    if (!remove_light(pages, bytes) && mprotect(pages, bytes, PROT_READ | PROT_WRITE) == 0)
        (void)atomic_size_sub(&heavy_guards, 1, RELAXED);
}
