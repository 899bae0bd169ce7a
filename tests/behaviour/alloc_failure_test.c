/* Memory that runs out at any moment: calls fail, nothing is lost, nothing is left. And calls that take none. */
#include "support/faults.h"
#include "support/io.h"
#include "support/runtimes.h"

#include <sched.h>

/* ---- scenarios: the argument is the kind of executor ---- */

static rouse_runtime *try_runtime(void *argument)
{
    rouse_options options = test_options(*(enum test_executor *)argument, 2);
    rouse_runtime *runtime = (rouse_runtime *)argument;
    int status = rouse_runtime_new(&runtime, &options);
    require(status == ROUSE_OK || status == ROUSE_NO_MEMORY || status == ROUSE_NO_THREAD);
    require((runtime != NULL) == (status == ROUSE_OK));
    return runtime;
}

static void each_failing_allocation(void (*scenario)(void *argument))
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        enum test_executor executor = (enum test_executor)kind;
        unsigned long count = test_each_failing_allocation(scenario, &executor);
        require(!FAULTS_AVAILABLE || count > 0);
    }
}

static void make_and_end(void *argument)
{
    rouse_runtime *runtime = try_runtime(argument);
    if (runtime != NULL) {
        test_runtime_end(runtime);
    }
}

TEST(a_runtime_that_cannot_be_made_leaves_nothing)
{
    each_failing_allocation(make_and_end);
}

static atomic_int drops;

static int answer_state(void *state, void *result, rouse_context *context)
{
    (void)context;
    memset(result, 7, 3000);
    return *(unsigned char *)state;
}

static void count_drop(void *state)
{
    (void)state;
    atomic_fetch_add(&drops, 1);
}

/* Small enough for a shared block, and so large that each has a block alone. */
static const rouse_task_type small_type = {
    .name = "small", .poll = answer_state, .drop = count_drop, .state_size = 1, .result_size = 3000};
static const rouse_task_type large_type = {
    .name = "large", .poll = answer_state, .drop = count_drop, .state_size = 5000, .result_size = 3000};

static int spawn_inside(void *argument)
{
    unsigned char state[5000] = {9}, result[3000];
    rouse_task task;
    int *spawned = argument;
    for (int i = 0; i < 3; i++) {
        int status = rouse_spawn(&task, i & 1 ? &large_type : &small_type, state);
        require(status == ROUSE_OK || status == ROUSE_NO_MEMORY || status == ROUSE_SHUTTING_DOWN);
        require((task.cell != NULL) == (status == ROUSE_OK));
        if (status == ROUSE_OK) {
            ++*spawned;
            status = rouse_join(&task, result);
            require((status == 9 && result[2999] == 7) || status == ROUSE_CANCELLED); /* or it, and this, is given up */
            rouse_detach(&task);
        }
    }
    return 4;
}

/* Waiting takes memory too. Without, the task is left to the end of its runtime. */
static void join_or_detach(rouse_task *task, int expected)
{
    int status = task->cell != NULL ? rouse_join(task, NULL) : ROUSE_NO_MEMORY;
    require(status == expected || status == ROUSE_NO_MEMORY);
    rouse_detach(task);
}

static void spawn_and_join(void *argument)
{
    rouse_runtime *runtime = try_runtime(argument);
    unsigned char state[5000] = {8};
    rouse_task tasks[6];
    int spawned = 0;
    if (runtime == NULL) {
        return;
    }
    atomic_store(&drops, 0);
    for (int i = 0; i < 6; i++) {
        int status = rouse_spawn_on(runtime, &tasks[i], i & 1 ? &large_type : &small_type, state);
        require(status == ROUSE_OK || status == ROUSE_NO_MEMORY);
        require((tasks[i].cell != NULL) == (status == ROUSE_OK));
        spawned += status == ROUSE_OK;
    }
    for (int i = 0; i < 6; i++) {
        join_or_detach(&tasks[i], 8);
    }
    rouse_task task;
    int status = rouse_spawn_fiber_at(&task, runtime, spawn_inside, &spawned, 0, 0, NULL, NULL);
    require(status == ROUSE_OK || status == ROUSE_NO_MEMORY);
    join_or_detach(&task, 4);
    test_runtime_end(runtime);
    require_int(atomic_load(&drops), ==, spawned);
}

