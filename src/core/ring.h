/* The run queue of one worker: a ring of fixed size with one owner, who pushes and pops, and any number of thieves, who
 * take half of what they find.
 *
 * `head` packs two indices. Items from `real` to `tail` are in the queue. Slots from `steal` to `real` have been
 * taken by a thief that is still copying them out; the owner must not write them yet. The two are equal unless a
 * thief is at work, and while they differ no second thief starts. `tail` is written by the owner alone.
 *
 * Indices count up for ever and wrap at 2^32; a slot is the index modulo RING_SIZE. They are this wide because of a
 * thief that is stopped between reading head and exchanging it: with 16 bits a busy owner comes round to the same
 * head within a millisecond, and the thief would take items that are not there.
 *
 * Nothing here wakes anybody. Whoever pushes and then looks whether a worker sleeps needs a SEQ_CST fence in between,
 * and whoever announces its sleep and then looks at rings needs one in between, too.
 *
 * Alternatives that lost: a Chase-Lev deque (its owner takes the newest item, and thieves take one at a time); a lock
 * (each push and pop pays for thieves that hardly ever come); a ring that grows (memory that thieves may still read). */
#ifndef ROUSE_CORE_RING_H
#define ROUSE_CORE_RING_H

#include "os/atomic.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Slots; a power of two. Models use 2 or 4. */
#ifndef RING_SIZE
#define RING_SIZE 256
#endif

struct ring {
    atomic_u64 head;             /* steal in the upper half, real in the lower; owner and thieves exchange it */
    atomic_u32 tail;             /* behind the last item; the owner stores it */
    atomic_ptr slots[RING_SIZE]; /* the items. RELAXED throughout: head and tail order every access */
};

static inline uint64_t ring_head(uint32_t steal, uint32_t real)
{
    return (uint64_t)steal << 32 | real;
}

static inline uint32_t ring_steal_index(uint64_t head)
{
    return (uint32_t)(head >> 32);
}

static inline uint32_t ring_real_index(uint64_t head)
{
    return (uint32_t)head;
}

static inline atomic_ptr *ring_slot(struct ring *ring, uint32_t index)
{
    return &ring->slots[index % RING_SIZE];
}

void ring_init(struct ring *ring);

/* Owner. Puts an item behind the others; false when there is no room. */
static inline bool ring_push(struct ring *ring, void *item)
{
    /* RELAXED: the owner's own variable. */
    uint32_t tail = atomic_u32_load(&ring->tail, RELAXED);
    /* ACQUIRE pairs with the RELEASE by which a thief gives slots back in ring_steal: it has read them before they are
     * written here. */
    uint32_t steal = ring_steal_index(atomic_u64_load(&ring->head, ACQUIRE));
    if (tail - steal >= RING_SIZE)
        return false;
    atomic_ptr_store(ring_slot(ring, tail), item, RELAXED);
    /* RELEASE pairs with the ACQUIRE of tail in ring_steal: a thief that sees the index sees the slot, and the item's
     * contents. */
    atomic_u32_store(&ring->tail, tail + 1, RELEASE);
    return true;
}

/* Owner. The oldest item, or NULL. */
static inline void *ring_pop(struct ring *ring)
{
    /* RELAXED: the owner's own variable; and the exchange below finds out whether head is up to date. */
    uint32_t tail = atomic_u32_load(&ring->tail, RELAXED);
    uint64_t head = atomic_u64_load(&ring->head, RELAXED);
    uint32_t real;
    uint64_t next;
    do {
        real = ring_real_index(head);
        if (real == tail)
            return NULL;
        uint32_t steal = ring_steal_index(head);
        next = ring_head(steal == real ? real + 1 : steal, real + 1);
        /* RELEASE pairs with the ACQUIRE of head in ring_steal and ring_length: whoever sees this real index also
         * sees a tail that is not before it. No ACQUIRE: the slot was written by this thread. */
    } while (!atomic_u64_cas_weak(&ring->head, &head, next, RELEASE, RELAXED));
    return atomic_ptr_load(ring_slot(ring, real), RELAXED);
}

/* Owner, when ring_push found no room: takes the older half out into `out` and answers how many. 0 if a thief is at
 * work or came first: push again, and if there still is no room put the item elsewhere; waiting for a thief could
 * mean waiting for its next time slice. */
size_t ring_take_half(struct ring *ring, void *out[RING_SIZE / 2]);

/* Takes about half of the victim's items, oldest first, as far as there is room: hands out the oldest in *first and
 * moves the others into the ring `thief`, which the caller owns. Answers how many were taken in all; 0 if there was
 * nothing or another thief is at work. */
size_t ring_steal(struct ring *victim, struct ring *thief, void **first);

/* How many items there are: exact for the owner if no thief is at work, a guess for others. */
uint32_t ring_length(const struct ring *ring);

static inline bool ring_is_empty(const struct ring *ring)
{
    return ring_length(ring) == 0;
}

#endif
