/* Sleeping, timers and intervals. */
#include "support/faults.h"
#include "support/net.h"
#include "support/runtimes.h"

static void run_on_each(rouse_fiber_function *function)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_options options = test_options((enum test_executor)kind, 2);
        require_int(rouse_run(function, NULL, &options), ==, 0);
    }
}

/* ---- never early ---- */

static int sleep_often(void *argument)
{
    uint64_t seed = (uint64_t)(uintptr_t)argument * 7919 + 1, count = test_scale(150, 2500);
    for (uint64_t i = 0; i < count; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        int64_t span = (int64_t)(seed >> 33) % (i % 8 == 0 ? ROUSE_MS(3) : ROUSE_US(300)) - 5;
        int64_t before = rouse_now();
        require_int(rouse_sleep(span), ==, ROUSE_OK);
        require_int(rouse_now() - before, >=, span);
        before = rouse_now();
        require_int(rouse_sleep_until(before + span), ==, ROUSE_OK);
        require_int(rouse_now(), >=, before + span);
    }
    return 0;
}

static int many_sleepers(void *argument)
{
    (void)argument;
    for (uintptr_t i = 0; i < 12; i++) {
        require_int(rouse_go(sleep_often, (void *)i), ==, ROUSE_OK);
    }
    return 0;
}

TEST(no_sleep_ends_early)
{
    run_on_each(many_sleepers);
}

TEST(a_plain_thread_sleeps_too)
{
    static const int64_t spans[] = {INT64_MIN, -1, 0, 1, ROUSE_US(1), ROUSE_US(100), ROUSE_MS(1) - 1, ROUSE_MS(2)};
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++) {
        int64_t before = rouse_now();
        assert_int_equal(rouse_sleep(spans[i]), ROUSE_OK);
        assert_true(rouse_now() - before >= spans[i]);
    }
    assert_int_equal(rouse_sleep_until(INT64_MIN), ROUSE_OK);
    assert_int_equal(rouse_sleep_until(rouse_now() + 1), ROUSE_OK);
    assert_int_equal(rouse_default_shutdown(ROUSE_S(10)), ROUSE_OK);
}

/* ---- very long: libuv, tokio#3551, #5710, mio#1657 ---- */

static const int64_t long_spans[] = {ROUSE_NEVER,
                                     ROUSE_NEVER - 1,
                                     ROUSE_NEVER / 2,
                                     INT64_C(2147483646) * 1000000,
                                     INT64_C(2147483647) * 1000000,
                                     INT64_C(2147483648) * 1000000,
                                     INT64_C(4294967295) * 1000000,
                                     INT64_C(4294967296) * 1000000,
                                     INT64_C(4294967296) * 1000000000,
                                     ROUSE_S(1800),
                                     ROUSE_S(86400) * 365 * 200};

static int sleep_long(void *argument)
{
    return rouse_sleep(*(const int64_t *)argument);
}

static int sleep_long_until(void *argument)
{
    return rouse_sleep_until(rouse_after(*(const int64_t *)argument));
}

static int long_sleeps(void *argument)
{
    rouse_scope scope;
    (void)argument;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (size_t i = 0; i < sizeof long_spans / sizeof long_spans[0]; i++) {
        require_int(rouse_go(sleep_long, (void *)(uintptr_t)&long_spans[i]), ==, ROUSE_OK);
        require_int(rouse_go(sleep_long_until, (void *)(uintptr_t)&long_spans[i]), ==, ROUSE_OK);
    }
    int64_t before = test_cpu_ns();
    require_int(rouse_sleep(ROUSE_MS(50)), ==, ROUSE_OK);
    if (!test_is_slow()) {
        require_int(test_cpu_ns() - before, <, ROUSE_MS(40));
    }
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, ROUSE_CANCELLED);
    return 0;
}

TEST_SERIAL(very_long_sleeps_neither_end_nor_use_the_processor)
{
    run_on_each(long_sleeps);
}

/* mio#1615: a short sleep is not many looks at the kernel. */
TEST_SERIAL(a_sleep_below_a_millisecond_does_not_spin)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    rouse_runtime_info info = {.size = sizeof info};
    rouse_worker_stats before, after;
    int64_t span = ROUSE_US(900);
    assert_int_equal(test_fiber(runtime, sleep_long, &span), ROUSE_OK);
    assert_int_equal(rouse_runtime_stats(runtime, &info, &before, 1), ROUSE_OK);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(test_fiber(runtime, sleep_long, &span), ROUSE_OK);
    }
    assert_int_equal(rouse_runtime_stats(runtime, &info, &after, 1), ROUSE_OK);
    assert_true(after.turns - before.turns <= 20 * 4);
    test_runtime_end(runtime);
}

