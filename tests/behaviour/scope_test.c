/* Scopes, cancelling, shields, deadlines, and fibers that leave them open. */
#include "support/runtimes.h"

static void run_on_each(rouse_fiber_function *function)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_options options = test_options((enum test_executor)kind, 2);
        require_int(rouse_run(function, NULL, &options), ==, 0);
    }
}

/* ---- children ---- */

static atomic_int alive, started;

static int sleep_a_little(void *argument)
{
    atomic_fetch_add(&alive, 1);
    int status = rouse_sleep(*(int64_t *)argument);
    atomic_fetch_sub(&alive, 1);
    return status;
}

static int close_waits(void *argument)
{
    int64_t spans[8];
    rouse_scope scope;
    (void)argument;
    for (int round = 0; round < 20; round++) {
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        for (int i = 0; i < 8; i++) {
            spans[i] = i * ROUSE_US(50);
            require_int(rouse_go(sleep_a_little, &spans[i]), ==, ROUSE_OK);
        }
        require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
        require_int(atomic_load(&alive), ==, 0);
        memset(spans, 0xee, sizeof spans);
    }
    return 0;
}

TEST(a_scope_closes_when_all_children_have_ended)
{
    run_on_each(close_waits);
}

static int answer(void *argument)
{
    return *(int *)argument;
}

static int first_error_of_children(void *argument)
{
    int values[] = {0, 7, -30, 1}, late = -31;
    rouse_scope scope;
    (void)argument;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (int i = 0; i < 4; i++) {
        require_int(rouse_go(answer, &values[i]), ==, ROUSE_OK);
    }
    require_int(rouse_sleep(ROUSE_MS(2)), ==, ROUSE_OK);
    require_int(rouse_go(answer, &late), ==, ROUSE_OK);
    int status = rouse_scope_close(&scope);
    require(status == -30 || status == -31);
    require_int(rouse_scope_close(&scope), ==, ROUSE_UNBALANCED);
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_INVALID);
    return 0;
}

TEST(closing_answers_the_first_failure_of_a_child)
{
    run_on_each(first_error_of_children);
}

static int wait_for_ever(void *argument)
{
    atomic_fetch_add(&started, 1);
    atomic_fetch_add(&alive, 1);
    int status = rouse_sleep(ROUSE_NEVER);
    require_int(rouse_is_cancelled(), ==, 1);
    require_int(rouse_sleep(ROUSE_NEVER), ==, ROUSE_CANCELLED);
    require_int(rouse_yield(), ==, ROUSE_CANCELLED);
    atomic_fetch_sub(&alive, 1);
    (void)argument;
    return status;
}

static int have_children(void *argument)
{
    int depth = *(int *)argument - 1;
    rouse_scope scope;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (int i = 0; i < 3; i++) {
        require_int(rouse_go(depth > 0 ? have_children : wait_for_ever, &depth), ==, ROUSE_OK);
    }
    return rouse_scope_close(&scope);
}

static int cancel_grandchildren(void *argument)
{
    int depth = 3;
    rouse_scope scope;
    (void)argument;
    atomic_store(&started, 0);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(have_children, &depth), ==, ROUSE_OK);
    while (atomic_load(&started) < 27) {
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
    require_int(rouse_scope_cancel(&scope, ROUSE_NEVER), ==, ROUSE_OK);
    require_int(rouse_go(answer, &depth), ==, ROUSE_CANCELLED);
    require_int(rouse_is_cancelled(), ==, 0);
    require_int(rouse_scope_close(&scope), ==, ROUSE_CANCELLED);
    require_int(atomic_load(&alive), ==, 0);
    require_int(rouse_sleep(1), ==, ROUSE_OK);
    return 0;
}

TEST(cancelling_a_scope_reaches_the_children_of_its_children_and_nobody_else)
{
    run_on_each(cancel_grandchildren);
}

static int close_under_cancel(void *argument)
{
    rouse_scope scope;
    sem_t *ready = argument;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(wait_for_ever, NULL), ==, ROUSE_OK);
    while (atomic_load(&started) == 0) {
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    test_post(ready);
    require_int(rouse_scope_close(&scope), ==, ROUSE_CANCELLED);
    require_int(atomic_load(&alive), ==, 0);
    return 9;
}

