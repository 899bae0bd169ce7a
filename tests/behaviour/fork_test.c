/* What a forked child may do with its parent's runtime: give it up, and nothing else. */
#include "support/faults.h"
#include "support/runtimes.h"

#if defined(__unix__)

#include "support/io.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* ThreadSanitizer ends a forked child that starts threads; locks of AddressSanitizer may be held in it for ever. */
#define FORK_THREADS (!FAULTS_SANITIZED)

struct family {
    rouse_runtime *runtime;
    rouse_task waiting, finished;
    rouse_stream *stream;
};

static int answer_three(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    return 3;
}

static const rouse_task_type three = {.poll = answer_three};

static int nothing(void *argument)
{
    (void)argument;
    return 0;
}

static void try_everything(void *argument)
{
    struct family *family = argument;
    rouse_runtime *runtime = family->runtime;
    rouse_runtime_info info = {.size = sizeof info};
    rouse_task task;
    intptr_t descriptor;
    require_int(rouse_spawn_on(runtime, NULL, &three, NULL), ==, ROUSE_FORKED);
    require_int(rouse_spawn_on(runtime, &task, &three, NULL), ==, ROUSE_FORKED);
    require_int(rouse_block_on(runtime, &three, NULL, NULL), ==, ROUSE_FORKED);
    require_int(rouse_spawn_fiber_at(&task, runtime, nothing, NULL, 0, 0, NULL, NULL), ==, ROUSE_FORKED);
    require_int(rouse_go_detached_at(runtime, nothing, NULL, NULL, NULL), ==, ROUSE_FORKED);
    require_int(rouse_runtime_shutdown(runtime, 0, NULL, NULL), ==, ROUSE_FORKED);
    require_int(rouse_runtime_stats(runtime, &info, NULL, 0), ==, ROUSE_FORKED);
    require_int(rouse_join(&family->waiting, NULL), ==, ROUSE_FORKED);
    require(family->waiting.cell != NULL);
    require_int(rouse_join(&family->finished, NULL), ==, 3);
    int turned = rouse_runtime_turn(runtime, 0), told = rouse_runtime_descriptor(runtime, &descriptor);
    require(turned == ROUSE_FORKED || turned == ROUSE_INVALID);
    require(told == ROUSE_FORKED || told == ROUSE_INVALID);
    rouse_runtime_abandon(runtime);
    require_int(rouse_spawn_on(runtime, NULL, &three, NULL), ==, ROUSE_FORKED);
    require_int(rouse_runtime_shutdown(runtime, 0, NULL, NULL), ==, ROUSE_FORKED);
    rouse_runtime_abandon(runtime);
    /* A runtime of the child's own works. */
    runtime = test_runtime_new(FORK_THREADS ? TEST_STEALING : TEST_SINGLE, 2);
    require_int(rouse_block_on(runtime, &three, NULL, NULL), ==, 3);
    test_runtime_end(runtime);
}

static int in_child(void (*body)(void *argument), void *argument)
{
    int verdict[2], status = -1;
    char done = 0;
    require(pipe(verdict) == 0);
    fflush(NULL);
    pid_t child = fork();
    require(child >= 0);
    if (child == 0) {
        test_time_limit(test_is_slow() ? 60 : 10);
        body(argument);
        require(write(verdict[1], "d", 1) == 1);
        _exit(0); /* what the parent's runtime had taken is not to be counted */
    }
    require(waitpid(child, &status, 0) == child);
    require(close(verdict[1]) == 0);
    /* Under valgrind the exit status tells of what belongs to the parent, too. */
    bool finished = read(verdict[0], &done, 1) == 1;
    require(close(verdict[0]) == 0);
    return finished && (status == 0 || test_is_valgrind()) ? 0 : -1;
}

