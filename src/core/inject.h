/* The queue that all workers share: work from threads that are no workers, and what does not fit into a ring.
 *
 * A lock and an intrusive list. The length can be read without the lock, so that looking costs idle workers nothing
 * and a searching one takes the lock only when there is something to take.
 *
 * Whoever pushes and then looks whether a worker sleeps needs a SEQ_CST fence in between, and whoever announces its
 * sleep and then looks here needs one in between, too.
 *
 * Alternatives that lost: lock-free queues (memory reclamation or a dummy node each, and no way to append a batch or
 * take a share in one step). */
#ifndef ROUSE_CORE_INJECT_H
#define ROUSE_CORE_INJECT_H

#include "core/list.h"
#include "core/lock.h"
#include "os/atomic.h"

#include <stdbool.h>
#include <stddef.h>

struct inject {
    struct lock lock;   /* guards queue and the writing of length */
    struct queue queue; /* oldest first */
    atomic_size length; /* of the queue, as of the end of the last change */
};

void inject_init(struct inject *inject);

/* Any thread. */
void inject_push(struct inject *inject, struct queue_link *link);
void inject_push_batch(struct inject *inject,
                       struct queue *batch);          /* all of them, in order; batch is empty afterwards */
struct queue_link *inject_pop(struct inject *inject); /* the oldest, or NULL */

/* Moves the oldest links, at most `limit`, to the end of `out` and answers how many. Any thread. */
size_t inject_pop_some(struct inject *inject, struct queue *out, size_t limit);

/* Any thread; of use for those who act on a non-zero answer by popping. */
static inline size_t inject_length(const struct inject *inject)
{
    /* RELAXED: the lock orders what is popped; for going to sleep on "empty" the caller's fence does. */
    return atomic_size_load(&inject->length, RELAXED);
}

static inline bool inject_is_empty(const struct inject *inject)
{
    return inject_length(inject) == 0;
}

#endif
