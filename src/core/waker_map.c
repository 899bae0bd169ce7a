#include "core/waker_map.h"
#include "core/exhaustion.h"

static struct channel *channel_of(struct slot *slot, unsigned channel)
{
    return channel == BACKEND_READ ? &slot->read : &slot->write;
}

/* Which channels somebody waits for. */
static unsigned wanted(const struct slot *slot)
{
    return (list_is_empty(&slot->read.waiters) ? 0u : (unsigned)BACKEND_READ) |
           (list_is_empty(&slot->write.waiters) ? 0u : (unsigned)BACKEND_WRITE);
}

/* Which channels must be armed: those that somebody waits for and that are not ready. Who waits for a ready one is woken by
 * those who leave it; armed, a kernel that reports levels would tell of it again and again. */
static unsigned to_arm(const struct slot *slot)
{
    return wanted(slot) &
           ~((slot->read.ready ? (unsigned)BACKEND_READ : 0u) | (slot->write.ready ? (unsigned)BACKEND_WRITE : 0u));
}

/* Under the lock, in a forked child that waits itself for what its parent waits for: the parent's waiters are not here, and
 * their wakers may lead to locks that are held for ever. Readiness is what the parent's events said: only attaching tells. */
static void forget_parent(struct slot *slot)
{
    struct list_node *link;
    while ((link = list_pop_front(&slot->read.waiters)) || (link = list_pop_front(&slot->write.waiters)))
        wait_forget(CONTAINER_OF(link, struct wait_node, link));
    slot->reactor = NULL;
    slot->source.record = NULL;
}

/* Under the lock: the slot is attached to a reactor of another runtime. Nobody may be driving that one, unless it has
 * threads of its own; whoever waits now is being driven. Those who wait already are woken from either. A kernel that
 * refuses leaves everything as it is. */
static void move_to(struct slot *slot, struct reactor *reactor)
{
    struct backend_source moved = {slot->source.handle, NULL};
    if (!wanted(slot)) {
        waker_map_detach(slot, false);
    } else if (!slot->reactor->attended &&
               backend_attach(reactor->backend, &moved, registry_handle(slot)) == ROUSE_OK) {
        waker_map_detach(slot, false);
        slot->source.record = moved.record; /* calls read the handle without the lock */
        slot->reactor = reactor;
    }
}

/* Under the lock: puts the node on the list, with the source attached and armed. *waker is taken over on PENDING; a waker
 * that it replaces comes back in its place. */
static int insert(struct slot *slot, struct channel *channel, struct wait_node *node, rouse_waker *waker,
                  struct reactor *reactor)
{
    if (reactor_is_forked(reactor))
        return ROUSE_FORKED;
    if (slot->reactor && slot->reactor != reactor && reactor_is_forked(slot->reactor))
        forget_parent(slot);
    if (slot->reactor && slot->reactor->owner != reactor->owner)
        move_to(slot, reactor);
    if (!slot->reactor) {
        int status = backend_attach(reactor->backend, &slot->source, registry_handle(slot));
        if (status != ROUSE_OK)
            return status;
        slot->reactor = reactor;
    }
    unsigned direction = channel == &slot->read ? BACKEND_READ : BACKEND_WRITE;
    int status = backend_arm(slot->reactor->backend, &slot->source, to_arm(slot) | direction);
    if (status != ROUSE_OK)
        return status;
    rouse_waker old = {NULL, NULL};
    if (wait_is_waiting(node))
        old = wait_remove(node);
    wait_add(&channel->waiters, node, *waker);
    *waker = old;
    return ROUSE_PENDING;
}

struct search {
    uintptr_t handle;     /* of the slot that is left out */
    os_handle descriptor; /* wanted */
    bool found;
};

static void look_for_descriptor(struct slot *slot, uintptr_t handle, void *context)
{
    struct search *search = context;
    if (handle != search->handle && slot->source.handle == search->descriptor)
        search->found = true;
    lock_release(&slot->lock);
}

