#include "core/runtime.h"
#include "core/options.h"
#include <string.h>

#define WORKERS_MAX         1024
#define STACK_BYTES_DEFAULT ((size_t)64 * 1024)
/* How long a shutdown goes on looking after its time is up: cancelled tasks whose shields have just ended need to run. */
#define SHUTDOWN_LAST_LOOK_NS ROUSE_MS(100)
/* The longest sleep between two looks at what is left. */
#define SHUTDOWN_LOOK_NS ROUSE_MS(5)
/* The first pause between two rounds of cancelling. */
#define SHUTDOWN_ROUND_NS ROUSE_MS(5)

/* ---- making ---- */

/* The options with defaults filled in, and checked. */
static int complete_options(rouse_options *full, const rouse_options *given)
{
    *full = (rouse_options)ROUSE_OPTIONS_INIT;
    int status = options_complete(full, sizeof *full, given, offsetof(rouse_options, executor) + sizeof(int));
    if (status != ROUSE_OK)
        return status;
    bool single = full->executor == ROUSE_EXECUTOR_SINGLE;
    if (full->executor < 0 || full->executor > ROUSE_EXECUTOR_SINGLE)
        return ROUSE_INVALID;
    if (full->scheduler < 0 || full->scheduler > ROUSE_SCHEDULER_ROUND_ROBIN)
        return ROUSE_INVALID;
    if (single && (full->scheduler != 0 || full->workers > 1 || full->dedicated_poller))
        return ROUSE_INVALID;
    if (full->workers > WORKERS_MAX)
        return ROUSE_INVALID;
    if (full->allocator && (!full->allocator->alloc || !full->allocator->free))
        return ROUSE_INVALID;
    if (full->workers == 0)
        full->workers = single ? 1 : os_processors();
    if (full->workers > WORKERS_MAX)
        full->workers = WORKERS_MAX;
    if (full->reactors > full->workers)
        return ROUSE_INVALID;
    if (full->reactors == 0)
        full->reactors = full->workers;
    if (full->dedicated_poller)
        full->reactors = 1;
    return ROUSE_OK;
}

/* Arrays of the runtime in one allocation, so that there is one failure and one free. */
struct layout {
    size_t runtime, workers, reactors, threads, sleepers, listed, bytes;
};

static struct layout layout_of(unsigned workers, unsigned reactors)
{
    struct layout at = {.runtime = 0};
    at.workers = size_align(sizeof(struct rouse_runtime), 64);
    at.reactors = size_align(at.workers + workers * size_align(sizeof(struct worker), 64), 64);
    at.threads = size_align(at.reactors + reactors * sizeof(struct reactor), 64);
    at.sleepers = at.threads + workers * sizeof(os_thread);
    at.listed = at.sleepers + workers * sizeof(uint16_t);
    at.bytes = at.listed + workers * sizeof(bool);
    return at;
}

/* Undoes what runtime_build did, in reverse order; also of a build that stopped half way. */
static void demolish(struct rouse_runtime *runtime)
{
    rouse_allocator allocator = runtime->allocator;
    struct layout at = layout_of(runtime->workers_made, runtime->reactors_made);
    for (unsigned i = 0; i < runtime->workers_made; i++) {
        if (!runtime->worker[i].slab)
            continue;
        stack_pool_fini(&runtime->worker[i].stacks);
        slab_retire(runtime->worker[i].slab);
    }
    for (unsigned i = 0; i < runtime->reactors_made; i++)
        reactor_fini(&runtime->reactor[i], NULL, NULL);
    if (runtime->spawner.outside)
        slab_retire(runtime->spawner.outside);
    stack_store_fini(&runtime->stacks);
    alloc_give(&allocator, runtime, at.bytes, 64);
}

static int build_parts(struct rouse_runtime *runtime)
{
    int status = spawner_init(&runtime->spawner, &runtime->allocator);
    for (unsigned i = 0; status == ROUSE_OK && i < runtime->reactors; i++) {
        status = reactor_init(&runtime->reactor[i], runtime, &runtime->allocator);
        runtime->reactor[i].attended = !runtime_is_single(runtime);
    }
    for (unsigned i = 0; status == ROUSE_OK && i < runtime->workers; i++) {
        struct worker *worker = &runtime->worker[i];
        worker_init(worker, runtime, i, &runtime->reactor[i % runtime->reactors]);
        worker->slab = slab_new(&runtime->allocator, &runtime->spawner.scheduler, worker);
        if (!worker->slab)
            return ROUSE_NO_MEMORY;
        stack_pool_init(&worker->stacks, &runtime->stacks);
    }
    return status;
}

