/* What other systems got wrong in input and output, where no other file of this folder has the test already:
 * docs/known-failures.md tells of each. */
#include "support/io.h"

#include "core/registry.h"

#include <signal.h>
#include <sys/resource.h>

static char byte;

static void pair_of_streams(rouse_stream *streams[2])
{
    int ends[2];
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    streams[0] = adopted(ends[0]);
    streams[1] = adopted(ends[1]);
}

static void close_both(rouse_stream *streams[2])
{
    require_int(rouse_close(streams[0]), ==, ROUSE_OK);
    require_int(rouse_close(streams[1]), ==, ROUSE_OK);
}

/* ---- registering ---- */

/* tokio#6329: each refusal leaked a slot. */
static int be_refused(void *unused)
{
    static const struct {
        int error, status;
    } pairs[] = {{FAULTS_SET_FULL, FAULTS_SET_FULL_STATUS}, {ENOMEM, ROUSE_NO_MEMORY}, {EPERM, ROUSE_NOT_POLLABLE}};
    uint64_t rounds = test_scale(1500, 100000);
    int descriptors = test_descriptor_count();
    size_t before = 0;
    (void)unused;
    for (uint64_t i = 0; i < rounds; i++) {
        int peer;
        if (i == rounds / 4)
            before = test_rss_bytes();
        rouse_stream *stream = unix_stream(&peer);
        faults_syscall("set_change", 1, pairs[i % 3].error, 1);
        require_int(rouse_read(stream, &byte, 1), ==, pairs[i % 3].status);
        test_send_all(peer, "x", 1); /* and it can be used still */
        require_int(rouse_read(stream, &byte, 1), ==, 1);
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_close(peer);
    }
    if (!test_is_slow())
        require_int(test_rss_bytes(), <, before + (1 << 20));
    require_int(test_descriptor_count(), ==, descriptors);
    return ROUSE_OK;
}

TEST(a_registration_that_the_system_refuses_leaves_nothing)
{
    test_needs("faults");
    test_needs("kernel_set");
    on_each_executor(be_refused, NULL);
}

/* tokio#7773: a removal that failed left its entry on the list. */
TEST(a_removal_that_the_system_refuses_leaves_nothing)
{
    test_needs("faults");
    test_needs("kernel_set");
    static const int errors[] = {ENOENT, EBADF, ENOMEM};
    uint64_t rounds = test_scale(1500, 100000);
    int descriptors = test_descriptor_count();
    size_t before = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        int peer;
        struct hand waiting;
        if (i == rounds / 4)
            before = test_rss_bytes();
        hand_init(&waiting);
        rouse_stream *stream = unix_stream(&peer);
        rouse_read_init(&waiting.op, stream, &byte, 1);
        assert_int_equal(hand_poll(&waiting), ROUSE_PENDING);
        faults_reset();
        faults_syscall("set_change", 1, errors[i % 3], 1);
        assert_int_equal(rouse_close(stream), ROUSE_OK);
        assert_int_equal(faults_syscall_hit("set_change"), 1);
        assert_int_equal(hand_poll(&waiting), ROUSE_CLOSED);
        hand_fini(&waiting);
        test_expect_end(peer);
        test_close(peer);
    }
    if (!test_is_slow())
        assert_true(test_rss_bytes() < before + (1 << 20));
    end_default_runtime();
    assert_int_equal(test_descriptor_count(), descriptors);
}

