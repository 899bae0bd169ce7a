/* The slow half of the lock: spin briefly, then sleep in the system. */
#include "core/lock.h"

#include "os/os.h"

/* Looks at the word before sleeping. A section is shorter than this, a sleep and its wake cost 20 µs and more. */
#ifndef LOCK_SPINS
#define LOCK_SPINS 40
#endif

void lock_acquire_contended(struct lock *lock)
{
    for (int i = 0; i < LOCK_SPINS; i++) {
        /* RELAXED: a hint; taking the lock is lock_try's business. */
        uint32_t word = atomic_u32_load(&lock->word, RELAXED);
        if (word == LOCK_FREE && lock_try(lock))
            return;
        if (word == LOCK_CONTENDED)
            break; /* others sleep already: spinning would only overtake them */
        cpu_relax();
    }
    /* From here on the word is written as contended even when the lock was free: this thread cannot know whether
     * another one still sleeps. The price is at most one wake too many, and a lost one is impossible. ACQUIRE pairs
     * with the RELEASE of lock_release. */
    while (atomic_u32_exchange(&lock->word, LOCK_CONTENDED, ACQUIRE) != LOCK_FREE)
        os_wait_on(atomic_u32_word(&lock->word), LOCK_CONTENDED, ROUSE_NEVER);
}

void lock_wake_one(struct lock *lock)
{
    os_wake_one(atomic_u32_word(&lock->word));
}
