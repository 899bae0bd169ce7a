/* Executors: options, several runtimes, the default one, blocking on them, driving one from another loop. */
#include "support/faults.h"
#include "support/net.h"
#include "support/runtimes.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* ---- options ---- */

static int try_options(const rouse_options *options)
{
    rouse_runtime *runtime = (rouse_runtime *)(void *)&runtime;
    int status = rouse_runtime_new(&runtime, options);
    if (status == ROUSE_OK) {
        test_runtime_end(runtime);
    } else {
        require(runtime == NULL);
    }
    return status;
}

#define REFUSED(field, value)                                             \
    do {                                                                  \
        rouse_options options = ROUSE_OPTIONS_INIT;                       \
        options.field = (value);                                          \
        assert_int_equal(try_options(&options), ROUSE_INVALID);           \
        assert_int_equal(rouse_run(NULL, NULL, &options), ROUSE_INVALID); \
    } while (0)

TEST(options_with_values_that_make_no_sense_are_refused)
{
    static const rouse_allocator half = {NULL, NULL, NULL};
    REFUSED(size, 0);
    REFUSED(size, sizeof(size_t));
    REFUSED(executor, 2);
    REFUSED(executor, -1);
    REFUSED(scheduler, 2);
    REFUSED(scheduler, -1);
    REFUSED(workers, 1025);
    REFUSED(reactors, 1024);
    REFUSED(allocator, &half);
    rouse_options options = test_options(TEST_SINGLE, 1);
    options.scheduler = ROUSE_SCHEDULER_ROUND_ROBIN;
    assert_int_equal(try_options(&options), ROUSE_INVALID);
    options = test_options(TEST_SINGLE, 1);
    options.workers = 2;
    assert_int_equal(try_options(&options), ROUSE_INVALID);
    options = test_options(TEST_STEALING, 2);
    options.reactors = 3;
    assert_int_equal(try_options(&options), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_new(NULL, NULL), ROUSE_INVALID);
}

TEST(options_of_an_older_or_newer_program_are_understood)
{
    struct {
        rouse_options options;
        char more[64];
    } newer = {.options = test_options(TEST_SINGLE, 1)};
    newer.options.size = sizeof newer;
    assert_int_equal(try_options(&newer.options), ROUSE_OK);
    rouse_options older = test_options(TEST_SINGLE, 1);
    older.size = offsetof(rouse_options, workers);
    older.workers = 99999;
    assert_int_equal(try_options(&older), ROUSE_OK);
}

static int tell_current(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)context;
    *(rouse_runtime **)result = rouse_runtime_current();
    return ROUSE_OK;
}

static const rouse_task_type tell_type = {.poll = tell_current, .result_size = sizeof(rouse_runtime *)};

TEST(every_number_of_workers_and_reactors_works)
{
    for (unsigned workers = 0; workers <= 5; workers++) {
        for (unsigned reactors = 0; reactors <= workers; reactors++) {
            for (int poller = 0; poller <= 1; poller++) {
                rouse_options options = test_options(workers & 1 ? TEST_ROUND_ROBIN : TEST_STEALING, workers);
                rouse_runtime_info info = {.size = sizeof info};
                rouse_runtime *told;
                options.reactors = reactors;
                options.dedicated_poller = poller;
                rouse_runtime *runtime = test_runtime_make(&options);
                require_int(rouse_runtime_stats(runtime, &info, NULL, 0), ==, ROUSE_OK);
                require_int(info.workers, >=, 1);
                require(workers == 0 || info.workers == workers);
                require(poller ? info.reactors == 1 : info.reactors == (reactors ? reactors : info.workers));
                require_int(rouse_block_on(runtime, &tell_type, NULL, &told), ==, ROUSE_OK);
                require(told == runtime);
                test_runtime_end(runtime);
            }
        }
    }
}

/* ---- blocking ---- */

static int answer_its_state(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    return *(int *)state;
}

static const rouse_task_type int_type = {.poll = answer_its_state, .state_size = sizeof(int)};

struct driver {
    rouse_runtime *runtime;
    uint64_t rounds;
    int first;
};

