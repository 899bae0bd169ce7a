/* Descriptors, which are sockets here: what they are, reading, writing and closing them. Other handles cannot be waited for
 * together with sockets. */
#include "os/os_windows.h"

#include <limits.h>

/* Of Windows' form, kept on the stack of whoever reads or writes: not so many that a fiber's stack feels it. */
#define PIECES_MAX 64

/* ---- Winsock ---- */

int os_winsock_start(void)
{
    static atomic_u32 started; /* two threads that start it at once only count twice */
    if (atomic_u32_load(&started, ACQUIRE))
        return ROUSE_OK;
    WSADATA data;
    int error = WSAStartup(MAKEWORD(2, 2), &data);
    if (error != 0)
        return os_status((unsigned long)error);
    atomic_u32_store(&started, 1, RELEASE);
    return ROUSE_OK;
}

static int last_status(void)
{
    return os_status((unsigned long)WSAGetLastError());
}

/* ---- what it is ---- */

/* Open, but not a socket: a file, a pipe, a console, a process. */
static bool is_other_handle(os_handle handle)
{
    DWORD flags;
    return os_socket(handle) != INVALID_SOCKET && GetHandleInformation((HANDLE)handle, &flags);
}

int os_handle_kind(os_handle handle, enum os_kind *kind)
{
    int status = os_winsock_start();
    if (status != ROUSE_OK)
        return status;
    WSAPROTOCOL_INFOW info;
    int length = sizeof info;
    if (getsockopt(os_socket(handle), SOL_SOCKET, SO_PROTOCOL_INFOW, (char *)&info, &length) != 0) {
        status = last_status();
        return status == ROUSE_BAD_DESCRIPTOR && is_other_handle(handle) ? ROUSE_NOT_POLLABLE : status;
    }
    bool tcp = info.iSocketType == SOCK_STREAM && info.iProtocol == IPPROTO_TCP &&
               (info.iAddressFamily == AF_INET || info.iAddressFamily == AF_INET6);
    *kind = tcp ? OS_KIND_STREAM_SOCKET : OS_KIND_OTHER_SOCKET;
    return ROUSE_OK;
}

/* The system does not tell how it was. Blocking is how sockets are born. */
int os_set_nonblocking(os_handle handle, bool on, bool *before)
{
    u_long value = on;
    if (ioctlsocket(os_socket(handle), (long)FIONBIO, &value) != 0)
        return last_status();
    if (before != NULL)
        *before = false;
    return ROUSE_OK;
}

int os_close(os_handle handle)
{
    SOCKET socket = os_socket(handle);
    if (closesocket(socket) == 0)
        return ROUSE_OK;
    int status = last_status();
    if (status == ROUSE_PENDING) {
        /* It would linger, and is not closed: not even that may block. What was written is still sent. */
        struct linger linger = {0, 0};
        (void)setsockopt(socket, SOL_SOCKET, SO_LINGER, (const char *)&linger, sizeof linger);
        status = closesocket(socket) == 0 ? ROUSE_OK : last_status();
    }
    return status == ROUSE_BAD_DESCRIPTOR ? ROUSE_OK : status;
}

/* ---- reading and writing ---- */

/* A shorter count is always a legal answer. */
static int clip(size_t length)
{
    return length > INT_MAX ? INT_MAX : (int)length;
}

/* The end, or a reset? Reading after a reset fails, but only once or not at all where something else has asked the system
 * for the error before: Wine's server always has. A poll goes on telling. */
static ptrdiff_t ended(SOCKET socket)
{
    WSAPOLLFD polled = {.fd = socket};
    return WSAPoll(&polled, 1, 0) > 0 && polled.revents & POLLERR ? ROUSE_CONNECTION_RESET : 0;
}

/* What the system has answered to a read of `length`. After the reading side was shut down there is nothing more to read,
 * which is no error. */
static ptrdiff_t received(SOCKET socket, ptrdiff_t count, size_t length)
{
    if (count != 0)
        return count > 0 ? count : WSAGetLastError() == WSAESHUTDOWN ? 0 : last_status();
    return length > 0 ? ended(socket) : 0;
}

