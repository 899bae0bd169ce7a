/* The task word: everything that several threads must agree on about one task, in one size_t.
 *
 * Each function is a pure transition: it takes the word that was found and answers the next word and what the caller
 * must now do. task.c, waker.c and join.c apply them with compare-exchange loops; tests/model runs them in every interleaving.
 *
 * Alternatives that lost: an owner list per executor beside the word (two lock pairs a task; the slabs can be walked
 * instead); a state enumeration plus a separate count (two words that must change together).
 *
 * References are held by: life (from spawn to completion), the queue entry (exactly while NOTIFIED or being run), the
 * join handle (while JOINABLE), and every waker. */
#ifndef ROUSE_CORE_STATE_H
#define ROUSE_CORE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum state_flag {
    STATE_RUNNING = 1,   /* one worker is inside the poll function; excludes every other worker */
    STATE_NOTIFIED = 2,  /* a queue entry exists, or the runner will make one when it stops; excludes a second entry */
    STATE_COMPLETE = 4,  /* state dropped, value stored; excludes polls, wakes and cancelling for ever */
    STATE_CANCELLED = 8, /* the task was asked to end; a level, never taken back */
    STATE_JOINABLE = 16, /* a join handle exists: the handle, not the runner, disposes of the result */
    STATE_JOINER = 32,   /* the cell's joiner waker belongs to the completing runner; clear: to the join handle */
    STATE_PINNED = 64,   /* the task may run on its home worker only */
    STATE_LARGE = 128,   /* the cell is an allocation of its own, not part of a slab; fixed at birth */
    STATE_SURROUNDED = 256, /* a struct origin (deadline, scope) follows the cell; fixed at birth */
    STATE_VALUELESS = 512   /* COMPLETE without a result: it was cancelled, there is nothing to drop or to hand over */
};

#define STATE_REFERENCE   ((size_t)1024)
#define STATE_COUNT(word) ((word) / STATE_REFERENCE)
/* Half of what fits: a count above is refused, so that even threads that count at once never wrap it to zero. */
#define STATE_COUNT_MAX (SIZE_MAX / STATE_REFERENCE / 2)

enum state_action {
    STATE_NOTHING, /* nothing to do */
    STATE_SUBMIT,  /* hand the task to its scheduler, together with one reference */
    STATE_FREE     /* that was the last reference: free the cell */
};

struct state_step {
    size_t next;              /* the word to store */
    enum state_action action; /* what the caller must do once it is stored */
};

static inline struct state_step state_step(size_t next, enum state_action action)
{
    struct state_step step = {next, action};
    return step;
}

/* A new task: queued, alive, and with a join handle or without. */
static inline size_t state_new(bool joinable, size_t fixed_flags)
{
    return STATE_NOTIFIED | fixed_flags | (joinable ? STATE_JOINABLE + 3 * STATE_REFERENCE : 2 * STATE_REFERENCE);
}

/* Drops one reference. */
static inline struct state_step state_release(size_t word)
{
    size_t next = word - STATE_REFERENCE;
    return state_step(next, STATE_COUNT(next) == 0 ? STATE_FREE : STATE_NOTHING);
}

/* Wakes and keeps the waker's reference. Stored even if nothing changes: the store publishes what the waker wrote before
 * it to the poll that will follow. */
static inline struct state_step state_wake_by_ref(size_t word)
{
    if (word & (STATE_COMPLETE | STATE_NOTIFIED))
        return state_step(word, STATE_NOTHING);
    if (word & STATE_RUNNING)
        return state_step(word | STATE_NOTIFIED, STATE_NOTHING);
    return state_step((word | STATE_NOTIFIED) + STATE_REFERENCE, STATE_SUBMIT);
}

/* Wakes and gives the waker's reference up; it becomes the queue's where a queue entry is made. */
static inline struct state_step state_wake(size_t word)
{
    if (word & (STATE_COMPLETE | STATE_NOTIFIED))
        return state_release(word);
    if (word & STATE_RUNNING)
        return state_step((word | STATE_NOTIFIED) - STATE_REFERENCE, STATE_NOTHING);
    return state_step(word | STATE_NOTIFIED, STATE_SUBMIT);
}

/* Asks the task to end. A running task is queued again when it stops, so that it learns of it. */
static inline struct state_step state_cancel(size_t word)
{
    if (word & (STATE_COMPLETE | STATE_CANCELLED))
        return state_step(word, STATE_NOTHING);
    if (word & (STATE_NOTIFIED | STATE_RUNNING))
        return state_step(word | STATE_CANCELLED | STATE_NOTIFIED, STATE_NOTHING);
    return state_step((word | STATE_CANCELLED | STATE_NOTIFIED) + STATE_REFERENCE, STATE_SUBMIT);
}

/* The same for a task that may have been asked before: it is woken in any case, to look at a new limit of its shields. */
static inline struct state_step state_cancel_again(size_t word)
{
    return state_wake_by_ref(word & STATE_COMPLETE ? word : word | STATE_CANCELLED);
}

/* The worker that took the queue entry begins to poll. NOTIFIED becomes RUNNING: a wake from now on asks for another
 * poll. Subtracting the difference of the two flags is the whole transition, so that no loop is needed. */
#define STATE_START_DELTA ((size_t)STATE_NOTIFIED - (size_t)STATE_RUNNING)
static inline size_t state_start(size_t word)
{
    return word - STATE_START_DELTA;
}

/* The poll answered pending. With a wake in between, the runner's reference goes to the new queue entry. */
static inline struct state_step state_stop(size_t word)
{
    if (word & STATE_NOTIFIED)
        return state_step(word & ~(size_t)STATE_RUNNING, STATE_SUBMIT);
    return state_release(word & ~(size_t)STATE_RUNNING);
}

/* The poll finished. The caller still holds the runner's and the life's reference. */
static inline size_t state_complete(size_t word, bool has_result)
{
    return (word & ~(size_t)(STATE_RUNNING | STATE_NOTIFIED)) | STATE_COMPLETE | (has_result ? 0 : STATE_VALUELESS);
}

/* The join handle leaves its waker with the task. *done is set when the task has completed meanwhile. */
static inline size_t state_joiner_set(size_t word, bool *done)
{
    *done = (word & STATE_COMPLETE) != 0;
    return *done ? word : word | STATE_JOINER;
}

/* The join handle takes its waker back. *done: too late, the completing runner has it. */
static inline size_t state_joiner_clear(size_t word, bool *done)
{
    *done = (word & STATE_COMPLETE) != 0;
    return *done ? word : word & ~(size_t)STATE_JOINER;
}

/* The join handle goes. *drop_result: the task has completed, its result is the caller's to drop first. Otherwise the
 * handle's reference goes with it. */
static inline struct state_step state_detach(size_t word, bool *drop_result)
{
    *drop_result = (word & STATE_COMPLETE) != 0;
    if (*drop_result)
        return state_step(word, STATE_NOTHING);
    return state_release(word & ~(size_t)STATE_JOINABLE);
}

#endif