static void block_on_often(void *argument)
{
    struct driver *driver = argument;
    for (uint64_t i = 0; i < driver->rounds; i++) {
        int value = driver->first + (int)i;
        require_int(rouse_block_on(driver->runtime, &int_type, &value, NULL), ==, value);
    }
}

TEST(threads_take_turns_at_driving_a_single_threaded_runtime)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    test_thread threads[3];
    struct driver drivers[3];
    for (int i = 0; i < 3; i++) {
        drivers[i] = (struct driver){runtime, test_scale(3000, 100000), i * 1000000};
        test_thread_start(&threads[i], block_on_often, &drivers[i]);
    }
    for (int i = 0; i < 3; i++) {
        test_thread_join(&threads[i], ROUSE_S(100));
    }
    test_runtime_end(runtime);
}

/* Each thread waits for what only the other's task brings about. */
struct exchange {
    rouse_runtime *runtime;
    struct test_bell *wait, *ring;
};

static int ring_then_wait(void *state, void *result, rouse_context *context)
{
    struct exchange *exchange = state;
    (void)result;
    test_bell_ring(exchange->ring);
    return test_bell_poll(exchange->wait, context);
}

static void exchange_in_thread(void *argument)
{
    const rouse_task_type type = {.poll = ring_then_wait, .state_size = sizeof(struct exchange)};
    struct exchange *exchange = argument;
    require_int(rouse_block_on(exchange->runtime, &type, exchange, NULL), ==, ROUSE_OK);
}

TEST(two_threads_on_one_single_threaded_runtime_wait_for_each_other)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    uint64_t count = test_scale(500, 50000);
    for (uint64_t i = 0; i < count; i++) {
        struct test_bell bells[2] = {TEST_BELL_INIT, TEST_BELL_INIT};
        struct exchange one = {runtime, &bells[0], &bells[1]}, two = {runtime, &bells[1], &bells[0]};
        test_thread thread;
        test_thread_start(&thread, exchange_in_thread, &one);
        exchange_in_thread(&two);
        test_thread_join(&thread, TEST_SOON);
    }
    test_runtime_end(runtime);
}

static int block_in_poll(void *state, void *result, rouse_context *context)
{
    rouse_runtime *runtime = *(rouse_runtime **)state;
    rouse_op op;
    (void)result;
    (void)context;
    require_int(rouse_block_on(NULL, &int_type, NULL, NULL), ==, ROUSE_IN_POLL);
    require_int(rouse_block_on(runtime, &int_type, NULL, NULL), ==, ROUSE_IN_POLL);
    require_int(rouse_sleep(1), ==, ROUSE_IN_POLL);
    require_int(rouse_sleep(0), ==, ROUSE_IN_POLL);
    require_int(rouse_yield(), ==, ROUSE_IN_POLL);
    rouse_sleep_init(&op, 0);
    require_int(rouse_op_await(&op), ==, ROUSE_IN_POLL);
    require_int(rouse_run(NULL, NULL, NULL), ==, ROUSE_INVALID);
    require_int(rouse_in_fiber(), ==, 0);
    require(rouse_result() == NULL);
    return ROUSE_OK;
}

static int nothing(void *argument)
{
    (void)argument;
    return 0;
}

static int run_in_fiber(void *argument)
{
    int value = 17;
    require_int(rouse_run(nothing, NULL, NULL), ==, ROUSE_IN_POLL);
    require_int(rouse_block_on(argument, &int_type, &value, NULL), ==, 17);
    require_int(rouse_block_on(NULL, &int_type, &value, NULL), ==, 17);
    require(rouse_runtime_current() == argument);
    return rouse_in_fiber();
}

static void blocking_where_allowed(rouse_runtime *runtime)
{
    const rouse_task_type type = {.poll = block_in_poll, .state_size = sizeof(rouse_runtime *)};
    require_int(rouse_block_on(runtime, &type, &runtime, NULL), ==, ROUSE_OK);
    require_int(test_fiber(runtime, run_in_fiber, runtime), ==, 1);
    require(rouse_runtime_current() == NULL);
}

TEST(blocking_calls_are_refused_in_poll_functions_and_park_fibers)
{
    test_on_each_executor(blocking_where_allowed);
}

