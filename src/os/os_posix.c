/* Statuses, clock, random numbers and processors.
 *
 * The clock never goes back. Kernels and hypervisors have shipped clocks that do, so os_now keeps the last answer of
 * each thread. A small step back is answered by standing still; a large one moves a correction that all threads share,
 * so that time goes on from there: a clock that merely stood still would delay every timer by the length of the step.
 * Exact within a thread; between threads it is as good as the system's clock until one of them has seen the step. Lost:
 * a maximum kept in one atomic, which is exact everywhere but costs a contended read-modify-write for each reading; and
 * trusting the system, as most runtimes do. */
#include "os/os_posix.h"

#include <errno.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "os/atomic.h"

#if defined(__linux__)
#include <sys/random.h>
#else
#include <stdlib.h>
#endif

/* ---- statuses ---- */

/* A list and not a switch, because some of the names are the same number on some systems. The first is the one that
 * comes in every turn of a reactor. */
static const struct {
    int error;
    int status;
} statuses[] = {
    {EAGAIN, ROUSE_PENDING},
    {EWOULDBLOCK, ROUSE_PENDING},
    {ECONNRESET, ROUSE_CONNECTION_RESET},
    {EPIPE, ROUSE_BROKEN_PIPE},
    {ECONNREFUSED, ROUSE_CONNECTION_REFUSED},
    {ECONNABORTED, ROUSE_CONNECTION_ABORTED},
    {ENOTCONN, ROUSE_NOT_CONNECTED},
    {EISCONN, ROUSE_ALREADY_CONNECTED},
    {ETIMEDOUT, ROUSE_TIMED_OUT},
    {ESHUTDOWN, ROUSE_BROKEN_PIPE},
    {ENETRESET, ROUSE_CONNECTION_RESET},
    {EPROTOTYPE, ROUSE_CONNECTION_RESET}, /* macOS: a write meets the peer's reset (libuv#482); it never passes */
    {EADDRINUSE, ROUSE_ADDRESS_IN_USE},
    {EADDRNOTAVAIL, ROUSE_ADDRESS_NOT_AVAILABLE},
    {EHOSTUNREACH, ROUSE_HOST_UNREACHABLE},
    {EHOSTDOWN, ROUSE_HOST_UNREACHABLE},
    {ENETUNREACH, ROUSE_NETWORK_UNREACHABLE},
    {ENETDOWN, ROUSE_NETWORK_DOWN},
#ifdef ENONET
    {ENONET, ROUSE_NETWORK_DOWN},
#endif
    {EPROTO, ROUSE_PROTOCOL_ERROR},
    {EACCES, ROUSE_PERMISSION_DENIED},
    {EPERM, ROUSE_PERMISSION_DENIED},
    {EROFS, ROUSE_PERMISSION_DENIED},
    {EMFILE, ROUSE_TOO_MANY_FILES},
    {ENFILE, ROUSE_TOO_MANY_FILES_SYSTEM},
    {ENOBUFS, ROUSE_NO_BUFFERS},
    {ENOMEM, ROUSE_NO_MEMORY},
    {ENOSPC, ROUSE_NO_SPACE},
    {EDQUOT, ROUSE_NO_SPACE},
    {ENOENT, ROUSE_NOT_FOUND},
    {ENOTDIR, ROUSE_NOT_FOUND},
    {ENXIO, ROUSE_NOT_FOUND},
    {ENODEV, ROUSE_NOT_FOUND},
    {ESRCH, ROUSE_NOT_FOUND},
    {EEXIST, ROUSE_ALREADY_EXISTS},
    {EIO, ROUSE_IO_ERROR},
    {EMSGSIZE, ROUSE_MESSAGE_TOO_LONG},
    {ENAMETOOLONG, ROUSE_NAME_TOO_LONG},
    {EBADF, ROUSE_BAD_DESCRIPTOR},
    {EBUSY, ROUSE_BUSY},
    {E2BIG, ROUSE_TOO_LARGE},
    {EFBIG, ROUSE_TOO_LARGE},
    {EOVERFLOW, ROUSE_TOO_LARGE},
    {EINVAL, ROUSE_INVALID},
    {EFAULT, ROUSE_INVALID},
    {ELOOP, ROUSE_INVALID},
    {EISDIR, ROUSE_INVALID},
    {EDESTADDRREQ, ROUSE_INVALID},
    {ENOSYS, ROUSE_NOT_SUPPORTED},
    {EOPNOTSUPP, ROUSE_NOT_SUPPORTED},
    {ENOTSUP, ROUSE_NOT_SUPPORTED},
    {EAFNOSUPPORT, ROUSE_NOT_SUPPORTED},
    {EPROTONOSUPPORT, ROUSE_NOT_SUPPORTED},
    {ENOPROTOOPT, ROUSE_NOT_SUPPORTED},
    {ENOTSOCK, ROUSE_NOT_SUPPORTED},
    {ENOTTY, ROUSE_NOT_SUPPORTED},
    {ESPIPE, ROUSE_NOT_SUPPORTED},
    {0, ROUSE_OK},
};

