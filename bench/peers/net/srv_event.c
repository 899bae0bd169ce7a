/* libevent, one base. "echo" and "http" use plain events (its leanest API),
 * "echo-bev" its bufferevents. usage: srv_event echo|echo-bev|http PORT */
#define _GNU_SOURCE
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "http.h"

enum { BUF = 4096 };
typedef struct {
    struct event *rd, *wr;
    char *in;
    size_t in_len;
    char *out;
    size_t out_len, out_off;
} conn;
static struct event_base *base;
static int is_http, is_bev;
static char shared[BUF], replies[HTTP_REPLY_LEN * HTTP_MAX_BATCH];

static void drop(conn *c, int fd)
{
    event_free(c->rd);
    if (c->wr)
        event_free(c->wr);
    free(c->in);
    free(c->out);
    free(c);
    close(fd);
}
static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    conn *c = arg;
    ssize_t w = write(fd, c->out + c->out_off, c->out_len - c->out_off);
    if (w < 0) {
        if (errno != EAGAIN)
            drop(c, fd);
        return;
    }
    if ((c->out_off += (size_t)w) < c->out_len)
        return;
    free(c->out);
    c->out = NULL;
    event_del(c->wr);
    event_add(c->rd, NULL);
}
static int send_all(conn *c, int fd, const char *p, size_t n)
{
    ssize_t w = write(fd, p, n);
    if (w < 0) {
        if (errno != EAGAIN)
            return -1;
        w = 0;
    }
    if ((size_t)w == n)
        return 0;
    size_t rest = n - (size_t)w;
    char *grown = realloc(c->out, (c->out ? c->out_len : 0) + rest);
    if (!grown)
        return -1;
    if (!c->out)
        c->out_len = c->out_off = 0;
    c->out = grown;
    memcpy(c->out + c->out_len, p + w, rest);
    c->out_len += rest;
    if (!c->wr)
        c->wr = event_new(base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
    event_del(c->rd); /* back pressure */
    event_add(c->wr, NULL);
    return 0;
}
static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    conn *c = arg;
    if (c->in_len)
        memcpy(shared, c->in, c->in_len);
    ssize_t n = read(fd, shared + c->in_len, BUF - c->in_len);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        drop(c, fd);
        return;
    }
    if (!is_http) {
        if (send_all(c, fd, shared, (size_t)n))
            drop(c, fd);
        return;
    }
    size_t len = c->in_len + (size_t)n, off = 0, used, k;
    while ((k = http_count(shared + off, len - off, HTTP_MAX_BATCH, &used)) > 0) {
        if (send_all(c, fd, replies, k * HTTP_REPLY_LEN)) {
            drop(c, fd);
            return;
        }
        off += used;
    }
    c->in_len = len - off;
    if (c->in_len) {
        if (c->in_len >= BUF || (!c->in && !(c->in = malloc(BUF)))) {
            drop(c, fd);
            return;
        }
        memcpy(c->in, shared + off, c->in_len);
    }
}
static void bev_read(struct bufferevent *b, void *arg)
{
    (void)arg;
    bufferevent_write_buffer(b, bufferevent_get_input(b));
}
static void bev_event(struct bufferevent *b, short what, void *arg)
{
    (void)arg;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        bufferevent_free(b);
}
static void on_conn(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *a, int len, void *arg)
{
    (void)l;
    (void)a;
    (void)len;
    (void)arg;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (is_bev) {
        struct bufferevent *b = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
        bufferevent_setcb(b, bev_read, NULL, bev_event, NULL);
        bufferevent_enable(b, EV_READ | EV_WRITE);
        return;
    }
    conn *c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return;
    }
    c->rd = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, c);
    event_add(c->rd, NULL);
}
int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s echo|echo-bev|http PORT\n", argv[0]);
        return 2;
    }
    is_http = !strcmp(argv[1], "http");
    is_bev = !strcmp(argv[1], "echo-bev");
    signal(SIGPIPE, SIG_IGN);
    struct rlimit rl = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &rl);
    for (int i = 0; i < HTTP_MAX_BATCH; i++)
        memcpy(replies + (size_t)i * HTTP_REPLY_LEN, HTTP_REPLY, HTTP_REPLY_LEN);
    struct event_config *cfg = event_config_new();
    event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
    base = event_base_new_with_config(cfg);
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct evconnlistener *l = evconnlistener_new_bind(base, on_conn, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE,
                                                       4096, (struct sockaddr *)&sa, sizeof sa);
    if (!l) {
        perror("listen");
        return 1;
    }
    return event_base_dispatch(base);
}
