/* rouse: wakers, contexts and tasks written as poll functions.
 *
 * A task is a *poll function* with a small state. The executor calls the function; it does what it can without
 * blocking and answers either a final status or ROUSE_PENDING. Before it answers ROUSE_PENDING something must hold a
 * copy of its waker: every operation of <rouse/op.h> sees to that by itself. */
#ifndef ROUSE_TASK_H
#define ROUSE_TASK_H

#include <rouse/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rouse_runtime rouse_runtime;

/* ---- wakers ----
 *
 * A waker is a counted reference that says "poll that again". It may be cloned, woken and dropped from any thread, at
 * any time, also after its runtime is gone; waking something that has finished does nothing. It is not
 * async-signal-safe. Make your own table to poll rouse's operations from another event loop. */
typedef struct rouse_waker_table rouse_waker_table;

typedef struct rouse_waker {
    void *data;                     /* what the table's functions get */
    const rouse_waker_table *table; /* NULL: no waker */
} rouse_waker;

struct rouse_waker_table {
    rouse_waker (*clone)(void *data); /* another reference to the same */
    void (*wake)(void *data);         /* wakes and gives the reference up */
    void (*wake_by_ref)(void *data);  /* wakes and keeps the reference */
    void (*drop)(void *data);         /* gives the reference up */
};

/* The four of them as calls; a waker without a table is ignored. rouse_waker_wake and _drop empty the waker. */
ROUSE_API rouse_waker rouse_waker_clone(const rouse_waker *waker);
ROUSE_API void rouse_waker_wake(rouse_waker *waker);
ROUSE_API void rouse_waker_wake_by_ref(const rouse_waker *waker);
ROUSE_API void rouse_waker_drop(rouse_waker *waker);

/* ---- context ----
 *
 * What a poll function is called with. Valid during that call only. A copy with another waker is the way to poll
 * several things inside one task and know which of them was woken. */
typedef struct rouse_context {
    rouse_waker waker; /* borrowed: clone it to keep it */
    int cancelled;     /* not 0: the task was cancelled; whatever it answers now, it is not polled again, unless it
                           answers ROUSE_PENDING inside a shield */
    void *reserved[3]; /* of the library */
} rouse_context;

/* A context for polling by hand, outside any task. Borrows the waker. */
ROUSE_API void rouse_context_init(rouse_context *context, const rouse_waker *waker);

/* ---- tasks ---- */

/* The poll function. `state` is the task's own copy, `result` memory of the type's result_size, to be filled before
 * answering anything but ROUSE_PENDING. Answers ROUSE_PENDING, or the value that rouse_join will answer. */
typedef int rouse_poll_function(void *state, void *result, rouse_context *context);

/* What tasks of one kind have in common. Must outlive them; usually static const. Zero is a good value everywhere
 * but in poll. */
typedef struct rouse_task_type {
    const char *name;                  /* for reports; NULL: "task" */
    rouse_poll_function *poll;         /* never NULL */
    void (*drop)(void *state);         /* called exactly once for each task that was spawned, on every path: after the
                                          last poll, or instead of the first; cancels the operations in the state.
                                          Runs on a thread of the runtime, or on the one that ends it. NULL: nothing */
    void (*drop_result)(void *result); /* called for a result of a finished poll that nobody joins. NULL: nothing */
    size_t state_size;                 /* bytes of state, copied when the task is spawned */
    size_t state_alignment;            /* a power of two up to 4096; 0: that of max_align_t */
    size_t result_size;                /* bytes of result */
    size_t result_alignment;           /* as state_alignment */
    void *reserved[2];                 /* zero */
} rouse_task_type;

/* A handle to a spawned task: to be joined, or detached, else the memory of its task, and of what that belongs to, stays, after
 * the end of the runtime as well. Zeroed, it is valid and names no task. It may move between threads but be used by one at a
 * time. */
typedef struct rouse_task {
    void *cell; /* of the library; NULL: names no task */
} rouse_task;

/* Spawns a task on the runtime of this thread, or on the default one (see runtime.h), or on the one given.
 * The state is copied: on success it belongs to the task, on failure to the caller still; NULL: the task's state is zeroed.
 * `task` may be NULL: detached.
 * Any thread. Errors: INVALID, NO_MEMORY, SHUTTING_DOWN, FORKED, TOO_LARGE; and those of rouse_runtime_new where the
 * default runtime has to be made. */
#define rouse_spawn(task, type, state)             rouse_spawn_at((task), NULL, (type), (state), ROUSE_HERE)
#define rouse_spawn_on(runtime, task, type, state) rouse_spawn_at((task), (runtime), (type), (state), ROUSE_HERE)
ROUSE_API int rouse_spawn_at(rouse_task *task, rouse_runtime *runtime, const rouse_task_type *type, const void *state,
                             const char *site);

/* Waits until the task has finished, moves its result to `result` (NULL: the result is dropped), gives the handle up and
 * answers what the task answered. A task that was aborted answers what its last poll, or its fiber, answered, if that
 * finished it, and else CANCELLED: then `result` gets what the task had written so far into its result memory, which is
 * zeroed at first, and nothing is dropped. Whoever hands over memory in a result tells by it whether there is any.
 * From a fiber it parks the fiber, from a plain thread the thread; on a runtime with a single-threaded executor that
 * nobody drives, the calling thread drives it. From a poll function it answers IN_POLL: poll rouse_join_init's operation
 * there. When the wait itself fails (INVALID for an empty handle, LIMIT, or as op.h says), the handle stays as it was:
 * task->cell tells. */
ROUSE_API int rouse_join(rouse_task *task, void *result);

/* Gives the handle up; the task goes on alone. Any thread. An empty handle is ignored. */
ROUSE_API void rouse_detach(rouse_task *task);

/* Asks the task to end: see cancelling in scope.h. Does not wait; the handle stays. A task that has finished, or an
 * empty handle, is left alone; one that has not begun yet begins, cancelled. Any thread. */
ROUSE_API void rouse_abort(const rouse_task *task);

/* 1 if the task has finished, 0 if not or the handle is empty. Any thread. */
ROUSE_API int rouse_is_finished(const rouse_task *task);

/* The name given by its type or its fiber options. Static as long as the handle is held. */
ROUSE_API const char *rouse_task_name(const rouse_task *task);

/* Yields once: a fiber to the other tasks of its worker, a plain thread to other threads as the system sees fit (no task is
 * run by that). In a poll function wake your own waker and answer ROUSE_PENDING. Errors, in a task only: CANCELLED,
 * TIMED_OUT, IN_POLL, FORKED. */
ROUSE_API int rouse_yield(void);

/* Spawns and joins in one call, from a plain thread or a fiber, and answers as those do. It returns when the task has ended:
 * if the calling fiber is cancelled, or its deadline passes, the task is aborted and waited for. `state` and `result` may
 * therefore point into the caller's frame. In a poll function: IN_POLL. */
#define rouse_block_on(runtime, type, state, result) rouse_block_on_at((runtime), (type), (state), (result), ROUSE_HERE)
ROUSE_API int rouse_block_on_at(rouse_runtime *runtime, const rouse_task_type *type, const void *state, void *result,
                                const char *site);

#ifdef __cplusplus
}
#endif
#endif
