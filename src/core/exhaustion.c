#include "core/exhaustion.h"
#include "core/fork_order.h"
#include "core/reactor.h"

static struct {
    struct lock lock;        /* the lists, here and in the places */
    struct list_node places; /* where somebody waits; the first one is relieved next */
    uint32_t process;        /* whose places these are; 0: nobody has waited yet */
    atomic_u32 count;        /* nodes that wait, to be read without the lock */
} exhaustion;

/* In a forked child nobody waits yet: the places are in the parent's reactors, and stay as they are. */
static void acquire(void)
{
    lock_acquire(&exhaustion.lock);
    if (exhaustion.process == os_process())
        return;
    exhaustion.process = os_process();
    list_init(&exhaustion.places);
    atomic_u32_store(&exhaustion.count, 0, RELAXED);
}

static void leave_if_empty(struct exhaustion_place *place)
{
    if (list_is_empty(&place->waiters) && list_is_linked(&place->link))
        list_remove(&place->link);
}

static bool fire_first(struct list_node *waiters, struct wait_batch *batch)
{
    bool fired = !wait_batch_is_full(batch) && wait_fire_first(waiters, batch);
    if (fired)
        atomic_u32_sub(&exhaustion.count, 1, RELAXED);
    return fired;
}

/* Fires those who wait in a place now. Whoever comes back meanwhile, because descriptors are still missing, waits with the
 * timer armed anew, and must not be called at once a second time. */
static void fire_all(struct exhaustion_place *place)
{
    struct wait_batch batch;
    struct list_node leaving;
    wait_batch_init(&batch);
    list_init(&leaving);
    acquire();
    place->armed = false;
    list_splice_back(&leaving, &place->waiters);
    leave_if_empty(place);
    while (!list_is_empty(&leaving)) {
        while (fire_first(&leaving, &batch)) {}
        lock_release(&exhaustion.lock);
        wait_batch_wake(&batch);
        lock_acquire(&exhaustion.lock);
    }
    lock_release(&exhaustion.lock);
}

static rouse_waker timer_clone(void *place);
static void timer_wake(void *place)
{
    fire_all(place);
}
static void timer_drop(void *place)
{
    (void)place;
}
static const rouse_waker_table timer_table = {timer_clone, timer_wake, timer_wake, timer_drop};
static rouse_waker timer_clone(void *place)
{
    return (rouse_waker){place, &timer_table};
}

/* ---- forks ---- */

static void rest(void)
{
    lock_acquire(&exhaustion.lock);
}

static void go_on(bool in_child)
{
    (void)in_child; /* where the lists are begun anew by whoever takes the lock first */
    lock_release(&exhaustion.lock);
}

OS_WHEN_LOADED(watch_forks)
{
    static const struct os_fork_hook hook = {rest, go_on};
    os_at_fork(FORK_EXHAUSTION, &hook);
}

void exhaustion_place_init(struct exhaustion_place *place)
{
    *place = (struct exhaustion_place){.process = os_process()};
    list_init(&place->waiters);
}

int exhaustion_wait(struct wait_node *node, const rouse_waker *waker, struct exhaustion_place **chosen)
{
    struct reactor *reactor;
    int status = local_reactor(&reactor);
    if (status != ROUSE_OK)
        return status;
    struct exhaustion_place *place = &reactor->exhausted;
    if (place->process != os_process())
        return ROUSE_FORKED;
    rouse_waker kept = rouse_waker_clone(waker), alarm = {place, &timer_table};
    if (!kept.table)
        return ROUSE_LIMIT;
    *chosen = place;
    acquire();
    if (list_is_empty(&place->waiters))
        list_push_back(&exhaustion.places, &place->link);
    wait_add(&place->waiters, node, kept);
    atomic_u32_add(&exhaustion.count, 1, RELAXED);
    bool arms = !place->armed;
    place->armed = true;
    lock_release(&exhaustion.lock);
    if (arms)
        timer_arm_in(reactor, &place->timer, rouse_after(ROUSE_MS(100)), &alarm);
    return ROUSE_OK;
}

bool exhaustion_cancel(struct wait_node *node, struct exhaustion_place *place)
{
    rouse_waker waker = {NULL, NULL};
    acquire();
    bool fired = wait_was_fired(node);
    /* A node of the parent's is forgotten: its list is not this process's. A fired one's place may be gone. */
    if (wait_is_waiting(node) && place->process == exhaustion.process) {
        waker = wait_remove(node);
        atomic_u32_sub(&exhaustion.count, 1, RELAXED);
        leave_if_empty(place);
    }
    wait_forget(node);
    lock_release(&exhaustion.lock);
    rouse_waker_drop(&waker);
    return fired;
}

void exhaustion_relieve(void)
{
    struct wait_batch batch;
    /* RELAXED: a waiter that is missed by a hair is woken by the timer. */
    if (!atomic_u32_load(&exhaustion.count, RELAXED))
        return;
    wait_batch_init(&batch);
    acquire();
    struct list_node *link = list_pop_front(&exhaustion.places);
    if (link) {
        struct exhaustion_place *place = CONTAINER_OF(link, struct exhaustion_place, link);
        fire_first(&place->waiters, &batch);
        if (!list_is_empty(&place->waiters))
            list_push_back(&exhaustion.places, link);
    }
    lock_release(&exhaustion.lock);
    wait_batch_wake(&batch);
}

void exhaustion_close(os_handle handle)
{
    (void)os_close(handle);
    exhaustion_relieve();
}
