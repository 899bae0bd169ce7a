#include "core/reactor.h"
#include "core/packet.h"
#include "core/timer.h"
#include "core/waker_map.h"

/* Timers taken from the wheel under one hold of its lock. */
#define EXPIRE_LIMIT 64
/* Expired timers in one turn, so that a flood of them does not keep events and tasks waiting. */
#define EXPIRE_TURN 1024
/* More events for dead tokens than STALE_LIMIT in STALE_TURNS turns that found any make the kernel's set suspicious. */
#define STALE_LIMIT 64
#define STALE_TURNS 256
/* Waits that fail in a row, before the next ones are kept from spinning. */
#define FAILURES_IN_A_ROW 8

int reactor_init(struct reactor *reactor, const void *owner, const rouse_allocator *allocator)
{
    *reactor = (struct reactor){.waiting_until_ns = INT64_MIN, .owner = owner, .process = os_process()};
    atomic_u32_init(&reactor->woken, 0);
    atomic_size_init(&reactor->packets, 0);
    wheel_init(&reactor->wheel, os_now());
    exhaustion_place_init(&reactor->exhausted);
    return backend_open(&reactor->backend, allocator);
}

/* Moves expired timers' wakers out, at most EXPIRE_LIMIT, and calls them after the lock. */
static size_t expire_some(struct reactor *reactor, int64_t now_ns)
{
    rouse_waker wakers[EXPIRE_LIMIT];
    struct list_node expired;
    size_t count = 0;
    list_init(&expired);
    lock_acquire(&reactor->timer_lock);
    reactor->waiting_until_ns = INT64_MIN;
    wheel_expire(&reactor->wheel, now_ns, &expired, EXPIRE_LIMIT);
    for (struct list_node *link; (link = list_pop_front(&expired)); count++) {
        struct timer *timer = CONTAINER_OF(CONTAINER_OF(link, struct wheel_node, link), struct timer, node);
        wakers[count] = timer->waker;
        timer->waker = (rouse_waker){NULL, NULL};
        if (now_ns == ROUSE_NEVER)
            timer->reactor = NULL; /* the reactor ends: whoever holds the timer must not come back to it */
    }
    bool more = !wheel_is_empty(&reactor->wheel) && wheel_next(&reactor->wheel) <= now_ns;
    lock_release(&reactor->timer_lock);
    for (size_t i = 0; i < count; i++)
        rouse_waker_wake(&wakers[i]);
    return more && count == 0 ? 1 : count; /* nodes that only moved down a level are work too */
}

static size_t expire(struct reactor *reactor)
{
    int64_t now_ns = os_now();
    size_t total = 0, some;
    struct local *local = local_current();
    if (local)
        local->now_ns = now_ns;
    while (total < EXPIRE_TURN && (some = expire_some(reactor, now_ns)) > 0)
        total += some;
    return total;
}

/* Releases the lock of a slot that is attached nowhere. Its waiters, all of them, try again: they attach it themselves, or
 * learn why not. Once one has attached it, events tell the others. */
static void wake_detached(struct slot *slot, uintptr_t handle)
{
    struct wait_batch batch;
    wait_batch_init(&batch);
    while (slot) {
        if (!slot->reactor)
            waker_map_fire(slot, BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP, &batch);
        bool more = wait_batch_is_full(&batch);
        lock_release(&slot->lock);
        wait_batch_wake(&batch);
        slot = more ? registry_acquire(handle) : NULL;
    }
}

/* Attaches a slot anew after the kernel's set was emptied. */
static void attach_again(struct slot *slot, uintptr_t handle, void *context)
{
    struct reactor *reactor = context;
    struct wait_batch batch;
    wait_batch_init(&batch);
    if (slot->reactor == reactor) {
        slot->source.record = NULL;
        if (backend_attach(reactor->backend, &slot->source, handle) != ROUSE_OK) {
            slot->reactor = NULL;
            wake_detached(slot, handle);
            return;
        }
        waker_map_rearm(slot, &batch);
    }
    lock_release(&slot->lock);
    wait_batch_wake(&batch);
}

/* A closed descriptor whose description somebody else keeps open reports for ever and cannot be removed any more, for its
 * number is gone. A new set does not know it. Late events of ordinary closes are few; they are forgotten. */
