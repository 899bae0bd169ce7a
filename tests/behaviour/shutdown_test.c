/* The end of a runtime: what it ends, what it reports, who must wait, and that nothing is left. */
#include "support/io.h"
#include "support/runtimes.h"

#include <sched.h>

/* ---- reports ---- */

struct report {
    int tasks, streams, listeners;
    const char *name, *site; /* of the last one */
};

static void note(void *context, const rouse_leftover *leftover)
{
    struct report *report = context;
    require(leftover->name != NULL);
    report->name = leftover->name;
    report->site = leftover->site;
    if (strcmp(leftover->kind, "task") == 0) {
        report->tasks++;
    } else {
        require(strcmp(leftover->kind, "stream") == 0);
        report->streams += strcmp(leftover->name, "socket") == 0;
        report->listeners += strcmp(leftover->name, "listener") == 0;
    }
}

/* ---- what is ended ---- */

static atomic_int drops;

struct waiting {
    struct test_bell *bell; /* NULL: wakes itself for ever */
};

static int wait_or_spin(void *state, void *result, rouse_context *context)
{
    struct waiting *waiting = state;
    (void)result;
    if (waiting->bell != NULL) {
        return test_bell_poll(waiting->bell, context);
    }
    rouse_waker_wake_by_ref(&context->waker);
    return ROUSE_PENDING;
}

static void drop_waiting(void *state)
{
    struct waiting *waiting = state;
    atomic_fetch_add(&drops, 1);
    if (waiting->bell != NULL) {
        test_bell_forget(waiting->bell);
    }
}

static const rouse_task_type waiting_type = {
    .name = "waiting", .poll = wait_or_spin, .drop = drop_waiting, .state_size = sizeof(struct waiting)};

static int run_until_cancelled(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    test_post(*(sem_t **)state);
    while (!rouse_is_cancelled()) {
        sched_yield();
    }
    return ROUSE_OK;
}

static void drop_running(void *state)
{
    (void)state;
    atomic_fetch_add(&drops, 1);
}

static const rouse_task_type running_type = {
    .name = "running", .poll = run_until_cancelled, .drop = drop_running, .state_size = sizeof(sem_t *)};

static int sleep_till_cancelled(void *argument)
{
    require_int(rouse_sleep(ROUSE_NEVER), ==, ROUSE_CANCELLED);
    require_int(rouse_spawn(NULL, &waiting_type, NULL), ==, ROUSE_SHUTTING_DOWN);
    require_int(rouse_go_detached(sleep_till_cancelled, NULL), ==, ROUSE_SHUTTING_DOWN);
    atomic_fetch_add(&drops, 1);
    (void)argument;
    return 0;
}

TEST(tasks_that_are_idle_or_queued_or_run_are_all_ended)
{
    enum { EACH = 10 };
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        for (unsigned workers = 1; workers <= 2; workers++) {
            rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, workers);
            struct test_bell bells[EACH];
            sem_t started, *started_state = &started;
            int expected = 0, running = kind == TEST_SINGLE ? 0 : (int)workers;
            require(sem_init(&started, 0, 0) == 0);
            atomic_store(&drops, 0);
            for (int i = 0; i < EACH; i++, expected += 3) {
                bells[i] = (struct test_bell)TEST_BELL_INIT;
                struct waiting idle = {&bells[i]}, spinning = {NULL};
                require_int(rouse_spawn_on(runtime, NULL, &waiting_type, &idle), ==, ROUSE_OK);
                require_int(rouse_spawn_on(runtime, NULL, &waiting_type, &spinning), ==, ROUSE_OK);
                require_int(rouse_go_detached_at(runtime, sleep_till_cancelled, NULL, NULL, NULL), ==, ROUSE_OK);
            }
            rouse_runtime_turn(runtime, 0);
            for (int i = 0; i < running; i++, expected++) { /* one on each worker, which it keeps */
                require_int(rouse_spawn_on(runtime, NULL, &running_type, &started_state), ==, ROUSE_OK);
                test_await(&started);
            }
            for (int i = 0; i < EACH; i++, expected += 2) { /* these stay queued */
                struct waiting spinning = {NULL};
                require_int(rouse_spawn_on(runtime, NULL, &waiting_type, &spinning), ==, ROUSE_OK);
                require_int(rouse_go_detached_at(runtime, sleep_till_cancelled, NULL, NULL, NULL), ==, ROUSE_OK);
            }
            test_runtime_end(runtime);
            require_int(atomic_load(&drops), ==, expected);
            sem_destroy(&started);
        }
    }
}

