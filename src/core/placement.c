/* Which worker a task goes to. Round-robin and work-stealing differ in this file, and in whether workers steal. */
#include "core/runtime.h"

/* Round robin deals new tasks in turn. */
static struct worker *next_in_turn(struct rouse_runtime *runtime)
{
    uint32_t turn = atomic_u32_add(&runtime->next_worker, 1, RELAXED); /* only the spread matters */
    return &runtime->worker[turn % runtime->workers];
}

static bool deals(const struct rouse_runtime *runtime)
{
    return runtime->scheduler == ROUSE_SCHEDULER_ROUND_ROBIN && runtime->workers > 1;
}

/* A woken task may have waited long enough: it goes to a worker that sleeps, if there is one, for one that is awake may
 * be kept by the task it runs. */
static struct worker *sleeper_in_turn(struct rouse_runtime *runtime)
{
    struct worker *worker = next_in_turn(runtime);
    uint32_t sleeper = idle_sleeper_from(&runtime->idle, worker->index);
    return sleeper == IDLE_NOBODY ? worker : &runtime->worker[sleeper];
}

static void deal(struct worker *worker, const struct worker *self, struct task_cell *cell)
{
    if (worker == self)
        worker_push(worker, cell);
    else
        worker_send(worker, cell);
}

/* From a thread that is no worker of the runtime. */
static void submit_from_outside(struct rouse_runtime *runtime, struct task_cell *cell, bool is_new)
{
    if (deals(runtime)) {
        deal(is_new ? next_in_turn(runtime) : sleeper_in_turn(runtime), NULL, cell);
    } else if (runtime->workers == 1) {
        worker_send(&runtime->worker[0], cell);
    } else {
        inject_push(&runtime->inject, &cell->slot.link);
        worker_notify(runtime);
    }
}

/* Pinned fibers are placed for life, and an accept loop would keep all its connections on its own worker. So one with
 * more than its share sends new ones away; which of the others is drawn by turn. */
static struct worker *less_loaded(struct rouse_runtime *runtime, struct worker *worker)
{
    struct worker *other = next_in_turn(runtime);
    uint32_t here = atomic_u32_load(&worker->fibers, RELAXED), there = atomic_u32_load(&other->fibers, RELAXED);
    return here > there + there / 4 + 1 ? other : worker;
}

/* By a task of this worker, or by its end: what it has spawned or woken is warm, and runs next. By the reactor: there may
 * be many. */
static void push_here(struct worker *worker, struct task_cell *cell)
{
    if (worker->dispatching)
        worker_push(worker, cell);
    else
        worker_push_next(worker, cell);
}

void placement_spawned(struct rouse_runtime *runtime, struct worker *worker, struct task_cell *cell)
{
    if (!worker) {
        submit_from_outside(runtime, cell, true);
    } else if (deals(runtime)) {
        deal(next_in_turn(runtime), worker, cell);
    } else {
        struct worker *target = worker->steals && task_hooks(cell) ? less_loaded(runtime, worker) : worker;
        if (target != worker) {
            worker_send(target, cell);
            return;
        }
        push_here(worker, cell);
    }
}

void placement_submit(struct task_scheduler *scheduler, struct task_cell *cell)
{
    struct rouse_runtime *runtime = runtime_of_scheduler(scheduler);
    struct worker *worker = runtime_worker(runtime);
    if (runtime_is_forked(runtime))
        return; /* a parent's task that a forked child wakes: it never runs here, and locks may be held for ever */
    if (atomic_size_load(&cell->slot.word, ACQUIRE) & STATE_PINNED) { /* pairs with pin in worker.c */
        struct worker *home = &runtime->worker[atomic_u32_load(task_hooks(cell)->home(cell), RELAXED)];
        if (home == worker)
            worker_push(home, cell);
        else
            worker_send(home, cell);
    } else if (!worker) {
        submit_from_outside(runtime, cell, false);
    } else {
        push_here(worker, cell);
    }
}

void placement_resubmit(struct local *local, struct task_cell *cell)
{
    struct worker *worker = worker_of_local(local);
    if (runtime_is_forked(worker->runtime))
        return;
    worker_push(worker, cell);
    /* A lone task that yields runs again here; with others beside it a peer may help. */
    if (worker->steals && ring_length(&worker->ring) > (atomic_ptr_load(&worker->slot, RELAXED) ? 0u : 1u))
        worker_notify(worker->runtime);
}

void placement_completed(struct local *local)
{
    struct worker *worker = worker_of_local(local);
    spawner_count_completion(&worker->runtime->spawner, &worker->counts);
}
