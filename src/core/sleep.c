/* Sleeping, intervals and yielding. */
#include "core/op.h"
#include <limits.h>

struct sleep_op {
    struct op_head head;
    struct timer timer; /* armed while pending */
};
_Static_assert(sizeof(struct sleep_op) <= sizeof(rouse_op), "fits an operation");

static ptrdiff_t sleep_poll(rouse_op *op, rouse_context *context)
{
    struct sleep_op *sleep = (struct sleep_op *)(void *)op;
    int64_t deadline_ns = sleep->timer.node.deadline_ns;
    if (deadline_ns <= os_now()) {
        timer_disarm(&sleep->timer);
        return ROUSE_OK;
    }
    int status = timer_arm(&sleep->timer, deadline_ns, &context->waker);
    return status == ROUSE_OK ? ROUSE_PENDING : status;
}

static int sleep_cancel(rouse_op *op)
{
    timer_disarm(&((struct sleep_op *)(void *)op)->timer);
    return ROUSE_OP_IDLE;
}

static const struct op_type sleep_type = {"sleep", sleep_poll, sleep_cancel, NULL};

void rouse_sleep_init(rouse_op *op, int64_t deadline_ns)
{
    if (!op)
        return;
    *(struct sleep_op *)(void *)op = (struct sleep_op){{&sleep_type}, {.node = {.deadline_ns = deadline_ns}}};
}

int rouse_sleep_until(int64_t deadline_ns)
{
    rouse_op op;
    if (deadline_ns <= os_now())
        return rouse_yield();
    rouse_sleep_init(&op, deadline_ns);
    return op_await_status(&op);
}

int rouse_sleep(int64_t timeout_ns)
{
    return timeout_ns <= 0 ? rouse_yield() : rouse_sleep_until(rouse_after(timeout_ns));
}

/* ---- intervals ---- */

struct tick_op {
    struct sleep_op sleep;    /* until the interval's next tick */
    rouse_interval *interval; /* advanced when the tick has come */
};
_Static_assert(sizeof(struct tick_op) <= sizeof(rouse_op), "fits an operation");

/* Moves the schedule past a tick that has come; answers how many were left out. */
static int64_t advance(rouse_interval *interval, int64_t now_ns)
{
    /* A first tick may lie further back than the longest span there is. */
    bool far = interval->next_ns < now_ns - INT64_MAX;
    int64_t late_ns = far ? INT64_MAX : now_ns - interval->next_ns, periods;
    switch (interval->missed) {
    case ROUSE_MISSED_DELAY: /* an ordinary lateness below a period keeps the schedule, or it would drift */
        if (late_ns < interval->period_ns)
            break;
        interval->next_ns = rouse_after(interval->period_ns);
        return 0;
    case ROUSE_MISSED_SKIP:
        periods = late_ns / interval->period_ns;
        interval->next_ns += periods * interval->period_ns; /* not after now: no overflow */
        break;
    default:
        periods = 0;
        break;
    }
    int64_t skipped = interval->missed == ROUSE_MISSED_SKIP ? periods : 0;
    bool overflows = interval->next_ns > ROUSE_NEVER - interval->period_ns;
    interval->next_ns = overflows ? ROUSE_NEVER : interval->next_ns + interval->period_ns;
    return skipped;
}

static ptrdiff_t tick_poll(rouse_op *op, rouse_context *context)
{
    struct tick_op *tick = (struct tick_op *)(void *)op;
    if (!tick->interval || tick->interval->period_ns < 1)
        return ROUSE_INVALID;
    ptrdiff_t status = sleep_poll(op, context);
    if (status != ROUSE_OK)
        return status;
    int64_t skipped = advance(tick->interval, os_now());
    return skipped > INT_MAX ? INT_MAX : (ptrdiff_t)skipped;
}

static const struct op_type tick_type = {"interval", tick_poll, sleep_cancel, NULL};

int rouse_interval_init(rouse_interval *interval, int64_t first_ns, int64_t period_ns, int missed)
{
    if (!interval || period_ns < 1 || missed < ROUSE_MISSED_BURST || missed > ROUSE_MISSED_SKIP)
        return ROUSE_INVALID;
    *interval = (rouse_interval){first_ns, period_ns, missed};
    return ROUSE_OK;
}

void rouse_interval_tick_init(rouse_op *op, rouse_interval *interval)
{
    struct tick_op *tick = (struct tick_op *)(void *)op;
    if (!op)
        return;
    rouse_sleep_init(op, interval ? interval->next_ns : 0);
    tick->sleep.head.type = &tick_type;
    tick->interval = interval;
}

int rouse_interval_tick(rouse_interval *interval)
{
    rouse_op op;
    rouse_interval_tick_init(&op, interval);
    return op_await_status(&op);
}

/* ---- yielding ---- */

struct yield_op {
    struct op_head head;
    bool yielded; /* the first poll has asked for the second */
};

static ptrdiff_t yield_poll(rouse_op *op, rouse_context *context)
{
    struct yield_op *yield = (struct yield_op *)(void *)op;
    if (yield->yielded)
        return ROUSE_OK;
    yield->yielded = true;
    rouse_waker_wake_by_ref(&context->waker);
    return ROUSE_PENDING;
}

static int yield_cancel(rouse_op *op)
{
    (void)op;
    return ROUSE_OP_IDLE;
}

static const struct op_type yield_type = {"yield", yield_poll, yield_cancel, NULL};

int rouse_yield(void)
{
    rouse_op op;
    if (!local_current()) { /* nothing waits behind a plain thread but other threads */
        os_thread_yield();
        return ROUSE_OK;
    }
    *(struct yield_op *)(void *)&op = (struct yield_op){{&yield_type}, false};
    return op_await_status(&op);
}
