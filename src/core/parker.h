/* Sleeping of one worker, in the reactor or on a word, and waking it from anywhere.
 *
 * A token protocol: unpark before park makes the park return at once, and one unpark is enough however it races. The
 * exchange in unpark and the compare-exchange in park are on one word, so each pair is ordered; what the unparker wrote
 * before is seen after the park (ACQ_REL on both).
 *
 * Alternatives that lost: condition variables (old ones lose signals, and they cost a mutex besides); always sleeping in
 * the kernel's poll (a worker that finds its reactor taken has nowhere to sleep). */
#ifndef ROUSE_CORE_PARKER_H
#define ROUSE_CORE_PARKER_H

#include "os/atomic.h"
#include "os/os.h"

struct reactor;

enum parker_state {
    PARKER_EMPTY = 0,   /* awake, no token */
    PARKER_PARKED = 1,  /* asleep on the word */
    PARKER_POLLING = 2, /* asleep in the reactor */
    PARKER_TOKEN = 3    /* an unpark came; the next or present park ends */
};

struct parker {
    atomic_u32 state;        /* enum parker_state */
    struct reactor *polling; /* the reactor slept in; written by the owner before POLLING, read after it */
};

/* Owner. Sleeps until unparked or the deadline; may return early for no reason. */
void parker_park(struct parker *parker, int64_t deadline_ns);

/* Owner. Announces a sleep in the reactor; false if there is a token, which is taken. */
bool parker_enter_poll(struct parker *parker, struct reactor *reactor);
void parker_leave_poll(struct parker *parker);

/* Any thread. */
void parker_unpark(struct parker *parker);

#endif
