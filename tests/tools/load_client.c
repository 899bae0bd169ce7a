/* Talks to poll_server over many connections at once, checks every reply byte for byte and tells how long it took. Beside
 * them it can run peers that misbehave. Sockets and epoll only, nothing of rouse.
 *
 * A good connection sends a message of at most 1,000 bytes, whose content no other message has, and waits for the reply
 * before it sends the next. The results are lines of a name and a number; the status is 0 if all replies were right, 1 if
 * not, 2 for wrong arguments. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_MAX 1000
#define PREFIX      "[Server]: Got "
#define REPLY_MAX   (sizeof PREFIX + MESSAGE_MAX)
#define MS          INT64_C(1000000)

/* A peer that resets or half-closes comes back this much later: quicker ones would use up the ports of the machine. */
#define RETURN_NS (100 * MS)

enum kind { GOOD, RESETS, HALF_CLOSES, STALLS, FLOODS, KINDS };
static const char *const kind_names[KINDS] = {"connections", "resets", "half-closes", "stalls", "floods"};

struct peer {
    enum kind kind;
    int socket; /* -1: not connected */
    bool connected;
    unsigned number;
    unsigned long rounds;
    int64_t sent_ns;   /* GOOD: when the message went out */
    int64_t return_ns; /* when a bad peer connects again */
    size_t reply_size, got;
    char reply[REPLY_MAX]; /* that must come */
};

static struct sockaddr_storage address;
static socklen_t address_size;
static unsigned counts[KINDS] = {100, 0, 0, 0, 0};
static unsigned long rounds_wanted = 100;
static uint64_t random_state = 1;
static int64_t time_limit_ns = 120 * INT64_C(1000000000);
static long server_pid;

static int set;
static struct peer *peers;
static size_t peer_count;
static uint64_t *latencies;
static size_t latency_count, latency_room;
static unsigned finished, failures;
static unsigned long bad_rounds[KINDS];

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fputs("load_client: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    exit(2);
}

__attribute__((format(printf, 2, 3))) static void failed(const struct peer *peer, const char *format, ...)
{
    va_list list;
    if (++failures > 5) {
        return;
    }
    va_start(list, format);
    fprintf(stderr, "load_client: %s %u, round %lu: ", kind_names[peer->kind], peer->number, peer->rounds);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
}

/* Resident memory of the server in KiB, 0 without a pid. */
static long server_rss_kib(void)
{
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof path, "/proc/%ld/status", server_pid);
    FILE *file = server_pid > 0 ? fopen(path, "r") : NULL;
    while (file != NULL && fgets(line, sizeof line, file) != NULL && sscanf(line, "VmRSS: %ld", &kib) != 1) {}
    if (file != NULL) {
        fclose(file);
    }
    return kib;
}

/* ---- messages ---- */

/* Writes a message that no other is equal to, and the reply that must come; answers the message's size. */
static size_t make_message(struct peer *peer, char *message)
{
    static const struct {
        const char *bytes;
        size_t size;
    } ends[] = {{"", 0}, {"\n", 1}, {"\r\n", 2}, {"\0", 1}, {"\n\n\r\n", 4}, {"\0\n\0", 3}};
    uint64_t random = next_random();
    size_t end = (size_t)(random % (sizeof ends / sizeof ends[0]));
    size_t wanted = (size_t)(random >> 8) % (MESSAGE_MAX - 64), size = 0, text;
    if (random >> 56 == 0 && peer->kind == GOOD) {
        end = 1 + end % 5; /* now and then nothing but an end */
    } else {
        size = (size_t)snprintf(message, 64, "%s %u %lu:", kind_names[peer->kind], peer->number, peer->rounds);
        while (size < wanted) {
            uint64_t bytes = next_random();
            memcpy(message + size, &bytes, sizeof bytes);
            size += sizeof bytes;
        }
    }
    memcpy(message + size, ends[end].bytes, ends[end].size);
    size += ends[end].size;
    for (text = size; text > 0 && strchr("\r\n", message[text - 1]) != NULL; text--) { /* finds the NUL too */
    }
    memcpy(peer->reply, PREFIX, sizeof PREFIX - 1);
    memcpy(peer->reply + sizeof PREFIX - 1, message, text);
    peer->reply_size = sizeof PREFIX + text;
    peer->reply[peer->reply_size - 1] = '\n';
    peer->got = 0;
    return size;
}