/* ---- order ---- */

static atomic_int begun, arrival;

struct sleeper {
    int64_t deadline_ns;
    int place;
};

static int sleep_and_arrive(void *argument)
{
    struct sleeper *sleeper = argument;
    atomic_fetch_add(&begun, 1);
    require_int(rouse_sleep_until(sleeper->deadline_ns), ==, ROUSE_OK);
    sleeper->place = atomic_fetch_add(&arrival, 1);
    return 0;
}

/* Answers whether the machine was fast enough: all slept before the first was due. */
static bool sleep_in_order(int64_t until_first_ns)
{
    enum { COUNT = 64 };
    struct sleeper sleepers[COUNT];
    rouse_scope scope;
    int64_t start = rouse_after(until_first_ns);
    atomic_store(&begun, 0);
    atomic_store(&arrival, 0);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (int i = 0; i < COUNT; i++) {
        sleepers[i].deadline_ns = start + (i * 37 % COUNT) * ROUSE_US(200);
        require_int(rouse_go(sleep_and_arrive, &sleepers[i]), ==, ROUSE_OK);
    }
    while (atomic_load(&begun) < COUNT) {
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    bool in_time = rouse_now() < start;
    if (in_time) {
        test_burn(start + ROUSE_MS(20) - rouse_now()); /* so that all are due at once */
    }
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    for (int i = 0; i < COUNT && in_time; i++) {
        require_int(sleepers[i].place, ==, i * 37 % COUNT);
    }
    return in_time;
}

static int in_order(void *argument)
{
    (void)argument;
    for (int64_t span = ROUSE_MS(20); !sleep_in_order(span); span *= 2) {}
    return 0;
}

TEST(timers_of_one_reactor_expire_in_the_order_of_their_deadlines)
{
    rouse_options options = test_options(TEST_SINGLE, 1);
    assert_int_equal(rouse_run(in_order, NULL, &options), 0);
}

/* ---- cancelling and moving ---- */

static int cancel_timers(void *argument)
{
    rouse_op ops[32];
    rouse_context context;
    struct test_bell bell = TEST_BELL_INIT;
    (void)argument;
    rouse_waker none = rouse_waker_clone(NULL);
    require(none.table == NULL);
    (void)context;
    (void)bell;
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 32; i++) {
            rouse_sleep_init(&ops[i], rouse_after(ROUSE_US(10) * (i % 5)));
        }
        for (int i = 0; i < 32; i += 2) {
            require_int(rouse_op_await(&ops[i]), ==, ROUSE_OK);
            require_int(rouse_op_await(&ops[i]), ==, ROUSE_INVALID);
        }
        for (int i = 0; i < 32; i++) {
            require_int(rouse_op_cancel(&ops[i]), ==, ROUSE_OP_IDLE);
            require_int(rouse_op_await(&ops[i]), ==, ROUSE_INVALID);
        }
    }
    return 0;
}

TEST(an_operation_that_is_done_or_cancelled_is_idle)
{
    run_on_each(cancel_timers);
}

/* Polls a random timer again and again with other deadlines, on whichever worker it happens to run: tokio#6683. */
struct juggler {
    rouse_op ops[8];
    int64_t deadlines[8];
    uint64_t seed;
    uint64_t left;
};

static int juggle(void *state, void *result, rouse_context *context)
{
    struct juggler *juggler = state;
    (void)result;
    for (int i = 0; i < 8; i++) {
        juggler->seed = juggler->seed * 6364136223846793005u + 1442695040888963407u;
        unsigned dice = (unsigned)(juggler->seed >> 40) % 8;
        ptrdiff_t status = rouse_op_poll(&juggler->ops[i], context);
        if (status == ROUSE_OK) {
            require_int(rouse_now(), >=, juggler->deadlines[i]);
        } else if (status == ROUSE_PENDING && dice == 0) {
            require_int(rouse_op_cancel(&juggler->ops[i]), ==, ROUSE_OP_IDLE);
            status = ROUSE_OK;
        } else {
            require(status == ROUSE_PENDING || status == ROUSE_INVALID);
        }
        if (status != ROUSE_PENDING) {
            juggler->deadlines[i] = rouse_after(ROUSE_US(1) << (juggler->seed >> 50) % 9);
            rouse_sleep_init(&juggler->ops[i], juggler->deadlines[i]);
            if (rouse_op_poll(&juggler->ops[i], context) == ROUSE_OK) {
                rouse_waker_wake_by_ref(&context->waker);
            }
        }
    }
    return --juggler->left == 0 ? ROUSE_OK : ROUSE_PENDING;
}

