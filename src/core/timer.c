#include "core/timer.h"
#include "core/reactor.h"

/* Takes a pending timer out of its wheel; answers its waker, to be dropped with no lock held. */
static rouse_waker withdraw(struct timer *timer)
{
    rouse_waker waker = {NULL, NULL};
    struct reactor *reactor = timer->reactor;
    if (reactor_is_forked(reactor))
        return waker; /* it stays in the parent's wheel, whose lock may be held for ever */
    lock_acquire(&reactor->timer_lock);
    if (list_is_linked(&timer->node.link)) {
        wheel_remove(&reactor->wheel, &timer->node);
        waker = timer->waker;
        timer->waker = (rouse_waker){NULL, NULL};
    }
    lock_release(&reactor->timer_lock);
    return waker;
}

/* The most common case of arming: everything is as it should be already. */
static bool is_armed_so(struct timer *timer, int64_t deadline_ns, const rouse_waker *waker)
{
    if (!timer->reactor || reactor_is_forked(timer->reactor))
        return false;
    lock_acquire(&timer->reactor->timer_lock);
    bool same =
        list_is_linked(&timer->node.link) && timer->node.deadline_ns == deadline_ns && waker_same(&timer->waker, waker);
    lock_release(&timer->reactor->timer_lock);
    return same;
}

static int arm(struct reactor *reactor, struct timer *timer, int64_t deadline_ns, const rouse_waker *waker)
{
    if (reactor_is_forked(reactor))
        return ROUSE_FORKED;
    rouse_waker kept = rouse_waker_clone(waker);
    if (!kept.table)
        return ROUSE_LIMIT;
    timer->reactor = reactor;
    timer->waker = kept;
    timer->node.deadline_ns = deadline_ns;
    lock_acquire(&reactor->timer_lock);
    wheel_add(&reactor->wheel, &timer->node);
    bool too_late = deadline_ns < reactor->waiting_until_ns;
    lock_release(&reactor->timer_lock);
    if (too_late)
        reactor_wake(reactor);
    return ROUSE_OK;
}

int timer_arm(struct timer *timer, int64_t deadline_ns, const rouse_waker *waker)
{
    struct reactor *reactor;
    if (is_armed_so(timer, deadline_ns, waker))
        return ROUSE_OK;
    timer_disarm(timer);
    int status = local_reactor(&reactor);
    return status == ROUSE_OK ? arm(reactor, timer, deadline_ns, waker) : status;
}

int timer_arm_in(struct reactor *reactor, struct timer *timer, int64_t deadline_ns, const rouse_waker *waker)
{
    timer_disarm(timer);
    return arm(reactor, timer, deadline_ns, waker);
}

void timer_disarm(struct timer *timer)
{
    if (!timer->reactor)
        return;
    rouse_waker waker = withdraw(timer);
    timer->reactor = NULL;
    rouse_waker_drop(&waker);
}

bool timer_is_pending(struct timer *timer)
{
    struct reactor *reactor = timer->reactor;
    if (!reactor || reactor_is_forked(reactor))
        return false;
    lock_acquire(&reactor->timer_lock);
    bool pending = list_is_linked(&timer->node.link);
    lock_release(&reactor->timer_lock);
    return pending;
}
