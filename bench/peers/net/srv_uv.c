/* libuv, one loop. usage: srv_uv echo|http PORT */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <uv.h>
#include "http.h"

enum { BUF = 4096 };
typedef struct {
    uv_tcp_t tcp;
    size_t in_len;
    char *in;
} conn;
typedef struct {
    uv_write_t req;
    char data[];
} wreq;
static int is_http;
static char shared[BUF]; /* libuv reads and calls back before it asks for the next buffer */
static char replies[HTTP_REPLY_LEN * HTTP_MAX_BATCH];

static void on_closed(uv_handle_t *h)
{
    conn *c = (conn *)h;
    free(c->in);
    free(c);
}
static void drop(conn *c)
{
    if (!uv_is_closing((uv_handle_t *)c))
        uv_close((uv_handle_t *)c, on_closed);
}
static void on_written(uv_write_t *r, int status)
{
    if (status < 0)
        drop((conn *)r->handle);
    free(r);
}

/* try first, queue what is left: the fast path libuv's own manual recommends */
static void send_all(conn *c, const char *p, size_t n)
{
    uv_buf_t b = uv_buf_init((char *)p, (unsigned)n);
    int w = uv_try_write((uv_stream_t *)c, &b, 1);
    if (w == UV_EAGAIN)
        w = 0;
    if (w < 0) {
        drop(c);
        return;
    }
    if ((size_t)w == n)
        return;
    wreq *q = malloc(sizeof *q + n - (size_t)w);
    if (!q) {
        drop(c);
        return;
    }
    memcpy(q->data, p + w, n - (size_t)w);
    b = uv_buf_init(q->data, (unsigned)(n - (size_t)w));
    if (uv_write(&q->req, (uv_stream_t *)c, &b, 1, on_written)) {
        free(q);
        drop(c);
    }
}

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *b)
{
    (void)hint;
    conn *c = (conn *)h;
    if (c->in_len) {
        memcpy(shared, c->in, c->in_len);
    }
    *b = uv_buf_init(shared + c->in_len, (unsigned)(BUF - c->in_len));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    (void)b;
    conn *c = (conn *)s;
    if (n < 0) {
        drop(c);
        return;
    }
    if (!n)
        return;
    if (!is_http) {
        send_all(c, shared, (size_t)n);
        return;
    }
    size_t len = c->in_len + (size_t)n, off = 0, used, k;
    while ((k = http_count(shared + off, len - off, HTTP_MAX_BATCH, &used)) > 0) {
        send_all(c, replies, k * HTTP_REPLY_LEN);
        off += used;
    }
    c->in_len = len - off;
    if (c->in_len) {
        if (c->in_len >= BUF) {
            drop(c);
            return;
        }
        if (!c->in && !(c->in = malloc(BUF))) {
            drop(c);
            return;
        }
        memcpy(c->in, shared + off, c->in_len);
    }
}

static void on_conn(uv_stream_t *srv, int status)
{
    if (status < 0)
        return;
    conn *c = calloc(1, sizeof *c);
    if (!c)
        return;
    uv_tcp_init(srv->loop, &c->tcp);
    if (uv_accept(srv, (uv_stream_t *)c)) {
        drop(c);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
    uv_read_start((uv_stream_t *)c, on_alloc, on_read);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s echo|http PORT\n", argv[0]);
        return 2;
    }
    is_http = !strcmp(argv[1], "http");
    signal(SIGPIPE, SIG_IGN);
    struct rlimit rl = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &rl);
    for (int i = 0; i < HTTP_MAX_BATCH; i++)
        memcpy(replies + (size_t)i * HTTP_REPLY_LEN, HTTP_REPLY, HTTP_REPLY_LEN);
    uv_loop_t *loop = uv_default_loop();
    uv_tcp_t srv;
    struct sockaddr_in a;
    uv_ip4_addr("127.0.0.1", atoi(argv[2]), &a);
    uv_tcp_init(loop, &srv);
    uv_tcp_bind(&srv, (const struct sockaddr *)&a, 0);
    int r = uv_listen((uv_stream_t *)&srv, 4096, on_conn);
    if (r) {
        fprintf(stderr, "%s\n", uv_strerror(r));
        return 1;
    }
    return uv_run(loop, UV_RUN_DEFAULT);
}