static void stop_juggling(void *state)
{
    for (int i = 0; i < 8; i++) {
        rouse_op_cancel(&((struct juggler *)state)->ops[i]);
    }
}

static void juggling(rouse_runtime *runtime)
{
    const rouse_task_type type = {.poll = juggle, .drop = stop_juggling, .state_size = sizeof(struct juggler)};
    rouse_task tasks[8];
    for (unsigned i = 0; i < 8; i++) {
        struct juggler juggler = {.seed = i, .left = test_scale(300, 100000)};
        require_int(rouse_spawn_on(runtime, &tasks[i], &type, &juggler), ==, ROUSE_OK);
    }
    for (int i = 0; i < 8; i++) {
        require_int(rouse_join(&tasks[i], NULL), ==, ROUSE_OK);
    }
}

TEST(timers_are_armed_and_cancelled_at_random_and_none_is_lost_or_early)
{
    test_on_each_executor(juggling);
}

/* libxev#214: a timer that is armed after a long callback counts from then. */
static int arm_late(void *argument)
{
    (void)argument;
    test_burn(ROUSE_MS(30));
    int64_t before = rouse_now();
    require_int(rouse_sleep(ROUSE_MS(5)), ==, ROUSE_OK);
    require_int(rouse_now() - before, >=, ROUSE_MS(5));
    return 0;
}

TEST(a_timer_that_is_armed_after_long_work_counts_from_then)
{
    run_on_each(arm_late);
}

/* ---- intervals ---- */

TEST(an_interval_that_makes_no_sense_is_refused)
{
    rouse_interval interval = {0, 0, 0};
    assert_int_equal(rouse_interval_init(NULL, 0, 1, 0), ROUSE_INVALID);
    assert_int_equal(rouse_interval_init(&interval, 0, 0, 0), ROUSE_INVALID);
    assert_int_equal(rouse_interval_init(&interval, 0, -1, 0), ROUSE_INVALID);
    assert_int_equal(rouse_interval_init(&interval, 0, INT64_MIN, 0), ROUSE_INVALID);
    assert_int_equal(rouse_interval_init(&interval, 0, 1, 3), ROUSE_INVALID);
    assert_int_equal(rouse_interval_init(&interval, 0, 1, -1), ROUSE_INVALID);
    assert_int_equal(rouse_interval_tick(NULL), ROUSE_INVALID);
    assert_int_equal(rouse_interval_tick(&interval), ROUSE_INVALID);
}

static int ticks_after_pause(void *argument)
{
    int64_t period = ROUSE_MS(4);
    (void)argument;
    for (int missed = ROUSE_MISSED_BURST; missed <= ROUSE_MISSED_SKIP; missed++) {
        rouse_interval interval;
        int64_t first = rouse_after(ROUSE_MS(1)), now;
        require_int(rouse_interval_init(&interval, first, period, missed), ==, ROUSE_OK);
        require_int(rouse_interval_tick(&interval), >=, 0);
        require_int(rouse_now(), >=, first);
        int64_t next = interval.next_ns; /* the first tick may have been late itself */
        test_burn(5 * period + period / 2);
        now = rouse_now();
        int64_t missing = (now - first) / period; /* ticks that lie in the past, at least 5 */
        int status = rouse_interval_tick(&interval);
        if (missed == ROUSE_MISSED_BURST) {
            require_int(status, ==, 0);
            for (int64_t i = 1; i < missing; i++) {
                require_int(interval.next_ns, ==, first + (i + 1) * period);
                require_int(rouse_interval_tick(&interval), ==, 0);
            }
            require_int(rouse_interval_tick(&interval), ==, 0);
            require_int(rouse_now(), >=, first + (missing + 1) * period);
        } else if (missed == ROUSE_MISSED_DELAY) {
            require_int(status, ==, 0);
            require_int(interval.next_ns, >=, now + period);
            require_int(interval.next_ns, <=, rouse_now() + period);
        } else {
            require_int(status, >=, (now - next) / period);
            require_int((interval.next_ns - first) % period, ==, 0);
            require_int(interval.next_ns, >, now);
            require_int(interval.next_ns, <=, rouse_now() + period);
        }
    }
    return 0;
}

