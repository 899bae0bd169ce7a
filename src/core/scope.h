/* Scopes from the inside: who belongs to one, and how its end is reached. Opening, closing and spawning stand with the
 * fibers; what a completing task needs stands here. */
#ifndef ROUSE_CORE_SCOPE_H
#define ROUSE_CORE_SCOPE_H

#include "core/surroundings.h"
#include "core/wait.h"

struct scope {
    struct lock lock;           /* everything below but what the owner alone uses */
    bool cancelled;             /* no new children; every child was or is being cancelled */
    int first_error;            /* of a child; OK: none yet */
    uint32_t process;           /* os_process() when it was opened: in a child its lock may be held for ever. Fixed */
    size_t children;            /* on the list */
    size_t cancels;             /* calls of scope_cancel that are inside: closing waits for them too */
    struct list_node list;      /* origins of the children */
    struct wait_node closer;    /* the owner while it waits in close, on `closers` */
    struct list_node closers;   /* empty or the owner */
    atomic_i64 limit_ns;        /* when shields of cancelled children end; RELAXED: the cancel's wake orders it */
    struct scope *parent;       /* owner: the scope that was innermost before */
    struct surroundings *owner; /* the fiber that opened it; NULL once closed. Written under the lock */
};
_Static_assert(sizeof(struct scope) <= sizeof(rouse_scope), "fits the public struct");
_Static_assert(_Alignof(struct scope) <= _Alignof(rouse_scope), "is as aligned");

static inline int64_t scope_limit(const struct scope *scope)
{
    return atomic_i64_load(&scope->limit_ns, RELAXED);
}

void scope_init(struct scope *scope, struct surroundings *owner);

/* Enters a child before it can run. CANCELLED if the scope takes no more. */
int scope_add(struct scope *scope, struct origin *child);

/* Undoes scope_add for a child that could not be started. */
void scope_remove(struct origin *child);

/* A child has completed; the last thing that is done with the scope on its behalf. */
void scope_child_ended(struct origin *child, int value);

/* Cancels all children; their shields end at limit_ns at the latest. INVALID if it is closed. */
int scope_cancel(struct scope *scope, int64_t limit_ns);

/* The operation of rouse_scope_close: done, and the scope closed, when no child is left. */
ptrdiff_t scope_poll_empty(struct scope *scope, const rouse_waker *waker);

#endif
