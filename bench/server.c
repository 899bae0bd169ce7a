/* The servers of peers/net on rouse: echo, and the HTTP exchange of peers/net/http.h.
 *
 * usage: bench_server echo|http PORT [THREADS] [--style poll|fiber] [--buffer own|shared] [--round-robin] [--reactors N]
 *                     [--hog MS]
 *
 * THREADS 0 (the default) is the single-threaded executor, n the threaded one with n workers.
 *
 * A connection is a task or a fiber. As a task it has a 4 KiB buffer of its own for as long as it lives, which works on every
 * backend and with any number of workers. With --buffer shared all tasks read into one buffer, as the hand-written loop
 * of peers/net/srv_epoll.c does, and a connection owns memory only while bytes of it wait: possible because a backend
 * that waits for readiness touches a buffer only inside a poll, and only on a single-threaded executor. A fiber has its
 * buffer on its stack.
 *
 * --hog adds a task that computes for so many milliseconds, then sleeps as long, for ever. */
#include "peers/bench.h"
#include "peers/net/http.h"
#include <rouse/rouse.h>

#include <stdbool.h>
#include <sys/resource.h>

enum { BUFFER_BYTES = 4096 };

static bool is_http, is_shared;
static char shared[BUFFER_BYTES];
static char replies[HTTP_REPLY_LEN * HTTP_MAX_BATCH];
static rouse_listener *listener;
static rouse_runtime *runtime;

static void must(ptrdiff_t status, const char *what)
{
    if (status >= 0)
        return;
    fprintf(stderr, "bench_server: %s: %s\n", what, rouse_status_text((int)status));
    exit(1);
}

/* What is to be sent for `length` received bytes, and how many of them that answers; 0: nothing yet. */
static size_t answer(const char *received, size_t length, const char **reply, size_t *answered)
{
    if (!is_http) {
        *reply = received;
        *answered = length;
        return length;
    }
    *reply = replies;
    return http_count(received, length, HTTP_MAX_BATCH, answered) * HTTP_REPLY_LEN;
}

/* ---- poll style ---- */

struct connection {
    rouse_stream *stream;
    rouse_op op;
    enum { FRESH, READING, WRITING } doing;
    char *buffer;           /* its own; with --buffer shared only while bytes wait */
    const char *reply;      /* what remains to be written */
    size_t reply_bytes;     /* of it */
    size_t begin, received; /* bytes [begin, received) of the buffer are not answered yet */
};

/* Before a task with bytes in the shared buffer waits, it takes them home. */
static bool take_home(struct connection *c)
{
    if (!is_shared || c->buffer || c->received == 0)
        return true;
    c->buffer = malloc(BUFFER_BYTES);
    if (!c->buffer)
        return false;
    memcpy(c->buffer, shared, c->received);
    if (!is_http)
        c->reply = c->buffer + (c->reply - shared);
    return true;
}

static bool begin_read(struct connection *c)
{
    char *from = c->buffer ? c->buffer : shared;
    c->received -= c->begin;
    memmove(from, from + c->begin, c->received);
    c->begin = 0;
    if (c->received == BUFFER_BYTES || !take_home(c))
        return false;
    if (is_shared && c->received == 0) {
        free(c->buffer);
        c->buffer = NULL;
    }
    rouse_read_init(&c->op, c->stream, (c->buffer ? c->buffer : shared) + c->received, BUFFER_BYTES - c->received);
    c->doing = READING;
    return true;
}

static void begin_write(struct connection *c)
{
    rouse_write_init(&c->op, c->stream, c->reply, c->reply_bytes);
    c->doing = WRITING;
}