static void notice_stale(struct reactor *reactor, uint32_t stale)
{
    if (++reactor->turns % STALE_TURNS == 0)
        reactor->stale_events = 0;
    reactor->stale_events += stale;
    if (reactor->stale_events <= STALE_LIMIT)
        return;
    reactor->stale_events = 0;
    if (backend_renew(reactor->backend) == ROUSE_OK)
        registry_walk(attach_again, reactor);
}

/* The kernel has refused to wait. If it goes on doing so, because the program has closed the set's descriptor for example,
 * nothing here can mend that: timers and wakes go on, up to 10 ms late, and the processor is left to others. */
static void endure_failure(struct reactor *reactor, int64_t deadline_ns)
{
    if (++reactor->failures < FAILURES_IN_A_ROW)
        return;
    reactor->failures--;
    int64_t pause_ns = rouse_after(ROUSE_MS(10));
    os_wait_on(atomic_u32_word(&reactor->woken), 0, pause_ns < deadline_ns ? pause_ns : deadline_ns);
}

size_t reactor_turn(struct reactor *reactor, int64_t deadline_ns)
{
    if (reactor_is_forked(reactor))
        return 0; /* waiting would take the parent's events */
    lock_acquire(&reactor->timer_lock);
    int64_t timer_ns = wheel_next(&reactor->wheel);
    if (timer_ns < deadline_ns)
        deadline_ns = timer_ns;
    reactor->waiting_until_ns = deadline_ns;
    lock_release(&reactor->timer_lock);
    int count = backend_wait(reactor->backend, reactor->events, REACTOR_EVENTS, deadline_ns);
    if (count < 0)
        endure_failure(reactor, deadline_ns);
    else
        reactor->failures = 0;
    /* ACQ_REL with the exchange in reactor_wake: what the waker did before is seen by whoever looks after this turn. */
    atomic_u32_exchange(&reactor->woken, 0, ACQ_REL);
    size_t done = expire(reactor);
    uint32_t stale = 0;
    for (int i = 0; i < count; i++) {
        const struct backend_event *event = &reactor->events[i];
        /* RETIRED: the slot was detached, and has another generation or another reactor. What the kernel had lent to it
         * was the backend's. */
        if (event->kind == BACKEND_READY && !waker_map_dispatch(reactor, event->token, event->channels))
            stale++;
        else if (event->kind == BACKEND_PACKET)
            packet_complete((struct packet *)(uintptr_t)event->token, reactor);
    }
    if (count > 0)
        notice_stale(reactor, stale);
    return done + (count > 0 ? (size_t)count : 0);
}

void reactor_wake(struct reactor *reactor)
{
    if (atomic_u32_exchange(&reactor->woken, 1, ACQ_REL) == 0 && !reactor_is_forked(reactor))
        backend_wake(reactor->backend);
}

int64_t reactor_next_timer(struct reactor *reactor)
{
    lock_acquire(&reactor->timer_lock);
    int64_t next_ns = wheel_next(&reactor->wheel);
    lock_release(&reactor->timer_lock);
    return next_ns;
}

struct leaving {
    struct reactor *reactor;
    reactor_report_function *report;
    void *context;
};

static void detach_slot(struct slot *slot, uintptr_t handle, void *context)
{
    struct leaving *leaving = context;
    if (slot->reactor != leaving->reactor) {
        lock_release(&slot->lock);
        return;
    }
    unsigned traits = slot->traits;
    const char *site = slot->site;
    waker_map_detach(slot, false);
    wake_detached(slot, handle);
    if (leaving->report)
        leaving->report(traits, site, leaving->context);
}

void reactor_fini(struct reactor *reactor, reactor_report_function *report, void *context)
{
    struct leaving leaving = {reactor, report, context};
    if (!reactor->backend)
        return;
    /* RELAXED: those who began them have ended, or this thread did. A kernel that refuses to wait gives nothing back. */
    while (atomic_size_load(&reactor->packets, RELAXED) > 0 && reactor->failures < FAILURES_IN_A_ROW - 1)
        reactor_turn(reactor, ROUSE_NEVER);
    registry_walk(detach_slot, &leaving);
    while (expire_some(reactor, ROUSE_NEVER) > 0) {}
    backend_close(reactor->backend);
    reactor->backend = NULL;
}
