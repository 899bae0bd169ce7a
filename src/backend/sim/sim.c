/* The backend of the simulated world.
 *
 * What real kernels do differently, the seed decides for each set: it reports edges as epoll does, or once and only what
 * was armed as AFD does. Events come late, in any order, sometimes twice or for nothing, sometimes after the source was
 * detached; memory comes back from a detach at once or with a last event. All of that the contract allows. */
#include "backend/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "os/os_sim.h"

#define KINDS_MAX_NS ROUSE_US(50) /* how long an event may take from its cause to whoever waits */
#define WAIT_MAX_NS  ROUSE_S(30 * 60)

/* One source; its address is what the network knows. */
struct watch {
    struct list_node link; /* on the backend's list */
    struct backend *backend;
    os_handle handle;
    uint64_t token;
    unsigned armed; /* channels, where events come once */
};

struct pending {
    struct list_node link; /* on the backend's list */
    int64_t at_ns;         /* not before */
    struct backend_event event;
    unsigned number; /* of the watch's handle, for the trace: tokens differ from run to run; 0 for packets */
    void *data;      /* of a packet: where bytes go */
    size_t length;   /* likewise: room for them */
    bool cancelled;  /* likewise */
};

struct backend {
    struct list_node watches;
    struct list_node pending;
    bool edges; /* reports edges; else once, and what was armed */
    bool woken; /* backend_wake was called since the last wait */
    bool has_handle;
    os_event handle; /* what foreign loops wait for: readable while something is due */
    rouse_allocator allocator;
};

int backend_open(struct backend **opened, const rouse_allocator *allocator)
{
    struct backend *backend = allocator->alloc(allocator->context, sizeof *backend, _Alignof(struct backend));
    if (!backend)
        return ROUSE_NO_MEMORY;
    *backend = (struct backend){.edges = sim_below(2) == 0, .allocator = *allocator};
    list_init(&backend->watches);
    list_init(&backend->pending);
    *opened = backend;
    return ROUSE_OK;
}

static void forget_pending(struct pending *pending)
{
    list_remove(&pending->link);
    free(pending);
}

static void forget_watch(struct watch *watch)
{
    struct backend *backend = watch->backend;
    list_remove(&watch->link);
    backend->allocator.free(backend->allocator.context, watch, sizeof *watch, _Alignof(struct watch));
}

/* The network forgets it, unless its handle is another's by now. */
static void unwatch(struct watch *watch)
{
    void *before;
    if (sim_watch(watch->handle, NULL, &before) == ROUSE_OK && before != watch)
        (void)sim_watch(watch->handle, before, &before);
}

void backend_close(struct backend *backend)
{
    rouse_allocator allocator = backend->allocator;
    while (!list_is_empty(&backend->watches)) {
        struct watch *watch = CONTAINER_OF(backend->watches.next, struct watch, link);
        unwatch(watch);
        forget_watch(watch);
    }
    while (!list_is_empty(&backend->pending))
        forget_pending(CONTAINER_OF(backend->pending.next, struct pending, link));
    if (backend->has_handle)
        os_event_close(&backend->handle);
    allocator.free(allocator.context, backend, sizeof *backend, _Alignof(struct backend));
}

/* ---- events on their way ---- */

static void tell_foreign_loop(const struct backend *backend, int64_t at_ns)
{
    if (backend->has_handle)
        sim_notify_at(&backend->handle, at_ns);
}

/* Something is due at that moment. */
static void end_waits(struct backend *backend, int64_t at_ns)
{
    sim_rouse_at(backend, at_ns);
    tell_foreign_loop(backend, at_ns);
}

static void announce(struct backend *backend, const struct watch *watch, unsigned channels,
                     enum backend_event_kind kind)
{
    struct pending *pending = malloc(sizeof *pending);
    if (!pending)
        return;
    *pending = (struct pending){.at_ns = sim_now() + (int64_t)sim_below(KINDS_MAX_NS),
                                .event = {watch->token, channels, kind},
                                .number = (unsigned)watch->handle};
    list_push_back(&backend->pending, &pending->link);
    end_waits(backend, pending->at_ns);
}

static void tell(struct watch *watch, unsigned channels)
{
    const rouse_sim_options *options = sim_options();
    announce(watch->backend, watch, channels, BACKEND_READY);
    if (sim_chance(options->duplicates))
        announce(watch->backend, watch, channels, BACKEND_READY);
}

void sim_changed(void *watcher, unsigned channels)
{
    struct watch *watch = watcher;
    if (watch->backend->edges) {
        tell(watch, channels);
    } else if (watch->armed & channels) {
        watch->armed = 0;
        tell(watch, channels);
    }
}

/* ---- packets ---- */

int sim_packet_start(struct backend *backend, uint64_t *record, void *data, size_t length)
{
    struct pending *pending = malloc(sizeof *pending);
    if (!pending)
        return ROUSE_NO_MEMORY;
    *pending = (struct pending){.at_ns = sim_now() + sim_delay(),
                                .event = {(uintptr_t)record, 0, BACKEND_PACKET},
                                .data = data,
                                .length = length};
    list_push_back(&backend->pending, &pending->link);
    end_waits(backend, pending->at_ns);
    sim_pause();
    return ROUSE_OK;
}

void sim_packet_cancel(struct backend *backend, const uint64_t *record)
{
    for (struct list_node *link = backend->pending.next; link != &backend->pending; link = link->next) {
        struct pending *pending = CONTAINER_OF(link, struct pending, link);
        if (pending->event.kind != BACKEND_PACKET || pending->event.token != (uintptr_t)record)
            continue;
        int64_t soon_ns = sim_now() + (int64_t)sim_below(KINDS_MAX_NS);
        pending->cancelled = pending->cancelled || sim_below(2) == 0; /* else it was too late */
        if (soon_ns < pending->at_ns)
            pending->at_ns = soon_ns;
        end_waits(backend, pending->at_ns);
    }
    sim_pause();
}

