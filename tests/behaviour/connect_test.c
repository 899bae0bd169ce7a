/* Connecting: every outcome is told, a connection that failed is never taken for one that works, nothing is left. */
#include "support/io.h"

static rouse_address target;

static char *text_of(const rouse_address *address)
{
    static _Thread_local char text[ROUSE_ADDRESS_TEXT_MAX];
    require(rouse_address_format(address, text, sizeof text) > 0);
    return text;
}

static ptrdiff_t connect_in(int style, rouse_stream **stream, const rouse_address *address)
{
    rouse_op op;
    rouse_connect_init(&op, stream, address);
    return answer_of(&op, style);
}

/* ---- what works ---- */

static int connect_and_talk(void *listener)
{
    for (int style = 0; style < STYLES; style++) {
        rouse_stream *stream = NULL;
        rouse_address ours, theirs;
        int no_delay = -1;
        intptr_t descriptor;
        require_int(connect_in(style, &stream, &target), ==, ROUSE_OK);
        int peer = test_accept(*(int *)listener);
        require_int(rouse_write_all(stream, "hello", 5, NULL), ==, ROUSE_OK);
        test_expect(peer, "hello");
        require_int(rouse_peer_address(stream, &theirs), ==, ROUSE_OK);
        require_int(rouse_local_address(stream, &ours), ==, ROUSE_OK);
        require(memcmp(&theirs, &target, sizeof theirs) == 0);
        require(ours.family == ROUSE_IPV4 && ours.port != 0 && ours.port != theirs.port);
        require_int(rouse_option_get(stream, ROUSE_OPTION_NO_DELAY, &no_delay), ==, ROUSE_OK);
        require_int(no_delay, ==, 1);
        require_int(rouse_descriptor(stream, &descriptor), ==, ROUSE_OK);
        require(fcntl((int)descriptor, F_GETFD) & FD_CLOEXEC);
        require(!test_has("descriptors") || fcntl((int)descriptor, F_GETFL) & O_NONBLOCK); /* Windows does not tell */
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_close(peer);
    }
    return ROUSE_OK;
}

TEST(a_connection_talks_knows_its_addresses_and_sends_at_once)
{
    uint16_t port;
    test_may_not_repeat("the peer has seen a connection that was given up");
    int listener = test_listen(&port, 8);
    target = test_address(port);
    on_each_executor(connect_and_talk, &listener);
    test_close(listener);
}

TEST(a_plain_thread_connects_too)
{
    uint16_t port;
    int listener = test_listen(&port, 8);
    rouse_stream *stream;
    target = test_address(port);
    assert_int_equal(rouse_connect(&stream, text_of(&target)), ROUSE_OK);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    test_close(listener);
    end_default_runtime();
}

/* ---- what is refused ---- */

static int connect_to_nobody(void *unused)
{
    (void)unused;
    for (uint64_t i = test_scale(200, 10000); i > 0; i--) {
        for (int style = 0; style < STYLES; style++) {
            rouse_stream *stream = (rouse_stream *)1;
            require_int(connect_in(style, &stream, &target), ==, ROUSE_CONNECTION_REFUSED);
            require(stream == NULL);
        }
    }
    return ROUSE_OK;
}

/* corosio#202: the stale writability of a fresh socket was taken for success. */
TEST(a_port_that_nobody_listens_on_refuses_every_time)
{
    target = test_address(test_free_port());
    on_each_executor(connect_to_nobody, NULL);
}

