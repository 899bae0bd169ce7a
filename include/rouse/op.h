/* rouse: operations, the one shape of everything that can be waited for.
 *
 * Each waiting call (read, accept, sleep, join ...) exists as an *operation* in storage of the caller: rouse_X_init
 * prepares it, rouse_op_poll drives it from a poll function, rouse_op_await waits for it in a fiber or a thread, and
 * rouse_op_cancel takes it back. The plain call (rouse_read) is init and await in one.
 *
 * Besides its own errors every waiting call may answer why a wait ends, or cannot begin:
 *
 *     CANCELLED, TIMED_OUT            the task was cancelled; a deadline in force has passed
 *     IN_POLL                         a plain call inside a poll function
 *     FORKED                          this is a child of the process whose runtime it would wait in
 *     LIMIT                           the waker cannot be cloned, or the system lets no more descriptors be waited for
 *     NO_MEMORY                       the system has none for waiting for a descriptor, or a plain thread none for its wait
 *     ALREADY_EXISTS, BAD_DESCRIPTOR  the descriptor belongs to another stream too; something else has closed it
 *     SHUTTING_DOWN                   a plain thread, while the default runtime is being ended
 *     those of rouse_runtime_new      a plain thread whose wait has to make the default runtime: outside of tasks that is
 *                                     where everything but a task is waited for */
#ifndef ROUSE_OP_H
#define ROUSE_OP_H

#include <rouse/task.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Zeroed memory is a valid idle operation. While an operation is pending it must neither move nor be freed, nor may
 * the buffers it was given; a pending operation in a task's state is cancelled by the type's drop function. */
typedef struct rouse_op {
    rouse_storage reserved[10]; /* of the library */
} rouse_op;

/* Drives the operation; answers its count or status, or ROUSE_PENDING after it has kept a clone of the context's waker.
 * A finished operation must be prepared again before it is polled again (INVALID otherwise). The operation may be
 * polled by one thread at a time, and moves between threads with its task.
 * In a cancelled task every operation answers CANCELLED, under an expired deadline TIMED_OUT, also when it has moved some
 * bytes before: how many, only *done tells (rouse_read_exact, rouse_write_all). */
ROUSE_API ptrdiff_t rouse_op_poll(rouse_op *op, rouse_context *context);

/* Waits for the operation: parks the calling fiber or thread. Answers what the operation does, or why a wait cannot begin
 * (above). */
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
