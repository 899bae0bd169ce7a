/* Fibers, for the files beside. */
#ifndef ROUSE_FIBER_FIBER_H
#define ROUSE_FIBER_FIBER_H

#include <rouse/fiber.h>

/* Starts the fiber of rouse_run: a scope is open around its body, and closed after it. */
int fiber_spawn_main(rouse_task *task, rouse_runtime *runtime, rouse_fiber_function *function, void *argument);

#endif