static int shield_for_ever(void *argument)
{
    rouse_shield shield;
    require_int(rouse_shield_enter(&shield, ROUSE_NEVER), ==, ROUSE_OK);
    if (argument != NULL) {
        test_post(argument);
    }
    require_int(rouse_sleep(ROUSE_NEVER), ==, ROUSE_CANCELLED);
    require_int(rouse_shield_leave(&shield), ==, ROUSE_OK);
    return 0;
}

TEST(shields_hold_a_shutdown_off_until_its_time_limit)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        require_int(rouse_go_detached_at(runtime, shield_for_ever, NULL, NULL, NULL), ==, ROUSE_OK);
        rouse_runtime_turn(runtime, 0);
        if (kind != TEST_SINGLE) { /* it must have begun */
            rouse_worker_stats stats[2] = {{0}};
            rouse_runtime_info info = {.size = sizeof info};
            while (stats[0].polls + stats[1].polls == 0) {
                require_int(rouse_runtime_stats(runtime, &info, stats, 2), ==, ROUSE_OK);
                test_take_turns();
            }
        }
        int64_t before = rouse_now();
        require_int(rouse_runtime_shutdown(runtime, ROUSE_MS(30), test_no_leftover, NULL), ==, ROUSE_OK);
        require_int(rouse_now() - before, >=, ROUSE_MS(30));
    }
}

/* ---- the time limit ---- */

struct stuck {
    sem_t started, go;
};

static int stay_stuck(void *state, void *result, rouse_context *context)
{
    struct stuck *stuck = *(struct stuck **)state;
    (void)result;
    (void)context;
    test_post(&stuck->started);
    test_await(&stuck->go);
    return ROUSE_OK;
}

static const rouse_task_type stuck_type = {.name = "stuck", .poll = stay_stuck, .state_size = sizeof(struct stuck *)};

static int stay_stuck_in_fiber(void *argument)
{
    return stay_stuck(&argument, NULL, NULL);
}

static void stuck_init(struct stuck *stuck)
{
    require(sem_init(&stuck->started, 0, 0) == 0 && sem_init(&stuck->go, 0, 0) == 0);
}

static void stuck_fini(struct stuck *stuck)
{
    sem_destroy(&stuck->started);
    sem_destroy(&stuck->go);
}

TEST(a_task_that_does_not_end_in_time_is_reported_and_a_second_call_ends_the_runtime)
{
    for (int i = 0; i < 4; i++) {
        rouse_runtime *runtime = test_runtime_new(i & 1 ? TEST_STEALING : TEST_ROUND_ROBIN, 2);
        bool fiber = i & 2, joinable = i == 1 || i == 2;
        rouse_fiber_options options = ROUSE_FIBER_OPTIONS_INIT;
        struct report report = {0};
        struct stuck stuck, *state = &stuck;
        struct test_bell bell = TEST_BELL_INIT;
        struct waiting waiting = {&bell};
        rouse_task task;
        stuck_init(&stuck);
        options.name = "stuck fiber";
        int status = fiber ? rouse_spawn_fiber_at(joinable ? &task : NULL, runtime, stay_stuck_in_fiber, state, 0, 0,
                                                  &options, "fiber.c:2")
                           : rouse_spawn_at(joinable ? &task : NULL, runtime, &stuck_type, &state, "task.c:1");
        require_int(status, ==, ROUSE_OK);
        test_await(&stuck.started);
        require_int(rouse_spawn_on(runtime, NULL, &waiting_type, &waiting), ==, ROUSE_OK);
        int64_t before = rouse_now();
        require_int(rouse_runtime_shutdown(runtime, ROUSE_MS(5), note, &report), ==, ROUSE_TIMED_OUT);
        require_int(rouse_now() - before, >=, ROUSE_MS(5));
        require_int(report.tasks, >=, 1); /* the other one may be queued behind it */
        require_int(report.streams + report.listeners, ==, 0);
        if (report.tasks == 1) {
            assert_string_equal(report.name, fiber ? "stuck fiber" : "stuck");
            assert_string_equal(report.site, fiber ? "fiber.c:2" : "task.c:1");
        }
        /* The runtime is still there, and still takes nothing new. The other task may be ending at this moment. */
        require_int(test_tasks_alive(runtime), >=, 1);
        require_int(rouse_spawn_on(runtime, NULL, &stuck_type, &state), ==, ROUSE_SHUTTING_DOWN);
        require_int(rouse_block_on(runtime, &stuck_type, &state, NULL), ==, ROUSE_SHUTTING_DOWN);
        require_int(rouse_go_detached_at(runtime, shield_for_ever, NULL, NULL, NULL), ==, ROUSE_SHUTTING_DOWN);
        require(i > 0 || rouse_runtime_shutdown(runtime, 0, NULL, NULL) == ROUSE_TIMED_OUT);
        test_post(&stuck.go);
        test_runtime_end(runtime);
        if (joinable) {
            require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
        }
        stuck_fini(&stuck);
    }
}

