/* poll(2) has no set in the kernel: this is one. A table indexed by the descriptor, with a list of those that are armed, the
 * array that is made of this list, and the call, in nanoseconds where the system can.
 *
 * What is armed comes to the end of the list, and what was told of leaves it: those that did not fit into the caller's
 * events come first the next time. Lost: keeping only an array and filling gaps with its last element, which can pass over
 * the same ones for ever; a record allocated for each source, which detaching would have to free. */
#ifndef ROUSE_OS_POLL_H
#define ROUSE_OS_POLL_H

#include <errno.h>
#include <poll.h>
#include <time.h>

#include "core/alloc.h"
#include "os/os_posix.h"

/* The token of an entry without a source. */
#define UNTRACKED UINT64_MAX

struct entry {
    uint64_t token; /* of the source that has the descriptor, or UNTRACKED */
    size_t next;    /* while armed: the index of the one to be polled after it; 0: it is the last */
    size_t prev;    /* while armed: likewise before it */
    uint32_t round; /* the wait that has polled it last */
    short events;   /* what poll is asked for; 0: not armed, and not in the list */
};

struct table {
    size_t capacity;        /* of both arrays */
    struct pollfd *polled;  /* behind the entries; belongs to the thread that waits */
    struct entry entries[]; /* [0] is the head of the list and never tracked; descriptor d has [d + 1] */
};

static inline size_t table_bytes(size_t capacity)
{
    return sizeof(struct table) + capacity * (sizeof(struct entry) + sizeof(struct pollfd));
}

static inline void table_free(const rouse_allocator *allocator, struct table *table)
{
    if (table)
        alloc_give(allocator, table, table_bytes(table->capacity), _Alignof(struct table));
}

/* A table with what the old one has, if there is one; NULL without memory. */
static inline struct table *table_make(const rouse_allocator *allocator, size_t capacity, const struct table *old)
{
    size_t known = old ? old->capacity : 0;
    if (capacity > SIZE_MAX / (2 * sizeof(struct entry)))
        return NULL;
    struct table *table = alloc_take(allocator, table_bytes(capacity), _Alignof(struct table));
    if (!table)
        return NULL;
    table->capacity = capacity;
    table->polled = (struct pollfd *)(void *)&table->entries[capacity];
    for (size_t i = 0; i < capacity; i++)
        table->entries[i] = i < known ? old->entries[i] : (struct entry){.token = UNTRACKED};
    return table;
}

/* The entry, or NULL if it has no source. */
static inline struct entry *table_find(struct table *table, size_t index)
{
    return index < table->capacity && table->entries[index].token != UNTRACKED ? &table->entries[index] : NULL;
}

/* Puts an entry at the end of the list, or takes it off. */
static inline void table_arm(struct table *table, size_t index, short events)
{
    struct entry *entries = table->entries, *entry = &entries[index];
    if (events && !entry->events) {
        entry->next = 0;
        entry->prev = entries[0].prev;
        entries[entry->prev].next = entries[0].prev = index;
    } else if (!events && entry->events) {
        entries[entry->prev].next = entry->next;
        entries[entry->next].prev = entry->prev;
    }
    entry->events = events;
}

/* Fills the array for the wait of this number, behind its first element; answers how many elements it has then. */
static inline size_t table_collect(struct table *table, uint32_t round)
{
    struct entry *entries = table->entries;
    size_t count = 1;
    for (size_t i = entries[0].next; i != 0; i = entries[i].next) {
        entries[i].round = round;
        table->polled[count++] = (struct pollfd){.fd = (int)i - 1, .events = entries[i].events};
    }
    return count;
}

/* The count of poll, or a status; 0 if it was interrupted. */
static inline int table_poll(struct pollfd *polled, size_t count, int64_t span_ns)
{
#if defined(ROUSE_HAVE_PPOLL)
    struct timespec span = {.tv_sec = (time_t)(span_ns / 1000000000), .tv_nsec = (long)(span_ns % 1000000000)};
    int found = ppoll(polled, (nfds_t)count, &span, NULL);
#else
    int found = poll(polled, (nfds_t)count, (int)((span_ns + 999999) / 1000000));
#endif
    if (found >= 0 || errno == EINTR)
        return found < 0 ? 0 : found;
    return errno == EAGAIN ? ROUSE_NO_MEMORY : os_status(errno); /* what some systems call it */
}

#endif
