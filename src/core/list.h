/* Intrusive lists: the links live inside the things that are listed, so that listing never allocates and never fails.
 *
 * Two shapes, because their users differ: `list` can take any node out in constant time (timers, waiters, children);
 * `queue` costs one word a link and is passed on whole (run queues, batches of tasks to wake).
 *
 * Alternatives that lost: lists of pointers (an allocation where waking, cancelling and closing must not fail); the
 * macros of <sys/queue.h> (no types, and not on Windows). */
#ifndef ROUSE_CORE_LIST_H
#define ROUSE_CORE_LIST_H

#include <stdbool.h>
#include <stddef.h>

/* The struct of `type` whose field `member` is at `pointer`. */
#define CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* ---- circular, doubly linked ----
 *
 * A head is a node that stands for the list; it points at itself when the list is empty. A node outside every list has
 * next == NULL; a zeroed node is such a one. */

struct list_node {
    struct list_node *next; /* the following node, the head behind the last one, NULL when not linked */
    struct list_node *prev; /* the preceding node, likewise */
};

static inline void list_init(struct list_node *head)
{
    head->next = head;
    head->prev = head;
}

static inline bool list_is_empty(const struct list_node *head)
{
    return head->next == head;
}

/* Of a node, never of a head. */
static inline bool list_is_linked(const struct list_node *node)
{
    return node->next != NULL;
}

/* Puts a node that is in no list between two neighbours. */
static inline void list_insert_between(struct list_node *before, struct list_node *node, struct list_node *after)
{
    node->prev = before;
    node->next = after;
    before->next = node;
    after->prev = node;
}

static inline void list_push_back(struct list_node *head, struct list_node *node)
{
    list_insert_between(head->prev, node, head);
}

static inline void list_push_front(struct list_node *head, struct list_node *node)
{
    list_insert_between(head, node, head->next);
}

/* Takes a linked node out of whatever list it is in. */
static inline void list_remove(struct list_node *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = NULL;
    node->prev = NULL;
}

/* The first node, taken out; NULL when the list is empty. */
static inline struct list_node *list_pop_front(struct list_node *head)
{
    struct list_node *node = head->next;
    if (node == head)
        return NULL;
    list_remove(node);
    return node;
}

/* Moves all nodes of `other` behind those of `head`, in their order; `other` is empty afterwards. */
static inline void list_splice_back(struct list_node *head, struct list_node *other)
{
    if (list_is_empty(other))
        return;
    other->next->prev = head->prev;
    other->prev->next = head;
    head->prev->next = other->next;
    head->prev = other->prev;
    list_init(other);
}

/* ---- first in, first out, singly linked ---- */

struct queue_link {
    struct queue_link *next; /* the link behind this one; NULL for the last; meaningless outside a queue */
};

/* A zeroed queue is an empty one. */
struct queue {
    struct queue_link *head; /* the next to be popped; NULL when empty */
    struct queue_link *tail; /* the last pushed; meaningless when empty */
    size_t count;            /* links in the queue */
};

static inline void queue_init(struct queue *queue)
{
    queue->head = NULL;
    queue->tail = NULL;
    queue->count = 0;
}

static inline bool queue_is_empty(const struct queue *queue)
{
    return queue->head == NULL;
}

static inline void queue_push(struct queue *queue, struct queue_link *link)
{
    link->next = NULL;
    if (queue->head)
        queue->tail->next = link;
    else
        queue->head = link;
    queue->tail = link;
    queue->count++;
}

/* The oldest link, or NULL. */
static inline struct queue_link *queue_pop(struct queue *queue)
{
    struct queue_link *link = queue->head;
    if (!link)
        return NULL;
    queue->head = link->next;
    queue->count--;
    return link;
}

/* Moves all links of `other` behind those of `queue`, in their order; `other` is empty afterwards. */
static inline void queue_append(struct queue *queue, struct queue *other)
{
    if (!other->head)
        return;
    if (queue->head)
        queue->tail->next = other->head;
    else
        queue->head = other->head;
    queue->tail = other->tail;
    queue->count += other->count;
    queue_init(other);
}

#endif
