/* The reactor without executors: how long a turn waits, who ends it, and what it calls. */
#include "core/reactor.h"
#include "core/alloc.h"
#include "core/timer.h"

#include "support/harness.h"
#include "support/net.h"

struct bell {
    atomic_u32 wakes;
    struct timer *again; /* armed once more by the waker, at `deadline_ns` */
    int64_t deadline_ns;
};

static rouse_waker bell_clone(void *data);
static void bell_drop(void *data)
{
    (void)data;
}
static void bell_wake(void *data);
static const rouse_waker_table bell_table = {bell_clone, bell_wake, bell_wake, bell_drop};

static rouse_waker bell_clone(void *data)
{
    return (rouse_waker){data, &bell_table};
}

static void bell_wake(void *data)
{
    struct bell *bell = data;
    atomic_u32_add(&bell->wakes, 1, ACQ_REL);
    if (bell->again) {
        struct timer *timer = bell->again;
        rouse_waker waker = bell_clone(bell);
        bell->again = NULL;
        require_int(timer_arm(timer, bell->deadline_ns, &waker), ==, ROUSE_OK);
    }
}

static unsigned wakes(struct bell *bell)
{
    return atomic_u32_load(&bell->wakes, ACQUIRE);
}

static struct reactor reactor;
static struct local local;

/* This thread is the reactor's: its timers go there. */
static void set_up(void)
{
    assert_int_equal(reactor_init(&reactor, NULL, alloc_choose(NULL)), ROUSE_OK);
    local = (struct local){.reactor = &reactor};
    os_current_set(&local);
}

static void tear_down(void)
{
    reactor_fini(&reactor, NULL, NULL);
    os_current_set(NULL);
}

static void arm(struct timer *timer, int64_t deadline_ns, struct bell *bell)
{
    rouse_waker waker = bell_clone(bell);
    assert_int_equal(timer_arm(timer, deadline_ns, &waker), ROUSE_OK);
}

/* ---- deadlines ---- */

TEST(a_turn_whose_deadline_has_passed_does_not_wait)
{
    static const int64_t passed[] = {0, 1, -1, INT64_MIN};
    set_up();
    int64_t start = test_now_ns();
    for (size_t i = 0; i < sizeof passed / sizeof passed[0]; i++)
        assert_int_equal(reactor_turn(&reactor, passed[i]), 0);
    assert_true(test_now_ns() - start < TEST_SOON);
    tear_down();
}

TEST(a_turn_ends_at_its_deadline_and_not_before)
{
    set_up();
    for (int i = 1; i <= 5; i++) {
        int64_t deadline_ns = rouse_after(ROUSE_MS(i));
        while (os_now() < deadline_ns)
            assert_int_equal(reactor_turn(&reactor, deadline_ns), 0);
    }
    tear_down();
}

TEST(a_turn_ends_at_the_first_timer_and_calls_it_once)
{
    struct timer early = {.reactor = NULL}, late = {.reactor = NULL};
    struct bell first = {.again = NULL}, second = {.again = NULL};
    set_up();
    int64_t early_ns = rouse_after(ROUSE_MS(5)), late_ns = rouse_after(ROUSE_S(100));
    arm(&late, late_ns, &second);
    arm(&early, early_ns, &first);
    assert_true(reactor_next_timer(&reactor) <= early_ns);
    while (wakes(&first) == 0)
        (void)reactor_turn(&reactor, ROUSE_NEVER);
    assert_true(os_now() >= early_ns);
    assert_false(timer_is_pending(&early));
    assert_true(timer_is_pending(&late));
    assert_int_equal(reactor_turn(&reactor, 0), 0);
    assert_int_equal(wakes(&first), 1);
    assert_int_equal(wakes(&second), 0);
    timer_disarm(&late);
    assert_true(reactor_next_timer(&reactor) == ROUSE_NEVER);
    tear_down();
}

TEST(a_timer_that_has_passed_is_called_by_a_turn_that_does_not_wait)
{
    struct timer timer = {.reactor = NULL};
    struct bell bell = {.again = NULL};
    set_up();
    arm(&timer, os_now() - ROUSE_S(1), &bell);
    while (wakes(&bell) == 0)
        assert_true(reactor_turn(&reactor, 0) > 0);
    tear_down();
}

TEST(a_waker_may_arm_its_timer_again)
{
    struct timer timer = {.reactor = NULL};
    set_up();
    struct bell bell = {.again = &timer, .deadline_ns = rouse_after(ROUSE_MS(2))};
    arm(&timer, rouse_after(ROUSE_MS(1)), &bell);
    while (wakes(&bell) < 2)
        (void)reactor_turn(&reactor, ROUSE_NEVER);
    assert_true(os_now() >= bell.deadline_ns);
    tear_down();
}