TEST(aborting_a_fiber_that_waits_in_close_cancels_its_children_and_close_goes_on)
{
    for (int kind = TEST_ROUND_ROBIN; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        rouse_task task;
        sem_t ready;
        sem_init(&ready, 0, 0);
        atomic_store(&started, 0);
        require_int(rouse_spawn_fiber_at(&task, runtime, close_under_cancel, &ready, 0, 0, NULL, NULL), ==, ROUSE_OK);
        test_await(&ready);
        rouse_abort(&task);
        require_int(rouse_join(&task, NULL), ==, 9);
        test_runtime_end(runtime);
        sem_destroy(&ready);
    }
}

static int go_outside(void *argument)
{
    rouse_scope outer, inner;
    int value = 4;
    (void)argument;
    require_int(rouse_go(answer, &value), ==, ROUSE_UNBALANCED);
    require_int(rouse_scope_open(NULL), ==, ROUSE_INVALID);
    require_int(rouse_scope_open(&outer), ==, ROUSE_OK);
    require_int(rouse_scope_open(&inner), ==, ROUSE_OK);
    require_int(rouse_scope_close(&outer), ==, ROUSE_UNBALANCED);
    require_int(rouse_scope_close(NULL), ==, ROUSE_UNBALANCED);
    require_int(rouse_go(answer, &value), ==, ROUSE_OK);
    require_int(rouse_scope_close(&inner), ==, ROUSE_OK);
    require_int(rouse_scope_close(&outer), ==, ROUSE_OK);
    return 8;
}

TEST(spawning_without_a_scope_or_outside_of_fibers_is_refused)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    rouse_scope scope = {{0}};
    int value = 3;
    assert_int_equal(rouse_go(answer, &value), ROUSE_NOT_IN_FIBER);
    assert_int_equal(rouse_scope_open(&scope), ROUSE_NOT_IN_FIBER);
    assert_int_equal(rouse_scope_close(&scope), ROUSE_NOT_IN_FIBER);
    assert_int_equal(rouse_scope_cancel(&scope, 0), ROUSE_INVALID);
    assert_int_equal(test_fiber(runtime, go_outside, NULL), 8);
    test_runtime_end(runtime);
}

/* ---- poll tasks as children ---- */

static int scope_with_tasks(void *argument)
{
    struct test_bell bells[2] = {TEST_BELL_INIT, TEST_BELL_INIT}, *state = &bells[0];
    rouse_task task;
    rouse_scope scope;
    (void)argument;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_scope_spawn(&scope, &task, &test_bell_task, &state), ==, ROUSE_OK);
    test_bell_ring(&bells[0]);
    require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
    state = &bells[1];
    require_int(rouse_scope_spawn(&scope, NULL, &test_bell_task, &state), ==, ROUSE_OK);
    require_int(rouse_scope_spawn(&scope, NULL, NULL, &state), ==, ROUSE_INVALID);
    require_int(rouse_scope_spawn(NULL, NULL, &test_bell_task, &state), ==, ROUSE_INVALID);
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
    require_int(rouse_scope_spawn(&scope, &task, &test_bell_task, &state), ==, ROUSE_CANCELLED);
    require(task.cell == NULL);
    require_int(rouse_scope_spawn(&scope, NULL, &test_bell_task, &state), ==, ROUSE_CANCELLED);
    require_int(rouse_scope_close(&scope), ==, ROUSE_CANCELLED);
    test_bell_forget(&bells[1]);
    return 0;
}

TEST(poll_tasks_are_children_like_fibers)
{
    run_on_each(scope_with_tasks);
}

/* ---- shields ---- */

static int clean_up_in_shield(void *argument)
{
    rouse_shield shield, inner;
    int64_t before, end;
    (void)argument;
    atomic_fetch_add(&started, 1);
    require_int(rouse_sleep(ROUSE_NEVER), ==, ROUSE_CANCELLED);
    end = rouse_after(test_is_slow() ? ROUSE_MS(1000) : ROUSE_MS(200)); /* more than the sleeps in it take */
    require_int(rouse_shield_enter(&shield, end), ==, ROUSE_OK);
    require_int(rouse_is_cancelled(), ==, 0);
    before = rouse_now();
    require_int(rouse_sleep(ROUSE_MS(2)), ==, ROUSE_OK);
    require_int(rouse_now() - before, >=, ROUSE_MS(2));
    require_int(rouse_shield_enter(&inner, rouse_after(ROUSE_MS(1))), ==, ROUSE_OK);
    require_int(rouse_sleep(ROUSE_S(100)), ==, ROUSE_TIMED_OUT);
    require_int(rouse_shield_leave(&shield), ==, ROUSE_UNBALANCED);
    require_int(rouse_shield_leave(&inner), ==, ROUSE_OK);
    require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
    require_int(rouse_sleep(ROUSE_S(100)), ==, ROUSE_TIMED_OUT);
    require_int(rouse_now(), >=, end);
    require_int(rouse_yield(), ==, ROUSE_TIMED_OUT);
    require_int(rouse_shield_leave(&shield), ==, ROUSE_OK);
    require_int(rouse_shield_leave(&shield), ==, ROUSE_UNBALANCED);
    require_int(rouse_is_cancelled(), ==, 1);
    require_int(rouse_yield(), ==, ROUSE_CANCELLED);
    return 0;
}

