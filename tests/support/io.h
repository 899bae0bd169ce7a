/* What the tests of I/O share: each kind of executor, operations polled by hand, and streams with a plain peer. */
#ifndef TEST_SUPPORT_IO_H
#define TEST_SUPPORT_IO_H

#include <rouse/rouse.h>

#include "support/faults.h"
#include "support/harness.h"
#include "support/net.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- executors ---- */

enum { FLAVOURS = 3 };

static inline rouse_options flavour(int number)
{
    rouse_options options = ROUSE_OPTIONS_INIT;
    options.executor = number == 0 ? ROUSE_EXECUTOR_SINGLE : ROUSE_EXECUTOR_MULTI;
    options.scheduler = number == 1 ? ROUSE_SCHEDULER_ROUND_ROBIN : ROUSE_SCHEDULER_WORK_STEALING;
    options.workers = number == 0 ? 0 : 2;
    return options;
}

/* Runs a fiber on the single-threaded, the round-robin and the stealing executor; each must answer ROUSE_OK. */
static inline void on_each_executor(rouse_fiber_function *body, void *argument)
{
    for (int i = 0; i < FLAVOURS; i++) {
        rouse_options options = flavour(i);
        require_int(rouse_run(body, argument, &options), ==, ROUSE_OK);
    }
}

/* ---- operations as tasks: the poll style of every call ---- */

static inline int op_task_poll(void *state, void *result, rouse_context *context)
{
    ptrdiff_t answer = rouse_op_poll(state, context);
    if (answer == ROUSE_PENDING)
        return ROUSE_PENDING;
    *(ptrdiff_t *)result = answer;
    return ROUSE_OK;
}

static inline void op_task_drop(void *state)
{
    rouse_op_cancel(state);
}

static const rouse_task_type op_task = {
    "operation", op_task_poll, op_task_drop, NULL, sizeof(rouse_op), 0, sizeof(ptrdiff_t), 0, {NULL, NULL}};

/* Waits for a prepared operation: in the calling fiber, or in a poll task of its own. */
enum style { IN_FIBER = 0, IN_POLL_TASK = 1, STYLES = 2 };

static inline ptrdiff_t answer_of(rouse_op *op, int style)
{
    ptrdiff_t answer = ROUSE_UNKNOWN;
    if (style == IN_FIBER)
        return rouse_op_await(op);
    int status = rouse_block_on(rouse_runtime_current(), &op_task, op, &answer);
    return status == ROUSE_OK ? answer : status;
}

/* ---- operations polled by hand, on the default runtime's reactor ---- */

struct hand {
    rouse_op op;
    rouse_context context;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int references, wakes;
    int seen; /* of the wakes; for tests */
};

static inline rouse_waker hand_clone(void *data);

static inline void hand_count(struct hand *hand, int references, int wakes)
{
    pthread_mutex_lock(&hand->lock);
    hand->references += references;
    hand->wakes += wakes;
    pthread_cond_broadcast(&hand->changed);
    pthread_mutex_unlock(&hand->lock);
}

static inline void hand_wake(void *data)
{
    hand_count(data, -1, 1);
}

static inline void hand_wake_by_ref(void *data)
{
    hand_count(data, 0, 1);
}

static inline void hand_drop(void *data)
{
    hand_count(data, -1, 0);
}

static const rouse_waker_table hand_table = {hand_clone, hand_wake, hand_wake_by_ref, hand_drop};

static inline rouse_waker hand_clone(void *data)
{
    hand_count(data, 1, 0);
    return (rouse_waker){data, &hand_table};
}

static inline void hand_init(struct hand *hand)
{
    memset(hand, 0, sizeof *hand);
    pthread_mutex_init(&hand->lock, NULL);
    pthread_cond_init(&hand->changed, NULL);
    rouse_waker waker = {hand, &hand_table};
    rouse_context_init(&hand->context, &waker);
}

static inline ptrdiff_t hand_poll(struct hand *hand)
{
    return rouse_op_poll(&hand->op, &hand->context);
}

