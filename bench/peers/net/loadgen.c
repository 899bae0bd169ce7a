/* One thread epoll load generator for loopback servers.
 *
 *   loadgen -m echo|http|churn|idle -P PORT [-c conns] [-s size] [-p depth]
 *           [-d seconds] [-w warm-up seconds] [-r total requests/s, open loop]
 *           [-a source addresses] [-S server pid]
 *
 * echo   keeps `depth` messages of `size` bytes in flight on each connection
 * http   the same with GET requests (the reply's length is learnt from its head)
 * churn  connect, one round trip, close, again; `conns` of them at a time
 * idle   opens `conns` connections from 127.0.0.2.. , one round trip on each,
 *        then lets them lie for `seconds` and reports what the server costs
 * With -r the latency counts from the moment a request was due, so a stalled
 * server is charged for what waited (no coordinated omission).
 * With -S the server's CPU time, context switches and RSS are read from /proc. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include "../bench.h"

/* ---- log-linear histogram: 128 steps an octave, under 0.8 % error ---- */
enum { SUB_BITS = 7, SUB = 1 << SUB_BITS, SLOTS = (64 - SUB_BITS + 1) * SUB };
static uint64_t hist[SLOTS], hist_n, hist_max;
static double hist_sum;
static unsigned slot_of(uint64_t v)
{
    if (v < SUB)
        return (unsigned)v;
    unsigned sh = 63u - (unsigned)__builtin_clzll(v) - SUB_BITS;
    return (sh + 1) * SUB + (unsigned)((v >> sh) - SUB);
}
static uint64_t slot_value(unsigned s)
{
    if (s < 2 * SUB)
        return s;
    unsigned sh = s / SUB - 1;
    return (((uint64_t)(s % SUB) + SUB) << sh) + ((1ull << sh) >> 1);
}
static void hist_add(uint64_t v)
{
    hist[slot_of(v)]++;
    hist_n++;
    hist_sum += (double)v;
    if (v > hist_max)
        hist_max = v;
}
static double hist_us(double q)
{
    uint64_t want = (uint64_t)(q * (double)hist_n), seen = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        if ((seen += hist[i]) > want)
            return (double)slot_value(i) / 1000;
    return (double)hist_max / 1000;
}

/* ---- the server, seen from /proc ---- */
typedef struct {
    double cpu_s, user_s, sys_s;
    uint64_t vol, invol;
    long rss;
    int threads;
} usage;
static usage server_usage(int pid)
{
    usage u = {0};
    char path[128], line[256];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *d = pid ? opendir(path) : NULL;
    if (!d)
        return u;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        u.threads++;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", pid, e->d_name);
        FILE *f = fopen(path, "r");
        unsigned long long run = 0;
        if (f) {
            if (fscanf(f, "%llu", &run) == 1)
                u.cpu_s += (double)run / 1e9;
            fclose(f);
        }
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/status", pid, e->d_name);
        f = fopen(path, "r");
        while (f && fgets(line, sizeof line, f)) {
            unsigned long long v;
            if (sscanf(line, "voluntary_ctxt_switches: %llu", &v) == 1)
                u.vol += v;
            if (sscanf(line, "nonvoluntary_ctxt_switches: %llu", &v) == 1)
                u.invol += v;
        }
        if (f)
            fclose(f);
    }
    closedir(d);
    snprintf(path, sizeof path, "/proc/%d/stat", pid); /* in clock ticks: only sums over many samples are sharp */
    FILE *f = fopen(path, "r");
    unsigned long ut = 0, st = 0;
    if (f) {
        if (fscanf(f, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &ut, &st) != 2)
            ut = st = 0;
        fclose(f);
    }
    u.user_s = (double)ut / (double)sysconf(_SC_CLK_TCK);
    u.sys_s = (double)st / (double)sysconf(_SC_CLK_TCK);
    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    f = fopen(path, "r");
    long a;
    if (f) {
        if (fscanf(f, "%ld %ld", &a, &u.rss) != 2)
            u.rss = 0;
        fclose(f);
    }
    u.rss *= sysconf(_SC_PAGESIZE);
    return u;
}

/* ---- connections ---- */
enum { RING = 1024 };
typedef struct {
    int fd;
    bool connecting;
    uint32_t head, tail;     /* requests in flight: ring[head..tail) */
    uint64_t *ring;          /* their start times */
    size_t got;              /* bytes of the first unfinished reply */
    size_t unsent, send_off; /* bytes still to write, offset inside a request */
    uint64_t born;
} conn;