TEST(texts_that_are_no_addresses_are_invalid)
{
    static const char *const texts[] = {
        "",        "localhost:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536",
        "1.2.3:4", " 127.0.0.1:1", "::1:80",    "[::1]",      "[::1%nosuchinterface0]:1"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        rouse_stream *stream = (rouse_stream *)1;
        int wanted = strchr(texts[i], '%') != NULL ? ROUSE_NOT_FOUND : ROUSE_INVALID;
        assert_int_equal(rouse_connect(&stream, texts[i]), wanted);
        assert_null(stream);
    }
    rouse_stream *stream;
    assert_int_equal(rouse_connect(&stream, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_connect(NULL, "127.0.0.1:1"), ROUSE_INVALID);
}

static int connect_wrongly(void *unused)
{
    rouse_op op;
    rouse_stream *stream = NULL;
    rouse_address unknown = target;
    (void)unused;
    unknown.family = 5;
    require_int(connect_in(IN_FIBER, &stream, &unknown), ==, ROUSE_INVALID);
    rouse_connect_init(&op, NULL, &target);
    require_int(rouse_op_await(&op), ==, ROUSE_INVALID);
    rouse_connect_init(&op, &stream, NULL);
    require_int(rouse_op_await(&op), ==, ROUSE_INVALID);
    return ROUSE_OK;
}

TEST(arguments_that_are_missing_or_unknown_are_invalid)
{
    target = test_address(1);
    on_each_executor(connect_wrongly, NULL);
}

static const struct {
    int error;
    int status;
} refusals[] = {
    {ECONNREFUSED, ROUSE_CONNECTION_REFUSED},
    {ENETUNREACH, ROUSE_NETWORK_UNREACHABLE},
    {EHOSTUNREACH, ROUSE_HOST_UNREACHABLE},
    {ETIMEDOUT, ROUSE_TIMED_OUT},
    {EADDRNOTAVAIL, ROUSE_ADDRESS_NOT_AVAILABLE},
    {EAGAIN, ROUSE_ADDRESS_NOT_AVAILABLE},
    {EACCES, ROUSE_PERMISSION_DENIED},
    {EPERM, ROUSE_PERMISSION_DENIED},
    {ENETDOWN, ROUSE_NETWORK_DOWN},
    {ECONNRESET, ROUSE_CONNECTION_RESET},
    {EINVAL, ROUSE_INVALID}, /* OpenBSD: of an address that nobody can have, 0.0.0.0 for example */
};

static int connect_to_trouble(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        for (int style = 0; style < STYLES; style++) {
            rouse_stream *stream = (rouse_stream *)1;
            faults_syscall("connect", 1, refusals[i].error, 1);
            require_int(connect_in(style, &stream, &target), ==, refusals[i].status);
            require(stream == NULL);
        }
    }
    return ROUSE_OK;
}

TEST(every_reason_for_not_connecting_is_told)
{
    test_needs("faults");
    target = test_address(test_free_port());
    on_each_executor(connect_to_trouble, NULL);
}

static int connect_although(void *listener)
{
    static const int errors[] = {EINTR, EINPROGRESS};
    for (int i = 0; i < 4; i++) {
        rouse_stream *stream = NULL;
        faults_syscall("connect", 1, errors[i % 2], 1);
        require_int(connect_in(i / 2, &stream, &target), ==, ROUSE_OK);
        int peer = test_accept(*(int *)listener);
        require_int(rouse_write_all(stream, "x", 1, NULL), ==, ROUSE_OK);
        test_expect(peer, "x");
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_close(peer);
    }
    return ROUSE_OK;
}

TEST(a_connection_that_is_made_later_is_waited_for)
{
    test_needs("faults");
    uint16_t port;
    test_may_not_repeat("the peer has seen a connection that was given up");
    int listener = test_listen(&port, 8);
    target = test_address(port);
    on_each_executor(connect_although, &listener);
    test_close(listener);
}

static int refuse_later(void *unused)
{
    (void)unused;
    for (int style = 0; style < STYLES; style++) {
        rouse_stream *stream = NULL;
        faults_syscall("connect", 1, EINPROGRESS, 1);
        require_int(connect_in(style, &stream, &target), ==, ROUSE_CONNECTION_REFUSED);
        require(stream == NULL);
    }
    return ROUSE_OK;
}

TEST(a_refusal_that_comes_later_is_told)
{
    test_needs("faults");
    target = test_address(test_free_port());
    on_each_executor(refuse_later, NULL);
}

