/* A lock of four bytes for sections of a few instructions: wheels, slots, shared queues. Zeroed is unlocked; nothing to
 * release at the end of its life. Not recursive, not fair.
 *
 * Lifetime: the holder's release touches the word for the last time in its exchange; whoever acquires the lock after
 * that may free it. The wake that may follow names an address only, which os_wake_one allows.
 *
 * Alternatives that lost: pthread_mutex_t (40 bytes in every slot of the registry, and a type of one system); a pure
 * spin lock (a holder whose thread was descheduled costs everybody its whole time slice). */
#ifndef ROUSE_CORE_LOCK_H
#define ROUSE_CORE_LOCK_H

#include "os/atomic.h"

#include <stdbool.h>

struct lock {
    atomic_u32 word; /* LOCK_FREE, LOCK_HELD or LOCK_CONTENDED */
};

enum {
    LOCK_FREE = 0,
    LOCK_HELD = 1,      /* and nobody sleeps for it */
    LOCK_CONTENDED = 2, /* and somebody may sleep for it: the release must wake one */
};

/* The rest of lock_acquire and of lock_release, for the case that the lock is wanted by others too. */
void lock_acquire_contended(struct lock *lock);
void lock_wake_one(struct lock *lock);

static inline bool lock_try(struct lock *lock)
{
    uint32_t expected = LOCK_FREE;
    /* ACQUIRE pairs with the RELEASE of lock_release: what the last holder wrote is seen. Failing says nothing. */
    return atomic_u32_cas(&lock->word, &expected, LOCK_HELD, ACQUIRE, RELAXED);
}

static inline void lock_acquire(struct lock *lock)
{
    if (!lock_try(lock))
        lock_acquire_contended(lock);
}

static inline void lock_release(struct lock *lock)
{
    /* RELEASE pairs with the ACQUIRE of lock_try and lock_acquire_contended. One exchange, not a load and a store: a
     * thread that wrote LOCK_CONTENDED in between would sleep for ever. */
    if (atomic_u32_exchange(&lock->word, LOCK_FREE, RELEASE) == LOCK_CONTENDED)
        lock_wake_one(lock);
}

#endif
