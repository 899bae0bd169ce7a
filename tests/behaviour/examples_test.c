/* The small example programs, from outside. Two of them listen on a fixed port: where it is taken their tests are
 * skipped. */
#include "support/harness.h"
#include "support/net.h"
#include "support/process.h"

#include <errno.h>
#include <signal.h>

TEST_FILE_NEEDS(processes)

#if !defined(EXAMPLES_PATH)
#define EXAMPLES_PATH ""
#endif

#define SECOND INT64_C(1000000000)
#define PORT   9000 /* of echo.c and farewell.c */

static test_process launch(const char *name, const char *const *arguments)
{
    test_process process;
    char path[1024];
    if (EXAMPLES_PATH[0] == '\0') {
        test_skip("built without the examples");
    }
    snprintf(path, sizeof path, "%s/%s", EXAMPLES_PATH, name);
    test_process_start(&process, path, arguments, TEST_STDOUT_PIPE);
    return process;
}

static test_process launch_on_port(const char *name)
{
    static const char *const none[] = {NULL};
    rouse_address address = test_address(PORT);
    int other = test_try_connect(&address, SECOND);
    if (other >= 0) {
        test_close(other);
    }
    if (other != -ECONNREFUSED) {
        test_skip("the port is taken");
    }
    test_process process = launch(name, none);
    int client = -1;
    eventually((client = test_try_connect(&address, SECOND)) >= 0, TEST_SOON);
    test_close(client);
    return process;
}

TEST_SERIAL(echo_sends_back_what_comes)
{
    test_process process = launch_on_port("echo");
    int one = test_connect_port(PORT), two = test_connect_port(PORT);
    test_send_all(one, "first", 5);
    test_send_all(two, "second", 6);
    test_expect(two, "second");
    test_expect(one, "first");
    test_half_close(one);
    test_expect_end(one);
    test_close(one);
    test_close(two);
    test_process_signal(&process, SIGKILL); /* it has no other end */
    test_process_end(&process, TEST_SOON);
    test_process_forget(&process);
}

TEST_SERIAL(farewell_says_goodbye)
{
    test_process process = launch_on_port("farewell");
    int one = test_connect_port(PORT), two = test_connect_port(PORT);
    test_send_all(one, "hello", 5);
    test_expect(one, "hello");
    test_send_all(two, "hello", 5);
    test_expect(two, "hello");
    test_process_signal(&process, SIGINT);
    test_expect(one, "goodbye\n");
    test_expect(two, "goodbye\n");
    test_expect_end(one);
    test_expect_end(two);
    test_close(one);
    test_close(two);
    assert_int_equal(test_process_end(&process, 2 * SECOND), 0);
    test_process_forget(&process);
}

TEST(fetches_wait_for_nobody_longer_than_two_seconds)
{
    char addresses[3][32], text[1024];
    uint16_t good_port, hanging_port, refusing_port = test_free_port();
    int good = test_listen(&good_port, 8), hanging = test_listen(&hanging_port, 8);
    snprintf(addresses[0], sizeof addresses[0], "127.0.0.1:%u", hanging_port);
    snprintf(addresses[1], sizeof addresses[1], "127.0.0.1:%u", refusing_port);
    snprintf(addresses[2], sizeof addresses[2], "127.0.0.1:%u", good_port);
    const char *const arguments[] = {addresses[0], addresses[1], addresses[2], NULL};
    int64_t start = test_now_ns();
    test_process process = launch("fetches", arguments);
    int peer = test_accept(good);
    test_expect(peer, "GET / HTTP/1.0\r\n\r\n");
    test_send_all(peer, "page", 4);
    assert_int_equal(test_process_end(&process, 4 * SECOND), 1);
    assert_true(test_now_ns() - start >= 2 * SECOND);
    test_read_text(process.output, text, sizeof text);
    assert_non_null(strstr(text, ": page"));
    assert_non_null(strstr(text, "refused"));
    assert_non_null(strstr(text, "deadline"));
    test_process_forget(&process);
    test_close(peer);
    test_close(good);
    test_close(hanging);
}