TEST(a_shutdown_that_did_not_end_a_single_threaded_runtime_can_be_repeated)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    assert_int_equal(rouse_go_detached_at(runtime, shield_for_ever, NULL, NULL, NULL), ROUSE_OK);
    assert_int_equal(rouse_runtime_turn(runtime, 0), 1);
    assert_int_equal(rouse_runtime_shutdown(runtime, 0, test_no_leftover, NULL), ROUSE_OK);
    assert_int_equal(rouse_runtime_shutdown(NULL, 0, NULL, NULL), ROUSE_INVALID);
}

/* ---- who may ---- */

static int end_own_runtime(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    return rouse_runtime_shutdown(*(rouse_runtime **)state, ROUSE_S(1), NULL, NULL);
}

static const rouse_task_type end_type = {.name = "end", .poll = end_own_runtime, .state_size = sizeof(rouse_runtime *)};

static int end_own_runtime_in_fiber(void *argument)
{
    return rouse_runtime_shutdown(argument, ROUSE_S(1), NULL, NULL);
}

static void end_from_inside(rouse_runtime *runtime)
{
    require_int(rouse_block_on(runtime, &end_type, &runtime, NULL), ==, ROUSE_BUSY);
    require_int(test_fiber(runtime, end_own_runtime_in_fiber, runtime), ==, ROUSE_BUSY);
}

TEST(a_task_cannot_end_its_own_runtime)
{
    test_on_each_executor(end_from_inside);
}

struct ending {
    rouse_runtime *runtime;
    atomic_int status;
};

static void end_in_thread(void *argument)
{
    struct ending *ending = argument;
    atomic_store(&ending->status, rouse_runtime_shutdown(ending->runtime, ROUSE_S(100), test_no_leftover, NULL));
}

TEST(the_second_of_two_threads_that_end_a_runtime_is_refused)
{
    for (int kind = TEST_ROUND_ROBIN; kind < TEST_EXECUTORS; kind++) {
        struct ending ending = {.runtime = test_runtime_new((enum test_executor)kind, 2)};
        struct stuck stuck, *state = &stuck;
        test_thread thread;
        stuck_init(&stuck);
        assert_int_equal(rouse_spawn_on(ending.runtime, NULL, &stuck_type, &state), ROUSE_OK);
        test_await(&stuck.started);
        test_thread_start(&thread, end_in_thread, &ending);
        while (rouse_spawn_on(ending.runtime, NULL, &running_type, &state) != ROUSE_SHUTTING_DOWN) {
            sched_yield(); /* they end at once when cancelled, and post a semaphore that nobody awaits */
        }
        assert_int_equal(rouse_runtime_shutdown(ending.runtime, 0, test_no_leftover, NULL), ROUSE_BUSY);
        test_post(&stuck.go);
        test_thread_join(&thread, TEST_SOON);
        assert_int_equal(atomic_load(&ending.status), ROUSE_OK);
        stuck_fini(&stuck);
    }
}