/* The design that this one descends from stored another waker and made another system call for each poll. */
TEST(polling_again_without_an_event_makes_no_system_call)
{
    test_needs("faults");
    static const char *const names[] = {"recv", "read", "set_change", "accept4", "poll"};
    rouse_listener *listener;
    rouse_stream *accepted = NULL;
    struct hand reading, accepting;
    int peer;
    rouse_stream *stream = tcp_stream(&peer);
    hand_init(&reading);
    hand_init(&accepting);
    assert_int_equal(rouse_listen(&listener, "127.0.0.1:0", NULL), ROUSE_OK);
    rouse_read_init(&reading.op, stream, &byte, 1);
    rouse_accept_init(&accepting.op, listener, &accepted, NULL);
    for (int i = 0; i < 3; i++) { /* the writability of a fresh socket may be told in between */
        assert_int_equal(hand_poll(&reading), ROUSE_PENDING);
        assert_int_equal(hand_poll(&accepting), ROUSE_PENDING);
    }
    int references = hand_references(&reading);
    faults_reset();
    for (int i = 0; i < 100; i++) {
        assert_int_equal(hand_poll(&reading), ROUSE_PENDING);
        assert_int_equal(hand_poll(&accepting), ROUSE_PENDING);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_int_equal(faults_syscall_count(names[i]), 0);
    assert_int_equal(hand_references(&reading), references);
    rouse_op_cancel(&reading.op);
    rouse_op_cancel(&accepting.op);
    hand_fini(&reading);
    hand_fini(&accepting);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    test_close(peer);
    end_default_runtime();
}

/* ---- operations ---- */

static int answer_five(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    return 5;
}

static const rouse_task_type five = {.poll = answer_five};

enum { KINDS = 14 };

/* The nth of all kinds of operations, on things that do not exist. */
static void prepare_nth(int n, rouse_op *op, rouse_task *task)
{
    static rouse_buffer piece = {&byte, 1};
    static rouse_interval interval;
    static rouse_stream *made;
    static rouse_address address;
    static size_t done;
    rouse_stream *none = NULL;
    require_int(rouse_interval_init(&interval, 1, 1, ROUSE_MISSED_SKIP), ==, ROUSE_OK);
    address = test_address(1);
    switch (n) {
    case 0:
        rouse_read_init(op, none, &byte, 1);
        break;
    case 1:
        rouse_write_init(op, none, &byte, 1);
        break;
    case 2:
        rouse_write_all_init(op, none, &byte, 1, &done);
        break;
    case 3:
        rouse_read_exact_init(op, none, &byte, 1, &done);
        break;
    case 4:
        rouse_readv_init(op, none, &piece, 1);
        break;
    case 5:
        rouse_writev_init(op, none, &piece, 1);
        break;
    case 6:
        rouse_peek_init(op, none, &byte, 1);
        break;
    case 7:
        rouse_wait_ready_init(op, none, ROUSE_READABLE);
        break;
    case 8:
        rouse_accept_init(op, NULL, &made, NULL);
        break;
    case 9:
        rouse_connect_init(op, &made, &address);
        break;
    case 10:
        rouse_sleep_init(op, ROUSE_NEVER);
        break;
    case 11:
        rouse_interval_tick_init(op, &interval);
        break;
    case 12:
        rouse_join_init(op, task, NULL);
        break;
    default:
        rouse_signal_wait_init(op, ROUSE_SIGNAL_HANG_UP);
        break;
    }
}

/* libuv#2181: what never had a descriptor was ended as if it had one. */
TEST(operations_that_were_never_polled_can_be_taken_back)
{
    rouse_options options = flavour(0);
    rouse_runtime *runtime;
    rouse_task task;
    struct hand hand;
    assert_int_equal(rouse_runtime_new(&runtime, &options), ROUSE_OK);
    assert_int_equal(rouse_spawn_on(runtime, &task, &five, NULL), ROUSE_OK);
    hand_init(&hand);
    assert_int_equal(rouse_op_cancel(&hand.op), ROUSE_OP_IDLE); /* zeroed */
    for (int i = 0; i < KINDS; i++) {
        prepare_nth(i, &hand.op, &task);
        assert_int_equal(rouse_op_cancel(&hand.op), ROUSE_OP_IDLE);
        assert_int_equal(rouse_op_cancel(&hand.op), ROUSE_OP_IDLE);
        assert_int_equal(hand_poll(&hand), ROUSE_INVALID);
    }
    assert_int_equal(hand_references(&hand), 0);
    hand_fini(&hand);
    assert_int_equal(rouse_join(&task, NULL), 5);
    assert_int_equal(rouse_runtime_shutdown(runtime, TEST_SOON, NULL, NULL), ROUSE_OK);
}

/* seastar@08ec5dfd1, libuv#4738: what is used again is as good as new, also right inside the answer to its last use. */
TEST(one_operation_serves_every_kind_in_turn)
{
    test_needs("handlers");
    rouse_listener *listener;
    rouse_address address;
    rouse_interval interval;
    struct hand hand;
    hand_init(&hand);
    assert_int_equal(rouse_listen(&listener, "127.0.0.1:0", NULL), ROUSE_OK);
    assert_int_equal(rouse_listener_address(listener, &address), ROUSE_OK);
    for (uint64_t i = test_scale(40, 5000); i > 0; i--) {
        rouse_stream *client = NULL, *server = NULL;
        rouse_task task;
        char data[3];
        size_t done;
        rouse_accept_init(&hand.op, listener, &server, NULL);
        assert_int_equal(hand_poll(&hand), ROUSE_PENDING);
        assert_int_equal(rouse_op_cancel(&hand.op), ROUSE_OP_IDLE);
        rouse_connect_init(&hand.op, &client, &address);
        assert_int_equal(hand_finish(&hand), ROUSE_OK);
        rouse_accept_init(&hand.op, listener, &server, NULL);
        assert_int_equal(hand_finish(&hand), ROUSE_OK);
        for (int k = 0; k < 3; k++) {
            rouse_read_init(&hand.op, server, data, 1);
            assert_int_equal(hand_poll(&hand), ROUSE_PENDING);
            if (k == 1)
                assert_int_equal(rouse_op_cancel(&hand.op), ROUSE_OP_IDLE);
            assert_int_equal(rouse_write(client, "x", 1), 1);
            if (k == 1)
                rouse_read_exact_init(&hand.op, server, data, 1, &done);
            assert_int_equal(hand_finish(&hand), k == 1 ? ROUSE_OK : 1);
        }
        rouse_write_all_init(&hand.op, server, "abc", 3, &done);
        assert_int_equal(hand_finish(&hand), ROUSE_OK);
        rouse_wait_ready_init(&hand.op, client, ROUSE_READABLE);
        assert_int_equal(hand_finish(&hand), ROUSE_OK);
        rouse_read_exact_init(&hand.op, client, data, 3, &done);
        assert_int_equal(hand_finish(&hand), ROUSE_OK);
        rouse_sleep_init(&hand.op, rouse_after(ROUSE_US(50)));
        assert_int_equal(hand_finish(&hand), ROUSE_OK);
        assert_int_equal(rouse_interval_init(&interval, rouse_after(ROUSE_US(50)), 1, ROUSE_MISSED_DELAY), ROUSE_OK);
        rouse_interval_tick_init(&hand.op, &interval);
        assert_int_equal(hand_finish(&hand), ROUSE_OK);
        assert_int_equal(rouse_spawn(&task, &five, NULL), ROUSE_OK);
        rouse_join_init(&hand.op, &task, NULL);
        assert_int_equal(hand_finish(&hand), 5);
        rouse_signal_wait_init(&hand.op, ROUSE_SIGNAL_TERMINATE);
        assert_int_equal(hand_poll(&hand), ROUSE_PENDING);
        assert_int_equal(raise(SIGTERM), 0);
        assert_int_equal(hand_finish(&hand), ROUSE_SIGNAL_TERMINATE);
        assert_int_equal(rouse_option_set(client, ROUSE_OPTION_LINGER, 0), ROUSE_OK); /* leaves no port behind */
        assert_int_equal(rouse_close(client), ROUSE_OK);
        assert_int_equal(rouse_close(server), ROUSE_OK);
    }
    hand_fini(&hand);
    assert_int_equal(rouse_listener_close(listener), ROUSE_OK);
    rouse_signal_restore();
    end_default_runtime();
}

/* hyper#2140, tokio-uring#1: whoever took an operation back had its buffer written to later. */
TEST(a_read_that_is_taken_back_leaves_its_buffer_alone)
{
    struct hand first, second;
    hand_init(&first);
    hand_init(&second);
    for (uint64_t i = test_scale(300, 30000); i > 0; i--) {
        int peer;
        char abandoned[64], used[64];
        rouse_stream *stream = unix_stream(&peer);
        rouse_read_init(&first.op, stream, abandoned, sizeof abandoned);
        assert_int_equal(hand_poll(&first), ROUSE_PENDING);
        assert_int_equal(rouse_op_cancel(&first.op), ROUSE_OP_IDLE);
        memset(abandoned, 0x5a, sizeof abandoned);
        rouse_read_init(&second.op, stream, used, sizeof used);
        test_send_all(peer, "into the second", 15);
        assert_int_equal(hand_finish(&second), 15);
        for (size_t k = 0; k < sizeof abandoned; k++)
            assert_int_equal(abandoned[k], 0x5a);
        assert_int_equal(rouse_close(stream), ROUSE_OK);
        test_close(peer);
    }
    hand_fini(&first);
    hand_fini(&second);
    end_default_runtime();
}

/* ---- bytes ---- */

static struct {
    rouse_stream *streams[2];
    uint64_t rounds;
} ball;

static int play(void *side)
{
    rouse_stream *stream = ball.streams[(intptr_t)side];
    for (uint64_t i = 0; i < ball.rounds; i++) {
        char data;
        if (side == NULL)
            require_int(rouse_write(stream, "x", 1), ==, 1);
        require_int(rouse_read(stream, &data, 1), ==, 1);
        if (side != NULL)
            require_int(rouse_write(stream, "y", 1), ==, 1);
        require_int(data, ==, side != NULL ? 'x' : 'y');
    }
    return ROUSE_OK;
}

/* The ticks that tell new readiness from old come round on the way. */
static void age(rouse_stream *stream, uint32_t left)
{
    struct slot *slot = registry_acquire((uintptr_t)stream);
    require(slot != NULL);
    slot->read.tick = slot->write.tick = UINT32_MAX - left;
    lock_release(&slot->lock);
}

static int play_ball(void *unused)
{
    rouse_scope scope;
    (void)unused;
    ball.rounds = test_scale(4000, 2000000);
    pair_of_streams(ball.streams);
    age(ball.streams[0], 50);
    age(ball.streams[1], 70);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (intptr_t i = 0; i < 2; i++)
        require_int(rouse_go(play, (void *)i), ==, ROUSE_OK);
    int status = rouse_scope_close(&scope);
    close_both(ball.streams);
    return status;
}

/* tokio#6133, tokio#6134: readiness that came at the wrong moment was forgotten, and both sides waited for ever. */
TEST(single_bytes_go_to_and_fro_without_loss)
{
    test_time_limit(600);
    on_each_executor(play_ball, NULL);
}

enum { STAGES = 3 };
static const size_t windows[STAGES + 1] = {1000, 7, 4096, 100};
static struct {
    rouse_stream *streams[STAGES][2];
    size_t total;
} line;

static int pass_on(void *which)
{
    intptr_t stage = (intptr_t)which;
    char data[4096];
    size_t at = 0, done;
    while (at < line.total) {
        size_t most = windows[stage] < line.total - at ? windows[stage] : line.total - at;
        ptrdiff_t count = (ptrdiff_t)most;
        if (stage > 0)
            count = rouse_read(line.streams[stage - 1][1], data, most);
        require_int(count, >, 0);
        for (ptrdiff_t i = 0; i < count; i++) {
            if (stage == 0)
                data[i] = (char)((at + (size_t)i) % 251);
            require_int(data[i], ==, (char)((at + (size_t)i) % 251));
        }
        if (stage < STAGES)
            require_int(rouse_write_all(line.streams[stage][0], data, (size_t)count, &done), ==, ROUSE_OK);
        at += (size_t)count;
    }
    return ROUSE_OK;
}

static int run_the_line(void *unused)
{
    rouse_scope scope;
    (void)unused;
    line.total = (size_t)test_scale(100000, 1000000);
    for (int i = 0; i < STAGES; i++)
        pair_of_streams(line.streams[i]);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (intptr_t i = STAGES; i >= 0; i--)
        require_int(rouse_go(pass_on, (void *)i), ==, ROUSE_OK);
    int status = rouse_scope_close(&scope);
    for (int i = 0; i < STAGES; i++)
        close_both(line.streams[i]);
    return status;
}

/* aws-c-io#818: one stage's window followed another's, and both waited. */
TEST(a_pipeline_with_buffers_of_different_sizes_moves_everything)
{
    on_each_executor(run_the_line, NULL);
}

static struct {
    int peer;
    uint64_t rounds;
} sender;

static void send_now_and_then(void *unused)
{
    (void)unused;
    for (uint64_t i = 0; i < sender.rounds; i++) {
        char data = (char)i;
        test_send_all(sender.peer, &data, 1);
        int64_t end = test_now_ns() + 20000 + (int64_t)(i % 13) * 10000;
        while (test_now_ns() < end) {}
    }
}

static int read_under_short_deadlines(void *unused)
{
    test_thread thread;
    (void)unused;
    rouse_stream *stream = unix_stream(&sender.peer);
    sender.rounds = test_scale(500, 100000);
    test_thread_start(&thread, send_now_and_then, NULL);
    for (uint64_t i = 0; i < sender.rounds;) {
        rouse_deadline deadline = {{0}};
        char data;
        require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_US(80))), ==, ROUSE_OK);
        ptrdiff_t count = rouse_read(stream, &data, 1);
        require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
        require(count == 1 || count == ROUSE_TIMED_OUT);
        if (count == 1)
            require_int(data, ==, (char)i++);
    }
    test_thread_join(&thread, TEST_SOON);
    test_close(sender.peer);
    return rouse_close(stream);
}

