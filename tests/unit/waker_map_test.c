/* The waker map without streams: what is known of readiness, who is woken, and what a poll that fails leaves behind.
 * The backend is the built one; events are handed in by the test itself. */
#include "core/waker_map.h"

#include "core/runtime.h"
#include "support/harness.h"
#include "support/net.h"

#include <sys/socket.h>
#include <unistd.h>

/* ---- a waker that counts, and may refuse to be cloned ---- */

struct bell {
    int wakes, references;
    bool refuses;
};

static rouse_waker bell_clone(void *data);

static void bell_wake(void *data)
{
    ((struct bell *)data)->wakes++;
    ((struct bell *)data)->references--;
}

static void bell_wake_by_ref(void *data)
{
    ((struct bell *)data)->wakes++;
}

static void bell_drop(void *data)
{
    ((struct bell *)data)->references--;
}

static const rouse_waker_table bell_table = {bell_clone, bell_wake, bell_wake_by_ref, bell_drop};

static rouse_waker bell_clone(void *data)
{
    struct bell *bell = data;
    if (bell->refuses)
        return (rouse_waker){NULL, NULL};
    bell->references++;
    return (rouse_waker){data, &bell_table};
}

/* ---- a slot on a reactor that nobody turns but the test ---- */

enum { WAITERS = 40 };

static struct {
    rouse_runtime *runtime;
    struct local local;
    struct reactor *reactor;
    uintptr_t handle;
    int peer;
    struct bell bells[WAITERS];
    struct wait_node nodes[WAITERS];
} t;

/* This thread pretends to be one of the runtime's, so that sources go to its reactor. */
static void set_up(unsigned traits)
{
    rouse_options options = ROUSE_OPTIONS_INIT;
    int ends[2];
    options.executor = ROUSE_EXECUTOR_SINGLE;
    memset(&t, 0, sizeof t);
    assert_int_equal(rouse_runtime_new(&t.runtime, &options), ROUSE_OK);
    t.reactor = &t.runtime->reactor[0];
    t.local.reactor = t.reactor;
    os_current_set(&t.local);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(os_set_nonblocking(ends[0], true, NULL), ROUSE_OK);
    t.peer = ends[1];
    struct slot *slot = registry_take();
    assert_non_null(slot);
    slot->source.handle = ends[0];
    slot->flags = SLOT_CLOSING;
    slot->traits = (uint8_t)traits;
    t.handle = registry_publish(slot);
}

static void tear_down(void)
{
    if (t.handle != 0)
        assert_int_equal(waker_map_close(t.handle, NULL), ROUSE_OK);
    for (int i = 0; i < WAITERS; i++) {
        assert_int_equal(t.bells[i].references, 0);
        assert_false(wait_is_waiting(&t.nodes[i]));
    }
    close(t.peer);
    os_current_set(NULL);
    assert_int_equal(rouse_runtime_shutdown(t.runtime, 0, NULL, NULL), ROUSE_OK);
}

static rouse_waker waker_of(int i)
{
    return (rouse_waker){&t.bells[i], &bell_table};
}

static int begin(struct slot_call *call, unsigned channel, int i)
{
    rouse_waker waker = waker_of(i);
    return waker_map_begin(call, t.handle, channel, &t.nodes[i], &waker);
}

static int end(struct slot_call *call, enum call_outcome outcome, int i)
{
    rouse_waker waker = waker_of(i);
    return waker_map_end(call, outcome, &t.nodes[i], &waker);
}

/* One attempt of a caller that finds nothing and waits. */
static void wait_for(unsigned channel, int i)
{
    struct slot_call call;
    int status = begin(&call, channel, i);
    if (status == ROUSE_OK)
        status = end(&call, CALL_BLOCKED, i);
    assert_int_equal(status, ROUSE_PENDING);
    assert_true(wait_is_waiting(&t.nodes[i]));
}

static int count_woken(void)
{
    int woken = 0;
    for (int i = 0; i < WAITERS; i++)
        woken += t.bells[i].wakes;
    return woken;
}

static bool dispatch(unsigned channels)
{
    return waker_map_dispatch(t.reactor, t.handle, channels);
}

/* ---- readiness ---- */

TEST(the_first_call_always_looks_for_itself)
{
    struct slot_call call;
    set_up(0);
    assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_OK);
    assert_int_equal(end(&call, CALL_PROGRESS, 0), ROUSE_OK);
    assert_int_equal(begin(&call, BACKEND_WRITE, 0), ROUSE_OK);
    assert_int_equal(end(&call, CALL_PROGRESS, 0), ROUSE_OK);
    assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_OK);
    assert_int_equal(end(&call, CALL_DRAINED, 0), ROUSE_OK);
    assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_PENDING);
    tear_down();
    assert_int_equal(t.bells[0].wakes, 1);
}

