/* A hierarchical timer wheel: adding and removing take constant time, and time may stand still or jump by years.
 *
 * Time is cut into ticks of 2^16 ns. Level 0 has a slot for each of the 64 ticks of the current group, level 1 one
 * for each of the 64 groups around it, and so on; eight levels cover every int64_t. A node lies on the lowest level
 * on which its tick and the wheel's differ, and moves down at most once a level as its time comes near. Slots say
 * roughly when, the nodes keep their exact deadlines: nothing expires early, and the wait can be exact.
 *
 * Order: nodes expire in the order of their ticks; inside one tick in the order of adding.
 *
 * Not locked: its owner brings the lock. The wheel never allocates and never fails.
 *
 * Alternatives that lost: heaps (the first pop of a pairing heap takes 17 ms at 10^6 timers, a 4-ary heap several times
 * the wheel's time for add and remove, and both touch strangers' cache lines); sorted trees (likewise); a wheel of one
 * level (far timers are visited again in every round); finer slots (more levels to fall through; the exact deadlines
 * make them pointless). */
#ifndef ROUSE_CORE_WHEEL_H
#define ROUSE_CORE_WHEEL_H

#include "core/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WHEEL_TICK_BITS = 16,                                     /* a tick is 2^16 ns, 65.5 µs */
    WHEEL_LEVEL_BITS = 6,                                     /* a bitmap of one level is one word */
    WHEEL_SLOTS = 1 << WHEEL_LEVEL_BITS,                      /* slots a level */
    WHEEL_LEVELS = (64 - WHEEL_TICK_BITS) / WHEEL_LEVEL_BITS, /* enough for all of int64_t */
};

struct wheel_node {
    struct list_node link; /* in a slot, in the wheel's opened list, or in the caller's list of the expired */
    int64_t deadline_ns;   /* set by the owner before adding, not changed until removed or expired */
};

struct wheel_slot {
    struct list_node nodes; /* in the order of adding */
    int64_t earliest_ns;    /* no node of the slot has an earlier deadline; removals may leave it too early. Meaningless
                               when the slot is empty */
};

struct wheel {
    uint64_t tick;                                      /* the present: no slot of an earlier tick holds anything */
    uint64_t occupied[WHEEL_LEVELS];                    /* bit i: slot i of the level is not empty */
    struct list_node opened;                            /* nodes taken out of a slot whose time has come, to be sorted
                                                          into expired ones and others; outlives wheel_expire only when
                                                          that stopped at its limit */
    struct wheel_slot slots[WHEEL_LEVELS][WHEEL_SLOTS]; /* the nodes */
};

void wheel_init(struct wheel *wheel, int64_t now_ns);

/* Any deadline is good; one that has passed expires in the next wheel_expire. */
void wheel_add(struct wheel *wheel, struct wheel_node *node);

/* Takes a linked node out. Also right for a node that wheel_expire has moved to its caller's list. */
void wheel_remove(struct wheel *wheel, struct wheel_node *node);

bool wheel_is_empty(const struct wheel *wheel);

/* When wheel_expire must be called at the latest; ROUSE_NEVER if the wheel is empty. Never later than the earliest
 * deadline; too early by at most one useless call for each slot, after removals. */
int64_t wheel_next(const struct wheel *wheel);

/* Moves nodes whose deadline is not after now_ns to the end of `expired` and answers how many. It looks at no more than
 * `limit` nodes, those that only move to a lower level included, so that one call takes bounded time; if work is left,
 * wheel_next answers a time in the past. */
size_t wheel_expire(struct wheel *wheel, int64_t now_ns, struct list_node *expired, size_t limit);

#endif
