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
