/* TCP sockets. */
#include "os/os.h"

#include "support/faults.h"
#include "support/harness.h"
#include "support/net.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#if !defined(ENONET) /* Linux's own */
#define ENONET ENETDOWN
#endif

TEST_FILE_NEEDS(system_layer)

static rouse_address loopback(int family, uint16_t port)
{
    rouse_address address = {.family = (uint8_t)family, .port = port};
    if (family == ROUSE_IPV4) {
        address.bytes[0] = 127;
        address.bytes[3] = 1;
    } else {
        address.bytes[15] = 1;
    }
    return address;
}

/* A listener of ours on a port that the system picks, which is set in *address. */
static os_handle listen_on(int family, rouse_address *address, int backlog)
{
    os_handle listener;
    rouse_address any = loopback(family, 0);
    assert_int_equal(os_tcp_open(&listener, family), ROUSE_OK);
    assert_int_equal(os_tcp_bind(listener, &any, true, false, false), ROUSE_OK);
    assert_int_equal(os_tcp_listen(listener, backlog), ROUSE_OK);
    assert_int_equal(os_local_address(listener, address), ROUSE_OK);
    assert_true(address->port != 0);
    return listener;
}

static os_handle connect_to(const rouse_address *address)
{
    os_handle handle;
    assert_int_equal(os_tcp_open(&handle, address->family), ROUSE_OK);
    int status = os_tcp_connect(handle, address);
    while (status == ROUSE_PENDING)
        status = os_tcp_connect_result(handle);
    assert_int_equal(status, ROUSE_OK);
    return handle;
}

static os_handle accept_on(os_handle listener, rouse_address *peer)
{
    os_handle handle;
    eventually(os_is_ready(listener, ROUSE_READABLE) == 1, TEST_SOON);
    assert_int_equal(os_tcp_accept(listener, &handle, peer), ROUSE_OK);
    return handle;
}

static bool has_ipv6(void)
{
    os_handle handle;
    rouse_address address = loopback(ROUSE_IPV6, 0);
    if (os_tcp_open(&handle, ROUSE_IPV6) != ROUSE_OK)
        return false;
    bool answer = os_tcp_bind(handle, &address, false, false, false) == ROUSE_OK;
    os_close(handle);
    return answer;
}

static bool is_prepared(os_handle handle)
{
    return (fcntl((int)handle, F_GETFL) & O_NONBLOCK) != 0 && (fcntl((int)handle, F_GETFD) & FD_CLOEXEC) != 0;
}

/* ---- opening ---- */

TEST(sockets_are_non_blocking_and_closed_on_exec_from_birth)
{
    test_needs("descriptors");
    rouse_address address;
    os_handle listener = listen_on(ROUSE_IPV4, &address, 8);
    os_handle client = connect_to(&address);
    os_handle server = accept_on(listener, NULL);
    assert_true(is_prepared(listener));
    assert_true(is_prepared(client));
    assert_true(is_prepared(server));
    os_close(server);
    os_close(client);
    os_close(listener);
}

TEST(an_unknown_family_is_refused)
{
    os_handle handle = 1234;
    rouse_address address = {.family = 9};
    assert_int_equal(os_tcp_open(&handle, 9), ROUSE_INVALID);
    assert_int_equal(handle, 1234);
    assert_int_equal(os_tcp_open(&handle, ROUSE_IPV4), ROUSE_OK);
    assert_int_equal(os_tcp_bind(handle, &address, true, false, false), ROUSE_INVALID);
    assert_int_equal(os_tcp_connect(handle, &address), ROUSE_INVALID);
    os_close(handle);
}

TEST(a_socket_that_the_system_refuses_leaves_nothing)
{
    test_needs("faults");
    os_handle handle;
    rouse_address address = loopback(ROUSE_IPV4, 0);
    faults_syscall("socket", 1, EMFILE, 1);
    assert_int_equal(os_tcp_open(&handle, ROUSE_IPV4), ROUSE_TOO_MANY_FILES);
    faults_syscall("socket", 1, EAFNOSUPPORT, 1);
    assert_int_equal(os_tcp_open(&handle, ROUSE_IPV4), ROUSE_NOT_SUPPORTED);
    assert_int_equal(os_tcp_open(&handle, ROUSE_IPV4), ROUSE_OK);
    faults_syscall("setsockopt", 1, ENOMEM, 1);
    assert_int_equal(os_tcp_bind(handle, &address, true, false, false), ROUSE_NO_MEMORY);
    faults_syscall("bind", 1, EACCES, 1);
    assert_int_equal(os_tcp_bind(handle, &address, true, false, false), ROUSE_PERMISSION_DENIED);
    faults_syscall("listen", 1, EADDRINUSE, 1);
    assert_int_equal(os_tcp_listen(handle, 1), ROUSE_ADDRESS_IN_USE);
    os_close(handle);
}