/* Ends a single-threaded runtime from inside a task of another one. */
static void end_other_runtime(rouse_runtime *own)
{
    static const rouse_task_type waiting = {
        .name = "waiting", .poll = wait_or_spin, .drop = drop_waiting, .state_size = sizeof(struct waiting)};
    rouse_runtime *other = test_runtime_new(TEST_SINGLE, 1);
    struct test_bell bell = TEST_BELL_INIT;
    require(rouse_runtime_current() == own);
    require_int(rouse_spawn_on(other, NULL, &waiting, &(struct waiting){&bell}), ==, ROUSE_OK);
    require_int(rouse_spawn_on(other, NULL, &waiting, &(struct waiting){NULL}), ==, ROUSE_OK);
    require_int(rouse_go_detached_at(other, sleep_till_cancelled, NULL, NULL, NULL), ==, ROUSE_OK);
    test_runtime_end(other);
    require(rouse_runtime_current() == own);
}

static int end_other_in_fiber(void *argument)
{
    int value = 0;
    for (int i = 0; i < 3; i++) {
        end_other_runtime(argument);
        require_int(rouse_in_fiber(), ==, 1);
        require_int(rouse_sleep(ROUSE_US(10)), ==, ROUSE_OK);
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    rouse_task task;
    struct test_bell bell = TEST_BELL_INIT, *state = &bell;
    require_int(rouse_spawn(&task, &test_bell_task, &state), ==, ROUSE_OK);
    test_bell_ring(&bell);
    require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
    return value;
}

static int end_other_in_poll(void *state, void *result, rouse_context *context)
{
    struct test_bell *bell = ((struct test_bell **)state)[1];
    (void)result;
    end_other_runtime(((rouse_runtime **)state)[0]);
    require_int(rouse_sleep(1), ==, ROUSE_IN_POLL);
    return test_bell_poll(bell, context);
}

static void end_others_inside(rouse_runtime *runtime)
{
    static const rouse_task_type type = {.poll = end_other_in_poll, .state_size = 2 * sizeof(void *)};
    struct test_bell bell = TEST_BELL_INIT;
    void *state[2] = {runtime, &bell};
    rouse_task task;
    require_int(test_fiber(runtime, end_other_in_fiber, runtime), ==, 0);
    require_int(rouse_spawn_on(runtime, &task, &type, state), ==, ROUSE_OK);
    require_int(test_fiber(runtime, end_other_in_fiber, runtime), ==, 0);
    test_bell_ring(&bell);
    require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
}

TEST(a_task_may_end_another_runtime_and_goes_on_in_its_own)
{
    test_on_each_executor(end_others_inside);
}

/* ---- streams ---- */

struct closing {
    struct report report;
    rouse_runtime *runtime;
    rouse_stream *stream;
    rouse_listener *listener;
    bool close;
};

static void note_and_close(void *context, const rouse_leftover *leftover)
{
    struct closing *closing = context;
    note(&closing->report, leftover);
    require_int(rouse_runtime_shutdown(closing->runtime, 0, NULL, NULL), ==, ROUSE_BUSY);
    require_int(rouse_spawn_on(closing->runtime, NULL, &waiting_type, NULL), ==, ROUSE_SHUTTING_DOWN);
    if (!closing->close) {
        return;
    }
    if (strcmp(leftover->name, "socket") == 0) {
        require_int(rouse_close(closing->stream), ==, ROUSE_OK);
    } else {
        require_int(rouse_listener_close(closing->listener), ==, ROUSE_OK);
    }
}

/* By hand: a deadline might pass, on a slow machine, before the wait has begun. */
static int read_and_accept_in_vain(void *argument)
{
    struct closing *closing = argument;
    rouse_stream *accepted = NULL;
    char byte;
    struct hand hands[2];
    for (int i = 0; i < 2; i++) {
        hand_init(&hands[i]);
    }
    rouse_read_init(&hands[0].op, closing->stream, &byte, 1);
    rouse_accept_init(&hands[1].op, closing->listener, &accepted, NULL);
    for (int i = 0; i < 2; i++) {
        require_int(hand_poll(&hands[i]), ==, ROUSE_PENDING);
        require_int(rouse_op_cancel(&hands[i].op), ==, ROUSE_OP_IDLE);
        hand_fini(&hands[i]);
    }
    return ROUSE_OK;
}

static int read_one(void *argument)
{
    char byte = 0;
    require_int(rouse_read(argument, &byte, 1), ==, 1);
    return byte;
}

static void end_with_open_streams(bool close)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        struct closing closing = {.runtime = test_runtime_new((enum test_executor)kind, 2), .close = close};
        int ends[2];
        test_tcp_pair(ends);
        require_int(rouse_adopt_at(&closing.stream, ends[0], "left.c:7"), ==, ROUSE_OK);
        require_int(rouse_listen_at(&closing.listener, "127.0.0.1:0", NULL, "left.c:7"), ==, ROUSE_OK);
        require_int(test_fiber(closing.runtime, read_and_accept_in_vain, &closing), ==, ROUSE_OK);
        require_int(rouse_runtime_shutdown(closing.runtime, ROUSE_S(10), note_and_close, &closing), ==, ROUSE_OK);
        require_int(closing.report.streams, ==, 1);
        require_int(closing.report.listeners, ==, 1);
        require_int(closing.report.tasks, ==, 0);
        assert_string_equal(closing.report.site, "left.c:7");
        if (!close) { /* they stay open, and another runtime may go on with them */
            rouse_runtime *other = test_runtime_new((enum test_executor)((kind + 1) % TEST_EXECUTORS), 1);
            test_send_all(ends[1], "z", 1);
            require_int(test_fiber(other, read_one, closing.stream), ==, 'z');
            require_int(rouse_close(closing.stream), ==, ROUSE_OK);
            require_int(rouse_listener_close(closing.listener), ==, ROUSE_OK);
            test_runtime_end(other);
        }
        require_int(rouse_close(closing.stream), ==, ROUSE_CLOSED);
        test_expect_end(ends[1]);
        test_close(ends[1]);
    }
}

