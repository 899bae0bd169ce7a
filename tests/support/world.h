/* The world that a test runs in, where the library is the simulated one: its body, and everything that cmocka does around
 * it, is the scenario of one run with few faults. Elsewhere there is only the real world, and nothing of this is there.
 *
 * The tests speak POSIX (posix_sim.c), which means the world inside of it and the system outside. */
#ifndef TEST_SUPPORT_WORLD_H
#define TEST_SUPPORT_WORLD_H

#include <stdbool.h>

#if !defined(ROUSE_TEST_SIM)
#define ROUSE_TEST_SIM 0
#endif

#if ROUSE_TEST_SIM

/* Runs a function as the scenario of a world, whose seed is ROUSE_SEED in the environment, or 1, and answers what it
 * answered: 0, or the process ends with 1. So it does if threads or descriptors of the world are left, or the world gets
 * stuck; whatever goes wrong, the seed is said. */
int world_run(const char *name, int (*scenario)(void *argument), void *argument);

bool world_is_on(void);      /* are we inside? */
void world_leave(void);      /* for good: this process ends, and deals with the system now */
int world_descriptors(void); /* open in it */
int world_threads(void);     /* of it */

#else

static inline int world_run(const char *name, int (*scenario)(void *argument), void *argument)
{
    (void)name;
    return scenario(argument);
}

static inline bool world_is_on(void)
{
    return false;
}

static inline void world_leave(void) {}

static inline int world_descriptors(void)
{
    return -1;
}

static inline int world_threads(void)
{
    return -1;
}

#endif
#endif