/* ---- listening ---- */

static void converse(int family)
{
    rouse_address address, peer, local;
    os_handle nobody = 4321;
    char data[4];
    os_handle listener = listen_on(family, &address, 8);
    assert_int_equal(os_tcp_accept(listener, &nobody, &peer), ROUSE_PENDING);
    assert_int_equal(nobody, 4321);
    os_handle client = connect_to(&address);
    os_handle server = accept_on(listener, &peer);
    assert_int_equal(os_local_address(client, &local), ROUSE_OK);
    assert_memory_equal(&peer, &local, sizeof peer);
    assert_int_equal(peer.family, family);
    assert_int_equal(os_peer_address(client, &local), ROUSE_OK);
    assert_memory_equal(&local, &address, sizeof local);
    assert_int_equal(os_write(client, OS_KIND_STREAM_SOCKET, "ping", 4), 4);
    eventually(os_is_ready(server, ROUSE_READABLE) == 1, TEST_SOON);
    assert_int_equal(os_read(server, OS_KIND_STREAM_SOCKET, data, 4), 4);
    os_close(server);
    os_close(client);
    os_close(listener);
}

TEST(a_connection_over_ipv4_carries_bytes_and_knows_its_addresses)
{
    converse(ROUSE_IPV4);
}

TEST(a_connection_over_ipv6_carries_bytes_and_knows_its_addresses)
{
    if (has_ipv6())
        converse(ROUSE_IPV6);
}

TEST(an_address_in_use_is_refused)
{
    rouse_address address;
    os_handle second, listener = listen_on(ROUSE_IPV4, &address, 8);
    assert_int_equal(os_tcp_open(&second, ROUSE_IPV4), ROUSE_OK);
    assert_int_equal(os_tcp_bind(second, &address, true, false, false), ROUSE_ADDRESS_IN_USE);
    rouse_address foreign = {.family = ROUSE_IPV4, .bytes = {192, 0, 2, 1}};
    assert_int_equal(os_tcp_bind(second, &foreign, true, false, false), ROUSE_ADDRESS_NOT_AVAILABLE);
    os_close(second);
    os_close(listener);
}

TEST(two_listeners_share_a_port_if_both_say_so)
{
    test_needs("reuse_port");
    os_handle first, second;
    rouse_address address = loopback(ROUSE_IPV4, 0);
    assert_int_equal(os_tcp_open(&first, ROUSE_IPV4), ROUSE_OK);
    assert_int_equal(os_tcp_open(&second, ROUSE_IPV4), ROUSE_OK);
    assert_int_equal(os_tcp_bind(first, &address, true, true, false), ROUSE_OK);
    assert_int_equal(os_local_address(first, &address), ROUSE_OK);
    assert_int_equal(os_tcp_bind(second, &address, true, true, false), ROUSE_OK);
    assert_int_equal(os_tcp_listen(first, 1), ROUSE_OK);
    assert_int_equal(os_tcp_listen(second, 1), ROUSE_OK);
    int value = -1;
    assert_int_equal(os_option_get(first, ROUSE_OPTION_REUSE_PORT, &value), ROUSE_OK);
    assert_int_equal(value, 1);
    assert_int_equal(os_option_get(first, ROUSE_OPTION_REUSE_ADDRESS, &value), ROUSE_OK);
    assert_int_equal(value, 1);
    os_close(second);
    os_close(first);
}