/* ---- how many timers ---- */

/* A turn ends with the batch of 64 that reaches 1024. */
enum { FLOOD = 3000, PER_TURN = 1024 + 63 };

TEST(a_flood_of_timers_takes_several_turns_and_each_is_called_once)
{
    static struct timer timers[FLOOD];
    static struct bell bells[FLOOD];
    set_up();
    int64_t deadline_ns = os_now();
    for (int i = 0; i < FLOOD; i++)
        arm(&timers[i], deadline_ns, &bells[i]);
    unsigned before = 0, turns = 0;
    while (before < FLOOD) {
        assert_true(reactor_turn(&reactor, ROUSE_NEVER) > 0);
        unsigned called = 0;
        for (int i = 0; i < FLOOD; i++)
            called += wakes(&bells[i]);
        assert_true(called - before <= PER_TURN);
        before = called;
        turns++;
    }
    assert_true(turns >= (FLOOD + PER_TURN - 1) / PER_TURN);
    for (int i = 0; i < FLOOD; i++)
        assert_int_equal(wakes(&bells[i]), 1);
    tear_down();
}

/* ---- ending a wait ---- */

TEST(wakes_before_a_turn_end_it_and_only_it)
{
    set_up();
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k <= i; k++)
            reactor_wake(&reactor);
        assert_int_equal(reactor_turn(&reactor, ROUSE_NEVER), 0);
        int64_t deadline_ns = rouse_after(ROUSE_MS(2));
        assert_int_equal(reactor_turn(&reactor, deadline_ns), 0);
        assert_true(os_now() >= deadline_ns);
    }
    tear_down();
}

static void wake_late(void *unused)
{
    (void)unused;
    test_sleep_ns(ROUSE_MS(10));
    reactor_wake(&reactor);
}

TEST(a_wake_during_a_turn_ends_it)
{
    set_up();
    for (int i = 0; i < 5; i++) {
        test_thread thread;
        test_thread_start(&thread, wake_late, NULL);
        assert_int_equal(reactor_turn(&reactor, ROUSE_NEVER), 0);
        test_thread_join(&thread, TEST_SOON);
    }
    tear_down();
}

static struct {
    struct timer timer;
    struct bell bell;
} armed;

static void arm_late(void *unused)
{
    struct local here = {.reactor = &reactor};
    rouse_waker waker = bell_clone(&armed.bell);
    (void)unused;
    os_current_set(&here);
    test_sleep_ns(ROUSE_MS(10));
    require_int(timer_arm(&armed.timer, rouse_after(ROUSE_MS(1)), &waker), ==, ROUSE_OK);
    os_current_set(NULL);
}

TEST(a_timer_that_another_thread_arms_during_the_wait_is_on_time)
{
    struct timer far = {.reactor = NULL};
    struct bell none = {.again = NULL};
    for (int i = 0; i < 4; i++) {
        test_thread thread;
        set_up();
        if (i % 2)
            arm(&far, rouse_after(ROUSE_S(1000)), &none);
        atomic_u32_init(&armed.bell.wakes, 0);
        armed.timer = (struct timer){.reactor = NULL};
        test_thread_start(&thread, arm_late, NULL);
        while (wakes(&armed.bell) == 0)
            (void)reactor_turn(&reactor, ROUSE_NEVER);
        test_thread_join(&thread, TEST_SOON);
        timer_disarm(&far);
        tear_down();
    }
}

TEST(a_timer_later_than_the_wait_does_not_disturb_it)
{
    struct timer timer = {.reactor = NULL};
    struct bell bell = {.again = NULL};
    set_up();
    reactor.waiting_until_ns = rouse_after(ROUSE_S(1)); /* as if somebody waited */
    arm(&timer, rouse_after(ROUSE_S(2)), &bell);
    assert_int_equal(atomic_u32_load(&reactor.woken, RELAXED), 0);
    arm(&timer, rouse_after(ROUSE_MS(500)), &bell);
    assert_int_equal(atomic_u32_load(&reactor.woken, RELAXED), 1);
    timer_disarm(&timer);
    tear_down();
}

/* ---- the end ---- */

TEST(timers_that_are_armed_when_the_reactor_ends_are_called_and_let_go)
{
    struct timer timers[3] = {{.reactor = NULL}};
    struct bell bells[3] = {{.again = NULL}};
    set_up();
    for (int i = 0; i < 3; i++)
        arm(&timers[i], i == 0 ? rouse_after(ROUSE_S(1)) : rouse_after(ROUSE_S(1000) * i), &bells[i]);
    tear_down();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(wakes(&bells[i]), 1);
        assert_false(timer_is_pending(&timers[i]));
        timer_disarm(&timers[i]);
    }
}