/* cpython#86296, asyncpg#467: what came in the same moment as the timeout was lost. */
TEST(a_deadline_and_bytes_that_come_together_lose_nothing)
{
    on_each_executor(read_under_short_deadlines, NULL);
}

static int write_64_kib(void *descriptor)
{
    static char data[65536];
    size_t at = 0;
    while (at < sizeof data) {
        ssize_t count = write(*(int *)descriptor, data + at, 4096);
        require(count > 0);
        at += (size_t)count;
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

static int read_exactly_what_is_there(void *unused)
{
    static char data[65536];
    int ends[2];
    rouse_scope scope;
    rouse_deadline deadline = {{0}};
    (void)unused;
    require(pipe2(ends, O_CLOEXEC) == 0); /* both ends blocking */
    rouse_stream *stream = adopted(ends[0]);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(write_64_kib, &ends[1]), ==, ROUSE_OK);
    require_int(rouse_read_exact(stream, data, sizeof data, NULL), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(5))), ==, ROUSE_OK);
    require_int(rouse_read(stream, data, sizeof data), ==, ROUSE_TIMED_OUT);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    test_close(ends[1]);
    require_int(rouse_read(stream, data, sizeof data), ==, 0);
    return rouse_close(stream);
}

/* joyent/libuv#941: after exactly 64 KiB the next read of an adopted pipe held up the loop. */
TEST(an_adopted_pipe_never_blocks_the_thread)
{
    test_needs("descriptors");
    on_each_executor(read_exactly_what_is_there, NULL);
}

