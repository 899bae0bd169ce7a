/* rouse: fibers, tasks written as straight-line C that seem to block.
 *
 * A fiber is a task with a stack of its own. Inside it every waiting call parks the fiber and lets its thread go on with
 * other tasks. A fiber stays on one worker thread from its first run on, unless it was spawned with
 * ROUSE_FIBER_MIGRATES: compilers keep the address of errno and of other thread-local variables across calls, and a fiber
 * that moved would use the old thread's. The single-threaded executor has no thread of its own: its fibers run on whichever
 * thread drives the runtime, so a program in which several threads do so in turn treats all of them as if they migrated.
 *
 * Its stack is 64 KiB unless the options say otherwise, with a guard page below. Compile what runs in fibers with
 * -fstack-clash-protection: without it a function whose frame is larger than a page, a big local buffer above all, can
 * jump over the guard and write into another fiber's stack. rouse_options.report_overflow names the fiber that ran into
 * its guard.
 *
 * A fiber may fork. In the child every waiting call answers FORKED; when the fiber returns there, its worker thread, and
 * with it the child, ends (a driving thread's rouse_run, rouse_join, rouse_runtime_turn or rouse_runtime_shutdown
 * answers FORKED instead). Neither handlers of pthread_atfork may call the library, nor may a signal handler fork. */
#ifndef ROUSE_FIBER_H
#define ROUSE_FIBER_H

#include <rouse/op.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The body of a fiber. What it returns is passed on to rouse_join (but ROUSE_PENDING becomes INVALID, and with an open scope,
 * shield or deadline it is UNBALANCED); a scope takes a negative as a failure. */
typedef int rouse_fiber_function(void *argument);

enum rouse_fiber_flags {
    ROUSE_FIBER_MIGRATES = 1, /* may be resumed by another thread: its code keeps no thread-local address (errno!)
                                  across a waiting call */
    ROUSE_FIBER_UNGUARDED = 2 /* a stack without guard page is acceptable when guards have run out */
};

/* How to spawn a fiber; initialise with ROUSE_FIBER_OPTIONS_INIT. */
typedef struct rouse_fiber_options {
    size_t size;        /* sizeof this struct */
    const char *name;   /* for reports; static or outliving the fiber; NULL: "fiber" */
    size_t stack_bytes; /* 0: what the runtime's options say; rounded up to whole pages */
    unsigned flags;     /* of enum rouse_fiber_flags */
} rouse_fiber_options;
#define ROUSE_FIBER_OPTIONS_INIT                \
    {                                           \
        sizeof(rouse_fiber_options), NULL, 0, 0 \
    }

/* Starts a fiber in the innermost open scope around the calling fiber: the last one that it opened itself, else the one
 * that it was started in, as its sibling, which may outlive it: then the argument must not lie in the caller's frame.
 * rouse_run opens the outermost. On success the argument belongs to the new fiber, on failure still to the caller. It runs
 * at the earliest when the caller waits, or on another thread at once. Errors: NOT_IN_FIBER, UNBALANCED (no scope: in a
 * fiber of rouse_go_detached or rouse_spawn_fiber that has opened none), NO_MEMORY, LIMIT (stacks), SHUTTING_DOWN,
 * CANCELLED, TOO_LARGE (a stack of that size). */
#define rouse_go(function, argument)               rouse_go_at((function), (argument), NULL, ROUSE_HERE)
#define rouse_go_with(function, argument, options) rouse_go_at((function), (argument), (options), ROUSE_HERE)
ROUSE_API int rouse_go_at(rouse_fiber_function *function, void *argument, const rouse_fiber_options *options,
                          const char *site);

/* Starts a fiber that belongs to no scope and inherits no deadline; only the runtime's end cancels it. Any thread. */
#define rouse_go_detached(function, argument) rouse_go_detached_at(NULL, (function), (argument), NULL, ROUSE_HERE)
#define rouse_go_detached_on(runtime, function, argument) \
    rouse_go_detached_at((runtime), (function), (argument), NULL, ROUSE_HERE)
ROUSE_API int rouse_go_detached_at(rouse_runtime *runtime, rouse_fiber_function *function, void *argument,
                                   const rouse_fiber_options *options, const char *site);

/* Starts a fiber with a handle. `size` bytes at `argument` are copied into the fiber's allocation, and the function gets
 * the copy; `result_size` bytes are the fiber's rouse_result(), which rouse_join moves out. Any thread. */
#define rouse_spawn_fiber(task, function, argument, size, result_size) \
    rouse_spawn_fiber_at((task), NULL, (function), (argument), (size), (result_size), NULL, ROUSE_HERE)
#define rouse_spawn_fiber_on(runtime, task, function, argument, size, result_size) \
    rouse_spawn_fiber_at((task), (runtime), (function), (argument), (size), (result_size), NULL, ROUSE_HERE)
ROUSE_API int rouse_spawn_fiber_at(rouse_task *task, rouse_runtime *runtime, rouse_fiber_function *function,
                                   const void *argument, size_t size, size_t result_size,
                                   const rouse_fiber_options *options, const char *site);

/* The calling fiber's result memory, zeroed at first; NULL if it has none, or outside of fibers. */
ROUSE_API void *rouse_result(void);

/* 1 inside a fiber, 0 elsewhere. */
ROUSE_API int rouse_in_fiber(void);

#ifdef __cplusplus
}
#endif
#endif
