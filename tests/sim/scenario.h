/* What the scenarios of the simulation share: how they are listed, and what they must not get wrong.
 *
 * A scenario runs with thousands of seeds. What it finds wrong it answers as a negative status, or says by must(), which
 * ends the process; rouse_sim_check tells the seed either way. */
#ifndef TEST_SIM_SCENARIO_H
#define TEST_SIM_SCENARIO_H

#include <rouse/rouse.h>
#include <rouse/sim.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define must(condition)                                                                         \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "%s:%d: this does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                            \
        }                                                                                       \
    } while (0)

/* One file each. */
int demo_scenario(void *argument);
int readers_scenario(void *argument);
int churn_scenario(void *argument);
int timers_scenario(void *argument);
int threads_scenario(void *argument);
int shutdown_scenario(void *argument);
int meetings_scenario(void *argument);

static inline uint64_t below(uint64_t limit)
{
    return rouse_sim_random() % limit;
}

/* A runtime of a kind that the seed picks: with threads of its own, or perhaps without. */
static inline rouse_options some_threads(void)
{
    rouse_options options = ROUSE_OPTIONS_INIT;
    options.executor = ROUSE_EXECUTOR_MULTI;
    options.scheduler = below(2) == 0 ? ROUSE_SCHEDULER_WORK_STEALING : ROUSE_SCHEDULER_ROUND_ROBIN;
    options.workers = 1 + (unsigned)below(4);
    return options;
}

static inline rouse_options some_options(void)
{
    rouse_options options = ROUSE_OPTIONS_INIT;
    options.executor = ROUSE_EXECUTOR_SINGLE;
    return below(3) == 0 ? options : some_threads();
}

#endif
