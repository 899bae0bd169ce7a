#include "core/op.h"

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
            return surroundings_yield(around, &context->waker);
    }
    ptrdiff_t answer = op_type(op)->poll(op, context);
    if (answer == ROUSE_PENDING) {
        if (around)
            surroundings_pend(around);
    } else {
        op_set_type(op, NULL);
        if (around)
            surroundings_spend(around);
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
    static const rouse_waker none = {NULL, NULL};
    if (context)
        *context = (rouse_context){waker ? *waker : none, 0, {NULL, NULL, NULL}};
}
