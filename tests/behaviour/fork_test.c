/* What a forked child may do with its parent's runtime: give it up, and nothing else. */
#include "support/faults.h"
#include "support/runtimes.h"

#include "support/io.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

TEST_FILE_NEEDS(fork, descriptors, signals)

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

static atomic_bool user_waits;
static rouse_waker user_waiter;

static ptrdiff_t wait_for_ever(void *object, void *data, size_t length, rouse_context *context)
{
    (void)object, (void)data, (void)length;
    if (!atomic_load(&user_waits)) {
        user_waiter = rouse_waker_clone(&context->waker);
        atomic_store(&user_waits, true);
        return ROUSE_PENDING;
    }
    return 0;
}

static ptrdiff_t write_nothing(void *object, const void *data, size_t length, rouse_context *context)
{
    (void)object, (void)data, (void)length, (void)context;
    return ROUSE_BROKEN_PIPE;
}

static void read_users_stream(void *stream)
{
    char byte;
    require_int(rouse_read(stream, &byte, 1), ==, 0);
}

static void end_the_first_default(void *argument)
{
    (void)argument;
    if (FORK_THREADS) {
        require_int(rouse_block_on(NULL, &three, NULL, NULL), ==, 3);
        require_int(rouse_default_shutdown(ROUSE_S(10)), ==, ROUSE_OK);
    }
}

/* That thread waits in no runtime, and none was there when the process forked. */
TEST(a_child_ends_its_default_runtime_whatever_a_thread_of_the_parent_waits_for)
{
    static const rouse_stream_type type = {.name = "silent", .poll_read = wait_for_ever, .poll_write = write_nothing};
    rouse_stream *stream;
    test_thread thread;
    assert_int_equal(rouse_stream_new(&stream, &type, NULL), ROUSE_OK);
    test_thread_start(&thread, read_users_stream, stream);
    eventually(atomic_load(&user_waits), ROUSE_S(5));
    assert_int_equal(in_child(end_the_first_default, NULL), 0);
    rouse_waker_wake(&user_waiter);
    test_thread_join(&thread, TEST_SOON);
    assert_int_equal(rouse_close(stream), ROUSE_OK);
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
    test_needs("handlers");
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
    if (child == 0 && FAULTS_THREAD_SANITIZER)
        _exit(
            0); /* in a child it takes no notice of what orders what, and reports the switch to the thread's own stack */
    if (child > 0)
        forked.child = child;
    return 0;
}