/* With no lock held: the kernel tracks this slot's descriptor already. On behalf of another open slot: that one keeps it,
 * for its waiters would never be woken. Else the entry is a leftover, and goes: OK, try again. */
static int remove_leftover(uintptr_t handle, const struct reactor *reactor)
{
    struct slot *slot = registry_acquire(handle);
    if (!slot)
        return ROUSE_CLOSED;
    struct search search = {handle, slot->source.handle, false};
    lock_release(&slot->lock);
    registry_walk(look_for_descriptor, &search);
    if (search.found)
        return ROUSE_ALREADY_EXISTS;
    slot = registry_acquire(handle);
    if (!slot)
        return ROUSE_CLOSED;
    if (!slot->reactor)
        backend_detach(reactor->backend, &slot->source, false);
    lock_release(&slot->lock);
    return ROUSE_OK;
}

/* Under the lock: the call is inside from now on. */
static void enter_call(struct slot_call *call, struct slot *slot, struct channel *channel)
{
    slot->users++;
    *call = (struct slot_call){slot, channel, channel->tick};
}

/* The rest of waker_map_begin: the node is put on the list, moved to another waker, or taken off. */
INLINE_NEVER int begin_waiting(struct slot_call *call, uintptr_t handle, unsigned direction, struct wait_node *node,
                               const rouse_waker *waker)
{
    /* Cloned and dropped outside the lock: a waker may run anything. */
    rouse_waker spare = rouse_waker_clone(waker), old = {NULL, NULL};
    struct reactor *reactor;
    int status = ROUSE_OK, unreachable = local_reactor(&reactor);
    for (bool cleaned = false; status == ROUSE_OK; cleaned = true) {
        struct slot *slot = registry_acquire(handle);
        if (!slot) {
            wait_forget(node);
            status = ROUSE_CLOSED;
            break;
        }
        struct channel *channel = channel_of(slot, direction);
        if (wait_was_fired(node))
            wait_forget(node);
        if (slot->flags & SLOT_DOOMED) {
            status = ROUSE_CLOSED;
        } else if (channel->ready) {
            if (wait_is_waiting(node))
                old = wait_remove(node);
            enter_call(call, slot, channel);
            lock_release(&slot->lock);
            break;
        } else {
            status = !spare.table              ? ROUSE_LIMIT
                     : unreachable != ROUSE_OK ? unreachable
                                               : insert(slot, channel, node, &spare, reactor);
        }
        /* An operation that has failed is over: its node may not stay on the list. */
        if (status != ROUSE_OK && status != ROUSE_PENDING && wait_is_waiting(node))
            old = wait_remove(node);
        lock_release(&slot->lock);
        if (status == ROUSE_ALREADY_EXISTS && !cleaned)
            status = remove_leftover(handle, reactor);
    }
    rouse_waker_drop(&spare);
    rouse_waker_drop(&old);
    return status;
}

int waker_map_begin(struct slot_call *call, uintptr_t handle, unsigned direction, struct wait_node *node,
                    const rouse_waker *waker)
{
    struct slot *slot = registry_acquire(handle);
    if (!slot) {
        wait_forget(node);
        return ROUSE_CLOSED;
    }
    struct channel *channel = channel_of(slot, direction);
    if (wait_was_fired(node))
        wait_forget(node);
    bool open = !(slot->flags & SLOT_DOOMED), waits = wait_is_waiting(node);
    bool enters = open && channel->ready && !waits;
    bool goes_on_waiting = open && !channel->ready && waits && waker_same(&node->waker, waker);
    if (enters)
        enter_call(call, slot, channel);
    lock_release(&slot->lock);
    return enters ? ROUSE_OK : goes_on_waiting ? ROUSE_PENDING : begin_waiting(call, handle, direction, node, waker);
}

