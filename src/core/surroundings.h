/* What a poll runs inside of: deadlines, shields, cancelling, scope, budget. In a fiber it lasts as long as the fiber, in
 * a poll task as long as one poll.
 *
 * Deadlines and shields are frames on a stack. Each frame knows the effective deadline, its own or a nearer one around it,
 * so that only the top frame is looked at and only its timer ever runs. A shield starts afresh: outside of it nothing
 * counts, except that a cancelled task's shields end when the scope's or the shutdown's grace does. */
#ifndef ROUSE_CORE_SURROUNDINGS_H
#define ROUSE_CORE_SURROUNDINGS_H

#include "core/local.h"
#include "core/timer.h"
#include <rouse/scope.h>
#include <rouse/time.h>

enum frame_kind { FRAME_NONE = 0, FRAME_DEADLINE, FRAME_SHIELD };

struct frame {
    struct frame *parent; /* the frame around this one; NULL for the outermost */
    int64_t effective_ns; /* when waiting calls below this frame begin to fail */
    enum frame_kind kind; /* FRAME_NONE when not in force */
    struct timer timer;   /* wakes the task at effective_ns; armed by the first wait below the frame */
};
_Static_assert(sizeof(struct frame) <= sizeof(rouse_deadline), "a deadline holds a frame");
_Static_assert(sizeof(struct frame) <= sizeof(rouse_shield), "a shield holds a frame");
_Static_assert(_Alignof(struct frame) <= _Alignof(rouse_deadline), "is as aligned");

struct scope;

/* Where a task came from, for tasks spawned into a scope or under a deadline; lies behind the cell. */
struct origin {
    struct list_node sibling; /* on the scope's list of children, under the scope's lock */
    struct scope *scope;      /* that owns the task; NULL: none */
    struct frame root;        /* the inherited deadline, FRAME_NONE without one */
};

/* Operations that a task may finish before it must let others run. One that is always ready (a peer that floods) takes
 * this many turns to one of everybody else: at 128 fifty floods tripled the slowest replies of a thousand honest peers, at
 * 32 they add a third at most (tests/tools/acceptance --only single), and to yield costs no more than one of 32 reads. */
#define SURROUNDINGS_BUDGET 32

struct surroundings {
    struct frame *top;                           /* innermost frame; NULL: none */
    struct task_cell *cell;                      /* the task; its reference is the runner's */
    struct origin *origin;                       /* of the cell; NULL: none */
    struct scope *scope;                         /* innermost open scope; fibers only */
    int (*suspend)(struct surroundings *around); /* parks a fiber until it is woken; NULL in poll tasks */
    uint32_t budget;                             /* operations left in this poll */
    bool shielded;                               /* an operation went pending inside a shield during this poll */
    bool budget_ended;                           /* the budget made an operation answer pending */
};

/* Prepares for a poll of `cell`, whose inherited deadline is put in force. */
void surroundings_init(struct surroundings *around, struct task_cell *cell);

/* Budget and marks of one poll; also at each resumption of a fiber. */
static inline void surroundings_begin(struct surroundings *around)
{
    around->budget = SURROUNDINGS_BUDGET;
    around->shielded = false;
    around->budget_ended = false;
}

/* One operation of the budget is used up. Operations nest (a user's stream polls others with the same context), so the
 * budget may be spent before the outer one is done. */
static inline void surroundings_spend(struct surroundings *around)
{
    if (around->budget > 0)
        around->budget--;
}

/* The budget is spent: the task is woken at once and must answer pending, so that others run. */
ptrdiff_t surroundings_yield(struct surroundings *around, const rouse_waker *waker);

/* OK, or why every waiting call must fail now: CANCELLED or TIMED_OUT. */
int surroundings_status(struct surroundings *around);

/* An operation is about to answer pending: sees to it that the nearest deadline will wake the task. Itself and not
 * through the operation's waker: several operations may wait under one deadline, each with a waker of its own. */
void surroundings_pend(struct surroundings *around);

/* The task is cancelled, and no shield keeps that away (any more), whatever deadline may have passed too. */
bool surroundings_cancelled(struct surroundings *around);

/* Instead of surroundings_pend, for a wait that no deadline ends: the task is woken when a shield's end lets a cancelling
 * through. */
void surroundings_pend_closing(struct surroundings *around);

/* The nearest deadline in force here. */
int64_t surroundings_deadline(const struct surroundings *around);

/* When the shields of this task end if it is cancelled. */
int64_t surroundings_limit(const struct surroundings *around);

/* The surroundings of the poll that runs on this thread, or NULL. */
static inline struct surroundings *surroundings_current(void)
{
    struct local *local = local_current();
    return local ? local->around : NULL;
}

/* Those of the fiber that runs on this thread; NULL outside of fibers. */
static inline struct surroundings *surroundings_of_fiber(void)
{
    struct surroundings *around = surroundings_current();
    return around && around->suspend ? around : NULL;
}

/* Those of the task that a context belongs to, or NULL for a context made by hand. */
static inline struct surroundings *surroundings_of(const rouse_context *context)
{
    return context->reserved[0];
}

#endif
