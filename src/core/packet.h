/* A packet: an operation that the kernel has in its hands, with memory of the caller's, until it tells of its end in an
 * event of kind PACKET. It is part of the operation (op.h) that started it.
 *
 * What waits for readiness can be forgotten at any moment. A packet cannot: to cancel it is a request, and until its event
 * has come the kernel may write to the record and to the buffer. So the operation's cancel answers LATER, and the packet
 * keeps its waker. That alone holds a task's memory, its state with the operation and buffers inside it, also if the task
 * is dropped meanwhile; a fiber does not come back from its wait before the event. And the reactor does not end before it.
 *
 * Alternative that lost: records and buffers of the library's own, which a cancelled operation leaves behind; each read
 * and write would copy, and allocate below poll. */
#ifndef ROUSE_CORE_PACKET_H
#define ROUSE_CORE_PACKET_H

#include "core/reactor.h"

struct packet {
    uint64_t record[4]; /* the kernel's; first, for its address is the event's token. Zero when it is handed over */
    struct lock lock;   /* the two below: the event comes on another thread */
    bool in_flight;     /* begun, and the event has not come */
    rouse_waker waker;  /* who waits; while in flight */
};

/* Before the call that hands it to the kernel: the event may come at once. LIMIT if the waker cannot be cloned. */
int packet_begin(struct packet *packet, struct reactor *reactor, const rouse_waker *waker);

/* After that call has failed: there will be no event. */
void packet_refused(struct packet *packet, struct reactor *reactor);

/* PENDING, with this waker in place of the one before, or OK: the event has come, and the record has the result. A waker
 * that cannot be cloned leaves the one before. */
int packet_poll(struct packet *packet, const rouse_waker *waker);

/* For an operation's cancel, after the kernel was asked to end it: ROUSE_OP_LATER, or ROUSE_OP_IDLE if the event has come. */
int packet_state(struct packet *packet);

/* The reactor's: the event has come. */
void packet_complete(struct packet *packet, struct reactor *reactor);

#endif