/* ---- accepting ---- */

static rouse_listener *door;
static rouse_address target;

static void open_the_door(void)
{
    require_int(rouse_listen(&door, "127.0.0.1:0", NULL), ==, ROUSE_OK);
    require_int(rouse_listener_address(door, &target), ==, ROUSE_OK);
}

static void knock(void *rounds)
{
    for (uint64_t i = *(uint64_t *)rounds; i > 0; i--)
        test_close_with_reset(test_connect_port(target.port));
}

/* tokio#7979, tokio-uring#129, compio#315: a connection that came as the accept was dropped stayed open for ever. */
TEST(an_accept_that_is_cancelled_while_a_client_connects_leaks_nothing)
{
    uint64_t rounds = test_scale(1000, 100000);
    test_thread thread;
    struct hand accepting;
    hand_init(&accepting);
    open_the_door();
    int before = test_descriptor_count();
    test_thread_start(&thread, knock, &rounds);
    uint64_t taken = 0;
    while (!atomic_load(&thread.ended)) {
        rouse_stream *stream = NULL;
        rouse_accept_init(&accepting.op, door, &stream, NULL);
        ptrdiff_t status = hand_poll(&accepting);
        if (status == ROUSE_PENDING) {
            for (uint64_t spin = taken % 64; spin > 0; spin--)
                (void)hand_wakes(&accepting);
            assert_int_equal(rouse_op_cancel(&accepting.op), ROUSE_OP_IDLE);
            assert_null(stream);
        } else {
            assert_int_equal(status, ROUSE_OK);
            assert_int_equal(rouse_close(stream), ROUSE_OK);
        }
        test_take_turns();
        taken++;
    }
    test_thread_join(&thread, TEST_SOON);
    end_default_runtime();
    assert_int_equal(test_descriptor_count(), before);
    assert_int_equal(rouse_listener_close(door), ROUSE_OK);
    hand_fini(&accepting);
}

