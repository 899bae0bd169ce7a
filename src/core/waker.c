/* Wakers of tasks, and the four public calls over any waker. */
#include "core/local.h"

rouse_waker rouse_waker_clone(const rouse_waker *waker)
{
    static const rouse_waker none = {NULL, NULL};
    return waker && waker->table ? waker->table->clone(waker->data) : none;
}

static rouse_waker take(rouse_waker *waker)
{
    rouse_waker taken = {NULL, NULL};
    if (waker) {
        taken = *waker;
        *waker = (rouse_waker){NULL, NULL};
    }
    return taken;
}

void rouse_waker_wake(rouse_waker *waker)
{
    rouse_waker taken = take(waker);
    if (taken.table)
        taken.table->wake(taken.data);
}

void rouse_waker_wake_by_ref(const rouse_waker *waker)
{
    if (waker && waker->table)
        waker->table->wake_by_ref(waker->data);
}

void rouse_waker_drop(rouse_waker *waker)
{
    rouse_waker taken = take(waker);
    if (taken.table)
        taken.table->drop(taken.data);
}

/* Applies a transition and, where it answers SUBMIT, hands the task over. */
INLINE_ALWAYS struct state_step apply(struct task_cell *cell, struct state_step (*transition)(size_t word))
{
    size_t word = atomic_size_load(&cell->slot.word, RELAXED);
    struct state_step step;
    /* RELEASE: what the waker wrote is seen by the poll (ACQUIRE in task_run). ACQUIRE: freeing sees every user. */
    do
        step = transition(word);
    while (!atomic_size_cas_weak(&cell->slot.word, &word, step.next, ACQ_REL, RELAXED));
    if (step.action == STATE_SUBMIT)
        task_scheduler(cell)->submit(task_scheduler(cell), cell);
    return step;
}

/* Is this thread the executor's own? Shutdown ends those threads before it frees anything. */
static bool is_own_thread(const struct slab *slab)
{
    struct local *local = local_current();
    return local && local->scheduler == slab->scheduler;
}

/* The same from a thread that does not belong to the executor: inside the gate, which shutdown waits for after the last
 * task has completed; from then on no transition answers SUBMIT any more. The caller's reference keeps the slab, so the
 * gate must be left before that reference goes. ACQ_REL pairs with the addition of zero in shutdown. */
INLINE_ALWAYS void apply_in_gate(struct task_cell *cell, struct state_step (*transition)(size_t word))
{
    struct slab *slab = slab_chunk_of(cell)->slab;
    if (is_own_thread(slab)) {
        apply(cell, transition);
        return;
    }
    /* What has completed needs nothing, and who wakes it without end must not keep the gate from ever being empty. */
    if (atomic_size_load(&cell->slot.word, ACQUIRE) & STATE_COMPLETE)
        return;
    atomic_size_add(&slab->gate, 1, ACQ_REL);
    apply(cell, transition);
    atomic_size_sub(&slab->gate, 1, RELEASE);
}

void task_wake_by_ref(struct task_cell *cell)
{
    apply_in_gate(cell, state_wake_by_ref);
}

void task_cancel(struct task_cell *cell)
{
    apply_in_gate(cell, state_cancel);
}

void task_cancel_again(struct task_cell *cell)
{
    apply_in_gate(cell, state_cancel_again);
}

bool task_acquire(struct task_cell *cell)
{
    /* RELAXED: a reference is only made from another one. */
    size_t word = atomic_size_add(&cell->slot.word, STATE_REFERENCE, RELAXED);
    if (STATE_COUNT(word) < STATE_COUNT_MAX)
        return true;
    atomic_size_sub(&cell->slot.word, STATE_REFERENCE, RELAXED);
    return false;
}

bool task_acquire_live(struct slab_cell *slot)
{
    size_t word = atomic_size_load(&slot->word, RELAXED);
    while (STATE_COUNT(word) != 0 && STATE_COUNT(word) < STATE_COUNT_MAX)
        /* ACQUIRE pairs with the RELEASE that published the cell in task_prepare. */
        if (atomic_size_cas_weak(&slot->word, &word, word + STATE_REFERENCE, ACQUIRE, RELAXED))
            return true;
    return false;
}

void task_release(struct task_cell *cell)
{
    /* ACQ_REL: the last one sees what every other holder did. */
    size_t word = atomic_size_sub(&cell->slot.word, STATE_REFERENCE, ACQ_REL);
    if (state_release(word).action == STATE_FREE)
        slab_give(&cell->slot, (word & STATE_LARGE) != 0);
}

static rouse_waker task_waker_clone(void *data)
{
    rouse_waker none = {NULL, NULL}, waker = {data, &task_waker_table};
    return task_acquire(data) ? waker : none;
}

static void task_waker_wake(void *data)
{
    struct task_cell *cell = data;
    if (is_own_thread(slab_chunk_of(cell)->slab)) {
        struct state_step step = apply(cell, state_wake);
        if (step.action == STATE_FREE)
            slab_give(&cell->slot, (step.next & STATE_LARGE) != 0);
    } else {
        apply_in_gate(cell, state_wake_by_ref);
        task_release(cell);
    }
}

static void task_waker_wake_by_ref(void *data)
{
    task_wake_by_ref(data);
}

static void task_waker_drop(void *data)
{
    task_release(data);
}

const rouse_waker_table task_waker_table = {task_waker_clone, task_waker_wake, task_waker_wake_by_ref, task_waker_drop};
