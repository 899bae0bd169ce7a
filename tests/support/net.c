#include "support/net.h"

#include "support/faults.h"
#include "support/harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* ---- addresses ---- */

static socklen_t to_system(struct sockaddr_storage *system, const rouse_address *address)
{
    memset(system, 0, sizeof *system);
    if (address->family == ROUSE_IPV6) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)system;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(address->port);
        v6->sin6_scope_id = address->scope;
        memcpy(&v6->sin6_addr, address->bytes, 16);
        return sizeof *v6;
    }
    struct sockaddr_in *v4 = (struct sockaddr_in *)system;
    v4->sin_family = AF_INET;
    v4->sin_port = htons(address->port);
    memcpy(&v4->sin_addr, address->bytes, 4);
    return sizeof *v4;
}

rouse_address test_address(uint16_t port)
{
    rouse_address address;
    memset(&address, 0, sizeof address);
    address.family = ROUSE_IPV4;
    address.port = port;
    address.bytes[0] = 127;
    address.bytes[3] = 1;
    return address;
}

/* ---- waiting ---- */

/* Waits until the socket is ready; false when the time is over. A `deadline` is a point of test_now_ns. */
static bool wait_ready(int socket, short events, int64_t deadline)
{
    for (;;) {
        struct pollfd file = {socket, events, 0};
        int64_t left = deadline - test_now_ns();
        int ready = poll(&file, 1, left <= 0 ? 0 : (int)((left + 999999) / 1000000));
        if (ready > 0) {
            return true;
        }
        if (ready == 0 && left <= 0) {
            return false;
        }
        require(ready == 0 || errno == EINTR);
    }
}

static void set_blocking(int socket, bool blocking)
{
    int flags = fcntl(socket, F_GETFL);
    require(fcntl(socket, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK) == 0);
}

static int new_socket(int family)
{
    int made = socket(family, SOCK_STREAM, 0);
    require(made >= 0);
    require(fcntl(made, F_SETFD, FD_CLOEXEC) == 0);
    return made;
}

/* ---- connections ---- */

int test_try_connect(const rouse_address *address, int64_t timeout_ns)
{
    bool was_exempt = faults_exempt(true);
    struct sockaddr_storage system;
    socklen_t size = to_system(&system, address), error_size = sizeof(int);
    int made = new_socket(system.ss_family), error = 0;
    set_blocking(made, false);
    if (connect(made, (struct sockaddr *)&system, size) != 0) {
        error = errno;
        if (error == EINPROGRESS) {
            error = ETIMEDOUT;
            if (wait_ready(made, POLLOUT, test_now_ns() + timeout_ns)) {
                require(getsockopt(made, SOL_SOCKET, SO_ERROR, &error, &error_size) == 0);
            }
        }
    }
    if (error == 0) {
        set_blocking(made, true);
    } else {
        close(made);
        made = -error;
    }
    faults_exempt(was_exempt);
    return made;
}

int test_connect(const rouse_address *address)
{
    int made = test_try_connect(address, TEST_SOON);
    require_int(made, >=, 0);
    return made;
}

int test_connect_port(uint16_t port)
{
    rouse_address address = test_address(port);
    return test_connect(&address);
}

int test_listen(uint16_t *port, int backlog)
{
    bool was_exempt = faults_exempt(true);
    rouse_address address = test_address(0);
    struct sockaddr_storage system;
    socklen_t size = to_system(&system, &address);
    int listener = new_socket(AF_INET);
    require(bind(listener, (struct sockaddr *)&system, size) == 0);
    require(listen(listener, backlog) == 0);
    require(getsockname(listener, (struct sockaddr *)&system, &size) == 0);
    *port = ntohs(((struct sockaddr_in *)&system)->sin_port);
    faults_exempt(was_exempt);
    return listener;
}

int test_accept(int listener)
{
    bool was_exempt = faults_exempt(true);
    require(wait_ready(listener, POLLIN, test_now_ns() + TEST_SOON));
    int accepted = accept(listener, NULL, NULL);
    require(accepted >= 0);
    require(fcntl(accepted, F_SETFD, FD_CLOEXEC) == 0);
    faults_exempt(was_exempt);
    return accepted;
}

uint16_t test_free_port(void)
{
    uint16_t port;
    test_close(test_listen(&port, 1));
    return port;
}

void test_tcp_pair(int ends[2])
{
    uint16_t port;
    int listener = test_listen(&port, 1);
    ends[0] = test_connect_port(port);
    ends[1] = test_accept(listener);
    test_close(listener);
}

/* ---- bytes ---- */

void test_send_all(int socket, const void *data, size_t length)
{
    bool was_exempt = faults_exempt(true);
    const char *next = data;
    int64_t deadline = test_now_ns() + TEST_SOON;
    while (length > 0) {
        ssize_t sent = send(socket, next, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            next += sent;
            length -= (size_t)sent;
        } else {
            require_int(errno == EAGAIN || errno == EINTR ? EAGAIN : errno, ==, EAGAIN);
            require(wait_ready(socket, POLLOUT, deadline));
        }
    }
    faults_exempt(was_exempt);
}

