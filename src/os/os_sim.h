/* The simulated world: what os_sim*.c and backend/sim share.
 *
 * All threads of a world are strands: stacks of one thread of the system, between which switches happen only in the calls
 * of os.h and of the backend, so that nothing here needs a lock. Whatever could happen in more than one way asks
 * sim_random, and whatever happened is told to sim_trace: that makes a run repeatable, and two runs comparable.
 *
 * Alternatives that lost: threads of the system that pass a baton (10 µs for each switch, and a run has thousands);
 * calling the workers' step function in turn (whatever blocks for another reason, a lock, a join, the user's own thread,
 * would have to be written a second time). */
#ifndef ROUSE_OS_SIM_H
#define ROUSE_OS_SIM_H

#include "core/list.h"
#include "os/os.h"
#include <rouse/sim.h>

/* What a trace entry tells of. */
enum sim_entry {
    SIM_RUNS = 1, /* a strand goes on: its number */
    SIM_TIME,     /* the clock moved: to when */
    SIM_ARRIVES,  /* something came to a socket: its number, what */
    SIM_EVENT,    /* a backend told of a socket: the channels, the kind */
    SIM_MOVED,    /* bytes or a status: the socket's number, the count */
    SIM_CALL,     /* another call on a socket: its number, the status */
    SIM_NOTE      /* of the scenario's own */
};

/* ---- the world: os_sim.c ---- */

/* Is there one, and does it go on? Outside, the calls of os.h do the least that is right. */
bool sim_is_active(void);
const rouse_sim_options *sim_options(void);
uint64_t sim_random(void);
uint64_t sim_below(uint64_t limit); /* from 0 to limit - 1 */
bool sim_chance(unsigned in_thousand);
bool sim_memory_fails(void);      /* this allocation of the library's */
int64_t sim_delay(void);          /* of something that travels */
int64_t sim_now(void);            /* without the little that each look at the clock takes */
void sim_advance(int64_t now_ns); /* to a later moment */
void sim_spend(int64_t most_ns);  /* the time that something takes; at least 1 ns */
void sim_trace(enum sim_entry entry, uint64_t first, uint64_t second);

/* ---- strands: os_sim_thread.c ---- */

/* The strand that runs sleeps until the deadline, until sim_wake_place of the place, or for no reason; sim_rouse_at moves
 * the deadline of those who sleep there to an earlier moment. A place is any address. */
void sim_sleep_at(const void *place, int64_t deadline_ns);
void sim_wake_place(const void *place, bool all);
void sim_rouse_at(const void *place, int64_t deadline_ns);
/* What every call of the system does: it takes a little time, and perhaps another strand goes on first. */
void sim_pause(void);
/* The strand that runs, as in os_thread.id; 0: none. */
uintptr_t sim_self(void);
/* Strands that have not ended. */
unsigned sim_threads(void);
/* Runs `body` as the first strand until it returns, or nothing can happen any more: false. */
bool sim_run_strands(void (*body)(void *argument), void *argument, unsigned *left);

/* ---- the network: os_sim_net.c ---- */

/* When the next thing arrives somewhere; ROUSE_NEVER: nothing is on its way. */
int64_t sim_net_next(void);
/* Lets arrive what is due. */
void sim_net_deliver(void);
void sim_net_fini(void);
/* Notifies the event when that moment comes. */
void sim_notify_at(const os_event *event, int64_t at_ns);
/* Open descriptors. */
unsigned sim_descriptors(void);

/* Which channels of a handle are ready, with BACKEND_HANGUP and BACKEND_URGENT; negative: no such handle. */
int sim_readiness(os_handle handle);
/* Who is told of a handle's changes: the backend, by its own record. NULL: nobody. The one before is answered. */
int sim_watch(os_handle handle, void *watcher, void **before);

/* Something that a handle's watcher should know: in backend/sim. */
void sim_changed(void *watcher, unsigned channels);

#endif