TEST(several_runtimes_live_side_by_side_and_their_tasks_wait_for_each_other)
{
    rouse_runtime *runtimes[TEST_EXECUTORS];
    for (int i = 0; i < TEST_EXECUTORS; i++) {
        runtimes[i] = test_runtime_new((enum test_executor)i, 2);
    }
    for (int i = 0; i < TEST_EXECUTORS; i++) {
        rouse_runtime *told;
        assert_int_equal(rouse_block_on(runtimes[i], &tell_type, NULL, &told), ROUSE_OK);
        assert_ptr_equal(told, runtimes[i]);
    }
    for (uint64_t i = 0; i < test_scale(200, 20000); i++) {
        struct test_bell bells[2] = {TEST_BELL_INIT, TEST_BELL_INIT};
        const rouse_task_type type = {.poll = ring_then_wait, .state_size = sizeof(struct exchange)};
        struct exchange one = {NULL, &bells[0], &bells[1]}, two = {NULL, &bells[1], &bells[0]};
        rouse_task task;
        require_int(rouse_spawn_on(runtimes[1 + i % 2], &task, &type, &one), ==, ROUSE_OK);
        require_int(rouse_block_on(runtimes[i % 3], &type, &two, NULL), ==, ROUSE_OK);
        require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
    }
    for (int i = 0; i < TEST_EXECUTORS; i++) {
        test_runtime_end(runtimes[i]);
    }
}

/* ---- the default runtime ---- */

TEST(the_default_runtime_is_made_on_first_use_and_again_after_its_end)
{
    assert_int_equal(rouse_default_shutdown(0), ROUSE_OK);
    for (int i = 0; i < 3; i++) {
        int value = 4;
        rouse_runtime *told;
        assert_int_equal(rouse_block_on(NULL, &int_type, &value, NULL), 4);
        assert_int_equal(rouse_block_on(NULL, &tell_type, NULL, &told), ROUSE_OK);
        assert_ptr_equal(told, rouse_runtime_default());
        assert_null(rouse_runtime_current());
        assert_int_equal(rouse_sleep(ROUSE_US(100)), ROUSE_OK);
        assert_int_equal(rouse_default_shutdown(ROUSE_S(10)), ROUSE_OK);
    }
}

static void use_default(void *argument)
{
    *(rouse_runtime **)argument = rouse_runtime_default();
}

TEST(threads_that_use_the_default_runtime_first_at_the_same_time_get_one)
{
    for (uint64_t i = 0; i < test_scale(20, 1000); i++) {
        test_thread threads[4];
        rouse_runtime *seen[4];
        for (int k = 0; k < 4; k++) {
            test_thread_start(&threads[k], use_default, &seen[k]);
        }
        for (int k = 0; k < 4; k++) {
            test_thread_join(&threads[k], TEST_SOON);
        }
        assert_true(seen[0] != NULL && seen[0] == seen[1] && seen[1] == seen[2] && seen[2] == seen[3]);
        assert_int_equal(rouse_default_shutdown(ROUSE_S(10)), ROUSE_OK);
    }
}

/* An operation that outlives the runtime whose timer it used. */
TEST(a_timer_of_a_plain_thread_survives_the_end_of_the_default_runtime)
{
    rouse_waker none = {NULL, NULL};
    struct sleeping {
        rouse_op op;
        int64_t deadline_ns;
    } sleeping[2] = {{.deadline_ns = rouse_after(ROUSE_S(1000))}, {.deadline_ns = ROUSE_NEVER}};
    static const rouse_task_type type = {.poll = answer_its_state, .state_size = sizeof(int)};
    rouse_runtime *other = test_runtime_new(TEST_SINGLE, 1);
    struct test_bell bell = TEST_BELL_INIT, *state = &bell;
    rouse_context context;
    rouse_task task;
    (void)none;
    (void)type;
    /* A waker that anybody may keep: that of a task of another runtime. */
    assert_int_equal(rouse_spawn_on(other, &task, &test_bell_task, &state), ROUSE_OK);
    assert_int_equal(rouse_runtime_turn(other, 0), 1);
    rouse_context_init(&context, &bell.waiter);
    for (int i = 0; i < 2; i++) {
        rouse_sleep_init(&sleeping[i].op, sleeping[i].deadline_ns);
        assert_int_equal(rouse_op_poll(&sleeping[i].op, &context), ROUSE_PENDING);
    }
    assert_int_equal(rouse_default_shutdown(ROUSE_S(10)), ROUSE_OK);
    assert_int_equal(rouse_op_poll(&sleeping[0].op, &context), ROUSE_PENDING);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rouse_op_cancel(&sleeping[i].op), ROUSE_OP_IDLE);
    }
    assert_int_equal(rouse_default_shutdown(ROUSE_S(10)), ROUSE_OK);
    test_bell_ring(&bell);
    assert_int_equal(rouse_join(&task, NULL), ROUSE_OK);
    test_runtime_end(other);
}