TEST(tasks_that_cannot_be_spawned_are_refused_and_the_others_are_joined)
{
    each_failing_allocation(spawn_and_join);
}

static int copy_to_result(void *argument)
{
    memcpy(rouse_result(), argument, 100);
    int status = rouse_sleep(ROUSE_US(10));
    return status == ROUSE_OK ? ((char *)argument)[99] : status;
}

static void start_fibers(void *argument)
{
    rouse_runtime *runtime = try_runtime(argument);
    char bytes[100] = {0}, result[100] = {0};
    rouse_task tasks[4];
    bytes[99] = 33;
    if (runtime == NULL) {
        return;
    }
    for (int i = 0; i < 4; i++) {
        rouse_fiber_options options = ROUSE_FIBER_OPTIONS_INIT;
        options.stack_bytes = i & 1 ? 100 * 1024 : 0;
        int status = rouse_spawn_fiber_at(&tasks[i], runtime, copy_to_result, bytes, 100, 100, &options, NULL);
        require(status == ROUSE_OK || status == ROUSE_NO_MEMORY);
        require((tasks[i].cell != NULL) == (status == ROUSE_OK));
    }
    for (int i = 0; i < 4; i++) {
        if (tasks[i].cell != NULL) {
            int status = rouse_join(&tasks[i], result);
            require((status == 33 && result[99] == 33) || status == ROUSE_NO_MEMORY);
            rouse_detach(&tasks[i]);
        }
    }
    test_runtime_end(runtime);
}

TEST(fibers_that_cannot_be_started_are_refused_and_the_others_are_joined)
{
    each_failing_allocation(start_fibers);
}

static int sleep_until_cancelled(void *argument)
{
    atomic_int *alive = argument;
    atomic_fetch_add(alive, 1);
    require_int(rouse_sleep(ROUSE_NEVER), ==, ROUSE_CANCELLED);
    atomic_fetch_sub(alive, 1);
    return 0;
}

static int open_and_close_scopes(void *argument)
{
    rouse_scope outer, inner;
    rouse_deadline deadline;
    rouse_shield shield;
    atomic_int alive = 0;
    unsigned char state[5000] = {0};
    (void)argument;
    /* All of these take no memory but for what is spawned. */
    require_int(rouse_scope_open(&outer), ==, ROUSE_OK);
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_S(100))), ==, ROUSE_OK);
    require_int(rouse_scope_open(&inner), ==, ROUSE_OK);
    for (int i = 0; i < 3; i++) {
        int status = rouse_go(sleep_until_cancelled, &alive);
        require(status == ROUSE_OK || status == ROUSE_NO_MEMORY);
        status = rouse_scope_spawn(i & 1 ? &inner : &outer, NULL, i & 1 ? &large_type : &small_type, state);
        require(status == ROUSE_OK || status == ROUSE_NO_MEMORY);
    }
    require_int(rouse_sleep(ROUSE_US(20)), ==, ROUSE_OK);
    require_int(rouse_scope_cancel(&inner, ROUSE_MS(1)), ==, ROUSE_OK);
    require_int(rouse_scope_close(&inner), ==, ROUSE_OK);
    require_int(atomic_load(&alive), ==, 0);
    require_int(rouse_shield_enter(&shield, rouse_after(ROUSE_US(20))), ==, ROUSE_OK);
    require_int(rouse_sleep(ROUSE_S(100)), ==, ROUSE_TIMED_OUT);
    require_int(rouse_shield_leave(&shield), ==, ROUSE_OK);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    require_int(rouse_scope_close(&outer), ==, ROUSE_OK);
    return 6;
}

static void run_scopes(void *argument)
{
    rouse_options options = test_options(*(enum test_executor *)argument, 2);
    int status = rouse_run(open_and_close_scopes, NULL, &options);
    require(status == 6 || status == ROUSE_NO_MEMORY || status == ROUSE_NO_THREAD);
}

