/* TCP sockets and their addresses.
 *
 * Sockets are non-blocking and closed on exec from birth where the system can do that; elsewhere a fork in another
 * thread may catch one half made, and nothing can be done about it. */
#include "os/os_posix.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- addresses ---- */

union socket_address {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
    struct sockaddr_storage storage;
};

/* Answers the length, or 0 for an unknown family. */
static socklen_t address_to_system(union socket_address *to, const rouse_address *from)
{
    memset(to, 0, sizeof *to);
    if (from->family == ROUSE_IPV4) {
        to->ipv4.sin_family = AF_INET;
        to->ipv4.sin_port = htons(from->port);
        memcpy(&to->ipv4.sin_addr, from->bytes, 4);
        return sizeof to->ipv4;
    }
    if (from->family == ROUSE_IPV6) {
        to->ipv6.sin6_family = AF_INET6;
        to->ipv6.sin6_port = htons(from->port);
        to->ipv6.sin6_scope_id = from->scope;
        memcpy(&to->ipv6.sin6_addr, from->bytes, 16);
        return sizeof to->ipv6;
    }
    return 0;
}

static int address_from_system(rouse_address *to, const union socket_address *from)
{
    memset(to, 0, sizeof *to);
    if (from->any.sa_family == AF_INET) {
        to->family = ROUSE_IPV4;
        to->port = ntohs(from->ipv4.sin_port);
        memcpy(to->bytes, &from->ipv4.sin_addr, 4);
        return ROUSE_OK;
    }
    if (from->any.sa_family == AF_INET6) {
        to->family = ROUSE_IPV6;
        to->port = ntohs(from->ipv6.sin6_port);
        to->scope = from->ipv6.sin6_scope_id;
        memcpy(to->bytes, &from->ipv6.sin6_addr, 16);
        return ROUSE_OK;
    }
    return ROUSE_NOT_SUPPORTED;
}

int os_local_address(os_handle handle, rouse_address *address)
{
    union socket_address found;
    socklen_t length = sizeof found;
    memset(&found, 0, sizeof found);
    if (getsockname(os_descriptor(handle), &found.any, &length) != 0)
        return os_status(errno);
    return address_from_system(address, &found);
}

int os_peer_address(os_handle handle, rouse_address *address)
{
    union socket_address found;
    socklen_t length = sizeof found;
    memset(&found, 0, sizeof found);
    if (getpeername(os_descriptor(handle), &found.any, &length) != 0)
        return errno == EINVAL ? ROUSE_NOT_CONNECTED : os_status(errno); /* EINVAL: BSD, after the connection's end */
    return address_from_system(address, &found);
}

uint32_t os_interface_index(const char *name)
{
    return if_nametoindex(name);
}

/* ---- opening ---- */

static int set_number(int descriptor, int level, int name, int value)
{
    return setsockopt(descriptor, level, name, &value, sizeof value) == 0 ? ROUSE_OK : os_status(errno);
}

static int get_number(int descriptor, int level, int name, int *value)
{
    socklen_t length = sizeof *value;
    return getsockopt(descriptor, level, name, value, &length) == 0 ? ROUSE_OK : os_status(errno);
}

#if !defined(SOCK_NONBLOCK) || !defined(SOCK_CLOEXEC)
#define SOCK_NONBLOCK     0
#define SOCK_CLOEXEC      0
#define NEEDS_PREPARATION 1
#else
#define NEEDS_PREPARATION 0
#endif

/* Takes a new socket over: it is closed on failure. */
static int adopt_new(int descriptor, os_handle *handle)
{
    int status = NEEDS_PREPARATION ? os_prepare_descriptor(descriptor) : ROUSE_OK;
#if SOCKETS_RAISE_SIGPIPE
    if (status == ROUSE_OK && setsockopt(descriptor, SOL_SOCKET, SO_NOSIGPIPE, &(int){1}, sizeof(int)) != 0)
        status = errno == EINVAL ? ROUSE_CONNECTION_ABORTED : os_status(errno); /* EINVAL: it was reset in the queue */
#endif
    if (status != ROUSE_OK) {
        (void)close(descriptor);
        return status;
    }
    *handle = descriptor;
    return ROUSE_OK;
}

