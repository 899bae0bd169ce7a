#include "core/op.h"

/* A task that has used its budget up is made to yield: an operation that is always ready must not keep the others, nor its
 * own deadline, from being looked at. */
static ptrdiff_t yield_for_budget(struct surroundings *around, const rouse_waker *waker)
{
    struct frame *top = around->top;
    around->budget_ended = true;
    around->shielded |= top != NULL; /* being woken already, it is polled again before anything is decided */
    rouse_waker_wake_by_ref(waker);
    return ROUSE_PENDING;
}

static ptrdiff_t stop(rouse_op *op, int status)
{
    const struct op_type *type = op_type(op);
    ptrdiff_t answer = type->stopped ? type->stopped(op, status) : status;
    if (type->cancel(op) == ROUSE_OP_LATER)
        return ROUSE_PENDING;
    op_set_type(op, NULL);
    return answer;
}

ptrdiff_t rouse_op_poll(rouse_op *op, rouse_context *context)
{
    if (!op || !context || !op_type(op))
        return ROUSE_INVALID;
    struct surroundings *around = surroundings_of(context);
    if (around) {
        int status = surroundings_status(around);
        if (status != ROUSE_OK)
            return stop(op, status);
        if (around->budget == 0)
            return yield_for_budget(around, &context->waker);
    }
    ptrdiff_t answer = op_type(op)->poll(op, context);
    if (answer == ROUSE_PENDING) {
        if (around)
            surroundings_pend(around, &context->waker);
    } else {
        op_set_type(op, NULL);
        if (around)
            around->budget--;
    }
    return answer;
}

int rouse_op_cancel(rouse_op *op)
{
    if (!op || !op_type(op))
        return ROUSE_OP_IDLE;
    int state = op_type(op)->cancel(op);
    if (state == ROUSE_OP_IDLE)
        op_set_type(op, NULL);
    return state;
}

void rouse_context_init(rouse_context *context, const rouse_waker *waker)
{
    *context = (rouse_context){*waker, 0, {NULL, NULL, NULL}};
}