static void connect_some_and_close_the_door(void *count)
{
    int clients[8];
    for (int i = 0; i < *(int *)count; i++)
        clients[i] = test_connect_port(target.port);
    require_int(rouse_listener_close(door), ==, ROUSE_OK);
    for (int i = 0; i < *(int *)count; i++)
        test_close_with_reset(clients[i]);
}

static int accept_until_closed(void *unused)
{
    (void)unused;
    for (;;) {
        rouse_stream *stream;
        int status = rouse_accept(door, &stream, NULL);
        if (status == ROUSE_CLOSED)
            return ROUSE_OK;
        require_int(status, ==, ROUSE_OK);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
}

static int be_closed_from_outside(void *unused)
{
    (void)unused;
    for (uint64_t i = test_scale(60, 10000); i > 0; i--) {
        int count = (int)(i % 8);
        rouse_scope scope;
        test_thread thread;
        open_the_door();
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        for (int k = 0; k < 3; k++)
            require_int(rouse_go(accept_until_closed, NULL), ==, ROUSE_OK);
        test_thread_start(&thread, connect_some_and_close_the_door, &count);
        require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
        test_thread_join(&thread, TEST_SOON);
    }
    return ROUSE_OK;
}

/* libevent@12cedc8a: disabling a listener from another thread while its callback ran was a deadlock. */
TEST(a_foreign_thread_may_close_a_listener_while_connections_come)
{
    test_time_limit(600);
    on_each_executor(be_closed_from_outside, NULL);
}

/* ---- what never rests, and others ---- */

/* How long others were kept waiting is told in processor time of this process: a machine with other things to do makes
 * everybody wait, but only what never rests uses the processor meanwhile. */
static int64_t worst_nap_ns;

static int nap_often(void *unused)
{
    (void)unused;
    worst_nap_ns = 0;
    for (int i = 0; i < 6; i++) {
        int64_t cpu = test_cpu_ns();
        require_int(rouse_sleep(ROUSE_MS(2)), ==, ROUSE_OK);
        cpu = test_cpu_ns() - cpu;
        worst_nap_ns = cpu > worst_nap_ns ? cpu : worst_nap_ns;
    }
    return ROUSE_OK;
}

/* Naps beside a fiber that never has to wait, and then ends it. */
static void nap_beside(rouse_fiber_function *restless, void *argument)
{
    rouse_scope scope;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(restless, argument), ==, ROUSE_OK);
    require_int(rouse_yield(), ==, ROUSE_OK);
    require_int(nap_often(NULL), ==, ROUSE_OK);
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
    (void)rouse_scope_close(&scope);
    if (!test_is_slow())
        require_int(worst_nap_ns, <, 3 * ROUSE_MS(20)); /* of two workers and a foreign thread */
}

