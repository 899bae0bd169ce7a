/* An echo server that says goodbye: on Ctrl-C it stops accepting, sends a farewell to each client and waits at most
 * five seconds until they have all got it. */
#include <rouse/rouse.h>
#include <stdio.h>

static int serve(void *arg)
{
    rouse_stream *peer = arg;
    rouse_shield shield;
    char buf[4096];
    ptrdiff_t n;
    while ((n = rouse_read(peer, buf, sizeof buf)) > 0 && rouse_write_all(peer, buf, (size_t)n, NULL) == ROUSE_OK) {}
    if (rouse_is_cancelled()) {
        rouse_shield_enter(&shield, ROUSE_NEVER); /* the scope's grace ends it */
        rouse_write_all(peer, "goodbye\n", 8, NULL);
        rouse_shield_leave(&shield);
    }
    return rouse_close(peer);
}

static int stop(void *listener)
{
    rouse_signal_wait(ROUSE_SIGNAL_INTERRUPT | ROUSE_SIGNAL_TERMINATE);
    return rouse_listener_close(listener);
}

static int app(void *arg)
{
    rouse_listener *listener;
    rouse_scope scope;
    int status = rouse_listen(&listener, "127.0.0.1:9000", NULL);
    (void)arg;
    if (status != ROUSE_OK)
        return status;
    rouse_scope_open(&scope);
    status = rouse_go(stop, listener);
    if (status == ROUSE_OK)
        rouse_serve(listener, serve); /* until the listener is closed */
    rouse_scope_cancel(&scope, ROUSE_S(5));
    int first_failure = rouse_scope_close(&scope);
    return status == ROUSE_OK ? first_failure : status;
}

int main(void)
{
    int status = rouse_run(app, NULL, NULL);
    if (status < 0)
        fprintf(stderr, "farewell: %s\n", rouse_status_text(status));
    return rouse_exit_code(status);
}