TEST(an_ipv6_listener_takes_ipv4_connections_unless_told_otherwise)
{
    if (!has_ipv6())
        return;
    for (int only = 0; only < 2; only++) {
        os_handle listener;
        rouse_address any = {.family = ROUSE_IPV6}, peer;
        int value = -1;
        assert_int_equal(os_tcp_open(&listener, ROUSE_IPV6), ROUSE_OK);
        assert_int_equal(os_tcp_bind(listener, &any, true, false, only == 1), ROUSE_OK);
        assert_int_equal(os_tcp_listen(listener, 4), ROUSE_OK);
        assert_int_equal(os_option_get(listener, ROUSE_OPTION_V6_ONLY, &value), ROUSE_OK);
        assert_int_equal(value, only);
        assert_int_equal(os_local_address(listener, &any), ROUSE_OK);
        rouse_address address = loopback(ROUSE_IPV4, any.port);
        int client = test_try_connect(&address, TEST_SOON);
        if (only) {
            assert_int_equal(client, -ECONNREFUSED);
        } else {
            assert_true(client >= 0);
            os_handle server = accept_on(listener, &peer);
            assert_int_equal(peer.family, ROUSE_IPV6);
            static const uint8_t mapped[16] = {[10] = 255, [11] = 255, [12] = 127, [15] = 1};
            assert_memory_equal(peer.bytes, mapped, sizeof mapped);
            os_close(server);
            os_close(client);
        }
        os_close(listener);
    }
}

TEST(errors_of_one_connection_pass_and_the_next_is_accepted)
{
    test_needs("faults");
    static const int errors[] = {ECONNABORTED, EPROTO,      EPERM,     ENETDOWN,  EHOSTUNREACH,
                                 ENETUNREACH,  ENOPROTOOPT, EHOSTDOWN, ETIMEDOUT, ENONET};
    rouse_address address;
    os_handle listener = listen_on(ROUSE_IPV4, &address, 8), handle;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        os_handle client = connect_to(&address);
        faults_syscall("accept4", 1, errors[i], 1);
        int status = os_tcp_accept(listener, &handle, NULL);
        assert_true(status < 0);
        assert_true(os_accept_error_passes(status));
        assert_false(os_accept_error_is_exhaustion(status));
        os_close(accept_on(listener, NULL));
        os_close(client);
    }
    os_handle client = connect_to(&address);
    faults_syscall("accept4", 1, EINTR, 5);
    os_close(accept_on(listener, NULL));
    os_close(client);
    os_close(listener);
}

