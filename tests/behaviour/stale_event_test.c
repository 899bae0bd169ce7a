/* Events that come too late, descriptors whose numbers come back, and copies of descriptors that others keep open. */
#include "support/io.h"

#include <signal.h>
#include <sys/wait.h>

static char byte;

/* Both ends of a pair of Unix sockets, the first at a number of our choice. */
static rouse_stream *unix_stream_at(int number, int *peer)
{
    int ends[2];
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    *peer = ends[1];
    if (ends[0] != number) {
        require(dup2(ends[0], number) == number);
        require(close(ends[0]) == 0);
    }
    return adopted(number);
}

enum { NUMBER = 200 };

/* libuv#1172, libevent@c281aba3: the successor of a closed descriptor has its number, and nothing else of it. */
static int reuse_a_number(void *unused)
{
    (void)unused;
    for (uint64_t i = test_scale(500, 100000); i > 0; i--) {
        int first_peer, second_peer;
        rouse_op op;
        rouse_stream *first = unix_stream_at(NUMBER, &first_peer);
        rouse_task task;
        rouse_read_init(&op, first, &byte, 1);
        require_int(rouse_spawn(&task, &op_task, &op), ==, ROUSE_OK);
        require_int(rouse_yield(), ==, ROUSE_OK);
        require_int(rouse_close(first), ==, ROUSE_OK);
        ptrdiff_t answer = 0;
        require_int(rouse_join(&task, &answer), ==, ROUSE_OK);
        require_int(answer, ==, ROUSE_CLOSED);
        rouse_stream *second = unix_stream_at(NUMBER, &second_peer);
        require(second != first);
        require_int(rouse_close(first), ==, ROUSE_CLOSED);
        test_close(first_peer);
        test_send_all(second_peer, "x", 1);
        require_int(rouse_read(second, &byte, 1), ==, 1);
        require_int(rouse_close(second), ==, ROUSE_OK);
        test_close(second_peer);
    }
    return ROUSE_OK;
}

TEST(a_number_that_comes_back_belongs_to_its_new_stream_only)
{
    test_needs("descriptors");
    on_each_executor(reuse_a_number, NULL);
}

/* joyent/libuv#826: two are ready in one batch; whoever runs first closes the other and takes its number. */
static struct {
    rouse_stream *streams[2];
    int peers[2];
    atomic_int turn;
} pair;

static int close_the_other(void *which)
{
    int mine = (int)(intptr_t)which;
    ptrdiff_t count = rouse_read(pair.streams[mine], &byte, 1);
    if (atomic_fetch_add(&pair.turn, 1) > 0) {
        require(count == 1 || count == ROUSE_CLOSED);
        return ROUSE_OK;
    }
    require_int(count, ==, 1);
    require_int(rouse_close(pair.streams[1 - mine]), ==, ROUSE_OK);
    int idle_peer;
    rouse_stream *idle = unix_stream_at(NUMBER + 1 - mine, &idle_peer);
    rouse_deadline deadline = {{0}};
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(1))), ==, ROUSE_OK);
    require_int(rouse_read(idle, &byte, 1), ==, ROUSE_TIMED_OUT);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    test_close(idle_peer);
    require_int(rouse_read(idle, &byte, 1), ==, 0);
    return rouse_close(idle);
}

static int swap_in_one_batch(void *unused)
{
    (void)unused;
    for (uint64_t i = test_scale(50, 10000); i > 0; i--) {
        rouse_scope scope;
        atomic_store(&pair.turn, 0);
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        for (int k = 0; k < 2; k++)
            pair.streams[k] = unix_stream_at(NUMBER + k, &pair.peers[k]);
        for (int k = 0; k < 2; k++)
            require_int(rouse_go(close_the_other, (void *)(intptr_t)k), ==, ROUSE_OK);
        require_int(rouse_yield(), ==, ROUSE_OK);
        for (int k = 0; k < 2; k++)
            (void)send(pair.peers[k], "x", 1, MSG_NOSIGNAL); /* the other may be closed already */
        require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
        for (int k = 0; k < 2; k++) {
            rouse_close(pair.streams[k]);
            test_close(pair.peers[k]);
        }
    }
    return ROUSE_OK;
}