int rouse_runtime_new(rouse_runtime **made, const rouse_options *options)
{
    rouse_options full;
    if (!made)
        return ROUSE_INVALID;
    *made = NULL;
    int status = complete_options(&full, options);
    if (status != ROUSE_OK)
        return status;
    const rouse_allocator *allocator = alloc_choose(full.allocator);
    struct layout at = layout_of(full.workers, full.reactors);
    char *memory = alloc_take(allocator, at.bytes, 64);
    if (!memory)
        return ROUSE_NO_MEMORY;
    memset(memory, 0, at.bytes);
    struct rouse_runtime *runtime = (struct rouse_runtime *)(void *)memory;
    *runtime = (struct rouse_runtime){
        .allocator = *allocator,
        .executor = full.executor,
        .scheduler = full.scheduler,
        .workers = full.workers,
        .reactors = full.reactors,
        .workers_made = full.workers,
        .reactors_made = full.reactors,
        .dedicated_poller = full.dedicated_poller != 0,
        .unguarded_stacks = full.unguarded_stacks != 0,
        .worker = (struct worker *)(void *)(memory + at.workers),
        .reactor = (struct reactor *)(void *)(memory + at.reactors),
        .thread = (os_thread *)(void *)(memory + at.threads),
    };
    runtime->spawner.scheduler.submit = placement_submit;
    runtime->spawner.scheduler.resubmit = placement_resubmit;
    runtime->spawner.scheduler.completed = placement_completed;
    list_init(&runtime->seat_waiters);
    inject_init(&runtime->inject);
    idle_init(&runtime->idle, full.workers, (uint16_t *)(void *)(memory + at.sleepers), (bool *)(memory + at.listed));
    status = stack_store_init(&runtime->stacks, full.stack_bytes ? full.stack_bytes : STACK_BYTES_DEFAULT,
                              &runtime->allocator);
    if (status != ROUSE_OK) {
        alloc_give(allocator, runtime, at.bytes, 64);
        return status;
    }
    status = build_parts(runtime);
    if (status == ROUSE_OK && full.report_overflow) {
        status = overflow_report_enable(runtime);
        runtime->reports_overflow = status == ROUSE_OK;
    }
    if (status == ROUSE_OK && !runtime_is_single(runtime)) {
        status = executor_multi_start(runtime);
        if (status != ROUSE_OK)
            executor_multi_stop(runtime);
    }
    if (status != ROUSE_OK) {
        if (runtime->reports_overflow)
            overflow_report_disable(runtime);
        demolish(runtime);
        return status;
    }
    *made = runtime;
    return ROUSE_OK;
}

/* ---- ending ---- */

static uint64_t sum(struct rouse_runtime *runtime, size_t member)
{
    struct spawner *spawner = &runtime->spawner;
    uint64_t total = atomic_u64_load((atomic_u64 *)(void *)((char *)&spawner->outside_counts + member), ACQUIRE);
    for (unsigned i = 0; i < runtime->workers; i++)
        total += atomic_u64_load((atomic_u64 *)(void *)((char *)&runtime->worker[i].counts + member), ACQUIRE);
    return total;
}

/* Completions are summed first: when the sums are equal then, everything that was ever spawned has ended. */
static uint64_t count_alive(struct rouse_runtime *runtime)
{
    uint64_t completed = sum(runtime, offsetof(struct spawn_counts, completed));
    return sum(runtime, offsetof(struct spawn_counts, spawned)) - completed;
}

static void cancel_all(struct rouse_runtime *runtime)
{
    spawner_cancel_all(runtime->spawner.outside);
    for (unsigned i = 0; i < runtime->workers_made; i++)
        spawner_cancel_all(runtime->worker[i].slab);
}

/* Lets the tasks run to their ends. True once none is left. A task may have been spawned just behind a round of
 * cancelling, so there are several, ever further apart: each looks at every cell. */
