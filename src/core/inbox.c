#include "core/inbox.h"

void inbox_init(struct inbox *inbox)
{
    atomic_ptr_init(&inbox->newest, NULL);
}

bool inbox_push(struct inbox *inbox, struct queue_link *link)
{
    /* RELAXED: only compared and passed on. */
    void *newest = atomic_ptr_load(&inbox->newest, RELAXED);
    do {
        link->next = newest;
        /* RELEASE pairs with the ACQUIRE of inbox_take: whoever takes the link sees `next` and what the link belongs
         * to. SEQ_CST beyond that for the pair described in the header. */
    } while (!atomic_ptr_cas_weak(&inbox->newest, &newest, link, SEQ_CST, RELAXED));
    return newest == NULL;
}

bool inbox_take(struct inbox *inbox, struct queue *out)
{
    if (inbox_is_empty(inbox))
        return false; /* the usual case, without an exchange */
    /* ACQUIRE pairs with inbox_push. */
    struct queue_link *link = atomic_ptr_exchange(&inbox->newest, NULL, ACQUIRE);
    struct queue_link *oldest = NULL;
    while (link) {
        struct queue_link *older = link->next;
        link->next = oldest;
        oldest = link;
        link = older;
    }
    while (oldest) {
        struct queue_link *newer = oldest->next;
        queue_push(out, oldest);
        oldest = newer;
    }
    return true;
}
