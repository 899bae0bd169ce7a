/* A TCP echo server on all processors. Try it with: nc 127.0.0.1 9000 */
#include <rouse/rouse.h>

static int serve(void *arg)
{
    rouse_stream *peer = arg;
    char buf[4096];
    ptrdiff_t n;
    while ((n = rouse_read(peer, buf, sizeof buf)) > 0 && rouse_write_all(peer, buf, (size_t)n, NULL) == ROUSE_OK) {}
    return rouse_close(peer);
}

static int app(void *arg)
{
    rouse_listener *listener;
    int status = rouse_listen(&listener, "127.0.0.1:9000", NULL);
    (void)arg;
    return status == ROUSE_OK ? rouse_serve(listener, serve) : status;
}

int main(void)
{
    return rouse_exit_code(rouse_run(app, NULL, NULL));
}
