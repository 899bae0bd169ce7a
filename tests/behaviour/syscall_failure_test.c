/* Every system call fails with every error that it may have, at every place, while somebody listens, connects, accepts,
 * echoes and closes: the process lives, each call answers in bounded time, nothing is left, and the library works
 * afterwards. */
#include "support/io.h"

TEST_FILE_NEEDS(faults)

static int echo_once(void *stream)
{
    char data[64];
    ptrdiff_t count = rouse_read(stream, data, sizeof data);
    if (count > 0)
        (void)rouse_write_all(stream, data, (size_t)count, NULL);
    (void)rouse_shutdown(stream, ROUSE_SHUTDOWN_WRITE);
    (void)rouse_close(stream);
    return ROUSE_OK;
}

static int accept_and_echo(void *listener)
{
    rouse_stream *stream;
    int status = rouse_accept(listener, &stream, NULL);
    return status == ROUSE_OK ? echo_once(stream) : status;
}

static int talk(rouse_stream *stream)
{
    char data[64];
    size_t done;
    int status = rouse_write_all(stream, "hello", 5, NULL);
    if (status == ROUSE_OK)
        status = rouse_read_exact(stream, data, 5, &done);
    if (status == ROUSE_OK)
        require(memcmp(data, "hello", 5) == 0);
    return status;
}

/* Answers what the client saw. Under a deadline, because a connection that was lost on the other side is not told; a short
 * one where that may happen, for it is waited for each time. */
static int64_t lossy_ns = ROUSE_MS(300), healthy_ns = ROUSE_S(20);

static int converse(void *span_ns)
{
    rouse_listener *listener;
    rouse_address address;
    char text[ROUSE_ADDRESS_TEXT_MAX];
    rouse_scope scope;
    rouse_stream *stream;
    rouse_deadline deadline = {{0}};
    int status = rouse_listen(&listener, "127.0.0.1:0", NULL);
    if (status != ROUSE_OK)
        return status;
    status = rouse_listener_address(listener, &address);
    if (status != ROUSE_OK) {
        (void)rouse_listener_close(listener);
        return status;
    }
    require(rouse_address_format(&address, text, sizeof text) > 0);
    require_int(rouse_deadline_enter(&deadline, rouse_after(*(int64_t *)span_ns)), ==, ROUSE_OK);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    status = rouse_go(accept_and_echo, listener);
    if (status == ROUSE_OK)
        status = rouse_connect(&stream, text);
    if (status == ROUSE_OK) {
        status = talk(stream);
        (void)rouse_close(stream);
    }
    (void)rouse_scope_cancel(&scope, 0);
    (void)rouse_scope_close(&scope);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    (void)rouse_listener_close(listener);
    return status;
}

static void conversation(void *unused)
{
    rouse_options options = flavour(0);
    (void)unused;
    (void)rouse_run(converse, &lossy_ns, &options);
    bool was_exempt = faults_exempt(true); /* everything runs on this thread */
    require_int(rouse_run(converse, &healthy_ns, &options), ==, ROUSE_OK);
    faults_exempt(was_exempt);
}

/* With threads, which fault injection does not exempt one by one. */
static void conversation_of_threads(void *unused)
{
    rouse_options options = flavour(2);
    (void)unused;
    (void)rouse_run(converse, &lossy_ns, &options);
}

