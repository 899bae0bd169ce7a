/* The contract of a polling backend: nine functions, two structs. One folder under src/backend implements them and is
 * linked; there is no table of function pointers (alternatives: such a table, which did not save others from writing
 * everything four times, and an #ifdef in the reactor, which mixes four systems in one file).
 *
 * A backend translates. It never schedules, keeps time, owns a thread or calls back. A *source* is a handle known under a
 * token; it has a read and a write channel. Attaching, arming and detaching happen under the lock of the source's
 * registry slot, from any thread; waiting only by the holder of the reactor's lock; waking from anywhere.
 * No source has the token UINT64_MAX.
 *
 *   open     makes the kernel object and the wake-up path; leaves nothing half made on failure.
 *   close    releases everything; waits until nothing is lent to the kernel.
 *   attach   starts tracking; refuses a handle that cannot be polled (NOT_POLLABLE). No event is owed before it is armed.
 *            ALREADY_EXISTS if the handle is tracked already, under whatever token: for another source that has it too, or
 *            because it was closed behind the caller's back while a copy lived on. Detaching this source ends that.
 *   arm      the first moment from now on at which one of the channels is or becomes ready yields an event, which may end
 *            the arming of all channels: the caller then arms again what is still waited for. The channels are all that
 *            is waited for, not only what is new. Nothing to do where the kernel reports edges; events that nobody
 *            armed are allowed.
 *   detach   stops tracking; answers BACKEND_DONE, or BACKEND_LATER when one more event, marked retired, will come for
 *            the token, because the kernel still has memory of the backend's. The caller may forget the source and close
 *            the handle in either case; closing it then takes effect at once, also while a thread waits. `closing` says
 *            that the handle is closed next and was never shared, so that the kernel's own removal is enough. Errors
 *            of the kernel are of no interest: the source is forgotten.
 *   wait     blocks until something happens, backend_wake, or the deadline, at most 30 minutes. May return 0 early.
 *            Interrupted: 0. A deadline in the past does not block. Rounds up, never down.
 *   wake     the current or the next wait returns. Never blocks. The caller suppresses duplicates.
 *   handle   what a foreign loop waits for: readable while a wait would find something. Any thread. The same each time,
 *            through renewals as well, however the loop registered it. NOT_SUPPORTED where there is none; else as open.
 *   renew    forgets every source at once, those included that can no longer be named because their handle was closed
 *            while a copy of it lives on; the wake-up path and the handle stay. The caller attaches its sources again.
 *            By the holder of the reactor's lock, between waits. NOT_SUPPORTED where closing a handle always ends its
 *            events.
 *
 * Errors and hang-ups fire both channels: the operation repeats its system call and learns the exact error there. */
#ifndef ROUSE_BACKEND_H
#define ROUSE_BACKEND_H

#include "os/os.h"

/* Channels of a source, and what else an event may say about it. */
enum backend_channel {
    BACKEND_READ = 1,   /* reading would not block */
    BACKEND_WRITE = 2,  /* writing would not block */
    BACKEND_HANGUP = 4, /* an end or error for good: every waiter of the channels that fired wants to know */
    BACKEND_URGENT = 8  /* urgent data or the peer's end was seen: from now on short counts do not prove that the
                           * source is drained. With the end, this is not a hang-up: writing may go on */
};

enum backend_event_kind {
    BACKEND_READY = 0,   /* `channels` of `token` became ready; no channels: ask again */
    BACKEND_RETIRED = 1, /* the last word about a token that was detached LATER */
    BACKEND_PACKET = 2   /* the kernel is done with a record inside an operation: `token` is its address (packet.h) */
};

struct backend_event {
    uint64_t token;    /* as given to attach */
    uint32_t channels; /* enum backend_channel */
    enum backend_event_kind kind;
};

/* The backend's part of a registry slot. */
struct backend_source {
    os_handle handle; /* what to track */
    void *record;     /* of the backend, while attached; NULL before */
};

enum { BACKEND_DONE = 0, BACKEND_LATER = 1 };

struct backend;

int backend_open(struct backend **backend, const rouse_allocator *allocator);
void backend_close(struct backend *backend);
int backend_attach(struct backend *backend, struct backend_source *source, uint64_t token);
int backend_arm(struct backend *backend, struct backend_source *source, unsigned channels);
int backend_detach(struct backend *backend, struct backend_source *source, bool closing);
int backend_wait(struct backend *backend, struct backend_event *events, int limit, int64_t deadline_ns);
void backend_wake(struct backend *backend);
int backend_handle(struct backend *backend, os_handle *handle);
int backend_renew(struct backend *backend);

#endif
