/* Waiting on an epoll set in nanoseconds, where the kernel can. */
#ifndef ROUSE_OS_EPOLL_H
#define ROUSE_OS_EPOLL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Headers older than the call lack its number, which is the same on most systems. */
#if !defined(SYS_epoll_pwait2) && (defined(__LP64__) || defined(__arm__) || defined(__i386__)) && \
    !defined(__mips__) && !defined(__alpha__)
#define SYS_epoll_pwait2 441
#endif

static inline int os_epoll_wait_finely(int set, struct epoll_event *events, int limit, int64_t span_ns)
{
#if defined(SYS_epoll_pwait2)
    /* The kernel's own struct: that of the C library is shorter on some 32-bit systems. */
    struct {
        int64_t seconds, nanoseconds;
    } time = {span_ns / 1000000000, span_ns % 1000000000};
    return (int)syscall(SYS_epoll_pwait2, set, events, limit, &time, NULL, (size_t)0);
#else
    (void)set, (void)events, (void)limit, (void)span_ns;
    errno = ENOSYS;
    return -1;
#endif
}

/* As epoll_wait. *coarse, false at first, keeps in mind that the kernel takes milliseconds only: they are rounded up, for
 * down would spin until the deadline has come. */
static inline int os_epoll_wait(int set, struct epoll_event *events, int limit, int64_t span_ns, bool *coarse)
{
    if (!*coarse) {
        int count = os_epoll_wait_finely(set, events, limit, span_ns);
        /* Old kernels, emulators and valgrind say ENOSYS; sandboxes that do not know the call, EPERM. */
        if (count >= 0 || (errno != ENOSYS && errno != EPERM))
            return count;
        *coarse = true;
    }
    return epoll_wait(set, events, limit, (int)((span_ns + 999999) / 1000000));
}

#endif
