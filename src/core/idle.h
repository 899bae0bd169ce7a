/* Who sleeps, who searches for work, who is the sentinel.
 *
 * Waking a worker for each push would be a system call a task. So a push wakes somebody only if nobody searches: a searcher
 * will find the task, and the last one that stops searching because it found something wakes the next. The danger is a
 * task that is pushed just as the last searcher gives up; it is closed by a pair of sequentially consistent steps: push,
 * then look at this state; announce sleeping here, then look at every queue once more.
 *
 * The sentinel is one sleeper with an alarm clock. While any worker is busy it sweeps the reactors of workers that are
 * stuck in a task, so that a hog does not hide its ready sources and timers. When everybody sleeps there is none, and no
 * wake-up either. */
#ifndef ROUSE_CORE_IDLE_H
#define ROUSE_CORE_IDLE_H

#include "core/lock.h"
#include "os/atomic.h"

#define IDLE_NOBODY UINT32_MAX

struct idle {
    unsigned workers;    /* how many there are; fixed */
    atomic_u32 state;    /* searching workers in the low half, awake ones (searching included) in the high half */
    struct lock lock;    /* changes of state together with what follows */
    uint16_t *sleepers;  /* indices of sleeping workers, the last to sleep on top */
    uint32_t count;      /* of them */
    bool *listed;        /* by index: is on the list */
    atomic_u32 sentinel; /* index of the sentinel, or IDLE_NOBODY */
    atomic_i64 sweep_ns; /* when the next sweep is due, whoever is the sentinel then */
};

static inline uint32_t idle_searching(uint32_t state)
{
    return state & 0xffff;
}
static inline uint32_t idle_awake(uint32_t state)
{
    return state >> 16;
}

/* The arrays have room for `workers`; all are awake at first. */
void idle_init(struct idle *idle, unsigned workers, uint16_t *sleepers, bool *listed);

/* After a push: whom to unpark so that somebody searches, or IDLE_NOBODY. */
uint32_t idle_notify(struct idle *idle);

/* May this worker search? About half of them do at a time, at most. */
bool idle_begin_search(struct idle *idle);

/* It found something. True if it was the last searcher: the caller notifies once more. */
bool idle_end_search(struct idle *idle);

/* Goes to sleep. The caller then looks once more at its own queues, and, if the answer is true, at everybody's: nobody
 * searches now, and pushes that saw a searcher woke nobody. (The fence is inside.) Otherwise whoever still searches will
 * find them, or be the one who looks. A searcher that was the last and finds something then searches on, for it alone may
 * know of what the others left to it. */
bool idle_sleep(struct idle *idle, unsigned worker, bool was_searching);

/* Wakes up. True if it was notified, and so counts as searching already. */
bool idle_wake(struct idle *idle, unsigned worker);

/* Was this sleeping worker notified? */
bool idle_was_notified(struct idle *idle, unsigned worker);

/* Any sleeper, not woken by this: to be nudged into being the sentinel. */
uint32_t idle_any_sleeper(struct idle *idle);

/* The first sleeper in the order of indices, beginning at one and going round; IDLE_NOBODY if all are awake. */
uint32_t idle_sleeper_from(struct idle *idle, unsigned first);

#endif
