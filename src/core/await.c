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
    *made = (struct made_task){.runtime = runtime_choose(runtime)};
    if (!made->runtime)
        return ROUSE_NO_MEMORY;
    struct worker *worker = made->worker = runtime_worker(made->runtime);
    return spawner_make(&made->runtime->spawner, worker ? worker->slab : NULL, worker ? &worker->counts : NULL, request,
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
    int status = runtime_make(&made, runtime, request);
    if (status == ROUSE_OK)
        runtime_place(&made, task);
    return status;
}

/* A plain thread: a waker that ends its sleep. It drives the runtime meanwhile if that is single-threaded. */
static ptrdiff_t await_in_thread(rouse_op *op, rouse_runtime *runtime)
{
    struct thread_waiter *waiter = thread_waiter_new();
    if (!waiter)
        return ROUSE_NO_MEMORY;
    rouse_waker waker = thread_waiter_waker(waiter);
    rouse_context context;
    ptrdiff_t answer;
    rouse_context_init(&context, &waker);
    while ((answer = rouse_op_poll(op, &context)) == ROUSE_PENDING)
        thread_waiter_wait(waiter, runtime);
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

ptrdiff_t rouse_op_await(rouse_op *op)
{
    struct local *local = local_current();
    if (!op)
        return ROUSE_INVALID;
    if (!local)
        return runtime_default_is_forked() ? ROUSE_FORKED : await_in_thread(op, NULL);
    if (runtime_is_forked(runtime_of_scheduler(local->scheduler)))
        return ROUSE_FORKED;
    if (!local->around || !local->around->suspend)
        return ROUSE_IN_POLL;
    return await_in_fiber(op, local->around);
}

/* A plain thread may have to drive the task's runtime, which may end meanwhile: it stays inside the gate, which shutdown
 * waits for when all tasks have completed. The runtime of a completed task may be gone, and nobody waits for it. */
static int join_in_thread(rouse_op *op, struct task_cell *cell)
{
    struct slab *slab = slab_chunk_of(cell)->slab;
    rouse_context context = {.cancelled = 0};
    /* ACQ_REL pairs with the addition of zero in shutdown: who comes after it sees the task complete. */
    atomic_size_add(&slab->gate, 1, ACQ_REL);
    bool finished = (atomic_size_load(&cell->slot.word, ACQUIRE) & STATE_COMPLETE) != 0;
    int answer = ROUSE_OK;
    if (!finished) {
        rouse_runtime *runtime = runtime_of_scheduler(slab->scheduler);
        answer = runtime_is_forked(runtime) ? ROUSE_FORKED : (int)await_in_thread(op, runtime);
    }
    atomic_size_sub(&slab->gate, 1, RELEASE);
    return finished ? (int)rouse_op_poll(op, &context) : answer;
}

int rouse_join(rouse_task *task, void *result)
{
    rouse_op op;
    if (!task || !task->cell)
        return ROUSE_INVALID;
    rouse_join_init(&op, task, result);
    return os_current() ? (int)rouse_op_await(&op) : join_in_thread(&op, task->cell);
}

int rouse_block_on_at(rouse_runtime *runtime, const rouse_task_type *type, const void *state, void *result,
                      const char *site)
{
    rouse_task task;
    struct local *local = local_current();
    if (local && (!local->around || !local->around->suspend))
        return ROUSE_IN_POLL;
    int status = rouse_spawn_at(&task, runtime, type, state, site);
    if (status != ROUSE_OK)
        return status;
    status = rouse_join(&task, result);
    if (task.cell) { /* the wait was cancelled: nobody is left who could want the value */
        rouse_abort(&task);
        rouse_detach(&task);
    }
    return status;
}
