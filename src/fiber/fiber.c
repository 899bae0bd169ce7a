/* A fiber is a task whose state is a stack and the context it was left with. Its poll function switches to that stack and
 * comes back when the fiber waits or ends. */
#include "core/op.h"
#include "core/options.h"
#include "core/runtime.h"
#include "core/scope.h"
#include "fiber/annotate.h"
#include "fiber/fiber.h"
#include "fiber/switch.h"
#include <rouse/fiber.h>
#include <string.h>

struct fiber {
    struct surroundings around;            /* lasts as long as the fiber, unlike a poll task's */
    struct switch_context context;         /* where it was left */
    struct switch_context *resumer;        /* the thread's own stack, while the fiber runs */
    struct annotation annotation;          /* of its stack, for tools */
    struct annotation *resumer_annotation; /* of the thread's, while the fiber runs */
    struct stack *stack;                   /* NULL once it has ended */
    rouse_fiber_function *function;        /* its body */
    void *argument;                        /* of the body; unless bytes were copied in */
    const char *name;                      /* for reports */
    size_t argument_bytes;                 /* copied in behind this struct; 0: the pointer is passed on */
    size_t result_bytes;                   /* behind the argument */
    atomic_u32 home;                       /* index of its worker once it has run */
    bool migrates;                         /* never pinned */
    bool scoped;                           /* the body runs inside a scope */
    bool started;                          /* the context is prepared */
    int value;                             /* what the body returned */
};

#define PIECE 16 /* alignment of argument and result */

static size_t argument_offset(void)
{
    return size_align(sizeof(struct fiber), PIECE);
}

static void *result_of(struct fiber *fiber)
{
    return (char *)fiber + argument_offset() + size_align(fiber->argument_bytes, PIECE);
}

/* ---- the body, and what it left open ---- */

/* The lowest address on the fiber's own stack of what is open there, below `here`. What lies elsewhere (memory that is
 * static or from the heap) needs no room. */
INLINE_ALWAYS uintptr_t lowest_open(const struct fiber *fiber, const struct frame *root, const struct scope *outermost,
                                    uintptr_t here)
{
    uintptr_t low = (uintptr_t)fiber->stack->low, lowest = here;
    for (const struct frame *frame = fiber->around.top; frame != root; frame = frame->parent)
        if ((uintptr_t)frame >= low && (uintptr_t)frame < lowest)
            lowest = (uintptr_t)frame;
    for (const struct scope *scope = fiber->around.scope; scope != outermost; scope = scope->parent)
        if ((uintptr_t)scope >= low && (uintptr_t)scope < lowest)
            lowest = (uintptr_t)scope;
    return lowest;
}

static void close_what_is_open(struct surroundings *around, const struct frame *root, const struct scope *outermost)
{
    if (runtime_is_forked(runtime_of_scheduler(task_scheduler(around->cell))))
        return; /* what is open concerns the parent's tasks, and locks may be held for ever */
    for (; around->top != root; around->top = around->top->parent)
        timer_disarm(&around->top->timer);
    while (around->scope != outermost) {
        rouse_scope *scope = (rouse_scope *)(void *)around->scope;
        rouse_scope_cancel(scope, 0);
        rouse_scope_close(scope);
    }
}

/* Calls the body; UNBALANCED if it returned with an open scope, shield or deadline. Their frames are gone then, and calls
 * would write over them where they lie on this stack, which is why the stack pointer goes below them first, and why
 * nothing is called until then. Children may point into those frames and are ended. Sanitizers stay out: they would call
 * their own functions at once, and surround the space that is skipped with forbidden zones. */