static int cancel_one(rouse_fiber_function *function, int64_t grace_ns)
{
    rouse_scope scope;
    atomic_store(&started, 0);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(function, NULL), ==, ROUSE_OK);
    while (atomic_load(&started) == 0) {
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    require_int(rouse_scope_cancel(&scope, grace_ns), ==, ROUSE_OK);
    return rouse_scope_close(&scope);
}

static int shield_works(void *argument)
{
    (void)argument;
    return cancel_one(clean_up_in_shield, ROUSE_NEVER);
}

TEST(inside_a_shield_a_cancelled_fiber_waits_for_a_bounded_time)
{
    run_on_each(shield_works);
}

static int clean_up_too_long(void *argument)
{
    rouse_shield shield;
    (void)argument;
    require_int(rouse_shield_enter(&shield, rouse_after(ROUSE_S(1000))), ==, ROUSE_OK);
    atomic_fetch_add(&started, 1);
    int64_t before = rouse_now();
    require_int(rouse_sleep(ROUSE_NEVER), ==, ROUSE_CANCELLED);
    require_int(rouse_now() - before, <, ROUSE_S(100));
    require_int(rouse_yield(), ==, ROUSE_CANCELLED);
    require_int(rouse_shield_leave(&shield), ==, ROUSE_OK);
    return 0;
}

static int grace_ends_shields(void *argument)
{
    (void)argument;
    int64_t before = rouse_now();
    require_int(cancel_one(clean_up_too_long, ROUSE_MS(10)), ==, 0);
    require_int(rouse_now() - before, >=, ROUSE_MS(10));
    return cancel_one(clean_up_too_long, 0);
}

TEST(the_grace_of_a_cancelled_scope_ends_the_shields_of_its_children)
{
    run_on_each(grace_ends_shields);
}

static int shorter_grace(void *argument)
{
    rouse_scope scope;
    (void)argument;
    atomic_store(&started, 0);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(clean_up_too_long, NULL), ==, ROUSE_OK);
    while (atomic_load(&started) == 0) {
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    require_int(rouse_scope_cancel(&scope, ROUSE_S(500)), ==, ROUSE_OK);
    require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
    require_int(rouse_scope_cancel(&scope, ROUSE_MS(2)), ==, ROUSE_OK);
    return rouse_scope_close(&scope);
}

TEST(a_second_cancel_with_a_shorter_grace_counts)
{
    run_on_each(shorter_grace);
}

static int hold_scope_in_shield(void *argument)
{
    rouse_scope scope;
    rouse_shield shield;
    int64_t span = ROUSE_NEVER;
    (void)argument;
    require_int(rouse_shield_enter(&shield, rouse_after(ROUSE_MS(5))), ==, ROUSE_OK);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(sleep_a_little, &span), ==, ROUSE_OK);
    atomic_fetch_add(&started, 1);
    int status = rouse_scope_close(&scope);
    require(status == ROUSE_CANCELLED || status == ROUSE_TIMED_OUT); /* it inherits the shield's end */
    require_int(rouse_shield_leave(&shield), ==, ROUSE_OK);
    return 0;
}

static int close_in_shield(void *argument)
{
    (void)argument;
    return cancel_one(hold_scope_in_shield, ROUSE_NEVER);
}

TEST(closing_inside_a_shield_cancels_the_children_when_the_shield_ends)
{
    run_on_each(close_in_shield);
}

static int shielded_sleep(void *argument)
{
    rouse_shield shield;
    require_int(rouse_shield_enter(&shield, rouse_after(ROUSE_S(100))), ==, ROUSE_OK);
    int status = rouse_sleep(*(int64_t *)argument);
    require_int(rouse_shield_leave(&shield), ==, ROUSE_OK);
    return status;
}