static bool run_down(struct rouse_runtime *runtime, int64_t deadline_ns)
{
    struct spawner *spawner = &runtime->spawner;
    bool single = runtime_is_single(runtime);
    int64_t pause_ns = SHUTDOWN_ROUND_NS, round_ns = os_now();
    for (;;) {
        uint32_t endings = atomic_u32_load(&spawner->endings, ACQUIRE);
        int64_t now_ns = os_now();
        if (runtime_is_forked(runtime))
            return false;
        if (count_alive(runtime) == 0)
            return true;
        if (now_ns >= deadline_ns)
            return false;
        if (now_ns >= round_ns) {
            cancel_all(runtime);
            round_ns = rouse_after(pause_ns);
            pause_ns *= 2;
        }
        int64_t until_ns = now_ns + SHUTDOWN_LOOK_NS; /* an ending may have been missed, see spawner.c */
        if (until_ns > deadline_ns)
            until_ns = deadline_ns;
        if (!single)
            os_wait_on(atomic_u32_word(&spawner->endings), endings, until_ns);
        else
            executor_single_turn(runtime, until_ns);
    }
}

struct reporting {
    rouse_report_function *report;
    void *context;
};

static void report_task(struct slab_cell *slot, void *context)
{
    struct task_cell *cell = (struct task_cell *)(void *)slot;
    struct reporting *to = context;
    /* ACQUIRE pairs with the completing runner. */
    if (!(atomic_size_load(&slot->word, ACQUIRE) & STATE_COMPLETE)) {
        rouse_leftover leftover = {"task", task_name(cell), cell->site};
        to->report(to->context, &leftover);
    }
    task_release(cell);
}

static void report_tasks(struct rouse_runtime *runtime, struct reporting *to)
{
    if (!to->report)
        return;
    slab_walk(runtime->spawner.outside, task_acquire_live, report_task, to);
    for (unsigned i = 0; i < runtime->workers; i++)
        slab_walk(runtime->worker[i].slab, task_acquire_live, report_task, to);
}

static void report_stream(unsigned traits, const char *site, void *context)
{
    struct reporting *to = context;
    rouse_leftover leftover = {"stream", traits & SLOT_LISTENER ? "listener" : "socket", site};
    if (to->report)
        to->report(to->context, &leftover);
}

static void destroy(struct rouse_runtime *runtime, struct reporting *to)
{
    if (!runtime_is_single(runtime))
        executor_multi_stop(runtime);
    slab_wait_for_gate(runtime->spawner.outside);
    for (unsigned i = 0; i < runtime->workers; i++)
        slab_wait_for_gate(runtime->worker[i].slab);
    for (unsigned i = 0; i < runtime->reactors_made; i++)
        reactor_fini(&runtime->reactor[i], report_stream, to);
    if (runtime->reports_overflow)
        overflow_report_disable(runtime);
    demolish(runtime);
}

int runtime_end(rouse_runtime *runtime, int64_t timeout_ns, rouse_report_function *report, void *context)
{
    struct reporting to = {report, context};
    uint32_t idle = 0;
    if (os_current() && runtime_worker(runtime))
        return ROUSE_BUSY;
    if (!atomic_u32_cas(&runtime->ending, &idle, 1, ACQ_REL, RELAXED))
        return ROUSE_BUSY;
    bool single = runtime_is_single(runtime);
    if (single && !executor_single_try_seat(runtime)) {
        atomic_u32_store(&runtime->ending, 0, RELEASE);
        return ROUSE_BUSY;
    }
    int64_t limit_ns = rouse_after(timeout_ns);
    atomic_i64_store(&runtime->spawner.scheduler.limit_ns, limit_ns, RELAXED); /* read after the wakes that follow */
    spawner_close(&runtime->spawner);
    bool empty = run_down(runtime, limit_ns) || run_down(runtime, rouse_after(SHUTDOWN_LAST_LOOK_NS));
    if (single)
        executor_single_leave_seat(runtime);
    if (runtime_is_forked(runtime))
        return ROUSE_FORKED; /* a task that this thread drove has forked and returned: this is the child */
    if (!empty) {
        report_tasks(runtime, &to);
        atomic_u32_store(&runtime->ending, 0, RELEASE);
        return ROUSE_TIMED_OUT;
    }
    destroy(runtime, &to);
    return ROUSE_OK;
}

