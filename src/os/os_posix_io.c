/* Descriptors: what they are, reading, writing and closing them.
 *
 * Writing to a pipe whose reader is gone raises SIGPIPE, and only sockets have a flag against it. A library may not
 * change what SIGPIPE does in its process, so the signal is blocked around the write and taken back if this write
 * raised it. Lost: ignoring it for good (the application's decision); RWF_NOSIGNAL (Linux 6.18; one call instead of
 * three, but the long way is needed for years). */
#include "os/os_posix.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#if SOCKETS_RAISE_SIGPIPE
#undef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#if defined(__linux__) && !defined(TCP_ULP)
#define TCP_ULP 31
#endif

#define PIECES_MAX 1024 /* IOV_MAX of every system in question */

/* Pieces are handed to the system as they are. */
_Static_assert(sizeof(rouse_buffer) == sizeof(struct iovec), "rouse_buffer is iovec");
_Static_assert(offsetof(rouse_buffer, data) == offsetof(struct iovec, iov_base), "rouse_buffer is iovec");
_Static_assert(offsetof(rouse_buffer, length) == offsetof(struct iovec, iov_len), "rouse_buffer is iovec");

/* ---- what it is ---- */

static int socket_number(int descriptor, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(descriptor, SOL_SOCKET, name, &value, &length) == 0 ? value : -1;
}

static int socket_family(int descriptor)
{
#if defined(SO_DOMAIN)
    return socket_number(descriptor, SO_DOMAIN);
#else
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    return getsockname(descriptor, (struct sockaddr *)&address, &length) == 0 ? address.ss_family : -1;
#endif
}

/* Does the kernel put a protocol of its own over TCP, as for TLS? Then reads end with each record. */
static bool has_upper_layer(int descriptor)
{
#if defined(__linux__)
    char name[16];
    socklen_t length = sizeof name;
    return getsockopt(descriptor, IPPROTO_TCP, TCP_ULP, name, &length) == 0 && length > 0;
#else
    (void)descriptor;
    return false;
#endif
}

/* Plain TCP only: a stream of another protocol, or of Unix, where messages may carry descriptors and credentials, gives
 * short counts with more to come. */
static bool is_tcp(int descriptor)
{
    int family = socket_family(descriptor);
    if (socket_number(descriptor, SO_TYPE) != SOCK_STREAM || (family != AF_INET && family != AF_INET6))
        return false;
#if defined(SO_PROTOCOL)
    if (socket_number(descriptor, SO_PROTOCOL) != IPPROTO_TCP)
        return false;
#endif
    return !has_upper_layer(descriptor);
}

static int pollable_mode(int descriptor, mode_t *mode)
{
    struct stat info;
    if (fstat(descriptor, &info) != 0)
        return errno == EOVERFLOW ? ROUSE_NOT_POLLABLE : os_status(errno); /* a file too long for a 32-bit off_t */
    *mode = info.st_mode;
    return S_ISREG(*mode) || S_ISDIR(*mode) || S_ISBLK(*mode) ? ROUSE_NOT_POLLABLE : ROUSE_OK;
}

int os_check_pollable(int descriptor)
{
    mode_t ignored;
    return pollable_mode(descriptor, &ignored);
}

int os_handle_kind(os_handle handle, enum os_kind *kind)
{
    int descriptor = os_descriptor(handle);
    mode_t mode;
    int status = pollable_mode(descriptor, &mode);
    if (status != ROUSE_OK)
        return status;
    if (!S_ISSOCK(mode)) {
        *kind = OS_KIND_OTHER;
        return ROUSE_OK;
    }
#if SOCKETS_RAISE_SIGPIPE
    (void)setsockopt(descriptor, SOL_SOCKET, SO_NOSIGPIPE, &(int){1}, sizeof(int));
#endif
    *kind = is_tcp(descriptor) ? OS_KIND_STREAM_SOCKET : OS_KIND_OTHER_SOCKET;
    return ROUSE_OK;
}

int os_set_nonblocking(os_handle handle, bool on, bool *before)
{
    int descriptor = os_descriptor(handle);
    int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0)
        return os_status(errno);
    bool was = (flags & O_NONBLOCK) != 0;
    if (was != on && fcntl(descriptor, F_SETFL, flags ^ O_NONBLOCK) != 0)
        return os_status(errno);
    if (before != NULL)
        *before = was;
    return ROUSE_OK;
}

int os_prepare_descriptor(int descriptor)
{
    int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0)
        return os_status(errno);
    return ROUSE_OK;
}

int os_close(os_handle handle)
{
    /* After EINTR too the number may belong to another thread's new descriptor already. */
    if (close(os_descriptor(handle)) == 0 || errno == EINTR || errno == EBADF)
        return ROUSE_OK;
    return os_status(errno);
}

/* ---- writing without SIGPIPE ---- */

struct pipe_guard {
    sigset_t mask_before;
    bool pending_before;
};

static void pipe_set(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGPIPE);
}

static void pipe_guard_enter(struct pipe_guard *guard)
{
    sigset_t set, pending;
    pipe_set(&set);
    guard->pending_before = false;
    (void)pthread_sigmask(SIG_BLOCK, &set, &guard->mask_before);
    /* One that was not blocked has been delivered, and is not waiting. */
    if (sigismember(&guard->mask_before, SIGPIPE) == 1 && sigpending(&pending) == 0)
        guard->pending_before = sigismember(&pending, SIGPIPE) == 1;
}

