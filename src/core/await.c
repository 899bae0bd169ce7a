/* The front doors: spawning, and waiting for an operation from a fiber, a plain thread, or (refused) a poll function. */
#include "core/op.h"
#include "core/runtime.h"

int rouse_spawn_at(rouse_task *task, rouse_runtime *runtime, const rouse_task_type *type, const void *state,
                   const char *site)
{
    struct spawn_request request = {
        .type = type, .state = state, .deadline_ns = ROUSE_NEVER, .site = site, .joinable = task != NULL};
    if (task)
        task->cell = NULL;
    return type && !type->reserved[0] ? runtime_spawn(task, runtime, &request) : ROUSE_INVALID;
}

int runtime_make(struct made_task *made, rouse_runtime *runtime, const struct spawn_request *request)
{
    struct worker *worker = runtime_worker(runtime);
    *made = (struct made_task){.runtime = runtime, .worker = worker};
    /* Between polls (a waker of the user's that spawns) no running task keeps shutdown from having counted already. */
    bool counts = worker && worker->local.around;
    return spawner_make(&made->runtime->spawner, worker ? worker->slab : NULL, counts ? &worker->counts : NULL, request,
                        &made->cell);
}

void runtime_place(const struct made_task *made, rouse_task *task)
{
    if (task)
        task->cell = made->cell;
    placement_spawned(made->runtime, made->worker, made->cell);
}

int runtime_spawn(rouse_task *task, rouse_runtime *runtime, const struct spawn_request *request)
{
    struct made_task made;
    rouse_runtime *chosen = runtime;
    int status = runtime_borrow(&chosen);
    if (status != ROUSE_OK)
        return status;
    status = runtime_make(&made, chosen, request);
    if (status == ROUSE_OK)
        runtime_place(&made, task);
    runtime_return(runtime);
    return status;
}

/* A plain thread: a waker that ends its sleep. It drives the runtime meanwhile if that is single-threaded. */
static ptrdiff_t await_in_thread(rouse_op *op, struct thread_waiter *waiter, rouse_runtime *runtime)
{
    rouse_waker waker = thread_waiter_waker(waiter);
    rouse_context context;
    ptrdiff_t answer;
    rouse_context_init(&context, &waker);
    while ((answer = rouse_op_poll(op, &context)) == ROUSE_PENDING) {
        thread_waiter_wait(waiter, runtime);
        if (runtime && runtime_is_forked(runtime)) { /* a task that this thread drove has forked: this is the child */
            rouse_op_cancel(op);
            return ROUSE_FORKED;
        }
    }
    return answer;
}

/* The operation may wait in the default runtime, which must not end meanwhile. */
static ptrdiff_t await_in_plain_thread(rouse_op *op)
{
    struct thread_waiter *waiter = thread_waiter_new();
    if (!waiter)
        return ROUSE_NO_MEMORY;
    ptrdiff_t answer = default_borrow();
    if (answer == ROUSE_OK) {
        answer = await_in_thread(op, waiter, NULL);
        default_return();
    }
    thread_waiter_free(waiter);
    return answer;
}

/* The fiber form of every call. */
static ptrdiff_t await_in_fiber(rouse_op *op, struct surroundings *around)
{
    ptrdiff_t answer;
    rouse_context context = {{around->cell, &task_waker_table}, 0, {around, NULL, NULL}};
    while ((answer = rouse_op_poll(op, &context)) == ROUSE_PENDING)
        around->suspend(around);
    return answer;
}

/* A plain thread may have to drive the task's runtime, which may end meanwhile: it stays inside the gate, which shutdown
 * waits for when all tasks have completed. The runtime of a completed task may be gone, and nobody waits for it.
 * `waiter` NULL: one is made if it is needed. */
static int join_in_thread(rouse_op *op, struct task_cell *cell, struct thread_waiter *given)
{
    struct slab *slab = slab_chunk_of(cell)->slab;
    rouse_context context = {.cancelled = 0};
    /* ACQ_REL pairs with the addition of zero in shutdown: who comes after it sees the task complete. */
    atomic_size_add(&slab->gate, 1, ACQ_REL);
    bool finished = (atomic_size_load(&cell->slot.word, ACQUIRE) & STATE_COMPLETE) != 0;
    int answer = ROUSE_OK;
    if (!finished) {
        rouse_runtime *runtime = runtime_of_scheduler(slab->scheduler);
        struct thread_waiter *waiter = given ? given : thread_waiter_new();
        answer = runtime_is_forked(runtime) ? ROUSE_FORKED
                 : waiter                   ? (int)await_in_thread(op, waiter, runtime)
                                            : ROUSE_NO_MEMORY;
        if (waiter && !given)
            thread_waiter_free(waiter);
    }
    atomic_size_sub(&slab->gate, 1, RELEASE);
    return finished ? (int)rouse_op_poll(op, &context) : answer;
}

ptrdiff_t rouse_op_await(rouse_op *op)
{
    struct local *local = local_current();
    if (!op)
        return ROUSE_INVALID;
    if (!local) {
        struct task_cell *joined = join_cell(op);
        return joined ? join_in_thread(op, joined, NULL) : await_in_plain_thread(op);
    }
    if (runtime_is_forked(runtime_of_scheduler(local->scheduler)))
        return ROUSE_FORKED;
    if (!local->around || !local->around->suspend)
        return ROUSE_IN_POLL;
    return await_in_fiber(op, local->around);
}

int runtime_join(rouse_task *task, void *result, struct thread_waiter *waiter)
{
    rouse_op op;
    rouse_join_init(&op, task, result);
    return os_current() ? (int)rouse_op_await(&op) : join_in_thread(&op, task->cell, waiter);
}

int rouse_join(rouse_task *task, void *result)
{
    return task && task->cell ? runtime_join(task, result, NULL) : ROUSE_INVALID;
}

/* The fiber's wait for a task has failed, because the fiber was cancelled or its deadline has passed. The task is told to
 * end, and waited for all the same: neither a cancel nor a deadline ends this wait. */
static void await_end(rouse_task *task, struct surroundings *around)
{
    rouse_context context = {{around->cell, &task_waker_table}, 0, {NULL, NULL, NULL}};
    rouse_op op;
    rouse_abort(task);
    while (task->cell) {
        rouse_join_init(&op, task, NULL);
        while (rouse_op_poll(&op, &context) == ROUSE_PENDING)
            around->suspend(around);
        if (task->cell) { /* a waker that cannot be counted cannot wait: looking again is all that is left */
            rouse_waker_wake_by_ref(&context.waker);
            around->suspend(around);
        }
    }
}

/* Whatever a plain thread needs for waiting is there before the task is: its state may point into the caller's frame, so
 * once it runs there is no way but to wait for it. */
int rouse_block_on_at(rouse_runtime *runtime, const rouse_task_type *type, const void *state, void *result,
                      const char *site)
{
    rouse_task task;
    struct local *local = local_current();
    struct thread_waiter *waiter = NULL;
    if (local && (!local->around || !local->around->suspend))
        return ROUSE_IN_POLL;
    if (!local && !(waiter = thread_waiter_new()))
        return ROUSE_NO_MEMORY;
    int status = rouse_spawn_at(&task, runtime, type, state, site);
    if (status == ROUSE_OK)
        status = runtime_join(&task, result, waiter);
    if (task.cell && local && status != ROUSE_FORKED)
        await_end(&task, local->around);
    rouse_detach(&task); /* in a forked child: the task is the parent's */
    if (waiter)
        thread_waiter_free(waiter);
    return status;
}
