/* The end of a runtime against wakes from threads that are none of its own: nothing of the runtime is touched after it was
 * freed, and the slab, which such a thread's waker may keep, is freed once, by whoever lets go last. */
#include "model_lock.h"

#include "explorer.h"

#include <string.h>

/* Chunks for one cell, which need no aligned memory to be found. */
#define slab_chunk_of slab_chunk_by_address
#include "core/slab.h"
#undef slab_chunk_of
#undef SLAB_CHUNK_BYTES
#define SLAB_CHUNK_BYTES ((size_t)192)
static struct slab_chunk *the_chunk;
static inline struct slab_chunk *slab_chunk_of(const void *cell)
{
    (void)cell;
    return the_chunk;
}

#include "core/slab.c"
#include "core/spawner.c"
#include "core/task.c"
#include "core/waker.c"

#include "support/harness.h"

enum { ENTRY_TASK = 1, ENTRY_STOP = 2 };

/* What a runtime is here: all of it is freed at the end. */
static struct house {
    struct spawner spawner; /* first: the scheduler is found by it */
    rouse_allocator allocator;
    struct slab *slab; /* of the worker */
    struct spawn_counts counts;
    struct local local;
    atomic_u32 entries;  /* bits: what there is for the worker, who sleeps on it */
    atomic_u32 sleepers; /* looked at after each submission, as the idle state is */
} * house;

static struct task_cell *cell;
static atomic_u32 worker_ended;
static unsigned dropped;
static bool has_owner; /* the slab is a worker's, or that of plain threads */

/* ---- what stands below ---- */

void surroundings_init(struct surroundings *around, struct task_cell *of)
{
    *around = (struct surroundings){.cell = of};
    surroundings_begin(around);
}

void timer_disarm(struct timer *timer)
{
    (void)timer;
}

int scope_add(struct scope *scope, struct origin *child)
{
    (void)scope, (void)child;
    return ROUSE_OK;
}

void scope_child_ended(struct origin *child, int value)
{
    (void)child, (void)value;
}

uint32_t os_process(void)
{
    return 0;
}

static void *take_memory(void *context, size_t bytes, size_t alignment)
{
    (void)context, (void)alignment;
    return model_alloc(bytes);
}

static void give_memory(void *context, void *memory, size_t bytes, size_t alignment)
{
    (void)context, (void)bytes, (void)alignment;
    model_free(memory);
}

/* ---- the scheduler ---- */

static void put(struct house *of, uint32_t entry)
{
    model_check(!(atomic_u32_or(&of->entries, entry, RELEASE) & entry));
    os_wake_one(&of->entries.value);
}

static void submit(struct task_scheduler *scheduler, struct task_cell *submitted)
{
    struct house *of = (struct house *)(void *)scheduler;
    model_check(submitted == cell);
    put(of, ENTRY_TASK);
    atomic_u32_load(&of->sleepers, RELAXED);
}

static void resubmit(struct local *local, struct task_cell *submitted)
{
    submit(local->scheduler, submitted);
}

static void completed(struct local *local)
{
    struct house *of = (struct house *)(void *)local->scheduler;
    spawner_count_completion(&of->spawner, &of->counts);
}

/* ---- the task: it waits until it is cancelled ---- */

static int poll(void *state, void *result, rouse_context *context)
{
    (void)state, (void)result, (void)context;
    return ROUSE_PENDING;
}

static void drop(void *state)
{
    (void)state;
    dropped++;
}

static const rouse_task_type type = {.poll = poll, .drop = drop};

/* ---- threads ---- */

/* Runs the task, or answers that it is time to stop. */
static bool work_once(void)
{
    struct surroundings around;
    uint32_t entries;
    while (!(entries = atomic_u32_exchange(&house->entries, 0, ACQUIRE)))
        os_wait_on(&house->entries.value, 0, ROUSE_NEVER);
    if (entries & ENTRY_TASK)
        task_run(cell, &around, &house->local);
    return entries & ENTRY_STOP;
}

static void worker(void)
{
    os_current_set(&house->local);
    while (!work_once()) {}
    os_current_set(NULL);
    atomic_u32_store(&worker_ended, 1, RELEASE);
    os_wake_one(&worker_ended.value);
}