INLINE_NEVER OS_NO_SANITIZER int call(struct fiber *fiber, const struct scope *outermost)
{
    struct surroundings *around = &fiber->around;
    const struct frame *root = around->origin && around->origin->root.kind != FRAME_NONE ? &around->origin->root : NULL;
    void *own = fiber->argument_bytes ? (char *)fiber + argument_offset() : fiber->argument;
    int value = fiber->function(own);
    if (around->top == root && around->scope == outermost)
        return value;
    uintptr_t here = (uintptr_t)OS_FRAME_ADDRESS(), low = (uintptr_t)fiber->stack->low;
    annotation_stack_keep((void *)low, here - low);
    volatile char *space = OS_ALLOCA(here - lowest_open(fiber, root, outermost, here) + 256);
    annotation_stack_keep((void *)low, here - low);
    space[0] = 0;
    close_what_is_open(around, root, outermost);
    return ROUSE_UNBALANCED;
}

/* The same inside a scope, whose children it waits for. */
static int call_in_scope(struct fiber *fiber)
{
    rouse_scope outermost;
    int status = rouse_scope_open(&outermost);
    if (status != ROUSE_OK)
        return status;
    int value = call(fiber, fiber->around.scope);
    int children = rouse_scope_close(&outermost);
    return value != ROUSE_OK ? value : children;
}

static void body(void *argument)
{
    struct fiber *fiber = argument;
    annotation_after_switch(&fiber->annotation, fiber->resumer_annotation);
    int value = fiber->scoped ? call_in_scope(fiber) : call(fiber, NULL);
    fiber->value =
        value == ROUSE_PENDING ? ROUSE_INVALID : value; /* that number means "not finished" to every caller */
    fiber->function = NULL;
    annotation_before_switch(&fiber->annotation, fiber->resumer_annotation, true);
    switch_to(&fiber->context, fiber->resumer);
}

/* ---- as a task ---- */

/* Parks the fiber that runs: back into fiber_poll, which answers pending. */
static int suspend(struct surroundings *around)
{
    struct fiber *fiber = CONTAINER_OF(around, struct fiber, around);
    stack_note_wait(fiber->stack, OS_FRAME_ADDRESS());
    annotation_before_switch(&fiber->annotation, fiber->resumer_annotation, false);
    switch_to(&fiber->context, fiber->resumer);
    annotation_after_switch(&fiber->annotation, fiber->resumer_annotation);
    return ROUSE_OK;
}

static void start(struct fiber *fiber, struct surroundings *outer)
{
    fiber->started = true;
    fiber->around = *outer;
    fiber->around.suspend = suspend;
    annotation_init(&fiber->annotation, fiber->stack->low, fiber->stack->bytes);
    switch_prepare(&fiber->context, fiber->stack->low, fiber->stack->bytes, body, fiber);
    switch_set_limit(&fiber->context, fiber->stack->limit, fiber->stack->guard);
}

static void finish(struct fiber *fiber)
{
    struct worker *worker = os_current();
    annotation_fini(&fiber->annotation);
    fiber->stack->limit = switch_limit(&fiber->context, fiber->stack->limit);
    stack_release(&worker->stacks, fiber->stack);
    fiber->stack = NULL;
    if (!fiber->migrates)
        atomic_u32_sub(&worker->fibers, 1, RELAXED); /* a guess for placement */
}

static int fiber_poll(void *state, void *result, rouse_context *context)
{
    struct fiber *fiber = state;
    struct surroundings *outer = surroundings_of(context);
    struct local *local = local_current();
    struct switch_context here = {0};
    struct annotation here_annotation;
    (void)result;
    if (!fiber->started)
        start(fiber, outer);
    surroundings_begin(&fiber->around);
    fiber->resumer = &here;
    fiber->resumer_annotation = &here_annotation;
    annotation_init_thread(&here_annotation);
    local->around = &fiber->around;
    annotation_before_switch(&here_annotation, &fiber->annotation, false);
    switch_to(&here, &fiber->context);
    annotation_after_switch(&here_annotation, fiber->function ? &fiber->annotation : NULL);
    local->around = outer;
    outer->budget_ended = fiber->around.budget_ended;
    /* One that returns in a forked child does not complete: whom that concerns is the parent's. */
    if (fiber->function || runtime_is_forked(runtime_of_scheduler(local->scheduler)))
        return ROUSE_PENDING;
    finish(fiber);
    return fiber->value;
}

