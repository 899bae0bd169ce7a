/* The base of both executors: makes tasks, refuses to once closed, cancels all, and knows when none is left. */
#ifndef ROUSE_CORE_SPAWNER_H
#define ROUSE_CORE_SPAWNER_H

#include "core/surroundings.h"

/* Counters of one worker, or of the threads that are none. Written by that worker, or under a lock, and read by any thread. */
struct spawn_counts {
    atomic_u64 spawned;   /* tasks made */
    atomic_u64 completed; /* tasks that ended here, wherever they were made */
};

struct spawner {
    struct task_scheduler scheduler;  /* what the tasks know; first */
    const rouse_allocator *allocator; /* of the runtime */
    struct slab *outside;             /* cells of tasks spawned by threads that are no workers */
    struct lock outside_lock;         /* closed together with the counts of outside */
    struct spawn_counts outside_counts;
    atomic_u32 closed;  /* 1: nothing is spawned any more; never taken back */
    atomic_u32 endings; /* advances with each completion once closed: what shutdown sleeps on */
    uint32_t process;   /* os_process() of the maker */
};

/* What a new task gets besides its type and state. */
struct spawn_request {
    const rouse_task_type *type;
    const void *state;   /* copied; NULL: zeroed */
    size_t extra_bytes;  /* behind the state, for types with hooks */
    struct scope *scope; /* that takes the task as its child; NULL: none */
    int64_t deadline_ns; /* inherited by value; ROUSE_NEVER: none */
    const char *site;    /* for reports */
    bool joinable;       /* a handle will be made */
};

int spawner_init(struct spawner *spawner, const rouse_allocator *allocator);

/* Makes a task, not yet queued; the caller owns the queue's reference and hands it to the scheduler. `slab` and `counts` are
 * the current worker's, or NULL. Errors: INVALID, TOO_LARGE, NO_MEMORY, SHUTTING_DOWN, FORKED, CANCELLED (the scope). */
int spawner_make(struct spawner *spawner, struct slab *slab, struct spawn_counts *counts,
                 const struct spawn_request *request, struct task_cell **cell);

void spawner_close(struct spawner *spawner);

/* Cancels every task of a slab that is alive. */
void spawner_cancel_all(struct slab *slab);

/* A task has ended on the thread that owns `counts`; NULL: on no worker. */
void spawner_count_completion(struct spawner *spawner, struct spawn_counts *counts);

#endif