int os_tcp_open(os_handle *handle, int family)
{
    if (family != ROUSE_IPV4 && family != ROUSE_IPV6)
        return ROUSE_INVALID;
    int descriptor =
        socket(family == ROUSE_IPV4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    return descriptor < 0 ? os_status(errno) : adopt_new(descriptor, handle);
}

/* ---- listening ---- */

#if defined(SO_REUSEPORT_LB)
#define REUSE_PORT SO_REUSEPORT_LB /* FreeBSD: the plain one does not spread connections */
#else
#define REUSE_PORT SO_REUSEPORT
#endif

#if defined(__OpenBSD__)
/* It is always so there, and cannot be said otherwise. Only where the address is any one does it make a difference. */
static int set_v6_only(int descriptor, const struct sockaddr_in6 *address, bool v6_only)
{
    (void)descriptor;
    return v6_only || !IN6_IS_ADDR_UNSPECIFIED(&address->sin6_addr) ? ROUSE_OK : ROUSE_NOT_SUPPORTED;
}
#else
/* Said in both cases, because systems and their settings differ in what they do unasked. */
static int set_v6_only(int descriptor, const struct sockaddr_in6 *address, bool v6_only)
{
    (void)address;
    return set_number(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, v6_only);
}
#endif

int os_tcp_bind(os_handle handle, const rouse_address *address, bool reuse_address, bool reuse_port, bool v6_only)
{
    int descriptor = os_descriptor(handle);
    union socket_address to;
    socklen_t length = address_to_system(&to, address);
    if (length == 0)
        return ROUSE_INVALID;
    int status = ROUSE_OK;
    if (reuse_address)
        status = set_number(descriptor, SOL_SOCKET, SO_REUSEADDR, 1);
    if (status == ROUSE_OK && reuse_port)
        status = set_number(descriptor, SOL_SOCKET, REUSE_PORT, 1);
    if (status == ROUSE_OK && address->family == ROUSE_IPV6)
        status = set_v6_only(descriptor, &to.ipv6, v6_only);
    if (status != ROUSE_OK)
        return status;
    return bind(descriptor, &to.any, length) == 0 ? ROUSE_OK : os_status(errno);
}

int os_tcp_listen(os_handle handle, int backlog)
{
    return listen(os_descriptor(handle), backlog) == 0 ? ROUSE_OK : os_status(errno);
}

static int accept_once(int listener, union socket_address *from, socklen_t *length)
{
#if NEEDS_PREPARATION
    return accept(listener, &from->any, length);
#else
    return accept4(listener, &from->any, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
#endif
}

int os_tcp_accept(os_handle listener, os_handle *handle, rouse_address *peer)
{
    union socket_address from;
    socklen_t length;
    int descriptor;
    do {
        memset(&from, 0, sizeof from);
        length = sizeof from;
        descriptor = accept_once(os_descriptor(listener), &from, &length);
    } while (descriptor < 0 && errno == EINTR);
    if (descriptor < 0) /* ENOPROTOOPT is the connection's own error, not a word about the listener */
        return errno == ENOPROTOOPT ? ROUSE_PROTOCOL_ERROR : os_status(errno);
    if (length == 0) { /* BSD: it ended while it waited in the queue */
        (void)close(descriptor);
        return ROUSE_CONNECTION_ABORTED;
    }
    int status = adopt_new(descriptor, handle);
    if (status == ROUSE_OK && peer != NULL)
        (void)address_from_system(peer, &from); /* of another family: the listener was adopted; zeros then */
    return status;
}

/* EOPNOTSUPP is not among them, though Linux's manual has it: it is also, and for ever, the answer for a descriptor
 * that is no listener. */
bool os_accept_error_passes(int status)
{
    switch (status) {
    case ROUSE_CONNECTION_ABORTED:
    case ROUSE_CONNECTION_RESET:
    case ROUSE_PROTOCOL_ERROR:
    case ROUSE_PERMISSION_DENIED: /* a firewall's verdict */
    case ROUSE_NETWORK_DOWN:
    case ROUSE_NETWORK_UNREACHABLE:
    case ROUSE_HOST_UNREACHABLE:
    case ROUSE_TIMED_OUT:
        return true;
    default:
        return false;
    }
}

bool os_accept_error_is_exhaustion(int status)
{
    return status == ROUSE_TOO_MANY_FILES || status == ROUSE_TOO_MANY_FILES_SYSTEM || status == ROUSE_NO_BUFFERS ||
           status == ROUSE_NO_MEMORY;
}

/* ---- connecting ---- */

int os_tcp_connect(os_handle handle, const rouse_address *address)
{
    union socket_address to;
    socklen_t length = address_to_system(&to, address);
    if (length == 0)
        return ROUSE_INVALID;
    if (connect(os_descriptor(handle), &to.any, length) == 0 || errno == EISCONN)
        return ROUSE_OK;
    if (errno == EINPROGRESS || errno == EALREADY || errno == EINTR)
        return ROUSE_PENDING; /* interrupted: it goes on by itself, and a second call would only say so */
    return errno == EAGAIN ? ROUSE_ADDRESS_NOT_AVAILABLE : os_status(errno); /* EAGAIN: no local port is free */
}

/* OK, the reason why it failed, or NOT_CONNECTED: nothing is known yet. */
static int connect_outcome(int descriptor)
{
    int error = 0;
    int status = get_number(descriptor, SOL_SOCKET, SO_ERROR, &error);
    if (status != ROUSE_OK || error != 0)
        return status != ROUSE_OK ? status : os_status(error);
    /* No error is no proof: the socket may have been reported writable before its connection was made, and somebody
     * else may have taken the error. */
    union socket_address peer;
    socklen_t length = sizeof peer;
    if (getpeername(descriptor, &peer.any, &length) == 0)
        return ROUSE_OK;
    return errno == EINVAL ? ROUSE_NOT_CONNECTED : os_status(errno);
}

int os_tcp_connect_result(os_handle handle)
{
    int status = connect_outcome(os_descriptor(handle));
    if (status != ROUSE_NOT_CONNECTED)
        return status;
    int ready = os_is_ready(handle, ROUSE_WRITABLE); /* while it connects, nothing is ready, not even its end */
    if (ready <= 0)
        return ready == 0 ? ROUSE_PENDING : ready;
    /* It may have been decided since the first look. */
    return connect_outcome(os_descriptor(handle));
}

int os_tcp_shutdown(os_handle handle, int side)
{
    int how;
    if (side == ROUSE_SHUTDOWN_READ)
        how = SHUT_RD;
    else if (side == ROUSE_SHUTDOWN_WRITE)
        how = SHUT_WR;
    else if (side == ROUSE_SHUTDOWN_BOTH)
        how = SHUT_RDWR;
    else
        return ROUSE_INVALID;
    return shutdown(os_descriptor(handle), how) == 0 ? ROUSE_OK : os_status(errno);
}

/* ---- options ---- */

#if defined(TCP_KEEPIDLE)
#define KEEP_IDLE TCP_KEEPIDLE
#elif defined(TCP_KEEPALIVE)
#define KEEP_IDLE TCP_KEEPALIVE /* macOS */
#endif
#if defined(SO_LINGER_SEC)
#define LINGER SO_LINGER_SEC /* macOS: the plain one counts in ticks */
#else
#define LINGER SO_LINGER
#endif

static int set_keep_alive(int descriptor, int seconds)
{
    if (seconds < 0)
        return ROUSE_INVALID;
    /* The figure first: if it is refused, nothing has changed. */
    int status = ROUSE_OK;
    if (seconds > 0)
#if defined(KEEP_IDLE)
        status = set_number(descriptor, IPPROTO_TCP, KEEP_IDLE, seconds);
#else
        status = ROUSE_NOT_SUPPORTED; /* OpenBSD: the interval belongs to the system */
#endif
    return status != ROUSE_OK ? status : set_number(descriptor, SOL_SOCKET, SO_KEEPALIVE, seconds > 0);
}

static int get_keep_alive(int descriptor, int *seconds)
{
    int on = 0;
    int status = get_number(descriptor, SOL_SOCKET, SO_KEEPALIVE, &on);
    if (status != ROUSE_OK)
        return status;
    *seconds = 0;
#if defined(KEEP_IDLE)
    if (on != 0)
        status = get_number(descriptor, IPPROTO_TCP, KEEP_IDLE, seconds);
#endif
    return status;
}

static int set_linger(int descriptor, int seconds)
{
    if (seconds < -1)
        return ROUSE_INVALID;
    struct linger linger = {seconds >= 0, seconds >= 0 ? seconds : 0};
    return setsockopt(descriptor, SOL_SOCKET, LINGER, &linger, sizeof linger) == 0 ? ROUSE_OK : os_status(errno);
}

static int get_linger(int descriptor, int *seconds)
{
    struct linger linger = {0, 0};
    socklen_t length = sizeof linger;
    if (getsockopt(descriptor, SOL_SOCKET, LINGER, &linger, &length) != 0)
        return os_status(errno);
    *seconds = linger.l_onoff ? linger.l_linger : -1;
    return ROUSE_OK;
}

int os_option_set(os_handle handle, int option, int value)
{
    int descriptor = os_descriptor(handle);
    switch (option) {
    case ROUSE_OPTION_NO_DELAY:
        return value == 0 || value == 1 ? set_number(descriptor, IPPROTO_TCP, TCP_NODELAY, value) : ROUSE_INVALID;
    case ROUSE_OPTION_KEEP_ALIVE:
        return set_keep_alive(descriptor, value);
    case ROUSE_OPTION_LINGER:
        return set_linger(descriptor, value);
    case ROUSE_OPTION_SEND_BUFFER:
        return value > 0 ? set_number(descriptor, SOL_SOCKET, SO_SNDBUF, value) : ROUSE_INVALID;
    case ROUSE_OPTION_RECEIVE_BUFFER:
        return value > 0 ? set_number(descriptor, SOL_SOCKET, SO_RCVBUF, value) : ROUSE_INVALID;
    case ROUSE_OPTION_REUSE_ADDRESS:
    case ROUSE_OPTION_REUSE_PORT:
    case ROUSE_OPTION_V6_ONLY:
        return ROUSE_NOT_SUPPORTED; /* decided when the socket was bound */
    default:
        return ROUSE_INVALID;
    }
}

static int get_flag(int descriptor, int level, int name, int *value)
{
    int status = get_number(descriptor, level, name, value);
    if (status == ROUSE_OK)
        *value = *value != 0;
    return status;
}

int os_option_get(os_handle handle, int option, int *value)
{
    int descriptor = os_descriptor(handle);
    switch (option) {
    case ROUSE_OPTION_NO_DELAY:
        return get_flag(descriptor, IPPROTO_TCP, TCP_NODELAY, value);
    case ROUSE_OPTION_KEEP_ALIVE:
        return get_keep_alive(descriptor, value);
    case ROUSE_OPTION_LINGER:
        return get_linger(descriptor, value);
    case ROUSE_OPTION_SEND_BUFFER:
        return get_number(descriptor, SOL_SOCKET, SO_SNDBUF, value);
    case ROUSE_OPTION_RECEIVE_BUFFER:
        return get_number(descriptor, SOL_SOCKET, SO_RCVBUF, value);
    case ROUSE_OPTION_REUSE_ADDRESS:
        return get_flag(descriptor, SOL_SOCKET, SO_REUSEADDR, value);
    case ROUSE_OPTION_REUSE_PORT:
        return get_flag(descriptor, SOL_SOCKET, REUSE_PORT, value);
    case ROUSE_OPTION_V6_ONLY:
        return get_flag(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, value);
    default:
        return ROUSE_INVALID;
    }
}
