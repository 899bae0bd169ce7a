/* TCP sockets and their addresses. Sockets are non-blocking and not inherited by child processes. */
#include "os/os_windows.h"

/* mstcpip.h needs what comes before it. */
#include <mstcpip.h>

#include <limits.h>
#include <string.h>

static int last_status(void)
{
    return os_status((unsigned long)WSAGetLastError());
}

/* ---- addresses ---- */

union socket_address {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
    struct sockaddr_storage storage;
};

/* Answers the length, or 0 for an unknown family. */
static int address_to_system(union socket_address *to, const rouse_address *from)
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

/* A socket that is not bound has no address to the system; elsewhere it has that of nobody, which says the same. */
int os_local_address(os_handle handle, rouse_address *address)
{
    union socket_address found;
    int length = sizeof found;
    memset(&found, 0, sizeof found);
    if (getsockname(os_socket(handle), &found.any, &length) != 0)
        return last_status();
    return address_from_system(address, &found);
}

int os_peer_address(os_handle handle, rouse_address *address)
{
    union socket_address found;
    int length = sizeof found;
    memset(&found, 0, sizeof found);
    if (getpeername(os_socket(handle), &found.any, &length) != 0)
        return last_status();
    return address_from_system(address, &found);
}

uint32_t os_interface_index(const char *name)
{
    typedef ULONG WINAPI if_nametoindex_function(PCSTR);
    static atomic_ptr known;
    void *function = os_system_function(&known, L"iphlpapi.dll", "if_nametoindex");
    return function != NULL ? ((if_nametoindex_function *)(uintptr_t)function)(name) : 0;
}

/* ---- opening ---- */

static int set_number(SOCKET socket, int level, int name, int value)
{
    return setsockopt(socket, level, name, (const char *)&value, sizeof value) == 0 ? ROUSE_OK : last_status();
}

static int get_number(SOCKET socket, int level, int name, int *value)
{
    int length = sizeof *value;
    *value = 0; /* some options fill one byte only */
    return getsockopt(socket, level, name, (char *)value, &length) == 0 ? ROUSE_OK : last_status();
}

/* Takes a new socket over: it is closed on failure. */
static int adopt_new(SOCKET socket, os_handle *handle)
{
    int status = os_set_nonblocking((os_handle)socket, true, NULL);
    if (status != ROUSE_OK) {
        (void)closesocket(socket);
        return status;
    }
    *handle = (os_handle)socket;
    return ROUSE_OK;
}

