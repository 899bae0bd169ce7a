/* Reading and writing: counts, ends, errors, and what is told of them, on every executor and in both styles. */
#include "support/io.h"

#include <signal.h>

static ptrdiff_t read_in(int style, rouse_stream *stream, void *data, size_t length)
{
    rouse_op op;
    rouse_read_init(&op, stream, data, length);
    return answer_of(&op, style);
}

static ptrdiff_t write_in(int style, rouse_stream *stream, const void *data, size_t length)
{
    rouse_op op;
    rouse_write_init(&op, stream, data, length);
    return answer_of(&op, style);
}

static rouse_stream *(*const makers[])(int *peer) = {tcp_stream, unix_stream, accepted_stream};
enum { MAKERS = 3 };

/* ---- bytes ---- */

static int echo_some(void *unused)
{
    (void)unused;
    for (int i = 0; i < MAKERS * STYLES; i++) {
        int peer, style = i / MAKERS;
        char data[64];
        rouse_stream *stream = makers[i % MAKERS](&peer);
        require_int(write_in(style, stream, "hello", 5), ==, 5);
        test_expect(peer, "hello");
        test_send_all(peer, "abcdefgh", 8);
        require_int(read_in(style, stream, data, 3), ==, 3);
        require_int(read_in(style, stream, data + 3, sizeof data - 3), ==, 5);
        require(memcmp(data, "abcdefgh", 8) == 0);
        test_half_close(peer);
        for (int k = 0; k < 3; k++)
            require_int(read_in(style, stream, data, sizeof data), ==, 0);
        require_int(write_in(style, stream, "still", 5), ==, 5);
        test_expect(peer, "still");
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_expect_end(peer);
        test_close(peer);
    }
    return ROUSE_OK;
}

TEST(bytes_go_both_ways_and_the_end_stays_the_end)
{
    on_each_executor(echo_some, NULL);
}

enum { BULK = 300000 };
static char sent[BULK], got[BULK];

static void fill_bulk(void)
{
    uint32_t state = 12345;
    for (int i = 0; i < BULK; i++) {
        state = state * 1103515245 + 12345;
        sent[i] = (char)(state >> 16);
    }
}

static void read_all_slowly(void *peer)
{
    size_t total = 0;
    while (total < BULK) {
        ptrdiff_t count = test_receive(*(int *)peer, got + total, total % 2 == 0 ? 1000 : 7777, TEST_SOON);
        require_int(count, >, 0);
        total += (size_t)count;
    }
}

static int write_bulk(void *unused)
{
    (void)unused;
    for (int i = 0; i < MAKERS * STYLES; i++) {
        int peer;
        size_t done = 0;
        rouse_op op;
        test_thread reader;
        rouse_stream *stream = makers[i % MAKERS](&peer);
        memset(got, 0, sizeof got);
        test_thread_start(&reader, read_all_slowly, &peer);
        rouse_write_all_init(&op, stream, sent, BULK, &done);
        require_int(answer_of(&op, i / MAKERS), ==, ROUSE_OK);
        require_int(done, ==, BULK);
        test_thread_join(&reader, TEST_SOON);
        require(memcmp(sent, got, BULK) == 0);
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_close(peer);
    }
    return ROUSE_OK;
}

TEST(write_all_writes_all_to_a_slow_reader)
{
    fill_bulk();
    on_each_executor(write_bulk, NULL);
}

static void send_bulk(void *peer)
{
    test_send_all(*(int *)peer, sent, BULK);
}

static int read_bulk(void *unused)
{
    (void)unused;
    for (int i = 0; i < MAKERS * STYLES; i++) {
        int peer;
        size_t done = 0;
        rouse_op op;
        test_thread writer;
        rouse_stream *stream = makers[i % MAKERS](&peer);
        memset(got, 0, sizeof got);
        test_thread_start(&writer, send_bulk, &peer);
        rouse_read_exact_init(&op, stream, got, BULK, &done);
        require_int(answer_of(&op, i / MAKERS), ==, ROUSE_OK);
        require_int(done, ==, BULK);
        test_thread_join(&writer, TEST_SOON);
        require(memcmp(sent, got, BULK) == 0);
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_close(peer);
    }
    return ROUSE_OK;
}

