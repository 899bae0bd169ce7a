/* What models need around a task: cells whose use after the end is noticed, a scheduler with room for one entry, wakers
 * that are counted. Include it instead of the files that it includes. The slab is replaced: cells are model_alloc's,
 * and all of them belong to one chunk, wherever they lie. */
#ifndef MODEL_TASK_H
#define MODEL_TASK_H

#include "explorer.h"

#include <string.h>

/* memcpy of a length that the compiler does not know is not announced by it. */
static inline void *model_copy(void *to, const void *from, size_t bytes)
{
    model_plain(from, bytes, false, "memcpy");
    model_plain(to, bytes, true, "memcpy");
    return memcpy(to, from, bytes);
}
#define memcpy model_copy

/* Chunks are found by an address's high bits; here there is one chunk. */
#define slab_chunk_of slab_chunk_by_address
#include "core/slab.h"
#undef slab_chunk_of
static struct slab model_slab;
static struct slab_chunk model_chunk;
static inline struct slab_chunk *slab_chunk_of(const void *cell)
{
    (void)cell;
    return &model_chunk;
}

#include "core/op.h"
#include "core/scope.h"
#include "core/surroundings.h"
#include "core/task.h"
#include "core/timer.h"

/* ---- the scheduler: a queue for one entry, for a task has one at most ---- */

enum { ENTRY_NONE = 0, ENTRY_TASK = 1, ENTRY_END = 2 };

static struct {
    atomic_u32 word; /* ENTRY_*: what a worker takes, and sleeps on */
    struct task_cell *cell;
    bool single; /* one worker takes: it need not be told of the end */
} entry;

static struct task_scheduler model_scheduler;
static struct local model_locals[MODEL_THREADS + 1]; /* by thread; the last one of setup and finish */

/* RELEASE and ACQUIRE, as every real queue has them. */
static void model_submit(struct task_scheduler *scheduler, struct task_cell *cell)
{
    (void)scheduler;
    model_check(cell == entry.cell);
    model_check(atomic_u32_exchange(&entry.word, ENTRY_TASK, RELEASE) == ENTRY_NONE);
    os_wake_one(&entry.word.value);
}

static void model_resubmit(struct local *local, struct task_cell *cell)
{
    model_submit(local->scheduler, cell);
}

static void model_completed(struct local *local)
{
    (void)local;
    if (entry.single)
        return;
    atomic_u32_store(&entry.word, ENTRY_END, RELEASE);
    os_wake_all(&entry.word.value);
}

/* The thread belongs to the executor: it wakes without the gate, as workers do. */
static inline void model_enter_executor(void)
{
    struct local *local = &model_locals[model_self()];
    *local = (struct local){.scheduler = &model_scheduler};
    os_current_set(local);
}

/* The entry, which is waited for; NULL at the end. */
static inline struct task_cell *model_take(void)
{
    uint32_t word;
    while ((word = atomic_u32_exchange(&entry.word, ENTRY_NONE, ACQUIRE)) == ENTRY_NONE)
        os_wait_on(&entry.word.value, ENTRY_NONE, ROUSE_NEVER);
    if (word == ENTRY_TASK)
        return entry.cell;
    atomic_u32_store(&entry.word, ENTRY_END, RELAXED); /* for the others */
    os_wake_all(&entry.word.value);
    return NULL;
}

/* ---- counted wakers that signal a thread ---- */

static struct signal {
    atomic_u32 raised;
    int references[MODEL_THREADS + 1]; /* by thread: clones less those given up; the sum must be zero */
} model_signals[3];

static rouse_waker signal_clone(void *data);

static void signal_wake_by_ref(void *data)
{
    struct signal *signal = data;
    atomic_u32_store(&signal->raised, 1, RELEASE);
    os_wake_one(&signal->raised.value);
}

static void signal_drop(void *data)
{
    ((struct signal *)data)->references[model_self()]--;
}

static void signal_wake(void *data)
{
    signal_wake_by_ref(data);
    signal_drop(data);
}

static const rouse_waker_table signal_table = {signal_clone, signal_wake, signal_wake_by_ref, signal_drop};

static rouse_waker signal_clone(void *data)
{
    ((struct signal *)data)->references[model_self()]++;
    return (rouse_waker){data, &signal_table};
}

/* A borrowed waker of the signal. */
static inline rouse_waker signal_waker(unsigned number)
{
    return (rouse_waker){&model_signals[number], &signal_table};
}

static inline void signal_wait(unsigned number)
{
    while (atomic_u32_exchange(&model_signals[number].raised, 0, ACQUIRE) == 0)
        os_wait_on(&model_signals[number].raised.value, 0, ROUSE_NEVER);
}

/* In finish: every waker that was cloned was called or dropped. */
static inline void signals_check(void)
{
    for (unsigned i = 0; i < sizeof model_signals / sizeof *model_signals; i++) {
        int sum = 0;
        for (unsigned t = 0; t <= MODEL_THREADS; t++)
            sum += model_signals[i].references[t];
        model_check(sum == 0);
    }
}

/* ---- setup ---- */

static inline void model_task_setup(void)
{
    memset(model_signals, 0, sizeof model_signals);
    memset(&entry, 0, sizeof entry);
    memset(&model_slab, 0, sizeof model_slab);
    model_scheduler =
        (struct task_scheduler){.submit = model_submit, .resubmit = model_resubmit, .completed = model_completed};
    atomic_i64_init(&model_scheduler.limit_ns, ROUSE_NEVER);
    model_slab.scheduler = &model_scheduler;
    model_chunk = (struct slab_chunk){.slab = &model_slab};
}

#endif
