/* The practical limit: hand written, edge triggered epoll, one loop a thread,
 * SO_REUSEPORT listeners, one read buffer a loop; a connection owns memory only
 * while it has unsent or unparsed bytes.
 * usage: srv_epoll echo|http PORT [THREADS] */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "http.h"

enum { BUF = 4096, EVENTS = 256, MAXFD = 1 << 20, BUDGET = 16 };
typedef struct {
    char *out;
    size_t out_len, out_off;
    char *in;
    size_t in_len;
} conn;
typedef struct {
    int ep, ls, n_again, again[EVENTS * 2];
    char in[BUF];
    char out[HTTP_REPLY_LEN * HTTP_MAX_BATCH];
} loop;
static conn *conns; /* by descriptor; untouched pages cost nothing */
static int is_http, port;

static void conn_close(int fd)
{
    free(conns[fd].out);
    free(conns[fd].in);
    memset(&conns[fd], 0, sizeof(conn));
    close(fd);
}

/* 1 all written, 0 would block (the rest is kept), -1 error */
static int conn_write(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                return -1;
            conn *c = &conns[fd];
            char *keep = malloc(n);
            if (!keep)
                return -1;
            memcpy(keep, p, n);
            free(c->out);
            c->out = keep, c->out_len = n, c->out_off = 0;
            return 0;
        }
        p += w, n -= (size_t)w;
    }
    return 1;
}

static int on_bytes(loop *l, int fd, size_t n)
{
    if (!is_http)
        return conn_write(fd, l->in, n);
    size_t off = 0;
    for (;;) {
        size_t used, k = http_count(l->in + off, n - off, HTTP_MAX_BATCH, &used);
        if (!k)
            break;
        for (size_t i = 0; i < k; i++)
            memcpy(l->out + i * HTTP_REPLY_LEN, HTTP_REPLY, HTTP_REPLY_LEN);
        int r = conn_write(fd, l->out, k * HTTP_REPLY_LEN);
        if (r <= 0)
            return r;
        off += used;
    }
    if (off < n) { /* a partial head: keep it for the next read */
        if (n - off >= BUF)
            return -1;
        conn *c = &conns[fd];
        c->in = malloc(BUF);
        if (!c->in)
            return -1;
        memcpy(c->in, l->in + off, c->in_len = n - off);
    }
    return 1;
}

static void on_event(loop *l, int fd, uint32_t ev)
{
    conn *c = &conns[fd];
    if (c->out) {
        if (!(ev & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
            return;
        char *p = c->out;
        size_t off = c->out_off, n = c->out_len - off;
        c->out = NULL;
        int r = conn_write(fd, p + off, n);
        free(p);
        if (r < 0) {
            conn_close(fd);
            return;
        }
        if (r == 0)
            return;
    }
    for (int budget = BUDGET;; budget--) {
        if (!budget && l->n_again < EVENTS * 2) { /* edge triggered: a busy peer must not starve the others */
            l->again[l->n_again++] = fd;
            return;
        }
        size_t have = c->in_len;
        if (have) {
            memcpy(l->in, c->in, have);
            free(c->in);
            c->in = NULL;
            c->in_len = 0;
        }
        ssize_t n = read(fd, l->in + have, BUF - have);
        if (n <= 0) {
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0 && errno == EAGAIN) {
                if (have) {
                    c->in = malloc(BUF);
                    if (c->in)
                        memcpy(c->in, l->in, c->in_len = have);
                }
                return;
            }
            conn_close(fd);
            return;
        }
        int r = on_bytes(l, fd, have + (size_t)n);
        if (r < 0) {
            conn_close(fd);
            return;
        }
        if (r == 0)
            return;
        if ((size_t)n < BUF - have)
            return; /* a short read drained the socket: the next byte is a new edge */
    }
}

static int listen_on(int p)
{
    int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)p), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, 4096)) {
        perror("listen");
        exit(1);
    }
    return s;
}

static void *run(void *arg)
{
    (void)arg;
    loop *l = calloc(1, sizeof *l);
    if (!l)
        exit(1);
    l->ls = listen_on(port);
    l->ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = -1}, evs[EVENTS];
    epoll_ctl(l->ep, EPOLL_CTL_ADD, l->ls, &ev);
    for (;;) {
        int again[EVENTS * 2], n_again = l->n_again;
        memcpy(again, l->again, sizeof(int) * (size_t)n_again);
        l->n_again = 0;
        for (int i = 0; i < n_again; i++)
            on_event(l, again[i], EPOLLIN);
        int n = epoll_wait(l->ep, evs, EVENTS, l->n_again ? 0 : -1);
        for (int i = 0; i < n; i++) {
            if (evs[i].data.fd >= 0) {
                on_event(l, evs[i].data.fd, evs[i].events);
                continue;
            }
            for (;;) {
                int fd = accept4(l->ls, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
                if (fd < 0)
                    break;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                struct epoll_event ce = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
                if (fd >= MAXFD || epoll_ctl(l->ep, EPOLL_CTL_ADD, fd, &ce))
                    close(fd);
            }
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s echo|http PORT [THREADS]\n", argv[0]);
        return 2;
    }
    is_http = !strcmp(argv[1], "http");
    port = atoi(argv[2]);
    int threads = argc > 3 ? atoi(argv[3]) : 1;
    signal(SIGPIPE, SIG_IGN);
    struct rlimit rl = {MAXFD, MAXFD};
    setrlimit(RLIMIT_NOFILE, &rl);
    conns = calloc(MAXFD, sizeof(conn));
    if (!conns)
        return 1;
    for (int i = 1; i < threads; i++) {
        pthread_t t;
        pthread_create(&t, NULL, run, NULL);
    }
    run(NULL);
}
