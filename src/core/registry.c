#include "core/registry.h"
#include "core/fork_order.h"

/* Two million slots, more than a process may have descriptors. At 32 bits the address space would not hold as many streams
 * with what belongs to them: a quarter of a million, so that the generation has 14 bits, and a handle comes back after its
 * slot, which rests in line with 255 others at least, was used 16,384 times. */
#if UINTPTR_MAX > UINT32_MAX
#define INDEX_BITS 21
#else
#define INDEX_BITS 18
#endif
#define INDEX_MASK  (((uintptr_t)1 << INDEX_BITS) - 1)
#define CHUNK_SLOTS 256u
#define CHUNKS      ((1u << INDEX_BITS) / CHUNK_SLOTS - 1) /* no slot has the index INDEX_MASK: no handle is UINTPTR_MAX */

static struct {
    struct lock lock;           /* growth and the free list */
    atomic_ptr chunks[CHUNKS];  /* arrays of slots; set once, RELEASE, read with ACQUIRE */
    atomic_u32 count;           /* chunks that exist */
    struct slot *free;          /* slots that hold nothing: the one that has rested longest */
    struct slot *last;          /* and the one given back last, if there is any */
    size_t taken;               /* slots that hold something */
    uintptr_t first_generation; /* of slots in new chunks: ahead of every handle given out before a trim */
    bool trims_at_exit;         /* registry_trim is registered with the system */
} registry = {.first_generation = 1};

/* The same slot, one generation later. 0 is left out, so that no handle is NULL. */
static uintptr_t successor(uintptr_t handle)
{
    handle += INDEX_MASK + 1;
    return handle > INDEX_MASK ? handle : handle + INDEX_MASK + 1;
}

static struct slot *slot_at(uint32_t index)
{
    struct slot *chunk = atomic_ptr_load(&registry.chunks[index / CHUNK_SLOTS], ACQUIRE);
    return chunk ? &chunk[index % CHUNK_SLOTS] : NULL;
}

/* Under the lock. */
static void put_last(struct slot *slot)
{
    slot->u.next_free = NULL;
    if (registry.free)
        registry.last->u.next_free = slot;
    else
        registry.free = slot;
    registry.last = slot;
}

static bool grow(void)
{
    uint32_t count = atomic_u32_load(&registry.count, RELAXED);
    if (count == CHUNKS)
        return false;
    struct slot *chunk = os_alloc(CHUNK_SLOTS * sizeof *chunk, 64);
    if (!chunk)
        return false;
    for (uint32_t i = 0; i < CHUNK_SLOTS; i++) {
        uintptr_t index = (uintptr_t)count * CHUNK_SLOTS + i;
        chunk[i] = (struct slot){.handle = registry.first_generation << INDEX_BITS | index, .flags = SLOT_CLOSING};
        put_last(&chunk[i]);
    }
    atomic_ptr_store(&registry.chunks[count], chunk, RELEASE); /* pairs with ACQUIRE in slot_at */
    atomic_u32_store(&registry.count, count + 1, RELEASE);     /* pairs with ACQUIRE in registry_walk */
    if (!registry.trims_at_exit)
        registry.trims_at_exit = os_at_exit(registry_trim) == ROUSE_OK;
    return true;
}

static void channel_init(struct channel *channel)
{
    list_init(&channel->waiters);
    channel->ready = true; /* the first call finds out */
}

/* ---- forks ---- */

atomic_u32 registry_rests;

/* The lock was taken while the slots rest: it is given back, nothing has been changed. */
void slot_lock_later(struct slot *slot)
{
    do {
        lock_release(&slot->lock);
        while (atomic_u32_load(&registry_rests, ACQUIRE)) /* pairs with RELEASE in go_on */
            os_wait_on(atomic_u32_word(&registry_rests), 1, ROUSE_NEVER);
        lock_acquire(&slot->lock);
    } while (atomic_u32_load(&registry_rests, RELAXED));
}

/* Each lock is held for a moment only, not all of them until the fork is over: giving them back would, in both processes,
 * copy all the memory that they lie in. Whoever takes one of them later sees that the slots rest. */
static void rest(void)
{
    lock_acquire(&registry.lock); /* nothing grows or is trimmed */
    atomic_u32_store(&registry_rests, 1, RELAXED);
    uint32_t count = atomic_u32_load(&registry.count, RELAXED) * CHUNK_SLOTS;
    for (uint32_t i = 0; i < count; i++) {
        struct slot *slot = slot_at(i);
        lock_acquire(&slot->lock);
        lock_release(&slot->lock);
    }
}