TEST(exhaustion_is_told_from_other_errors_of_accepting)
{
    test_needs("faults");
    static const int exhausted[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
    static const int lasting[] = {EBADF, EINVAL, EOPNOTSUPP, ENOTSOCK, EFAULT};
    rouse_address address;
    os_handle listener = listen_on(ROUSE_IPV4, &address, 8), handle;
    for (size_t i = 0; i < 4; i++) {
        faults_syscall("accept4", 1, exhausted[i], 1);
        int status = os_tcp_accept(listener, &handle, NULL);
        assert_true(os_accept_error_is_exhaustion(status));
        assert_false(os_accept_error_passes(status));
    }
    for (size_t i = 0; i < 5; i++) {
        faults_syscall("accept4", 1, lasting[i], 1);
        int status = os_tcp_accept(listener, &handle, NULL);
        assert_true(status < 0);
        assert_false(os_accept_error_is_exhaustion(status));
        assert_false(os_accept_error_passes(status));
    }
    assert_false(os_accept_error_passes(ROUSE_OK));
    assert_false(os_accept_error_passes(ROUSE_PENDING));
    os_close(listener);
}

/* ---- connecting ---- */

TEST(a_port_that_nobody_listens_on_refuses_every_time)
{
    uint16_t port = test_free_port();
    rouse_address address = loopback(ROUSE_IPV4, port);
    for (uint64_t i = test_scale(500, 10000); i > 0; i--) {
        os_handle handle;
        assert_int_equal(os_tcp_open(&handle, ROUSE_IPV4), ROUSE_OK);
        int status = os_tcp_connect(handle, &address);
        while (status == ROUSE_PENDING)
            status = os_tcp_connect_result(handle);
        assert_int_equal(status, ROUSE_CONNECTION_REFUSED);
        os_close(handle);
    }
}

#if defined(__linux__)
/* A connection that stays on its way: the queue of its listener is full, so that its first packet is dropped. */
TEST(a_socket_that_is_writable_for_no_reason_is_not_taken_for_connected)
{
    uint16_t port;
    int listener = test_listen(&port, 0);
    rouse_address address = loopback(ROUSE_IPV4, port);
    os_handle handles[16];
    int count = 0, status = ROUSE_OK;
    while (count < 16) {
        assert_int_equal(os_tcp_open(&handles[count], ROUSE_IPV4), ROUSE_OK);
        status = os_tcp_connect(handles[count], &address);
        os_handle handle = handles[count++];
        int64_t end = test_now_ns() + ROUSE_MS(100);
        while (status == ROUSE_PENDING && test_now_ns() < end)
            status = os_tcp_connect_result(handle);
        if (status == ROUSE_PENDING)
            break;
        assert_int_equal(status, ROUSE_OK);
    }
    assert_int_equal(status, ROUSE_PENDING);
    for (int i = 0; i < 100; i++)
        assert_int_equal(os_tcp_connect_result(handles[count - 1]), ROUSE_PENDING);
    while (count > 0)
        os_close(handles[--count]);
    os_close(listener);
}
#endif

TEST(a_connect_whose_error_somebody_else_has_taken_has_failed_still)
{
    test_needs("errors_once");
    rouse_address address = loopback(ROUSE_IPV4, test_free_port());
    os_handle handle;
    assert_int_equal(os_tcp_open(&handle, ROUSE_IPV4), ROUSE_OK);
    if (os_tcp_connect(handle, &address) == ROUSE_PENDING) {
        eventually(os_is_ready(handle, ROUSE_WRITABLE) == 1, TEST_SOON);
        int error;
        socklen_t length = sizeof error;
        assert_int_equal(getsockopt((int)handle, SOL_SOCKET, SO_ERROR, &error, &length), 0);
        assert_int_equal(os_tcp_connect_result(handle), ROUSE_NOT_CONNECTED);
    }
    os_close(handle);
}

TEST(an_interrupted_connect_goes_on)
{
    test_needs("faults");
    rouse_address address;
    os_handle listener = listen_on(ROUSE_IPV4, &address, 8), handle;
    assert_int_equal(os_tcp_open(&handle, ROUSE_IPV4), ROUSE_OK);
    faults_syscall("connect", 1, EINTR, 1);
    assert_int_equal(os_tcp_connect(handle, &address), ROUSE_PENDING);
    eventually(os_tcp_connect_result(handle) == ROUSE_OK, TEST_SOON);
    assert_int_equal(os_tcp_connect(handle, &address), ROUSE_OK); /* connected already */
    os_close(handle);
    os_close(listener);
}

TEST(a_connect_whose_result_cannot_be_learnt_has_failed)
{
    test_needs("faults");
    rouse_address address;
    os_handle listener = listen_on(ROUSE_IPV4, &address, 8);
    os_handle handle = connect_to(&address);
    faults_syscall("getsockopt", 1, ENOBUFS, 1);
    assert_int_equal(os_tcp_connect_result(handle), ROUSE_NO_BUFFERS);
    faults_syscall("getpeername", 1, ENOBUFS, 1);
    assert_int_equal(os_tcp_connect_result(handle), ROUSE_NO_BUFFERS);
    assert_int_equal(os_tcp_connect_result(handle), ROUSE_OK);
    os_close(handle);
    os_close(listener);
}

TEST(a_connect_without_a_local_port_is_not_taken_for_pending)
{
    test_needs("faults");
    rouse_address address = loopback(ROUSE_IPV4, 9);
    os_handle handle;
    assert_int_equal(os_tcp_open(&handle, ROUSE_IPV4), ROUSE_OK);
    faults_syscall("connect", 1, EAGAIN, 1);
    assert_int_equal(os_tcp_connect(handle, &address), ROUSE_ADDRESS_NOT_AVAILABLE);
    faults_syscall("connect", 1, EADDRNOTAVAIL, 1);
    assert_int_equal(os_tcp_connect(handle, &address), ROUSE_ADDRESS_NOT_AVAILABLE);
    faults_syscall("connect", 1, ENETUNREACH, 1);
    assert_int_equal(os_tcp_connect(handle, &address), ROUSE_NETWORK_UNREACHABLE);
    os_close(handle);
}

/* ---- ending ---- */

TEST(shutting_down_writing_sends_the_end_and_reading_goes_on)
{
    int ends[2];
    char byte = 0;
    test_tcp_pair(ends);
    assert_int_equal(os_tcp_shutdown(ends[0], ROUSE_SHUTDOWN_WRITE), ROUSE_OK);
    assert_int_equal(test_receive(ends[1], &byte, 1, TEST_SOON), 0);
    test_send_all(ends[1], "x", 1);
    assert_int_equal(test_receive(ends[0], &byte, 1, TEST_SOON), 1);
    assert_int_equal(os_tcp_shutdown(ends[0], 0), ROUSE_INVALID);
    assert_int_equal(os_tcp_shutdown(ends[0], 4), ROUSE_INVALID);
    assert_int_equal(os_tcp_shutdown(ends[0], ROUSE_SHUTDOWN_BOTH), ROUSE_OK);
    close(ends[0]);
    close(ends[1]);
}

TEST(a_connection_that_is_gone_cannot_be_shut_down)
{
    test_needs("errors_once");
    int ends[2];
    rouse_address address;
    test_tcp_pair(ends);
    test_close_with_reset(ends[1]);
    eventually(os_is_ready(ends[0], ROUSE_READABLE) == 1, TEST_SOON);
    assert_int_equal(os_tcp_shutdown(ends[0], ROUSE_SHUTDOWN_WRITE), ROUSE_NOT_CONNECTED);
    assert_int_equal(os_peer_address(ends[0], &address), ROUSE_NOT_CONNECTED);
    close(ends[0]);
}

/* ---- addresses ---- */

TEST(addresses_of_other_sockets_are_not_supported)
{
    test_needs("unix_sockets");
    int ends[2];
    rouse_address address;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(os_local_address(ends[0], &address), ROUSE_NOT_SUPPORTED);
    assert_int_equal(os_peer_address(ends[0], &address), ROUSE_NOT_SUPPORTED);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(os_local_address(ends[0], &address), ROUSE_NOT_SUPPORTED);
    close(ends[0]);
    close(ends[1]);
}

TEST(an_adopted_listener_of_unix_accepts_with_an_empty_peer)
{
    test_needs("unix_sockets");
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    assert_true(snprintf(name.sun_path, sizeof name.sun_path, "/tmp/rouse-test-%ld.sock", (long)getpid()) > 0);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&name, sizeof name), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(connect(client, (struct sockaddr *)&name, sizeof name), 0);
    os_handle server;
    rouse_address peer;
    memset(&peer, 0xff, sizeof peer);
    assert_int_equal(os_tcp_accept(listener, &server, &peer), ROUSE_OK);
    rouse_address zeros = {0};
    assert_memory_equal(&peer, &zeros, sizeof peer);
    os_close(server);
    close(client);
    close(listener);
    unlink(name.sun_path);
}

