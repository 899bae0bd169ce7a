/* Closing: old handles are statuses, whoever waits is woken, and nothing of the old stream reaches a new one. */
#include "support/io.h"

static char byte;

static void close_it(void *stream)
{
    require_int(rouse_close(stream), ==, ROUSE_OK);
}

TEST(every_call_on_a_closed_stream_says_so)
{
    int peer, value;
    rouse_address address;
    intptr_t descriptor;
    size_t done = 7;
    rouse_buffer piece = {&byte, 1};
    rouse_stream *stream = tcp_stream(&peer);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    assert_int_equal(rouse_close(stream), ROUSE_CLOSED);
    assert_int_equal(rouse_read(stream, &byte, 1), ROUSE_CLOSED);
    assert_int_equal(rouse_write(stream, &byte, 1), ROUSE_CLOSED);
    assert_int_equal(rouse_peek(stream, &byte, 1), ROUSE_CLOSED);
    assert_int_equal(rouse_readv(stream, &piece, 1), ROUSE_CLOSED);
    assert_int_equal(rouse_writev(stream, &piece, 1), ROUSE_CLOSED);
    assert_int_equal(rouse_read_exact(stream, &byte, 1, &done), ROUSE_CLOSED);
    assert_int_equal(done, 0);
    done = 7;
    assert_int_equal(rouse_write_all(stream, &byte, 1, &done), ROUSE_CLOSED);
    assert_int_equal(done, 0);
    assert_int_equal(rouse_shutdown(stream, ROUSE_SHUTDOWN_WRITE), ROUSE_CLOSED);
    assert_int_equal(rouse_release(stream, &descriptor), ROUSE_CLOSED);
    assert_int_equal(rouse_descriptor(stream, &descriptor), ROUSE_CLOSED);
    assert_int_equal(rouse_wait_ready(stream, ROUSE_READABLE), ROUSE_CLOSED);
    assert_int_equal(rouse_local_address(stream, &address), ROUSE_CLOSED);
    assert_int_equal(rouse_peer_address(stream, &address), ROUSE_CLOSED);
    assert_int_equal(rouse_option_set(stream, ROUSE_OPTION_NO_DELAY, 1), ROUSE_CLOSED);
    assert_int_equal(rouse_option_get(stream, ROUSE_OPTION_NO_DELAY, &value), ROUSE_CLOSED);
    test_close(peer);
    end_default_runtime();
}

TEST(handles_that_never_were_are_closed)
{
    static const uintptr_t handles[] = {0, 1, 4711, 0x400001, UINTPTR_MAX, UINTPTR_MAX - 1, (uintptr_t)1 << 22};
    rouse_stream *stream;
    for (size_t i = 0; i < sizeof handles / sizeof handles[0]; i++) {
        rouse_stream *never = (rouse_stream *)handles[i];
        assert_int_equal(rouse_close(never), ROUSE_CLOSED);
        assert_int_equal(rouse_shutdown(never, ROUSE_SHUTDOWN_BOTH), ROUSE_CLOSED);
        assert_int_equal(rouse_read(never, &byte, 1), ROUSE_CLOSED);
        assert_int_equal(rouse_listener_close((rouse_listener *)never), ROUSE_CLOSED);
        assert_int_equal(rouse_accept((rouse_listener *)never, &stream, NULL), ROUSE_CLOSED);
    }
    end_default_runtime();
}

/* ---- who waits is woken ---- */

enum { MANY = 100 }; /* more than are woken under one hold of the slot's lock */

