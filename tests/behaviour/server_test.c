/* The demonstration server from outside: its conversation, its arguments and how it stops, in every way it can run. */
#include "support/faults.h"
#include "support/harness.h"
#include "support/net.h"
#include "support/process.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

TEST_FILE_NEEDS(processes, handlers)

#if !defined(POLL_SERVER_PATH)
#define POLL_SERVER_PATH ""
#endif

#define SECOND INT64_C(1000000000)
#define GRACE  (5 * SECOND) /* that the server promises */

#define PREFIX     "[Server]: Got "
#define PREFIX_MAX (sizeof PREFIX - 1)
#define READ_MAX   4096

/* ---- a running server ---- */

struct server {
    test_process process;
    uint16_t port;
};

static test_process launch(const char *const *arguments, enum test_stdout kind)
{
    test_process process;
    const char *path = getenv("POLL_SERVER_PATH");
    path = path != NULL ? path : POLL_SERVER_PATH;
    if (*path == '\0') {
        test_skip("built without the examples");
    }
    test_process_start(&process, path, arguments, kind);
    return process;
}

static struct server start(const char *const *arguments)
{
    struct server server = {launch(arguments, TEST_STDOUT_PIPE), 0};
    char line[128], host[64];
    unsigned port = 0;
    test_read_line(server.process.output, line, sizeof line);
    if (sscanf(line, "listening on %63[0-9.]:%u\n", host, &port) != 2 &&
        sscanf(line, "listening on [%63[0-9a-f:]]:%u\n", host, &port) != 2) {
        fprintf(stderr, "the first line is: %s\n", line);
    }
    require(port != 0);
    server.port = (uint16_t)port;
    return server;
}

static bool refuses(uint16_t port)
{
    rouse_address address = test_address(port);
    int socket = test_try_connect(&address, SECOND);
    if (socket >= 0) {
        test_close(socket);
    }
    return socket == -ECONNREFUSED;
}

/* ThreadSanitizer keeps a signal back until the fiber that it met makes a call; if that ends before, the signal is lost. There
 * it is sent once more to a server that has not seen it, and still listens. */
static void signal_server(struct server *server, int signal)
{
    test_process_signal(&server->process, signal);
    if (FAULTS_THREAD_SANITIZER) {
        int64_t end = test_now_ns() + 2 * SECOND;
        while (!refuses(server->port) && test_now_ns() < end)
            test_sleep_ns(SECOND / 100);
        if (!refuses(server->port))
            test_process_signal(&server->process, signal);
    }
}

static void interrupt(struct server *server)
{
    signal_server(server, SIGINT);
}

static void expect_end(test_process *process, int wanted, int64_t timeout_ns)
{
    char text[1024];
    /* A sanitizer makes each new fiber dear, and peers that come and go leave many to be ended. */
    int status = test_process_end(process, test_is_slow() ? 5 * timeout_ns : timeout_ns);
    test_read_text(process->errors, text, sizeof text);
    if (status != wanted || text[0] != '\0') {
        fprintf(stderr, "the server's standard error: %s\n", text);
    }
    require_int(status, ==, wanted);
    require_int(text[0], ==, '\0');
    test_process_forget(process);
}

static void stop(struct server *server)
{
    interrupt(server);
    expect_end(&server->process, 0, 3 * SECOND);
}

/* ---- every way to run it ---- */

static const char *const ways[][9] = {
    {"--listen", "127.0.0.1:0", "--executor", "single", "--style", "fiber"},
    {"--listen", "127.0.0.1:0", "--executor", "single", "--style", "poll"},
    {"--listen", "127.0.0.1:0", "--executor", "multi", "--scheduler", "round-robin", "--style", "fiber"},
    {"--listen", "127.0.0.1:0", "--executor", "multi", "--scheduler", "round-robin", "--style", "poll"},
    {"--listen", "127.0.0.1:0", "--executor", "multi", "--scheduler", "work-stealing", "--style", "fiber"},
    {"--listen", "127.0.0.1:0", "--executor", "multi", "--scheduler", "work-stealing", "--style", "poll"},
};
#define WAYS (sizeof ways / sizeof ways[0])

