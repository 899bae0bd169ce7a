/* The poll(2) backend, for systems that have nothing better: each wait costs time for every armed source, so it is made for
 * hundreds of them. A program that lowers its limit of descriptors below their number is refused each wait by the kernel.
 *
 * The thread that waits polls a copy of what is armed (os_poll.h), which nobody else touches. Whoever arms something new
 * meanwhile makes it return and take another copy. An event ends the arming of its source.
 *
 * Levels make urgent data and half closes no concern of this file: what a short count has left behind is seen on arming. To
 * ask for them would do harm: a source that waits to be written to, whose peer has ended, would be told of again and again.
 *
 * Lost: one array for poll and for those who arm, who must push the waiting thread out before each change. */
#include "backend/backend.h"

#include "core/lock.h"
#include "os/os_poll.h"

#define LONGEST_WAIT_NS (30 * ROUSE_S(60))
#define FIRST_CAPACITY  64

struct backend {
    rouse_allocator allocator; /* of all memory here */
    os_event event;            /* makes poll return */
    struct lock lock;          /* a leaf, for all that follows; never held while polling */
    struct table *table;       /* replaced by a larger one when a descriptor does not fit */
    struct table *in_use;      /* whose array the wait in progress has; NULL: nobody waits */
    bool sleeps;               /* the wait in progress may block, and nobody has notified the event to change that */
    bool is_awaited;           /* somebody sleeps until `round` changes */
    atomic_u32 round;          /* the number of the wait in progress, or of the next one */
};

static size_t index_of(const struct backend_source *source)
{
    return (size_t)os_descriptor(source->handle) + 1; /* 0, which is never tracked, for what is no descriptor */
}

/* Under the lock. A wait that uses the old table frees it when it ends. */
static int make_room(struct backend *backend, size_t index)
{
    struct table *old = backend->table;
    if (index < old->capacity)
        return ROUSE_OK;
    struct table *new = table_make(&backend->allocator, index < 2 * old->capacity ? 2 * old->capacity : index + 1, old);
    if (!new)
        return ROUSE_NO_MEMORY;
    backend->table = new;
    if (old != backend->in_use)
        table_free(&backend->allocator, old);
    return ROUSE_OK;
}

/* Releases the lock, and makes the wait in progress return if what has changed concerns it. */
static void release(struct backend *backend, bool concerns_wait)
{
    bool notify = concerns_wait && backend->sleeps;
    if (notify)
        backend->sleeps = false;
    lock_release(&backend->lock);
    if (notify)
        os_event_notify(&backend->event);
}

int backend_open(struct backend **opened, const rouse_allocator *allocator)
{
    struct backend *backend = alloc_take(allocator, sizeof *backend, _Alignof(struct backend));
    if (!backend)
        return ROUSE_NO_MEMORY;
    *backend = (struct backend){.allocator = *allocator, .table = table_make(allocator, FIRST_CAPACITY, NULL)};
    int status = backend->table ? os_event_open(&backend->event) : ROUSE_NO_MEMORY;
    if (status != ROUSE_OK) {
        table_free(allocator, backend->table);
        alloc_give(allocator, backend, sizeof *backend, _Alignof(struct backend));
        return status;
    }
    *opened = backend;
    return ROUSE_OK;
}

void backend_close(struct backend *backend)
{
    rouse_allocator allocator = backend->allocator;
    os_event_close(&backend->event);
    if (backend->in_use != backend->table) /* in a forked child, whose parent waits */
        table_free(&allocator, backend->in_use);
    table_free(&allocator, backend->table);
    alloc_give(&allocator, backend, sizeof *backend, _Alignof(struct backend));
}

int backend_attach(struct backend *backend, struct backend_source *source, uint64_t token)
{
    size_t index = index_of(source);
    int status = os_check_pollable(os_descriptor(source->handle)); /* poll calls a regular file ready */
    if (status != ROUSE_OK)
        return status;
    lock_acquire(&backend->lock);
    status = table_find(backend->table, index) ? ROUSE_ALREADY_EXISTS : make_room(backend, index);
    if (status == ROUSE_OK)
        backend->table->entries[index].token = token;
    lock_release(&backend->lock);
    return status;
}

