/* Operations from the inside: what each kind of waiting supplies. */
#ifndef ROUSE_CORE_OP_H
#define ROUSE_CORE_OP_H

#include "core/surroundings.h"
#include <rouse/op.h>

struct op_type {
    const char *name; /* for reports */
    /* One attempt; the answer of rouse_op_poll. Whatever it answers but PENDING ends the operation. */
    ptrdiff_t (*poll)(rouse_op *op, rouse_context *context);
    /* Takes back what is pending: no list, timer or kernel refers to the operation afterwards, or LATER. */
    int (*cancel)(rouse_op *op);
    /* Before cancel, for an operation that is ended by `status` (cancelled, timed out): answers that, after it has said
     * where its caller looks (*done) how much it had moved. NULL: nothing is to be said. */
    ptrdiff_t (*stopped)(rouse_op *op, int status);
};

/* Every operation's storage begins so. */
struct op_head {
    const struct op_type *type; /* NULL: idle */
};

static inline const struct op_type *op_type(const rouse_op *op)
{
    return ((const struct op_head *)(const void *)op)->type;
}
static inline void op_set_type(rouse_op *op, const struct op_type *type)
{
    ((struct op_head *)(void *)op)->type = type;
}

/* The task that a join waits for; NULL for every other operation. */
struct task_cell *join_cell(const rouse_op *op);

/* For the everyday calls: awaits an operation in the caller's frame and answers it as a status. */
static inline int op_await_status(rouse_op *op)
{
    return (int)rouse_op_await(op);
}

#endif