static bool child_has_ended(void)
{
    int status = 0;
    bool ended = waitpid(forked.child, &status, WNOHANG) == forked.child;
    require(status == 0 || test_is_slow()); /* tools count as lost what the threads that are gone held */
    return ended;
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

/* ---- what other threads were doing ---- */

static ptrdiff_t read_nothing(void *object, void *data, size_t length, rouse_context *context)
{
    (void)object, (void)data, (void)length, (void)context;
    return 0;
}

static ptrdiff_t write_all(void *object, const void *data, size_t length, rouse_context *context)
{
    (void)object, (void)data, (void)context;
    return (ptrdiff_t)length;
}

static const rouse_stream_type trivial = {.name = "trivial", .poll_read = read_nothing, .poll_write = write_all};

struct crowd {
    rouse_stream *shared;
    atomic_bool ends;
};

static void open_and_close(void *argument)
{
    struct crowd *crowd = argument;
    rouse_stream *stream;
    while (!atomic_load(&crowd->ends))
        if (rouse_stream_new(&stream, &trivial, NULL) == ROUSE_OK)
            require_int(rouse_close(stream), ==, ROUSE_OK);
}

static void look_at_shared(void *argument)
{
    struct crowd *crowd = argument;
    intptr_t descriptor;
    while (!atomic_load(&crowd->ends))
        require_int(rouse_descriptor(crowd->shared, &descriptor), ==, ROUSE_OK);
}

static void catch_and_restore(void *argument)
{
    struct crowd *crowd = argument;
    while (!atomic_load(&crowd->ends)) {
        require_int(rouse_signal_catch(ROUSE_SIGNAL_HANG_UP), ==, ROUSE_OK);
        rouse_signal_restore();
    }
}

static void signal_oneself(void *argument)
{
    struct crowd *crowd = argument;
    while (!atomic_load(&crowd->ends))
        require(pthread_kill(pthread_self(), SIGTERM) == 0);
}

static void use_streams(void *argument)
{
    struct crowd *crowd = argument;
    rouse_stream *stream;
    require_int(rouse_stream_new(&stream, &trivial, NULL), ==, ROUSE_OK);
    require_int(rouse_close(stream), ==, ROUSE_OK);
    require_int(rouse_close(crowd->shared), ==, ROUSE_OK);
}

static void use_signals(void *unused)
{
    (void)unused;
    rouse_signal_restore();
    require_int(rouse_signal_catch(ROUSE_SIGNAL_TERMINATE), ==, ROUSE_OK);
    rouse_signal_restore();
}

/* Forks again and again while another thread does something. */
static void fork_beside(void (*busy)(void *crowd), void (*in_the_child)(void *crowd))
{
    struct crowd crowd = {.ends = false};
    test_thread thread;
    int peer;
    crowd.shared = unix_stream(&peer);
    test_thread_start(&thread, busy, &crowd);
    for (int i = 0; i < (test_is_slow() ? 10 : 60); i++) {
        require_int(in_child(in_the_child, &crowd), ==, 0);
    }
    atomic_store(&crowd.ends, true);
    test_thread_join(&thread, ROUSE_S(10));
    require_int(rouse_close(crowd.shared), ==, ROUSE_OK);
    test_close(peer);
}

TEST(a_child_uses_streams_whatever_other_threads_of_the_parent_did_with_them)
{
    test_needs_all_memory("the children would fail, not the parent");
    if (FORK_THREADS) {
        fork_beside(open_and_close, use_streams);
        fork_beside(look_at_shared, use_streams);
    }
}

TEST(a_child_catches_signals_whatever_other_threads_of_the_parent_did_with_them)
{
    test_needs_all_memory("the children would fail, not the parent");
    if (!FORK_THREADS)
        return;
    fork_beside(catch_and_restore, use_signals);
    assert_int_equal(rouse_signal_catch(ROUSE_SIGNAL_TERMINATE), ROUSE_OK);
    fork_beside(signal_oneself, use_signals);
    rouse_signal_restore();
}

struct slow_object {
    rouse_stream *stream;
    atomic_bool entered, may_leave, closed;
};

static ptrdiff_t read_slowly(void *object, void *data, size_t length, rouse_context *context)
{
    struct slow_object *slow = object;
    (void)data, (void)length, (void)context;
    atomic_store(&slow->entered, true);
    eventually(atomic_load(&slow->may_leave), ROUSE_S(20));
    return 0;
}

static void close_slow(void *object)
{
    atomic_store(&((struct slow_object *)object)->closed, true);
}

static const rouse_stream_type slow_type = {
    .name = "slow", .poll_read = read_slowly, .poll_write = write_all, .close = close_slow};

static void read_from_slow(void *argument)
{
    struct slow_object *slow = argument;
    struct hand hand;
    hand_init(&hand);
    rouse_read_init(&hand.op, slow->stream, &byte, 1);
    require_int(hand_poll(&hand), ==, 0);
    hand_fini(&hand);
}

static void close_beside_a_call(void *argument)
{
    struct slow_object *slow = argument;
    require_int(rouse_close(slow->stream), ==, ROUSE_OK);
    require(atomic_load(&slow->closed));
}

TEST(a_close_in_a_child_does_not_wait_for_calls_of_threads_that_it_does_not_have)
{
    struct slow_object slow = {.stream = NULL};
    test_thread thread;
    assert_int_equal(rouse_stream_new(&slow.stream, &slow_type, &slow), ROUSE_OK);
    test_thread_start(&thread, read_from_slow, &slow);
    eventually(atomic_load(&slow.entered), ROUSE_S(10));
    assert_int_equal(in_child(close_beside_a_call, &slow), 0);
    atomic_store(&slow.may_leave, true);
    test_thread_join(&thread, ROUSE_S(10));
    assert_int_equal(rouse_close(slow.stream), ROUSE_OK);
    assert_true(atomic_load(&slow.closed));
}

/* ---- returning in the child ---- */

static int fork_when_cancelled(void *unused)
{
    (void)unused;
    require_int(rouse_sleep(ROUSE_NEVER), ==, ROUSE_CANCELLED);
    pid_t child = fork();
    require(child >= 0);
    if (child > 0)
        forked.child = child;
    return 0;
}

static int end_late(void *unused)
{
    rouse_shield shield = {{0}};
    (void)unused;
    (void)rouse_sleep(ROUSE_NEVER);
    require_int(rouse_shield_enter(&shield, rouse_after(ROUSE_S(10))), ==, ROUSE_OK);
    (void)rouse_sleep(ROUSE_MS(50));
    return rouse_shield_leave(&shield);
}

TEST(a_shutdown_that_drives_a_fiber_which_forks_and_returns_says_so_in_the_child)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    char answer = 0;
    forked.parent = getpid();
    assert_int_equal(pipe(forked.ends), 0);
    assert_int_equal(rouse_go_detached_at(runtime, end_late, NULL, NULL, NULL), ROUSE_OK);
    assert_int_equal(rouse_go_detached_at(runtime, fork_when_cancelled, NULL, NULL, NULL), ROUSE_OK);
    for (int i = 0; i < 4; i++)
        assert_true(rouse_runtime_turn(runtime, 0) >= 0);
    int status = rouse_runtime_shutdown(runtime, ROUSE_S(20), NULL, NULL);
    if (getpid() != forked.parent) {
        answer = status == ROUSE_FORKED ? 'f' : '?';
        _exit(write(forked.ends[1], &answer, 1) == 1 ? 0 : 3);
    }
    assert_int_equal(status, ROUSE_OK);
    eventually(child_has_ended(), ROUSE_S(5));
    assert_int_equal(read(forked.ends[0], &answer, 1), 1);
    assert_int_equal(answer, 'f');
    test_close(forked.ends[0]);
    test_close(forked.ends[1]);
}