/* ---- rouse_run ---- */

static int answer_argument(void *argument)
{
    return *(int *)argument;
}

static int child_fails(void *argument)
{
    require_int(rouse_go(answer_argument, argument), ==, ROUSE_OK);
    return 0;
}

static int child_fails_and_so_do_i(void *argument)
{
    require_int(rouse_go(answer_argument, argument), ==, ROUSE_OK);
    return 6;
}

TEST(run_answers_the_value_or_the_first_failure_of_a_child_or_why_it_did_not_start)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_options options = test_options((enum test_executor)kind, 2);
        int values[] = {0, 5, -1, INT32_MIN, 126}, failure = -120, success = 3;
        for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
            assert_int_equal(rouse_run(answer_argument, &values[i], &options), values[i]);
        }
        assert_int_equal(rouse_run(child_fails, &failure, &options), -120);
        assert_int_equal(rouse_run(child_fails, &success, &options), 0);
        assert_int_equal(rouse_run(child_fails_and_so_do_i, &failure, &options), 6);
    }
    assert_int_equal(rouse_run(NULL, NULL, NULL), ROUSE_INVALID);
}

/* ---- one turn at a time ---- */

static int count_down(void *state, void *result, rouse_context *context)
{
    int *left = state;
    (void)result;
    if (--*left < 0) {
        return ROUSE_OK;
    }
    rouse_waker_wake_by_ref(&context->waker);
    return ROUSE_PENDING;
}

static const rouse_task_type count_type = {.poll = count_down, .state_size = sizeof(int)};

TEST(a_turn_answers_how_many_tasks_were_polled)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    assert_int_equal(rouse_runtime_turn(runtime, 0), 0);
    assert_int_equal(rouse_runtime_deadline(runtime), ROUSE_NEVER);
    assert_int_equal(rouse_spawn_on(runtime, NULL, &count_type, &(int){9}), ROUSE_OK);
    assert_int_equal(rouse_runtime_deadline(runtime), 0);
    assert_int_equal(rouse_runtime_turn(runtime, ROUSE_NEVER), 10);
    assert_int_equal(rouse_runtime_turn(runtime, rouse_after(ROUSE_MS(1))), 0);
    test_runtime_end(runtime);
}

TEST(a_turn_comes_back_even_if_tasks_never_rest)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    assert_int_equal(rouse_spawn_on(runtime, NULL, &count_type, &(int){100000}), ROUSE_OK);
    int polls = rouse_runtime_turn(runtime, ROUSE_NEVER);
    assert_true(polls > 0 && polls < 100000);
    assert_int_equal(rouse_runtime_deadline(runtime), 0);
    while (test_tasks_alive(runtime) > 0) {
        assert_true(rouse_runtime_turn(runtime, 0) > 0);
    }
    test_runtime_end(runtime);
}

static int turn_from_task(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    return rouse_runtime_turn(*(rouse_runtime **)state, 0);
}

TEST(turns_are_refused_where_they_cannot_be_made)
{
    const rouse_task_type type = {.poll = turn_from_task, .state_size = sizeof(rouse_runtime *)};
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1), *multi = test_runtime_new(TEST_STEALING, 1);
    intptr_t descriptor;
    assert_int_equal(rouse_block_on(runtime, &type, &runtime, NULL), ROUSE_IN_POLL);
    assert_int_equal(rouse_block_on(multi, &type, &runtime, NULL), ROUSE_IN_POLL);
    assert_int_equal(rouse_runtime_turn(multi, 0), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_turn(NULL, 0), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_descriptor(multi, &descriptor), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_descriptor(NULL, &descriptor), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_descriptor(runtime, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_stats(runtime, NULL, NULL, 0), ROUSE_INVALID);
    assert_int_equal(rouse_runtime_stats(runtime, &(rouse_runtime_info){.size = 1}, NULL, 0), ROUSE_INVALID);
    test_runtime_end(runtime);
    test_runtime_end(multi);
}

