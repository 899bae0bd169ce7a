/* rouse: sleeping, intervals and deadlines. */
#ifndef ROUSE_TIME_H
#define ROUSE_TIME_H

#include <rouse/op.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Sleeps for a span, or until a point of rouse_now's clock; at least as long, never less. A span of 0 or less, or a
 * point in the past, is rouse_yield; ROUSE_NEVER sleeps until cancelled. Fiber or plain thread. The timer itself takes no
 * memory. Errors: why a wait ends or cannot begin, see op.h. */
ROUSE_API int rouse_sleep(int64_t timeout_ns);
ROUSE_API int rouse_sleep_until(int64_t deadline_ns);

/* The operation: done at the deadline with ROUSE_OK; one in the past is done when polled. */
ROUSE_API void rouse_sleep_init(rouse_op *op, int64_t deadline_ns);

/* ---- intervals ---- */

/* What happens when a tick was missed because the task came back late. */
enum rouse_missed_ticks {
    ROUSE_MISSED_BURST = 0, /* deliver every missed tick at once, then on schedule */
    ROUSE_MISSED_DELAY = 1, /* one tick now, the next a full period after it: the schedule moves */
    ROUSE_MISSED_SKIP = 2   /* one tick now, the next on the first point of the old schedule that lies ahead */
};

/* Ticks at first, first + period, first + 2 periods ... computed from the schedule, so that errors do not add up.
 * Caller's storage; has no clean-up. */
typedef struct rouse_interval {
    int64_t next_ns;   /* the next tick */
    int64_t period_ns; /* distance of ticks, at least 1 */
    int missed;        /* one of enum rouse_missed_ticks */
} rouse_interval;

/* Errors: INVALID for a period below 1 or an unknown policy. */
ROUSE_API int rouse_interval_init(rouse_interval *interval, int64_t first_ns, int64_t period_ns, int missed);

/* Waits for the next tick; answers 0, or the number of ticks left out by ROUSE_MISSED_SKIP (at most INT_MAX), or an
 * error of rouse_sleep. */
ROUSE_API int rouse_interval_tick(rouse_interval *interval);

/* The operation form; the interval must stay until it is done. */
ROUSE_API void rouse_interval_tick_init(rouse_op *op, rouse_interval *interval);

/* ---- deadlines ----
 *
 * A deadline in force covers everything awaited until it is left: rouse_read under it answers TIMED_OUT once it has
 * passed. Deadlines nest, the nearest counts; a fiber or task that is spawned into a scope under one inherits it, others
 * do not. The frame is the caller's memory and must be left in reverse order of entering, by the same fiber or within the
 * same poll.
 *
 * When a deadline passes, the task itself is woken, whatever wakers its operations have. A poll function that tells its
 * operations apart by wakers of its own therefore polls all that are pending once the deadline has passed. */
typedef struct rouse_deadline {
    rouse_storage
        reserved[12]; /* of the library; zero before a poll function enters it first, in a fiber whatever it was */
} rouse_deadline;

/* Puts a deadline in force. Errors: INVALID outside of any task, UNBALANCED (it is in force already). */
ROUSE_API int rouse_deadline_enter(rouse_deadline *frame, int64_t deadline_ns);

/* Ends it. In a fiber that is all. In a poll function the timer goes on if an operation is pending under it, so that
 * the task is polled again at the deadline: enter the same frame again in the next poll, and give it to
 * rouse_deadline_cancel before its memory goes. UNBALANCED if another frame was entered later and not left. */
ROUSE_API int rouse_deadline_leave(rouse_deadline *frame);

/* Stops the timer of a frame that is not in force. A zeroed frame is left alone. */
ROUSE_API void rouse_deadline_cancel(rouse_deadline *frame);

/* The deadline in force here, ROUSE_NEVER if there is none. */
ROUSE_API int64_t rouse_deadline_current(void);

#ifdef __cplusplus
}
#endif
#endif