static int accept_only(void *unused)
{
    rouse_stream *stream;
    (void)unused;
    return rouse_accept(door, &stream, NULL);
}

static int accept_errors_only(void *unused)
{
    (void)unused;
    open_the_door();
    int client = test_connect_port(target.port);
    faults_syscall("accept4", 1, ECONNABORTED, FAULTS_ALWAYS);
    nap_beside(accept_only, NULL);
    faults_reset();
    test_close(client);
    return rouse_listener_close(door);
}

/* tokio#4782, tokio#5946: who tried to accept again after each error owned the worker. */
TEST_SERIAL(errors_of_accepting_without_end_leave_others_their_time)
{
    test_needs("faults");
    on_each_executor(accept_errors_only, NULL);
}

static atomic_bool enough;

static void flood(void *socket)
{
    static char data[65536];
    while (!atomic_load(&enough)) {
        (void)send(*(int *)socket, data, sizeof data, MSG_NOSIGNAL | MSG_DONTWAIT);
        test_take_turns();
    }
}

static void drain(void *socket)
{
    static char data[65536];
    while (!atomic_load(&enough)) {
        (void)recv(*(int *)socket, data, sizeof data, MSG_DONTWAIT);
        test_take_turns();
    }
}

static int read_for_ever(void *stream)
{
    char data[512];
    ptrdiff_t count;
    while ((count = rouse_read(stream, data, sizeof data)) > 0) {}
    return (int)count;
}

static int write_for_ever(void *stream)
{
    static const char data[512];
    ptrdiff_t count;
    while ((count = rouse_write(stream, data, sizeof data)) > 0) {}
    return (int)count;
}

static int peek_for_ever(void *stream)
{
    char data[16];
    ptrdiff_t count;
    while ((count = rouse_peek(stream, data, sizeof data)) > 0) {}
    return (int)count;
}

static int ask_for_ever(void *stream)
{
    int status;
    while ((status = rouse_wait_ready(stream, ROUSE_WRITABLE)) == ROUSE_OK) {}
    return status;
}

static int tick_for_ever(void *unused)
{
    rouse_interval interval;
    int status;
    (void)unused;
    require_int(rouse_interval_init(&interval, 1, 1, ROUSE_MISSED_BURST), ==, ROUSE_OK);
    while ((status = rouse_interval_tick(&interval)) >= 0) {}
    return status;
}

static int join_for_ever(void *unused)
{
    int status;
    (void)unused;
    while ((status = rouse_block_on(NULL, &five, NULL, NULL)) == 5) {}
    return status;
}