struct block_in_thread {
    rouse_runtime *runtime;
    struct test_bell *bell;
    sem_t polled;
};

static int post_and_wait(void *state, void *result, rouse_context *context)
{
    struct block_in_thread *block = *(struct block_in_thread **)state;
    (void)result;
    int status = test_bell_poll(block->bell, context);
    test_post(&block->polled);
    return status;
}

static void block_until_rung(void *argument)
{
    const rouse_task_type type = {.poll = post_and_wait, .state_size = sizeof(void *)};
    struct block_in_thread *block = argument;
    require_int(rouse_block_on(block->runtime, &type, &block, NULL), ==, ROUSE_OK);
}

TEST(a_turn_and_a_shutdown_are_busy_while_another_thread_drives)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    struct test_bell bell = TEST_BELL_INIT;
    struct block_in_thread block = {.runtime = runtime, .bell = &bell};
    test_thread thread;
    sem_init(&block.polled, 0, 0);
    test_thread_start(&thread, block_until_rung, &block);
    test_await(&block.polled);
    assert_int_equal(rouse_runtime_turn(runtime, ROUSE_NEVER), ROUSE_BUSY);
    assert_int_equal(rouse_runtime_shutdown(runtime, ROUSE_S(1), NULL, NULL), ROUSE_BUSY);
    int value = 4;
    assert_int_equal(rouse_spawn_on(runtime, NULL, &int_type, &value), ROUSE_OK);
    test_bell_ring(&bell);
    test_thread_join(&thread, TEST_SOON);
    test_runtime_end(runtime);
}

/* A loop that has got no descriptor would sleep for ever if it were told that the descriptor will wake it. */
TEST(a_loop_that_gets_no_descriptor_is_told_not_to_sleep_while_another_thread_drives)
{
    test_needs("faults");
    bool watchable = test_has("watchable");
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    struct test_bell bell = TEST_BELL_INIT;
    struct block_in_thread block = {.runtime = runtime, .bell = &bell};
    intptr_t descriptor;
    test_thread thread;
    if (test_has("outer_set") || !watchable) { /* elsewhere the descriptor is there from the beginning */
        faults_syscall("set_open", 1, EMFILE, 1);
        assert_int_equal(rouse_runtime_descriptor(runtime, &descriptor),
                         watchable ? ROUSE_TOO_MANY_FILES : ROUSE_NOT_SUPPORTED);
    }
    sem_init(&block.polled, 0, 0);
    test_thread_start(&thread, block_until_rung, &block);
    test_await(&block.polled);
    assert_int_equal(rouse_runtime_deadline(runtime), 0);
    if (watchable) {
        assert_int_equal(rouse_runtime_descriptor(runtime, &descriptor), ROUSE_OK);
        assert_true(rouse_runtime_deadline(runtime) == ROUSE_NEVER);
    }
    test_bell_ring(&bell);
    test_thread_join(&thread, TEST_SOON);
    test_runtime_end(runtime);
}

static int sleep_for_a_while(void *unused)
{
    int64_t end = rouse_now() + ROUSE_MS(400);
    (void)unused;
    while (rouse_now() < end)
        require_int(rouse_sleep(ROUSE_MS(100)), ==, ROUSE_OK);
    return ROUSE_OK;
}

/* Puts something else in the place of the sets that reactors wait in, as a program does that closes descriptors which are
 * not its own. Where there are none, the call that waits fails. */
static void take_sets_away(void)
{
    if (!test_has("kernel_set")) {
        faults_syscall("poll", 1, EINVAL, FAULTS_ALWAYS);
        faults_syscall("ppoll", 1, EINVAL, FAULTS_ALWAYS);
        return;
    }
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    require(nothing >= 0);
    for (int descriptor = 3; descriptor < 100; descriptor++) {
        char path[64], target[64] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
        if (readlink(path, target, sizeof target - 1) > 0 && strstr(target, "eventpoll") != NULL)
            require(dup3(nothing, descriptor, O_CLOEXEC) == descriptor);
    }
    close(nothing);
}