TEST(run_fails_or_runs_scopes_whose_children_may_be_refused)
{
    each_failing_allocation(run_scopes);
}

static void block_on_tasks(void *argument)
{
    rouse_runtime *runtime = try_runtime(argument);
    unsigned char state[5000] = {12}, result[3000];
    if (runtime == NULL) {
        return;
    }
    for (int i = 0; i < 4; i++) {
        atomic_store(&drops, 0);
        int status = rouse_block_on(runtime, i & 1 ? &large_type : &small_type, state, result);
        require(status == 12 || status == ROUSE_NO_MEMORY);
        require(status == ROUSE_NO_MEMORY || result[0] == 7);
        /* The state was taken, and dropped, or is still the caller's; the frame is free in both cases. */
        require_int(atomic_load(&drops), ==, status == 12);
    }
    test_runtime_end(runtime);
}

TEST(blocking_on_a_task_succeeds_or_leaves_its_state_to_the_caller)
{
    each_failing_allocation(block_on_tasks);
}

static void use_default(void *argument)
{
    unsigned char state[5000] = {2};
    (void)argument;
    for (int i = 0; i < 2; i++) {
        int status = rouse_sleep(ROUSE_US(10));
        require(status == ROUSE_OK || status == ROUSE_NO_MEMORY);
        status = rouse_block_on(NULL, &small_type, state, NULL);
        require(status == 2 || status == ROUSE_NO_MEMORY);
        status = rouse_spawn(NULL, &large_type, state);
        require(status == ROUSE_OK || status == ROUSE_NO_MEMORY);
    }
    require_int(rouse_default_shutdown(ROUSE_S(10)), ==, ROUSE_OK);
}

TEST(the_default_runtime_may_fail_to_be_made_and_be_made_later)
{
    require(test_each_failing_allocation(use_default, NULL) > 0 || !FAULTS_AVAILABLE);
}

/* ---- what takes no memory ---- */

static int sleep_and_read(void *argument)
{
    rouse_deadline deadline;
    rouse_shield shield;
    char byte;
    require_int(rouse_sleep(ROUSE_US(50)), ==, ROUSE_OK);
    require_int(rouse_yield(), ==, ROUSE_OK);
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_US(50))), ==, ROUSE_OK);
    require_int(rouse_read(argument, &byte, 1), ==, ROUSE_TIMED_OUT);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    require_int(rouse_read(argument, &byte, 1), ==, ROUSE_CANCELLED);
    require_int(rouse_shield_enter(&shield, rouse_after(ROUSE_US(50))), ==, ROUSE_OK);
    require_int(rouse_read(argument, &byte, 1), ==, ROUSE_TIMED_OUT);
    return rouse_shield_leave(&shield);
}

static int read_till_closed(void *argument)
{
    char byte;
    require_int(rouse_read(argument, &byte, 1), ==, ROUSE_CLOSED);
    return 1;
}

static void turn_until_finished(rouse_runtime *runtime, const rouse_task *task)
{
    while (!rouse_is_finished(task)) {
        require_int(rouse_runtime_turn(runtime, ROUSE_NEVER), >=, 0);
    }
}