int rouse_runtime_shutdown(rouse_runtime *runtime, int64_t timeout_ns, rouse_report_function *report, void *context)
{
    if (!runtime)
        return ROUSE_INVALID;
    if (runtime_is_forked(runtime))
        return ROUSE_FORKED;
    return default_is(runtime) ? default_end(timeout_ns, report, context)
                               : runtime_end(runtime, timeout_ns, report, context);
}

/* In a forked child: threads are gone, the kernel's sets are shared with the parent. Closing the descriptors does not touch
 * the sets; everything else is left to the end of the process, for the parent's locks may have been held. */
void rouse_runtime_abandon(rouse_runtime *runtime)
{
    if (!runtime || !runtime_is_forked(runtime))
        return;
    for (unsigned i = 0; i < runtime->reactors_made; i++) {
        if (runtime->reactor[i].backend)
            backend_close(runtime->reactor[i].backend);
        runtime->reactor[i].backend = NULL;
    }
}

rouse_runtime *rouse_runtime_current(void)
{
    struct local *local = local_current();
    return local ? runtime_of_scheduler(local->scheduler) : NULL;
}

/* ---- driving from another loop ---- */

int rouse_runtime_turn(rouse_runtime *runtime, int64_t deadline_ns)
{
    if (!runtime || !runtime_is_single(runtime))
        return ROUSE_INVALID;
    if (runtime_is_forked(runtime))
        return ROUSE_FORKED;
    if (os_current())
        return ROUSE_IN_POLL;
    if (!executor_single_try_seat(runtime))
        return ROUSE_BUSY;
    size_t polls = executor_single_turn(runtime, deadline_ns);
    executor_single_end_turn(runtime);
    return runtime_is_forked(runtime) ? ROUSE_FORKED : (int)polls;
}

int rouse_runtime_descriptor(rouse_runtime *runtime, intptr_t *descriptor)
{
    if (!runtime || !descriptor || !runtime_is_single(runtime))
        return ROUSE_INVALID;
    if (runtime_is_forked(runtime))
        return ROUSE_FORKED;
    int status = backend_handle(runtime->reactor[0].backend, descriptor);
    if (status == ROUSE_OK)
        executor_single_watch(runtime); /* only then does somebody wait for it, and is woken by it */
    return status;
}

int64_t rouse_runtime_deadline(rouse_runtime *runtime)
{
    if (!runtime || !runtime_is_single(runtime))
        return ROUSE_NEVER;
    if (runtime_is_forked(runtime))
        return ROUSE_NEVER;
    /* Another thread drives: when it stops, the descriptor is readable, if somebody waits for that. */
    if (!executor_single_try_seat(runtime))
        return atomic_u32_load(&runtime->watched, RELAXED) ? ROUSE_NEVER : 0;
    int64_t deadline_ns = worker_has_work(&runtime->worker[0]) ? 0 : reactor_next_timer(&runtime->reactor[0]);
    executor_single_end_turn(runtime);
    return deadline_ns;
}

/* ---- counters ---- */

int rouse_runtime_stats(rouse_runtime *runtime, rouse_runtime_info *info, rouse_worker_stats *workers, size_t count)
{
    const size_t least = offsetof(rouse_runtime_info, spawned) + sizeof info->spawned; /* its first version */
    if (!runtime || !info || info->size < least)
        return ROUSE_INVALID;
    if (runtime_is_forked(runtime))
        return ROUSE_FORKED;
    rouse_runtime_info full = {
        .size = info->size,
        .workers = runtime->workers,
        .reactors = runtime->reactors,
        .tasks = (size_t)count_alive(runtime),
        .spawned = sum(runtime, offsetof(struct spawn_counts, spawned)),
    };
    memcpy(info, &full, full.size < sizeof full ? full.size : sizeof full);
    for (size_t i = 0; workers && i < count && i < runtime->workers; i++) {
        const struct worker_counters *from = &runtime->worker[i].counters;
        workers[i] = (rouse_worker_stats){
            atomic_u64_load(&from->polls, RELAXED),
            atomic_u64_load(&from->steals, RELAXED),
            atomic_u64_load(&from->parks, RELAXED),
            atomic_u64_load(&from->turns, RELAXED),
            atomic_u64_load(&from->sweeps, RELAXED),
            atomic_u64_load(&from->budget_ends, RELAXED),
            {0, 0},
        };
    }
    return ROUSE_OK;
}
