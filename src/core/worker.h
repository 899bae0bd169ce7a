/* One worker: its queues, and one step of its work. The single-threaded executor is a worker without peers; the threaded
 * one runs the same step in a loop on each of its threads. */
#ifndef ROUSE_CORE_WORKER_H
#define ROUSE_CORE_WORKER_H

#include "core/idle.h"
#include "core/inbox.h"
#include "core/inject.h"
#include "core/parker.h"
#include "core/reactor.h"
#include "core/ring.h"
#include "core/spawner.h"
#include "fiber/stack.h"

struct rouse_runtime;

struct worker_counters { /* written by the worker alone, relaxed; read by anybody */
    atomic_u64 polls, steals, parks, turns, sweeps, budget_ends; /* as in rouse_worker_stats */
};

struct worker {
    struct local local; /* first: os_current() of its thread */

    /* ---- fixed ---- */
    struct rouse_runtime *runtime;
    unsigned index; /* among the runtime's workers */
    bool steals;    /* takes part in stealing: the ring and the slot are in use; else `own` alone */

    /* ---- of its thread alone ---- */
    void *outer; /* what the thread was before: a task of another runtime may shut a single-threaded one down */
    struct surroundings around; /* of the task that is polled */
    struct queue own;         /* tasks that nobody may steal: pinned ones, dealt ones, all of a worker without peers */
    struct slab *slab;        /* cells of the tasks spawned here */
    struct stack_pool stacks; /* of the fibers spawned here */
    uint32_t slot_runs;       /* tasks taken from the slot in a row */
    size_t own_turns;         /* tasks to take from `own` before the next one of the ring */
    size_t ring_turns;        /* and then from the ring before the next one of `own` */
    uint32_t until_maintenance; /* polls until the shared queue and the reactor are looked at */
    uint32_t interval;          /* polls between two such looks: 61, fewer when polls are long */
    int64_t maintained_ns;      /* when the last look was */
    uint64_t random;            /* where to begin stealing */
    bool searching;             /* counted as searching */
    bool dispatching;           /* inside a reactor turn: peers are notified once, after it */
    uint32_t sweep_quiet;       /* as sentinel: alarms in a row with everybody asleep */

    /* ---- shared ---- */
    struct ring ring;      /* tasks that may be stolen */
    atomic_ptr slot;       /* the last task spawned or woken by a task here; stolen only by the sentinel */
    struct inbox inbox;    /* tasks for this worker from other threads */
    struct parker parker;  /* its sleep */
    atomic_u32 tick;       /* advances with each poll and each park: stands still while a task hogs the worker */
    atomic_u32 swept_tick; /* the tick that the sentinel saw at its last look */
    atomic_u32 fibers;     /* fibers pinned here that have not ended: its load, as far as placement cares */
    struct spawn_counts counts;
    struct worker_counters counters;
};

static inline struct worker *worker_of_local(struct local *local)
{
    return CONTAINER_OF(local, struct worker, local);
}

enum worker_step { WORKER_RAN, WORKER_IDLE };

void worker_init(struct worker *worker, struct rouse_runtime *runtime, unsigned index, struct reactor *reactor);

/* Makes it the current thread's, and back. */
void worker_enter(struct worker *worker);
void worker_leave(struct worker *worker);

/* Finds one task and polls it; WORKER_IDLE if there is none anywhere. */
enum worker_step worker_step(struct worker *worker);

/* Sleeps until there may be work, or the deadline. */
void worker_park(struct worker *worker, int64_t deadline_ns);

/* Is a task waiting here, as far as its own thread can tell? */
bool worker_has_work(struct worker *worker);

/* Puts a task behind the others of this worker. Its thread only. */
void worker_push(struct worker *worker, struct task_cell *cell);

/* Puts a task where the next one is taken from, and what was there behind the others. Its thread only. */
void worker_push_next(struct worker *worker, struct task_cell *cell);

/* From any other thread. */
void worker_send(struct worker *worker, struct task_cell *cell);

/* Looks at the kernel without waiting. */
void worker_poll_kernel(struct worker *worker);

/* Wakes a peer if there is something for it and nobody searches. */
void worker_notify(struct rouse_runtime *runtime);

#endif