int os_tcp_open(os_handle *handle, int family)
{
    if (family != ROUSE_IPV4 && family != ROUSE_IPV6)
        return ROUSE_INVALID;
    int status = os_winsock_start();
    if (status != ROUSE_OK)
        return status;
    SOCKET socket = WSASocketW(family == ROUSE_IPV4 ? AF_INET : AF_INET6, SOCK_STREAM, IPPROTO_TCP, NULL, 0,
                               WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    return socket == INVALID_SOCKET ? last_status() : adopt_new(socket, handle);
}

/* ---- listening ---- */

/* SO_REUSEADDR stays off: here it means to take a port away from whoever has it. To bind while old connections linger is
 * possible without. Who does not ask for that gets the port for himself alone, so that nobody takes it away from him; the
 * system refuses such a bind while old connections linger. Several listeners of one port would get connections as the
 * system likes, mostly one of them all. */
int os_tcp_bind(os_handle handle, const rouse_address *address, bool reuse_address, bool reuse_port, bool v6_only)
{
    SOCKET socket = os_socket(handle);
    union socket_address to;
    int length = address_to_system(&to, address);
    if (length == 0)
        return ROUSE_INVALID;
    if (reuse_port)
        return ROUSE_NOT_SUPPORTED;
    int status = set_number(socket, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, !reuse_address);
    if (status == ROUSE_OK && address->family == ROUSE_IPV6)
        status = set_number(socket, IPPROTO_IPV6, IPV6_V6ONLY, v6_only);
    if (status != ROUSE_OK)
        return status;
    return bind(socket, &to.any, length) == 0 ? ROUSE_OK : last_status();
}

int os_tcp_listen(os_handle handle, int backlog)
{
    return listen(os_socket(handle), backlog) == 0 ? ROUSE_OK : last_status();
}

int os_tcp_accept(os_handle listener, os_handle *handle, rouse_address *peer)
{
    union socket_address from;
    int length = sizeof from;
    memset(&from, 0, sizeof from);
    SOCKET socket = accept(os_socket(listener), &from.any, &length);
    if (socket == INVALID_SOCKET)
        return last_status();
    /* A process that another thread starts at this moment may inherit it; there is no call that accepts otherwise. */
    (void)SetHandleInformation((HANDLE)socket, HANDLE_FLAG_INHERIT, 0);
    int status = adopt_new(socket, handle);
    if (status == ROUSE_OK && peer != NULL)
        (void)address_from_system(peer, &from); /* of another family: the listener was adopted; zeros then */
    return status;
}

bool os_accept_error_passes(int status)
{
    switch (status) {
    case ROUSE_CONNECTION_ABORTED:
    case ROUSE_CONNECTION_RESET: /* the client is gone */
    case ROUSE_NOT_CONNECTED:    /* likewise: Wine asks for its address after accepting, and closes it then */
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
    int length = address_to_system(&to, address);
    if (length == 0)
        return ROUSE_INVALID;
    if (connect(os_socket(handle), &to.any, length) == 0)
        return ROUSE_OK;
    int error = WSAGetLastError();
    if (error == WSAEISCONN)
        return ROUSE_OK;
    return error == WSAEALREADY || error == WSAEINPROGRESS ? ROUSE_PENDING : os_status((unsigned long)error);
}

/* OK, the reason why it failed, or NOT_CONNECTED: nothing is known yet. */
static int connect_outcome(SOCKET socket)
{
    int error = 0;
    int status = get_number(socket, SOL_SOCKET, SO_ERROR, &error);
    if (status != ROUSE_OK || error != 0)
        return status != ROUSE_OK ? status : os_status((unsigned long)error);
    /* No error is no proof: the socket may have been reported writable before its connection was made, and somebody
     * else may have taken the error. */
    union socket_address peer;
    int length = sizeof peer;
    return getpeername(socket, &peer.any, &length) == 0 ? ROUSE_OK : last_status();
}

int os_tcp_connect_result(os_handle handle)
{
    int status = connect_outcome(os_socket(handle));
    if (status != ROUSE_NOT_CONNECTED)
        return status;
    int ready = os_is_ready(handle, ROUSE_WRITABLE); /* while it connects, nothing is ready, not even its end */
    if (ready <= 0)
        return ready == 0 ? ROUSE_PENDING : ready;
    /* It may have been decided since the first look. */
    return connect_outcome(os_socket(handle));
}

int os_tcp_shutdown(os_handle handle, int side)
{
    int how;
    if (side == ROUSE_SHUTDOWN_READ)
        how = SD_RECEIVE;
    else if (side == ROUSE_SHUTDOWN_WRITE)
        how = SD_SEND;
    else if (side == ROUSE_SHUTDOWN_BOTH)
        how = SD_BOTH;
    else
        return ROUSE_INVALID;
    return shutdown(os_socket(handle), how) == 0 ? ROUSE_OK : last_status();
}

/* ---- options ---- */

#if !defined(TCP_KEEPIDLE)
#define TCP_KEEPIDLE 3
#endif

/* Before Windows 10 1709 there is only one call for everything about this, which does not tell what is set. */
static int set_keep_idle(SOCKET socket, int seconds)
{
    int status = set_number(socket, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
    if (status != ROUSE_NOT_SUPPORTED)
        return status;
    struct tcp_keepalive all = {1, seconds > INT_MAX / 1000 ? INT_MAX : (ULONG)seconds * 1000, 1000};
    DWORD nothing;
    int failed = WSAIoctl(socket, SIO_KEEPALIVE_VALS, &all, sizeof all, NULL, 0, &nothing, NULL, NULL);
    return failed ? last_status() : ROUSE_OK;
}

static int set_keep_alive(SOCKET socket, int seconds)
{
    if (seconds < 0)
        return ROUSE_INVALID;
    /* The figure first: if it is refused, nothing has changed. */
    int status = seconds > 0 ? set_keep_idle(socket, seconds) : ROUSE_OK;
    return status != ROUSE_OK ? status : set_number(socket, SOL_SOCKET, SO_KEEPALIVE, seconds > 0);
}

static int get_keep_alive(SOCKET socket, int *seconds)
{
    int on = 0;
    int status = get_number(socket, SOL_SOCKET, SO_KEEPALIVE, &on);
    if (status != ROUSE_OK)
        return status;
    *seconds = 0;
    return on != 0 ? get_number(socket, IPPROTO_TCP, TCP_KEEPIDLE, seconds) : ROUSE_OK;
}

static int set_linger(SOCKET socket, int seconds)
{
    if (seconds < -1 || seconds > USHRT_MAX)
        return ROUSE_INVALID;
    struct linger linger = {seconds >= 0, (u_short)(seconds >= 0 ? seconds : 0)};
    int failed = setsockopt(socket, SOL_SOCKET, SO_LINGER, (const char *)&linger, sizeof linger);
    return failed ? last_status() : ROUSE_OK;
}

static int get_linger(SOCKET socket, int *seconds)
{
    struct linger linger = {0, 0};
    int length = sizeof linger;
    if (getsockopt(socket, SOL_SOCKET, SO_LINGER, (char *)&linger, &length) != 0)
        return last_status();
    *seconds = linger.l_onoff ? linger.l_linger : -1;
    return ROUSE_OK;
}

int os_option_set(os_handle handle, int option, int value)
{
    SOCKET socket = os_socket(handle);
    switch (option) {
    case ROUSE_OPTION_NO_DELAY:
        return value == 0 || value == 1 ? set_number(socket, IPPROTO_TCP, TCP_NODELAY, value) : ROUSE_INVALID;
    case ROUSE_OPTION_KEEP_ALIVE:
        return set_keep_alive(socket, value);
    case ROUSE_OPTION_LINGER:
        return set_linger(socket, value);
    case ROUSE_OPTION_SEND_BUFFER:
        return value > 0 ? set_number(socket, SOL_SOCKET, SO_SNDBUF, value) : ROUSE_INVALID;
    case ROUSE_OPTION_RECEIVE_BUFFER:
        return value > 0 ? set_number(socket, SOL_SOCKET, SO_RCVBUF, value) : ROUSE_INVALID;
    case ROUSE_OPTION_REUSE_ADDRESS:
    case ROUSE_OPTION_REUSE_PORT:
    case ROUSE_OPTION_V6_ONLY:
        return ROUSE_NOT_SUPPORTED; /* decided when the socket was bound */
    default:
        return ROUSE_INVALID;
    }
}

static int get_flag(SOCKET socket, int level, int name, int *value)
{
    int status = get_number(socket, level, name, value);
    if (status == ROUSE_OK)
        *value = *value != 0;
    return status;
}

int os_option_get(os_handle handle, int option, int *value)
{
    SOCKET socket = os_socket(handle);
    int status;
    switch (option) {
    case ROUSE_OPTION_NO_DELAY:
        return get_flag(socket, IPPROTO_TCP, TCP_NODELAY, value);
    case ROUSE_OPTION_KEEP_ALIVE:
        return get_keep_alive(socket, value);
    case ROUSE_OPTION_LINGER:
        return get_linger(socket, value);
    case ROUSE_OPTION_SEND_BUFFER:
        return get_number(socket, SOL_SOCKET, SO_SNDBUF, value);
    case ROUSE_OPTION_RECEIVE_BUFFER:
        return get_number(socket, SOL_SOCKET, SO_RCVBUF, value);
    case ROUSE_OPTION_REUSE_ADDRESS:
        status = get_flag(socket, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, value);
        *value = status == ROUSE_OK && !*value;
        return status;
    case ROUSE_OPTION_REUSE_PORT:
        return ROUSE_NOT_SUPPORTED;
    case ROUSE_OPTION_V6_ONLY:
        return get_flag(socket, IPPROTO_IPV6, IPV6_V6ONLY, value);
    default:
        return ROUSE_INVALID;
    }
}