size_t test_send_until_full(int socket)
{
    bool was_exempt = faults_exempt(true);
    char block[16384];
    size_t total = 0;
    int64_t full_ns = test_is_slow() ? 500000000 : 150000000; /* in which a reader would have made room */
    int small = 65536;
    if (test_is_emulated()) { /* so that even a slow one has */
        require(setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    }
    memset(block, 'f', sizeof block);
    for (;;) {
        ssize_t sent = send(socket, block, sizeof block, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            total += (size_t)sent;
        } else if (errno != EINTR && (errno != EAGAIN || !wait_ready(socket, POLLOUT, test_now_ns() + full_ns))) {
            break;
        }
    }
    faults_exempt(was_exempt);
    return total;
}

ptrdiff_t test_receive(int socket, void *data, size_t length, int64_t timeout_ns)
{
    bool was_exempt = faults_exempt(true);
    int64_t deadline = test_now_ns() + timeout_ns;
    ptrdiff_t count = -ETIMEDOUT;
    while (wait_ready(socket, POLLIN, deadline)) {
        count = recv(socket, data, length, MSG_DONTWAIT);
        if (count >= 0 || (errno != EAGAIN && errno != EINTR)) {
            count = count >= 0 ? count : -errno;
            break;
        }
        count = -ETIMEDOUT;
    }
    faults_exempt(was_exempt);
    return count;
}

void test_receive_exact(int socket, void *data, size_t length)
{
    char *next = data;
    while (length > 0) {
        ptrdiff_t count = test_receive(socket, next, length, TEST_SOON);
        require_int(count, >, 0);
        next += count;
        length -= (size_t)count;
    }
}

void test_expect_bytes(int socket, const void *data, size_t length)
{
    bool was_exempt = faults_exempt(true);
    char *got = malloc(length + 1);
    require(got != NULL);
    test_receive_exact(socket, got, length);
    if (memcmp(got, data, length) != 0) {
        fprintf(stderr, "expected: %.*s\nreceived: %.*s\n", (int)length, (const char *)data, (int)length, got);
        require(memcmp(got, data, length) == 0);
    }
    free(got);
    faults_exempt(was_exempt);
}

void test_expect_end(int socket)
{
    char byte;
    require_int(test_receive(socket, &byte, 1, TEST_SOON), ==, 0);
}

void test_expect_silence(int socket, int64_t span_ns)
{
    char byte;
    require_int(test_receive(socket, &byte, 1, span_ns), ==, -ETIMEDOUT);
}

void test_half_close(int socket)
{
    bool was_exempt = faults_exempt(true);
    require(shutdown(socket, SHUT_WR) == 0);
    faults_exempt(was_exempt);
}

void test_close(int socket)
{
    bool was_exempt = faults_exempt(true);
    require(close(socket) == 0);
    faults_exempt(was_exempt);
}

void test_close_with_reset(int socket)
{
    bool was_exempt = faults_exempt(true);
    struct linger at_once = {1, 0};
    require(setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
    require(close(socket) == 0);
    faults_exempt(was_exempt);
}

/* ---- threads ---- */

static void *thread_main(void *argument)
{
    test_thread *thread = argument;
    faults_exempt(true);
    thread->body(thread->argument);
    /* Relaxed: pthread_join makes what the thread has done visible. */
    atomic_store_explicit(&thread->ended, true, memory_order_relaxed);
    return NULL;
}

void test_thread_start(test_thread *thread, void (*body)(void *argument), void *argument)
{
    bool was_exempt = faults_exempt(true);
    thread->body = body;
    thread->argument = argument;
    atomic_init(&thread->ended, false);
    require_int(pthread_create(&thread->thread, NULL, thread_main, thread), ==, 0);
    faults_exempt(was_exempt);
}

void test_thread_join(test_thread *thread, int64_t timeout_ns)
{
    int64_t pause = 20000, deadline = test_now_ns() + timeout_ns;
    while (!atomic_load_explicit(&thread->ended, memory_order_relaxed)) {
        require(test_now_ns() < deadline && "the thread ends in time");
        test_sleep_ns(pause);
        pause = pause < 2000000 ? pause * 2 : pause;
    }
    require_int(pthread_join(thread->thread, NULL), ==, 0);
}

/* ---- peers ---- */

static bool told_to_stop(test_peer *peer)
{
    return atomic_load_explicit(&peer->stop, memory_order_relaxed);
}

static void flood(test_peer *peer, int socket)
{
    char block[4096];
    memset(block, 'f', sizeof block);
    while (!told_to_stop(peer)) {
        if (send(socket, block, sizeof block, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                break;
            }
            wait_ready(socket, POLLOUT, test_now_ns() + 10000000);
        }
    }
}

static void run_peer(void *argument)
{
    test_peer *peer = argument;
    rouse_address address = test_address(peer->port);
    char byte[64];
    while (!told_to_stop(peer)) {
        int socket = test_try_connect(&address, TEST_SOON);
        if (socket < 0) {
            break; /* the server has stopped */
        }
        atomic_fetch_add_explicit(&peer->rounds, 1, memory_order_relaxed);
        (void)!send(socket, "a message\n", 10, MSG_NOSIGNAL);
        switch (peer->kind) {
        case TEST_PEER_FLOOD:
            flood(peer, socket);
            test_close_with_reset(socket);
            break;
        case TEST_PEER_STALL:
            while (!told_to_stop(peer)) {
                test_sleep_ns(1000000);
            }
            test_close(socket);
            break;
        case TEST_PEER_RESET:
            test_close_with_reset(socket);
            break;
        case TEST_PEER_HALF_CLOSE:
            shutdown(socket, SHUT_WR);
            while (!told_to_stop(peer) && test_receive(socket, byte, sizeof byte, 10000000) != 0) {}
            test_close(socket);
            break;
        }
    }
}

void test_peer_start(test_peer *peer, enum test_peer_kind kind, uint16_t port)
{
    peer->kind = kind;
    peer->port = port;
    atomic_init(&peer->stop, false);
    atomic_init(&peer->rounds, 0);
    test_thread_start(&peer->thread, run_peer, peer);
}

void test_peer_stop(test_peer *peer)
{
    atomic_store_explicit(&peer->stop, true, memory_order_relaxed);
    test_thread_join(&peer->thread, 2 * TEST_SOON);
}