/* After an operation that moved `count` bytes: begins the next one. */
static bool proceed(struct connection *c, size_t count)
{
    size_t answered = 0;
    const char *from = c->buffer ? c->buffer : shared;
    if (c->doing == READING) {
        c->received += count;
        c->reply_bytes = 0;
    } else {
        c->reply += count;
        c->reply_bytes -= count;
    }
    if (c->reply_bytes == 0) {
        c->reply_bytes = answer(from + c->begin, c->received - c->begin, &c->reply, &answered);
        c->begin += answered;
    }
    if (c->reply_bytes == 0)
        return begin_read(c);
    begin_write(c);
    return true;
}

/* The operation waits. */
static int suspend(struct connection *c, rouse_context *context)
{
    if (c->doing == READING || !is_shared || c->buffer)
        return ROUSE_PENDING;
    rouse_op_cancel(&c->op);
    if (!take_home(c))
        return ROUSE_NO_MEMORY;
    begin_write(c);
    ptrdiff_t n = rouse_op_poll(&c->op, context);
    if (n == ROUSE_PENDING)
        return ROUSE_PENDING;
    if (n < 0 || !proceed(c, (size_t)n))
        return ROUSE_OK;
    rouse_waker_wake_by_ref(&context->waker); /* it became writable just now */
    return ROUSE_PENDING;
}

static int serve_poll(void *state, void *result, rouse_context *context)
{
    struct connection *c = state;
    (void)result;
    if (c->doing == FRESH) {
        if (!is_shared && !(c->buffer = malloc(BUFFER_BYTES)))
            return ROUSE_NO_MEMORY;
        begin_read(c);
    }
    for (;;) {
        ptrdiff_t n = rouse_op_poll(&c->op, context);
        if (n == ROUSE_PENDING)
            return suspend(c, context);
        if (n < 0 || (c->doing == READING && n == 0) || !proceed(c, (size_t)n))
            return ROUSE_OK;
    }
}

static void serve_drop(void *state)
{
    struct connection *c = state;
    rouse_op_cancel(&c->op);
    rouse_close(c->stream);
    free(c->buffer);
}

static const rouse_task_type serve_type = {
    .name = "connection", .poll = serve_poll, .drop = serve_drop, .state_size = sizeof(struct connection)};

struct acceptor {
    rouse_stream *stream;
    rouse_op op;
    bool under_way;
};

static int accept_poll(void *state, void *result, rouse_context *context)
{
    struct acceptor *me = state;
    (void)result;
    for (;;) {
        if (!me->under_way)
            rouse_accept_init(&me->op, listener, &me->stream, NULL);
        ptrdiff_t status = rouse_op_poll(&me->op, context);
        me->under_way = status == ROUSE_PENDING;
        if (me->under_way)
            return ROUSE_PENDING;
        if (status < 0)
            return (int)status;
        struct connection connection = {.stream = me->stream};
        if (rouse_spawn(NULL, &serve_type, &connection) != ROUSE_OK)
            rouse_close(me->stream);
    }
}

static void accept_drop(void *state)
{
    rouse_op_cancel(&((struct acceptor *)state)->op);
}
static const rouse_task_type accept_type = {
    .name = "acceptor", .poll = accept_poll, .drop = accept_drop, .state_size = sizeof(struct acceptor)};

static int serve_with_tasks(void)
{
    return rouse_block_on(runtime, &accept_type, NULL, NULL);
}

/* ---- fiber style ---- */

static int serve_fiber(void *argument)
{
    rouse_stream *stream = argument;
    char buffer[BUFFER_BYTES];
    const char *reply;
    size_t received = 0, answered, bytes;
    ptrdiff_t n;
    while (received < sizeof buffer && (n = rouse_read(stream, buffer + received, sizeof buffer - received)) > 0) {
        size_t begin = 0;
        received += (size_t)n;
        while ((bytes = answer(buffer + begin, received - begin, &reply, &answered)) > 0) {
            if (rouse_write_all(stream, reply, bytes, NULL) != ROUSE_OK)
                return rouse_close(stream);
            begin += answered;
        }
        memmove(buffer, buffer + begin, received - begin);
        received -= begin;
    }
    return rouse_close(stream);
}

