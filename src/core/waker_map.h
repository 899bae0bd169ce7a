/* The waker map: who waits for which direction of a source, and what is known about its readiness. It lives in the slot, so
 * that registering, waiting and waking are one critical section; an event between two sections would wake nobody and
 * never come again.
 *
 * Rules, found by enumerating every interleaving of kernel, reader and canceller (57 states, none of which loses a wake):
 * an event always sets `ready` and advances the tick, waiter or not; waiting never clears it; only a call that met "would
 * block", or a short count that can be trusted, clears it, and only if the tick is the one it captured before its system
 * call. One waiter is woken; whoever leaves the woken state while ready is still set (success, cancel or error) wakes the
 * next. Hang-ups, errors and closing wake everybody.
 *
 * Alternatives that lost: handing an event to the waiter, or else to a latch (loses a wake once a read can be skipped and
 * a waiter cancelled); waking all waiters each time (a herd for every connection). */
#ifndef ROUSE_CORE_WAKER_MAP_H
#define ROUSE_CORE_WAKER_MAP_H

#include "core/reactor.h"

/* A call on a slot, between waker_map_begin and waker_map_end. */
struct slot_call {
    struct slot *slot;
    struct channel *channel;
    uint32_t tick; /* of the channel, captured before the system call */
};

/* What a call on a slot found out. */
enum call_outcome {
    CALL_PROGRESS, /* it moved something, or failed: readiness is as it was */
    CALL_DRAINED,  /* it moved something and the short count proves that nothing is left */
    CALL_BLOCKED   /* it would have blocked */
};

/* Enters a call in one direction. Answers OK with slot->users counted and no lock held; PENDING if the source is known not
 * to be ready and the node was put on the list instead (the waker is cloned); CLOSED, LIMIT, or why it cannot be attached. */
int waker_map_begin(struct slot_call *call, uintptr_t handle, unsigned channel, struct wait_node *node,
                    const rouse_waker *waker);

/* Leaves it. Answers OK, or, for CALL_BLOCKED: PENDING once the node is on the list; OK means try again. CLOSED if the
 * source was closed meanwhile. */
int waker_map_end(struct slot_call *call, enum call_outcome outcome, struct wait_node *node, const rouse_waker *waker);

/* Takes a waiting or fired node of this handle back; hands the wake on if it had been fired. No lock held. */
void waker_map_cancel(uintptr_t handle, unsigned channel, struct wait_node *node);

/* The reactor's part: an event for a token. False if no open slot of this reactor has it. */
bool waker_map_dispatch(struct reactor *reactor, uint64_t token, unsigned channels);

/* As if an event had come for reading: wakes everybody who waits for it. */
void waker_map_rouse(uintptr_t handle);

/* Closes a handle: wakes everybody, detaches, and gives the descriptor to the system, or back through *kept if it is not
 * NULL. CLOSED; only when kept is wanted: BUSY while another call is inside, NOT_SUPPORTED for a user's stream. */
int waker_map_close(uintptr_t handle, os_handle *kept);

/* Under the slot's lock. Channels are enum backend_channel; at most one batch is taken. */
void waker_map_fire(struct slot *slot, unsigned channels, struct wait_batch *batch);
/* Arms what somebody waits for and is not ready: after an event, which disarms the whole source where events come once, and
 * when a channel is not ready any more. */
void waker_map_rearm(struct slot *slot, struct wait_batch *batch);
void waker_map_detach(struct slot *slot, bool closing);

#endif