static int be_restless_in_each_way(void *unused)
{
    int peers[2];
    test_thread threads[2];
    (void)unused;
    rouse_stream *flooded = unix_stream(&peers[0]), *drained = unix_stream(&peers[1]);
    atomic_store(&enough, false);
    test_thread_start(&threads[0], flood, &peers[0]);
    nap_beside(read_for_ever, flooded);
    nap_beside(peek_for_ever, flooded);
    atomic_store(&enough, true);
    test_thread_join(&threads[0], TEST_SOON);
    atomic_store(&enough, false);
    test_thread_start(&threads[1], drain, &peers[1]);
    nap_beside(write_for_ever, drained);
    atomic_store(&enough, true);
    test_thread_join(&threads[1], TEST_SOON);
    while (recv(peers[1], &byte, 1, MSG_DONTWAIT) > 0) {}
    nap_beside(ask_for_ever, drained);
    nap_beside(tick_for_ever, NULL);
    nap_beside(join_for_ever, NULL);
    require_int(rouse_close(flooded), ==, ROUSE_OK);
    require_int(rouse_close(drained), ==, ROUSE_OK);
    test_close(peers[0]);
    test_close(peers[1]);
    return ROUSE_OK;
}

/* tokio#4300, tokio#4478, tokio#6221: each kind of resource had to learn of the budget by itself. */
TEST_SERIAL(what_is_always_ready_leaves_others_their_time)
{
    on_each_executor(be_restless_in_each_way, NULL);
}

/* ---- sockets beside what never rests ---- */

enum { SLOW = 40, ASKED = 100 };
static struct {
    rouse_stream *streams[SLOW];
    int peers[SLOW];
    int slow_answers; /* that took long */
} crowd;

static void ask_in_turn(void *unused)
{
    (void)unused;
    for (int i = 0; i < ASKED; i++) {
        int64_t cpu = test_cpu_ns();
        test_send_all(crowd.peers[i % SLOW], "?", 1);
        test_expect(crowd.peers[i % SLOW], "?");
        crowd.slow_answers += test_cpu_ns() - cpu > 3 * ROUSE_MS(10);
    }
    for (int i = 0; i < SLOW; i++)
        test_close(crowd.peers[i]);
    atomic_store(&enough, true);
}

static int echo(void *stream)
{
    char data[512];
    ptrdiff_t count;
    while ((count = rouse_read(stream, data, sizeof data)) > 0 &&
           rouse_write_all(stream, data, (size_t)count, NULL) == ROUSE_OK) {}
    return rouse_close(stream);
}

static void check_answers(void)
{
    if (!test_is_slow())
        require_int(crowd.slow_answers, <=, ASKED / 20);
}

static void open_the_crowd(test_thread *asking)
{
    crowd.slow_answers = 0;
    atomic_store(&enough, false);
    for (int i = 0; i < SLOW; i++) {
        crowd.streams[i] = tcp_stream(&crowd.peers[i]);
        require_int(rouse_go(echo, crowd.streams[i]), ==, ROUSE_OK);
    }
    test_thread_start(asking, ask_in_turn, NULL);
}

static int serve_beside_a_flood(void *unused)
{
    test_thread asking, flooding;
    int peer;
    (void)unused;
    rouse_scope scope;
    rouse_stream *busy = unix_stream(&peer);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    open_the_crowd(&asking);
    test_thread_start(&flooding, flood, &peer);
    require_int(rouse_go(read_for_ever, busy), ==, ROUSE_OK);
    while (!atomic_load(&enough))
        require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
    test_thread_join(&asking, TEST_SOON);
    test_thread_join(&flooding, TEST_SOON);
    test_close(peer);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    check_answers();
    return rouse_close(busy);
}

/* libuv#2027, libuv#3668: one fast connection had the loop to itself. */
TEST_SERIAL(one_busy_connection_does_not_starve_many_slow_ones)
{
    on_each_executor(serve_beside_a_flood, NULL);
}

/* Wakes itself in each poll, or sleeps for no time. */
static int never_rest(void *state, void *result, rouse_context *context)
{
    rouse_op op;
    (void)result;
    if (atomic_load(&enough))
        return ROUSE_OK;
    if (*(int *)state % 2 == 0) {
        rouse_waker_wake_by_ref(&context->waker);
        return ROUSE_PENDING;
    }
    for (;;) {
        rouse_sleep_init(&op, 0);
        ptrdiff_t status = rouse_op_poll(&op, context);
        if (status == ROUSE_PENDING)
            return ROUSE_PENDING;
        require_int(status, ==, ROUSE_OK);
    }
}

