/* NULL where a pointer is expected: a status where one can be answered, else nothing happens. */
#include "support/net.h"
#include "support/runtimes.h"

#include <unistd.h>

static int nothing(void *argument)
{
    (void)argument;
    return 0;
}

static ptrdiff_t poll_once(rouse_op *op)
{
    rouse_context context;
    rouse_context_init(&context, NULL);
    ptrdiff_t answer = rouse_op_poll(op, &context);
    require_int(rouse_op_cancel(op), ==, ROUSE_OP_IDLE);
    return answer;
}

/* ---- wakers, contexts, operations ---- */

TEST(wakers_and_contexts_may_be_null)
{
    rouse_context context;
    rouse_waker none = rouse_waker_clone(NULL);
    assert_null(none.table);
    rouse_waker_wake(NULL);
    rouse_waker_wake_by_ref(NULL);
    rouse_waker_drop(NULL);
    rouse_waker_wake(&none);
    rouse_waker_wake_by_ref(&none);
    rouse_waker_drop(&none);
    rouse_context_init(NULL, NULL);
    rouse_context_init(NULL, &none);
    rouse_context_init(&context, NULL);
    assert_null(context.waker.table);
    assert_null(rouse_waker_clone(&context.waker).table);
}

TEST(preparing_an_operation_without_memory_does_nothing)
{
    rouse_buffer piece = {NULL, 1};
    size_t done = 1;
    rouse_sleep_init(NULL, 0);
    rouse_interval_tick_init(NULL, NULL);
    rouse_join_init(NULL, NULL, NULL);
    rouse_signal_wait_init(NULL, 0);
    rouse_accept_init(NULL, NULL, NULL, NULL);
    rouse_connect_init(NULL, NULL, NULL);
    rouse_read_init(NULL, NULL, NULL, 1);
    rouse_write_init(NULL, NULL, NULL, 1);
    rouse_peek_init(NULL, NULL, NULL, 0);
    rouse_read_exact_init(NULL, NULL, NULL, 1, NULL);
    rouse_write_all_init(NULL, NULL, NULL, 1, &done);
    assert_int_equal(done, 0);
    rouse_readv_init(NULL, NULL, &piece, 1);
    rouse_writev_init(NULL, NULL, NULL, 1);
    rouse_wait_ready_init(NULL, NULL, ROUSE_READABLE);
    assert_int_equal(rouse_op_poll(NULL, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_op_await(NULL), ROUSE_INVALID);
    assert_int_equal(rouse_op_cancel(NULL), ROUSE_OP_IDLE);
}

TEST(operations_on_nothing_answer_why)
{
    rouse_op op;
    rouse_stream *stream;
    rouse_address address = {0};
    rouse_interval unset = {0};
    rouse_sleep_init(&op, 0);
    assert_int_equal(rouse_op_poll(&op, NULL), ROUSE_INVALID);
    rouse_interval_tick_init(&op, NULL);
    assert_int_equal(poll_once(&op), ROUSE_INVALID);
    rouse_interval_tick_init(&op, &unset);
    assert_int_equal(poll_once(&op), ROUSE_INVALID);
    assert_int_equal(rouse_interval_tick(NULL), ROUSE_INVALID);
    assert_int_equal(rouse_interval_tick(&unset), ROUSE_INVALID);
    assert_int_equal(rouse_interval_init(NULL, 0, 1, ROUSE_MISSED_BURST), ROUSE_INVALID);
    rouse_join_init(&op, NULL, NULL);
    assert_int_equal(poll_once(&op), ROUSE_INVALID);
    rouse_accept_init(&op, NULL, NULL, NULL);
    assert_int_equal(poll_once(&op), ROUSE_INVALID);
    rouse_accept_init(&op, NULL, &stream, NULL);
    assert_int_equal(poll_once(&op), ROUSE_CLOSED);
    rouse_connect_init(&op, NULL, &address);
    assert_int_equal(poll_once(&op), ROUSE_INVALID);
    rouse_connect_init(&op, &stream, NULL);
    assert_int_equal(poll_once(&op), ROUSE_INVALID);
    rouse_wait_ready_init(&op, NULL, ROUSE_READABLE);
    assert_int_equal(poll_once(&op), ROUSE_CLOSED);
    assert_int_equal(rouse_default_shutdown(ROUSE_S(10)), ROUSE_OK);
}

/* ---- tasks and runtimes ---- */

TEST(tasks_may_be_null)
{
    const rouse_task_type no_poll = {.name = "none"};
    rouse_task empty = {NULL};
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    assert_int_equal(rouse_spawn_at(&empty, runtime, NULL, NULL, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_spawn_at(NULL, runtime, &no_poll, NULL, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_block_on_at(runtime, NULL, NULL, NULL, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_spawn_fiber_at(&empty, runtime, NULL, NULL, 0, 0, NULL, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_spawn_fiber_at(NULL, runtime, nothing, NULL, 1, 0, NULL, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_spawn_fiber_at(NULL, runtime, nothing, NULL, 0, 0, NULL, NULL), ROUSE_OK);
    assert_int_equal(rouse_go_detached_at(runtime, NULL, NULL, NULL, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_go_at(NULL, NULL, NULL, NULL), ROUSE_NOT_IN_FIBER);
    for (int i = 0; i < 2; i++) {
        rouse_task *task = i == 0 ? NULL : &empty;
        assert_int_equal(rouse_join(task, NULL), ROUSE_INVALID);
        assert_int_equal(rouse_is_finished(task), 0);
        assert_non_null(rouse_task_name(task));
        rouse_abort(task);
        rouse_detach(task);
    }
    test_runtime_end(runtime);
}

TEST(runtimes_may_be_null)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    rouse_runtime_info info = {.size = sizeof info};
    intptr_t descriptor;
    assert_int_equal(rouse_run(NULL, NULL, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_new(NULL, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_shutdown(NULL, 0, NULL, NULL), ROUSE_INVALID);
    rouse_runtime_abandon(NULL);
    assert_int_equal(rouse_runtime_turn(NULL, 0), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_descriptor(NULL, &descriptor), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_descriptor(runtime, NULL), ROUSE_INVALID);
    assert_true(rouse_runtime_deadline(NULL) == ROUSE_NEVER);
    assert_int_equal(rouse_runtime_stats(NULL, &info, NULL, 0), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_stats(runtime, NULL, NULL, 0), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_stats(runtime, &info, NULL, 3), ROUSE_OK);
    assert_null(rouse_result());
    test_runtime_end(runtime);
}

/* ---- what surrounds a task ---- */

static int surround_with_nothing(void *argument)
{
    (void)argument;
    require_int(rouse_go(NULL, NULL), ==, ROUSE_INVALID);
    require_int(rouse_scope_open(NULL), ==, ROUSE_INVALID);
    require_int(rouse_scope_spawn(NULL, NULL, NULL, NULL), ==, ROUSE_INVALID);
    require_int(rouse_scope_cancel(NULL, 0), ==, ROUSE_INVALID);
    require_int(rouse_scope_close(NULL), ==, ROUSE_UNBALANCED);
    require_int(rouse_deadline_enter(NULL, 0), ==, ROUSE_INVALID);
    require_int(rouse_deadline_leave(NULL), ==, ROUSE_UNBALANCED);
    require_int(rouse_shield_enter(NULL, 0), ==, ROUSE_INVALID);
    require_int(rouse_shield_leave(NULL), ==, ROUSE_UNBALANCED);
    rouse_deadline_cancel(NULL);
    rouse_shield_cancel(NULL);
    return 0;
}

TEST(scopes_deadlines_and_shields_may_be_null)
{
    rouse_options options = test_options(TEST_SINGLE, 1);
    assert_int_equal(rouse_run(surround_with_nothing, NULL, &options), 0);
    assert_int_equal(rouse_scope_open(NULL), ROUSE_INVALID);
    assert_int_equal(rouse_scope_close(NULL), ROUSE_NOT_IN_FIBER);
    assert_int_equal(rouse_scope_cancel(NULL, 0), ROUSE_INVALID);
    assert_int_equal(rouse_deadline_enter(NULL, 0), ROUSE_INVALID);
    assert_int_equal(rouse_shield_enter(NULL, 0), ROUSE_INVALID);
    rouse_deadline_cancel(NULL);
    rouse_shield_cancel(NULL);
}

/* ---- streams ---- */

static int use_nothing(void *argument)
{
    rouse_stream *stream, *pipe_end = *(rouse_stream **)argument;
    rouse_buffer piece = {NULL, 1};
    rouse_address address = {0};
    size_t done = 5;
    char byte = 0;
    int value;
    require_int(rouse_read(pipe_end, NULL, 1), ==, ROUSE_INVALID);
    require_int(rouse_write(pipe_end, NULL, 1), ==, ROUSE_INVALID);
    require_int(rouse_peek(pipe_end, NULL, 1), ==, ROUSE_INVALID);
    require_int(rouse_readv(pipe_end, NULL, 1), ==, ROUSE_INVALID);
    require_int(rouse_writev(pipe_end, &piece, 1), ==, ROUSE_INVALID);
    require_int(rouse_write_all(pipe_end, NULL, 1, &done), ==, ROUSE_INVALID);
    require_int(done, ==, 0);
    require_int(rouse_read_exact(pipe_end, NULL, 1, NULL), ==, ROUSE_INVALID);
    require_int(rouse_descriptor(pipe_end, NULL), ==, ROUSE_INVALID);
    require_int(rouse_release(pipe_end, NULL), ==, ROUSE_INVALID);
    require_int(rouse_local_address(pipe_end, NULL), ==, ROUSE_INVALID);
    require_int(rouse_peer_address(pipe_end, NULL), ==, ROUSE_INVALID);
    require_int(rouse_option_get(pipe_end, ROUSE_OPTION_NO_DELAY, NULL), ==, ROUSE_INVALID);
    require_int(rouse_read(NULL, &byte, 1), ==, ROUSE_CLOSED);
    require_int(rouse_write(NULL, &byte, 1), ==, ROUSE_CLOSED);
    require_int(rouse_peek(NULL, &byte, 1), ==, ROUSE_CLOSED);
    require_int(rouse_shutdown(NULL, ROUSE_SHUTDOWN_WRITE), ==, ROUSE_CLOSED);
    require_int(rouse_wait_ready(NULL, ROUSE_READABLE), ==, ROUSE_CLOSED);
    require_int(rouse_close(NULL), ==, ROUSE_CLOSED);
    require_int(rouse_option_set(NULL, ROUSE_OPTION_NO_DELAY, 1), ==, ROUSE_CLOSED);
    require_int(rouse_option_get(NULL, ROUSE_OPTION_NO_DELAY, &value), ==, ROUSE_CLOSED);
    require_int(rouse_local_address(NULL, &address), ==, ROUSE_CLOSED);
    require_int(rouse_peer_address(NULL, &address), ==, ROUSE_CLOSED);
    require_int(rouse_adopt(NULL, 0), ==, ROUSE_INVALID);
    require_int(rouse_stream_new_at(NULL, NULL, NULL, NULL), ==, ROUSE_INVALID);
    require_int(rouse_stream_new_at(&stream, NULL, NULL, NULL), ==, ROUSE_INVALID);
    return 0;
}

TEST(streams_and_buffers_may_be_null)
{
    rouse_options options = test_options(TEST_SINGLE, 1);
    rouse_stream *end;
    int ends[2];
    test_tcp_pair(ends);
    assert_int_equal(rouse_adopt(&end, ends[0]), ROUSE_OK);
    assert_int_equal(rouse_run(use_nothing, &end, &options), 0);
    assert_int_equal(rouse_close(end), ROUSE_OK);
    test_close(ends[1]);
}

static int listen_to_nothing(void *argument)
{
    rouse_listener *listener;
    rouse_stream *stream;
    rouse_address address = {0};
    char text[4];
    (void)argument;
    require_int(rouse_listen_at(NULL, "127.0.0.1:0", NULL, NULL), ==, ROUSE_INVALID);
    require_int(rouse_listen_at(&listener, NULL, NULL, NULL), ==, ROUSE_INVALID);
    require_int(rouse_accept(NULL, &stream, NULL), ==, ROUSE_CLOSED);
    require_int(rouse_accept(NULL, NULL, NULL), ==, ROUSE_INVALID);
    require_int(rouse_serve(NULL, NULL), ==, ROUSE_INVALID);
    require_int(rouse_listener_address(NULL, &address), ==, ROUSE_CLOSED);
    require_int(rouse_listener_close(NULL), ==, ROUSE_CLOSED);
    require_int(rouse_connect_at(NULL, "127.0.0.1:1", NULL), ==, ROUSE_INVALID);
    require_int(rouse_connect_at(&stream, NULL, NULL), ==, ROUSE_INVALID);
    require_int(rouse_address_parse(NULL, "127.0.0.1:1"), ==, ROUSE_INVALID);
    require_int(rouse_address_parse(&address, NULL), ==, ROUSE_INVALID);
    require_int(rouse_address_format(NULL, text, sizeof text), ==, ROUSE_INVALID);
    require_int(rouse_address_format(&address, NULL, 4), ==, ROUSE_INVALID);
    return 0;
}

TEST(listeners_and_addresses_may_be_null)
{
    rouse_options options = test_options(TEST_SINGLE, 1);
    assert_int_equal(rouse_run(listen_to_nothing, NULL, &options), 0);
}
