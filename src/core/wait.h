/* The one way to wait for something in a list: a node with a waker, in the waiter's storage.
 *
 * The list's lock protects its nodes. When a node is fired it is unlinked and its waker moved out under the lock; after the
 * lock is released nobody touches the node, because the frame it lies in may be gone. Wakers are called with no lock held,
 * in batches, because a waker may run anything. */
#ifndef ROUSE_CORE_WAIT_H
#define ROUSE_CORE_WAIT_H

#include "core/list.h"
#include <rouse/task.h>

/* Zeroed: waits for nothing. */
struct wait_node {
    struct list_node link; /* on the list while waiting; next NULL and prev &wait_fired_mark once fired */
    rouse_waker waker;     /* owned while linked */
};

/* The mark in link.prev of a node that was fired and whose owner has not seen it yet. */
extern struct list_node wait_fired_mark;

static inline bool wait_is_waiting(const struct wait_node *node)
{
    return list_is_linked(&node->link);
}
static inline bool wait_was_fired(const struct wait_node *node)
{
    return !node->link.next && node->link.prev == &wait_fired_mark;
}

/* Under the lock. Takes over the waker. */
static inline void wait_add(struct list_node *list, struct wait_node *node, rouse_waker waker)
{
    node->waker = waker;
    list_push_back(list, &node->link);
}

/* Under the lock: takes a waiting node back; answers its waker, to be dropped after the lock. */
static inline rouse_waker wait_remove(struct wait_node *node)
{
    rouse_waker waker = node->waker;
    list_remove(&node->link);
    node->waker = (rouse_waker){NULL, NULL};
    return waker;
}

static inline void wait_forget(struct wait_node *node)
{
    node->link.next = node->link.prev = NULL;
}

#define WAIT_BATCH 32

/* Wakers taken under locks, to be called after them. */
struct wait_batch {
    rouse_waker wakers[WAIT_BATCH]; /* the first `count` are owned */
    unsigned count;
};

/* The wakers, half a KiB, are written before they are read. */
static inline void wait_batch_init(struct wait_batch *batch)
{
    batch->count = 0;
}

static inline bool wait_batch_is_full(const struct wait_batch *batch)
{
    return batch->count == WAIT_BATCH;
}

/* Under the lock: fires the first waiter of a list. The batch must not be full; false if nobody waits. */
static inline bool wait_fire_first(struct list_node *list, struct wait_batch *batch)
{
    struct list_node *link = list_pop_front(list);
    if (!link)
        return false;
    struct wait_node *node = CONTAINER_OF(link, struct wait_node, link);
    link->prev = &wait_fired_mark;
    batch->wakers[batch->count++] = node->waker;
    node->waker = (rouse_waker){NULL, NULL};
    return true;
}

/* With no lock held: calls and empties the batch. */
void wait_batch_wake(struct wait_batch *batch);

#endif