/* All at once: what takes long is waiting. */
static void start_all(struct server *servers)
{
    for (size_t i = 0; i < WAYS; i++) {
        servers[i] = start(ways[i]);
    }
}

/* ---- conversation ---- */

static void ask(int client, const char *message, size_t length, const char *reply)
{
    test_send_all(client, message, length);
    test_expect(client, reply);
}

TEST(messages_are_answered)
{
    for (size_t i = 0; i < WAYS; i++) {
        struct server server = start(ways[i]);
        int one = test_connect_port(server.port), two = test_connect_port(server.port);
        ask(one, "hello", 5, PREFIX "hello\n");
        ask(two, "hello\n", 6, PREFIX "hello\n");
        ask(one, "hello\r\n", 7, PREFIX "hello\n");
        ask(two, "hello\0\n\0\r", 9, PREFIX "hello\n");
        ask(one, "\n", 1, PREFIX "\n");
        ask(two, " two\nlines \n", 12, PREFIX " two\nlines \n");
        test_send_all(one, "a\0b", 3);
        test_expect_bytes(one, PREFIX "a\0b\n", PREFIX_MAX + 4);
        test_expect_silence(one, 20000000);
        test_close(one);
        ask(two, "%s \xff", 4, PREFIX "%s \xff\n");
        test_close(two);
        stop(&server);
    }
}

/* Sends `length` bytes of 'x' and then the end; takes the replies apart and answers how many bytes they return. */
static size_t returned_bytes(int client, size_t length)
{
    char *data = test_memory(length);
    size_t returned = 0, in_prefix = 0;
    memset(data, 'x', length);
    test_send_all(client, data, length);
    test_half_close(client);
    for (;;) {
        ptrdiff_t count = test_receive(client, data, length, TEST_SOON);
        require_int(count, >=, 0);
        if (count == 0) {
            break;
        }
        for (ptrdiff_t i = 0; i < count; i++) {
            if (in_prefix < PREFIX_MAX) {
                require_int(data[i], ==, PREFIX[in_prefix]);
                in_prefix++;
            } else if (data[i] == '\n') {
                in_prefix = 0;
            } else {
                require_int(data[i], ==, 'x');
                returned++;
            }
        }
    }
    require_int(in_prefix, ==, 0);
    free(data);
    return returned;
}

TEST(long_messages_are_answered_in_parts)
{
    static const size_t lengths[] = {1, READ_MAX - 1, READ_MAX, READ_MAX + 1, 100000};
    for (size_t i = 0; i < WAYS; i++) {
        struct server server = start(ways[i]);
        for (size_t k = 0; k < sizeof lengths / sizeof lengths[0]; k++) {
            int client = test_connect_port(server.port);
            assert_int_equal(returned_bytes(client, lengths[k]), lengths[k]);
            test_close(client);
        }
        stop(&server);
    }
}

TEST(a_half_closed_connection_gets_its_reply_and_the_end)
{
    for (size_t i = 0; i < WAYS; i++) {
        struct server server = start(ways[i]);
        int client = test_connect_port(server.port);
        test_send_all(client, "last words\n", 11);
        test_half_close(client);
        test_expect(client, PREFIX "last words\n");
        test_expect_end(client);
        test_close(client);
        stop(&server);
    }
}

TEST(a_client_that_does_not_read_is_not_read_from)
{
    for (size_t i = 0; i < WAYS; i++) {
        struct server server = start(ways[i]);
        int deaf = test_connect_port(server.port), other = test_connect_port(server.port);
        assert_true(test_send_until_full(deaf) > READ_MAX); /* it ends: what cannot be answered stays with the client */
        ask(other, "still there?\n", 13, PREFIX "still there?\n");
        test_close_with_reset(deaf);
        ask(other, "still there?\n", 13, PREFIX "still there?\n");
        test_close(other);
        stop(&server);
    }
}

