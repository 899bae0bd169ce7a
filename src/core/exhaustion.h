/* Who waits for a descriptor to become free: accept loops that met the limit.
 *
 * The limit is the process's, but a timer is only as good as the reactor it lies in, which perhaps nobody drives: each
 * reactor has a place where those wait who wait in it, with a timer of its own. A descriptor that is freed wakes one of
 * them all, the places taking turns. Whoever was woken and does not use it hands it on; one who waits in a reactor that
 * nobody drives keeps it, and the others have their timers. */
#ifndef ROUSE_CORE_EXHAUSTION_H
#define ROUSE_CORE_EXHAUSTION_H

#include "core/timer.h"
#include "core/wait.h"
#include "os/os.h"

/* A part of each reactor; all but the timer under the lock in exhaustion.c. */
struct exhaustion_place {
    struct list_node waiters; /* wait nodes */
    struct list_node link;    /* on the list of places where somebody waits */
    struct timer timer;       /* ends the wait when nobody closes anything; used by whoever set `armed` */
    bool armed;               /* the timer runs, or is about to */
    uint32_t process;         /* os_process() of the maker */
};

void exhaustion_place_init(struct exhaustion_place *place);

/* Puts the node on the list of the current thread's reactor, and answers which; it is fired when the library closes a
 * stream, or gives up a new one, or after 100 ms, because others close some too. LIMIT, FORKED, or why there is no reactor: nothing was put. */
int exhaustion_wait(struct wait_node *node, const rouse_waker *waker, struct exhaustion_place **place);

/* Takes the node back. True if it had been fired: whoever then neither takes a descriptor nor finds that there is none
 * calls exhaustion_relieve. */
bool exhaustion_cancel(struct wait_node *node, struct exhaustion_place *place);

/* A descriptor was closed. Costs one load when nobody waits. */
void exhaustion_relieve(void);

/* Closes a descriptor, and lets one of those who wait for that know. */
void exhaustion_close(os_handle handle);

#endif