static void *fiber_result(struct task_cell *cell, size_t *bytes)
{
    struct fiber *fiber = task_state(cell);
    *bytes = fiber->result_bytes;
    return result_of(fiber);
}

static const char *fiber_name(struct task_cell *cell)
{
    return ((struct fiber *)task_state(cell))->name;
}

static atomic_u32 *fiber_home(struct task_cell *cell)
{
    struct fiber *fiber = task_state(cell);
    return fiber->migrates ? NULL : &fiber->home;
}

static const struct task_hooks fiber_hooks = {fiber_result, fiber_name, fiber_home};

/* reserved[0] is not const in the public struct. */
static const rouse_task_type fiber_type = {
    .name = "fiber",
    .poll = fiber_poll,
    .state_size = sizeof(struct fiber),
    .state_alignment = PIECE,
    .reserved = {(void *)(uintptr_t)&fiber_hooks, NULL},
};

/* ---- spawning ---- */

struct fiber_request {
    rouse_runtime *runtime; /* NULL: the current or default one */
    rouse_fiber_function *function;
    const void *argument;  /* a pointer to pass on, or bytes to copy */
    size_t argument_bytes; /* 0: pass on */
    size_t result_bytes;
    const rouse_fiber_options *options;
    struct scope *scope; /* NULL: none */
    int64_t deadline_ns; /* inherited */
    bool scoped;         /* with a scope of its own around the body */
    const char *site;
};

static int complete_options(rouse_fiber_options *full, const rouse_fiber_options *given)
{
    *full = (rouse_fiber_options)ROUSE_FIBER_OPTIONS_INIT;
    int status = options_complete(full, sizeof *full, given, offsetof(rouse_fiber_options, name));
    unsigned known = ROUSE_FIBER_MIGRATES | ROUSE_FIBER_UNGUARDED;
    return status == ROUSE_OK && full->flags & ~known ? ROUSE_INVALID : status;
}

static int acquire_stack(struct rouse_runtime *runtime, const rouse_fiber_options *options, struct stack **stack)
{
    struct worker *worker = runtime_worker(runtime);
    bool unguarded = runtime->unguarded_stacks || (options->flags & ROUSE_FIBER_UNGUARDED);
    if (worker)
        return stack_acquire(&worker->stacks, options->stack_bytes, unguarded, stack);
    return stack_store_acquire(&runtime->stacks, options->stack_bytes, unguarded, stack);
}

static void release_stack(struct rouse_runtime *runtime, struct stack *stack)
{
    struct worker *worker = runtime_worker(runtime);
    if (worker)
        stack_release(&worker->stacks, stack);
    else
        stack_store_release(&runtime->stacks, stack);
}

static int spawn_on(rouse_runtime *runtime, rouse_task *task, const struct fiber_request *request)
{
    rouse_fiber_options options;
    struct stack *stack;
    struct made_task made_task;
    size_t extra;
    int status = complete_options(&options, request->options);
    if (status != ROUSE_OK)
        return status;
    if (!request->function || (request->argument_bytes && !request->argument))
        return ROUSE_INVALID;
    if (request->argument_bytes > SIZE_MAX / 8 || request->result_bytes > SIZE_MAX / 8)
        return ROUSE_TOO_LARGE;
    extra =
        argument_offset() - sizeof(struct fiber) + size_align(request->argument_bytes, PIECE) + request->result_bytes;
    if (runtime_is_forked(runtime))
        return ROUSE_FORKED;
    status = acquire_stack(runtime, &options, &stack);
    if (status != ROUSE_OK)
        return status;
    struct fiber fiber = {
        .stack = stack,
        .function = request->function,
        .argument = (void *)(uintptr_t)request->argument,
        .name = options.name ? options.name : "fiber",
        .argument_bytes = request->argument_bytes,
        .result_bytes = request->result_bytes,
        .migrates = (options.flags & ROUSE_FIBER_MIGRATES) != 0,
        .scoped = request->scoped,
    };
    stack->name = fiber.name;
    stack->site = request->site;
    struct spawn_request make = {&fiber_type,          &fiber,        extra,       request->scope,
                                 request->deadline_ns, request->site, task != NULL};
    status = runtime_make(&made_task, runtime, &make);
    if (status != ROUSE_OK) {
        release_stack(runtime, stack);
        return status;
    }
    struct fiber *made = task_state(made_task.cell);
    if (request->argument_bytes)
        memcpy((char *)made + argument_offset(), request->argument, request->argument_bytes);
    if (request->result_bytes)
        memset(result_of(made), 0, request->result_bytes);
    runtime_place(&made_task, task);
    return ROUSE_OK;
}

