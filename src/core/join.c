/* Join handles: waiting for a task's completion, taking its result, letting it go. */
#include "core/op.h"
#include <string.h>

struct join_op {
    struct op_head head;
    rouse_task *task; /* the handle; emptied when the operation is done */
    void *result;     /* where the result goes; NULL: it is dropped */
};
_Static_assert(sizeof(struct join_op) <= sizeof(rouse_op), "fits an operation");

static bool is_complete(struct task_cell *cell)
{
    /* ACQUIRE pairs with the completing runner's RELEASE: value and result are visible. */
    return (atomic_size_load(&cell->slot.word, ACQUIRE) & STATE_COMPLETE) != 0;
}

/* Applies set or clear of JOINER; true if the task has completed meanwhile. Orders: RELEASE publishes the waker to the
 * runner, ACQUIRE the result to us. */
static bool change_joiner(struct task_cell *cell, size_t (*change)(size_t word, bool *done))
{
    size_t word = atomic_size_load(&cell->slot.word, ACQUIRE), next;
    bool done;
    do
        next = change(word, &done);
    while (!done && !atomic_size_cas_weak(&cell->slot.word, &word, next, ACQ_REL, ACQUIRE));
    return done;
}

/* Takes the joiner waker back from the cell, unless the runner has it already. */
static bool withdraw(struct task_cell *cell)
{
    if (!(atomic_size_load(&cell->slot.word, RELAXED) & STATE_JOINER))
        return true;
    if (change_joiner(cell, state_joiner_clear))
        return false;
    rouse_waker_drop(&cell->joiner);
    return true;
}

static int take_result(rouse_task *task, void *result)
{
    struct task_cell *cell = task->cell;
    size_t bytes;
    int value = task_value(cell);
    if (!result) {
        task_drop_result(cell);
    } else {
        void *from = task_result(cell, &bytes);
        if (bytes)
            memcpy(result, from, bytes);
    }
    task->cell = NULL;
    task_release(cell);
    return value;
}

static ptrdiff_t join_poll(rouse_op *op, rouse_context *context)
{
    struct join_op *join = (struct join_op *)(void *)op;
    struct task_cell *cell = join->task ? join->task->cell : NULL;
    struct surroundings *around = surroundings_of(context);
    if (!cell || (around && around->cell == cell))
        return ROUSE_INVALID; /* a task that joins itself waits for ever */
    if (is_complete(cell))
        return take_result(join->task, join->result);
    if (atomic_size_load(&cell->slot.word, RELAXED) & STATE_JOINER) {
        if (waker_same(&cell->joiner, &context->waker))
            return ROUSE_PENDING;
        if (!withdraw(cell))
            return take_result(join->task, join->result);
    }
    cell->joiner = rouse_waker_clone(&context->waker);
    if (!cell->joiner.table)
        return ROUSE_LIMIT;
    if (!change_joiner(cell, state_joiner_set))
        return ROUSE_PENDING;
    rouse_waker_drop(&cell->joiner);
    return take_result(join->task, join->result);
}

static int join_cancel(rouse_op *op)
{
    struct join_op *join = (struct join_op *)(void *)op;
    if (join->task && join->task->cell)
        withdraw(join->task->cell);
    return ROUSE_OP_IDLE;
}

static const struct op_type join_type = {"join", join_poll, join_cancel, NULL};

struct task_cell *join_cell(const rouse_op *op)
{
    const struct join_op *join = (const struct join_op *)(const void *)op;
    return op_type(op) == &join_type && join->task ? join->task->cell : NULL;
}

void rouse_join_init(rouse_op *op, rouse_task *task, void *result)
{
    if (op)
        *(struct join_op *)(void *)op = (struct join_op){{&join_type}, task, result};
}

void rouse_detach(rouse_task *task)
{
    struct task_cell *cell = task ? task->cell : NULL;
    if (!cell)
        return;
    task->cell = NULL;
    size_t word = atomic_size_load(&cell->slot.word, ACQUIRE);
    struct state_step step;
    bool drop_result;
    do
        step = state_detach(word, &drop_result);
    while (!drop_result && !atomic_size_cas_weak(&cell->slot.word, &word, step.next, ACQ_REL, ACQUIRE));
    if (drop_result) {
        task_drop_result(cell);
        task_release(cell);
    }
}

void rouse_abort(const rouse_task *task)
{
    if (task && task->cell)
        task_cancel(task->cell);
}

int rouse_is_finished(const rouse_task *task)
{
    return task && task->cell && is_complete(task->cell);
}

const char *rouse_task_name(const rouse_task *task)
{
    return task && task->cell ? task_name(task->cell) : "none";
}