TEST(closing_wakes_a_hundred_readers_and_a_hundred_writers)
{
    int peer;
    static struct hand readers[MANY], writers[MANY];
    rouse_stream *stream = full_stream(&peer);
    for (int i = 0; i < MANY; i++) {
        hand_init(&readers[i]);
        hand_init(&writers[i]);
        rouse_read_init(&readers[i].op, stream, &byte, 1);
        rouse_write_init(&writers[i].op, stream, &byte, 1);
        assert_int_equal(hand_poll(&readers[i]), ROUSE_PENDING);
        assert_int_equal(hand_poll(&writers[i]), ROUSE_PENDING);
    }
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    for (int i = 0; i < MANY; i++) {
        hand_await_wakes(&readers[i], 1);
        hand_await_wakes(&writers[i], 1);
        assert_int_equal(hand_poll(&readers[i]), ROUSE_CLOSED);
        assert_int_equal(hand_poll(&writers[i]), ROUSE_CLOSED);
        hand_fini(&readers[i]);
        hand_fini(&writers[i]);
    }
    test_close(peer);
    end_default_runtime();
}

/* A waker that polls another operation: the one that waits last. */
static struct hand last_waiter;
static ptrdiff_t answer_of_last;

static rouse_waker meddler_clone(void *data);
static void meddler_wake(void *data)
{
    (void)data;
    if (answer_of_last == 0) {
        answer_of_last = hand_poll(&last_waiter);
        memset(&last_waiter.op, 0x5a, sizeof last_waiter.op); /* it is finished: its memory is ours */
    }
}

static void meddler_drop(void *data)
{
    (void)data;
}

static const rouse_waker_table meddler_table = {meddler_clone, meddler_wake, meddler_wake, meddler_drop};

static rouse_waker meddler_clone(void *data)
{
    return (rouse_waker){data, &meddler_table};
}

/* Closing lets the lock go after each batch of waiters. One that is polled in between for a reason of its own is
 * finished, and must not be found on the list any more. */
TEST(a_waiter_that_is_polled_while_others_are_woken_by_a_close_is_let_go)
{
    int peer;
    static struct hand hands[MANY];
    rouse_stream *stream = tcp_stream(&peer);
    rouse_op meddling;
    rouse_waker waker = {&answer_of_last, &meddler_table};
    rouse_context context;
    rouse_context_init(&context, &waker);
    answer_of_last = 0;
    rouse_read_init(&meddling, stream, &byte, 1);
    assert_int_equal(rouse_op_poll(&meddling, &context), ROUSE_PENDING);
    for (int i = 0; i < MANY; i++) {
        hand_init(&hands[i]);
        rouse_read_init(&hands[i].op, stream, &byte, 1);
        assert_int_equal(hand_poll(&hands[i]), ROUSE_PENDING);
    }
    hand_init(&last_waiter);
    rouse_read_init(&last_waiter.op, stream, &byte, 1);
    assert_int_equal(hand_poll(&last_waiter), ROUSE_PENDING);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    assert_int_equal(answer_of_last, ROUSE_CLOSED);
    assert_int_equal(rouse_op_poll(&meddling, &context), ROUSE_CLOSED);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(hand_poll(&hands[i]), ROUSE_CLOSED);
        hand_fini(&hands[i]);
    }
    hand_fini(&last_waiter);
    test_close(peer);
    end_default_runtime();
}

TEST(a_waiter_may_be_cancelled_by_the_wake_of_another_while_a_close_is_in_progress)
{
    int peer;
    static struct hand hands[MANY];
    rouse_stream *stream = tcp_stream(&peer);
    for (int i = 0; i < MANY; i++) {
        hand_init(&hands[i]);
        rouse_read_init(&hands[i].op, stream, &byte, 1);
        assert_int_equal(hand_poll(&hands[i]), ROUSE_PENDING);
    }
    test_thread thread;
    test_thread_start(&thread, close_it, stream);
    for (int i = MANY - 1; i >= 0; i--)
        assert_int_equal(rouse_op_cancel(&hands[i].op), ROUSE_OP_IDLE);
    test_thread_join(&thread, TEST_SOON);
    for (int i = 0; i < MANY; i++)
        hand_fini(&hands[i]);
    test_close(peer);
    end_default_runtime();
}

/* ---- in tasks and fibers ---- */

static rouse_stream *shared_stream;