/* libuv#5086: a getsockopt that fails was taken for success. */
static int fail_to_ask(void *unused)
{
    rouse_stream *stream = NULL;
    (void)unused;
    faults_syscall("connect", 1, EINPROGRESS, 1);
    faults_syscall("getsockopt", 1, ENOBUFS, FAULTS_ALWAYS);
    int status = (int)connect_in(IN_FIBER, &stream, &target);
    faults_reset();
    require_int(status, ==, ROUSE_NO_BUFFERS);
    require(stream == NULL);
    return ROUSE_OK;
}

TEST(an_outcome_that_cannot_be_learnt_is_a_failure)
{
    test_needs("faults");
    uint16_t port;
    int listener = test_listen(&port, 64);
    target = test_address(port);
    on_each_executor(fail_to_ask, NULL);
    test_close(listener);
}

/* The connection is made between two of the questions that find out whether it is. */
static int decide_in_between(void *listener)
{
    for (int style = 0; style < STYLES; style++) {
        rouse_stream *stream = NULL;
        faults_syscall("connect", 1, EINPROGRESS, 1);
        faults_syscall("getpeername", 1, ENOTCONN, 1);
        require_int(connect_in(style, &stream, &target), ==, ROUSE_OK);
        test_close(test_accept(*(int *)listener));
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(a_connection_that_is_made_while_it_is_asked_for_is_not_taken_for_a_failure)
{
    test_needs("faults");
    uint16_t port;
    int listener = test_listen(&port, 8);
    target = test_address(port);
    on_each_executor(decide_in_between, &listener);
    test_close(listener);
}

/* ---- connections that take their time: a listener whose queue is full ---- */

enum { IN_THE_QUEUE = 8 };
static struct {
    int listener, clients[IN_THE_QUEUE];
    int count;
} full;

/* The system drops what knocks at a full queue, so that connecting goes on and on. */
static void fill_the_queue(void)
{
    uint16_t port;
    full.listener = test_listen(&port, 0);
    target = test_address(port);
    for (full.count = 0; full.count < IN_THE_QUEUE; full.count++) {
        full.clients[full.count] = test_try_connect(&target, INT64_C(50000000));
        if (full.clients[full.count] < 0)
            break;
    }
    assert_true(full.count < IN_THE_QUEUE);
}

static void empty_the_queue(void)
{
    for (int i = 0; i < full.count; i++)
        test_close(full.clients[i]);
    test_close(full.listener);
}

static int connect_under_a_deadline(void *unused)
{
    (void)unused;
    rouse_deadline deadline = {{0}};
    rouse_stream *stream = NULL;
    int64_t start = rouse_now();
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(20))), ==, ROUSE_OK);
    require_int(connect_in(IN_FIBER, &stream, &target), ==, ROUSE_TIMED_OUT);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    require(stream == NULL);
    require(rouse_now() - start >= ROUSE_MS(20));
    return ROUSE_OK;
}

TEST(connecting_ends_at_its_deadline)
{
    fill_the_queue();
    on_each_executor(connect_under_a_deadline, NULL);
    empty_the_queue();
}

static int connect_until_cancelled(void *unused)
{
    rouse_stream *stream = NULL;
    (void)unused;
    require_int(connect_in(IN_FIBER, &stream, &target), ==, ROUSE_CANCELLED);
    require(stream == NULL);
    return ROUSE_OK;
}

static int cancel_connects(void *unused)
{
    rouse_scope scope;
    rouse_task task;
    rouse_op op;
    rouse_stream *stream;
    (void)unused;
    rouse_connect_init(&op, &stream, &target);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(connect_until_cancelled, NULL), ==, ROUSE_OK);
    require_int(rouse_scope_spawn(&scope, &task, &op_task, &op), ==, ROUSE_OK);
    for (int i = 0; i < 5; i++)
        require_int(rouse_yield(), ==, ROUSE_OK);
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
    int status = rouse_scope_close(&scope);
    rouse_detach(&task);
    return status;
}

TEST(connecting_can_be_cancelled_and_leaves_no_socket)
{
    fill_the_queue();
    on_each_executor(cancel_connects, NULL);
    empty_the_queue();
}