static const char *mode = "echo";
static int port, n_conns = 64, depth = 1, server_pid, n_addrs = 1;
static size_t size = 64, req_len, rep_len;
static double seconds = 3, warm = 0.5, rate;
static bool measuring;
static char *req;
static int ep;
static uint64_t done_n, errors;
static uint64_t end_at;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int open_socket(unsigned src_index, bool nonblock)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0), 0), one = 1;
    if (fd < 0)
        die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (n_addrs > 1) {
        struct sockaddr_in s = {.sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(0x7f000002u + src_index % (unsigned)n_addrs)};
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&s, sizeof s))
            die("bind");
    }
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&a, sizeof a) && errno != EINPROGRESS)
        die("connect");
    return fd;
}

static void flush_conn(conn *c)
{
    while (c->unsent) {
        size_t off = c->send_off, n = c->unsent;
        size_t room = req_len * (size_t)depth - off; /* req holds `depth` copies back to back */
        if (n > room)
            n = room;
        ssize_t w = write(c->fd, req + off, n);
        if (w < 0) {
            if (errno == EAGAIN)
                return;
            die("write");
        }
        c->unsent -= (size_t)w;
        c->send_off = (off + (size_t)w) % req_len;
        if ((size_t)w < n)
            return;
    }
}
static void send_requests(conn *c, int k, uint64_t t)
{
    for (int i = 0; i < k; i++)
        c->ring[c->tail++ % RING] = t;
    c->unsent += req_len * (size_t)k;
    flush_conn(c);
}

static size_t learn_reply(const char *p, size_t n)
{
    const char *e = memmem(p, n, "\r\n\r\n", 4), *cl;
    if (!e)
        return 0;
    cl = strcasestr(p, "content-length:");
    return (size_t)(e - p) + 4 + (cl && cl < e ? (size_t)atoi(cl + 15) : 0);
}

/* returns the number of replies this read completed, -1 at the end of the connection */
static int on_readable(conn *c)
{
    static char buf[1 << 16];
    ssize_t n = read(c->fd, buf, sizeof buf - 1);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0)
        return -1;
    if (!measuring && mode[0] == 'e') { /* the warm-up checks the content, the measured part only the count */
        for (ssize_t i = 0; i < n; i++)
            if (buf[i] != req[(c->got + (size_t)i) % req_len]) {
                fprintf(stderr, "echo differs\n");
                exit(1);
            }
    }
    if (!rep_len) {
        buf[n] = 0;
        rep_len = learn_reply(buf, (size_t)n);
        if (!rep_len) {
            fprintf(stderr, "no reply head\n");
            exit(1);
        }
    }
    uint64_t t = now_ns();
    c->got += (size_t)n;
    int k = 0;
    while (c->got >= rep_len) {
        c->got -= rep_len;
        k++;
        uint64_t start = c->ring[c->head++ % RING];
        if (measuring && t < end_at) {
            hist_add(t - start);
            done_n++;
        }
    }
    return k;
}

static void wait_events(struct epoll_event *evs, int max, int *n, int64_t timeout_ns)
{
    struct timespec ts = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    *n = epoll_pwait2(ep, evs, max, timeout_ns < 0 ? NULL : &ts, NULL);
    if (*n < 0) {
        if (errno != EINTR)
            die("epoll_pwait2");
        *n = 0;
    }
}

static void report(double secs, usage a, usage b, double own_cpu)
{
    double cpu = b.cpu_s - a.cpu_s;
    printf(
        "{\"mode\":\"%s\",\"conns\":%d,\"size\":%zu,\"depth\":%d,\"rate\":%.0f,\"secs\":%.3f,\"done\":%llu,\"errors\":%llu,"
        "\"per_s\":%.0f,\"mean_us\":%.2f,\"p50_us\":%.2f,\"p90_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,\"max_us\":%.1f,"
        "\"srv_user_s\":%.2f,\"srv_sys_s\":%.2f,\"srv_cpu\":%.3f,\"srv_cpu_us_per_op\":%.4f,\"srv_vol_per_op\":%.4f,\"srv_invol_per_op\":%.4f,\"srv_rss_mib\":%.2f,\"gen_cpu\":%.3f}\n",
        mode, n_conns, size, depth, rate, secs, (unsigned long long)done_n, (unsigned long long)errors,
        (double)done_n / secs, hist_n ? hist_sum / (double)hist_n / 1000 : 0, hist_us(.5), hist_us(.9), hist_us(.99),
        hist_us(.999), (double)hist_max / 1000, b.user_s - a.user_s, b.sys_s - a.sys_s, cpu / secs,
        done_n ? cpu * 1e6 / (double)done_n : 0, done_n ? (double)(b.vol - a.vol) / (double)done_n : 0,
        done_n ? (double)(b.invol - a.invol) / (double)done_n : 0, (double)b.rss / 1048576, own_cpu / secs);
}