TEST(polling_waking_cancelling_dropping_closing_and_shutting_down_take_no_memory)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    struct test_bell bells[3] = {TEST_BELL_INIT, TEST_BELL_INIT, TEST_BELL_INIT};
    rouse_task waiters[3], fibers[2], tasks[40];
    unsigned char state[5000] = {1};
    int peers[2];
    rouse_stream *streams[2] = {tcp_stream(&peers[0]), tcp_stream(&peers[1])};
    for (int i = 0; i < 3; i++) {
        struct test_bell *bell = &bells[i];
        assert_int_equal(rouse_spawn_on(runtime, &waiters[i], &test_bell_task, &bell), ROUSE_OK);
    }
    for (int i = 0; i < 40; i++) {
        require_int(rouse_spawn_on(runtime, &tasks[i], i % 4 ? &small_type : &large_type, state), ==, ROUSE_OK);
    }
    assert_int_equal(rouse_spawn_fiber_at(&fibers[0], runtime, sleep_and_read, streams[0], 0, 0, NULL, NULL), ROUSE_OK);
    assert_int_equal(rouse_spawn_fiber_at(&fibers[1], runtime, read_till_closed, streams[1], 0, 0, NULL, NULL),
                     ROUSE_OK);
    assert_int_equal(rouse_go_detached_at(runtime, sleep_until_cancelled, &drops, NULL, NULL), ROUSE_OK);
    faults_forbid_alloc(true);
    require_int(rouse_runtime_turn(runtime, 0), >, 0);
    test_bell_ring(&bells[0]);
    rouse_abort(&waiters[1]);
    turn_until_finished(runtime, &waiters[0]);
    turn_until_finished(runtime, &waiters[1]);
    for (int i = 0; i < 100; i++) { /* the sleep passes, and the first deadline */
        require_int(rouse_runtime_turn(runtime, rouse_after(ROUSE_US(50))), >=, 0);
    }
    rouse_abort(&fibers[0]);
    turn_until_finished(runtime, &fibers[0]);
    require_int(rouse_close(streams[1]), ==, ROUSE_OK);
    turn_until_finished(runtime, &fibers[1]);
    for (int i = 0; i < 20; i++) {
        turn_until_finished(runtime, &tasks[i]);
        require_int(rouse_join(&tasks[i], NULL), ==, 1);
    }
    for (int i = 20; i < 40; i++) {
        rouse_detach(&tasks[i]);
    }
    require_int(rouse_join(&waiters[0], NULL), ==, ROUSE_OK);
    require_int(rouse_join(&waiters[1], NULL), ==, ROUSE_CANCELLED);
    require_int(rouse_join(&fibers[0], NULL), ==, ROUSE_OK);
    require_int(rouse_join(&fibers[1], NULL), ==, 1);
    require_int(rouse_close(streams[0]), ==, ROUSE_OK);
    test_runtime_end(runtime);
    rouse_detach(&waiters[2]); /* after the end of its runtime */
    test_bell_ring(&bells[2]);
    test_bell_forget(&bells[1]);
    faults_forbid_alloc(false);
    test_close(peers[0]);
    test_close(peers[1]);
}

/* On the thread of a worker: forbids there what comes from then on. */
static int forbid_here(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    faults_forbid_alloc(*(bool *)state);
    return ROUSE_OK;
}

static const rouse_task_type forbid_type = {.name = "forbid", .poll = forbid_here, .state_size = sizeof(bool)};

TEST(a_worker_that_spawns_nothing_takes_no_memory)
{
    for (int kind = TEST_ROUND_ROBIN; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 1);
        rouse_task fibers[20], tasks[20];
        unsigned char state[5000] = {1};
        int peer;
        rouse_stream *stream = tcp_stream(&peer);
        bool yes = true, no = false;
        require_int(rouse_block_on(runtime, &forbid_type, &yes, NULL), ==, ROUSE_OK);
        for (int i = 0; i < 20; i++) {
            require_int(rouse_spawn_on(runtime, &tasks[i], i % 4 ? &small_type : &large_type, state), ==, ROUSE_OK);
            require_int(rouse_spawn_fiber_at(&fibers[i], runtime, i ? sleep_until_cancelled : read_till_closed,
                                             i ? (void *)&drops : (void *)stream, 0, 0, NULL, NULL),
                        ==, ROUSE_OK);
        }
        for (int i = 0; i < 20; i++) {
            require_int(rouse_join(&tasks[i], NULL), ==, 1);
            rouse_abort(i ? &fibers[i] : &tasks[i]);
        }
        require_int(rouse_close(stream), ==, ROUSE_OK);
        for (int i = 0; i < 20; i++) {
            require_int(rouse_join(&fibers[i], NULL), ==, i == 0);
        }
        require_int(rouse_block_on(runtime, &forbid_type, &no, NULL), ==, ROUSE_OK);
        test_runtime_end(runtime);
        test_close(peer);
    }
}