static int close_under_past_deadline(void *argument)
{
    rouse_deadline deadline;
    rouse_scope scope;
    int64_t span = ROUSE_MS(200);
    (void)argument;
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(1))), ==, ROUSE_OK);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(shielded_sleep, &span), ==, ROUSE_OK);
    int64_t before = test_cpu_ns();
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    require_int(test_cpu_ns() - before, <, ROUSE_MS(100));
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    return 0;
}

TEST_SERIAL(closing_under_a_deadline_that_has_passed_waits_without_using_the_processor)
{
    run_on_each(close_under_past_deadline);
}

static int sleep_20_ms(void *argument)
{
    (void)argument;
    return rouse_sleep(ROUSE_MS(20));
}

static int hold_deadline_in_shield(void *argument)
{
    rouse_shield shield;
    rouse_scope scope;
    rouse_deadline deadline;
    (void)argument;
    atomic_fetch_add(&started, 1);
    require_int(rouse_sleep(ROUSE_NEVER), ==, ROUSE_CANCELLED);
    require_int(rouse_shield_enter(&shield, ROUSE_NEVER), ==, ROUSE_OK);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(sleep_20_ms, NULL), ==, ROUSE_OK);
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(1))), ==, ROUSE_OK);
    int64_t before = test_cpu_ns();
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK); /* the child's status: it was not cancelled */
    if (!test_is_slow())
        require_int(test_cpu_ns() - before, <, ROUSE_MS(10));
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    require_int(rouse_shield_leave(&shield), ==, ROUSE_OK);
    return 0;
}

static int close_under_deadline_in_shield(void *argument)
{
    (void)argument;
    return cancel_one(hold_deadline_in_shield, ROUSE_S(50));
}

TEST_SERIAL(a_deadline_around_closing_inside_a_shield_cancels_no_children)
{
    run_on_each(close_under_deadline_in_shield);
}

static int outlast_shield(void *argument)
{
    rouse_shield shield;
    (void)argument;
    atomic_fetch_add(&started, 1);
    require_int(rouse_sleep(ROUSE_NEVER), ==, ROUSE_CANCELLED);
    require_int(rouse_shield_enter(&shield, rouse_after(ROUSE_MS(1))), ==, ROUSE_OK);
    while (!rouse_is_cancelled()) {
        int status = rouse_sleep(ROUSE_MS(1));
        require(status == ROUSE_OK || status == ROUSE_TIMED_OUT);
    }
    require_int(rouse_sleep(0), ==, ROUSE_TIMED_OUT);
    require_int(rouse_shield_leave(&shield), ==, ROUSE_OK);
    return 0;
}

static int cancel_one_that_outlasts(void *argument)
{
    (void)argument;
    return cancel_one(outlast_shield, ROUSE_S(50));
}

TEST(a_shield_whose_time_has_passed_holds_no_cancelling_off)
{
    run_on_each(cancel_one_that_outlasts);
}

/* ---- deadlines ---- */

static int expect_deadline(void *argument)
{
    require_int(rouse_deadline_current(), ==, *(int64_t *)argument);
    return 0;
}

static int deadlines_nest(void *argument)
{
    rouse_deadline outer, inner, wider;
    rouse_scope scope;
    int64_t far = rouse_after(ROUSE_S(100)), near = rouse_after(ROUSE_S(50));
    (void)argument;
    require_int(rouse_deadline_current(), ==, ROUSE_NEVER);
    require_int(rouse_deadline_enter(NULL, 1), ==, ROUSE_INVALID);
    require_int(rouse_deadline_enter(&outer, far), ==, ROUSE_OK);
    require_int(rouse_deadline_current(), ==, far);
    require_int(rouse_deadline_enter(&inner, near), ==, ROUSE_OK);
    require_int(rouse_deadline_current(), ==, near);
    require_int(rouse_deadline_enter(&inner, near), ==, ROUSE_UNBALANCED);
    require_int(rouse_deadline_enter(&wider, ROUSE_NEVER), ==, ROUSE_OK);
    require_int(rouse_deadline_current(), ==, near);
    require_int(rouse_deadline_leave(&outer), ==, ROUSE_UNBALANCED);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(expect_deadline, &near), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    require_int(rouse_deadline_leave(&wider), ==, ROUSE_OK);
    require_int(rouse_deadline_leave(&inner), ==, ROUSE_OK);
    require_int(rouse_deadline_current(), ==, far);
    require_int(rouse_sleep(1), ==, ROUSE_OK);
    require_int(rouse_deadline_leave(&outer), ==, ROUSE_OK);
    require_int(rouse_deadline_current(), ==, ROUSE_NEVER);
    return 0;
}

