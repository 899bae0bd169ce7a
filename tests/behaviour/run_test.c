/* rouse_run: the runtime, the fiber and the scope of main. */
#include "support/runtimes.h"

/* ---- left open ---- */

static atomic_int alive;

static int wait_for_ever(void *argument)
{
    (void)argument;
    atomic_fetch_add(&alive, 1);
    int status = rouse_sleep(ROUSE_NEVER);
    atomic_fetch_sub(&alive, 1);
    return status;
}

static int sleep_a_little(void *argument)
{
    (void)argument;
    atomic_fetch_add(&alive, 1);
    int status = rouse_sleep(ROUSE_MS(2));
    atomic_fetch_sub(&alive, 1);
    return status;
}

static int leave_open(void *argument)
{
    rouse_shield shield;
    rouse_deadline deadline;
    rouse_scope scope;
    int which = *(int *)argument;
    require_int(rouse_go(sleep_a_little, NULL), ==, ROUSE_OK);
    if (which & 1) {
        require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_S(1000))), ==, ROUSE_OK);
    }
    if (which & 2) {
        require_int(rouse_shield_enter(&shield, rouse_after(ROUSE_S(1000))), ==, ROUSE_OK);
    }
    if (which & 4) {
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        require_int(rouse_go(wait_for_ever, NULL), ==, ROUSE_OK);
    }
    require_int(rouse_sleep(ROUSE_US(10)), ==, ROUSE_OK);
    return 5;
}

TEST(a_main_that_leaves_something_open_is_unbalanced_and_what_it_started_is_ended)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_options options = test_options((enum test_executor)kind, 2);
        for (int which = 0; which < 8; which++) {
            require_int(rouse_run(leave_open, &which, &options), ==, which == 0 ? 5 : ROUSE_UNBALANCED);
            require_int(atomic_load(&alive), ==, 0);
        }
    }
}

/* ---- left behind ---- */

static atomic_int released, ended;
static _Atomic(rouse_runtime *) left_behind;

static int outstay(void *argument)
{
    (void)argument;
    atomic_store(&left_behind, rouse_runtime_current());
    while (!atomic_load(&released)) {
        rouse_shield shield;
        require_int(rouse_shield_enter(&shield, ROUSE_NEVER), ==, ROUSE_OK);
        (void)rouse_yield(); /* CANCELLED once the shutdown's second is over */
        require_int(rouse_shield_leave(&shield), ==, ROUSE_OK);
        test_sleep_ns(100000);
    }
    atomic_fetch_add(&ended, 1);
    return 0;
}

static int start_one_that_outstays(void *argument)
{
    (void)argument;
    require_int(rouse_go_detached(outstay, NULL), ==, ROUSE_OK);
    while (!atomic_load(&left_behind)) {
        require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
    }
    return 6;
}

TEST(a_detached_fiber_that_does_not_end_leaves_a_runtime_behind_that_can_still_be_ended)
{
    test_time_limit(test_is_slow() ? 200 : 40);
    for (int kind = TEST_ROUND_ROBIN; kind < TEST_EXECUTORS; kind++) {
        rouse_options options = test_options((enum test_executor)kind, 2);
        atomic_store(&left_behind, NULL);
        atomic_store(&released, 0);
        atomic_store(&ended, 0);
        int64_t before = test_now_ns();
        assert_int_equal(rouse_run(start_one_that_outstays, NULL, &options), 6);
        assert_true(test_now_ns() - before >= ROUSE_S(1));
        assert_int_equal(atomic_load(&ended), 0);
        atomic_store(&released, 1);
        test_runtime_end(atomic_load(&left_behind));
        assert_int_equal(atomic_load(&ended), 1);
    }
}
