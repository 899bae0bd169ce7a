#include "core/surroundings.h"
#include "core/scope.h"

void surroundings_init(struct surroundings *around, struct task_cell *cell)
{
    struct origin *origin = task_origin(cell);
    *around = (struct surroundings){.cell = cell, .origin = origin};
    if (origin && origin->root.kind != FRAME_NONE)
        around->top = &origin->root;
    surroundings_begin(around);
}

static struct frame *innermost_shield(const struct surroundings *around)
{
    struct frame *frame = around->top;
    while (frame && frame->kind != FRAME_SHIELD)
        frame = frame->parent;
    return frame;
}

static bool has_passed(int64_t deadline_ns)
{
    struct local *local = local_current();
    if (deadline_ns == ROUSE_NEVER)
        return false;
    /* The worker's reading of the clock is never ahead; only a deadline that it does not reach costs a new one. */
    return (local && deadline_ns <= local->now_ns) || deadline_ns <= os_now();
}

int64_t surroundings_limit(const struct surroundings *around)
{
    int64_t limit_ns = atomic_i64_load(&task_scheduler(around->cell)->limit_ns, RELAXED);
    int64_t scope_ns = around->origin && around->origin->scope ? scope_limit(around->origin->scope) : ROUSE_NEVER;
    return scope_ns < limit_ns ? scope_ns : limit_ns;
}

int surroundings_status(struct surroundings *around)
{
    bool cancelled = task_is_cancelled(around->cell);
    if (!around->top)
        return cancelled ? ROUSE_CANCELLED : ROUSE_OK;
    if (cancelled && (!innermost_shield(around) || has_passed(surroundings_limit(around))))
        return ROUSE_CANCELLED;
    return has_passed(around->top->effective_ns) ? ROUSE_TIMED_OUT : ROUSE_OK;
}

/* Until when a shield keeps the cancelling of this task away: its own deadline, or the grace's end. */
static int64_t held_until(const struct surroundings *around)
{
    const struct frame *shield = innermost_shield(around);
    int64_t limit_ns = surroundings_limit(around);
    return !shield ? INT64_MIN : shield->effective_ns < limit_ns ? shield->effective_ns : limit_ns;
}

bool surroundings_cancelled(struct surroundings *around)
{
    return task_is_cancelled(around->cell) && has_passed(held_until(around));
}

void surroundings_pend_closing(struct surroundings *around)
{
    rouse_waker waker = {around->cell, &task_waker_table};
    int64_t until_ns = held_until(around);
    if (around->top && innermost_shield(around) && until_ns != ROUSE_NEVER && !has_passed(until_ns) &&
        timer_arm(&around->top->timer, until_ns, &waker) != ROUSE_OK)
        rouse_waker_wake_by_ref(&waker);
}

void surroundings_pend(struct surroundings *around)
{
    struct frame *top = around->top;
    rouse_waker waker = {around->cell, &task_waker_table}; /* borrowed */
    if (!top)
        return;
    bool shielded = innermost_shield(around) != NULL;
    int64_t deadline_ns = top->effective_ns;
    around->shielded |= shielded;
    if (shielded && task_is_cancelled(around->cell)) {
        int64_t limit_ns = surroundings_limit(around);
        if (limit_ns < deadline_ns)
            deadline_ns = limit_ns;
    }
    /* Without a timer the wait would outlive its deadline: wake at once and look again. */
    if (deadline_ns != ROUSE_NEVER && timer_arm(&top->timer, deadline_ns, &waker) != ROUSE_OK)
        rouse_waker_wake_by_ref(&waker);
}

/* A task that has used its budget up is made to yield: an operation that is always ready must not keep the others, nor its
 * own deadline, from being looked at. */
ptrdiff_t surroundings_yield(struct surroundings *around, const rouse_waker *waker)
{
    around->budget = 0;
    around->budget_ended = true;
    around->shielded |= around->top != NULL; /* being woken already, it is polled again before anything is decided */
    rouse_waker_wake_by_ref(waker);
    return ROUSE_PENDING;
}

int64_t surroundings_deadline(const struct surroundings *around)
{
    return around->top ? around->top->effective_ns : ROUSE_NEVER;
}

/* ---- frames ---- */

static int enter(struct frame *frame, enum frame_kind kind, int64_t deadline_ns)
{
    struct surroundings *around = surroundings_current();
    if (!around || !frame)
        return ROUSE_INVALID;
    for (const struct frame *open = around->top; open; open = open->parent)
        if (open == frame)
            return ROUSE_UNBALANCED;
    /* In a fiber every entering is a first one, whatever the memory held; a poll task's frame may have its timer armed. */
    if (around->suspend)
        *frame = (struct frame){.kind = FRAME_NONE};
    int64_t outer_ns = surroundings_deadline(around);
    frame->kind = kind;
    frame->parent = around->top;
    frame->effective_ns = kind == FRAME_DEADLINE && outer_ns < deadline_ns ? outer_ns : deadline_ns;
    around->top = frame;
    return ROUSE_OK;
}

static int leave(struct frame *frame, enum frame_kind kind)
{
    struct surroundings *around = surroundings_current();
    if (!around || !frame || frame->kind != kind || around->top != frame)
        return ROUSE_UNBALANCED;
    around->top = frame->parent;
    frame->kind = FRAME_NONE;
    if (around->suspend)
        timer_disarm(&frame->timer);
    return ROUSE_OK;
}

int rouse_deadline_enter(rouse_deadline *frame, int64_t deadline_ns)
{
    return enter((struct frame *)(void *)frame, FRAME_DEADLINE, deadline_ns);
}

int rouse_deadline_leave(rouse_deadline *frame)
{
    return leave((struct frame *)(void *)frame, FRAME_DEADLINE);
}

void rouse_deadline_cancel(rouse_deadline *frame)
{
    if (frame)
        timer_disarm(&((struct frame *)(void *)frame)->timer);
}

int64_t rouse_deadline_current(void)
{
    struct surroundings *around = surroundings_current();
    return around ? surroundings_deadline(around) : ROUSE_NEVER;
}

int rouse_shield_enter(rouse_shield *shield, int64_t deadline_ns)
{
    return enter((struct frame *)(void *)shield, FRAME_SHIELD, deadline_ns);
}

int rouse_shield_leave(rouse_shield *shield)
{
    return leave((struct frame *)(void *)shield, FRAME_SHIELD);
}

void rouse_shield_cancel(rouse_shield *shield)
{
    if (shield)
        timer_disarm(&((struct frame *)(void *)shield)->timer);
}

int rouse_is_cancelled(void)
{
    struct surroundings *around = surroundings_current();
    return around && surroundings_cancelled(around);
}
