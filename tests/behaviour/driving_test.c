/* Single-threaded runtimes and the threads that drive them: waiting for the seat, foreign loops, and what is left behind. */
#include "support/io.h"
#include "support/runtimes.h"

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- many threads, one seat ---- */

struct seated {
    rouse_runtime *runtime;
    struct test_bell bell;
    sem_t *polled;
};

static int post_and_wait(void *state, void *result, rouse_context *context)
{
    struct seated *seated = *(struct seated **)state;
    (void)result;
    int status = test_bell_poll(&seated->bell, context);
    test_post(seated->polled);
    return status;
}

static void block_until_rung(void *argument)
{
    static const rouse_task_type type = {.name = "seated", .poll = post_and_wait, .state_size = sizeof(void *)};
    require_int(rouse_block_on(((struct seated *)argument)->runtime, &type, &argument, NULL), ==, ROUSE_OK);
}

static long context_switches(void)
{
    struct rusage usage;
    require(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_nvcsw + usage.ru_nivcsw;
}

TEST_SERIAL(threads_that_wait_on_one_runtime_leave_each_other_asleep)
{
    enum { THREADS = 8 };
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    struct seated seated[THREADS];
    test_thread threads[THREADS];
    sem_t polled;
    assert_int_equal(sem_init(&polled, 0, 0), 0);
    for (int i = 0; i < THREADS; i++) {
        seated[i] = (struct seated){runtime, TEST_BELL_INIT, &polled};
        test_thread_start(&threads[i], block_until_rung, &seated[i]);
        test_await(&polled);
    }
    /* The seat is passed on twice: by the thread that has had it from the start, and by another. */
    for (int i = 0; i < 2; i++) {
        test_bell_ring(&seated[i].bell);
        test_await(&polled);
        test_thread_join(&threads[i], TEST_SOON);
    }
    long switches = context_switches();
    int64_t used_ns = test_cpu_ns();
    test_sleep_ns(ROUSE_MS(300));
    switches = context_switches() - switches;
    used_ns = test_cpu_ns() - used_ns;
    for (int i = THREADS - 1; i >= 2; i--) {
        test_bell_ring(&seated[i].bell);
        test_thread_join(&threads[i], TEST_SOON);
    }
    if (!test_is_slow()) {
        assert_in_range(switches, 0, 60);
        assert_in_range(used_ns, 0, ROUSE_MS(10));
    }
    test_runtime_end(runtime);
    sem_destroy(&polled);
}

/* ---- foreign loops ---- */

static atomic_int counted;

static int count_one(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    atomic_fetch_add(&counted, 1);
    return ROUSE_OK;
}

static const rouse_task_type count_type = {.name = "count", .poll = count_one};

static int sleep_and_count(void *argument)
{
    require_int(rouse_sleep(*(int64_t *)argument), ==, ROUSE_OK);
    atomic_fetch_add(&counted, 1);
    return 0;
}

/* Waits in the kernel first, so that the thread has heard of everything that came before. */
struct leaver {
    rouse_op op;
    int polls; /* after the wait */
    bool waits;
};

static bool has_waited(struct leaver *leaver, rouse_context *context)
{
    if (!leaver->waits) {
        leaver->waits = true;
        rouse_sleep_init(&leaver->op, rouse_after(ROUSE_MS(1)));
    }
    return leaver->polls > 0 || rouse_op_poll(&leaver->op, context) == ROUSE_OK;
}

static int leave_tasks_behind(void *state, void *result, rouse_context *context)
{
    (void)result;
    if (!has_waited(state, context)) {
        return ROUSE_PENDING;
    }
    for (int i = 0; i < 3; i++) {
        require_int(rouse_spawn(NULL, &count_type, NULL), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

static int64_t nap_ns = ROUSE_MS(2);

static int leave_timer_behind(void *state, void *result, rouse_context *context)
{
    struct leaver *leaver = state;
    (void)result;
    if (!has_waited(leaver, context)) {
        return ROUSE_PENDING;
    }
    if (++leaver->polls == 1) {
        require_int(rouse_spawn_fiber_at(NULL, NULL, sleep_and_count, &nap_ns, sizeof nap_ns, 0, NULL, NULL), ==,
                    ROUSE_OK);
    }
    if (leaver->polls < 3) { /* by then the fiber sleeps */
        rouse_waker_wake_by_ref(&context->waker);
        return ROUSE_PENDING;
    }
    return ROUSE_OK;
}

struct visit {
    rouse_runtime *runtime;
    const rouse_task_type *type;
};

static void visit_and_leave(void *argument)
{
    struct visit *visit = argument;
    struct leaver leaver = {.polls = 0};
    require_int(rouse_block_on(visit->runtime, visit->type, &leaver, NULL), ==, ROUSE_OK);
}

/* A loop that knew of nothing to wait for but the descriptor learns of what another thread has left behind. */
static void hear_of_what_is_left(const rouse_task_type *type, int expected)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    for (int round = 0; round < 3; round++) {
        struct visit visit = {runtime, type};
        intptr_t descriptor = -1;
        test_thread thread;
        atomic_store(&counted, 0);
        require_int(rouse_runtime_descriptor(runtime, &descriptor), ==, ROUSE_OK);
        require_int(rouse_runtime_turn(runtime, 0), ==, 0);
        require_int(rouse_runtime_deadline(runtime), ==, ROUSE_NEVER);
        test_thread_start(&thread, visit_and_leave, &visit);
        test_thread_join(&thread, TEST_SOON);
        int64_t limit = test_now_ns() + TEST_SOON;
        int64_t deadline = ROUSE_NEVER; /* what the loop believes until it hears better */
        while (atomic_load(&counted) < expected) {
            require(test_now_ns() < limit);
            struct pollfd item = {.fd = (int)descriptor, .events = POLLIN};
            int64_t span = deadline == ROUSE_NEVER ? TEST_SOON : deadline - rouse_now();
            int ready = poll(&item, 1, span <= 0 ? 0 : (int)((span + 999999) / 1000000));
            require(ready > 0 || deadline != ROUSE_NEVER);
            require_int(rouse_runtime_turn(runtime, 0), >=, 0);
            deadline = rouse_runtime_deadline(runtime);
        }
        while (rouse_runtime_turn(runtime, 0) > 0) {}
    }
    test_runtime_end(runtime);
}

TEST(a_foreign_loop_hears_of_tasks_that_another_thread_left_behind)
{
    test_needs("watchable");
    static const rouse_task_type type = {.poll = leave_tasks_behind, .state_size = sizeof(struct leaver)};
    hear_of_what_is_left(&type, 3);
}

TEST(a_foreign_loop_hears_of_timers_that_another_thread_left_behind)
{
    test_needs("watchable");
    static const rouse_task_type type = {.poll = leave_timer_behind, .state_size = sizeof(struct leaver)};
    hear_of_what_is_left(&type, 1);
}

/* ---- runtimes that nobody drives any more ---- */

static int read_in_vain(void *argument)
{
    rouse_deadline deadline;
    char byte;
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(1))), ==, ROUSE_OK);
    require_int(rouse_read(argument, &byte, 1), ==, ROUSE_TIMED_OUT);
    return rouse_deadline_leave(&deadline);
}