TEST(streams_that_are_open_at_the_end_are_reported_and_stay_open)
{
    end_with_open_streams(false);
}

TEST(the_report_may_close_the_very_stream_that_is_reported_and_spawns_nothing)
{
    end_with_open_streams(true);
}

/* ---- spawning at the end ---- */

static atomic_int born, refused, dropped;

struct descendant {
    rouse_runtime *runtime;
    int generations; /* that are to follow */
};

static int stay_idle(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    return ROUSE_PENDING;
}

static void leave_heirs(void *state);

static const rouse_task_type descendant_type = {
    .name = "descendant", .poll = stay_idle, .drop = leave_heirs, .state_size = sizeof(struct descendant)};

static void leave_heirs(void *state)
{
    struct descendant heir = *(struct descendant *)state;
    atomic_fetch_add(&dropped, 1);
    if (heir.generations-- == 0) {
        return;
    }
    for (int i = 0; i < 3; i++) {
        /* By name, and as the current one; both must be refused alike. */
        int status;
        test_call(status, rouse_spawn_on(i ? heir.runtime : NULL, NULL, &descendant_type, &heir));
        require(status == ROUSE_OK || status == ROUSE_SHUTTING_DOWN);
        atomic_fetch_add(status == ROUSE_OK ? &born : &refused, 1);
    }
}

static void drop_three_generations(rouse_runtime *runtime)
{
    struct descendant first = {runtime, 3};
    rouse_task task;
    atomic_store(&born, 1);
    atomic_store(&refused, 0);
    atomic_store(&dropped, 0);
    require_int(rouse_spawn_on(runtime, &task, &descendant_type, &first), ==, ROUSE_OK);
    rouse_abort(&task);
    require_int(rouse_join(&task, NULL), ==, ROUSE_CANCELLED); /* its heirs are alive and idle */
}

TEST(drop_functions_that_spawn_generations_of_tasks_are_refused_at_the_end)
{
    for (uint64_t i = 0; i < test_scale(30, 3000); i++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)(i % TEST_EXECUTORS), 2);
        drop_three_generations(runtime);
        require_int(atomic_load(&born), ==, 4);
        test_runtime_end(runtime);
        require_int(atomic_load(&dropped), ==, atomic_load(&born));
        require_int(atomic_load(&refused), >=, 9); /* a worker may hear of the end a moment later than its task */
    }
}