TEST(an_operation_taken_back_leaves_no_socket)
{
    struct hand connecting;
    rouse_stream *stream = (rouse_stream *)1;
    fill_the_queue();
    hand_init(&connecting);
    int before = test_descriptor_count();
    rouse_connect_init(&connecting.op, &stream, &target);
    assert_null(stream);
    assert_int_equal(hand_poll(&connecting), ROUSE_PENDING);
    for (int i = 0; i < 5; i++)
        assert_int_equal(hand_poll(&connecting), ROUSE_PENDING); /* spuriously */
    assert_int_equal(rouse_op_cancel(&connecting.op), ROUSE_OP_IDLE);
    end_default_runtime();
    assert_int_equal(test_descriptor_count(), before);
    assert_null(stream);
    hand_fini(&connecting);
    empty_the_queue();
}

/* golang/go#14548: a connection that was not made yet was taken for one because of a wake that meant nothing. */
TEST(a_wake_that_means_nothing_does_not_end_connecting)
{
    struct hand connecting;
    rouse_stream *stream;
    fill_the_queue();
    hand_init(&connecting);
    rouse_connect_init(&connecting.op, &stream, &target);
    for (int i = 0; i < 100; i++)
        assert_int_equal(hand_poll(&connecting), ROUSE_PENDING);
    /* A place in the queue: the system tries again after a second at the latest. */
    test_close(test_accept(full.listener));
    assert_int_equal(hand_finish(&connecting), ROUSE_OK);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    hand_fini(&connecting);
    end_default_runtime();
    empty_the_queue();
}

/* bun#32257: the first candidate is refused, the second one works. */
static int try_two(void *listener)
{
    rouse_stream *stream = NULL;
    rouse_address nobody = test_address(test_free_port());
    require_int(rouse_connect(&stream, text_of(&nobody)), ==, ROUSE_CONNECTION_REFUSED);
    require(stream == NULL);
    require_int(rouse_connect(&stream, text_of(&target)), ==, ROUSE_OK);
    test_close(test_accept(*(int *)listener));
    return rouse_close(stream);
}

TEST(after_a_refusal_the_next_candidate_is_connected)
{
    uint16_t port;
    int listener = test_listen(&port, 8);
    target = test_address(port);
    on_each_executor(try_two, &listener);
    test_close(listener);
}

TEST(an_unconnected_socket_that_is_adopted_reports_errors_and_not_success)
{
    char byte = 0;
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    rouse_stream *stream = adopted(descriptor);
    rouse_address address;
    ptrdiff_t answer;
    test_call(answer, rouse_write(stream, "x", 1)); /* systems differ, and Wine from both */
    assert_true(answer == ROUSE_BROKEN_PIPE || answer == ROUSE_NOT_CONNECTED || answer == ROUSE_CONNECTION_RESET);
    assert_int_equal(rouse_read(stream, &byte, 1), ROUSE_NOT_CONNECTED);
    assert_int_equal(rouse_peer_address(stream, &address), ROUSE_NOT_CONNECTED);
    assert_int_equal(rouse_shutdown(stream, ROUSE_SHUTDOWN_WRITE), ROUSE_NOT_CONNECTED);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    end_default_runtime();
}

static int look_at_nothing(void *unused)
{
    rouse_deadline deadline = {{0}};
    rouse_stream *stream = NULL;
    (void)unused;
    faults_reset();
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(test_is_slow() ? 500 : 20))), ==, ROUSE_OK);
    require_int(rouse_connect(&stream, text_of(&target)), ==, ROUSE_TIMED_OUT);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    require_int(faults_syscall_count("connect"), >=, 1);
    require_int(faults_syscall_count("getsockopt"), ==, 0);
    require_int(faults_syscall_count("getpeername"), ==, 0);
    require_int(faults_syscall_count("poll"), ==, 0);
    return ROUSE_OK;
}

TEST(a_connection_that_is_being_made_is_not_looked_at_before_an_event_comes)
{
    test_needs("faults");
    fill_the_queue();
    on_each_executor(look_at_nothing, NULL);
    empty_the_queue();
}