/* ---- peers ---- */

static void watch(struct peer *peer, uint32_t events, int verb)
{
    struct epoll_event event = {events, {.ptr = peer}};
    if (epoll_ctl(set, verb, peer->socket, &event) != 0) {
        die("epoll_ctl: %s", strerror(errno));
    }
}

static void connect_peer(struct peer *peer)
{
    int one = 1, small = 4096;
    peer->socket = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (peer->socket < 0) {
        die("socket: %s", strerror(errno));
    }
    setsockopt(peer->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (peer->kind == STALLS || peer->kind == FLOODS) { /* the machine's memory is not what is measured */
        setsockopt(peer->socket, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        setsockopt(peer->socket, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    }
    peer->connected = false;
    if (connect(peer->socket, (struct sockaddr *)&address, address_size) != 0 && errno != EINPROGRESS) {
        die("connect: %s", strerror(errno));
    }
    watch(peer, EPOLLOUT, EPOLL_CTL_ADD);
}

static void disconnect(struct peer *peer, bool reset)
{
    struct linger linger = {1, 0};
    if (reset) {
        setsockopt(peer->socket, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    }
    close(peer->socket);
    peer->socket = -1;
    peer->return_ns = now_ns() + RETURN_NS;
}

static bool send_message(struct peer *peer)
{
    char message[MESSAGE_MAX + 8];
    size_t size = make_message(peer, message);
    peer->sent_ns = now_ns();
    ssize_t sent = send(peer->socket, message, size, MSG_NOSIGNAL);
    if (sent == (ssize_t)size) {
        return true;
    }
    if (peer->kind == GOOD || peer->kind == HALF_CLOSES) {
        failed(peer, "send answered %zd of %zu: %s", sent, size, sent < 0 ? strerror(errno) : "short");
    }
    return false;
}

static void finish(struct peer *peer)
{
    disconnect(peer, false);
    finished++;
}

/* Takes part of a reply; true when all of it has come and was right. */
static bool receive_reply(struct peer *peer)
{
    char data[REPLY_MAX + 1];
    ssize_t got = recv(peer->socket, data, sizeof data, 0);
    if (got < 0 && errno == EAGAIN) {
        return false;
    }
    if (got <= 0) {
        failed(peer, "%s after %zu of %zu bytes", got == 0 ? "the stream ended" : strerror(errno), peer->got,
               peer->reply_size);
    } else if ((size_t)got > peer->reply_size - peer->got || memcmp(data, peer->reply + peer->got, (size_t)got) != 0) {
        failed(peer, "a wrong reply: at byte %zu of %zu came %zd bytes: %.*s", peer->got, peer->reply_size, got,
               (int)got, data);
    } else {
        peer->got += (size_t)got;
        return peer->got == peer->reply_size;
    }
    if (peer->kind == GOOD) {
        finish(peer);
    } else {
        disconnect(peer, false);
    }
    return false;
}

static void good_event(struct peer *peer)
{
    if (!receive_reply(peer)) {
        return;
    }
    latencies[latency_count++] = (uint64_t)(now_ns() - peer->sent_ns);
    peer->rounds++;
    if (peer->rounds == rounds_wanted || !send_message(peer)) {
        finish(peer);
    }
}

static void half_close_event(struct peer *peer)
{
    char byte;
    if (peer->got < peer->reply_size) {
        receive_reply(peer);
        return;
    }
    if (recv(peer->socket, &byte, 1, 0) != 0) {
        failed(peer, "something came after the reply to a half-closed connection");
    }
    peer->rounds++;
    bad_rounds[peer->kind]++;
    disconnect(peer, false);
}

static void flood_event(struct peer *peer)
{
    static const char block[4096] = "flood";
    for (int i = 0; i < 4; i++) {
        ssize_t sent = send(peer->socket, block, sizeof block, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            disconnect(peer, true);
            return;
        }
        if (sent < (ssize_t)sizeof block) {
            return;
        }
    }
}

static void bad_start(struct peer *peer)
{
    switch (peer->kind) {
    case RESETS:
        if (next_random() % 4 > 0) {
            send_message(peer);
        }
        bad_rounds[RESETS]++;
        if (next_random() % 2 == 0) { /* else later: the reply may be on its way by then */
            disconnect(peer, true);
            return;
        }
        peer->return_ns = now_ns() + 2 * MS;
        watch(peer, 0, EPOLL_CTL_MOD);
        break;
    case HALF_CLOSES:
        if (!send_message(peer)) {
            disconnect(peer, true);
            return;
        }
        shutdown(peer->socket, SHUT_WR);
        watch(peer, EPOLLIN, EPOLL_CTL_MOD);
        break;
    case STALLS:
        bad_rounds[STALLS]++;
        send_message(peer);
        watch(peer, 0, EPOLL_CTL_MOD);
        break;
    case FLOODS:
        bad_rounds[FLOODS]++;
        watch(peer, EPOLLOUT, EPOLL_CTL_MOD);
        break;
    case GOOD:
    case KINDS:
        break;
    }
}

static void on_connected(struct peer *peer)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(peer->socket, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
        failed(peer, "connect: %s", strerror(error));
        if (peer->kind == GOOD) {
            finish(peer);
        } else {
            disconnect(peer, false);
        }
        return;
    }
    peer->connected = true;
    if (peer->kind == GOOD) {
        watch(peer, EPOLLIN, EPOLL_CTL_MOD);
    } else {
        bad_start(peer);
    }
}

static void on_event(struct peer *peer, uint32_t events)
{
    if (peer->socket < 0) {
        return; /* an event from before it was closed */
    }
    if (!peer->connected) {
        on_connected(peer);
    } else if (peer->kind == GOOD) {
        good_event(peer);
    } else if (peer->kind == HALF_CLOSES) {
        half_close_event(peer);
    } else if (peer->kind == FLOODS && (events & (EPOLLERR | EPOLLHUP)) == 0) {
        flood_event(peer);
    } else {
        disconnect(peer, true); /* the server has hung up */
    }
}

/* ---- all of them ---- */

static void look_after_bad_peers(void)
{
    int64_t now = now_ns();
    for (size_t i = 0; i < peer_count; i++) {
        struct peer *peer = &peers[i];
        if (peer->kind == GOOD || peer->return_ns > now) {
            continue;
        }
        if (peer->socket < 0) {
            connect_peer(peer);
        } else if (peer->kind == RESETS && peer->connected) {
            disconnect(peer, true);
        }
    }
}

/* Handles events until `until` answers true; false when the time is over. */
static bool run(bool (*until)(void), int64_t deadline)
{
    int64_t next_look = 0;
    while (!until()) {
        struct epoll_event events[256];
        int64_t now = now_ns();
        if (now > deadline) {
            return false;
        }
        if (now > next_look) {
            look_after_bad_peers();
            next_look = now + 5 * MS;
        }
        int count = epoll_wait(set, events, 256, 5);
        for (int i = 0; i < count; i++) {
            on_event(events[i].data.ptr, events[i].events);
        }
    }
    return true;
}

static bool all_connected(void)
{
    for (size_t i = 0; i < counts[GOOD]; i++) {
        if (!peers[i].connected && peers[i].socket >= 0) {
            return false;
        }
    }
    return true;
}

static bool all_finished(void)
{
    return finished == counts[GOOD];
}

static int64_t pause_end;
static bool pause_is_over(void)
{
    return now_ns() > pause_end;
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static double latency_us(double part)
{
    size_t index = (size_t)(part * (double)latency_count);
    return latency_count == 0 ? 0 : (double)latencies[index < latency_count ? index : latency_count - 1] / 1000;
}

static unsigned long number(const char *option, const char *value)
{
    char *end;
    errno = 0;
    unsigned long result = value != NULL ? strtoul(value, &end, 10) : 0;
    if (value == NULL || value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0 || result > 100000000) {
        die("%s needs a number", option);
    }
    return result;
}

static void read_address(const char *text)
{
    char host[64];
    unsigned port;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
    if (text != NULL && sscanf(text, "[%63[0-9a-fA-F:.]]:%u", host, &port) == 2 &&
        inet_pton(AF_INET6, host, &v6->sin6_addr) == 1 && port < 65536) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        address_size = sizeof *v6;
    } else if (text != NULL && sscanf(text, "%63[0-9.]:%u", host, &port) == 2 &&
               inet_pton(AF_INET, host, &v4->sin_addr) == 1 && port < 65536) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        address_size = sizeof *v4;
    } else {
        die("--connect needs ADDRESS:PORT");
    }
}

static void read_arguments(int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        enum kind kind = GOOD;
        if (strcmp(option, "--help") == 0) {
            puts("usage: load_client --connect ADDRESS:PORT [--connections 100] [--rounds 100] [--resets 0]\n"
                 "       [--half-closes 0] [--stalls 0] [--floods 0] [--pid SERVER] [--seed 1] [--time-limit SECONDS]");
            exit(0);
        }
        while (kind < KINDS && (strncmp(option, "--", 2) != 0 || strcmp(option + 2, kind_names[kind]) != 0)) {
            kind++;
        }
        if (kind < KINDS) {
            counts[kind] = (unsigned)number(option, value);
        } else if (strcmp(option, "--connect") == 0) {
            read_address(value);
        } else if (strcmp(option, "--rounds") == 0) {
            rounds_wanted = number(option, value);
        } else if (strcmp(option, "--pid") == 0) {
            server_pid = (long)number(option, value);
        } else if (strcmp(option, "--seed") == 0) {
            random_state = number(option, value) * UINT64_C(0x9e3779b97f4a7c15) + 1;
        } else if (strcmp(option, "--time-limit") == 0) {
            time_limit_ns = (int64_t)number(option, value) * 1000000000;
        } else {
            die("unknown argument: %s", option);
        }
    }
    if (address_size == 0) {
        die("--connect is missing");
    }
}

int main(int argc, char **argv)
{
    struct rlimit files;
    read_arguments(argc, argv);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    for (int kind = 0; kind < KINDS; kind++) {
        peer_count += counts[kind];
    }
    latency_room = (size_t)counts[GOOD] * rounds_wanted;
    peers = calloc(peer_count + 1, sizeof *peers);
    latencies = calloc(latency_room + 1, sizeof *latencies);
    set = epoll_create1(EPOLL_CLOEXEC);
    if (peers == NULL || latencies == NULL || set < 0) {
        die("no memory");
    }
    size_t index = 0;
    for (int kind = 0; kind < KINDS; kind++) {
        for (unsigned i = 0; i < counts[kind]; i++) {
            peers[index++] = (struct peer){.kind = (enum kind)kind, .socket = -1, .number = i};
        }
    }

    int64_t deadline = now_ns() + time_limit_ns;
    long rss_before = server_rss_kib();
    for (size_t i = 0; i < counts[GOOD]; i++) {
        connect_peer(&peers[i]);
    }
    bool in_time = run(all_connected, deadline);
    if (peer_count > counts[GOOD]) { /* the bad ones come first, and get the time to do harm */
        pause_end = now_ns() + 500 * MS;
        in_time = in_time && run(pause_is_over, deadline);
    }
    int64_t start = now_ns();
    for (size_t i = 0; i < counts[GOOD] && in_time; i++) {
        if (peers[i].socket >= 0 && (rounds_wanted == 0 || !send_message(&peers[i]))) {
            finish(&peers[i]);
        }
    }
    in_time = in_time && run(all_finished, deadline);
    double seconds = (double)(now_ns() - start) / 1e9;
    long rss_loaded = server_rss_kib();
    for (size_t i = 0; i < peer_count; i++) {
        if (peers[i].socket >= 0) {
            disconnect(&peers[i], false);
        }
    }
    close(set);
    if (!in_time) {
        fprintf(stderr, "load_client: out of time: %u of %u connections have finished\n", finished, counts[GOOD]);
        failures++;
    }

    qsort(latencies, latency_count, sizeof *latencies, compare);
    printf("connections %u\n", counts[GOOD]);
    printf("round_trips %zu\n", latency_count);
    printf("failures %u\n", failures);
    printf("seconds %.3f\n", seconds);
    printf("requests_per_second %.0f\n", seconds > 0 ? (double)latency_count / seconds : 0);
    printf("latency_p50_us %.1f\n", latency_us(0.5));
    printf("latency_p99_us %.1f\n", latency_us(0.99));
    printf("latency_max_us %.1f\n", latency_us(1));
    for (int kind = RESETS; kind < KINDS; kind++) {
        printf("%s %lu\n", kind_names[kind], bad_rounds[kind]);
    }
    printf("rss_before_kib %ld\n", rss_before);
    printf("rss_loaded_kib %ld\n", rss_loaded);
    printf("rss_after_kib %ld\n", server_rss_kib());
    free(peers);
    free(latencies);
    return failures > 0;
}