static inline int hand_wakes(struct hand *hand)
{
    pthread_mutex_lock(&hand->lock);
    int wakes = hand->wakes;
    pthread_mutex_unlock(&hand->lock);
    return wakes;
}

static inline int hand_references(struct hand *hand)
{
    pthread_mutex_lock(&hand->lock);
    int references = hand->references;
    pthread_mutex_unlock(&hand->lock);
    return references;
}

/* Waits until there were so many wakes. */
static inline void hand_await_wakes(struct hand *hand, int wakes)
{
    struct timespec end;
    require(clock_gettime(CLOCK_REALTIME, &end) == 0);
    end.tv_sec += (time_t)(TEST_SOON / 1000000000) * (test_is_slow() ? 4 : 1);
    pthread_mutex_lock(&hand->lock);
    while (hand->wakes < wakes)
        require(pthread_cond_timedwait(&hand->changed, &hand->lock, &end) == 0);
    pthread_mutex_unlock(&hand->lock);
}

/* Polls, and waits for wakes in between, until it is not pending any more. */
static inline ptrdiff_t hand_finish(struct hand *hand)
{
    for (;;) {
        int wakes = hand_wakes(hand);
        ptrdiff_t answer = hand_poll(hand);
        if (answer != ROUSE_PENDING)
            return answer;
        hand_await_wakes(hand, wakes + 1);
    }
}

/* Nothing may refer to it any more; a thread that has just called the waker may be on its way out. */
static inline void hand_fini(struct hand *hand)
{
    eventually(hand_references(hand) == 0, TEST_SOON);
    pthread_mutex_lock(&hand->lock); /* whoever counted last has left */
    pthread_mutex_unlock(&hand->lock);
    pthread_cond_destroy(&hand->changed);
    pthread_mutex_destroy(&hand->lock);
}

/* ---- streams with a plain peer ---- */

static inline rouse_stream *adopted(int descriptor)
{
    rouse_stream *stream = NULL;
    require_int(rouse_adopt(&stream, descriptor), ==, ROUSE_OK);
    return stream;
}

/* One end of a TCP connection as a stream, the other, plain and blocking, in *peer. */
static inline rouse_stream *tcp_stream(int *peer)
{
    int ends[2];
    test_tcp_pair(ends);
    *peer = ends[1];
    return adopted(ends[0]);
}

/* The same made by accepting: no one else ever had its descriptor. */
static inline rouse_stream *accepted_stream(int *peer)
{
    rouse_listener *listener = NULL;
    rouse_stream *stream = NULL;
    rouse_address address;
    require_int(rouse_listen(&listener, "127.0.0.1:0", NULL), ==, ROUSE_OK);
    require_int(rouse_listener_address(listener, &address), ==, ROUSE_OK);
    *peer = test_connect_port(address.port);
    require_int(rouse_accept(listener, &stream, NULL), ==, ROUSE_OK);
    require_int(rouse_listener_close(listener), ==, ROUSE_OK);
    return stream;
}

static inline rouse_stream *unix_stream(int *peer)
{
    int ends[2];
    require(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    *peer = ends[1];
    return adopted(ends[0]);
}

/* The same when it takes no more, not even one byte. */
static inline rouse_stream *full_stream(int *peer)
{
    static const char zeros[4096];
    intptr_t descriptor;
    rouse_stream *stream = unix_stream(peer);
    require_int(rouse_descriptor(stream, &descriptor), ==, ROUSE_OK);
    struct pollfd file = {.fd = (int)descriptor, .events = POLLOUT};
    do {
        for (size_t chunk = sizeof zeros; chunk > 0; chunk /= 64)
            while (send((int)descriptor, zeros, chunk, MSG_NOSIGNAL) > 0) {}
        require(errno == EAGAIN);
    } while (!test_has("unix_sockets") && poll(&file, 1, 20) > 0); /* bytes of TCP move on for a while */
    return stream;
}

/* Ends the default runtime, which plain threads and operations polled by hand have used. */
static inline void end_default_runtime(void)
{
    require_int(rouse_default_shutdown(TEST_SOON), ==, ROUSE_OK);
}

#endif