TEST(deadlines_nest_and_children_inherit_the_nearest)
{
    run_on_each(deadlines_nest);
    rouse_deadline frame = {{0}};
    assert_int_equal(rouse_deadline_enter(&frame, 1), ROUSE_INVALID);
    rouse_deadline_cancel(&frame);
    assert_int_equal(rouse_deadline_current(), ROUSE_NEVER);
}

static int deadline_ends_waits(void *argument)
{
    static const int64_t ends[] = {INT64_MIN, -1, 0, 1};
    rouse_deadline deadline;
    (void)argument;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        require_int(rouse_deadline_enter(&deadline, ends[i]), ==, ROUSE_OK);
        require_int(rouse_sleep(ROUSE_S(100)), ==, ROUSE_TIMED_OUT);
        require_int(rouse_sleep(0), ==, ROUSE_TIMED_OUT);
        require_int(rouse_yield(), ==, ROUSE_TIMED_OUT);
        require_int(rouse_is_cancelled(), ==, 0);
        require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    for (int i = 0; i < 20; i++) {
        int64_t end = rouse_after(ROUSE_US(100 * i));
        require_int(rouse_deadline_enter(&deadline, end), ==, ROUSE_OK);
        require_int(rouse_sleep(i & 1 ? ROUSE_NEVER : ROUSE_S(100)), ==, ROUSE_TIMED_OUT);
        require_int(rouse_now(), >=, end);
        require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    }
    return 0;
}

TEST(a_deadline_ends_every_wait_under_it_and_never_early)
{
    run_on_each(deadline_ends_waits);
}

/* tokio#4314: what is always ready must not keep the deadline from being looked at. */
static int always_ready(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)state;
    rouse_op op;
    for (;;) {
        rouse_sleep_init(&op, 0);
        ptrdiff_t status = rouse_op_poll(&op, context);
        if (status == ROUSE_PENDING) {
            return ROUSE_PENDING;
        }
        if (status != ROUSE_OK) {
            return (int)status;
        }
    }
}

static int always_ready_fiber(void *argument)
{
    int status;
    rouse_op op;
    (void)argument;
    do {
        rouse_sleep_init(&op, 0);
        status = (int)rouse_op_await(&op);
    } while (status == ROUSE_OK);
    return status;
}

static int deadline_beats_ready(void *argument)
{
    const rouse_task_type type = {.poll = always_ready};
    (void)argument;
    for (int i = 0; i < 2; i++) {
        rouse_deadline deadline;
        rouse_scope scope;
        int64_t end = rouse_after(ROUSE_MS(10)), cpu = test_cpu_ns();
        require_int(rouse_deadline_enter(&deadline, end), ==, ROUSE_OK);
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        if (i == 0) {
            require_int(rouse_scope_spawn(&scope, NULL, &type, NULL), ==, ROUSE_OK);
        } else {
            require_int(rouse_go(always_ready_fiber, NULL), ==, ROUSE_OK);
        }
        require_int(rouse_scope_close(&scope), ==, ROUSE_TIMED_OUT);
        require_int(rouse_now(), >=, end);
        if (!test_is_slow()) { /* what is always ready uses the processor until it is ended */
            require_int(test_cpu_ns() - cpu, <, ROUSE_MS(40));
        }
        require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    }
    return 0;
}

TEST_SERIAL(a_deadline_ends_what_is_always_ready)
{
    run_on_each(deadline_beats_ready);
}

static int other_fiber_runs(void *argument)
{
    rouse_scope scope;
    (void)argument;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(always_ready_fiber, NULL), ==, ROUSE_OK);
    int64_t cpu = test_cpu_ns();
    for (int i = 0; i < 20; i++) {
        require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
    }
    if (!test_is_slow()) { /* what is always ready uses the processor meanwhile */
        require_int(test_cpu_ns() - cpu, <, ROUSE_MS(200));
    }
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, ROUSE_CANCELLED);
    return 0;
}

TEST_SERIAL(what_is_always_ready_lets_others_run)
{
    run_on_each(other_fiber_runs);
}

/* ---- left open ---- */

