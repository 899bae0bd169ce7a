#include "core/packet.h"

#include <string.h>

int packet_begin(struct packet *packet, struct reactor *reactor, const rouse_waker *waker)
{
    rouse_waker kept = rouse_waker_clone(waker);
    if (!kept.table)
        return ROUSE_LIMIT;
    memset(packet->record, 0, sizeof packet->record);
    packet->waker = kept;
    packet->in_flight = true;                       /* the kernel's call orders this before the event */
    atomic_size_add(&reactor->packets, 1, RELAXED); /* read when nobody begins one any more: reactor_fini */
    return ROUSE_OK;
}

void packet_refused(struct packet *packet, struct reactor *reactor)
{
    packet->in_flight = false;
    atomic_size_sub(&reactor->packets, 1, RELAXED);
    rouse_waker_drop(&packet->waker);
}

int packet_poll(struct packet *packet, const rouse_waker *waker)
{
    lock_acquire(&packet->lock);
    bool same = waker_same(&packet->waker, waker), in_flight = packet->in_flight;
    lock_release(&packet->lock);
    if (!in_flight)
        return ROUSE_OK;
    if (same)
        return ROUSE_PENDING;
    rouse_waker other = rouse_waker_clone(waker); /* may run anything: with no lock held */
    lock_acquire(&packet->lock);
    in_flight = packet->in_flight;
    if (in_flight && other.table) {
        rouse_waker before = packet->waker;
        packet->waker = other;
        other = before;
    }
    lock_release(&packet->lock);
    rouse_waker_drop(&other);
    return in_flight ? ROUSE_PENDING : ROUSE_OK;
}

int packet_state(struct packet *packet)
{
    lock_acquire(&packet->lock);
    bool in_flight = packet->in_flight;
    lock_release(&packet->lock);
    return in_flight ? ROUSE_OP_LATER : ROUSE_OP_IDLE;
}

void packet_complete(struct packet *packet, struct reactor *reactor)
{
    lock_acquire(&packet->lock);
    rouse_waker waker = packet->waker;
    packet->waker = (rouse_waker){NULL, NULL};
    packet->in_flight = false;
    lock_release(&packet->lock);
    /* From here on the packet may be gone. RELAXED: whoever ends the reactor makes this turn, or has joined the thread that did. */
    atomic_size_sub(&reactor->packets, 1, RELAXED);
    rouse_waker_wake(&waker);
}
