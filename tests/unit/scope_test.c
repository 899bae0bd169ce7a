/* Scopes from the inside: cancelling tasks again, and waiting with a waker that cannot be cloned. */
#include "core/scope.h"
#include "core/state.h"

#include "support/harness.h"

TEST(cancelling_again_queues_a_sleeping_task_once_and_one_that_was_cancelled_before_as_well)
{
    size_t asleep = 3 * STATE_REFERENCE, before[] = {asleep, asleep | STATE_CANCELLED};
    for (int i = 0; i < 2; i++) {
        struct state_step step = state_cancel_again(before[i]);
        assert_int_equal(step.action, STATE_SUBMIT);
        assert_int_equal(step.next, (asleep | STATE_CANCELLED | STATE_NOTIFIED) + STATE_REFERENCE);
        step = state_cancel_again(step.next);
        assert_int_equal(step.action, STATE_NOTHING);
        assert_int_equal(step.next, (asleep | STATE_CANCELLED | STATE_NOTIFIED) + STATE_REFERENCE);
    }
}

TEST(cancelling_again_asks_a_running_task_for_another_poll_and_leaves_a_completed_one_alone)
{
    size_t running = STATE_RUNNING | STATE_CANCELLED | 2 * STATE_REFERENCE, complete = STATE_COMPLETE | STATE_REFERENCE;
    struct state_step step = state_cancel_again(running);
    assert_int_equal(step.action, STATE_NOTHING);
    assert_int_equal(step.next, running | STATE_NOTIFIED);
    step = state_cancel_again(complete);
    assert_int_equal(step.action, STATE_NOTHING);
    assert_int_equal(step.next, complete);
}

static int wakes;

static rouse_waker refuse(void *data)
{
    (void)data;
    return (rouse_waker){NULL, NULL};
}

static void count(void *data)
{
    (void)data;
    wakes++;
}

TEST(waiting_for_children_with_a_waker_that_cannot_be_cloned_wakes_at_once)
{
    static const rouse_waker_table table = {refuse, count, count, count};
    rouse_waker waker = {&wakes, &table};
    struct surroundings around = {.top = NULL};
    struct origin child = {.scope = NULL};
    struct scope scope;
    scope_init(&scope, &around);
    assert_int_equal(scope_add(&scope, &child), ROUSE_OK);
    assert_int_equal(scope_poll_empty(&scope, &waker), ROUSE_PENDING);
    assert_int_equal(wakes, 1);
    assert_int_equal(scope_poll_empty(&scope, &waker), ROUSE_PENDING);
    assert_int_equal(wakes, 2);
    scope_child_ended(&child, ROUSE_OK);
    assert_int_equal(scope_poll_empty(&scope, &waker), ROUSE_OK);
    assert_int_equal(wakes, 2);
}