TEST(a_kernel_that_refuses_every_wait_does_not_make_the_library_spin)
{
    test_needs("faults");
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        for (int poller = 0; poller < (kind == TEST_SINGLE ? 1 : 2); poller++) {
            rouse_options options = test_options((enum test_executor)kind, 1);
            options.dedicated_poller = poller;
            rouse_runtime *runtime = test_runtime_make(&options);
            take_sets_away();
            int64_t before_ns = test_cpu_ns();
            require_int(test_fiber(runtime, sleep_for_a_while, NULL), ==, ROUSE_OK);
            int64_t used_ns = test_cpu_ns() - before_ns;
            require_int(used_ns, <, ROUSE_MS(test_is_slow() ? 350 : 100));
            faults_reset();
            test_runtime_end(runtime);
        }
    }
}

/* Waits as a foreign loop does: in poll(2), no longer than the runtime says. A loop that gets no descriptor looks in each
 * millisecond. */
static void foreign_loop_once(rouse_runtime *runtime)
{
    intptr_t descriptor = -1;
    bool watchable = test_has("watchable");
    require_int(rouse_runtime_descriptor(runtime, &descriptor), ==, watchable ? ROUSE_OK : ROUSE_NOT_SUPPORTED);
    struct pollfd item = {.fd = (int)descriptor, .events = POLLIN}; /* poll passes over -1 */
    int64_t deadline = rouse_runtime_deadline(runtime), now = rouse_now();
    int64_t span = deadline == ROUSE_NEVER ? ROUSE_S(10) : deadline > now ? deadline - now : 0;
    if (!watchable && span > ROUSE_MS(1)) {
        span = ROUSE_MS(1);
    }
    require_int(poll(&item, 1, (int)((span + 999999) / 1000000)), >=, 0);
    require(!watchable || deadline != ROUSE_NEVER || item.revents != 0); /* or nothing came in time */
    require_int(rouse_runtime_turn(runtime, 0), >=, 0);
}

static int sleep_and_talk(void *argument)
{
    struct test_bell *bell = argument;
    int64_t before = rouse_now();
    require_int(rouse_sleep(ROUSE_MS(5)), ==, ROUSE_OK);
    require_int(rouse_now() - before, >=, ROUSE_MS(5));
    return test_bell_wait(bell);
}

static void ring_from_thread(void *argument)
{
    test_sleep_ns(ROUSE_MS(20)); /* the foreign loop should be asleep in poll(2) by then */
    test_bell_ring(argument);
}

TEST(a_foreign_loop_sees_timers_and_wakes_from_other_threads)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    for (int i = 0; i < 3; i++) {
        struct test_bell bell = TEST_BELL_INIT;
        test_thread thread;
        rouse_task task;
        assert_int_equal(rouse_spawn_fiber_at(&task, runtime, sleep_and_talk, &bell, 0, 0, NULL, NULL), ROUSE_OK);
        test_thread_start(&thread, ring_from_thread, &bell);
        while (!rouse_is_finished(&task)) {
            foreign_loop_once(runtime);
        }
        assert_int_equal(rouse_join(&task, NULL), ROUSE_OK);
        test_thread_join(&thread, TEST_SOON);
    }
    test_runtime_end(runtime);
}

static void spawn_from_thread(void *argument)
{
    int value = 1;
    test_sleep_ns(ROUSE_MS(20));
    require_int(rouse_spawn_on(argument, NULL, &int_type, &value), ==, ROUSE_OK);
}

TEST(a_foreign_loop_sees_tasks_spawned_by_other_threads)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    for (int i = 0; i < 3; i++) {
        rouse_runtime_info info = {.size = sizeof info};
        test_thread thread;
        test_thread_start(&thread, spawn_from_thread, runtime);
        do {
            foreign_loop_once(runtime);
            assert_int_equal(rouse_runtime_stats(runtime, &info, NULL, 0), ROUSE_OK);
        } while (info.spawned != (uint64_t)i + 1 || info.tasks != 0);
        test_thread_join(&thread, TEST_SOON);
    }
    test_runtime_end(runtime);
}

