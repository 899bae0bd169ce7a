/* The other side of a connection: plain blocking sockets with time limits, and threads. Nothing of rouse is used but
 * its address type. What cannot happen unless the test is wrong ends the process; everything is exempt from faults.h and
 * may be used in any thread. */
#ifndef TEST_SUPPORT_NET_H
#define TEST_SUPPORT_NET_H

#include <rouse/net.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A limit for what should take no time at all. */
#define TEST_SOON INT64_C(5000000000)

/* ---- sockets ---- */

/* A blocking connection to an address, or to a port of 127.0.0.1. */
int test_connect(const rouse_address *address);
int test_connect_port(uint16_t port);

/* Tries to connect; answers the descriptor or minus the system's error. */
int test_try_connect(const rouse_address *address, int64_t timeout_ns);

/* Listens on a port of 127.0.0.1 that the system picks, which is set. `backlog` as in listen. */
int test_listen(uint16_t *port, int backlog);
int test_accept(int listener);

/* A port of 127.0.0.1 that nobody listens on at this moment. */
uint16_t test_free_port(void);

/* 127.0.0.1 with a port. */
rouse_address test_address(uint16_t port);

/* Two ends of one TCP connection. */
void test_tcp_pair(int ends[2]);

/* Sends all, or ends the process if that takes longer than TEST_SOON. */
void test_send_all(int socket, const void *data, size_t length);

/* Sends without waiting until the buffers on the way are full and stay full for 50 ms; answers how many bytes. */
size_t test_send_until_full(int socket);

/* Receives something: the count, 0 at the end, minus the system's error (ETIMEDOUT: nothing came in time). */
ptrdiff_t test_receive(int socket, void *data, size_t length, int64_t timeout_ns);

/* Receives exactly this many bytes, or exactly these; ends the process if others come, or not within TEST_SOON. */
void test_receive_exact(int socket, void *data, size_t length);
void test_expect_bytes(int socket, const void *data, size_t length);
#define test_expect(socket, text) test_expect_bytes((socket), (text), strlen(text))

/* The end of the stream comes, and nothing before it. */
void test_expect_end(int socket);

/* Nothing comes within a span of time, neither bytes nor the end. */
void test_expect_silence(int socket, int64_t span_ns);

void test_half_close(int socket);       /* sends the end of the stream */
void test_close(int socket);            /* closes */
void test_close_with_reset(int socket); /* closes so that the peer gets a reset */

/* ---- threads ---- */

typedef struct test_thread {
    pthread_t thread;
    void (*body)(void *argument);
    void *argument;
    atomic_bool ended;
} test_thread;

/* Starts a thread that is exempt from faults.h. The struct must stay until the join. */
void test_thread_start(test_thread *thread, void (*body)(void *argument), void *argument);

/* Waits for its end; ends the process if that takes longer. */
void test_thread_join(test_thread *thread, int64_t timeout_ns);

/* ---- peers that misbehave ---- */

enum test_peer_kind {
    TEST_PEER_FLOOD,     /* sends without ever reading */
    TEST_PEER_STALL,     /* sends one message and then does nothing */
    TEST_PEER_RESET,     /* connects, sends, resets; again and again */
    TEST_PEER_HALF_CLOSE /* connects, sends, closes its sending side, waits for the end; again and again */
};

typedef struct test_peer {
    enum test_peer_kind kind;
    uint16_t port;
    atomic_bool stop;
    atomic_ulong rounds; /* connections it has made */
    test_thread thread;
} test_peer;

void test_peer_start(test_peer *peer, enum test_peer_kind kind, uint16_t port);
void test_peer_stop(test_peer *peer);

#endif