static int fork_and_leave_open(void *unused)
{
    static rouse_scope scope;
    (void)unused;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    pid_t child = fork();
    require(child >= 0);
    if (child == 0) {
        require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_FORKED);
        if (FAULTS_THREAD_SANITIZER)
            _exit(0); /* as in fork_and_return */
        return 0;
    }
    forked.child = child;
    return rouse_scope_close(&scope);
}

TEST(a_fiber_that_returns_in_the_child_with_an_open_scope_ends_it)
{
    rouse_options options = test_options(TEST_SINGLE, 1);
    forked.parent = getpid();
    int value = rouse_run(fork_and_leave_open, NULL, &options);
    if (getpid() != forked.parent)
        _exit(value == ROUSE_FORKED ? 0 : 3);
    assert_int_equal(value, ROUSE_OK);
    eventually(child_has_ended(), ROUSE_S(5));
}

static void abandon_and_count(void *argument)
{
    int before = test_descriptor_count();
    rouse_runtime_abandon(argument);
    /* One at least for each reactor, and one has no more than three. */
    int given = before - test_descriptor_count();
    require_int(given, >=, test_has("inherited_sets") ? 4 : 0);
    require(given == 0 || test_has("inherited_sets"));
}

TEST(a_child_gives_up_all_reactors_of_a_runtime_with_fewer_threads_than_were_asked_for)
{
    test_needs("faults");
    test_needs_all_memory("each thread takes some, and there would be fewer than are counted");
    rouse_options options = test_options(TEST_STEALING, 4);
    rouse_runtime *runtime;
    options.reactors = 4;
    faults_syscall("pthread_create", 2, EAGAIN, FAULTS_ALWAYS);
    int status = rouse_runtime_new(&runtime, &options);
    faults_syscall("pthread_create", 1, 0, 0);
    assert_int_equal(status, ROUSE_OK);
    assert_int_equal(in_child(abandon_and_count, runtime), 0);
    test_runtime_end(runtime);
}