static int accept_fiber(void *argument)
{
    rouse_scope scope;
    (void)argument;
    must(rouse_scope_open(&scope), "scope");
    int status = rouse_serve(listener, serve_fiber);
    rouse_scope_cancel(&scope, 0);
    rouse_scope_close(&scope);
    return status;
}

static int serve_with_fibers(void)
{
    rouse_task task;
    must(rouse_spawn_fiber_at(&task, runtime, accept_fiber, NULL, 0, 0, NULL, ROUSE_HERE), "fiber");
    return rouse_join(&task, NULL);
}

/* ---- all of it ---- */

struct hog {
    int64_t span_ns;
    bool under_way;
    rouse_op op;
};

static int hog_poll(void *state, void *result, rouse_context *context)
{
    struct hog *hog = state;
    (void)result;
    for (;;) {
        if (!hog->under_way) {
            int64_t end = rouse_after(hog->span_ns);
            while (rouse_now() < end) {}
            rouse_sleep_init(&hog->op, rouse_after(hog->span_ns));
        }
        hog->under_way = rouse_op_poll(&hog->op, context) == ROUSE_PENDING;
        if (hog->under_way)
            return ROUSE_PENDING;
    }
}

static void hog_drop(void *state)
{
    rouse_op_cancel(&((struct hog *)state)->op);
}
static const rouse_task_type hog_type = {
    .name = "hog", .poll = hog_poll, .drop = hog_drop, .state_size = sizeof(struct hog)};

static int usage(void)
{
    fprintf(stderr, "usage: bench_server echo|http PORT [THREADS] [--style poll|fiber] [--buffer own|shared]\n"
                    "                    [--round-robin] [--reactors N] [--hog MS]\n");
    return 2;
}

int main(int argc, char **argv)
{
    rouse_options options = ROUSE_OPTIONS_INIT;
    struct hog hog = {.span_ns = 0};
    struct rlimit limit = {1 << 20, 1 << 20};
    bool fibers = false;
    unsigned threads = 0;
    char address[32];
    if (argc < 3)
        return usage();
    for (int i = 3; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--round-robin") == 0)
            options.scheduler = ROUSE_SCHEDULER_ROUND_ROBIN;
        else if (argv[i][0] != '-')
            threads = (unsigned)atoi(argv[i]);
        else if (strcmp(argv[i], "--style") == 0 && i++)
            fibers = strcmp(value, "fiber") == 0;
        else if (strcmp(argv[i], "--buffer") == 0 && i++)
            is_shared = strcmp(value, "shared") == 0;
        else if (strcmp(argv[i], "--reactors") == 0 && i++)
            options.reactors = (unsigned)atoi(value);
        else if (strcmp(argv[i], "--hog") == 0 && i++)
            hog.span_ns = ROUSE_MS(atoi(value));
        else
            return usage();
    }
    if (is_shared && threads > 0)
        return usage();
    is_http = strcmp(argv[1], "http") == 0;
    for (size_t i = 0; i < HTTP_MAX_BATCH; i++)
        memcpy(replies + i * HTTP_REPLY_LEN, HTTP_REPLY, HTTP_REPLY_LEN);
    setrlimit(RLIMIT_NOFILE, &limit);
    options.executor = threads == 0 ? ROUSE_EXECUTOR_SINGLE : ROUSE_EXECUTOR_MULTI;
    options.workers = threads;
    must(rouse_runtime_new(&runtime, &options), "runtime");
    snprintf(address, sizeof address, "127.0.0.1:%d", atoi(argv[2]));
    must(rouse_listen(&listener, address, NULL), address);
    if (hog.span_ns > 0)
        must(rouse_spawn_on(runtime, NULL, &hog_type, &hog), "hog");
    int status = fibers ? serve_with_fibers() : serve_with_tasks();
    fprintf(stderr, "bench_server: %s\n", rouse_status_text(status));
    return 1;
}
