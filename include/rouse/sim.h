/* rouse: simulation, for testing programs that use rouse. Only the library rouse-sim has these calls.
 *
 * rouse-sim has the interface of rouse and another world below it: time is virtual and passes as fast as the program can
 * follow, connections exist in memory only, and everything that a kernel, a network and a scheduler may decide (who runs
 * next, how long something takes, in what order events come, how many bytes a call moves) is decided by a number, the
 * seed. The same seed gives the same run on every machine and with every compiler; a program that is linked with
 * rouse-sim instead of rouse is tried with thousands of seeds, and the one that fails can be replayed as often as it takes.
 *
 * A *scenario* is a function that runs in a new world and uses whatever it likes of rouse: it makes runtimes, listens,
 * connects, waits. It must decide nothing by other means: not by the address of something, the time of day, a random
 * number that is not rouse_sim_random, or threads of the system. A loop that waits without calling rouse waits for ever,
 * for threads here take turns: they change only inside calls of rouse.
 *
 * Alternatives that lost: real threads and a real network (a failure comes back once in a thousand runs, if at all); a
 * proxy between real processes (the order of events stays the kernel's). The method is known from FoundationDB. */
#ifndef ROUSE_SIM_H
#define ROUSE_SIM_H

#include <rouse/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What may happen in a world. Initialise with ROUSE_SIM_OPTIONS_INIT. Chances are in a thousand. */
typedef struct rouse_sim_options {
    size_t size;           /* sizeof this struct */
    uint64_t seed;         /* decides everything else */
    unsigned processors;   /* what a runtime takes for the machine's; 0: 2 */
    unsigned descriptors;  /* open at once, at most; 0: 1024 */
    int64_t delay_min_ns;  /* of everything that travels: bytes, ends, connections */
    int64_t delay_max_ns;  /* 0 for both: 5 µs to 500 µs */
    int64_t time_limit_ns; /* of the world's time, after which the run is given up; 0: a day */
    uint64_t step_limit;   /* of decisions who runs next, likewise; 0: 50 million */
    unsigned short_counts; /* that a read or write moves less than it could */
    unsigned spurious;     /* that an event comes for nothing, that a sleep ends for no reason */
    unsigned duplicates;   /* that an event comes twice */
    unsigned late;         /* that the kernel gives memory back only later */
    unsigned preempt;      /* that another thread goes on where this one could */
    unsigned resets;       /* that a connection breaks, at a read or write */
    unsigned refusals;     /* that a connection is refused although somebody listens */
    unsigned no_memory;    /* that an allocation of the library fails; of a million */
    unsigned interrupts;   /* after how many steps of the library on memory that threads share another thread goes
                            * on, on average; 0: never. A program that asks for this holds no lock of the system's
                            * while it calls rouse: whoever waits for that would wait for ever */
    void *reserved[4];     /* zero */
} rouse_sim_options;
#define ROUSE_SIM_OPTIONS_INIT                                                            \
    {                                                                                     \
        sizeof(rouse_sim_options), 1, 0, 0, 0, 0, 0, 0, 200, 20, 20, 200, 50, 0, 0, 0, 0, \
        {                                                                                 \
            NULL, NULL, NULL, NULL                                                        \
        }                                                                                 \
    }

/* What a run was like. */
typedef struct rouse_sim_report {
    size_t size;      /* sizeof this struct, set by the caller */
    uint64_t entries; /* decisions, events, calls that moved bytes: everything that went into the hash */
    uint64_t hash;    /* of the run: equal for equal runs, and next to never for different ones */
    int64_t time_ns;  /* that passed in the world */
    int stuck;        /* not 0: nothing could happen any more, or a limit was reached, before the scenario was over */
    unsigned threads; /* of the world that were still there when the scenario was over */
} rouse_sim_report;

/* Runs a scenario in a new world and answers what it returned; TIMED_OUT if it got stuck. A world that got stuck cannot
 * be cleared away: further runs in this process answer BUSY. `report` may be NULL. One world at a time, on one thread; not
 * inside a world: BUSY. Other errors: INVALID, NO_MEMORY. */
ROUSE_API int rouse_sim_run(int (*scenario)(void *argument), void *argument, const rouse_sim_options *options,
                            rouse_sim_report *report);

/* Runs it with `count` seeds, options->seed and those after it, until one answers something negative; says on standard
 * error which, as ROUSE_SEED=<number>, also if it ends the process. With that in the environment only that seed is run.
 * Answers ROUSE_OK or what the failed run did. */
ROUSE_API int rouse_sim_check(const char *name, int (*scenario)(void *argument), void *argument,
                              const rouse_sim_options *options, uint64_t count);

/* ---- inside a world ---- */

/* A number that the seed decides. 0 outside of worlds. */
ROUSE_API uint64_t rouse_sim_random(void);

/* Something of the scenario's own that shall count for the hash. */
ROUSE_API void rouse_sim_note(uint64_t value);

/* Sends a signal of enum rouse_signal (signal.h) to this world. Answers 1 if it was waited for, else 0. */
ROUSE_API int rouse_sim_raise(int signal);

/* A thread of this world: for what a program does on threads of its own. */
typedef struct rouse_sim_thread {
    uintptr_t id;
} rouse_sim_thread;

/* Errors: NO_MEMORY, NO_THREAD, INVALID (no world). Each thread must be joined. */
ROUSE_API int rouse_sim_thread_start(rouse_sim_thread *thread, void (*body)(void *argument), void *argument);
ROUSE_API void rouse_sim_thread_join(rouse_sim_thread *thread);

/* Lets others go on, for a loop that waits for them. */
ROUSE_API void rouse_sim_yield(void);

/* The thread of this world that calls sleeps. */
ROUSE_API void rouse_sim_sleep(int64_t span_ns);

#ifdef __cplusplus
}
#endif
#endif
