/* What the files os_posix*.c and the backends of these systems share; nobody else includes it. */
#ifndef ROUSE_OS_POSIX_H
#define ROUSE_OS_POSIX_H

#include "os/os.h"
#include <limits.h>

/* The status for a value of errno. The only such table. */
int os_status(int error);

/* The same moment on the system's CLOCK_MONOTONIC: os_now may be ahead of it after a step back. Not negative. */
int64_t os_system_time(int64_t deadline_ns);

/* Makes a new descriptor non-blocking and closed on exec, where no system call gives birth to it like this. */
int os_prepare_descriptor(int descriptor);

/* OK, NOT_POLLABLE for files that are always ready, or BAD_DESCRIPTOR: for backends whose kernel waits for files as well,
 * but for something else. */
int os_check_pollable(int descriptor);

/* Each socket is told not to raise SIGPIPE. Elsewhere each call is told (MSG_NOSIGNAL), which macOS has learnt lately only. */
#if defined(__APPLE__)
#define SOCKETS_RAISE_SIGPIPE 1
#else
#define SOCKETS_RAISE_SIGPIPE 0
#endif

/* A number that no descriptor can have becomes -1, for which the kernel has the right answer. */
static inline int os_descriptor(os_handle handle)
{
    return handle < 0 || handle > INT_MAX ? -1 : (int)handle;
}

#endif
