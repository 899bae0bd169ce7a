/* The registry: generation-checked slots of sources. A token goes in, a slot or nothing comes out.
 *
 * One table for the process: a stream exists before any reactor knows it, and may be waited for from any runtime. A handle
 * (rouse_stream *, rouse_listener *, the token of the backend) is an index with a generation, never an address; closing
 * advances the generation, so that old handles and late events find nothing. Slots are type-stable memory. Free ones rest
 * in line, so that a generation, which has all the bits that the index leaves, comes back as late as it can.
 *
 * Alternatives that lost: handles that are addresses (a use after close is then a use after free, the oldest complaint
 * about this kind of library); the descriptor number as the identity (a number that is closed and reused inherits the
 * events of its predecessor); a table per runtime (a stream accepted here could not be waited for there). */
#ifndef ROUSE_CORE_REGISTRY_H
#define ROUSE_CORE_REGISTRY_H

#include "backend/backend.h"
#include "core/list.h"
#include "core/lock.h"
#include "core/wait.h"
#include "os/atomic.h"

struct reactor;

/* What a slot is, fixed while it is open: read by whoever is inside a call on it. */
enum slot_trait {
    SLOT_USER = 1,     /* a stream that the user made: u.user, no descriptor */
    SLOT_LISTENER = 2, /* accepts; does not read or write */
    SLOT_NO_DELAY = 4, /* listener: accepted connections get the option */
    SLOT_BROADCAST = 8 /* every event concerns every waiter */
};

/* What happens to a slot: under its lock. */
enum slot_flag {
    SLOT_CLOSING = 1,    /* closed; only calls that were inside when it was still use it */
    SLOT_SHARED = 2,     /* the descriptor was adopted or handed out: others may hold its description open */
    SLOT_URGENT = 4,     /* urgent data was seen: short counts prove nothing any more */
    SLOT_KEEP = 8,       /* the descriptor is somebody else's, do not close it */
    SLOT_DOOMED = 16,    /* being closed: calls are refused, waiters are being woken, the handle still finds the slot */
    SLOT_CONNECTING = 32 /* a connection was being made when the slot was: the first call that writes waits */
};

/* The waker map's part of one direction of a slot. */
struct channel {
    struct list_node waiters; /* wait nodes, first come first served */
    uint32_t tick;            /* advances with every event; a reader that saw an older tick must not clear `ready` */
    bool ready;               /* set by every event, cleared only after the kernel said "would block" or a trusted
                                 short count, and only if the tick stood still meanwhile */
};

struct slot {
    struct lock lock;             /* everything below, but for what `users` allows */
    uint32_t forks;               /* os_forks() when the slot was taken */
    uintptr_t handle;             /* the current or next one */
    struct backend_source source; /* the descriptor, and the backend's record of it */
    struct reactor *reactor;      /* attached here; NULL: not attached yet */
    struct channel read;          /* and accept */
    struct channel write;         /* and connect */
    const char *site;             /* where it was made; may be NULL */
    union {
        const rouse_stream_type *user; /* SLOT_USER: its functions; source.record is the object */
        struct slot *next_free;        /* on the free list */
    } u;
    uint16_t users; /* calls now inside a system call, or a user's function, on it: the last one out after a close
                         finishes the close */
    uint8_t traits; /* enum slot_trait */
    uint8_t flags;  /* enum slot_flag */
    uint8_t kind;   /* enum os_kind */
};

/* 1 while some thread forks: the slots rest, so that the child finds each as it was between two changes. */
extern atomic_u32 registry_rests;

void slot_lock_later(struct slot *slot);

/* The only way to take a slot's lock. RELAXED: the lock that is held was held by the forking thread since it wrote. */
static inline void slot_lock(struct slot *slot)
{
    lock_acquire(&slot->lock);
    if (atomic_u32_load(&registry_rests, RELAXED))
        slot_lock_later(slot);
}

/* A free slot, not yet visible: not locked, users 0, ready in both directions. NULL without memory. */
struct slot *registry_take(void);

/* The handle of a slot whose fields are filled; from now on others find it. */
uintptr_t registry_publish(struct slot *slot);

/* The handle of an open slot. Under its lock. */
uintptr_t registry_handle(const struct slot *slot);

/* The slot of a handle, locked, or NULL for a handle that is closed or never was. */
struct slot *registry_acquire(uintptr_t handle);

/* Under the slot's lock: old handles find nothing from now on. */
void registry_retire(struct slot *slot);

/* Puts a retired slot, that nobody uses, back. Not locked. */
void registry_give(struct slot *slot);

/* Calls visit for each slot that is open, locked; visit unlocks it. */
void registry_walk(void (*visit)(struct slot *slot, uintptr_t handle, void *context), void *context);

/* Frees the table if nothing is open: at the end of the process or when a test counts what is left. */
void registry_trim(void);

#endif
