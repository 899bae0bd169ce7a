/* The threaded executor: a loop of worker steps on each of its threads. */
#include "core/runtime.h"

static bool is_stopping(const struct rouse_runtime *runtime)
{
    return atomic_u32_load(&runtime->stopping, ACQUIRE) != 0; /* pairs with executor_multi_stop */
}

/* No thread begins before it is settled how many there are: the others would be dealt tasks that nobody runs. */
static void wait_for_start(struct rouse_runtime *runtime)
{
    while (!atomic_u32_load(&runtime->started, ACQUIRE)) /* pairs with executor_multi_start */
        os_wait_on(atomic_u32_word(&runtime->started), 0, ROUSE_NEVER);
}

static void work(void *argument)
{
    struct worker *worker = argument;
    struct rouse_runtime *runtime = worker->runtime;
    void *fault_stack = overflow_thread_enter(runtime);
    wait_for_start(runtime);
    worker_enter(worker);
    /* A task that forked and returned in the child ends there: this is the child's only thread, and everything the worker
     * looks at is the parent's. */
    while (!is_stopping(runtime) && !runtime_is_forked(runtime))
        if (worker_step(worker) == WORKER_IDLE)
            worker_park(worker, ROUSE_NEVER);
    worker_leave(worker);
    overflow_thread_leave(fault_stack);
}

/* The dedicated poller: waits for the kernel and does nothing else. The tasks it wakes come to the workers from outside. */
static void poll_kernel(void *argument)
{
    struct rouse_runtime *runtime = argument;
    struct reactor *reactor = &runtime->reactor[0];
    lock_acquire(&reactor->turn);
    while (!is_stopping(runtime))
        reactor_turn(reactor, ROUSE_NEVER);
    lock_release(&reactor->turn);
}

/* With fewer threads than asked for, the runtime is as if it had been asked for those. */
static void settle(struct rouse_runtime *runtime)
{
    runtime->workers = runtime->threads;
    if (runtime->reactors > runtime->workers)
        runtime->reactors = runtime->workers;
    idle_init(&runtime->idle, runtime->workers, runtime->idle.sleepers, runtime->idle.listed);
    for (unsigned i = 0; i < runtime->workers; i++) {
        struct worker *worker = &runtime->worker[i];
        worker->local.reactor = &runtime->reactor[i % runtime->reactors];
        worker->steals = worker->steals && runtime->workers > 1;
    }
}

int executor_multi_start(struct rouse_runtime *runtime)
{
    int status = ROUSE_OK;
    if (runtime->dedicated_poller) {
        status = os_thread_start(&runtime->poller, poll_kernel, runtime, "rouse-poller");
        if (status != ROUSE_OK)
            runtime->dedicated_poller = false;
    }
    while (status == ROUSE_OK && runtime->threads < runtime->workers) {
        struct worker *worker = &runtime->worker[runtime->threads];
        status = os_thread_start(&runtime->thread[runtime->threads], work, worker, "rouse-worker");
        if (status == ROUSE_OK)
            runtime->threads++;
    }
    if (runtime->threads > 0) {
        status = ROUSE_OK;
        settle(runtime);
    }
    atomic_u32_store(&runtime->started, 1, RELEASE); /* with wait_for_start */
    os_wake_all(atomic_u32_word(&runtime->started));
    return status;
}

void executor_multi_stop(struct rouse_runtime *runtime)
{
    atomic_u32_store(&runtime->stopping, 1, RELEASE); /* with is_stopping here and in worker.c */
    for (unsigned i = 0; i < runtime->threads; i++)
        parker_unpark(&runtime->worker[i].parker);
    for (unsigned i = 0; i < runtime->threads; i++)
        os_thread_join(&runtime->thread[i]);
    if (runtime->dedicated_poller) {
        reactor_wake(&runtime->reactor[0]);
        os_thread_join(&runtime->poller);
    }
    runtime->threads = 0;
}