static int serve_beside_the_restless(void *unused)
{
    static const rouse_task_type restless = {.poll = never_rest, .state_size = sizeof(int)};
    test_thread asking;
    (void)unused;
    rouse_scope scope;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    open_the_crowd(&asking);
    for (int i = 0; i < 6; i++)
        require_int(rouse_scope_spawn(&scope, NULL, &restless, &i), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    test_thread_join(&asking, TEST_SOON);
    check_answers();
    return ROUSE_OK;
}

/* libuv#4245, golang/go#51651: the kernel was only asked when nobody had anything to do. */
TEST_SERIAL(beside_tasks_that_never_rest_sockets_are_served)
{
    on_each_executor(serve_beside_the_restless, NULL);
}

/* ---- clients that dawdle ---- */

enum { DAWDLERS = 1000, REQUEST = 16 };

static int serve_in_time(void *stream)
{
    char request[REQUEST];
    rouse_deadline deadline = {{0}};
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(test_is_slow() ? 500 : 250))), ==, ROUSE_OK);
    int status = rouse_read_exact(stream, request, sizeof request, NULL);
    if (status == ROUSE_OK)
        (void)rouse_write_all(stream, request, sizeof request, NULL);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    return rouse_close(stream);
}

static void dawdle(void *count)
{
    static int clients[DAWDLERS];
    int dawdlers = *(int *)count;
    for (int i = 0; i < dawdlers; i++) {
        clients[i] = test_connect_port(target.port);
        (void)send(clients[i], "x", 1, MSG_NOSIGNAL);
    }
    for (int i = 0; i < 10; i++) { /* those in a hurry are served while the others are there */
        int client = test_connect_port(target.port);
        test_send_all(client, "sixteen bytes !!", REQUEST);
        test_expect(client, "sixteen bytes !!");
        test_expect_end(client);
        test_close(client);
        (void)send(clients[i], "x", 1, MSG_NOSIGNAL);
    }
    for (int i = 0; i < dawdlers; i++) {
        char data;
        ptrdiff_t end = test_receive(clients[i], &data, 1, TEST_SOON);
        require(end == 0 || end == -ECONNRESET); /* closed, with bytes unread or without */
        test_close(clients[i]);
    }
    require_int(rouse_listener_close(door), ==, ROUSE_OK);
}

static int serve_dawdlers(void *unused)
{
    test_thread thread;
    rouse_scope scope;
    int count = (int)test_scale(200, DAWDLERS), descriptors = test_descriptor_count();
    (void)unused;
    open_the_door();
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    test_thread_start(&thread, dawdle, &count);
    require_int(rouse_serve(door, serve_in_time), ==, ROUSE_CLOSED);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    test_thread_join(&thread, TEST_SOON);
    require_int(test_descriptor_count(), ==, descriptors);
    return ROUSE_OK;
}

/* libevent#593, tiny-nginx#3: clients that sent a byte now and then held every connection that could be had. */
TEST(clients_that_dawdle_are_closed_in_time_and_the_others_served)
{
    struct rlimit limit;
    /* There is no such limit everywhere. */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 2 * DAWDLERS + 100 &&
        limit.rlim_max > limit.rlim_cur) {
        limit.rlim_cur = limit.rlim_max;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    }
    on_each_executor(serve_dawdlers, NULL);
}

/* ---- clients that are gone ---- */

static int serve_one_byte(void *stream)
{
    char got;
    if (rouse_read(stream, &got, 1) == 1) /* else the client was gone when it was accepted */
        require_int(rouse_write(stream, &got, 1), ==, 1);
    return rouse_close(stream);
}

/* The dead wait in the listener's queue, in front of the living. */
static void come_behind_the_dead(void *unused)
{
    (void)unused;
    for (uint64_t i = test_scale(20, 2000); i > 0; i--) {
        for (int k = 0; k < 10; k++)
            test_close_with_reset(test_connect_port(target.port));
        int client = test_connect_port(target.port);
        test_send_all(client, "x", 1);
        test_expect(client, "x");
        test_close(client);
    }
    require_int(rouse_listener_close(door), ==, ROUSE_OK);
}

static int serve_the_living(void *unused)
{
    rouse_scope scope;
    test_thread thread;
    (void)unused;
    open_the_door();
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    test_thread_start(&thread, come_behind_the_dead, NULL);
    require_int(rouse_serve(door, serve_one_byte), ==, ROUSE_CLOSED);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    test_thread_join(&thread, TEST_SOON);
    return ROUSE_OK;
}

/* libevent#664: a client was accepted that was dead already, and then nobody any more. */
TEST(clients_that_reset_before_they_are_accepted_do_not_end_the_accepting)
{
    test_time_limit(600);
    on_each_executor(serve_the_living, NULL);
}
