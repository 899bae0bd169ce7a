/* neco: a coroutine a connection, one thread. Needs the library installed
 * (neco.h, -lneco). usage: srv_neco echo|http PORT */
#define _GNU_SOURCE
#include <neco.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "../net/http.h"

static int is_http;
static char address[32];

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = neco_write(fd, p, n);
        if (w <= 0)
            return -1;
        p += w, n -= (size_t)w;
    }
    return 0;
}
static void client(int argc, void **argv)
{
    (void)argc;
    int fd = *(int *)argv[0];
    char buf[4096], out[HTTP_REPLY_LEN * HTTP_MAX_BATCH];
    size_t have = 0;
    for (;;) {
        ssize_t n = neco_read(fd, buf + have, sizeof buf - have);
        if (n <= 0)
            break;
        if (!is_http) {
            if (write_all(fd, buf, (size_t)n))
                break;
            continue;
        }
        have += (size_t)n;
        size_t off = 0, used, k;
        while ((k = http_count(buf + off, have - off, HTTP_MAX_BATCH, &used)) > 0) {
            for (size_t i = 0; i < k; i++)
                memcpy(out + i * HTTP_REPLY_LEN, HTTP_REPLY, HTTP_REPLY_LEN);
            if (write_all(fd, out, k * HTTP_REPLY_LEN))
                goto end;
            off += used;
        }
        memmove(buf, buf + off, have -= off);
        if (have == sizeof buf)
            break;
    }
end:
    close(fd);
}
static void serve(int argc, void **argv)
{
    (void)argc;
    (void)argv;
    int ls = neco_serve("tcp", address);
    if (ls < 0) {
        fprintf(stderr, "%s\n", neco_strerror(ls));
        exit(1);
    }
    for (;;) {
        int fd = neco_accept(ls, NULL, NULL), one = 1;
        if (fd < 0)
            continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        neco_start(client, 1, &fd);
    }
}
int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    is_http = !strcmp(argv[1], "http");
    snprintf(address, sizeof address, "127.0.0.1:%s", argv[2]);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit rl = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &rl);
    neco_start(serve, 0);
    return 0;
}