TEST(in_a_forked_child_every_call_on_the_parents_runtime_says_so)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        struct test_bell bell = TEST_BELL_INIT, *state = &bell;
        struct family family = {.runtime = test_runtime_new((enum test_executor)kind, 2)};
        assert_int_equal(rouse_spawn_on(family.runtime, &family.waiting, &test_bell_task, &state), ROUSE_OK);
        assert_int_equal(rouse_spawn_on(family.runtime, &family.finished, &three, NULL), ROUSE_OK);
        while (!rouse_is_finished(&family.finished)) {
            require_int(rouse_block_on(family.runtime, &three, NULL, NULL), ==, 3);
        }
        assert_int_equal(in_child(try_everything, &family), 0);
        /* The parent goes on as if nothing had happened. */
        assert_int_equal(rouse_block_on(family.runtime, &three, NULL, NULL), 3);
        test_bell_ring(&bell);
        assert_int_equal(rouse_join(&family.waiting, NULL), ROUSE_OK);
        assert_int_equal(rouse_join(&family.finished, NULL), 3);
        test_runtime_end(family.runtime);
    }
}

static void use_default_in_child(void *argument)
{
    rouse_task task;
    (void)argument;
    require_int(rouse_spawn(&task, &three, NULL), ==, ROUSE_FORKED);
    require_int(rouse_block_on(NULL, &three, NULL, NULL), ==, ROUSE_FORKED);
    require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_FORKED);
    require_int(rouse_default_shutdown(0), ==, ROUSE_OK);
    if (FORK_THREADS) {
        require_int(rouse_block_on(NULL, &three, NULL, NULL), ==, 3);
        require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
        require_int(rouse_default_shutdown(ROUSE_S(10)), ==, ROUSE_OK);
    }
}

TEST(a_forked_child_gives_the_default_runtime_up_and_gets_its_own)
{
    assert_int_equal(rouse_block_on(NULL, &three, NULL, NULL), 3);
    assert_int_equal(in_child(use_default_in_child, NULL), 0);
    assert_int_equal(rouse_block_on(NULL, &three, NULL, NULL), 3);
    assert_int_equal(rouse_sleep(ROUSE_MS(1)), ROUSE_OK);
    assert_int_equal(rouse_default_shutdown(ROUSE_S(10)), ROUSE_OK);
}

static void wait_in_child(void *argument)
{
    rouse_task task;
    require_int(rouse_yield(), ==, ROUSE_FORKED);
    require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_FORKED);
    require_int(rouse_go(nothing, NULL), ==, ROUSE_FORKED);
    require_int(rouse_spawn(&task, &three, NULL), ==, ROUSE_FORKED);
    require_int(rouse_block_on(NULL, &three, NULL, NULL), ==, ROUSE_FORKED);
    require_int(rouse_runtime_shutdown(argument, 0, NULL, NULL), ==, ROUSE_FORKED);
}

static int fork_in_fiber(void *argument)
{
    require_int(in_child(wait_in_child, argument), ==, 0);
    require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
    return 4;
}

static int fork_in_scope(void *argument)
{
    rouse_scope scope;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    int value = fork_in_fiber(argument);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    return value;
}

static void fork_in_task(rouse_runtime *runtime)
{
    require_int(test_fiber(runtime, fork_in_scope, runtime), ==, 4);
}

TEST(a_child_forked_by_a_fiber_is_refused_every_wait)
{
    test_on_each_executor(fork_in_task);
}

TEST(abandoning_in_the_parent_does_nothing)
{
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    rouse_runtime_abandon(runtime);
    rouse_runtime_abandon(NULL);
    assert_int_equal(rouse_block_on(runtime, &three, NULL, NULL), 3);
    test_runtime_end(runtime);
}

/* ---- what the parent waits for ---- */

static int wait_for_a_moment(rouse_op *op)
{
    rouse_deadline deadline = {{0}};
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(1))), ==, ROUSE_OK);
    require_int(rouse_op_await(op), ==, ROUSE_TIMED_OUT);
    return rouse_deadline_leave(&deadline);
}

static ptrdiff_t wait_soon(rouse_op *op)
{
    rouse_deadline deadline = {{0}};
    require_int(rouse_deadline_enter(&deadline, rouse_after(TEST_SOON)), ==, ROUSE_OK);
    ptrdiff_t answer = rouse_op_await(op);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    return answer;
}

static char byte;

/* Attaches it: from now on the parent is told of events, and does not look for itself. */
static int find_nothing(void *stream)
{
    rouse_op op;
    rouse_read_init(&op, stream, &byte, 1);
    return wait_for_a_moment(&op);
}

