/* One timer: a wheel node with a waker. It lives in the storage of whoever waits: an operation, or a frame. */
#ifndef ROUSE_CORE_TIMER_H
#define ROUSE_CORE_TIMER_H

#include "core/wheel.h"
#include <rouse/task.h>

struct reactor;

/* Zeroed: idle. Used by one thread at a time, besides the reactor. */
struct timer {
    struct wheel_node node;  /* in the reactor's wheel while armed; under its timer lock */
    rouse_waker waker;       /* moved out when the timer fires; under the same lock */
    struct reactor *reactor; /* whose wheel holds it since it was armed; NULL: idle. Owner only */
};

/* Arms, or moves, the timer to a deadline; the waker is cloned if the timer holds another one. LIMIT if that fails, or why
 * the current thread has no reactor. timer_arm_in: in this reactor. */
int timer_arm(struct timer *timer, int64_t deadline_ns, const rouse_waker *waker);
int timer_arm_in(struct reactor *reactor, struct timer *timer, int64_t deadline_ns, const rouse_waker *waker);

/* Stops it and drops the waker; an idle or fired timer is left alone. No lock is held meanwhile. */
void timer_disarm(struct timer *timer);

/* True while armed and not fired. */
bool timer_is_pending(struct timer *timer);

#endif