int backend_arm(struct backend *backend, struct backend_source *source, unsigned channels)
{
    short events = (short)((channels & BACKEND_READ ? POLLIN : 0) | (channels & BACKEND_WRITE ? POLLOUT : 0));
    size_t index = index_of(source);
    lock_acquire(&backend->lock);
    struct entry *entry = table_find(backend->table, index);
    bool asks_more = entry && events & ~entry->events;
    if (entry)
        table_arm(backend->table, index, events);
    release(backend, asks_more);
    return entry ? ROUSE_OK : ROUSE_BAD_DESCRIPTOR;
}

/* The kernel may keep open what a sleeping thread polls; Linux does. The peer of a connection that is closed meanwhile hears
 * nothing of it, and the port of a listener stays taken. So such a wait ends before the caller goes on. */
int backend_detach(struct backend *backend, struct backend_source *source, bool closing)
{
    (void)closing;
    size_t index = index_of(source);
    lock_acquire(&backend->lock);
    struct entry *entry = table_find(backend->table, index);
    uint32_t round = atomic_u32_load(&backend->round, RELAXED);
    bool is_polled = entry && backend->in_use && entry->round == round;
    if (entry) {
        table_arm(backend->table, index, 0);
        entry->token = UNTRACKED;
    }
    backend->is_awaited = backend->is_awaited || is_polled;
    release(backend, is_polled);
    /* ACQUIRE pairs with the RELEASE of backend_wait: the poll is over. */
    while (is_polled && atomic_u32_load(&backend->round, ACQUIRE) == round)
        os_wait_on(atomic_u32_word(&backend->round), round, ROUSE_NEVER);
    return BACKEND_DONE;
}

/* Under the lock: how many events, at most 1, an element of the array gives; none if the source was detached meanwhile. */
static int tell(struct table *table, const struct pollfd *found, struct backend_event *event)
{
    size_t index = (size_t)found->fd + 1;
    struct entry *entry = table_find(table, index);
    if (!entry)
        return 0;
    unsigned channels = (found->revents & POLLIN ? BACKEND_READ : 0u) | (found->revents & POLLOUT ? BACKEND_WRITE : 0u);
    if (found->revents & (POLLERR | POLLHUP | POLLNVAL))
        channels = BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP;
    *event = (struct backend_event){entry->token, channels, BACKEND_READY};
    table_arm(table, index, 0);
    if (found->revents & POLLNVAL) /* closed without detaching: the number is free for another source */
        entry->token = UNTRACKED;
    return 1;
}

int backend_wait(struct backend *backend, struct backend_event *events, int limit, int64_t deadline_ns)
{
    int64_t span_ns = os_span_until(deadline_ns, LONGEST_WAIT_NS);
    lock_acquire(&backend->lock);
    struct table *table = backend->in_use = backend->table;
    struct pollfd *polled = table->polled;
    size_t count = table_collect(table, atomic_u32_load(&backend->round, RELAXED));
    backend->sleeps = span_ns > 0;
    lock_release(&backend->lock);

    polled[0] = (struct pollfd){.fd = os_descriptor(backend->event.readable), .events = POLLIN};
    int found = table_poll(polled, count, span_ns), left = found, told = 0;
    if (found > 0 && polled[0].revents) {
        left--;
        if (!os_event_clear(&backend->event) && left == 0)
            found = ROUSE_BAD_DESCRIPTOR; /* the program has closed it: an error, for the caller would spin */
    }

    lock_acquire(&backend->lock);
    for (size_t i = 1; left > 0 && told < limit; i++) {
        if (polled[i].revents) {
            left--;
            told += tell(backend->table, &polled[i], &events[told]);
        }
    }
    bool is_awaited = backend->is_awaited, is_outgrown = table != backend->table;
    backend->is_awaited = backend->sleeps = false;
    backend->in_use = NULL;
    atomic_u32_add(&backend->round, 1, RELEASE);
    lock_release(&backend->lock);
    if (is_awaited)
        os_wake_all(atomic_u32_word(&backend->round));
    if (is_outgrown)
        table_free(&backend->allocator, table);
    return found < 0 ? found : told;
}

void backend_wake(struct backend *backend)
{
    os_event_notify(&backend->event);
}

/* No descriptor stands for what is armed. */
int backend_handle(struct backend *backend, os_handle *handle)
{
    (void)backend;
    (void)handle;
    return ROUSE_NOT_SUPPORTED;
}

/* Descriptors are polled, not what they stand for: once closed, they are out, whoever has a copy. */
int backend_renew(struct backend *backend)
{
    (void)backend;
    return ROUSE_NOT_SUPPORTED;
}