TEST(interfaces_are_found_by_name)
{
    test_needs("descriptors");
    struct if_nameindex *all = if_nameindex();
    assert_non_null(all);
    for (size_t i = 0; all[i].if_index != 0; i++)
        assert_int_equal(os_interface_index(all[i].if_name), all[i].if_index);
    if_freenameindex(all);
    assert_int_equal(os_interface_index("nosuch0"), 0);
    assert_int_equal(os_interface_index(""), 0);
    assert_int_equal(os_interface_index("a-name-longer-than-any-interface-can-have"), 0);
}

/* ---- options ---- */

static int option(os_handle handle, int name)
{
    int value = -4711;
    assert_int_equal(os_option_get(handle, name, &value), ROUSE_OK);
    return value;
}

TEST(options_are_read_back_as_they_were_set)
{
    static const struct {
        int name, value;
    } pairs[] = {
        {ROUSE_OPTION_NO_DELAY, 1},   {ROUSE_OPTION_NO_DELAY, 0}, {ROUSE_OPTION_KEEP_ALIVE, 30},
        {ROUSE_OPTION_KEEP_ALIVE, 0}, {ROUSE_OPTION_LINGER, 5},   {ROUSE_OPTION_LINGER, 0},
        {ROUSE_OPTION_LINGER, -1},
    };
    int ends[2];
    test_tcp_pair(ends);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        assert_int_equal(os_option_set(ends[0], pairs[i].name, pairs[i].value), ROUSE_OK);
        if (pairs[i].name != ROUSE_OPTION_KEEP_ALIVE || pairs[i].value == 0 || test_has("keep_alive_read"))
            assert_int_equal(option(ends[0], pairs[i].name), pairs[i].value);
    }
    assert_int_equal(os_option_set(ends[0], ROUSE_OPTION_SEND_BUFFER, 32768), ROUSE_OK);
    assert_true(option(ends[0], ROUSE_OPTION_SEND_BUFFER) >= 32768);
    assert_int_equal(os_option_set(ends[0], ROUSE_OPTION_RECEIVE_BUFFER, 32768), ROUSE_OK);
    assert_true(option(ends[0], ROUSE_OPTION_RECEIVE_BUFFER) >= 32768);
    close(ends[0]);
    close(ends[1]);
}

