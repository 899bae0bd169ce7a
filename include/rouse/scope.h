/* rouse: scopes that own their children, cancelling, and shields.
 *
 * Cancelling is a level, not an event: in a cancelled fiber every waiting call answers CANCELLED at once, until the fiber
 * returns; nothing is unwound behind its back. A poll task is polled once more with context->cancelled set and then
 * dropped. Clean-up that must still do I/O stands inside a shield. Closing a scope or a stream is never cancelled. */
#ifndef ROUSE_SCOPE_H
#define ROUSE_SCOPE_H

#include <rouse/fiber.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A scope lives in the frame of the fiber that opened it, and its children never outlive it: an argument or a result may
 * therefore live in that frame too. Caller's memory, whatever it holds before; does not move while open. */
typedef struct rouse_scope {
    rouse_storage reserved[16]; /* of the library */
} rouse_scope;

/* Opens a scope inside the calling fiber; rouse_go spawns into it until it is closed. Scopes are closed in reverse order
 * of opening, deadlines and shields left in reverse order of entering; between the two there is no order.
 * Errors: NOT_IN_FIBER, UNBALANCED (it is open already). */
ROUSE_API int rouse_scope_open(rouse_scope *scope);

/* Spawns a poll task as a child of an open scope of the calling fiber. Errors as rouse_spawn; CANCELLED once the scope
 * was cancelled. */
#define rouse_scope_spawn(scope, task, type, state) rouse_scope_spawn_at((scope), (task), (type), (state), ROUSE_HERE)
ROUSE_API int rouse_scope_spawn_at(rouse_scope *scope, rouse_task *task, const rouse_task_type *type, const void *state,
                                   const char *site);

/* Cancels every child, and theirs. Their shields end at the latest after grace_ns. New children are refused. May be
 * called again: a shorter grace counts. Any fiber or thread, while the scope is open; it stays open until the call has
 * returned, even if all children end by it. INVALID if it is closed, FORKED in a child. */
ROUSE_API int rouse_scope_cancel(rouse_scope *scope, int64_t grace_ns);

/* Waits until every child has ended and answers the first negative value that one of them ended with, else ROUSE_OK: after
 * rouse_scope_cancel mostly CANCELLED, which most children pass on, and which poll tasks that are dropped end with. A child
 * that fails does not cancel the others: rouse_scope_cancel does. Closing is never cut short: if the calling fiber is
 * cancelled, the children are too and the wait goes on; a deadline around it ends nothing, for children inherit the one
 * that was in force when they were started. UNBALANCED, and nothing is closed, if this is not the innermost open scope. */
ROUSE_API int rouse_scope_close(rouse_scope *scope);

/* A shield: until it is left, or deadline_ns has passed, waiting calls work as if the fiber were not cancelled and no
 * outer deadline had passed; afterwards they answer TIMED_OUT, or CANCELLED if the scope's grace ended first. A deadline,
 * not a timeout, so that a poll function may enter it again in each poll; rouse_after(ROUSE_S(1)) is one second from
 * now, ROUSE_NEVER leaves it to the scope's grace. */
typedef struct rouse_shield {
    rouse_storage
        reserved[12]; /* of the library; zero before a poll function enters it first, in a fiber whatever it was */
} rouse_shield;

/* The same rules as deadlines: reverse order, same fiber or same poll. In a poll function an operation that is pending
 * inside the shield keeps the task alive: enter the same shield again in the next poll, and give it to
 * rouse_shield_cancel before its memory goes. Errors: INVALID outside of any task, UNBALANCED. */
ROUSE_API int rouse_shield_enter(rouse_shield *shield, int64_t deadline_ns);
ROUSE_API int rouse_shield_leave(rouse_shield *shield);

/* Stops the timer of a shield that is not in force. A zeroed shield is left alone. */
ROUSE_API void rouse_shield_cancel(rouse_shield *shield);

/* 1 if the calling task is cancelled and no shield holds it off, else 0. Never waits. */
ROUSE_API int rouse_is_cancelled(void);

#ifdef __cplusplus
}
#endif
#endif