static int leave_all_open(void *argument)
{
    rouse_scope outer, inner;
    rouse_shield shield;
    rouse_deadline deadline;
    int which = *(int *)argument;
    if (which & 1) {
        require_int(rouse_scope_open(&outer), ==, ROUSE_OK);
        require_int(rouse_go(wait_for_ever, NULL), ==, ROUSE_OK);
    }
    if (which & 2) {
        require_int(rouse_shield_enter(&shield, rouse_after(ROUSE_S(100))), ==, ROUSE_OK);
    }
    if (which & 4) {
        require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_S(100))), ==, ROUSE_OK);
    }
    if (which & 8) {
        require_int(rouse_scope_open(&inner), ==, ROUSE_OK);
        require_int(rouse_go(wait_for_ever, NULL), ==, ROUSE_OK);
    }
    require_int(rouse_sleep(ROUSE_US(10)), ==, ROUSE_OK);
    return 5;
}

static void left_open(rouse_runtime *runtime)
{
    for (int which = 0; which < 16; which++) {
        require_int(test_fiber(runtime, leave_all_open, &which), ==, which == 0 ? 5 : ROUSE_UNBALANCED);
        require_int(atomic_load(&alive), ==, 0);
    }
}

TEST(a_fiber_that_leaves_something_open_is_unbalanced_and_its_children_are_ended)
{
    test_on_each_executor(left_open);
}

struct far_away {
    rouse_scope scope;
    rouse_deadline deadline;
};

static int leave_open_elsewhere(void *argument)
{
    struct far_away *far_away = argument;
    require_int(rouse_deadline_enter(&far_away->deadline, rouse_after(ROUSE_S(100))), ==, ROUSE_OK);
    require_int(rouse_scope_open(&far_away->scope), ==, ROUSE_OK);
    require_int(rouse_go(wait_for_ever, NULL), ==, ROUSE_OK);
    return rouse_sleep(ROUSE_US(10));
}

static void left_open_elsewhere(rouse_runtime *runtime)
{
    struct far_away *far_away = test_memory(sizeof *far_away);
    require_int(test_fiber(runtime, leave_open_elsewhere, far_away), ==, ROUSE_UNBALANCED);
    require_int(atomic_load(&alive), ==, 0);
    free(far_away);
}

TEST(what_a_fiber_leaves_open_need_not_lie_on_its_stack)
{
    test_on_each_executor(left_open_elsewhere);
}

/* Far enough from other memory that whoever takes it for the end of a stack writes into `before`. */
static struct {
    unsigned char before[65536];
    struct far_away open;
} surrounded;

static int leave_open_in_static_memory(void *argument)
{
    (void)argument;
    return leave_open_elsewhere(&surrounded.open);
}

static void left_open_in_static_memory(rouse_runtime *runtime)
{
    memset(surrounded.before, 0x5a, sizeof surrounded.before);
    require_int(test_fiber(runtime, leave_open_in_static_memory, NULL), ==, ROUSE_UNBALANCED);
    require_int(atomic_load(&alive), ==, 0);
    for (size_t i = 0; i < sizeof surrounded.before; i++) {
        require_int(surrounded.before[i], ==, 0x5a);
    }
}

TEST(ending_what_was_left_open_in_static_memory_writes_nothing_beside_it)
{
    test_on_each_executor(left_open_in_static_memory);
}

/* ---- shields in poll tasks ---- */

struct slow_end {
    rouse_op op;
    rouse_shield shield;
    bool begun, ending;
    atomic_int *ended;
};

static int end_slowly(void *state, void *result, rouse_context *context)
{
    struct slow_end *end = state;
    (void)result;
    if (!end->begun) {
        end->begun = true;
        atomic_fetch_add(&started, 1);
        rouse_sleep_init(&end->op, ROUSE_NEVER);
    }
    if (!end->ending) {
        ptrdiff_t status = rouse_op_poll(&end->op, context);
        if (status == ROUSE_PENDING) {
            return ROUSE_PENDING;
        }
        require_int(status, ==, ROUSE_CANCELLED);
        require_int(rouse_is_cancelled(), ==, 1); /* perhaps since this poll began */
        end->ending = true;
        rouse_sleep_init(&end->op, rouse_after(ROUSE_MS(3)));
    }
    require_int(rouse_shield_enter(&end->shield, rouse_after(ROUSE_S(100))), ==, ROUSE_OK);
    ptrdiff_t status = rouse_op_poll(&end->op, context);
    require_int(rouse_shield_leave(&end->shield), ==, ROUSE_OK);
    if (status == ROUSE_OK) {
        atomic_fetch_add(end->ended, 1);
    }
    return (int)status;
}

static void drop_slow_end(void *state)
{
    struct slow_end *end = state;
    rouse_op_cancel(&end->op);
    rouse_shield_cancel(&end->shield);
}