TEST(clients_that_misbehave_disturb_nobody)
{
    for (size_t i = 0; i < WAYS; i++) {
        struct server server = start(ways[i]);
        test_peer peers[4];
        int client = test_connect_port(server.port);
        for (int kind = 0; kind < 4; kind++) {
            test_peer_start(&peers[kind], (enum test_peer_kind)kind, server.port);
        }
        for (uint64_t k = test_scale(200, 20000); k > 0; k--) {
            ask(client, "ping\n", 5, PREFIX "ping\n");
        }
        for (int kind = 0; kind < 4; kind++) {
            test_peer_stop(&peers[kind]);
        }
        test_close(client);
        stop(&server);
    }
}

/* ---- stopping ---- */

TEST(a_signal_ends_idle_connections_at_once)
{
    for (size_t i = 0; i < 2 * WAYS; i++) {
        struct server server = start(ways[i / 2]);
        int one = test_connect_port(server.port), two = test_connect_port(server.port);
        ask(one, "hello", 5, PREFIX "hello\n");
        ask(two, "hello", 5, PREFIX "hello\n");
        signal_server(&server, i % 2 == 0 || !test_has("terminate") ? SIGINT : SIGTERM);
        test_expect_end(one);
        test_expect_end(two);
        expect_end(&server.process, 0, 2 * SECOND);
        assert_true(refuses(server.port));
        test_close(one);
        test_close(two);
    }
}

TEST(a_signal_right_after_the_first_line_is_not_lost)
{
    for (size_t i = 0; i < WAYS; i++) {
        for (uint64_t k = test_scale(5, 200); k > 0; k--) {
            struct server server = start(ways[i]);
            stop(&server);
        }
    }
}

/* Receives until the end of the stream; answers whether the last byte was the end of a reply. The server waits for half a
 * second until we hang up, and we may be slower; that it has gone then may be told instead of the end. */
static bool reply_is_whole(int client)
{
    static char data[65536];
    char last = 0;
    for (;;) {
        ptrdiff_t count = test_receive(client, data, sizeof data, TEST_SOON);
        bool gone = count == -ECONNRESET && test_is_slow();
        require_int(gone ? 0 : count, >=, 0);
        if (count <= 0) {
            return last == '\n';
        }
        last = data[count - 1];
    }
}

TEST(an_unsent_reply_still_gets_out_after_the_signal)
{
    for (size_t i = 0; i < WAYS; i++) {
        struct server server = start(ways[i]);
        int idle = test_connect_port(server.port), slow = test_connect_port(server.port);
        ask(idle, "hello", 5, PREFIX "hello\n");
        test_send_until_full(slow);
        interrupt(&server);
        test_expect_end(idle);
        eventually(refuses(server.port), 5 * SECOND);
        test_sleep_ns(100000000); /* the reply waits for its reader */
        assert_true(reply_is_whole(slow));
        test_close(slow);
        expect_end(&server.process, 0, 2 * SECOND);
        test_close(idle);
    }
}

TEST(an_unsent_reply_that_nobody_reads_is_given_up_after_five_seconds)
{
    struct server servers[WAYS];
    int clients[WAYS];
    start_all(servers);
    for (size_t i = 0; i < WAYS; i++) {
        clients[i] = test_connect_port(servers[i].port);
        test_send_until_full(clients[i]);
    }
    int64_t signalled = test_now_ns();
    for (size_t i = 0; i < WAYS; i++) {
        interrupt(&servers[i]);
    }
    for (size_t i = 0; i < WAYS; i++) {
        expect_end(&servers[i].process, 0, GRACE + 3 * SECOND);
        assert_true(test_now_ns() - signalled >= GRACE - SECOND / 10);
        test_close(clients[i]);
    }
}

TEST(a_second_signal_ends_it_at_once)
{
    for (size_t i = 0; i < 2 * WAYS; i++) {
        struct server server = start(ways[i / 2]);
        int client = test_connect_port(server.port);
        test_send_until_full(client);
        interrupt(&server);
        eventually(refuses(server.port), 5 * SECOND);
        test_process_signal(&server.process, i % 2 == 0 || !test_has("terminate") ? SIGINT : SIGTERM);
        expect_end(&server.process, 130, 3 * SECOND); /* the first one alone would take five */
        test_close(client);
    }
}