/* tokio#6134: readiness that came between the system call and its answer was cleared by the answer. */
TEST(an_event_during_a_call_that_finds_nothing_is_not_forgotten)
{
    static const enum call_outcome outcomes[] = {CALL_BLOCKED, CALL_DRAINED};
    for (int i = 0; i < 2; i++) {
        struct slot_call call;
        set_up(0);
        assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_OK);
        dispatch(BACKEND_READ);
        wait_for(BACKEND_WRITE, 1); /* attaches */
        assert_int_equal(end(&call, CALL_PROGRESS, 0), ROUSE_OK);
        assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_OK);
        assert_true(dispatch(BACKEND_READ));
        assert_int_equal(end(&call, outcomes[i], 0), ROUSE_OK);
        assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_OK);
        assert_int_equal(end(&call, CALL_PROGRESS, 0), ROUSE_OK);
        tear_down();
    }
}

TEST(an_event_of_the_other_direction_changes_nothing)
{
    set_up(0);
    wait_for(BACKEND_READ, 0);
    assert_true(dispatch(BACKEND_WRITE));
    assert_int_equal(t.bells[0].wakes, 0);
    struct slot_call call;
    assert_int_equal(begin(&call, BACKEND_READ, 1), ROUSE_PENDING);
    tear_down();
}

TEST(after_urgent_data_a_short_count_proves_nothing)
{
    struct slot_call call;
    set_up(0);
    wait_for(BACKEND_WRITE, 1);
    assert_true(dispatch(BACKEND_READ | BACKEND_URGENT));
    assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_OK);
    assert_int_equal(end(&call, CALL_DRAINED, 0), ROUSE_OK);
    assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_OK);
    assert_int_equal(end(&call, CALL_BLOCKED, 0), ROUSE_PENDING);
    tear_down();
}

/* tokio#3104: an event for a source that another reactor has taken over is not for it. */
TEST(an_event_of_another_reactor_is_not_taken)
{
    struct reactor other;
    set_up(0);
    wait_for(BACKEND_READ, 0);
    memset(&other, 0, sizeof other);
    assert_false(waker_map_dispatch(&other, t.handle, BACKEND_READ | BACKEND_HANGUP));
    assert_int_equal(t.bells[0].wakes, 0);
    tear_down();
}

TEST(an_event_for_a_closed_source_is_not_taken)
{
    set_up(0);
    wait_for(BACKEND_READ, 0);
    uintptr_t old = t.handle;
    assert_int_equal(waker_map_close(old, NULL), ROUSE_OK);
    t.handle = 0;
    assert_int_equal(t.bells[0].wakes, 1);
    assert_false(waker_map_dispatch(t.reactor, old, BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP));
    t.nodes[0] = (struct wait_node){{NULL, NULL}, {NULL, NULL}};
    tear_down();
}

/* asio@5b4aa5ef9: the same event twice in one batch. */
TEST(the_same_event_twice_wakes_two_and_harms_nobody)
{
    set_up(0);
    for (int i = 0; i < 3; i++)
        wait_for(BACKEND_READ, i);
    assert_true(dispatch(BACKEND_READ));
    assert_true(dispatch(BACKEND_READ));
    assert_int_equal(count_woken(), 2);
    assert_int_equal(t.bells[2].wakes, 0);
    for (int i = 0; i < 2; i++)
        waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[i]);
    waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[2]);
    tear_down();
}

/* poco#4194, node#4923: whatever mask comes, each waiter of a channel that fired looks again. */
TEST(every_mask_wakes_whom_it_concerns)
{
    for (unsigned mask = 0; mask < 16; mask++) {
        set_up(0);
        for (int i = 0; i < 2; i++) {
            wait_for(BACKEND_READ, 2 * i);
            wait_for(BACKEND_WRITE, 2 * i + 1);
        }
        assert_true(dispatch(mask));
        int each = mask & BACKEND_HANGUP ? 2 : 1;
        assert_int_equal(t.bells[0].wakes + t.bells[2].wakes, mask & BACKEND_READ ? each : 0);
        assert_int_equal(t.bells[1].wakes + t.bells[3].wakes, mask & BACKEND_WRITE ? each : 0);
        for (int i = 0; i < 4; i++)
            waker_map_cancel(t.handle, i % 2 == 0 ? BACKEND_READ : BACKEND_WRITE, &t.nodes[i]);
        tear_down();
    }
}