TEST_SERIAL(missed_ticks_are_treated_as_the_policy_says)
{
    rouse_options options = test_options(TEST_SINGLE, 1);
    assert_int_equal(rouse_run(ticks_after_pause, NULL, &options), 0);
}

/* libevent's persistent timers: the schedule counts, not the moment a tick was seen. */
static int64_t least_lateness(void)
{
    rouse_interval interval;
    int64_t first = rouse_after(ROUSE_MS(1));
    int count = (int)test_scale(300, 10000);
    int64_t least_ns = ROUSE_NEVER; /* by which a tick of the second half was late */
    require_int(rouse_interval_init(&interval, first, ROUSE_MS(1), ROUSE_MISSED_BURST), ==, ROUSE_OK);
    for (int i = 0; i < count; i++) {
        require_int(rouse_interval_tick(&interval), ==, 0);
        int64_t late_ns = rouse_now() - first - i * ROUSE_MS(1);
        require_int(late_ns, >=, 0);
        require_int(interval.next_ns, ==, first + (i + 1) * ROUSE_MS(1));
        least_ns = i >= count / 2 && late_ns < least_ns ? late_ns : least_ns;
        test_burn(ROUSE_US(50));
    }
    return least_ns;
}

static int steady(void *argument)
{
    (void)argument;
    int64_t late_ns = least_lateness();
    for (int attempt = 1; attempt < 5 && late_ns >= ROUSE_MS(5); attempt++) { /* the machine may have had other work */
        late_ns = least_lateness();
    }
    if (!test_is_slow()) {
        require_int(late_ns, <, ROUSE_MS(5));
    }
    return 0;
}

TEST_SERIAL(an_interval_does_not_drift)
{
    rouse_options options = test_options(TEST_SINGLE, 1);
    assert_int_equal(rouse_run(steady, NULL, &options), 0);
}

static int far_schedules(void *argument)
{
    static const int64_t firsts[] = {INT64_MIN, INT64_MIN / 2, -1, 0, 1};
    static const int64_t periods[] = {1, 1000, ROUSE_S(1), INT64_MAX / 2, INT64_MAX - 1, INT64_MAX};
    (void)argument;
    for (size_t f = 0; f < sizeof firsts / sizeof firsts[0]; f++) {
        for (size_t p = 0; p < sizeof periods / sizeof periods[0]; p++) {
            for (int missed = ROUSE_MISSED_BURST; missed <= ROUSE_MISSED_SKIP; missed++) {
                rouse_interval interval;
                require_int(rouse_interval_init(&interval, firsts[f], periods[p], missed), ==, ROUSE_OK);
                for (int i = 0; i < 3 && interval.next_ns <= rouse_now(); i++) {
                    int64_t last = interval.next_ns;
                    require_int(rouse_interval_tick(&interval), >=, 0);
                    require_int(interval.next_ns, >, last);
                }
            }
        }
    }
    return 0;
}

TEST(schedules_at_the_ends_of_the_range_do_not_overflow)
{
    rouse_options options = test_options(TEST_SINGLE, 1);
    assert_int_equal(rouse_run(far_schedules, NULL, &options), 0);
}

/* ---- the clock steps: libuv#2891 ---- */

static int sleep_across_steps(void *argument)
{
    static const int64_t steps[] = {ROUSE_S(3600), -ROUSE_S(1), -1, 1, ROUSE_S(86400) * 30, -ROUSE_S(3600)};
    (void)argument;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        int64_t before = rouse_now();
        faults_clock_step(steps[i]);
        require_int(rouse_sleep(ROUSE_US(100)), ==, ROUSE_OK);
        require_int(rouse_sleep_until(before), ==, ROUSE_OK);
    }
    return 0;
}

TEST(a_clock_that_jumps_is_survived)
{
    rouse_options options = test_options(TEST_SINGLE, 1);
    assert_int_equal(rouse_run(sleep_across_steps, NULL, &options), 0);
}

/* ---- plain threads ---- */

TEST(a_plain_thread_yields_without_memory_and_without_a_runtime)
{
    test_needs("faults");
    int threads = test_thread_count();
    faults_fail_alloc(1, true);
    int yielded = rouse_yield(), slept = rouse_sleep(0), passed = rouse_sleep_until(rouse_now());
    unsigned long asked = faults_alloc_count();
    faults_reset();
    assert_int_equal(yielded, ROUSE_OK);
    assert_int_equal(slept, ROUSE_OK);
    assert_int_equal(passed, ROUSE_OK);
    assert_int_equal(asked, 0);
    assert_int_equal(test_thread_count(), threads);
}