/* The kernel gives the memory back, having used it. */
static void finish_packet(const struct pending *pending)
{
    uint64_t *record = (uint64_t *)(uintptr_t)pending->event.token;
    size_t count = pending->length > 0 ? 1 + (size_t)sim_below(pending->length) : 0;
    if (!pending->cancelled)
        memset(pending->data, 'p', count);
    record[0] = pending->cancelled ? (uint64_t)(int64_t)ROUSE_CANCELLED : count;
}

/* ---- sources ---- */

int backend_attach(struct backend *backend, struct backend_source *source, uint64_t token)
{
    void *before;
    int ready = sim_readiness(source->handle);
    if (ready < 0)
        return ready;
    (void)sim_watch(source->handle, NULL, &before);
    if (before && ((struct watch *)before)->backend == backend) {
        (void)sim_watch(source->handle, before, &before);
        return ROUSE_ALREADY_EXISTS;
    }
    struct watch *watch = backend->allocator.alloc(backend->allocator.context, sizeof *watch, _Alignof(struct watch));
    if (!watch)
        return ROUSE_NO_MEMORY;
    *watch = (struct watch){.backend = backend, .handle = source->handle, .token = token};
    list_push_back(&backend->watches, &watch->link);
    (void)sim_watch(source->handle, watch, &before);
    source->record = watch;
    if (backend->edges && ready)
        tell(watch, (unsigned)ready);
    sim_pause();
    return ROUSE_OK;
}

int backend_arm(struct backend *backend, struct backend_source *source, unsigned channels)
{
    struct watch *watch = source->record;
    if (backend->edges)
        return ROUSE_OK;
    int ready = sim_readiness(source->handle);
    watch->armed = channels;
    if (ready > 0 && (unsigned)ready & channels) {
        watch->armed = 0;
        tell(watch, (unsigned)ready);
    } else if (sim_chance(sim_options()->spurious)) {
        watch->armed = 0;
        announce(backend, watch, sim_below(2) ? channels : 0, BACKEND_READY);
    }
    return ROUSE_OK;
}

int backend_detach(struct backend *backend, struct backend_source *source, bool closing)
{
    struct watch *watch = source->record;
    (void)closing;
    source->record = NULL;
    if (!watch)
        return BACKEND_DONE;
    unwatch(watch);
    bool later = sim_chance(sim_options()->late);
    if (later)
        announce(backend, watch, 0, BACKEND_RETIRED);
    forget_watch(watch);
    return later ? BACKEND_LATER : BACKEND_DONE;
}

/* ---- waiting ---- */

static int64_t first_pending(const struct backend *backend)
{
    int64_t first_ns = ROUSE_NEVER;
    for (struct list_node *link = backend->pending.next; link != &backend->pending; link = link->next) {
        int64_t at_ns = CONTAINER_OF(link, struct pending, link)->at_ns;
        first_ns = at_ns < first_ns ? at_ns : first_ns;
    }
    return first_ns;
}

/* Those that are due, in any order; perhaps not all at once. */
static int take_due(struct backend *backend, struct backend_event *events, int limit)
{
    int count = 0;
    struct list_node *link = backend->pending.next;
    while (link != &backend->pending && count < limit) {
        struct pending *pending = CONTAINER_OF(link, struct pending, link);
        link = link->next;
        if (pending->at_ns > sim_now() || sim_chance(100))
            continue;
        sim_trace(SIM_EVENT, pending->number, (uint64_t)pending->event.kind << 32 | pending->event.channels);
        if (pending->event.kind == BACKEND_PACKET)
            finish_packet(pending);
        events[count++] = pending->event;
        forget_pending(pending);
    }
    for (int i = count - 1; i > 0; i--) {
        int other = (int)sim_below((uint64_t)i + 1);
        struct backend_event kept = events[i];
        events[i] = events[other];
        events[other] = kept;
    }
    return count;
}

int backend_wait(struct backend *backend, struct backend_event *events, int limit, int64_t deadline_ns)
{
    int64_t end_ns = sim_now() + WAIT_MAX_NS, first_ns = first_pending(backend);
    if (deadline_ns < end_ns)
        end_ns = deadline_ns;
    if (!backend->woken && first_ns > sim_now() && end_ns > sim_now())
        sim_sleep_at(backend, first_ns < end_ns ? first_ns : end_ns);
    else
        sim_pause();
    backend->woken = false;
    int count = take_due(backend, events, limit);
    if (backend->has_handle && first_pending(backend) > sim_now())
        (void)os_event_clear(&backend->handle);
    return count;
}

void backend_wake(struct backend *backend)
{
    backend->woken = true;
    if (backend->has_handle)
        os_event_notify(&backend->handle);
    sim_wake_place(backend, true);
    sim_pause();
}

int backend_handle(struct backend *backend, os_handle *handle)
{
    if (!backend->has_handle) {
        int status = os_event_open(&backend->handle);
        if (status != ROUSE_OK)
            return status;
        backend->has_handle = true;
        if (backend->woken)
            os_event_notify(&backend->handle);
        for (struct list_node *link = backend->pending.next; link != &backend->pending; link = link->next)
            tell_foreign_loop(backend, CONTAINER_OF(link, struct pending, link)->at_ns);
    }
    *handle = backend->handle.readable;
    return ROUSE_OK;
}

int backend_renew(struct backend *backend)
{
    (void)backend;
    return ROUSE_NOT_SUPPORTED;
}