/* ---- one is woken, and hands on ---- */

TEST(one_waiter_is_woken_first_come_first_served)
{
    set_up(0);
    for (int i = 0; i < WAITERS; i++)
        wait_for(BACKEND_READ, i);
    for (int i = 0; i < WAITERS; i++) {
        assert_true(dispatch(BACKEND_READ));
        assert_int_equal(t.bells[i].wakes, 1);
        assert_int_equal(count_woken(), i + 1);
    }
    for (int i = 0; i < WAITERS; i++)
        waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[i]);
    tear_down();
}

TEST(a_woken_waiter_hands_on_after_progress_and_not_after_would_block)
{
    struct slot_call call;
    set_up(0);
    for (int i = 0; i < 4; i++)
        wait_for(BACKEND_READ, i);
    assert_true(dispatch(BACKEND_READ));
    assert_int_equal(count_woken(), 1);
    assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_OK);
    assert_int_equal(end(&call, CALL_PROGRESS, 0), ROUSE_OK);
    assert_int_equal(t.bells[1].wakes, 1);
    assert_int_equal(begin(&call, BACKEND_READ, 1), ROUSE_OK);
    assert_int_equal(end(&call, CALL_DRAINED, 1), ROUSE_OK);
    assert_int_equal(t.bells[2].wakes, 0);
    assert_true(dispatch(BACKEND_READ));
    assert_int_equal(t.bells[2].wakes, 1);
    assert_int_equal(begin(&call, BACKEND_READ, 2), ROUSE_OK);
    assert_int_equal(end(&call, CALL_BLOCKED, 2), ROUSE_PENDING);
    assert_int_equal(t.bells[3].wakes, 0);
    assert_true(dispatch(BACKEND_READ));
    assert_int_equal(t.bells[3].wakes, 1);
    for (int i = 0; i < 4; i++)
        waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[i]);
    tear_down();
}

TEST(a_woken_waiter_that_is_cancelled_hands_on)
{
    set_up(0);
    for (int i = 0; i < 3; i++)
        wait_for(BACKEND_READ, i);
    assert_true(dispatch(BACKEND_READ));
    waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[0]);
    assert_int_equal(t.bells[1].wakes, 1);
    waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[2]); /* was not woken: nobody learns of it */
    assert_int_equal(t.bells[2].wakes, 0);
    waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[1]);
    tear_down();
}

TEST(a_hang_up_wakes_all_however_many)
{
    set_up(0);
    for (int i = 0; i < WAITERS; i++)
        wait_for(i % 2 == 0 ? BACKEND_READ : BACKEND_WRITE, i);
    assert_true(dispatch(BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP));
    for (int i = 0; i < WAITERS; i++)
        assert_int_equal(t.bells[i].wakes, 1);
    for (int i = 0; i < WAITERS; i++)
        waker_map_cancel(t.handle, i % 2 == 0 ? BACKEND_READ : BACKEND_WRITE, &t.nodes[i]);
    tear_down();
}

TEST(where_every_event_concerns_everybody_all_are_woken)
{
    set_up(SLOT_BROADCAST);
    for (int i = 0; i < WAITERS; i++)
        wait_for(BACKEND_READ, i);
    assert_true(dispatch(BACKEND_READ));
    assert_int_equal(count_woken(), WAITERS);
    for (int i = 0; i < WAITERS; i++)
        waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[i]);
    tear_down();
}

/* ---- the waiter's own node ---- */

TEST(a_waiter_that_is_polled_again_keeps_its_place_and_its_waker)
{
    struct slot_call call;
    set_up(0);
    wait_for(BACKEND_READ, 0);
    wait_for(BACKEND_READ, 1);
    int references = t.bells[0].references;
    for (int i = 0; i < 5; i++)
        assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_PENDING);
    assert_int_equal(t.bells[0].references, references);
    assert_true(dispatch(BACKEND_READ));
    assert_int_equal(t.bells[0].wakes, 1);
    assert_int_equal(t.bells[1].wakes, 0);
    for (int i = 0; i < 2; i++)
        waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[i]);
    tear_down();
}