static void run_steady(void)
{
    conn *cs = calloc((size_t)n_conns, sizeof *cs);
    struct epoll_event evs[256];
    for (int i = 0; i < n_conns; i++) {
        conn *c = &cs[i];
        c->fd = open_socket((unsigned)i, false);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        c->ring = calloc(RING, sizeof(uint64_t));
        struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev))
            die("epoll_ctl");
    }
    uint64_t t0 = now_ns(), begin = t0 + (uint64_t)(warm * 1e9), issued = 0;
    end_at = begin + (uint64_t)(seconds * 1e9);
    double gap = rate > 0 ? 1e9 / rate : 0;
    if (rate <= 0)
        for (int i = 0; i < n_conns; i++)
            send_requests(&cs[i], depth, now_ns());
    usage a = {0}, b;
    uint64_t own0 = 0;
    for (;;) {
        uint64_t t = now_ns();
        if (!measuring && t >= begin) {
            measuring = true;
            a = server_usage(server_pid);
            own0 = cpu_ns();
            begin = now_ns();
            end_at = begin + (uint64_t)(seconds * 1e9);
        }
        if (measuring && t >= end_at)
            break;
        int64_t timeout = 10000000;
        if (rate > 0) {
            for (;;) {
                uint64_t due = t0 + (uint64_t)(gap * (double)issued);
                if (due > t) {
                    timeout = (int64_t)(due - t);
                    break;
                }
                conn *c = &cs[issued++ % (uint64_t)n_conns];
                if (c->tail - c->head >= RING) {
                    errors++;
                    continue;
                }
                send_requests(c, 1, due);
            }
        }
        int n;
        wait_events(evs, 256, &n, timeout);
        for (int i = 0; i < n; i++) {
            conn *c = evs[i].data.ptr;
            if (c->unsent && (evs[i].events & EPOLLOUT))
                flush_conn(c);
            if (!(evs[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
                continue;
            int k, total = 0;
            size_t before;
            do { /* edge triggered: read until a read leaves room */
                before = c->got;
                k = on_readable(c);
                if (k < 0) {
                    fprintf(stderr, "server closed a connection\n");
                    exit(1);
                }
                total += k;
            } while (k > 0 && (c->got + (size_t)k * rep_len - before) >= (1 << 16) - 1);
            if (total && rate <= 0)
                send_requests(c, total, now_ns());
        }
    }
    double secs = (double)(now_ns() - begin) / 1e9;
    b = server_usage(server_pid);
    report(secs, a, b, (double)(cpu_ns() - own0) / 1e9);
}

static void churn_start(conn *c, unsigned i)
{
    c->born = now_ns();
    c->fd = open_socket(i, true);
    c->connecting = true;
    c->got = 0;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev))
        die("epoll_ctl");
}
static void run_churn(void)
{
    conn *cs = calloc((size_t)n_conns, sizeof *cs);
    struct epoll_event evs[256];
    unsigned serial = 0;
    for (int i = 0; i < n_conns; i++)
        churn_start(&cs[i], serial++);
    uint64_t begin = now_ns() + (uint64_t)(warm * 1e9), own0 = 0;
    end_at = begin + (uint64_t)(seconds * 1e9);
    usage a = {0};
    char buf[1 << 16];
    for (;;) {
        uint64_t t = now_ns();
        if (!measuring && t >= begin) {
            measuring = true;
            a = server_usage(server_pid);
            own0 = cpu_ns();
            begin = now_ns();
        }
        if (measuring && t >= end_at)
            break;
        int n;
        wait_events(evs, 256, &n, 10000000);
        for (int i = 0; i < n; i++) {
            conn *c = evs[i].data.ptr;
            if (c->connecting) {
                if (evs[i].events & (EPOLLERR | EPOLLHUP)) {
                    errors++;
                    close(c->fd);
                    churn_start(c, serial++);
                    continue;
                }
                if (!(evs[i].events & EPOLLOUT))
                    continue;
                c->connecting = false;
                if (write(c->fd, req, req_len) != (ssize_t)req_len) {
                    errors++;
                    close(c->fd);
                    churn_start(c, serial++);
                    continue;
                }
            }
            if (!(evs[i].events & EPOLLIN))
                continue;
            ssize_t r = read(c->fd, buf, sizeof buf);
            if (r < 0 && errno == EAGAIN)
                continue;
            if (r > 0 && (c->got += (size_t)r) < req_len)
                continue;
            if (r <= 0)
                errors++;
            else if (measuring) {
                hist_add(now_ns() - c->born);
                done_n++;
            }
            close(c->fd);
            churn_start(c, serial++);
        }
    }
    double secs = (double)(now_ns() - begin) / 1e9;
    usage b = server_usage(server_pid);
    report(secs, a, b, (double)(cpu_ns() - own0) / 1e9);
}