static int spawn(rouse_task *task, const struct fiber_request *request)
{
    rouse_runtime *runtime = request->runtime;
    if (task)
        task->cell = NULL;
    int status = runtime_borrow(&runtime);
    if (status != ROUSE_OK)
        return status;
    status = spawn_on(runtime, task, request);
    runtime_return(request->runtime);
    return status;
}

/* The innermost scope around a fiber: one that it has open, or the one that it was started in, which cannot close before
 * this fiber has ended. NULL: neither. */
static struct scope *scope_around(const struct surroundings *around)
{
    return around->scope ? around->scope : around->origin ? around->origin->scope : NULL;
}

int rouse_go_at(rouse_fiber_function *function, void *argument, const rouse_fiber_options *options, const char *site)
{
    struct surroundings *around = surroundings_of_fiber();
    if (!around)
        return ROUSE_NOT_IN_FIBER;
    struct scope *scope = scope_around(around);
    if (!scope)
        return ROUSE_UNBALANCED;
    struct fiber_request request = {.runtime = rouse_runtime_current(),
                                    .function = function,
                                    .argument = argument,
                                    .options = options,
                                    .scope = scope,
                                    .deadline_ns = surroundings_deadline(around),
                                    .site = site};
    return spawn(NULL, &request);
}

int rouse_go_detached_at(rouse_runtime *runtime, rouse_fiber_function *function, void *argument,
                         const rouse_fiber_options *options, const char *site)
{
    struct fiber_request request = {.runtime = runtime,
                                    .function = function,
                                    .argument = argument,
                                    .options = options,
                                    .deadline_ns = ROUSE_NEVER,
                                    .site = site};
    return spawn(NULL, &request);
}

int rouse_spawn_fiber_at(rouse_task *task, rouse_runtime *runtime, rouse_fiber_function *function, const void *argument,
                         size_t size, size_t result_size, const rouse_fiber_options *options, const char *site)
{
    struct fiber_request request = {.runtime = runtime,
                                    .function = function,
                                    .argument = argument,
                                    .argument_bytes = size,
                                    .result_bytes = result_size,
                                    .options = options,
                                    .deadline_ns = ROUSE_NEVER,
                                    .site = site};
    return spawn(task, &request);
}

int fiber_spawn_main(rouse_task *task, rouse_runtime *runtime, rouse_fiber_function *function, void *argument)
{
    rouse_fiber_options options = ROUSE_FIBER_OPTIONS_INIT;
    options.name = "main";
    struct fiber_request request = {.runtime = runtime,
                                    .function = function,
                                    .argument = argument,
                                    .options = &options,
                                    .deadline_ns = ROUSE_NEVER,
                                    .scoped = true};
    return spawn(task, &request);
}

void *rouse_result(void)
{
    struct surroundings *around = surroundings_of_fiber();
    struct fiber *fiber = around ? CONTAINER_OF(around, struct fiber, around) : NULL;
    return fiber && fiber->result_bytes ? result_of(fiber) : NULL;
}

int rouse_in_fiber(void)
{
    return surroundings_of_fiber() != NULL;
}
