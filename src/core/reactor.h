/* The reactor: waits for the kernel and for timers, and wakes the tasks concerned. It knows wakers, never executors.
 *
 * It has no thread. Whoever holds `turn` may wait in it or sweep it; the lock is only ever tried, but for a dedicated poller,
 * who keeps it. The wheel has a lock of its own, so that any thread arms and stops timers meanwhile; arming one that is
 * earlier than the wait in progress wakes it. */
#ifndef ROUSE_CORE_REACTOR_H
#define ROUSE_CORE_REACTOR_H

#include "backend/backend.h"
#include "core/exhaustion.h"
#include "core/local.h"
#include "core/lock.h"
#include "core/registry.h"
#include "core/wheel.h"
#include "os/atomic.h"

#define REACTOR_EVENTS 256

struct reactor {
    struct lock turn;         /* the right to wait or sweep */
    struct backend *backend;  /* the kernel's set */
    const void *owner;        /* the runtime it belongs to; only compared */
    uint32_t process;         /* os_process() of the maker */
    bool attended;            /* threads of its runtime's own wait in it; else whoever drives the runtime, or nobody */
    struct lock timer_lock;   /* the wheel and waiting_until_ns */
    struct wheel wheel;       /* timers armed here */
    int64_t waiting_until_ns; /* when the wait in progress ends by itself; INT64_MIN when nobody waits */
    atomic_u32 woken;         /* 1: backend_wake was called and no turn has ended since; suppresses duplicates */
    atomic_size packets;      /* operations that the kernel has in its hands, and whose events come here (packet.h) */
    struct exhaustion_place exhausted;           /* who waits here for a descriptor to become free */
    uint32_t failures;                           /* holder of `turn`: waits that the kernel has refused, in a row */
    uint32_t turns;                              /* holder of `turn`: how many found events */
    uint32_t stale_events;                       /* holder of `turn`: recent events for dead tokens */
    struct backend_event events[REACTOR_EVENTS]; /* holder of `turn` */
};

int reactor_init(struct reactor *reactor, const void *owner, const rouse_allocator *allocator);

/* What was still attached when a reactor ended: enum slot_trait and the site. Called with no lock held. */
typedef void reactor_report_function(unsigned traits, const char *site, void *context);

/* Nothing waits or will be armed any more. Packets in flight, whose operations have all been cancelled, are waited for: the
 * kernel has their memory. Timers that are still armed are let go and their waiters woken; attached slots
 * are detached, and reported if report is not NULL. */
void reactor_fini(struct reactor *reactor, reactor_report_function *report, void *context);

/* One turn, by the holder of `turn`: waits until the deadline, the first timer, an event or reactor_wake; then dispatches
 * and expires. A deadline in the past does not wait. Answers how many events and timers there were. */
size_t reactor_turn(struct reactor *reactor, int64_t deadline_ns);

/* Does it belong to the parent of this process? The kernel's set is then shared with the parent, or given up already:
 * nobody may touch it, nor look at `backend`. */
static inline bool reactor_is_forked(const struct reactor *reactor)
{
    return reactor->process != os_process();
}

/* The wait in progress, or the next one, returns. Any thread. Does nothing in a forked child. */
void reactor_wake(struct reactor *reactor);

/* The first timer; ROUSE_NEVER if there is none. */
int64_t reactor_next_timer(struct reactor *reactor);

/* Where the current thread's waits go: its executor's reactor, or on a plain thread the default runtime's (which is made
 * if there is none yet). Answers why there is none. Defined with the runtime, because that alone knows the default one. */
int local_reactor(struct reactor **reactor);

#endif