static int poll_task_in_shield(void *argument)
{
    const rouse_task_type type = {.poll = end_slowly, .drop = drop_slow_end, .state_size = sizeof(struct slow_end)};
    atomic_int ended;
    atomic_init(&ended, 0);
    struct slow_end state = {.ended = &ended};
    (void)argument;
    for (int round = 0; round < 2; round++) {
        rouse_scope scope;
        atomic_store(&started, 0);
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        require_int(rouse_scope_spawn(&scope, NULL, &type, &state), ==, ROUSE_OK);
        while (atomic_load(&started) == 0) {
            require_int(rouse_yield(), ==, ROUSE_OK);
        }
        require_int(rouse_scope_cancel(&scope, round == 0 ? ROUSE_NEVER : 0), ==, ROUSE_OK);
        require_int(rouse_scope_close(&scope), ==, round == 0 ? ROUSE_OK : ROUSE_CANCELLED);
        require_int(atomic_load(&ended), ==, 1);
    }
    return 0;
}

TEST(a_cancelled_poll_task_goes_on_inside_its_shield_until_the_grace_ends)
{
    run_on_each(poll_task_in_shield);
}

static int open_twice(void *unused)
{
    rouse_scope outer, inner;
    (void)unused;
    require_int(rouse_scope_open(&outer), ==, ROUSE_OK);
    require_int(rouse_scope_open(&outer), ==, ROUSE_UNBALANCED);
    require_int(rouse_scope_open(&inner), ==, ROUSE_OK);
    require_int(rouse_scope_open(&outer), ==, ROUSE_UNBALANCED);
    require_int(rouse_scope_close(&inner), ==, ROUSE_OK);
    require_int(rouse_scope_close(&outer), ==, ROUSE_OK);
    return 0;
}

TEST(a_scope_that_is_open_cannot_be_opened_again)
{
    rouse_options options = test_options(TEST_SINGLE, 1);
    assert_int_equal(rouse_run(open_twice, NULL, &options), 0);
}

/* ---- children that open no scope ---- */

static atomic_int generations;

static int start_a_sibling(void *left)
{
    intptr_t more = (intptr_t)left;
    atomic_fetch_add(&generations, 1);
    if (more > 0)
        require_int(rouse_go(start_a_sibling, (void *)(more - 1)), ==, ROUSE_OK);
    else
        require_int(rouse_sleep(ROUSE_MS(5)), ==, ROUSE_OK); /* everybody else has ended by now */
    return more > 0 ? ROUSE_OK : -77;
}

static int start_siblings_in_a_cancelled_scope(void *cancelled)
{
    require_int(rouse_sleep(ROUSE_NEVER), ==, ROUSE_CANCELLED);
    *(int *)cancelled = rouse_go(start_a_sibling, NULL);
    return ROUSE_OK;
}

static int wait_for_generations(void *unused)
{
    rouse_scope scope;
    int status = ROUSE_OK;
    (void)unused;
    atomic_store(&generations, 0);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(start_a_sibling, (void *)4), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, -77);
    require_int(atomic_load(&generations), ==, 5);
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    require_int(rouse_go(start_siblings_in_a_cancelled_scope, &status), ==, ROUSE_OK);
    require_int(rouse_yield(), ==, ROUSE_OK);
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    require_int(status, ==, ROUSE_CANCELLED);
    return 6;
}

TEST(a_fiber_that_has_opened_no_scope_starts_siblings)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        require_int(test_fiber(runtime, wait_for_generations, NULL), ==, 6);
        test_runtime_end(runtime);
    }
}

/* ---- several waits under one deadline ---- */

/* An operation with a waker of its own, which wakes the task. */
struct announced {
    rouse_op op;
    rouse_waker task; /* owned */
    bool woken;
    ptrdiff_t answer;
};

struct pair {
    struct announced each[2];
    rouse_deadline deadline;
    int64_t deadline_ns;
    bool started;
};

static rouse_waker announced_clone(void *data);

static void announced_wake(void *data)
{
    struct announced *one = data;
    one->woken = true;
    rouse_waker_wake_by_ref(&one->task);
}

static void announced_drop(void *data)
{
    (void)data;
}

static const rouse_waker_table announced_table = {announced_clone, announced_wake, announced_wake, announced_drop};

static rouse_waker announced_clone(void *data)
{
    return (rouse_waker){data, &announced_table};
}