static int read_in_time(void *argument)
{
    rouse_deadline deadline;
    char byte = 0;
    require_int(rouse_deadline_enter(&deadline, rouse_after(TEST_SOON)), ==, ROUSE_OK);
    require_int(rouse_read(argument, &byte, 1), ==, 1);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    return byte;
}

static void send_later(void *argument)
{
    test_sleep_ns(ROUSE_MS(10)); /* the reader should be waiting by then */
    test_send_all(*(int *)argument, "m", 1);
}

TEST(a_stream_moves_from_a_runtime_that_nobody_drives_to_one_that_waits_for_it)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *first = test_runtime_new(TEST_SINGLE, 1);
        rouse_runtime *second = test_runtime_new((enum test_executor)kind, 2);
        test_thread thread;
        int peer;
        rouse_stream *stream = tcp_stream(&peer);
        for (int i = 0; i < 2; i++) {
            require_int(test_fiber(first, read_in_vain, stream), ==, ROUSE_OK);
            test_thread_start(&thread, send_later, &peer);
            require_int(test_fiber(second, read_in_time, stream), ==, 'm');
            test_thread_join(&thread, TEST_SOON);
        }
        test_send_all(peer, "b", 1); /* and back */
        require_int(test_fiber(first, read_in_time, stream), ==, 'b');
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_close(peer);
        test_runtime_end(second);
        test_runtime_end(first);
    }
}

static int yield_often(void *times)
{
    for (intptr_t i = 0; i < (intptr_t)times; i++)
        require_int(rouse_yield(), ==, ROUSE_OK);
    return ROUSE_OK;
}

static atomic_bool driven;

static void drive(void *runtime)
{
    require_int(test_fiber(runtime, yield_often, (void *)(intptr_t)test_scale(20000, 1000000)), ==, ROUSE_OK);
    atomic_store(&driven, true);
}