TEST(a_new_socket_does_not_linger_and_sends_no_probes)
{
    os_handle handle;
    assert_int_equal(os_tcp_open(&handle, ROUSE_IPV4), ROUSE_OK);
    assert_int_equal(option(handle, ROUSE_OPTION_LINGER), -1);
    assert_int_equal(option(handle, ROUSE_OPTION_KEEP_ALIVE), 0);
    os_close(handle);
}

TEST(an_option_that_is_refused_changes_nothing)
{
    test_needs("keep_alive_read");
    static const struct {
        int name, value, status;
    } wrong[] = {
        {ROUSE_OPTION_NO_DELAY, 2, ROUSE_INVALID},
        {ROUSE_OPTION_NO_DELAY, -1, ROUSE_INVALID},
        {ROUSE_OPTION_KEEP_ALIVE, -1, ROUSE_INVALID},
        {ROUSE_OPTION_KEEP_ALIVE, INT_MAX, ROUSE_INVALID},
        {ROUSE_OPTION_LINGER, -2, ROUSE_INVALID},
        {ROUSE_OPTION_SEND_BUFFER, 0, ROUSE_INVALID},
        {ROUSE_OPTION_RECEIVE_BUFFER, -5, ROUSE_INVALID},
        {ROUSE_OPTION_REUSE_ADDRESS, 1, ROUSE_NOT_SUPPORTED},
        {ROUSE_OPTION_REUSE_PORT, 1, ROUSE_NOT_SUPPORTED},
        {ROUSE_OPTION_V6_ONLY, 1, ROUSE_NOT_SUPPORTED},
        {0, 1, ROUSE_INVALID},
        {99, 1, ROUSE_INVALID},
    };
    static const int names[] = {ROUSE_OPTION_NO_DELAY, ROUSE_OPTION_KEEP_ALIVE, ROUSE_OPTION_LINGER};
    int ends[2], value;
    test_tcp_pair(ends);
    int before[3];
    for (size_t k = 0; k < 3; k++)
        before[k] = option(ends[0], names[k]);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(os_option_set(ends[0], wrong[i].name, wrong[i].value), wrong[i].status);
        for (size_t k = 0; k < 3; k++)
            assert_int_equal(option(ends[0], names[k]), before[k]);
    }
    assert_int_equal(os_option_get(ends[0], 0, &value), ROUSE_INVALID);
    assert_int_equal(os_option_get(ends[0], 99, &value), ROUSE_INVALID);
    close(ends[0]);
    close(ends[1]);
}

TEST(options_of_tcp_are_not_supported_elsewhere)
{
    test_needs("unix_sockets");
    int ends[2], value;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(os_option_set(ends[0], ROUSE_OPTION_NO_DELAY, 1), ROUSE_NOT_SUPPORTED);
    assert_int_equal(os_option_get(ends[0], ROUSE_OPTION_NO_DELAY, &value), ROUSE_NOT_SUPPORTED);
    assert_int_equal(os_option_get(ends[0], ROUSE_OPTION_V6_ONLY, &value), ROUSE_NOT_SUPPORTED);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(os_option_set(ends[0], ROUSE_OPTION_SEND_BUFFER, 4096), ROUSE_NOT_SUPPORTED);
    assert_int_equal(os_option_get(ends[0], ROUSE_OPTION_LINGER, &value), ROUSE_NOT_SUPPORTED);
    close(ends[0]);
    close(ends[1]);
}