static int find_something(void *stream)
{
    rouse_op op;
    rouse_read_init(&op, stream, &byte, 1);
    return (int)wait_soon(&op);
}

static void close_it(void *stream)
{
    require_int(rouse_close(stream), ==, ROUSE_OK);
}

static void close_in_child(rouse_runtime *runtime)
{
    int peer;
    rouse_stream *stream = unix_stream(&peer);
    require_int(test_fiber(runtime, find_nothing, stream), ==, ROUSE_OK);
    require_int(in_child(close_it, stream), ==, 0);
    test_send_all(peer, "x", 1);
    require_int(test_fiber(runtime, find_something, stream), ==, 1);
    require_int(rouse_close(stream), ==, ROUSE_OK);
    test_close(peer);
}

TEST(a_child_that_closes_its_copy_of_a_stream_takes_no_event_from_the_parent)
{
    test_on_each_executor(close_in_child);
}

static int get_no_signal(void *unused)
{
    rouse_op op;
    (void)unused;
    rouse_signal_wait_init(&op, ROUSE_SIGNAL_TERMINATE);
    return wait_for_a_moment(&op);
}

static int get_a_signal(void *unused)
{
    rouse_op op;
    (void)unused;
    rouse_signal_wait_init(&op, ROUSE_SIGNAL_TERMINATE);
    return (int)wait_soon(&op);
}

static int sleep_a_moment(void *unused)
{
    (void)unused;
    return rouse_sleep(ROUSE_MS(5));
}

/* What happens when a process ends. */
static void end_signals(void *unused)
{
    (void)unused;
    rouse_signal_restore();
}

static void end_signals_in_child(rouse_runtime *runtime)
{
    require_int(test_fiber(runtime, get_no_signal, NULL), ==, ROUSE_OK);
    rouse_task waiter;
    require_int(rouse_spawn_fiber_at(&waiter, runtime, get_a_signal, NULL, 0, 0, NULL, ROUSE_HERE), ==, ROUSE_OK);
    require_int(test_fiber(runtime, sleep_a_moment, NULL), ==, ROUSE_OK); /* by now it waits, most likely */
    require_int(in_child(end_signals, NULL), ==, 0);
    require(kill(getpid(), SIGTERM) == 0);
    require_int(rouse_join(&waiter, NULL), ==, ROUSE_SIGNAL_TERMINATE);
    rouse_signal_restore();
}

TEST(a_child_that_ends_takes_no_signal_from_the_parent)
{
    test_on_each_executor(end_signals_in_child);
}

struct heirloom {
    rouse_runtime *runtime;
    rouse_task reader, waiter;
    rouse_stream *stream;
    struct test_bell bell;
    int peer;
    bool abandons;
};

static void disturb(void *argument)
{
    struct heirloom *heirloom = argument;
    if (heirloom->abandons)
        rouse_runtime_abandon(heirloom->runtime);
    test_bell_ring(&heirloom->bell);
    rouse_abort(&heirloom->waiter);
    rouse_abort(&heirloom->reader);
    require_int(rouse_close(heirloom->stream), ==, ROUSE_OK);
}

static void use_in_child(void *argument)
{
    struct heirloom *heirloom = argument;
    if (heirloom->abandons)
        rouse_runtime_abandon(heirloom->runtime);
    rouse_runtime *runtime = test_runtime_new(FORK_THREADS ? TEST_STEALING : TEST_SINGLE, 2);
    for (int i = 0; i < 3; i++) {
        require_int(test_fiber(runtime, find_nothing, heirloom->stream), ==, ROUSE_OK);
        test_send_all(heirloom->peer, "x", 1);
        require_int(test_fiber(runtime, find_something, heirloom->stream), ==, 1);
    }
    require_int(rouse_close(heirloom->stream), ==, ROUSE_OK);
    test_runtime_end(runtime);
}

/* A task of the parent waits for a stream, and another for a bell, while the child does something. On the first kind of
 * executor nobody works meanwhile. */
