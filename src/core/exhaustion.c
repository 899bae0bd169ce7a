#include "core/exhaustion.h"
#include "core/lock.h"
#include "core/timer.h"
#include "os/atomic.h"

static struct {
    struct lock lock;         /* the list and the timer */
    struct list_node waiters; /* wait nodes */
    atomic_u32 count;         /* nodes on the list, to be read without the lock */
    bool armed;               /* the timer runs */
    struct timer timer;       /* ends the wait when nobody closes anything */
} exhaustion = {.waiters = {&exhaustion.waiters, &exhaustion.waiters}};

/* Fires those who wait now. Whoever comes back meanwhile, because descriptors are still missing, waits again: its timer may
 * be armed already, and it must not be called at once a second time. */
static void fire_all(bool by_timer)
{
    struct wait_batch batch;
    wait_batch_init(&batch);
    lock_acquire(&exhaustion.lock);
    if (by_timer)
        exhaustion.armed = false;
    uint32_t left = atomic_u32_load(&exhaustion.count, RELAXED);
    while (left > 0) {
        while (batch.count < left && !wait_batch_is_full(&batch) && wait_fire_first(&exhaustion.waiters, &batch)) {}
        if (batch.count == 0)
            break; /* cancelled meanwhile */
        left -= batch.count;
        atomic_u32_sub(&exhaustion.count, batch.count, RELAXED);
        lock_release(&exhaustion.lock);
        wait_batch_wake(&batch);
        lock_acquire(&exhaustion.lock);
    }
    lock_release(&exhaustion.lock);
}

static rouse_waker timer_clone(void *data);
static void timer_wake(void *data)
{
    (void)data;
    fire_all(true);
}
static void timer_drop(void *data)
{
    (void)data;
}
static const rouse_waker_table timer_table = {timer_clone, timer_wake, timer_wake, timer_drop};
static rouse_waker timer_clone(void *data)
{
    return (rouse_waker){data, &timer_table};
}

int exhaustion_wait(struct wait_node *node, const rouse_waker *waker)
{
    rouse_waker kept = rouse_waker_clone(waker), alarm = {&exhaustion, &timer_table};
    if (!kept.table)
        return ROUSE_LIMIT;
    int status = ROUSE_OK;
    lock_acquire(&exhaustion.lock);
    if (!exhaustion.armed) {
        exhaustion.timer.reactor = NULL; /* it has fired: nothing refers to it */
        status = timer_arm(&exhaustion.timer, rouse_after(ROUSE_MS(100)), &alarm);
        exhaustion.armed = status == ROUSE_OK;
    }
    if (status == ROUSE_OK) {
        wait_add(&exhaustion.waiters, node, kept);
        atomic_u32_add(&exhaustion.count, 1, RELAXED);
    }
    lock_release(&exhaustion.lock);
    if (status != ROUSE_OK)
        rouse_waker_drop(&kept);
    return status;
}

void exhaustion_cancel(struct wait_node *node)
{
    rouse_waker waker = {NULL, NULL};
    lock_acquire(&exhaustion.lock);
    if (wait_is_waiting(node)) {
        waker = wait_remove(node);
        atomic_u32_sub(&exhaustion.count, 1, RELAXED);
    }
    wait_forget(node);
    lock_release(&exhaustion.lock);
    rouse_waker_drop(&waker);
}

void exhaustion_relieve(void)
{
    /* RELAXED: a waiter that is missed by a hair is woken by the timer. */
    if (atomic_u32_load(&exhaustion.count, RELAXED))
        fire_all(false);
}
