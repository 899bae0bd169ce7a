/* rouse: operations, the one shape of everything that can be waited for.
 *
 * Each waiting call (read, accept, sleep, join ...) exists as an *operation* in storage of the caller: rouse_X_init
 * prepares it, rouse_op_poll drives it from a poll function, rouse_op_await waits for it in a fiber or a thread, and
 * rouse_op_cancel takes it back. The plain call (rouse_read) is init and await in one. */
#ifndef ROUSE_OP_H
#define ROUSE_OP_H

#include <rouse/task.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Zeroed memory is a valid idle operation. While an operation is pending it must neither move nor be freed, nor may
 * the buffers it was given; a pending operation in a task's state is cancelled by the type's drop function. */
typedef struct rouse_op {
    uintptr_t reserved[10]; /* of the library */
} rouse_op;

/* Drives the operation; answers its count or status, or ROUSE_PENDING after it has kept a clone of the context's waker.
 * A finished operation must be prepared again before it is polled again (INVALID otherwise). The operation may be
 * polled by one thread at a time, and moves between threads with its task.
 * In a cancelled task every operation answers CANCELLED, under an expired deadline TIMED_OUT; those that moved bytes
 * before answer how many. */
ROUSE_API ptrdiff_t rouse_op_poll(rouse_op *op, rouse_context *context);

/* Waits for the operation: parks the calling fiber or thread. IN_POLL inside a poll function. */
ROUSE_API ptrdiff_t rouse_op_await(rouse_op *op);

enum rouse_op_state {
    ROUSE_OP_IDLE = 0, /* nothing refers to the operation or its buffers any more */
    ROUSE_OP_LATER = 1 /* the kernel still has the buffers: poll until it is not pending before they go away */
};

/* Takes a pending operation back, without waiting; an idle one is left alone. Backends that wait for readiness
 * always answer ROUSE_OP_IDLE. The same thread rule as rouse_op_poll. */
ROUSE_API int rouse_op_cancel(rouse_op *op);

/* rouse_join as an operation: the task handle and the result's memory must stay until it is done. */
ROUSE_API void rouse_join_init(rouse_op *op, rouse_task *task, void *result);

#ifdef __cplusplus
}
#endif
#endif