/* Under the lock, which it releases: the last call has left a closed slot. */
static void finish_close(struct slot *slot)
{
    os_handle handle = slot->source.handle;
    const rouse_stream_type *user = slot->traits & SLOT_USER ? slot->u.user : NULL;
    void *object = slot->source.record;
    bool keep = (slot->flags & SLOT_KEEP) != 0;
    lock_release(&slot->lock);
    registry_give(slot);
    if (user) {
        if (user->close)
            user->close(object);
    } else if (!keep) {
        exhaustion_close(handle);
    }
}

int waker_map_end(struct slot_call *call, enum call_outcome outcome, struct wait_node *node, const rouse_waker *waker)
{
    struct slot *slot = call->slot;
    struct channel *channel = call->channel;
    struct wait_batch batch;
    struct reactor *reactor = NULL;
    rouse_waker spare = {NULL, NULL};
    int status = ROUSE_OK, unreachable = ROUSE_OK;
    wait_batch_init(&batch);
    if (outcome == CALL_BLOCKED) {
        spare = rouse_waker_clone(waker);
        unreachable = local_reactor(&reactor);
    }
    slot_lock(slot);
    if (slot->users > 0) /* 0: a user's function has forked, and this is the child */
        slot->users--;
    if (slot->flags & SLOT_CLOSING) {
        if (slot->users == 0)
            finish_close(slot);
        else
            lock_release(&slot->lock);
        rouse_waker_drop(&spare);
        return outcome == CALL_BLOCKED ? ROUSE_CLOSED : ROUSE_OK;
    }
    bool cleared = outcome != CALL_PROGRESS && channel->tick == call->tick &&
                   !(slot->flags & SLOT_URGENT && outcome == CALL_DRAINED);
    if (cleared)
        channel->ready = false;
    if (outcome == CALL_BLOCKED && slot->flags & SLOT_DOOMED)
        status = ROUSE_CLOSED;
    else if (outcome == CALL_BLOCKED && !channel->ready)
        status = !spare.table              ? ROUSE_LIMIT
                 : unreachable != ROUSE_OK ? unreachable
                                           : insert(slot, channel, node, &spare, reactor);
    else if (channel->ready)
        wait_fire_first(&channel->waiters, &batch); /* hand on what this call leaves behind */
    if (status != ROUSE_PENDING && cleared)
        waker_map_rearm(slot, &batch); /* of a drained channel: the others who wait for it */
    uintptr_t handle = registry_handle(slot);
    lock_release(&slot->lock);
    if (status == ROUSE_ALREADY_EXISTS)
        status = remove_leftover(handle, reactor);
    while (batch.count > 0) {
        bool more = wait_batch_is_full(&batch); /* arming has failed for many */
        wait_batch_wake(&batch);
        slot = more ? registry_acquire(handle) : NULL;
        if (slot) {
            waker_map_rearm(slot, &batch);
            lock_release(&slot->lock);
        }
    }
    if (spare.table)
        rouse_waker_drop(&spare);
    return status;
}

void waker_map_cancel(uintptr_t handle, unsigned direction, struct wait_node *node)
{
    rouse_waker waker = {NULL, NULL};
    struct wait_batch batch;
    struct slot *slot = registry_acquire(handle);
    wait_batch_init(&batch);
    if (slot) {
        struct channel *channel = channel_of(slot, direction);
        if (wait_is_waiting(node))
            waker = wait_remove(node);
        else if (wait_was_fired(node) && channel->ready)
            wait_fire_first(&channel->waiters, &batch);
        wait_forget(node);
        lock_release(&slot->lock);
    } else {
        wait_forget(node); /* closing fired it before the handle died */
    }
    rouse_waker_drop(&waker);
    wait_batch_wake(&batch);
}

/* Fires waiters of one channel until none is left, or one was, or the batch is full. */
static void fire_channel(struct channel *channel, bool all, struct wait_batch *batch)
{
    while (!wait_batch_is_full(batch) && wait_fire_first(&channel->waiters, batch) && all) {}
}