/* Polls what was woken; everything once the deadline has passed, for that wakes the task alone. */
static int poll_pair(void *state, void *result, rouse_context *context)
{
    struct pair *pair = *(struct pair **)state;
    bool all = !pair->started || rouse_now() >= pair->deadline_ns, pending = false;
    (void)result;
    pair->started = true;
    require_int(rouse_deadline_enter(&pair->deadline, pair->deadline_ns), ==, ROUSE_OK);
    for (int i = 0; i < 2; i++) {
        struct announced *one = &pair->each[i];
        if (one->answer == ROUSE_PENDING && (all || one->woken)) {
            rouse_context mine = *context;
            if (!one->task.table)
                one->task = rouse_waker_clone(&context->waker);
            one->woken = false;
            mine.waker = (rouse_waker){one, &announced_table};
            one->answer = rouse_op_poll(&one->op, &mine);
        }
        pending |= one->answer == ROUSE_PENDING;
    }
    require_int(rouse_deadline_leave(&pair->deadline), ==, ROUSE_OK);
    return pending ? ROUSE_PENDING : ROUSE_OK;
}

static void drop_pair(void *state)
{
    struct pair *pair = *(struct pair **)state;
    for (int i = 0; i < 2; i++) {
        rouse_op_cancel(&pair->each[i].op);
        rouse_waker_drop(&pair->each[i].task);
    }
    rouse_deadline_cancel(&pair->deadline);
}

static const rouse_task_type pair_type = {
    .name = "pair", .poll = poll_pair, .drop = drop_pair, .state_size = sizeof(struct pair *)};

TEST(a_deadline_ends_all_that_waits_under_it_whoever_was_polled_last)
{
    int64_t span_ns = test_is_slow() ? ROUSE_S(2) : ROUSE_MS(200); /* more than the sleep in it takes */
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 1);
        struct pair pair = {.deadline_ns = rouse_after(span_ns)}, *state = &pair;
        for (int i = 0; i < 2; i++)
            pair.each[i].answer = ROUSE_PENDING;
        rouse_sleep_init(&pair.each[0].op, rouse_after(ROUSE_S(600)));
        rouse_sleep_init(&pair.each[1].op, rouse_after(ROUSE_MS(5))); /* polled last, and done before the deadline */
        require_int(rouse_block_on(runtime, &pair_type, &state, NULL), ==, ROUSE_OK);
        require_int(pair.each[0].answer, ==, ROUSE_TIMED_OUT);
        require(pair.each[1].answer == ROUSE_OK || rouse_now() >= pair.deadline_ns);
        test_runtime_end(runtime);
    }
}

/* ---- cancelled by a stranger ---- */

static struct {
    pthread_mutex_t lock;
    rouse_scope *scope; /* open; NULL: none yet */
} stranger = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int sleep_for_ever(void *unused)
{
    (void)unused;
    return rouse_sleep(ROUSE_NEVER);
}

static int close_what_a_stranger_cancels(void *unused)
{
    (void)unused;
    for (uint64_t i = 0; i < test_scale(200, 20000); i++) {
        rouse_scope scope;
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        for (int k = 0; k < 3; k++)
            require_int(rouse_go(sleep_for_ever, NULL), ==, ROUSE_OK);
        pthread_mutex_lock(&stranger.lock);
        stranger.scope = &scope;
        pthread_mutex_unlock(&stranger.lock);
        require_int(rouse_scope_close(&scope), ==, ROUSE_CANCELLED);
        memset(&scope, 0xa5, sizeof scope);
    }
    return 5;
}

static void *cancel_as_a_stranger(void *over)
{
    while (!atomic_load((atomic_bool *)over)) {
        pthread_mutex_lock(&stranger.lock);
        rouse_scope *scope = stranger.scope;
        stranger.scope = NULL;
        pthread_mutex_unlock(&stranger.lock);
        if (scope)
            require_int(rouse_scope_cancel(scope, 0), ==, ROUSE_OK);
        test_take_turns();
    }
    return NULL;
}

TEST(a_scope_stays_open_until_the_thread_that_cancels_it_has_left)
{
    for (int kind = TEST_ROUND_ROBIN; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        atomic_bool over = false;
        pthread_t thread;
        require_int(pthread_create(&thread, NULL, cancel_as_a_stranger, &over), ==, 0);
        require_int(test_fiber(runtime, close_what_a_stranger_cancels, NULL), ==, 5);
        atomic_store(&over, true);
        pthread_join(thread, NULL);
        test_runtime_end(runtime);
    }
}