enum { BUSY_THREADS = 3 };

struct busy_threads {
    rouse_runtime *runtime;
    rouse_stream *stream; /* readable when all threads have been refused */
    int peer;
    struct test_bell bells[BUSY_THREADS]; /* of a task of each thread, which is woken again and again */
    atomic_int begun, ready, left;
    atomic_int spawned, ended;
};

static int count_end(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    atomic_fetch_add(&(*(struct busy_threads **)state)->ended, 1);
    return ROUSE_OK;
}

static void count_drop(void *state)
{
    (void)state;
}

static const rouse_task_type counted_type = {
    .name = "counted", .poll = count_end, .drop = count_drop, .state_size = sizeof(struct busy_threads *)};

static int count_end_of_fiber(void *argument)
{
    return count_end(&argument, NULL, NULL);
}

static void spawn_until_refused(void *argument)
{
    struct busy_threads *busy = argument;
    struct test_bell *bell = &busy->bells[atomic_fetch_add(&busy->begun, 1)];
    int status = ROUSE_OK;
    rouse_task idle;
    require_int(rouse_spawn_on(busy->runtime, &idle, &test_bell_task, &bell), ==, ROUSE_OK);
    atomic_fetch_add(&busy->ready, 1);
    for (int i = 0; status == ROUSE_OK; i++) {
        if (atomic_load(&busy->spawned) - atomic_load(&busy->ended) > 300 && i % 64 != 0) {
            sched_yield(); /* no more than can be run down in time; now and then one, to learn of the end */
            continue;
        }
        if (i % 3 == 0) {
            status = rouse_go_detached_at(busy->runtime, count_end_of_fiber, busy, NULL, NULL);
        } else {
            status = rouse_spawn_on(busy->runtime, NULL, &counted_type, &busy);
        }
        if (status == ROUSE_OK) {
            atomic_fetch_add(&busy->spawned, 1);
        }
        pthread_mutex_lock(&bell->lock);
        rouse_waker_wake_by_ref(&bell->waiter);
        pthread_mutex_unlock(&bell->lock);
    }
    require_int(status, ==, ROUSE_SHUTTING_DOWN);
    rouse_detach(&idle);
    if (atomic_fetch_sub(&busy->left, 1) == 1) {
        test_send_all(busy->peer, "x", 1);
    }
    /* From here on the runtime may be gone; the waker outlives it. */
    pthread_mutex_lock(&bell->lock);
    rouse_waker_wake_by_ref(&bell->waiter);
    pthread_mutex_unlock(&bell->lock);
}

/* Keeps the runtime from ending before the threads have let go of it. */
static int hold_runtime(void *argument)
{
    struct busy_threads *busy = argument;
    rouse_shield shield;
    char byte;
    require_int(rouse_shield_enter(&shield, ROUSE_NEVER), ==, ROUSE_OK);
    require_int(rouse_read(busy->stream, &byte, 1), ==, 1);
    require_int(rouse_close(busy->stream), ==, ROUSE_OK);
    return rouse_shield_leave(&shield);
}

TEST(a_runtime_may_end_while_threads_spawn_and_wake)
{
    for (uint64_t i = 0; i < test_scale(15, 2000); i++) {
        struct busy_threads busy = {.left = BUSY_THREADS};
        int ends[2];
        test_thread threads[BUSY_THREADS];
        rouse_task holder;
        test_tcp_pair(ends);
        busy.peer = ends[1];
        for (int k = 0; k < BUSY_THREADS; k++) {
            busy.bells[k] = (struct test_bell)TEST_BELL_INIT;
        }
        require_int(rouse_adopt(&busy.stream, ends[0]), ==, ROUSE_OK);
        busy.runtime = test_runtime_new((enum test_executor)(i % TEST_EXECUTORS), 2);
        require_int(rouse_spawn_fiber_at(&holder, busy.runtime, hold_runtime, &busy, 0, 0, NULL, NULL), ==, ROUSE_OK);
        rouse_runtime_turn(busy.runtime, 0);
        for (int k = 0; k < BUSY_THREADS; k++) {
            test_thread_start(&threads[k], spawn_until_refused, &busy);
        }
        while (atomic_load(&busy.ready) < BUSY_THREADS || atomic_load(&busy.spawned) < 50) {
            if (rouse_runtime_turn(busy.runtime, 0) < 0) {
                sched_yield();
            }
        }
        test_runtime_end(busy.runtime);
        for (int k = 0; k < BUSY_THREADS; k++) {
            test_thread_join(&threads[k], TEST_SOON);
            test_bell_forget(&busy.bells[k]);
        }
        require_int(atomic_load(&busy.ended), ==, atomic_load(&busy.spawned));
        require_int(rouse_join(&holder, NULL), ==, ROUSE_OK);
        test_close(ends[1]);
    }
}