static void inherit(void (*in_the_child)(void *heirloom), int kinds)
{
    for (int i = 0; i < 2 * kinds; i++) {
        struct heirloom heirloom = {.bell = TEST_BELL_INIT, .abandons = i >= kinds};
        struct test_bell *bell = &heirloom.bell;
        ptrdiff_t answer = 0;
        rouse_op op;
        heirloom.runtime = test_runtime_new((enum test_executor)(i % kinds), 2);
        heirloom.stream = unix_stream(&heirloom.peer);
        require_int(test_fiber(heirloom.runtime, find_nothing, heirloom.stream), ==, ROUSE_OK);
        rouse_read_init(&op, heirloom.stream, &byte, 1);
        require_int(rouse_spawn_on(heirloom.runtime, &heirloom.reader, &op_task, &op), ==, ROUSE_OK);
        require_int(rouse_spawn_on(heirloom.runtime, &heirloom.waiter, &test_bell_task, &bell), ==, ROUSE_OK);
        for (bool waits = false; !waits;) {
            require_int(rouse_block_on(heirloom.runtime, &three, NULL, NULL), ==, 3);
            pthread_mutex_lock(&bell->lock);
            waits = bell->waiter.table != NULL;
            pthread_mutex_unlock(&bell->lock);
        }
        require_int(in_child(in_the_child, &heirloom), ==, 0);
        test_send_all(heirloom.peer, "x", 1);
        require_int(rouse_join(&heirloom.reader, &answer), ==, ROUSE_OK);
        require_int(answer, ==, 1);
        test_bell_ring(bell);
        require_int(rouse_join(&heirloom.waiter, NULL), ==, ROUSE_OK);
        require_int(rouse_close(heirloom.stream), ==, ROUSE_OK);
        test_close(heirloom.peer);
        test_runtime_end(heirloom.runtime);
    }
}

TEST(a_child_that_wakes_aborts_and_closes_disturbs_no_task_of_the_parent)
{
    inherit(disturb, TEST_EXECUTORS);
}

TEST(a_child_waits_for_an_inherited_stream_with_a_runtime_of_its_own)
{
    inherit(use_in_child, 1);
}

static void poll_in_child(void *argument)
{
    struct hand hand;
    hand_init(&hand);
    rouse_read_init(&hand.op, argument, &byte, 1);
    require_int(hand_poll(&hand), ==, ROUSE_FORKED);
    hand_fini(&hand);
}

TEST(an_operation_polled_by_hand_in_a_child_does_not_join_the_parents_waiters)
{
    int peer;
    rouse_stream *stream = unix_stream(&peer);
    assert_int_equal(rouse_block_on(NULL, &three, NULL, NULL), 3);
    assert_int_equal(in_child(poll_in_child, stream), 0);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
    test_close(peer);
    end_default_runtime();
}

static struct {
    int ends[2];  /* of a pipe that one fiber writes to */
    pid_t parent; /* of the fork */
    pid_t child;  /* known to the parent */
} forked;

static int write_ten(void *unused)
{
    (void)unused;
    for (int i = 0; i < 10; i++) {
        (void)rouse_yield();
        require(write(forked.ends[1], "x", 1) == 1);
    }
    return 0;
}

static int fork_and_return(void *unused)
{
    (void)unused;
    require_int(rouse_go(write_ten, NULL), ==, ROUSE_OK);
    pid_t child = fork();
    require(child >= 0);
    if (child > 0)
        forked.child = child;
    return 0;
}

static bool child_has_ended(void)
{
    int status;
    return waitpid(forked.child, &status, WNOHANG) == forked.child;
}

TEST(a_fiber_that_returns_in_the_child_ends_it_and_nothing_of_the_parents_runs_there)
{
    static const int kinds[] = {TEST_SINGLE, TEST_STEALING};
    for (int i = 0; i < 2; i++) {
        char bytes[64];
        rouse_options options = test_options((enum test_executor)kinds[i], 1);
        forked.parent = getpid();
        assert_int_equal(pipe(forked.ends), 0);
        int value = rouse_run(fork_and_return, NULL, &options);
        if (getpid() != forked.parent)
            _exit(value == ROUSE_FORKED ? 0 : 3);
        assert_int_equal(value, 0);
        eventually(child_has_ended(), ROUSE_S(5));
        assert_int_equal(read(forked.ends[0], bytes, sizeof bytes), 10);
        test_close(forked.ends[0]);
        test_close(forked.ends[1]);
    }
}

#endif