static int read_until_closed(void *style)
{
    char data[16];
    rouse_op op;
    rouse_read_init(&op, shared_stream, data, sizeof data);
    return answer_of(&op, (int)(intptr_t)style) == ROUSE_CLOSED ? ROUSE_OK : ROUSE_FAILED;
}

static int close_shared(void *unused)
{
    (void)unused;
    return rouse_close(shared_stream);
}

static int close_under_readers(void *peer)
{
    rouse_scope scope;
    shared_stream = tcp_stream(peer);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (int i = 0; i < 50; i++)
        require_int(rouse_go(read_until_closed, (void *)(intptr_t)(i % STYLES)), ==, ROUSE_OK);
    for (int i = 0; i < 10; i++)
        require_int(rouse_yield(), ==, ROUSE_OK);
    require_int(rouse_go(close_shared, NULL), ==, ROUSE_OK);
    int status = rouse_scope_close(&scope);
    test_close(*(int *)peer);
    return status;
}

TEST(fifty_readers_learn_of_a_close_by_another)
{
    int peer;
    for (uint64_t i = test_scale(20, 2000); i > 0; i--)
        on_each_executor(close_under_readers, &peer);
}

static int read_under_a_foreign_close(void *unused)
{
    (void)unused;
    for (uint64_t i = test_scale(50, 5000); i > 0; i--) {
        int peer;
        test_thread thread;
        rouse_stream *stream = accepted_stream(&peer);
        test_thread_start(&thread, close_it, stream);
        require_int(rouse_read(stream, &byte, 1), ==, ROUSE_CLOSED);
        test_thread_join(&thread, TEST_SOON);
        test_expect_end(peer);
        test_close(peer);
    }
    return ROUSE_OK;
}

TEST(a_close_by_a_foreign_thread_ends_a_read)
{
    on_each_executor(read_under_a_foreign_close, NULL);
}

static atomic_int closes_that_worked;

static void race_to_close(void *stream)
{
    int status = rouse_close(stream);
    require(status == ROUSE_OK || status == ROUSE_CLOSED);
    if (status == ROUSE_OK)
        atomic_fetch_add(&closes_that_worked, 1);
}

TEST(of_several_closes_at_once_one_works)
{
    int rounds = (int)test_scale(50, 5000);
    for (int i = 0; i < rounds; i++) {
        int peer;
        test_thread threads[3];
        rouse_stream *stream = tcp_stream(&peer);
        for (int k = 0; k < 3; k++)
            test_thread_start(&threads[k], race_to_close, stream);
        for (int k = 0; k < 3; k++)
            test_thread_join(&threads[k], TEST_SOON);
        test_expect_end(peer);
        test_close(peer);
    }
    assert_int_equal(atomic_load(&closes_that_worked), rounds);
}

TEST(a_close_that_the_system_interrupts_is_not_repeated)
{
#if FAULTS_AVAILABLE
    static const int errors[] = {EINTR, EIO, ENOSPC, EDQUOT};
    for (size_t i = 0; i < 4; i++) {
        int peer;
        rouse_stream *stream = tcp_stream(&peer);
        faults_reset();
        faults_syscall("close", 1, errors[i], FAULTS_ALWAYS);
        assert_int_equal(rouse_close(stream), ROUSE_OK);
        assert_int_equal(faults_syscall_count("close"), 1);
        faults_reset();
        test_expect_end(peer);
        test_close(peer);
    }
#endif
}

TEST(closing_needs_no_memory)
{
    int peer;
    struct hand waiting;
    hand_init(&waiting);
    rouse_stream *stream = tcp_stream(&peer);
    rouse_read_init(&waiting.op, stream, &byte, 1);
    assert_int_equal(hand_poll(&waiting), ROUSE_PENDING);
    faults_forbid_alloc(true);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    assert_int_equal(hand_poll(&waiting), ROUSE_CLOSED);
    faults_forbid_alloc(false);
    hand_fini(&waiting);
    test_close(peer);
    end_default_runtime();
}