/* The steps of rouse_runtime_shutdown, run_down, executor_multi_stop, destroy and demolish, in their order. */
static void shut_down(void)
{
    struct spawner *spawner = &house->spawner;
    spawner_close(spawner);
    spawner_cancel_all(has_owner ? house->slab : spawner->outside);
    for (;;) {
        uint32_t endings = atomic_u32_load(&spawner->endings, ACQUIRE);
        if (atomic_u64_load(&house->counts.completed, ACQUIRE) == 1)
            break;
        os_wait_on(&spawner->endings.value, endings, os_now() + 1);
    }
    put(house, ENTRY_STOP);
    while (!atomic_u32_load(&worker_ended, ACQUIRE))
        os_wait_on(&worker_ended.value, 0, ROUSE_NEVER);
    slab_wait_for_gate(spawner->outside);
    slab_wait_for_gate(house->slab);
    slab_retire(house->slab);
    slab_retire(spawner->outside);
    model_free(house);
}

/* The same where the thread that ends the runtime is the one that drives it. */
static void shut_down_alone(void)
{
    struct house *mine = house;
    os_current_set(&mine->local);
    spawner_close(&mine->spawner);
    spawner_cancel_all(has_owner ? mine->slab : mine->spawner.outside);
    while (atomic_u64_load(&mine->counts.completed, ACQUIRE) == 0)
        work_once();
    os_current_set(NULL);
    slab_wait_for_gate(mine->spawner.outside);
    slab_wait_for_gate(mine->slab);
    slab_retire(mine->slab);
    slab_retire(mine->spawner.outside);
    model_free(mine);
}

static void wake_by_value(void)
{
    rouse_waker waker = {cell, &task_waker_table};
    rouse_waker_wake(&waker);
}

static void wake_by_reference_and_drop(void)
{
    rouse_waker waker = {cell, &task_waker_table};
    rouse_waker_wake_by_ref(&waker);
    rouse_waker_drop(&waker);
}

static void drop_only(void)
{
    rouse_waker waker = {cell, &task_waker_table};
    rouse_waker_drop(&waker);
}

/* ---- setup ---- */

static void setup(void)
{
    bool large;
    house = model_alloc(sizeof *house);
    memset(house, 0, sizeof *house);
    house->allocator = (rouse_allocator){take_memory, give_memory, NULL};
    house->spawner.scheduler.submit = submit;
    house->spawner.scheduler.resubmit = resubmit;
    house->spawner.scheduler.completed = completed;
    spawner_init(&house->spawner, &house->allocator);
    house->slab = slab_new(&house->allocator, &house->spawner.scheduler, &house->local);
    house->local.scheduler = &house->spawner.scheduler;
    struct slab *slab = has_owner ? house->slab : house->spawner.outside;
    cell = (struct task_cell *)(void *)slab_take(slab, sizeof *cell, 16, &large);
    the_chunk = atomic_ptr_load(&slab->chunks, RELAXED);
    task_prepare(cell, &type, NULL, false, 0, NULL);
    task_acquire(cell);
    /* It has been polled once: what comes now is wakes. */
    atomic_size_init(&cell->slot.word, cell->slot.word.value - STATE_NOTIFIED - STATE_REFERENCE);
    atomic_u64_init(&house->counts.spawned, 1);
    atomic_u32_init(&worker_ended, 0);
    dropped = 0;
}

static void check_dropped(void)
{
    model_check(dropped == 1);
}

static void run(struct model *model)
{
    model->setup = setup;
    model->finish = check_dropped; /* and all memory is free */
    for (int i = 0; i < 2; i++) {
        has_owner = i;
        assert_true(model_run(model).ok);
    }
}

TEST(a_wake_while_the_runtime_ends_touches_nothing_of_it_afterwards)
{
    struct model model = {.name = "gate", .threads = {worker, shut_down, wake_by_value}};
    model.preemption_bound = (unsigned)test_scale(2, 3);
    run(&model);
}

TEST(a_wake_while_the_driver_ends_the_runtime_touches_nothing_of_it_afterwards)
{
    struct model model = {.name = "gate alone", .threads = {shut_down_alone, wake_by_value}, .history = 1};
    run(&model);
    model.threads[1] = wake_by_reference_and_drop;
    run(&model);
}

TEST(a_waker_that_is_dropped_while_the_runtime_ends_frees_the_slab_or_leaves_it)
{
    struct model model = {.name = "gate drop", .threads = {shut_down_alone, drop_only}, .history = 2};
    run(&model);
}
