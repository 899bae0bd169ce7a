/* The server as poll functions: each task is a small state and a function that does what it can without blocking. An
 * operation in the state stands for what the task waits for; whoever polls it is woken when there is more to do. */
#include "server.h"

/* ---- a connection ---- */

struct connection {
    rouse_stream *peer;
    enum step { STARTING, READING, WRITING, PARTING } step;
    rouse_op op;         /* the read or the write */
    rouse_shield shield; /* around what goes on when the server stops */
    int64_t part_by_ns;  /* when PARTING ends at the latest */
    struct reply reply;
};

/* Polls the operation inside a shield: a task that is stopped while it waits there is polled on, until the grace has
 * passed. */
static ptrdiff_t poll_shielded(struct connection *connection, int64_t deadline_ns, rouse_context *context)
{
    rouse_shield_enter(&connection->shield, deadline_ns);
    ptrdiff_t done = rouse_op_poll(&connection->op, context);
    rouse_shield_leave(&connection->shield);
    return done;
}

/* Prepares the operation for the next step. It keeps the address of the buffer, so this is done here, where the state
 * has its final place, and not by whoever spawns the task: spawning copies the state. */
static void start_reading(struct connection *connection, enum step step)
{
    rouse_read_init(&connection->op, connection->peer, connection->reply.text + PREFIX_BYTES, READ_MAX);
    connection->step = step;
}

static void start_writing(struct connection *connection, size_t size)
{
    rouse_write_all_init(&connection->op, connection->peer, connection->reply.text, size, NULL);
    connection->step = WRITING;
}

static int connection_poll(void *state, void *result, rouse_context *context)
{
    struct connection *connection = state;
    ptrdiff_t done;
    (void)result;
    for (;;) {
        switch (connection->step) {
        case STARTING:
            start_reading(connection, READING);
            break;

        case READING: /* when the server stops, this answers CANCELLED */
            done = rouse_op_poll(&connection->op, context);
            if (done == ROUSE_PENDING)
                return ROUSE_PENDING;
            if (done <= 0)
                return ROUSE_OK; /* the end of the stream, or a connection that broke */
            start_writing(connection, reply_finish(&connection->reply, (size_t)done));
            break;

        case WRITING:
            done = poll_shielded(connection, ROUSE_NEVER, context);
            if (done == ROUSE_PENDING)
                return ROUSE_PENDING;
            if (done != ROUSE_OK)
                return ROUSE_OK;
            if (rouse_is_cancelled()) {
                rouse_shutdown(connection->peer, ROUSE_SHUTDOWN_WRITE);
                connection->part_by_ns = rouse_after(PART_LIMIT);
                start_reading(connection, PARTING);
            } else {
                start_reading(connection, READING);
            }
            break;

        case PARTING: /* as part() of fiber_style.c: so that the last reply arrives */
            done = poll_shielded(connection, connection->part_by_ns, context);
            if (done == ROUSE_PENDING)
                return ROUSE_PENDING;
            if (done <= 0)
                return ROUSE_OK;
            start_reading(connection, PARTING);
            break;
        }
    }
}

static void connection_drop(void *state)
{
    struct connection *connection = state;
    rouse_op_cancel(&connection->op);
    rouse_shield_cancel(&connection->shield);
    rouse_close(connection->peer);
}

static const rouse_task_type connection_type = {
    .name = "connection",
    .poll = connection_poll,
    .drop = connection_drop,
    .state_size = sizeof(struct connection),
};

/* ---- the accept loop ---- */

struct acceptor {
    rouse_listener *listener;
    rouse_stream *peer;
    rouse_op op; /* the accept */
    enum { TO_ACCEPT, ACCEPTING } step;
};

static int acceptor_poll(void *state, void *result, rouse_context *context)
{
    struct acceptor *acceptor = state;
    (void)result;
    for (;;) {
        if (acceptor->step == TO_ACCEPT) {
            rouse_accept_init(&acceptor->op, acceptor->listener, &acceptor->peer, NULL);
            acceptor->step = ACCEPTING;
        }
        ptrdiff_t status = rouse_op_poll(&acceptor->op, context);
        if (status != ROUSE_OK)
            return (int)status; /* PENDING, or CLOSED: the server stops */
        struct connection connection = {.peer = acceptor->peer};
        if (rouse_spawn(NULL, &connection_type, &connection) != ROUSE_OK)
            rouse_close(acceptor->peer);
        acceptor->step = TO_ACCEPT;
    }
}

static void acceptor_drop(void *state)
{
    struct acceptor *acceptor = state;
    rouse_op_cancel(&acceptor->op);
}

static const rouse_task_type acceptor_type = {
    .name = "acceptor",
    .poll = acceptor_poll,
    .drop = acceptor_drop,
    .state_size = sizeof(struct acceptor),
};

/* ---- the signal to stop ---- */

struct signal_wait {
    rouse_op op;
    int started;
};

static int signal_poll(void *state, void *result, rouse_context *context)
{
    struct signal_wait *wait = state;
    (void)result;
    if (!wait->started) {
        rouse_signal_wait_init(&wait->op, STOP_SIGNALS);
        wait->started = 1;
    }
    return (int)rouse_op_poll(&wait->op, context);
}

static void signal_drop(void *state)
{
    struct signal_wait *wait = state;
    rouse_op_cancel(&wait->op);
}

static const rouse_task_type signal_type = {
    .name = "signal",
    .poll = signal_poll,
    .drop = signal_drop,
    .state_size = sizeof(struct signal_wait),
};

/* ---- all of it ---- */

int serve_with_polls(rouse_listener *listener, const rouse_options *options)
{
    struct acceptor acceptor = {.listener = listener};
    struct signal_wait wait = {.started = 0};
    rouse_runtime *runtime;
    int status = rouse_runtime_new(&runtime, options);
    if (status == ROUSE_OK) {
        status = rouse_spawn_on(runtime, NULL, &acceptor_type, &acceptor);
        if (status == ROUSE_OK)
            status = rouse_block_on(runtime, &signal_type, &wait, NULL);
        exit_on_next_signal();
        rouse_listener_close(listener);
        rouse_runtime_shutdown(runtime, STOP_GRACE, NULL, NULL);
    } else {
        rouse_listener_close(listener);
    }
    return status < 0 ? status : ROUSE_OK;
}
