/* A task cell: word, type, joiner; behind it the task's state and result in the same allocation.
 *
 * A cell knows its scheduler only as a few function pointers (through its slab), so that wakers and tasks stand below the
 * executors and every executor uses the same ones. */
#ifndef ROUSE_CORE_TASK_H
#define ROUSE_CORE_TASK_H

#include "core/list.h"
#include "core/slab.h"
#include "core/state.h"
#include <rouse/task.h>

struct local;
struct surroundings;
struct origin;
struct task_cell;

struct task_cell {
    struct slab_cell slot;       /* the task word, and the queue link of whoever holds the queue's reference */
    const rouse_task_type *type; /* size, poll, drop; static */
    rouse_waker joiner;          /* who waits for completion; the join handle's to write unless STATE_JOINER is set */
    const char *site;            /* where it was spawned; may be NULL */
};
_Static_assert(sizeof(void *) != 8 || sizeof(struct task_cell) == 48, "a sleeping task fits two cache lines");

/* What the tasks below an executor know of it. */
struct task_scheduler {
    /* Takes over one reference of a task that became ready. May be called from any thread that is inside the gate of
     * the task's slab or belongs to the executor. Never fails, never allocates. */
    void (*submit)(struct task_scheduler *scheduler, struct task_cell *cell);
    /* The same for a task that was woken while it ran: to the back of the queue. `local` is the running thread's. */
    void (*resubmit)(struct local *local, struct task_cell *cell);
    /* A task of it has completed on this thread; its state is gone. */
    void (*completed)(struct local *local);
    /* When shields of cancelled tasks end, whatever they were given: set by shutdown. ROUSE_NEVER before. */
    atomic_i64 limit_ns;
};

/* What differs for tasks whose layout is not in their type: fibers. The type's reserved[0] points here, or is NULL. */
struct task_hooks {
    void *(*result)(struct task_cell *cell, size_t *bytes);
    const char *(*name)(struct task_cell *cell);
    atomic_u32 *(*home)(struct task_cell *cell); /* index of the worker it is pinned to once STATE_PINNED is set */
};

static inline const struct task_hooks *task_hooks(const struct task_cell *cell)
{
    return cell->type->reserved[0];
}

static inline struct task_cell *task_of_link(struct queue_link *link)
{
    return CONTAINER_OF(link, struct task_cell, slot.link);
}

static inline struct task_scheduler *task_scheduler(const struct task_cell *cell)
{
    return slab_chunk_of(cell)->slab->scheduler;
}

/* Checks a type and the sizes that follow from it: *bytes and *alignment of the whole cell. INVALID or TOO_LARGE. */
int task_measure(const rouse_task_type *type, bool with_origin, size_t *bytes, size_t *alignment);

/* Prepares a cell that slab_take gave: state copied in, result zeroed, word ready for the queue. */
void task_prepare(struct task_cell *cell, const rouse_task_type *type, const void *state, bool joinable,
                  size_t fixed_flags, const char *site);

/* NULL without STATE_SURROUNDED. */
static inline struct origin *task_origin(struct task_cell *cell)
{
    /* RELAXED: the flag is fixed at birth. */
    bool has = (atomic_size_load(&cell->slot.word, RELAXED) & STATE_SURROUNDED) != 0;
    return has ? (struct origin *)(void *)(cell + 1) : NULL;
}
void *task_state(struct task_cell *cell);
void *task_result(struct task_cell *cell, size_t *bytes);
const char *task_name(struct task_cell *cell);

/* Polls once and does what follows: submits it again, completes it, or lets it sleep. The caller gives the queue's
 * reference up. `around` describes this poll; its cell is set here. `local` is the calling worker's. */
void task_run(struct task_cell *cell, struct surroundings *around, struct local *local);

/* What the poll of a completed task answered; only after COMPLETE was seen with ACQUIRE. Kept where the queue link was. */
static inline int task_value(const struct task_cell *cell)
{
    return (int)(intptr_t)cell->slot.link.next;
}

/* Disposes of the result of a completed task that nobody will join. */
void task_drop_result(struct task_cell *cell);

/* The applied transitions. The waker's table is task_waker_table, its data the cell. */
extern const rouse_waker_table task_waker_table;
void task_wake_by_ref(struct task_cell *cell);
void task_cancel(struct task_cell *cell);
void task_cancel_again(struct task_cell *cell); /* wakes one that was cancelled before */
bool task_acquire(struct task_cell *cell);      /* false when the count is near its limit */
bool task_acquire_live(struct slab_cell *slot); /* only if it is referenced at all: for walks */
void task_release(struct task_cell *cell);

static inline bool task_is_cancelled(const struct task_cell *cell)
{
    /* RELAXED: the flag is a level; whoever set it also wakes the task, which orders everything else. */
    return (atomic_size_load(&cell->slot.word, RELAXED) & STATE_CANCELLED) != 0;
}

static inline bool waker_same(const rouse_waker *a, const rouse_waker *b)
{
    return a->data == b->data && a->table == b->table;
}

#endif
