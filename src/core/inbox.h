/* What other threads hand to one owner: any thread pushes, the owner takes everything at once, oldest first.
 *
 * A lock-free stack that the owner empties in one exchange and turns round. Nodes are never taken one by one, so
 * there is no ABA and nothing to reclaim; a link belongs to the owner as soon as it is taken.
 *
 * The push is one half of a sequentially consistent pair. The other half belongs to the owner, who announces its sleep
 * and then looks here: with
 *     pusher: inbox_push, then load of the owner's mark     owner: store of the mark, then inbox_is_empty or inbox_take
 * either the pusher sees the mark or the owner sees the link. The accesses of this file are SEQ_CST for that; those of
 * the mark must be SEQ_CST as well, or stand behind a SEQ_CST fence.
 *
 * Alternatives that lost: a queue with a lock (wakes from other threads would block on a descheduled owner); Vyukov's
 * queue with a stub node (a pusher that is stopped half way hides everything behind it). */
#ifndef ROUSE_CORE_INBOX_H
#define ROUSE_CORE_INBOX_H

#include "core/list.h"
#include "os/atomic.h"

#include <stdbool.h>

struct inbox {
    atomic_ptr newest; /* the link pushed last, from where `next` leads to older ones; NULL when empty */
};

void inbox_init(struct inbox *inbox);

/* Any thread. Answers whether the inbox was empty: whoever finds it so is the one who may have to wake the owner. */
bool inbox_push(struct inbox *inbox, struct queue_link *link);

/* Moves all links to the end of `out`, in the order of pushing; false if there were none. For the owner, and for whoever
 * takes over from one that is stuck. */
bool inbox_take(struct inbox *inbox, struct queue *out);

/* Any thread. */
static inline bool inbox_is_empty(const struct inbox *inbox)
{
    /* SEQ_CST pairs with the exchange in inbox_push, see above. */
    return atomic_ptr_load(&inbox->newest, SEQ_CST) == NULL;
}

#endif