/* ---- surroundings ---- */

TEST(it_works_without_standard_output)
{
    for (int i = 0; i < 2; i++) {
        char address[32];
        uint16_t port = test_free_port();
        snprintf(address, sizeof address, "127.0.0.1:%u", port);
        const char *arguments[] = {"--listen", address, NULL};
        struct server server = {launch(arguments, i == 0 ? TEST_STDOUT_CLOSED : TEST_STDOUT_BROKEN_PIPE), port};
        eventually(!refuses(port), TEST_SOON);
        int client = test_connect_port(port);
        ask(client, "anyone?", 7, PREFIX "anyone?\n");
        interrupt(&server);
        test_expect_end(client);
        test_close(client);
        expect_end(&server.process, 0, 2 * SECOND);
    }
}

TEST(it_listens_on_ipv6)
{
    static const char *const arguments[] = {"--listen", "[::1]:0", NULL};
    int probe = socket(AF_INET6, SOCK_STREAM, 0);
    rouse_address address = {.family = ROUSE_IPV6, .port = 1, .bytes = {[15] = 1}};
    if (probe >= 0) {
        close(probe);
    }
    if (probe < 0 || test_try_connect(&address, SECOND) != -ECONNREFUSED) {
        test_skip("the port is taken, or there is no IPv6");
    }
    struct server server = start(arguments);
    address.port = server.port;
    int client = test_connect(&address);
    ask(client, "six", 3, PREFIX "six\n");
    test_close(client);
    stop(&server);
}

static void expect_one_line_of_error(const char *const *arguments, int status)
{
    test_process process = launch(arguments, TEST_STDOUT_PIPE);
    char output[256], errors[1024];
    int ending = test_process_end(&process, TEST_SOON);
    size_t length = test_read_text(process.errors, errors, sizeof errors);
    require_int(test_read_text(process.output, output, sizeof output), ==, 0);
    require_int(ending, ==, status);
    require(length > 1 && strchr(errors, '\n') == errors + length - 1);
    test_process_forget(&process);
}

TEST(wrong_arguments_are_refused)
{
    static const char *const wrong[][8] = {
        {"--unknown"},
        {"--unknown", "value"},
        {"port"},
        {""},
        {"--listen"},
        {"--listen", ""},
        {"--listen", "127.0.0.1"},
        {"--listen", "127.0.0.1:"},
        {"--listen", "127.0.0.1:65536"},
        {"--listen", "127.0.0.1:-1"},
        {"--listen", "127.0.0.1:80x"},
        {"--listen", "somewhere:80"},
        {"--listen", "1.2.3:80"},
        {"--executor", "double"},
        {"--executor", ""},
        {"--scheduler", "fifo"},
        {"--style", "thread"},
        {"--workers", "0"},
        {"--workers", "-1"},
        {"--workers", "two"},
        {"--workers", "2x"},
        {"--workers", "1025"},
        {"--workers", "99999999999999999999"},
        {"--executor", "single", "--scheduler", "round-robin"},
        {"--scheduler", "work-stealing", "--executor", "single"},
        {"--executor", "single", "--workers", "2"},
        {"--listen", "127.0.0.1:0", "--style"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        expect_one_line_of_error(wrong[i], 2);
    }
}

TEST(an_address_that_cannot_be_had_is_an_error)
{
    char address[32];
    uint16_t port;
    int listener = test_listen(&port, 1);
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    const char *const taken[] = {"--listen", address, NULL};
    static const char *const foreign[] = {"--listen", "192.0.2.1:9000", NULL};
    expect_one_line_of_error(taken, 1);
    expect_one_line_of_error(foreign, 1);
    test_close(listener);
}

TEST(help_is_printed)
{
    static const char *const arguments[] = {"--help", NULL};
    test_process process = launch(arguments, TEST_STDOUT_PIPE);
    char text[4096];
    test_read_text(process.output, text, sizeof text);
    assert_non_null(strstr(text, "usage: poll_server"));
    assert_non_null(strstr(text, "--listen"));
    expect_end(&process, 0, TEST_SOON);
}
