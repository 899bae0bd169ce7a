/* Asks several servers at once and gives each of them two seconds to answer; one that hangs or refuses holds up nobody. */
#include <rouse/rouse.h>
#include <stdio.h>

static int fetch(void *arg)
{
    rouse_deadline deadline;
    rouse_stream *peer;
    char text[512];
    rouse_deadline_enter(&deadline, rouse_after(ROUSE_S(2)));
    ptrdiff_t n = rouse_connect(&peer, arg);
    if (n == ROUSE_OK) {
        n = rouse_write_all(peer, "GET / HTTP/1.0\r\n\r\n", 18, NULL);
        if (n == ROUSE_OK)
            n = rouse_read(peer, text, sizeof text);
        rouse_close(peer);
    }
    rouse_deadline_leave(&deadline);
    printf("%s: %.*s\n", (char *)arg, n < 0 ? 512 : (int)n, n < 0 ? rouse_status_text((int)n) : text);
    return n < 0 ? (int)n : ROUSE_OK;
}

static int app(void *arg)
{
    int status = ROUSE_OK;
    for (char **address = arg; *address != NULL && status == ROUSE_OK; address++)
        status = rouse_go(fetch, *address);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argv[1][0] == '-') {
        fprintf(stderr, "usage: fetches ADDRESS..., each numeric and with a port, like 127.0.0.1:80\n");
        return 2;
    }
    return rouse_exit_code(rouse_run(app, argv + 1, NULL));
}