/* ThreadSanitizer looks on. */
TEST(a_foreign_loop_may_ask_for_the_deadline_while_another_thread_drives)
{
    test_needs("watchable");
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    test_thread thread;
    intptr_t descriptor;
    assert_int_equal(rouse_runtime_descriptor(runtime, &descriptor), ROUSE_OK);
    atomic_store(&driven, false);
    test_thread_start(&thread, drive, runtime);
    while (!atomic_load(&driven)) {
        int64_t deadline_ns = rouse_runtime_deadline(runtime);
        require(deadline_ns == 0 || deadline_ns == ROUSE_NEVER);
        require_int(rouse_runtime_turn(runtime, 0), >=, ROUSE_BUSY);
    }
    test_thread_join(&thread, TEST_SOON);
    test_runtime_end(runtime);
}

static int wait_to_read(void *stream)
{
    char byte;
    require_int(rouse_read(stream, &byte, 1), ==, ROUSE_CANCELLED);
    return ROUSE_OK;
}

enum { FLOOD = 16 << 20 }; /* more than the kernel takes in advance */

static int write_much(void *stream)
{
    static char data[FLOOD];
    rouse_deadline deadline;
    require_int(rouse_deadline_enter(&deadline, rouse_after(TEST_SOON)), ==, ROUSE_OK);
    require_int(rouse_write_all(stream, data, sizeof data, NULL), ==, ROUSE_OK);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    return ROUSE_OK;
}

static void receive_much(void *peer)
{
    static char data[FLOOD];
    test_sleep_ns(ROUSE_MS(20)); /* the writer should be waiting by then */
    test_receive_exact(*(int *)peer, data, sizeof data);
}

TEST(a_reader_on_a_runtime_that_nobody_drives_does_not_keep_a_writer_on_another)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *first = test_runtime_new(TEST_SINGLE, 1);
        rouse_runtime *second = test_runtime_new((enum test_executor)kind, 2);
        rouse_task reader;
        test_thread thread;
        int peer;
        rouse_stream *stream = tcp_stream(&peer);
        require_int(rouse_spawn_fiber_at(&reader, first, wait_to_read, stream, 0, 0, NULL, NULL), ==, ROUSE_OK);
        while (rouse_runtime_turn(first, 0) > 0) {}
        test_thread_start(&thread, receive_much, &peer);
        require_int(test_fiber(second, write_much, stream), ==, ROUSE_OK);
        test_thread_join(&thread, TEST_SOON);
        rouse_abort(&reader);
        require_int(rouse_join(&reader, NULL), ==, ROUSE_OK);
        require_int(rouse_close(stream), ==, ROUSE_OK);
        test_close(peer);
        test_runtime_end(second);
        test_runtime_end(first);
    }
}

static int wait_for_hang_up(void *unused)
{
    (void)unused;
    require_int(rouse_signal_wait(ROUSE_SIGNAL_HANG_UP), ==, ROUSE_CANCELLED);
    return ROUSE_OK;
}

static int wait_for_terminate(void *unused)
{
    rouse_deadline deadline;
    (void)unused;
    require_int(rouse_signal_catch(ROUSE_SIGNAL_TERMINATE), ==, ROUSE_OK);
    require_int(rouse_deadline_enter(&deadline, rouse_after(TEST_SOON)), ==, ROUSE_OK);
    require_int(kill(getpid(), SIGTERM), ==, 0); /* workers block signals */
    require_int(rouse_signal_wait(ROUSE_SIGNAL_TERMINATE), ==, ROUSE_SIGNAL_TERMINATE);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    return ROUSE_OK;
}

TEST(a_waiter_for_signals_on_a_runtime_that_nobody_drives_does_not_keep_them_from_others)
{
    test_needs("handlers");
    rouse_runtime *first = test_runtime_new(TEST_SINGLE, 1), *second = test_runtime_new(TEST_STEALING, 2);
    rouse_task waiter;
    require_int(rouse_spawn_fiber_at(&waiter, first, wait_for_hang_up, NULL, 0, 0, NULL, NULL), ==, ROUSE_OK);
    while (rouse_runtime_turn(first, 0) > 0) {}
    require_int(test_fiber(second, wait_for_terminate, NULL), ==, ROUSE_OK);
    rouse_abort(&waiter);
    require_int(rouse_join(&waiter, NULL), ==, ROUSE_OK);
    rouse_signal_restore();
    test_runtime_end(second);
    test_runtime_end(first);
}
