/* rouse: runtimes. A runtime is an executor with its workers, reactors and timers. */
#ifndef ROUSE_RUNTIME_H
#define ROUSE_RUNTIME_H

#include <rouse/fiber.h>

#ifdef __cplusplus
extern "C" {
#endif

enum rouse_executor {
    ROUSE_EXECUTOR_MULTI = 0, /* worker threads of its own */
    ROUSE_EXECUTOR_SINGLE = 1 /* no threads: whoever waits for it, or calls rouse_runtime_turn, drives it, one thread at
                                 a time; if several do in turn, its fibers move between them: see fiber.h */
};

enum rouse_scheduler {
    /* Tasks start where they are spawned; idle workers take from the others, but for the task that a task has spawned or
     * woken last. That one runs next, when its spawner waits or ends; from one that goes on computing it is taken after
     * some milliseconds. */
    ROUSE_SCHEDULER_WORK_STEALING = 0,
    ROUSE_SCHEDULER_ROUND_ROBIN = 1 /* new tasks are dealt to the workers in turn; nobody takes from others */
};

/* Initialise with ROUSE_OPTIONS_INIT: zero is the default of every field but size. */
typedef struct rouse_options {
    size_t size;          /* sizeof this struct */
    int executor;         /* of enum rouse_executor */
    int scheduler;        /* of enum rouse_scheduler; must be 0 with the single-threaded executor */
    unsigned workers;     /* threads; 0: the processors this process may use; at most 1024. The
                                         single-threaded executor has none: 0 or 1 */
    unsigned reactors;    /* pollers of the kernel, 1 to workers; 0: one for each worker */
    int dedicated_poller; /* not 0: one more thread does nothing but wait for the kernel; 0 if single-threaded */
    size_t stack_bytes;   /* of a fiber's stack; 0: 64 KiB */
    int unguarded_stacks; /* not 0: fibers may have stacks without guard page when guards have run out */
    int report_overflow;  /* not 0: install a SIGSEGV handler that names the fiber whose stack overflowed;
                                         else such a fiber ends the process without a word */
    const rouse_allocator *allocator; /* copied; NULL: the C library's */
    void *reserved[4];                /* zero */
} rouse_options;
#define ROUSE_OPTIONS_INIT                                   \
    {                                                        \
        sizeof(rouse_options), 0, 0, 0, 0, 0, 0, 0, 0, NULL, \
        {                                                    \
            NULL, NULL, NULL, NULL                           \
        }                                                    \
    }

/* Runs fn(argument) as a fiber inside a scope on a new runtime (NULL options: all processors, work stealing), waits for
 * it and everything it started, ends the runtime and answers what fn returned, or the first failure of its children if
 * that is 0, or why it could not start; UNBALANCED if it left a scope, shield or deadline open. The one-liner for main. Not
 * inside a task, fibers included: IN_POLL. Detached tasks, which nobody waits for, are cancelled at the end. If they have
 * not ended a second later, shields included, the runtime is left behind with them and its threads, and nobody is told;
 * without threads of its own it first has to get the calling thread back from them. Whoever must know calls
 * rouse_runtime_new and rouse_runtime_shutdown instead. */
ROUSE_API int rouse_run(rouse_fiber_function *fn, void *argument, const rouse_options *options);

/* Makes a runtime. The pointer is one: unlike a stream it must not be used after the runtime was shut down. If the system
 * gives fewer threads than asked for but at least one, it runs with those. Errors: INVALID (unknown values, or size 0),
 * TOO_LARGE (stack_bytes), NO_MEMORY, NO_THREAD, TOO_MANY_FILES, LIMIT. */
ROUSE_API int rouse_runtime_new(rouse_runtime **runtime, const rouse_options *options);

/* What was still there when a runtime ended. */
typedef struct rouse_leftover {
    const char *kind; /* "task" or "stream" */
    const char *name; /* of the task or of the stream's kind */
    const char *site; /* "file.c:12" where it was made; NULL if not known */
} rouse_leftover;

/* Called once for each leftover, on the calling thread. */
typedef void rouse_report_function(void *context, const rouse_leftover *leftover);

/* Ends a runtime: refuses new tasks, cancels all (shields included once timeout_ns has passed), runs them to their
 * end, stops the threads and frees everything. ROUSE_OK if nothing was left when it began to cancel but what it could
 * end; TIMED_OUT if tasks did not end in time: each is reported (report may be NULL; a fiber that computes on keeps those of
 * its worker from ending too), nothing that they can reach is freed and the runtime stays valid for another call. Streams that are still open and attached to it are reported too;
 * they stay open. Not from a task of the runtime: BUSY. Two threads at once: one gets BUSY; so does
 * this call while another thread drives the runtime, if that has no threads of its own. Once it has answered ROUSE_OK the
 * runtime is gone: no other thread may then be inside a call that was given it (rouse_spawn_on, rouse_block_on,
 * rouse_runtime_turn, rouse_runtime_stats ...), or begin one. What names a task may go on: rouse_join, rouse_abort,
 * rouse_detach, rouse_is_finished, wakers. The default runtime is ended as by rouse_default_shutdown, and made anew when
 * it is needed. */
ROUSE_API int rouse_runtime_shutdown(rouse_runtime *runtime, int64_t timeout_ns, rouse_report_function *report,
                                     void *context);

/* The runtime whose task runs on this thread, else NULL. */
ROUSE_API rouse_runtime *rouse_runtime_current(void);

/* The runtime that calls with a NULL runtime use outside of any task: made on first use with all processors, NULL if that
 * fails. Ended by rouse_default_shutdown, or when the process ends: its tasks are cancelled and given a moment. BUSY while
 * another thread is inside a call that uses it or waits in it for anything but a task (a join is ended by the tasks'
 * end). An operation that a plain thread polls by hand may wait in it too, and must be cancelled before. */
ROUSE_API rouse_runtime *rouse_runtime_default(void);
ROUSE_API int rouse_default_shutdown(int64_t timeout_ns);

/* After fork, in the child: gives up a runtime that belongs to the parent, without touching what the parent still uses.
 * In the child every other call on it answers FORKED (rouse_runtime_deadline: ROUSE_NEVER), and waking or aborting its
 * tasks does nothing. Streams are the child's too: it closes its copies, or waits for them with a runtime of its own. */
ROUSE_API void rouse_runtime_abandon(rouse_runtime *runtime);

/* ---- driving a single-threaded runtime from another loop ---- */

/* Runs what is ready and waits for events until deadline_ns at most (0 or the past: does not wait; ROUSE_NEVER: until
 * something happened). Answers the number of tasks polled. Errors: INVALID on a multi-threaded runtime, BUSY while
 * another thread drives it, IN_POLL from any task, FORKED. */
ROUSE_API int rouse_runtime_turn(rouse_runtime *runtime, int64_t deadline_ns);

/* What a foreign loop waits for: readable when rouse_runtime_turn has events to handle. It belongs to the runtime. Errors:
 * INVALID on a multi-threaded runtime, FORKED, TOO_MANY_FILES, NO_MEMORY, NOT_SUPPORTED; the loop then looks in at intervals
 * of its own. */
ROUSE_API int rouse_runtime_descriptor(rouse_runtime *runtime, intptr_t *descriptor);

/* When rouse_runtime_turn must be called at the latest: 0 if tasks are ready now, ROUSE_NEVER if only events matter. */
ROUSE_API int64_t rouse_runtime_deadline(rouse_runtime *runtime);

/* ---- counters ---- */

typedef struct rouse_worker_stats {
    uint64_t polls;       /* tasks polled */
    uint64_t steals;      /* tasks taken from other workers' queues */
    uint64_t parks;       /* times it went to sleep */
    uint64_t turns;       /* times it looked at a reactor */
    uint64_t sweeps;      /* times it looked at the reactor of a worker that was stuck */
    uint64_t budget_ends; /* polls that were made to yield because their budget was spent */
    uint64_t reserved[2]; /* zero; for counters to come */
} rouse_worker_stats;

typedef struct rouse_runtime_info {
    size_t size;       /* sizeof this struct; set by the caller */
    unsigned workers;  /* that run */
    unsigned reactors; /* that exist */
    size_t tasks;      /* alive now; one that was joined may be counted for a moment longer */
    uint64_t spawned;  /* since the start */
} rouse_runtime_info;

/* Counters as of about now. `workers` may be NULL; else it gets min(count, workers) entries. Any thread.
 * Errors: INVALID, FORKED. */
ROUSE_API int rouse_runtime_stats(rouse_runtime *runtime, rouse_runtime_info *info, rouse_worker_stats *workers,
                                  size_t count);

#ifdef __cplusplus
}
#endif
#endif