void waker_map_fire(struct slot *slot, unsigned channels, struct wait_batch *batch)
{
    bool all = channels & BACKEND_HANGUP || slot->traits & SLOT_BROADCAST;
    if (channels & BACKEND_READ)
        fire_channel(&slot->read, all, batch);
    if (channels & BACKEND_WRITE)
        fire_channel(&slot->write, all, batch);
}

/* Those who go on waiting try again if that fails, and learn why when they come to wait. */
void waker_map_rearm(struct slot *slot, struct wait_batch *batch)
{
    unsigned channels = to_arm(slot);
    if (channels && slot->reactor && backend_arm(slot->reactor->backend, &slot->source, channels) != ROUSE_OK)
        waker_map_fire(slot, BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP, batch);
}

static void set_ready(struct channel *channel)
{
    channel->ready = true;
    channel->tick++;
}

void waker_map_rouse(uintptr_t handle)
{
    struct wait_batch batch;
    bool first = true, more = true;
    wait_batch_init(&batch);
    while (more) {
        struct slot *slot = registry_acquire(handle);
        if (!slot)
            break;
        if (first)
            set_ready(&slot->read);
        first = false;
        fire_channel(&slot->read, true, &batch);
        more = wait_batch_is_full(&batch);
        lock_release(&slot->lock);
        wait_batch_wake(&batch);
    }
}

bool waker_map_dispatch(struct reactor *reactor, uint64_t token, unsigned channels)
{
    struct wait_batch batch;
    bool found = false, more = true;
    wait_batch_init(&batch);
    while (more) {
        struct slot *slot = registry_acquire((uintptr_t)token);
        if (!slot)
            break;
        more = slot->reactor == reactor;
        if (more) {
            if (!found && channels & BACKEND_READ)
                set_ready(&slot->read);
            if (!found && channels & BACKEND_WRITE)
                set_ready(&slot->write);
            if (channels & BACKEND_URGENT)
                slot->flags |= SLOT_URGENT;
            found = true;
            waker_map_fire(slot, channels, &batch);
            waker_map_rearm(slot, &batch);
            more = wait_batch_is_full(&batch);
        }
        lock_release(&slot->lock);
        wait_batch_wake(&batch);
    }
    return found;
}

void waker_map_detach(struct slot *slot, bool closing)
{
    if (!slot->reactor)
        return;
    bool private = !(slot->flags & SLOT_SHARED) && slot->forks == os_forks();
    if (!reactor_is_forked(slot->reactor)) /* else the set is the parent's, who goes on waiting */
        backend_detach(slot->reactor->backend, &slot->source, closing && private);
    slot->reactor = NULL;
}

int waker_map_close(uintptr_t handle, os_handle *kept)
{
    struct wait_batch batch;
    struct slot *slot = registry_acquire(handle);
    wait_batch_init(&batch);
    if (!slot)
        return ROUSE_CLOSED;
    if (slot->flags & SLOT_DOOMED || (kept && (slot->users > 0 || slot->traits & SLOT_USER))) {
        int status = slot->flags & SLOT_DOOMED ? ROUSE_CLOSED : slot->users ? ROUSE_BUSY : ROUSE_NOT_SUPPORTED;
        lock_release(&slot->lock);
        return status;
    }
    slot->flags |= SLOT_DOOMED;
    /* The handle dies only when nobody waits any more: until then a canceller must find its node's list. */
    while (wanted(slot)) {
        waker_map_fire(slot, BACKEND_READ | BACKEND_WRITE | BACKEND_HANGUP, &batch);
        lock_release(&slot->lock);
        wait_batch_wake(&batch);
        slot_lock(slot);
    }
    waker_map_detach(slot, kept == NULL);
    registry_retire(slot);
    if (kept) {
        *kept = slot->source.handle;
        slot->flags |= SLOT_KEEP;
    }
    if (slot->users == 0)
        finish_close(slot);
    else
        lock_release(&slot->lock);
    return ROUSE_OK;
}