static ptrdiff_t receive(os_handle handle, enum os_kind kind, void *data, size_t length, int flags)
{
    SOCKET socket = os_socket(handle);
    if (length > PTRDIFF_MAX)
        return ROUSE_TOO_LARGE;
    if (kind == OS_KIND_OTHER)
        return ROUSE_NOT_SUPPORTED;
    return received(socket, recv(socket, data, clip(length), flags), length);
}

ptrdiff_t os_read(os_handle handle, enum os_kind kind, void *data, size_t length)
{
    return receive(handle, kind, data, length, 0);
}

ptrdiff_t os_peek(os_handle handle, enum os_kind kind, void *data, size_t length)
{
    return receive(handle, kind, data, length, MSG_PEEK);
}

ptrdiff_t os_write(os_handle handle, enum os_kind kind, const void *data, size_t length)
{
    if (length > PTRDIFF_MAX)
        return ROUSE_TOO_LARGE;
    if (kind == OS_KIND_OTHER)
        return ROUSE_NOT_SUPPORTED;
    int count = send(os_socket(handle), data, clip(length), 0);
    return count >= 0 ? count : last_status();
}

/* Puts as many of the pieces as go into one call into `buffers`; answers how many, or TOO_LARGE. */
static int convert(WSABUF *buffers, const rouse_buffer *pieces, size_t count)
{
    size_t total = 0;
    int used = 0;
    bool full = false;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].length > (size_t)PTRDIFF_MAX - total)
            return ROUSE_TOO_LARGE;
        total += pieces[i].length;
        if (pieces[i].length == 0 || full)
            continue;
        buffers[used].buf = pieces[i].data;
        buffers[used].len = (ULONG)clip(pieces[i].length);
        used++;
        full = used == PIECES_MAX || pieces[i].length > INT_MAX; /* whose rest comes before the next one */
    }
    return used;
}

ptrdiff_t os_readv(os_handle handle, enum os_kind kind, const rouse_buffer *pieces, size_t count)
{
    WSABUF buffers[PIECES_MAX];
    DWORD got = 0, flags = 0;
    int used = convert(buffers, pieces, count);
    if (used < 0 || kind == OS_KIND_OTHER)
        return used < 0 ? used : ROUSE_NOT_SUPPORTED;
    int failed = WSARecv(os_socket(handle), buffers, (DWORD)used, &got, &flags, NULL, NULL);
    return received(os_socket(handle), failed ? -1 : (ptrdiff_t)got, (size_t)used);
}

ptrdiff_t os_writev(os_handle handle, enum os_kind kind, const rouse_buffer *pieces, size_t count)
{
    WSABUF buffers[PIECES_MAX];
    DWORD written = 0;
    int used = convert(buffers, pieces, count);
    if (used < 0 || kind == OS_KIND_OTHER)
        return used < 0 ? used : ROUSE_NOT_SUPPORTED;
    int failed = WSASend(os_socket(handle), buffers, (DWORD)used, &written, 0, NULL, NULL);
    return failed ? last_status() : (ptrdiff_t)written;
}

/* ---- readiness at this moment ---- */

/* Not WSAPoll, which told of no connection that failed until Windows 10 2004. */
int os_is_ready(os_handle handle, int direction)
{
    SOCKET socket = os_socket(handle);
    if (socket == INVALID_SOCKET)
        return ROUSE_BAD_DESCRIPTOR;
    fd_set readable = {0, {0}}, writable = {0, {0}}, failed = {0, {0}};
    if (direction & ROUSE_READABLE)
        readable = (fd_set){1, {socket}};
    if (direction & ROUSE_WRITABLE)
        writable = failed = (fd_set){1, {socket}};
    if (direction == 0)
        return 0; /* three empty sets are an error */
    struct timeval at_once = {0, 0};
    int count = select(0, &readable, &writable, &failed, &at_once);
    return count < 0 ? last_status() : count != 0;
}