static void pipe_guard_leave(struct pipe_guard *guard, bool broken)
{
    sigset_t set;
    pipe_set(&set);
    if (broken && !guard->pending_before) {
#if defined(__APPLE__) || defined(__OpenBSD__)
        sigset_t pending;
        int taken;
        if (sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1)
            (void)sigwait(&set, &taken);
#else
        /* Nothing to take where the application ignores the signal. */
        while (sigtimedwait(&set, NULL, &(struct timespec){0, 0}) < 0 && errno == EINTR) {}
#endif
    }
    if (sigismember(&guard->mask_before, SIGPIPE) != 1)
        (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- reading and writing ---- */

static ptrdiff_t outcome(ssize_t count)
{
    return count >= 0 ? (ptrdiff_t)count : os_status(errno);
}

/* macOS refuses lengths over INT_MAX; a shorter count is always a legal answer. */
static size_t clip(size_t length)
{
#if defined(__APPLE__)
    return length > INT_MAX ? INT_MAX : length;
#else
    return length;
#endif
}

static ptrdiff_t receive(int descriptor, void *data, size_t length, int flags)
{
    ssize_t count;
    do
        count = recv(descriptor, data, clip(length), flags);
    while (count < 0 && errno == EINTR);
    return outcome(count);
}

ptrdiff_t os_read(os_handle handle, enum os_kind kind, void *data, size_t length)
{
    if (length > SSIZE_MAX)
        return ROUSE_TOO_LARGE;
    int descriptor = os_descriptor(handle);
    if (kind != OS_KIND_OTHER)
        return receive(descriptor, data, length, 0);
    ssize_t count;
    do
        count = read(descriptor, data, clip(length));
    while (count < 0 && errno == EINTR);
    return outcome(count);
}

ptrdiff_t os_peek(os_handle handle, enum os_kind kind, void *data, size_t length)
{
    if (kind == OS_KIND_OTHER)
        return ROUSE_NOT_SUPPORTED;
    return length > SSIZE_MAX ? ROUSE_TOO_LARGE : receive(os_descriptor(handle), data, length, MSG_PEEK);
}

/* The status is taken before the guard is left, because leaving makes system calls of its own. */
static ptrdiff_t write_pieces(int descriptor, const struct iovec *pieces, int count)
{
    struct pipe_guard guard;
    pipe_guard_enter(&guard);
    ssize_t written;
    do
        written = writev(descriptor, pieces, count);
    while (written < 0 && errno == EINTR);
    ptrdiff_t answer = outcome(written);
    pipe_guard_leave(&guard, answer == ROUSE_BROKEN_PIPE);
    return answer;
}

ptrdiff_t os_write(os_handle handle, enum os_kind kind, const void *data, size_t length)
{
    if (length > SSIZE_MAX)
        return ROUSE_TOO_LARGE;
    int descriptor = os_descriptor(handle);
    if (kind == OS_KIND_OTHER)
        return write_pieces(descriptor, &(struct iovec){(void *)(uintptr_t)data, clip(length)}, 1);
    ssize_t count;
    do
        count = send(descriptor, data, clip(length), MSG_NOSIGNAL);
    while (count < 0 && errno == EINTR);
    return outcome(count);
}

/* How many of the pieces go into one call, or TOO_LARGE. */
static int pieces_usable(const rouse_buffer *pieces, size_t count)
{
    size_t usable = count > PIECES_MAX ? PIECES_MAX : count;
    size_t total = 0;
    for (size_t i = 0; i < usable; i++) {
        if (pieces[i].length > (size_t)SSIZE_MAX - total)
            return ROUSE_TOO_LARGE;
        total += pieces[i].length;
    }
    return (int)usable;
}

/* The type of msg_iovlen is not the same everywhere. */
static struct msghdr message_of(const rouse_buffer *pieces, int count)
{
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = (struct iovec *)(uintptr_t)pieces;
    message.msg_iovlen = (__typeof__(message.msg_iovlen))count;
    return message;
}

ptrdiff_t os_readv(os_handle handle, enum os_kind kind, const rouse_buffer *pieces, size_t count)
{
    int usable = pieces_usable(pieces, count);
    if (usable < 0)
        return usable;
    int descriptor = os_descriptor(handle);
    struct msghdr message = message_of(pieces, usable);
    ssize_t got;
    do
        got = kind == OS_KIND_OTHER ? readv(descriptor, message.msg_iov, usable) : recvmsg(descriptor, &message, 0);
    while (got < 0 && errno == EINTR);
    return outcome(got);
}

ptrdiff_t os_writev(os_handle handle, enum os_kind kind, const rouse_buffer *pieces, size_t count)
{
    int usable = pieces_usable(pieces, count);
    if (usable < 0)
        return usable;
    int descriptor = os_descriptor(handle);
    struct msghdr message = message_of(pieces, usable);
    if (kind == OS_KIND_OTHER)
        return write_pieces(descriptor, message.msg_iov, usable);
    ssize_t written;
    do
        written = sendmsg(descriptor, &message, MSG_NOSIGNAL);
    while (written < 0 && errno == EINTR);
    return outcome(written);
}

/* ---- readiness at this moment ---- */

int os_is_ready(os_handle handle, int direction)
{
    struct pollfd one = {os_descriptor(handle), 0, 0};
    one.events = (short)((direction & ROUSE_READABLE ? POLLIN : 0) | (direction & ROUSE_WRITABLE ? POLLOUT : 0));
    if (one.fd < 0)
        return ROUSE_BAD_DESCRIPTOR; /* which poll would skip */
    int count;
    do
        count = poll(&one, 1, 0);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return os_status(errno);
    if (one.revents & POLLNVAL)
        return ROUSE_BAD_DESCRIPTOR;
    return one.revents != 0;
}
