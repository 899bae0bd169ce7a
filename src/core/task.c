#include "core/task.h"
#include "core/scope.h"
#include "core/surroundings.h"
#include <string.h>

#define NATURAL _Alignof(max_align_t)

static inline size_t alignment_or_natural(size_t alignment)
{
    return alignment ? alignment : NATURAL;
}

static inline bool alignment_is_valid(size_t alignment)
{
    return (alignment & (alignment - 1)) == 0 && alignment <= 4096;
}

static inline size_t state_offset(const rouse_task_type *type, bool with_origin)
{
    size_t head = size_align(sizeof(struct task_cell) + (with_origin ? sizeof(struct origin) : 0), NATURAL);
    return type->state_alignment <= NATURAL ? head : size_align(head, type->state_alignment);
}

static inline size_t result_offset(const rouse_task_type *type, bool with_origin)
{
    size_t end = state_offset(type, with_origin) + type->state_size;
    return size_align(end, alignment_or_natural(type->result_alignment));
}

int task_measure(const rouse_task_type *type, bool with_origin, size_t *bytes, size_t *alignment)
{
    if (!type || !type->poll || !alignment_is_valid(type->state_alignment) ||
        !alignment_is_valid(type->result_alignment))
        return ROUSE_INVALID;
    size_t state_alignment = alignment_or_natural(type->state_alignment);
    size_t result_alignment = alignment_or_natural(type->result_alignment);
    if (type->state_size > SIZE_MAX / 4 || type->result_size > SIZE_MAX / 4)
        return ROUSE_TOO_LARGE;
    *bytes = result_offset(type, with_origin) + type->result_size;
    *alignment = state_alignment > result_alignment ? state_alignment : result_alignment;
    return ROUSE_OK;
}

static void fill(void *to, const void *from, size_t bytes)
{
    if (from && bytes)
        memcpy(to, from, bytes);
    else if (bytes)
        memset(to, 0, bytes);
}

void task_prepare(struct task_cell *cell, const rouse_task_type *type, const void *state, bool joinable,
                  size_t fixed_flags, const char *site)
{
    bool with_origin = (fixed_flags & STATE_SURROUNDED) != 0;
    cell->type = type;
    cell->joiner = (rouse_waker){NULL, NULL};
    cell->site = site;
    if (with_origin)
        *(struct origin *)(void *)(cell + 1) = (struct origin){.scope = NULL};
    fill((char *)cell + state_offset(type, with_origin), state, type->state_size);
    if (!task_hooks(cell))
        fill((char *)cell + result_offset(type, with_origin), NULL, type->result_size);
    /* RELEASE pairs with ACQUIRE in task_acquire_live: a walk that finds the cell finds it whole. */
    atomic_size_store(&cell->slot.word, state_new(joinable, fixed_flags), RELEASE);
}

void *task_state(struct task_cell *cell)
{
    return (char *)cell + state_offset(cell->type, task_origin(cell) != NULL);
}

void *task_result(struct task_cell *cell, size_t *bytes)
{
    const struct task_hooks *hooks = task_hooks(cell);
    if (hooks)
        return hooks->result(cell, bytes);
    *bytes = cell->type->result_size;
    return (char *)cell + result_offset(cell->type, task_origin(cell) != NULL);
}

const char *task_name(struct task_cell *cell)
{
    const struct task_hooks *hooks = task_hooks(cell);
    const char *name = hooks ? hooks->name(cell) : cell->type->name;
    return name ? name : "task";
}

void task_drop_result(struct task_cell *cell)
{
    size_t bytes;
    bool has_result = !(atomic_size_load(&cell->slot.word, RELAXED) & STATE_VALUELESS);
    if (has_result && cell->type->drop_result)
        cell->type->drop_result(task_result(cell, &bytes));
}

/* Everything between the last poll and the last touch of the cell. The state goes before the completion is published: a
 * joiner, and a parent whose frame the state may point into, must find it gone. Joiners are woken, results dropped and
 * scopes left with no lock held. */
static void complete(struct task_cell *cell, int value, bool has_result, struct local *local)
{
    struct origin *origin = task_origin(cell);
    if (cell->type->drop)
        cell->type->drop(task_state(cell));
    if (origin)
        timer_disarm(&origin->root.timer);
    cell->slot.link.next = (struct queue_link *)(intptr_t)value;
    size_t word = atomic_size_load(&cell->slot.word, RELAXED);
    /* RELEASE pairs with ACQUIRE in join.c: value and result; ACQUIRE: the joiner's waker. */
    while (!atomic_size_cas_weak(&cell->slot.word, &word, state_complete(word, has_result), ACQ_REL, RELAXED)) {}
    if (word & STATE_JOINER) {
        rouse_waker joiner = cell->joiner; /* only read, as the join handle may do at the same time */
        rouse_waker_wake(&joiner);
    }
    if (!(word & STATE_JOINABLE))
        task_drop_result(cell);
    if (origin && origin->scope)
        scope_child_ended(origin, value);
    local->scheduler->completed(local);
    /* The runner's and the life's reference at once; the order as in task_release. */
    word = atomic_size_sub(&cell->slot.word, 2 * STATE_REFERENCE, ACQ_REL);
    if (STATE_COUNT(word) == 2)
        slab_give(&cell->slot, (word & STATE_LARGE) != 0);
}

static void stop(struct task_cell *cell, struct local *local)
{
    size_t word = atomic_size_load(&cell->slot.word, RELAXED);
    struct state_step step;
    /* RELEASE: the next poll sees what this one did; ACQUIRE: a wake's writes before the resubmission. */
    do
        step = state_stop(word);
    while (!atomic_size_cas_weak(&cell->slot.word, &word, step.next, ACQ_REL, RELAXED));
    if (step.action == STATE_SUBMIT)
        local->scheduler->resubmit(local, cell);
}

void task_run(struct task_cell *cell, struct surroundings *around, struct local *local)
{
    const rouse_task_type *type = cell->type;
    size_t word = atomic_size_sub(&cell->slot.word, STATE_START_DELTA, ACQUIRE); /* pairs with wakes */
    bool cancelled = (word & STATE_CANCELLED) != 0, with_origin = (word & STATE_SURROUNDED) != 0;
    bool never_dropped = task_hooks(cell) != NULL; /* a fiber, which also knows where its result is */
    char *state = (char *)cell + state_offset(type, with_origin);
    char *result = never_dropped ? NULL : (char *)cell + result_offset(type, with_origin);
    surroundings_init(around, cell);
    struct frame *outermost = around->top;
    rouse_context context = {{cell, &task_waker_table}, cancelled, {around, NULL, NULL}};
    local->around = around;
    int value = type->poll(state, result, &context);
    local->around = NULL;
    bool unbalanced = around->top != outermost;
    if (unbalanced)
        complete(cell, ROUSE_UNBALANCED, value != ROUSE_PENDING, local);
    else if (value != ROUSE_PENDING)
        complete(cell, value, true, local);
    else if (cancelled && !around->shielded && !never_dropped)
        complete(cell, ROUSE_CANCELLED, false, local);
    else
        stop(cell, local);
}
