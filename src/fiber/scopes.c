/* Scopes as fibers use them, and rouse_run. */
#include "core/op.h"
#include "core/runtime.h"
#include "core/scope.h"
#include "fiber/fiber.h"
#include <rouse/scope.h>

/* How long detached tasks may take to notice that rouse_run ends. */
#define RUN_SHUTDOWN_NS ROUSE_S(1)

int rouse_scope_open(rouse_scope *opened)
{
    struct surroundings *around = surroundings_of_fiber();
    if (!opened)
        return ROUSE_INVALID;
    if (!around)
        return ROUSE_NOT_IN_FIBER;
    struct scope *scope = (struct scope *)(void *)opened;
    for (const struct scope *open = around->scope; open; open = open->parent)
        if (open == scope)
            return ROUSE_UNBALANCED;
    scope_init(scope, around);
    scope->process = os_process();
    around->scope = scope;
    return ROUSE_OK;
}

int rouse_scope_spawn_at(rouse_scope *opened, rouse_task *task, const rouse_task_type *type, const void *state,
                         const char *site)
{
    struct surroundings *around = surroundings_of_fiber();
    struct scope *scope = (struct scope *)(void *)opened;
    if (task)
        task->cell = NULL;
    if (!around)
        return ROUSE_NOT_IN_FIBER;
    if (!scope || !type || type->reserved[0] || scope->owner != around)
        return ROUSE_INVALID;
    struct spawn_request request = {.type = type,
                                    .state = state,
                                    .scope = scope,
                                    .site = site,
                                    .deadline_ns = surroundings_deadline(around),
                                    .joinable = task != NULL};
    return runtime_spawn(task, rouse_runtime_current(), &request);
}

int rouse_scope_cancel(rouse_scope *opened, int64_t grace_ns)
{
    struct scope *scope = (struct scope *)(void *)opened;
    if (!scope || scope->process == 0)
        return ROUSE_INVALID;
    return scope->process == os_process() ? scope_cancel(scope, rouse_after(grace_ns)) : ROUSE_FORKED;
}

int rouse_scope_close(rouse_scope *opened)
{
    struct surroundings *around = surroundings_of_fiber();
    struct scope *scope = (struct scope *)(void *)opened;
    if (!around)
        return ROUSE_NOT_IN_FIBER;
    if (!scope || around->scope != scope)
        return ROUSE_UNBALANCED;
    if (runtime_is_forked(runtime_of_scheduler(task_scheduler(around->cell))))
        return ROUSE_FORKED;
    rouse_waker waker = {around->cell, &task_waker_table}; /* borrowed */
    int64_t told_ns = ROUSE_NEVER;
    bool told = false;
    while (scope_poll_empty(scope, &waker) == ROUSE_PENDING) {
        /* Not cancelled itself, it passes on that its fiber is, and when the grace of that shrinks. */
        int64_t limit_ns = surroundings_limit(around);
        if (surroundings_cancelled(around) && (!told || limit_ns < told_ns)) {
            told = true;
            told_ns = limit_ns;
            scope_cancel(scope, limit_ns);
            continue;
        }
        surroundings_pend_closing(around);
        around->suspend(around);
    }
    around->scope = scope->parent;
    return scope->first_error;
}

/* ---- rouse_run ---- */

int rouse_run(rouse_fiber_function *function, void *argument, const rouse_options *options)
{
    rouse_runtime *runtime;
    rouse_task task = {NULL};
    if (!function)
        return ROUSE_INVALID;
    if (os_current())
        return ROUSE_IN_POLL;
    int status = rouse_runtime_new(&runtime, options);
    if (status != ROUSE_OK)
        return status;
    /* Before the fiber is there: once it runs there is no way but to wait for it. */
    struct thread_waiter *waiter = thread_waiter_new();
    status = waiter ? fiber_spawn_main(&task, runtime, function, argument) : ROUSE_NO_MEMORY;
    if (status == ROUSE_OK)
        status = runtime_join(&task, NULL, waiter);
    rouse_detach(&task);
    rouse_runtime_shutdown(runtime, RUN_SHUTDOWN_NS, NULL, NULL);
    if (waiter)
        thread_waiter_free(waiter);
    return status;
}
