/* The server as fibers: straight-line code that seems to block. */
#include "server.h"

/* One connection. */
static int serve(void *argument)
{
    rouse_stream *peer = argument;
    struct reply reply;
    ptrdiff_t length;
    int status = ROUSE_OK;

    /* When the server stops, this read answers CANCELLED ... */
    while (status == ROUSE_OK && (length = rouse_read(peer, reply.text + PREFIX_BYTES, READ_MAX)) > 0) {
        rouse_shield shield;
        size_t size = reply_finish(&reply, (size_t)length);
        /* ... but a reply that is on its way gets out, if the client takes it before the grace has passed. */
        rouse_shield_enter(&shield, ROUSE_NEVER);
        status = rouse_write_all(peer, reply.text, size, NULL);
        rouse_shield_leave(&shield);
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