TEST(a_stream_that_takes_a_number_within_a_batch_gets_no_event_of_it)
{
    test_needs("descriptors");
    /* On one thread only: elsewhere the other may be inside a call, and its number is not free yet. */
    rouse_options options = flavour(0);
    assert_int_equal(rouse_run(swap_in_one_batch, NULL, &options), ROUSE_OK);
}

/* ---- copies that keep the description open ---- */

/* What the runtime costs while a peer writes into what nobody of ours can read any more. */
static int write_into_the_dead(int peer)
{
    int64_t cpu = test_cpu_ns();
    for (int i = 0; i < 150; i++) {
        require(send(peer, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1);
        require_int(rouse_sleep(ROUSE_US(200)), ==, ROUSE_OK);
    }
    int64_t limit = test_is_slow() ? ROUSE_S(10) : ROUSE_MS(100);
    require_int(test_cpu_ns() - cpu, <, limit);
    cpu = test_cpu_ns();
    require_int(rouse_sleep(ROUSE_MS(50)), ==, ROUSE_OK);
    if (!test_is_slow())
        require_int(test_cpu_ns() - cpu, <, ROUSE_MS(5));
    return ROUSE_OK;
}

/* By hand: a deadline might pass, on a slow machine, before the wait has begun. */
static void await_once(rouse_stream *stream)
{
    struct hand hand;
    hand_init(&hand);
    rouse_read_init(&hand.op, stream, &byte, 1);
    require_int(hand_poll(&hand), ==, ROUSE_PENDING); /* attaches it */
    require_int(rouse_op_cancel(&hand.op), ==, ROUSE_OP_IDLE);
    hand_fini(&hand);
}

/* libuv#1148: a copy made behind the library's back. */
static int close_with_a_copy(void *unused)
{
    int peer;
    intptr_t descriptor;
    (void)unused;
    rouse_stream *stream = accepted_stream(&peer);
    require_int(rouse_descriptor(stream, &descriptor), ==, ROUSE_OK);
    await_once(stream);
    int copy = dup((int)descriptor);
    faults_reset();
    require_int(rouse_close(stream), ==, ROUSE_OK);
    if (test_has("leftovers"))
        require_int(faults_syscall_count("set_change"), ==, 1); /* it is removed before it is closed */
    int status = write_into_the_dead(peer);
    test_close(copy);
    test_close(peer);
    return status;
}

TEST(a_copy_of_a_closed_descriptor_costs_nothing)
{
    test_needs("descriptors");
    on_each_executor(close_with_a_copy, NULL);
}

static pid_t fork_a_sleeper(void)
{
    pid_t child = fork();
    require(child >= 0);
    if (child == 0) {
        pause();
        _exit(0);
    }
    return child;
}

static void kill_the_sleeper(pid_t child)
{
    require(kill(child, SIGKILL) == 0);
    require(waitpid(child, NULL, 0) == child);
}

/* joyent/libuv#1099: a forked child keeps it open. */
static int close_with_a_child(void *unused)
{
    int peer;
    (void)unused;
    rouse_stream *stream = accepted_stream(&peer);
    await_once(stream);
    pid_t child = fork_a_sleeper();
    require_int(rouse_close(stream), ==, ROUSE_OK);
    int status = write_into_the_dead(peer);
    kill_the_sleeper(child);
    test_close(peer);
    return status;
}

TEST(a_child_that_keeps_a_closed_descriptor_open_costs_nothing)
{
    test_needs("fork");
    on_each_executor(close_with_a_child, NULL);
}

/* The child is older than the first wait, but not than the descriptor. */
static int attach_after_the_fork(void *unused)
{
    int peer;
    (void)unused;
    rouse_stream *stream = accepted_stream(&peer);
    pid_t child = fork_a_sleeper();
    await_once(stream);
    faults_reset();
    require_int(rouse_close(stream), ==, ROUSE_OK);
    if (test_has("leftovers"))
        require_int(faults_syscall_count("set_change"), ==, 1);
    int status = write_into_the_dead(peer);
    kill_the_sleeper(child);
    test_close(peer);
    return status;
}

TEST(a_child_that_is_older_than_the_first_wait_costs_nothing)
{
    test_needs("fork");
    on_each_executor(attach_after_the_fork, NULL);
}

/* Where the kernel goes on reporting what cannot be removed any more, its set is made anew, and nobody who waits in it
 * loses anything. */
static int renew_under_waiters(void *must_renew)
{
    int peer, dead_peer;
    rouse_op op;
    rouse_task task;
    ptrdiff_t answer = 0;
    rouse_stream *alive = tcp_stream(&peer);
    rouse_stream *dead = unix_stream(&dead_peer);
    intptr_t descriptor;
    rouse_read_init(&op, alive, &byte, 1);
    faults_reset();
    require_int(rouse_spawn(&task, &op_task, &op), ==, ROUSE_OK);
    while (faults_syscall_count("set_change") == 0) /* it is not in the set yet */
        require_int(rouse_sleep(ROUSE_US(100)), ==, ROUSE_OK);
    await_once(dead);
    require_int(rouse_descriptor(dead, &descriptor), ==, ROUSE_OK);
    int copy = dup((int)descriptor);
    faults_reset();
    faults_syscall("set_change", 1, ENOMEM, 1); /* the removal */
    require_int(rouse_close(dead), ==, ROUSE_OK);
    int status = write_into_the_dead(dead_peer);
    if (must_renew != NULL) /* elsewhere other turns come between the events, so that they cost less */
        require_int(faults_syscall_count("set_open"), >=, 1);
    test_send_all(peer, "x", 1);
    require_int(rouse_join(&task, &answer), ==, ROUSE_OK);
    require_int(answer, ==, 1);
    test_close(copy);
    test_close(dead_peer);
    test_close(peer);
    require_int(rouse_close(alive), ==, ROUSE_OK);
    return status;
}

TEST(a_set_that_reports_the_dead_is_made_anew_and_the_living_lose_nothing)
{
    test_needs("leftovers");
    rouse_options single = flavour(0);
    assert_int_equal(rouse_run(renew_under_waiters, &single, &single), ROUSE_OK);
    on_each_executor(renew_under_waiters, NULL);
}

/* ---- closed behind the library's back ---- */

/* twisted#12568: the removal fails, and the next descriptor with that number was refused. */
static int close_behind_its_back(void *unused)
{
    (void)unused;
    for (uint64_t i = test_scale(100, 10000); i > 0; i--) {
        int peer, next_peer;
        rouse_stream *stream = unix_stream_at(NUMBER, &peer);
        rouse_task task;
        rouse_op op;
        ptrdiff_t answer;
        rouse_read_init(&op, stream, &byte, 1);
        require_int(rouse_spawn(&task, &op_task, &op), ==, ROUSE_OK);
        require_int(rouse_yield(), ==, ROUSE_OK);
        require(close(NUMBER) == 0);
        rouse_abort(&task);
        (void)rouse_join(&task, &answer);
        require_int(rouse_close(stream), ==, ROUSE_OK);
        rouse_stream *next = unix_stream_at(NUMBER, &next_peer);
        test_send_all(next_peer, "x", 1);
        require_int(rouse_read(next, &byte, 1), ==, 1);
        require_int(rouse_close(next), ==, ROUSE_OK);
        test_close(next_peer);
        test_close(peer);
    }
    return ROUSE_OK;
}

TEST(a_descriptor_that_was_closed_behind_its_back_does_not_stop_the_next)
{
    test_needs("descriptors");
    rouse_options options = flavour(0); /* elsewhere a call may be inside */
    assert_int_equal(rouse_run(close_behind_its_back, NULL, &options), ROUSE_OK);
}

/* tokio#3104: a descriptor that was given back is known to nobody. */
static int release_and_adopt(void *unused)
{
    int peer;
    (void)unused;
    rouse_stream *stream = unix_stream(&peer);
    for (int i = 0; i < 50; i++) {
        intptr_t descriptor = -1;
        await_once(stream);
        require_int(rouse_release(stream, &descriptor), ==, ROUSE_OK);
        require_int(rouse_read(stream, &byte, 1), ==, ROUSE_CLOSED);
        stream = adopted((int)descriptor);
        test_send_all(peer, "x", 1);
        require_int(rouse_read(stream, &byte, 1), ==, 1);
    }
    test_close(peer);
    return rouse_close(stream);
}

TEST(a_descriptor_that_was_given_back_can_be_adopted_again_and_again)
{
    on_each_executor(release_and_adopt, NULL);
}

TEST(a_descriptor_moves_from_one_runtime_to_another)
{
    int peer;
    rouse_stream *stream = tcp_stream(&peer);
    for (int i = 0; i < 6; i++) {
        rouse_options options = flavour(i % FLAVOURS);
        rouse_runtime *runtime;
        rouse_op op;
        rouse_task task;
        ptrdiff_t answer = 0;
        assert_int_equal(rouse_runtime_new(&runtime, &options), ROUSE_OK);
        rouse_read_init(&op, stream, &byte, 1);
        assert_int_equal(rouse_spawn_on(runtime, &task, &op_task, &op), ROUSE_OK);
        if (options.executor == ROUSE_EXECUTOR_SINGLE)
            assert_true(rouse_runtime_turn(runtime, 0) >= 0);
        test_send_all(peer, "x", 1);
        assert_int_equal(rouse_join(&task, &answer), ROUSE_OK);
        assert_int_equal(answer, 1);
        assert_int_equal(rouse_runtime_shutdown(runtime, TEST_SOON, NULL, NULL), ROUSE_OK);
    }
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    test_close(peer);
}

/* golang/go#59545: errors of sockets that come and go reached whoever had the number or the object next. */
static atomic_bool storm_is_over;

static void storm(void *unused)
{
    (void)unused;
    while (!atomic_load(&storm_is_over)) {
        int ends[2];
        rouse_stream *stream;
        test_tcp_pair(ends);
        test_close_with_reset(ends[1]);
        require_int(rouse_adopt(&stream, ends[0]), ==, ROUSE_OK);
        char data[8];
        ptrdiff_t count = rouse_read(stream, data, sizeof data);
        require_int(count, ==, ROUSE_CONNECTION_RESET);
        require_int(rouse_close(stream), ==, ROUSE_OK);
    }
}

static int read_in_the_storm(void *unused)
{
    (void)unused;
    for (uint64_t i = test_scale(100, 30000); i > 0; i--) {
        int ends[2];
        rouse_stream *reader, *writer;
        require(pipe2(ends, O_CLOEXEC) == 0);
        reader = adopted(ends[0]);
        writer = adopted(ends[1]);
        await_once(reader);
        require_int(rouse_write(writer, "x", 1), ==, 1);
        require_int(rouse_read(reader, &byte, 1), ==, 1);
        require_int(rouse_close(writer), ==, ROUSE_OK);
        require_int(rouse_read(reader, &byte, 1), ==, 0);
        require_int(rouse_close(reader), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(errors_of_sockets_that_come_and_go_reach_nobody_else)
{
    test_needs("descriptors");
    for (int i = 0; i < FLAVOURS; i++) {
        test_thread thread;
        rouse_options options = flavour(i);
        atomic_store(&storm_is_over, false);
        test_thread_start(&thread, storm, NULL);
        assert_int_equal(rouse_run(read_in_the_storm, NULL, &options), ROUSE_OK);
        atomic_store(&storm_is_over, true);
        test_thread_join(&thread, TEST_SOON);
    }
    end_default_runtime();
}

/* The kernel's entry outlives the stream, because a copy does; then the copy takes the number. */
static int come_back_with_a_copy(void *unused)
{
    (void)unused;
    for (int i = 0; i < 20; i++) {
        int peer;
        rouse_stream *stream = unix_stream_at(NUMBER, &peer);
        await_once(stream);
        int copy = dup(NUMBER);
        require(copy >= 0 && close(NUMBER) == 0);
        require_int(rouse_close(stream), ==, ROUSE_OK);
        require(dup2(copy, NUMBER) == NUMBER);
        stream = adopted(NUMBER);
        await_once(stream);
        test_send_all(peer, "x", 1);
        require_int(rouse_read(stream, &byte, 1), ==, 1);
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_close(copy);
        test_close(peer);
    }
    return ROUSE_OK;
}

TEST(an_entry_that_a_dead_stream_has_left_behind_does_not_stop_its_successor)
{
    test_needs("descriptors");
    rouse_options options = flavour(0); /* elsewhere a call may be inside */
    assert_int_equal(rouse_run(come_back_with_a_copy, NULL, &options), ROUSE_OK);
}