static long meminfo(const char *key)
{
    char line[128];
    long v = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)))
            v = atol(line + strlen(key));
    if (f)
        fclose(f);
    return v;
}
static void run_idle(void)
{
    usage a = server_usage(server_pid);
    long slab0 = meminfo("Slab:");
    int *fds = malloc(sizeof(int) * (size_t)n_conns);
    char buf[1 << 16];
    uint64_t t0 = now_ns();
    for (int i = 0; i < n_conns; i++) {
        fds[i] = open_socket((unsigned)i / 20000u, false);
        if (write(fds[i], req, req_len) != (ssize_t)req_len)
            die("write");
        for (size_t got = 0; got < req_len;) {
            ssize_t r = read(fds[i], buf, sizeof buf);
            if (r <= 0) {
                fprintf(stderr, "connection %d failed\n", i);
                exit(1);
            }
            got += (size_t)r;
        }
    }
    double open_s = (double)(now_ns() - t0) / 1e9;
    usleep(1500000);
    usage b = server_usage(server_pid);
    long slab1 = meminfo("Slab:");
    usleep((unsigned)(seconds * 1e6));
    usage e = server_usage(server_pid);
    printf(
        "{\"mode\":\"idle\",\"conns\":%d,\"open_s\":%.2f,\"rss0_mib\":%.2f,\"rss_mib\":%.2f,\"bytes_per_conn\":%.0f,\"slab_bytes_per_conn_both_ends\":%.0f,"
        "\"idle_cpu_ms_per_s\":%.4f,\"idle_switches_per_s\":%.2f,\"threads\":%d}\n",
        n_conns, open_s, (double)a.rss / 1048576, (double)b.rss / 1048576, (double)(b.rss - a.rss) / n_conns,
        (double)(slab1 - slab0) * 1024 / n_conns, (e.cpu_s - b.cpu_s) * 1000 / seconds,
        (double)(e.vol + e.invol - b.vol - b.invol) / seconds, e.threads);
}

int main(int argc, char **argv)
{
    for (int o; (o = getopt(argc, argv, "m:P:c:s:p:d:w:r:a:S:")) != -1;)
        switch (o) {
        case 'm':
            mode = optarg;
            break;
        case 'P':
            port = atoi(optarg);
            break;
        case 'c':
            n_conns = atoi(optarg);
            break;
        case 's':
            size = (size_t)atol(optarg);
            break;
        case 'p':
            depth = atoi(optarg);
            break;
        case 'd':
            seconds = atof(optarg);
            break;
        case 'w':
            warm = atof(optarg);
            break;
        case 'r':
            rate = atof(optarg);
            break;
        case 'a':
            n_addrs = atoi(optarg);
            break;
        case 'S':
            server_pid = atoi(optarg);
            break;
        default:
            return 2;
        }
    if (!port || depth < 1 || depth > RING || n_conns < 1 || size < 1) {
        fprintf(stderr, "bad options\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1);
    struct rlimit rl = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &rl);
    const char *get = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    bool http = !strcmp(mode, "http");
    req_len = http ? strlen(get) : size;
    rep_len = http ? 0 : size;
    req = malloc(req_len * (size_t)depth);
    for (size_t i = 0; i < req_len * (size_t)depth; i++)
        req[i] = http ? get[i % req_len] : (char)('a' + i % req_len % 26);
    ep = epoll_create1(EPOLL_CLOEXEC);
    if (!strcmp(mode, "churn")) {
        if (n_addrs == 1)
            n_addrs = 200;
        run_churn();
    } else if (!strcmp(mode, "idle")) {
        n_addrs = n_conns / 20000 + 2;
        run_idle();
    } else
        run_steady();
    return 0;
}
