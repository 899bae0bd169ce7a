#include "core/inject.h"

void inject_init(struct inject *inject)
{
    *inject = (struct inject){0};
}

/* Under the lock, after a change. RELAXED: see inject_length. */
static void publish_length(struct inject *inject)
{
    atomic_size_store(&inject->length, inject->queue.count, RELAXED);
}

void inject_push(struct inject *inject, struct queue_link *link)
{
    lock_acquire(&inject->lock);
    queue_push(&inject->queue, link);
    publish_length(inject);
    lock_release(&inject->lock);
}

void inject_push_batch(struct inject *inject, struct queue *batch)
{
    if (queue_is_empty(batch))
        return;
    lock_acquire(&inject->lock);
    queue_append(&inject->queue, batch);
    publish_length(inject);
    lock_release(&inject->lock);
}

struct queue_link *inject_pop(struct inject *inject)
{
    if (inject_is_empty(inject))
        return NULL;
    lock_acquire(&inject->lock);
    struct queue_link *link = queue_pop(&inject->queue);
    publish_length(inject);
    lock_release(&inject->lock);
    return link;
}

size_t inject_pop_some(struct inject *inject, struct queue *out, size_t limit)
{
    if (limit == 0 || inject_is_empty(inject))
        return 0;
    struct queue taken = {0};
    lock_acquire(&inject->lock);
    if (inject->queue.count <= limit) {
        queue_append(&taken, &inject->queue);
    } else {
        while (taken.count < limit)
            queue_push(&taken, queue_pop(&inject->queue));
    }
    publish_length(inject);
    lock_release(&inject->lock);
    size_t count = taken.count;
    queue_append(out, &taken);
    return count;
}
