/* The server as fibers: straight-line code that seems to block. */
#include "server.h"

/* Writes the reply. When the server stops meanwhile, the client still gets it, if it takes it before the grace has
 * passed: that is what the shield is for. */
static int answer(rouse_stream *peer, struct reply *reply, size_t size)
{
    rouse_shield shield;
    rouse_shield_enter(&shield, ROUSE_NEVER);
    int status = rouse_write_all(peer, reply->text, size, NULL);
    rouse_shield_leave(&shield);
    return status;
}

/* Ends a conversation so that the last reply arrives: closing while the client has sent more than was read would make
 * the system throw away what it has not delivered yet. A client that does not hang up when it sees the end is given up
 * after PART_LIMIT. */
static void part(rouse_stream *peer, struct reply *scratch)
{
    rouse_shield shield;
    rouse_shutdown(peer, ROUSE_SHUTDOWN_WRITE);
    rouse_shield_enter(&shield, rouse_after(PART_LIMIT));
    while (rouse_read(peer, scratch->text, sizeof scratch->text) > 0) {}
    rouse_shield_leave(&shield);
}

/* One connection. */
static int serve(void *argument)
{
    rouse_stream *peer = argument;
    struct reply reply;
    ptrdiff_t length;

    /* When the server stops, this read answers CANCELLED. */
    while ((length = rouse_read(peer, reply.text + PREFIX_BYTES, READ_MAX)) > 0) {
        if (answer(peer, &reply, reply_finish(&reply, (size_t)length)) != ROUSE_OK)
            break;
        if (rouse_is_cancelled()) {
            part(peer, &reply);
            break;
        }
    }
    rouse_close(peer);
    return ROUSE_OK; /* a connection that broke is no failure of the server */
}

static int stop_on_signal(void *listener)
{
    if (rouse_signal_wait(STOP_SIGNALS) > 0) {
        exit_on_next_signal();
        rouse_listener_close(listener);
    }
    return ROUSE_OK;
}

static int app(void *listener)
{
    rouse_scope scope; /* owns the fiber that waits for the signal, and those of the connections */
    int status = rouse_scope_open(&scope);
    if (status == ROUSE_OK)
        status = rouse_go(stop_on_signal, listener);
    if (status == ROUSE_OK)
        status = rouse_serve(listener, serve);
    if (status == ROUSE_CLOSED) /* by stop_on_signal */
        status = ROUSE_OK;
    rouse_scope_cancel(&scope, STOP_GRACE);
    rouse_scope_close(&scope);
    return status;
}

int serve_with_fibers(rouse_listener *listener, const rouse_options *options)
{
    int status = rouse_run(app, listener, options);
    rouse_listener_close(listener); /* in case it never got as far as rouse_serve */
    return status;
}