int os_status(int error)
{
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        if (statuses[i].error == error)
            return statuses[i].status;
    return ROUSE_UNKNOWN;
}

/* ---- clock ---- */

/* Smaller steps back are differences between processors, which pass: correcting them would make the clock run fast. */
#define SMALL_STEP_NS ROUSE_MS(1)

static atomic_i64 correction; /* only grows */

OS_NOINLINE int64_t os_now(void)
{
    static _Thread_local int64_t last;
    for (;;) {
        /* Before the clock is read: a reading from before a step must not meet the correction made after it. */
        int64_t corrected = atomic_i64_load(&correction, ACQUIRE);
        struct timespec time;
        if (clock_gettime(CLOCK_MONOTONIC, &time) != 0)
            return last;
        int64_t now = (int64_t)time.tv_sec * 1000000000 + time.tv_nsec + corrected;
        if (now >= last) {
            last = now;
            return now;
        }
        if (last - now < SMALL_STEP_NS)
            return last;
        /* The first thread to see the step moves the correction; the others find it moved and read again. */
        if (atomic_i64_cas(&correction, &corrected, corrected + (last - now), ACQ_REL, RELAXED))
            return last;
    }
}

int64_t os_system_time(int64_t deadline_ns)
{
    int64_t corrected = atomic_i64_load(&correction, RELAXED);
    return deadline_ns > corrected ? deadline_ns - corrected : 0;
}

/* ---- random numbers ---- */

#if defined(__linux__)
/* The finalizer of splitmix64. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* For kernels and sandboxes without getrandom: not secret, but different for each call, process and boot. */
static uint64_t weak_random(void)
{
    static atomic_u64 calls;
    struct timespec real = {0, 0};
    (void)clock_gettime(CLOCK_REALTIME, &real);
    uint64_t x = mix((uint64_t)os_now() ^ ((uint64_t)getpid() << 40));
    x = mix(x ^ (uint64_t)real.tv_sec * UINT64_C(1000000007) ^ (uint64_t)real.tv_nsec);
    x = mix(x ^ (uint64_t)(uintptr_t)&real);
    return mix(x + atomic_u64_add(&calls, UINT64_C(0x9e3779b97f4a7c15), RELAXED));
}

uint64_t os_random(void)
{
    uint64_t value;
    /* Not waiting: early after the boot a seed for hashing and stealing is not worth minutes. */
    if (getrandom(&value, sizeof value, GRND_NONBLOCK) == (ssize_t)sizeof value)
        return value;
    return weak_random();
}
#else
uint64_t os_random(void)
{
    uint64_t value;
    arc4random_buf(&value, sizeof value);
    return value;
}
#endif

/* ---- processors ---- */

#if defined(__linux__)
/* How many bits of the calling thread's affinity are set, which the threads that it starts inherit; 0 if it cannot be
 * learnt. The kernel refuses a mask that is smaller than its own, which has at most 8192 bits (NR_CPUS). On the stack:
 * missing memory must not change the answer. */
static unsigned affinity_count(void)
{
    unsigned long mask[4096 / sizeof(unsigned long)] = {0};
    unsigned count = 0;
    if (sched_getaffinity(0, sizeof mask, (cpu_set_t *)(void *)mask) != 0)
        return 0;
    for (size_t i = 0; i < sizeof mask / sizeof mask[0]; i++)
        count += (unsigned)__builtin_popcountl(mask[i]);
    return count;
}
#endif

/* A quota of processor time (cgroups' cpu.max) is not looked at: it limits time, not how many run at once. Whoever
 * wants fewer workers says so in the runtime's options. */
unsigned os_processors(void)
{
#if defined(__linux__)
    unsigned allowed = affinity_count();
    if (allowed > 0)
        return allowed;
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : online > 65536 ? 65536 : (unsigned)online;
}