TEST(read_exact_reads_exactly_so_many)
{
    fill_bulk();
    on_each_executor(read_bulk, NULL);
}

static int move_in_tiny_steps(void *unused)
{
    static const char *const names[] = {"read", "write", "recv", "send", "readv", "writev", "recvmsg", "sendmsg"};
    (void)unused;
    for (int i = 0; i < 3; i++) {
        int peer;
        size_t done = 0;
        rouse_stream *stream = unix_stream(&peer); /* with TCP the system does not do that unless there is no more */
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
            faults_clamp(names[k], 3);
        require_int(rouse_write_all(stream, sent, 300, &done), ==, ROUSE_OK);
        require_int(done, ==, 300);
        test_expect_bytes(peer, sent, 300);
        test_send_all(peer, sent, 300);
        require_int(rouse_read_exact(stream, got, 300, &done), ==, ROUSE_OK);
        require_int(done, ==, 300);
        require(memcmp(sent, got, 300) == 0);
        faults_reset();
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_close(peer);
    }
    return ROUSE_OK;
}

TEST(calls_that_move_a_byte_or_three_at_a_time_move_all)
{
    test_needs("faults");
    fill_bulk();
    on_each_executor(move_in_tiny_steps, NULL);
}

/* ---- ends ---- */

static int end_in_the_middle(void *unused)
{
    (void)unused;
    for (int style = 0; style < STYLES; style++) {
        int peer;
        char data[10];
        size_t done = 99;
        rouse_op op;
        rouse_stream *stream = tcp_stream(&peer);
        test_send_all(peer, "abcd", 4);
        test_close(peer);
        rouse_read_exact_init(&op, stream, data, sizeof data, &done);
        require_int(answer_of(&op, style), ==, ROUSE_END_OF_STREAM);
        require_int(done, ==, 4);
        require(memcmp(data, "abcd", 4) == 0);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(a_stream_that_ends_too_soon_says_how_far_it_came)
{
    on_each_executor(end_in_the_middle, NULL);
}

/* libevent, netty#4317, dotnet/runtime#38747: the end that comes together with the data hid one or the other. */
static void send_and_close(void *argument)
{
    int peer = *(int *)argument;
    test_send_all(peer, sent, 65536);
    test_close(peer);
}

static int read_to_the_end(rouse_stream *stream, size_t piece)
{
    size_t total = 0;
    ptrdiff_t count;
    while ((count = rouse_read(stream, got + total, piece)) > 0)
        total += (size_t)count;
    require_int(count, ==, 0);
    return (int)total;
}

static int lose_no_tail(void *unused)
{
    (void)unused;
    for (uint64_t i = test_scale(60, 1000); i > 0; i--) {
        int peer;
        test_thread writer;
        rouse_stream *stream = makers[i % MAKERS](&peer);
        test_thread_start(&writer, send_and_close, &peer);
        require_int(read_to_the_end(stream, i % 2 == 0 ? 4096 : 100000), ==, 65536);
        require(memcmp(sent, got, 65536) == 0);
        test_thread_join(&writer, TEST_SOON);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(the_tail_before_the_end_is_never_lost)
{
    fill_bulk();
    on_each_executor(lose_no_tail, NULL);
}

/* tokio#4840: a short count was taken for "no more", and the end that came with it was never seen. */
static int see_the_end_behind_a_short_count(void *unused)
{
    (void)unused;
    for (uint64_t i = test_scale(100, 10000); i > 0; i--) {
        int peer;
        char data[4096];
        rouse_stream *stream = makers[i % MAKERS](&peer);
        if (i % 2 == 0) { /* attached before, or not */
            rouse_deadline deadline = {{0}};
            require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_US(50))), ==, ROUSE_OK);
            require_int(rouse_read(stream, data, 1), ==, ROUSE_TIMED_OUT);
            require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
        }
        test_send_all(peer, "0123456789", 10);
        if (i % 3 == 0)
            test_half_close(peer);
        else
            test_close(peer);
        size_t total = 0;
        ptrdiff_t count;
        while ((count = rouse_read(stream, data, sizeof data)) > 0)
            total += (size_t)count;
        require_int(count, ==, 0);
        require_int(total, ==, 10);
        require_int(rouse_close(stream), ==, ROUSE_OK);
        if (i % 3 == 0)
            test_close(peer);
    }
    return ROUSE_OK;
}

TEST(the_end_behind_a_short_count_is_seen)
{
    on_each_executor(see_the_end_behind_a_short_count, NULL);
}

/* aws-c-io#642: the last bytes of a connection that is gone are read with small steps. */
static int read_byte_by_byte(void *unused)
{
    (void)unused;
    int peer;
    rouse_stream *stream = tcp_stream(&peer);
    test_send_all(peer, sent, 2000);
    test_close(peer);
    require_int(read_to_the_end(stream, 1), ==, 2000);
    require(memcmp(sent, got, 2000) == 0);
    return rouse_close(stream);
}

TEST(a_reader_of_single_bytes_gets_all_of_a_closed_connection)
{
    fill_bulk();
    on_each_executor(read_byte_by_byte, NULL);
}

/* ---- resets ---- */

/* Systems differ in what they say of a connection after they have told of its reset once. */
static bool is_over(ptrdiff_t answer)
{
    return answer == ROUSE_CONNECTION_RESET || answer == ROUSE_BROKEN_PIPE || answer == ROUSE_NOT_CONNECTED;
}

static int be_reset(void *unused)
{
    (void)unused;
    for (int i = 0; i < 4 * STYLES; i++) {
        int peer, style = i % STYLES, kind = i / STYLES;
        char data[16];
        size_t done = 99;
        rouse_op op;
        rouse_stream *stream = tcp_stream(&peer);
        if (kind >= 2) /* with data that nobody has read yet: the system throws them away */
            test_send_all(peer, "lost", 4);
        test_close_with_reset(peer);
        if (kind % 2 == 0) {
            rouse_read_exact_init(&op, stream, data, sizeof data, &done);
            require_int(answer_of(&op, style), ==, ROUSE_CONNECTION_RESET);
            ptrdiff_t again = read_in(style, stream, data, sizeof data);
            require(again == 0 || again == ROUSE_CONNECTION_RESET);
        }
        require(is_over(write_in(style, stream, "x", 1)));
        require(is_over(write_in(style, stream, "x", 1)));
        int status = rouse_shutdown(stream, ROUSE_SHUTDOWN_WRITE);
        require(is_over(status) || status == ROUSE_OK);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

/* SIGPIPE does what it does by default, which is to kill. */
static void on_each_executor_with_sigpipe(rouse_fiber_function *body)
{
    struct sigaction before, plain;
    if (!test_has("signals")) {
        on_each_executor(body, NULL);
        return;
    }
    memset(&plain, 0, sizeof plain);
    plain.sa_handler = SIG_DFL;
    assert_int_equal(sigaction(SIGPIPE, &plain, &before), 0);
    on_each_executor(body, NULL);
    assert_int_equal(sigaction(SIGPIPE, &before, NULL), 0);
}

TEST(a_reset_is_told_to_readers_and_writers_and_kills_nobody)
{
    on_each_executor_with_sigpipe(be_reset);
}

static int reset_it(void *peer)
{
    for (int i = 0; i < 3; i++)
        require_int(rouse_yield(), ==, ROUSE_OK);
    test_close_with_reset(*(int *)peer);
    return ROUSE_OK;
}

static int wait_for_a_reset(void *unused)
{
    (void)unused;
    for (int style = 0; style < STYLES; style++) {
        int peer;
        char byte;
        rouse_scope scope;
        rouse_stream *stream = tcp_stream(&peer);
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        require_int(rouse_go(reset_it, &peer), ==, ROUSE_OK);
        require_int(read_in(style, stream, &byte, 1), ==, ROUSE_CONNECTION_RESET);
        require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(a_reset_ends_a_wait)
{
    on_each_executor(wait_for_a_reset, NULL);
}

/* tokio#2174: the reader of a pipe went away, and the writer was never told. */
static int close_it(void *peer)
{
    for (int i = 0; i < 3; i++)
        require_int(rouse_yield(), ==, ROUSE_OK);
    test_close(*(int *)peer);
    return ROUSE_OK;
}

static int wait_for_a_broken_pipe(void *unused)
{
    (void)unused;
    for (int style = 0; style < STYLES; style++) {
        int ends[2];
        size_t done = 0;
        rouse_op op;
        rouse_scope scope;
        require(pipe2(ends, O_CLOEXEC) == 0);
        rouse_stream *stream = adopted(ends[1]);
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        require_int(rouse_go(close_it, &ends[0]), ==, ROUSE_OK);
        rouse_write_all_init(&op, stream, sent, 70000, &done);
        require_int(answer_of(&op, style), ==, ROUSE_BROKEN_PIPE);
        require(done == 65536 || done == 0); /* the reader may have gone first */
        require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(a_pipe_without_a_reader_ends_the_wait_of_its_writer)
{
    test_needs("descriptors");
    on_each_executor_with_sigpipe(wait_for_a_broken_pipe);
}

/* tokio#3879: the peer of a Unix socket, or the writer of a pipe, goes without having sent anything. */
static int wait_for_the_end(void *unused)
{
    (void)unused;
    for (int i = 0; i < 3 * STYLES; i++) {
        int ends[2];
        char byte;
        rouse_scope scope;
        if (i % 3 == 0 && test_has("descriptors"))
            require(pipe2(ends, O_CLOEXEC) == 0);
        else if (i % 3 == 1)
            require(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
        else
            test_tcp_pair(ends);
        rouse_stream *stream = adopted(ends[0]);
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        require_int(rouse_go(close_it, &ends[1]), ==, ROUSE_OK);
        require_int(read_in(i / 3, stream, &byte, 1), ==, 0);
        require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(an_end_without_data_ends_a_wait)
{
    on_each_executor(wait_for_the_end, NULL);
}

/* mio#939: a half close was taken for a hang-up, and a writer whose buffer was full span. */
static int write_after_a_half_close(void *unused)
{
    int peer;
    char byte;
    size_t done = 0;
    (void)unused;
    rouse_stream *stream = tcp_stream(&peer);
    test_half_close(peer);
    require_int(rouse_read(stream, &byte, 1), ==, 0);
    rouse_deadline deadline = {{0}};
    size_t total = 0;
    int64_t cpu = test_cpu_ns();
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(100))), ==, ROUSE_OK);
    while (rouse_write_all(stream, sent, BULK, &done) == ROUSE_OK)
        total += BULK;
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    total += done;
    if (!test_is_slow())
        require_int(test_cpu_ns() - cpu, <, ROUSE_MS(60));
    require_int(rouse_shutdown(stream, ROUSE_SHUTDOWN_WRITE), ==, ROUSE_OK);
    size_t received = 0;
    ptrdiff_t count;
    while ((count = test_receive(peer, got, BULK, TEST_SOON)) > 0)
        received += (size_t)count;
    require_int(count, ==, 0);
    require_int(received, ==, total);
    test_close(peer);
    return rouse_close(stream);
}

TEST(after_a_half_close_a_full_writer_waits_and_all_it_wrote_arrives)
{
    on_each_executor(write_after_a_half_close, NULL);
}

/* ---- counts of what was cut short ---- */

static int cut_short_by_a_deadline(void *unused)
{
    int peer;
    char data[10];
    size_t done = 0;
    (void)unused;
    rouse_stream *stream = tcp_stream(&peer);
    test_send_all(peer, "abc", 3);
    /* On a slow machine a short deadline passes before the read begins, which then leaves the bytes to the next. */
    for (int64_t span = ROUSE_MS(5); done == 0 && span < ROUSE_S(5); span *= 4) {
        rouse_deadline deadline = {{0}};
        done = 99;
        require_int(rouse_deadline_enter(&deadline, rouse_after(span)), ==, ROUSE_OK);
        require_int(rouse_read_exact(stream, data, sizeof data, &done), ==, ROUSE_TIMED_OUT);
        require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    }
    require_int(done, ==, 3);
    require(memcmp(data, "abc", 3) == 0);
    test_close(peer);
    return rouse_close(stream);
}

TEST(a_deadline_that_cuts_a_read_short_leaves_its_count)
{
    on_each_executor(cut_short_by_a_deadline, NULL);
}

static struct {
    rouse_stream *stream;
    char data[10];
    size_t done;
    int status;
} cut;

static int be_cut(void *unused)
{
    (void)unused;
    cut.status = rouse_read_exact(cut.stream, cut.data, sizeof cut.data, &cut.done);
    return ROUSE_OK;
}

/* Waits until a reader has taken all that has come. */
static void await_empty(rouse_stream *stream)
{
    intptr_t descriptor;
    char byte;
    require_int(rouse_descriptor(stream, &descriptor), ==, ROUSE_OK);
    while (recv((int)descriptor, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
        require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
}

static int cut_short_by_cancelling(void *unused)
{
    int peer;
    (void)unused;
    for (int style = 0; style < STYLES; style++) {
        rouse_scope scope;
        rouse_task task = {NULL};
        rouse_op op;
        memset(&cut, 0, sizeof cut);
        cut.stream = tcp_stream(&peer);
        test_send_all(peer, "abc", 3);
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        rouse_read_exact_init(&op, cut.stream, cut.data, sizeof cut.data, &cut.done);
        if (style == IN_FIBER)
            require_int(rouse_go(be_cut, NULL), ==, ROUSE_OK);
        else
            require_int(rouse_scope_spawn(&scope, &task, &op_task, &op), ==, ROUSE_OK);
        await_empty(cut.stream);
        require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
        (void)rouse_scope_close(&scope);
        rouse_detach(&task);
        if (style == IN_FIBER)
            require_int(cut.status, ==, ROUSE_CANCELLED);
        require_int(cut.done, ==, 3);
        require(memcmp(cut.data, "abc", 3) == 0);
        require_int(rouse_close(cut.stream), ==, ROUSE_OK);
        test_close(peer);
    }
    return ROUSE_OK;
}

TEST(cancelling_that_cuts_a_read_short_leaves_its_count)
{
    on_each_executor(cut_short_by_cancelling, NULL);
}

TEST(an_operation_that_is_taken_back_says_what_it_had_moved)
{
    int peer;
    char data[10];
    size_t done = 99;
    struct hand reading, writing;
    hand_init(&reading);
    hand_init(&writing);
    rouse_stream *stream = tcp_stream(&peer);
    test_send_all(peer, "abc", 3);
    rouse_read_exact_init(&reading.op, stream, data, sizeof data, &done);
    assert_int_equal(done, 0);
    assert_int_equal(hand_poll(&reading), ROUSE_PENDING);
    assert_int_equal(rouse_op_cancel(&reading.op), ROUSE_OP_IDLE);
    assert_int_equal(done, 3);
    fill_bulk();
    char *much = test_memory(64 << 20);
    rouse_write_all_init(&writing.op, stream, much, 64 << 20, &done);
    assert_int_equal(hand_poll(&writing), ROUSE_PENDING);
    assert_int_equal(rouse_op_cancel(&writing.op), ROUSE_OP_IDLE);
    free(much);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    size_t received = 0;
    ptrdiff_t count;
    while ((count = test_receive(peer, got, BULK, TEST_SOON)) > 0)
        received += (size_t)count;
    assert_true(done > 0);
    assert_int_equal(received, done);
    test_close(peer);
    hand_fini(&reading);
    hand_fini(&writing);
    end_default_runtime();
}

/* ---- arguments ---- */

static int pass_odd_arguments(void *unused)
{
    int peer;
    char byte = 0;
    size_t done = 99;
    (void)unused;
    rouse_stream *stream = tcp_stream(&peer);
    require_int(rouse_read(stream, &byte, 0), ==, 0);
    require_int(rouse_read(stream, NULL, 0), ==, 0);
    require_int(rouse_write(stream, NULL, 0), ==, 0);
    require_int(rouse_write_all(stream, NULL, 0, &done), ==, ROUSE_OK);
    require_int(done, ==, 0);
    require_int(rouse_read_exact(stream, NULL, 0, NULL), ==, ROUSE_OK);
    require_int(rouse_read(stream, NULL, 1), ==, ROUSE_INVALID);
    require_int(rouse_write(stream, NULL, 1), ==, ROUSE_INVALID);
    static const size_t huge[] = {SIZE_MAX, SIZE_MAX - 1, (size_t)PTRDIFF_MAX + 1};
    for (int i = 0; i < 3; i++) {
        done = 99;
        require_int(rouse_read(stream, &byte, huge[i]), ==, ROUSE_TOO_LARGE);
        require_int(rouse_write(stream, &byte, huge[i]), ==, ROUSE_TOO_LARGE);
        require_int(rouse_peek(stream, &byte, huge[i]), ==, ROUSE_TOO_LARGE);
        require_int(rouse_read_exact(stream, &byte, huge[i], &done), ==, ROUSE_TOO_LARGE);
        require_int(done, ==, 0);
        require_int(rouse_write_all(stream, &byte, huge[i], &done), ==, ROUSE_TOO_LARGE);
    }
    require_int(rouse_shutdown(stream, 0), ==, ROUSE_INVALID);
    require_int(rouse_shutdown(stream, 4), ==, ROUSE_INVALID);
    require_int(rouse_shutdown(stream, -1), ==, ROUSE_INVALID);
    test_close(peer);
    return rouse_close(stream);
}

TEST(lengths_of_zero_and_lengths_beyond_all_memory_are_answered)
{
    on_each_executor(pass_odd_arguments, NULL);
}

static int peek_and_read(void *unused)
{
    int peer;
    char data[8];
    (void)unused;
    rouse_stream *stream = tcp_stream(&peer);
    test_send_all(peer, "abc", 3);
    for (int i = 0; i < 3; i++) {
        require_int(rouse_peek(stream, data, 2), ==, 2);
        require(memcmp(data, "ab", 2) == 0);
    }
    require_int(rouse_read_exact(stream, data, 3, NULL), ==, ROUSE_OK);
    test_close(peer);
    require_int(rouse_peek(stream, data, 1), ==, 0);
    require_int(rouse_read(stream, data, 1), ==, 0);
    if (test_has("descriptors")) {
        int ends[2];
        require(pipe2(ends, O_CLOEXEC) == 0);
        rouse_stream *reader = adopted(ends[0]);
        require_int(rouse_peek(reader, data, 1), ==, ROUSE_NOT_SUPPORTED);
        require_int(rouse_close(reader), ==, ROUSE_OK);
        test_close(ends[1]);
    }
    return rouse_close(stream);
}

TEST(peeking_leaves_the_bytes)
{
    on_each_executor(peek_and_read, NULL);
}

static int shut_down(void *unused)
{
    int peer;
    char data[8];
    (void)unused;
    rouse_stream *stream = tcp_stream(&peer);
    require_int(rouse_shutdown(stream, ROUSE_SHUTDOWN_WRITE), ==, ROUSE_OK);
    test_expect_end(peer);
    require_int(rouse_write(stream, "x", 1), ==, ROUSE_BROKEN_PIPE);
    test_send_all(peer, "abc", 3);
    require_int(rouse_read_exact(stream, data, 3, NULL), ==, ROUSE_OK);
    require_int(rouse_shutdown(stream, ROUSE_SHUTDOWN_READ), ==, ROUSE_OK);
    require_int(rouse_read(stream, data, 1), ==, 0);
    test_close(peer);
    return rouse_close(stream);
}

TEST(either_direction_can_be_ended_alone)
{
    on_each_executor(shut_down, NULL);
}

/* After urgent data a short count proves nothing: the bytes behind the mark are there already. */
static int read_around_urgent_data(void *unused)
{
    (void)unused;
    for (uint64_t i = test_scale(100, 5000); i > 0; i--) { /* each leaves a port that rests for a minute */
        int peer;
        char data[64];
        size_t total = 0;
        rouse_stream *stream = tcp_stream(&peer);
        rouse_deadline deadline = {{0}};
        require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_US(50))), ==, ROUSE_OK);
        require_int(rouse_read(stream, data, 1), ==, ROUSE_TIMED_OUT);
        require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
        require(send(peer, "before", 6, 0) == 6);
        require(send(peer, "!", 1, MSG_OOB) == 1);
        require(send(peer, "after", 5, 0) == 5);
        while (total < 11) {
            ptrdiff_t count = rouse_read(stream, data + total, sizeof data - total);
            require_int(count, >, 0);
            total += (size_t)count;
        }
        require(memcmp(data, "beforeafter", 11) == 0);
        test_close(peer);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(bytes_behind_urgent_data_are_read)
{
    test_needs("urgent_data");
    on_each_executor(read_around_urgent_data, NULL);
}

/* ---- a reader and a writer at once ---- */

static struct {
    rouse_stream *ends[2];
    uint64_t rounds;
} duplex;

static int pump_out(void *end)
{
    for (uint64_t i = 0; i < duplex.rounds; i++)
        require_int(rouse_write_all(duplex.ends[(intptr_t)end], sent, BULK, NULL), ==, ROUSE_OK);
    return rouse_shutdown(duplex.ends[(intptr_t)end], ROUSE_SHUTDOWN_WRITE);
}

static int pump_in(void *end)
{
    uint64_t total = 0;
    char *data = test_memory(10000);
    ptrdiff_t count;
    while ((count = rouse_read(duplex.ends[(intptr_t)end], data, 10000)) > 0) {
        size_t at = (size_t)(total % BULK), first = BULK - at < (size_t)count ? BULK - at : (size_t)count;
        require(memcmp(data, sent + at, first) == 0);
        require(memcmp(data + first, sent, (size_t)count - first) == 0);
        total += (uint64_t)count;
    }
    free(data);
    require_int(count, ==, 0);
    require_int(total, ==, duplex.rounds * BULK);
    return ROUSE_OK;
}

static int pump_both_ways(void *unused)
{
    int ends[2];
    rouse_scope scope;
    (void)unused;
    test_tcp_pair(ends);
    duplex.rounds = test_scale(10, 1000);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (int i = 0; i < 2; i++)
        duplex.ends[i] = adopted(ends[i]);
    for (intptr_t i = 0; i < 2; i++) {
        require_int(rouse_go(pump_out, (void *)i), ==, ROUSE_OK);
        require_int(rouse_go(pump_in, (void *)i), ==, ROUSE_OK);
    }
    int status = rouse_scope_close(&scope);
    for (int i = 0; i < 2; i++)
        require_int(rouse_close(duplex.ends[i]), ==, ROUSE_OK);
    return status;
}

TEST(a_reader_and_a_writer_share_a_stream_without_loss)
{
    fill_bulk();
    on_each_executor(pump_both_ways, NULL);
}