static int talk_over_tcp(void *argument)
{
    rouse_stream *stream;
    char text[4];
    require_int(rouse_adopt(&stream, *(int *)argument), ==, ROUSE_OK);
    for (int i = 0; i < 3; i++) {
        require_int(rouse_read_exact(stream, text, 4, NULL), ==, ROUSE_OK);
        require_int(rouse_write_all(stream, text, 4, NULL), ==, ROUSE_OK);
    }
    return rouse_close(stream);
}

static void talk_back(void *argument)
{
    for (int i = 0; i < 3; i++) {
        test_sleep_ns(ROUSE_MS(5));
        test_send_all(*(int *)argument, "ping", 4);
        test_expect(*(int *)argument, "ping");
    }
}

TEST(a_foreign_loop_sees_sockets)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    test_thread thread;
    rouse_task task;
    int ends[2];
    test_tcp_pair(ends);
    assert_int_equal(rouse_spawn_fiber_at(&task, runtime, talk_over_tcp, &ends[0], 0, 0, NULL, NULL), ROUSE_OK);
    test_thread_start(&thread, talk_back, &ends[1]);
    while (!rouse_is_finished(&task)) {
        foreign_loop_once(runtime);
    }
    assert_int_equal(rouse_join(&task, NULL), ROUSE_OK);
    test_thread_join(&thread, TEST_SOON);
    test_close(ends[1]);
    test_runtime_end(runtime);
}

/* ---- starting and stopping ---- */

TEST(starting_and_stopping_again_and_again_leaves_nothing)
{
    for (uint64_t i = 0; i < test_scale(100, 100000); i++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)(i % TEST_EXECUTORS), 1 + (unsigned)i % 3);
        if (i & 1) {
            int value = 1;
            require_int(rouse_spawn_on(runtime, NULL, &int_type, &value), ==, ROUSE_OK);
        }
        test_runtime_end(runtime);
    }
}

TEST(a_runtime_makes_do_with_the_threads_it_gets)
{
    test_needs_all_memory("each thread takes some, and there would be fewer than are counted");
    for (unsigned given = 0; given < 4; given++) {
        rouse_options options = test_options(given & 1 ? TEST_STEALING : TEST_ROUND_ROBIN, 4);
        rouse_runtime_info info = {.size = sizeof info};
        rouse_runtime *runtime;
        faults_syscall("pthread_create", given + 1, EAGAIN, FAULTS_ALWAYS);
        int status = rouse_runtime_new(&runtime, &options);
        faults_syscall("pthread_create", 1, 0, 0);
        if (!FAULTS_AVAILABLE) {
            test_runtime_end(runtime);
        } else if (given == 0) {
            assert_int_equal(status, ROUSE_NO_THREAD);
            assert_null(runtime);
        } else {
            assert_int_equal(status, ROUSE_OK);
            assert_int_equal(rouse_runtime_stats(runtime, &info, NULL, 0), ROUSE_OK);
            assert_int_equal(info.workers, given);
            for (int i = 0; i < 40; i++) {
                require_int(rouse_block_on(runtime, &int_type, &i, NULL), ==, i);
            }
            test_runtime_end(runtime);
        }
    }
}

/* ---- what waiting costs ---- */

static int finish_at_once(void *state, void *result, rouse_context *context)
{
    (void)state, (void)result, (void)context;
    return ROUSE_OK;
}

static const rouse_task_type finish_type = {.name = "finish", .poll = finish_at_once};

TEST(a_thread_that_drives_what_it_waits_for_is_not_woken_through_the_system)
{
    test_needs("faults");
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    assert_int_equal(rouse_block_on(runtime, &finish_type, NULL, NULL), ROUSE_OK);
    faults_reset();
    for (int i = 0; i < 100; i++)
        assert_int_equal(rouse_block_on(runtime, &finish_type, NULL, NULL), ROUSE_OK);
    assert_in_range(faults_syscall_count("syscall"), 0, 20); /* looks at the kernel now and then */
    test_runtime_end(runtime);
}