/* ---- waking without end ---- */

static struct {
    rouse_waker waker; /* of the task, once `polled` was posted */
    sem_t polled;
    atomic_bool over;
} woken;

static int be_woken_till_cancelled(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    if (woken.waker.table == NULL) {
        woken.waker = rouse_waker_clone(&context->waker);
        test_post(&woken.polled);
    }
    return ROUSE_PENDING;
}

static void wake_till_told(void *unused)
{
    (void)unused;
    while (!atomic_load(&woken.over)) {
        rouse_waker_wake_by_ref(&woken.waker);
        test_take_turns();
    }
}

/* So many that at each moment one of them is inside a wake. */
TEST(threads_that_wake_what_has_ended_do_not_keep_a_runtime_from_ending)
{
    enum { MOST = 32 };
    static const rouse_task_type type = {.poll = be_woken_till_cancelled};
    int count = test_is_slow() ? 4 : MOST;
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        test_thread threads[MOST];
        assert_int_equal(sem_init(&woken.polled, 0, 0), 0);
        atomic_store(&woken.over, false);
        assert_int_equal(rouse_spawn_on(runtime, NULL, &type, NULL), ROUSE_OK);
        rouse_runtime_turn(runtime, 0);
        test_await(&woken.polled);
        for (int i = 0; i < count; i++) {
            test_thread_start(&threads[i], wake_till_told, NULL);
        }
        test_runtime_end(runtime);
        atomic_store(&woken.over, true);
        for (int i = 0; i < count; i++) {
            test_thread_join(&threads[i], TEST_SOON);
        }
        rouse_waker_drop(&woken.waker);
        sem_destroy(&woken.polled);
    }
}

/* ---- nothing grows ---- */

static int run_a_little(void *argument)
{
    require_int(rouse_sleep(1), ==, ROUSE_OK);
    return *(int *)argument;
}

static void live_and_die(uint64_t round)
{
    rouse_options options = test_options((enum test_executor)(round % TEST_EXECUTORS), 1 + (unsigned)round % 2);
    options.dedicated_poller = round % 4 == 1 && options.executor == ROUSE_EXECUTOR_MULTI;
    rouse_runtime *runtime;
    int value = (int)round;
    require_int(rouse_runtime_new(&runtime, &options), ==, ROUSE_OK);
    require_int(test_fiber(runtime, run_a_little, &value), ==, value);
    require_int(rouse_spawn_on(runtime, NULL, &waiting_type, &(struct waiting){NULL}), ==, ROUSE_OK);
    require_int(rouse_go_detached_at(runtime, sleep_till_cancelled, NULL, NULL, NULL), ==, ROUSE_OK);
    test_runtime_end(runtime);
}

TEST(one_runtime_after_the_other_grows_nothing)
{
    uint64_t count = test_scale(500, 20000), warm = count / 10 + 1;
    for (uint64_t i = 0; i < warm; i++) {
        live_and_die(i);
    }
    int descriptors = test_descriptor_count(), threads = test_thread_count();
    size_t bytes = test_rss_bytes();
    for (uint64_t i = 0; i < count; i++) {
        live_and_die(i);
    }
    assert_int_equal(test_descriptor_count(), descriptors);
    eventually(test_thread_count() <= threads, ROUSE_S(5)); /* one that was joined may be in the list a moment longer */
    if (!test_is_slow() && !test_is_sanitized()) {
        assert_true(test_rss_bytes() < bytes + count * 1024);
    }
}