/* In a child: what its other threads had in their hands. A lock was taken by one that then saw that the slots rest; calls
 * would keep a descriptor open for ever after its close. */
static void forget_threads(void)
{
    uint32_t count = atomic_u32_load(&registry.count, RELAXED) * CHUNK_SLOTS;
    for (uint32_t i = 0; i < count; i++) {
        struct slot *slot = slot_at(i);
        if (atomic_u32_load(&slot->lock.word, RELAXED) != LOCK_FREE)
            atomic_u32_store(&slot->lock.word, LOCK_FREE, RELAXED);
        if (slot->users > 0)
            slot->users = 0;
    }
}

static void go_on(bool in_child)
{
    if (in_child)
        forget_threads();
    atomic_u32_store(&registry_rests, 0, RELEASE); /* pairs with ACQUIRE in slot_lock_later */
    os_wake_all(atomic_u32_word(&registry_rests));
    lock_release(&registry.lock);
}

OS_WHEN_LOADED(watch_forks)
{
    static const struct os_fork_hook hook = {rest, go_on};
    os_at_fork(FORK_REGISTRY, &hook);
}

struct slot *registry_take(void)
{
    lock_acquire(&registry.lock);
    struct slot *slot = registry.free || grow() ? registry.free : NULL;
    if (slot) {
        registry.free = slot->u.next_free;
        registry.taken++;
    }
    lock_release(&registry.lock);
    if (!slot)
        return NULL;
    /* A late event or an old handle may be looking at the slot: what it looks at changes under the lock. */
    slot_lock(slot);
    slot->source = (struct backend_source){OS_NO_HANDLE, NULL};
    slot->reactor = NULL;
    slot->site = NULL;
    slot->u.user = NULL;
    slot->users = 0;
    slot->forks = os_forks();
    slot->kind = OS_KIND_OTHER;
    slot->traits = 0;
    slot->flags = SLOT_CLOSING; /* found by nobody before it is published */
    channel_init(&slot->read);
    channel_init(&slot->write);
    lock_release(&slot->lock);
    return slot;
}

uintptr_t registry_handle(const struct slot *slot)
{
    return slot->handle;
}

uintptr_t registry_publish(struct slot *slot)
{
    slot_lock(slot);
    slot->flags &= (uint8_t)~SLOT_CLOSING;
    uintptr_t handle = slot->handle;
    lock_release(&slot->lock);
    return handle;
}

struct slot *registry_acquire(uintptr_t handle)
{
    uintptr_t index = handle & INDEX_MASK;
    struct slot *slot = index < (uintptr_t)CHUNKS * CHUNK_SLOTS ? slot_at((uint32_t)index) : NULL;
    if (!slot)
        return NULL;
    slot_lock(slot);
    if (slot->handle == handle && !(slot->flags & SLOT_CLOSING))
        return slot;
    lock_release(&slot->lock);
    return NULL;
}

void registry_retire(struct slot *slot)
{
    slot->flags |= SLOT_CLOSING;
    slot->handle = successor(slot->handle);
}

void registry_give(struct slot *slot)
{
    lock_acquire(&registry.lock);
    put_last(slot);
    registry.taken--;
    lock_release(&registry.lock);
}

void registry_walk(void (*visit)(struct slot *slot, uintptr_t handle, void *context), void *context)
{
    uint32_t count = atomic_u32_load(&registry.count, ACQUIRE); /* pairs with RELEASE in grow */
    for (uint32_t i = 0; i < count * CHUNK_SLOTS; i++) {
        struct slot *slot = slot_at(i);
        slot_lock(slot);
        if (slot->flags & SLOT_CLOSING)
            lock_release(&slot->lock);
        else
            visit(slot, slot->handle, context);
    }
}

void registry_trim(void)
{
    lock_acquire(&registry.lock);
    uint32_t count = atomic_u32_load(&registry.count, RELAXED);
    uintptr_t newest = 0;
    if (registry.taken == 0 && count > 0) {
        for (uint32_t i = 0; i < count; i++) {
            struct slot *chunk = atomic_ptr_load(&registry.chunks[i], RELAXED);
            for (uint32_t k = 0; k < CHUNK_SLOTS; k++)
                if (chunk[k].handle > newest)
                    newest = chunk[k].handle;
            atomic_ptr_store(&registry.chunks[i], NULL, RELEASE);
            os_free(chunk);
        }
        registry.free = NULL;
        registry.first_generation = successor(newest) >> INDEX_BITS;
        atomic_u32_store(&registry.count, 0, RELEASE);
    }
    lock_release(&registry.lock);
}
