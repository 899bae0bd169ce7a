/* What the current thread is doing, for the layers below the executors: the thing that os_current() points to.
 *
 * A worker begins with one of these. A plain thread has none: os_current() answers NULL there. */
#ifndef ROUSE_CORE_LOCAL_H
#define ROUSE_CORE_LOCAL_H

#include "core/task.h"

struct reactor;

struct local {
    struct task_scheduler *scheduler; /* of the executor this thread runs; waker.c compares it */
    struct reactor *reactor;          /* where sources and timers of this thread's tasks go */
    struct surroundings *around;      /* of the poll that runs now; NULL between polls */
    int64_t now_ns;                   /* a recent reading of the clock, never ahead of it */
};

static inline struct local *local_current(void)
{
    return os_current();
}

#endif