static const struct {
    const char *name;
    int errors[12];
} table[] = {
    {"socket", {EMFILE, ENFILE, ENOBUFS, ENOMEM, EAFNOSUPPORT, EACCES}},
    {"bind", {EADDRINUSE, EACCES, EADDRNOTAVAIL}},
    {"listen", {EADDRINUSE}},
    {"accept4", {EINTR, ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTO, EPERM, EAGAIN}},
    {"connect", {EINTR, EINPROGRESS, ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EAGAIN}},
    {"set_open", {EMFILE, ENFILE, ENOMEM}},
    {"set_change", {ENOMEM, ENOSPC, EPERM, EEXIST, ENOENT, EBADF}},
    {"eventfd", {EMFILE, ENFILE, ENOMEM}},
    {"recv", {EINTR, EAGAIN, ECONNRESET, ETIMEDOUT, EIO}},
    {"send", {EINTR, EAGAIN, EPIPE, ECONNRESET, ENOBUFS, EIO}},
    {"write", {EINTR}},
    {"getsockopt", {ENOBUFS, ENOMEM, ENOPROTOOPT}},
    {"setsockopt", {ENOBUFS, ENOMEM, ENOPROTOOPT}},
    {"getsockname", {ENOTCONN, ENOBUFS}},
    {"getpeername", {ENOTCONN, ENOBUFS}},
    {"shutdown", {ENOTCONN}},
    {"poll", {EINTR, ENOMEM}},
    {"ppoll", {EINTR, EAGAIN, EINVAL, ENOMEM}},
    {"close", {EINTR, EIO, ENOSPC, EDQUOT}},
    {"mmap", {ENOMEM}},
    {"mprotect", {ENOMEM}},
    {"madvise", {EINVAL, ENOMEM, EAGAIN}},
};

static void fail_each(const char *first, const char *last)
{
    bool in = false;
    test_time_limit(200);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        in |= strcmp(table[i].name, first) == 0;
        for (int k = 0; in && k < 12 && table[i].errors[k] != 0; k++)
            test_each_failing_call(table[i].name, table[i].errors[k], conversation, NULL);
        if (in && strcmp(table[i].name, last) == 0)
            return;
    }
    fail();
}

TEST(opening_and_listening_may_fail_at_every_place)
{
    fail_each("socket", "listen");
}

TEST(accepting_and_connecting_may_fail_at_every_place)
{
    fail_each("accept4", "connect");
}

TEST(the_set_of_the_kernel_may_fail_at_every_place)
{
    test_needs("kernel_set");
    fail_each("set_open", "set_change");
}

TEST(waiting_and_waking_may_fail_at_every_place)
{
    fail_each("eventfd", "eventfd");
    fail_each("write", "write");
}

TEST(moving_bytes_may_fail_at_every_place)
{
    fail_each("recv", "send");
}

TEST(questions_and_options_may_fail_at_every_place)
{
    fail_each("getsockopt", "getpeername");
}

TEST(ending_may_fail_at_every_place)
{
    fail_each("shutdown", "close");
}

TEST(memory_for_stacks_may_fail_at_every_place)
{
    fail_each("mmap", "madvise");
}

TEST(every_allocation_of_a_conversation_may_fail)
{
    if (test_is_sanitized())
        return;
    test_time_limit(200);
    assert_true(test_each_failing_allocation(conversation, NULL) > 0);
}

TEST(with_threads_waiting_and_waking_may_fail_at_every_place)
{
    test_time_limit(200);
    test_each_failing_call("pthread_create", EAGAIN, conversation_of_threads, NULL);
    test_each_failing_call("set_open", EMFILE, conversation_of_threads, NULL);
    test_each_failing_call("eventfd", EMFILE, conversation_of_threads, NULL);
    test_each_failing_call("set_change", FAULTS_SET_FULL, conversation_of_threads, NULL);
    test_each_failing_call("write", EINTR, conversation_of_threads, NULL);
    test_each_failing_call("mmap", ENOMEM, conversation_of_threads, NULL);
}

TEST(with_threads_every_allocation_of_a_conversation_may_fail)
{
    if (test_is_sanitized())
        return;
    test_time_limit(200);
    assert_true(test_each_failing_allocation(conversation_of_threads, NULL) > 0);
}

/* Every call that can be interrupted is, fifty times in a row. */
static int converse_often(void *unused)
{
    (void)unused;
    for (uint64_t i = test_scale(20, 1000); i > 0; i--)
        require_int(converse(&healthy_ns), ==, ROUSE_OK);
    return ROUSE_OK;
}

TEST(interruptions_everywhere_change_nothing)
{
    static const char *const names[] = {"accept4", "recv", "send", "poll", "write"};
    for (int i = 0; i < FLAVOURS; i++) {
        rouse_options options = flavour(i);
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
            faults_syscall(names[k], 2, EINTR, 50);
        assert_int_equal(rouse_run(converse_often, NULL, &options), ROUSE_OK);
        faults_reset();
    }
}