TEST(a_waiter_that_is_polled_with_another_waker_gets_that_one)
{
    struct slot_call call;
    rouse_waker other = waker_of(1);
    set_up(0);
    wait_for(BACKEND_READ, 0);
    assert_int_equal(waker_map_begin(&call, t.handle, BACKEND_READ, &t.nodes[0], &other), ROUSE_PENDING);
    assert_int_equal(t.bells[0].references, 0);
    assert_true(dispatch(BACKEND_READ));
    assert_int_equal(t.bells[0].wakes, 0);
    assert_int_equal(t.bells[1].wakes, 1);
    waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[0]);
    tear_down();
}

TEST(a_waker_that_cannot_be_cloned_is_a_limit_and_leaves_no_node)
{
    struct slot_call call;
    set_up(0);
    t.bells[0].refuses = true;
    assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_OK);
    assert_int_equal(end(&call, CALL_BLOCKED, 0), ROUSE_LIMIT);
    assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_LIMIT);
    t.bells[0].refuses = false;
    wait_for(BACKEND_READ, 0);
    t.bells[1].refuses = true;
    rouse_waker refusing = waker_of(1);
    assert_int_equal(waker_map_begin(&call, t.handle, BACKEND_READ, &t.nodes[0], &refusing), ROUSE_LIMIT);
    assert_false(wait_is_waiting(&t.nodes[0]));
    assert_int_equal(t.bells[0].references, 0);
    tear_down();
}

/* A waiter whose operation fails for a reason of its own must not swallow the wake it was given. */
TEST(a_woken_waiter_that_fails_does_not_keep_the_readiness_from_the_next)
{
    struct slot_call call;
    set_up(0);
    wait_for(BACKEND_READ, 0);
    wait_for(BACKEND_READ, 1);
    assert_true(dispatch(BACKEND_READ));
    assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_OK);
    t.bells[0].refuses = true;
    assert_int_equal(end(&call, CALL_BLOCKED, 0), ROUSE_LIMIT);
    assert_true(dispatch(BACKEND_READ));
    assert_int_equal(t.bells[1].wakes, 1);
    waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[1]);
    tear_down();
}

TEST(cancelling_a_node_that_waits_for_nothing_does_nothing)
{
    set_up(0);
    waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[0]);
    waker_map_cancel(0, BACKEND_READ, &t.nodes[0]);
    assert_int_equal(waker_map_close(t.handle, NULL), ROUSE_OK);
    waker_map_cancel(t.handle, BACKEND_READ, &t.nodes[0]);
    t.handle = 0;
    tear_down();
}

/* ---- closing ---- */

TEST(a_close_during_a_call_waits_for_its_end_before_the_descriptor_goes)
{
    struct slot_call call;
    char byte;
    set_up(0);
    assert_int_equal(begin(&call, BACKEND_READ, 0), ROUSE_OK);
    assert_int_equal(waker_map_close(t.handle, NULL), ROUSE_OK);
    assert_int_equal(waker_map_close(t.handle, NULL), ROUSE_CLOSED);
    assert_int_equal(recv(t.peer, &byte, 1, MSG_DONTWAIT), -1); /* still open */
    assert_int_equal(end(&call, CALL_BLOCKED, 0), ROUSE_CLOSED);
    assert_int_equal(test_receive(t.peer, &byte, 1, TEST_SOON), 0);
    t.handle = 0;
    tear_down();
}

TEST(a_source_is_not_given_back_while_a_call_is_inside)
{
    struct slot_call call;
    os_handle kept = OS_NO_HANDLE;
    set_up(0);
    assert_int_equal(begin(&call, BACKEND_WRITE, 0), ROUSE_OK);
    assert_int_equal(waker_map_close(t.handle, &kept), ROUSE_BUSY);
    assert_int_equal(end(&call, CALL_PROGRESS, 0), ROUSE_OK);
    wait_for(BACKEND_READ, 1);
    assert_int_equal(waker_map_close(t.handle, &kept), ROUSE_OK);
    assert_int_equal(t.bells[1].wakes, 1);
    assert_int_equal(os_close(kept), ROUSE_OK);
    t.nodes[1] = (struct wait_node){{NULL, NULL}, {NULL, NULL}};
    t.handle = 0;
    tear_down();
}

/* ---- the end of a reactor ---- */

TEST(when_its_reactor_ends_every_waiter_looks_for_another)
{
    set_up(0);
    for (int i = 0; i < WAITERS; i++)
        wait_for(BACKEND_READ, i);
    os_current_set(NULL);
    assert_int_equal(rouse_runtime_shutdown(t.runtime, 0, NULL, NULL), ROUSE_OK);
    assert_int_equal(count_woken(), WAITERS);
    assert_int_equal(waker_map_close(t.handle, NULL), ROUSE_OK);
    close(t.peer);
}
