/* Scopes with shields: a child that waits inside a shield, while its scope, or the fiber that waits for the scope's end,
 * is cancelled from elsewhere, and again with a shorter grace. However they meet, the child ends when the shortest grace
 * does, and the owner is woken by it. */
#include "model_lock.h"

#include "model_task.h"

#include "core/scope.c"
#include "core/surroundings.c"
#include "core/task.c"
#include "core/wait.c"
#include "core/waker.c"
#include "fiber/scopes.c"

#include "support/harness.h"

enum { LONG_GRACE = 5, SHORT_GRACE = 3 };

/* As a cell with its origin lies in memory. */
struct related {
    struct task_cell cell;
    struct origin origin;
};

static struct rouse_runtime runtime;
static struct related *child, *owner;
static rouse_task_type type;
static struct scope *scope;          /* of the owner; the child is in it */
static struct scope *around_owner;   /* the one that the owner is in */
static struct surroundings of_owner; /* as in every fiber */
static rouse_shield shield;          /* of the child */
static atomic_u32 owner_woken;       /* what the owner's thread sleeps on */
static int64_t armed_ns;             /* the child's timer; its thread's alone */
static int64_t child_ended_ns;       /* 0: it has not */
static int closed;                   /* what closing the scope has answered */

/* ---- what stands below, and what is not called ---- */

int timer_arm(struct timer *timer, int64_t deadline_ns, const rouse_waker *waker)
{
    (void)timer, (void)waker;
    armed_ns = deadline_ns;
    return ROUSE_OK;
}

void timer_disarm(struct timer *timer)
{
    (void)timer;
}

uint32_t os_process(void)
{
    return 0;
}

int64_t rouse_after(int64_t span_ns)
{
    return span_ns;
}

void slab_give(struct slab_cell *cell, bool large)
{
    (void)large;
    model_free(cell);
}

rouse_runtime *rouse_runtime_current(void)
{
    return &runtime;
}

int runtime_spawn(rouse_task *task, rouse_runtime *of, const struct spawn_request *request)
{
    (void)task, (void)of, (void)request;
    return ROUSE_INVALID;
}

int rouse_runtime_new(rouse_runtime **made, const rouse_options *options)
{
    (void)made, (void)options;
    return ROUSE_INVALID;
}

int rouse_runtime_shutdown(rouse_runtime *of, int64_t timeout_ns, rouse_report_function *report, void *context)
{
    (void)of, (void)timeout_ns, (void)report, (void)context;
    return ROUSE_INVALID;
}

struct thread_waiter *thread_waiter_new(void)
{
    return NULL;
}

void thread_waiter_free(struct thread_waiter *waiter)
{
    (void)waiter;
}

int fiber_spawn_main(rouse_task *task, rouse_runtime *of, rouse_fiber_function *function, void *argument)
{
    (void)task, (void)of, (void)function, (void)argument;
    return ROUSE_INVALID;
}

int runtime_join(rouse_task *task, void *result, struct thread_waiter *waiter)
{
    (void)task, (void)result, (void)waiter;
    return ROUSE_INVALID;
}

void rouse_detach(rouse_task *task)
{
    (void)task;
}

static void submit(struct task_scheduler *scheduler, struct task_cell *cell)
{
    if (cell == &child->cell) {
        model_submit(scheduler, cell);
        return;
    }
    task_release(cell); /* the queue's reference: the owner's thread only needs to know */
    atomic_u32_store(&owner_woken, 1, RELEASE);
    os_wake_one(&owner_woken.value);
}

/* ---- the child ---- */

static int wait_in_shield(void *state, void *result, rouse_context *context)
{
    struct surroundings *around = surroundings_of(context);
    (void)state, (void)result;
    model_check(rouse_shield_enter(&shield, ROUSE_NEVER) == ROUSE_OK);
    int status = surroundings_status(around);
    if (status == ROUSE_OK)
        surroundings_pend(around);
    model_check(rouse_shield_leave(&shield) == ROUSE_OK);
    if (status == ROUSE_OK)
        return ROUSE_PENDING;
    child_ended_ns = os_now();
    return status;
}

/* Its worker. Time passes only when nobody else can do anything. */
static void run_child(void)
{
    struct surroundings around;
    model_enter_executor();
    while (child_ended_ns == 0) {
        uint32_t word = atomic_u32_exchange(&entry.word, ENTRY_NONE, ACQUIRE);
        if (word == ENTRY_TASK)
            task_run(&child->cell, &around, local_current());
        else if (armed_ns <= os_now())
            task_wake_by_ref(&child->cell); /* by its timer */
        else
            os_wait_on(&entry.word.value, ENTRY_NONE, armed_ns);
    }
}

/* ---- the owner, and those who cancel ---- */

static int suspend(struct surroundings *around)
{
    (void)around;
    while (atomic_u32_exchange(&owner_woken, 0, ACQUIRE) == 0)
        os_wait_on(&owner_woken.value, 0, ROUSE_NEVER);
    /* As the worker does before it polls: from here on a wake counts again. */
    atomic_size_and(&owner->cell.slot.word, ~(size_t)STATE_NOTIFIED, ACQ_REL);
    return ROUSE_OK;
}

static void close_scope(void)
{
    model_enter_executor();
    local_current()->around = &of_owner;
    closed = rouse_scope_close((rouse_scope *)(void *)scope);
    model_free(scope);
}

static void cancel_scope(void)
{
    scope_cancel(scope, LONG_GRACE);
}

static void cancel_scope_sooner(void)
{
    scope_cancel(scope, SHORT_GRACE);
}

static void cancel_owner(void)
{
    scope_cancel(around_owner, LONG_GRACE);
}

static void cancel_owner_sooner(void)
{
    scope_cancel(around_owner, SHORT_GRACE);
}

static void cancel_owner_twice(void)
{
    scope_cancel(around_owner, LONG_GRACE);
    scope_cancel(around_owner, SHORT_GRACE);
}

/* ---- setup ---- */

static struct related *make(rouse_poll_function *poll, struct scope *in)
{
    struct related *made = model_alloc(sizeof *made);
    type = (rouse_task_type){.poll = poll};
    memset(made, 0, sizeof *made);
    task_prepare(&made->cell, &type, NULL, false, STATE_SURROUNDED, "here");
    scope_add(in, &made->origin);
    return made;
}

static void setup(void)
{
    model_task_setup();
    memset(&runtime, 0, sizeof runtime);
    memset(&shield, 0, sizeof shield);
    runtime.spawner.scheduler = model_scheduler;
    runtime.spawner.scheduler.submit = submit;
    runtime.spawner.scheduler.resubmit = model_resubmit;
    for (unsigned i = 0; i <= MODEL_THREADS; i++)
        model_locals[i] = (struct local){.scheduler = &runtime.spawner.scheduler};
    model_slab.scheduler = &runtime.spawner.scheduler;
    atomic_u32_init(&owner_woken, 0);
    entry.single = true;
    armed_ns = ROUSE_NEVER;
    child_ended_ns = 0;
    closed = ROUSE_PENDING;
    around_owner = model_alloc(sizeof *around_owner);
    scope_init(around_owner, &(struct surroundings){.scope = NULL});
    owner = make(wait_in_shield, around_owner);
    /* The owner runs on a thread of its own here: its queue entry is taken, and it sleeps. */
    atomic_size_and(&owner->cell.slot.word, ~(size_t)STATE_NOTIFIED, RELAXED);
    of_owner = (struct surroundings){.cell = &owner->cell, .origin = &owner->origin, .suspend = suspend};
    scope = model_alloc(sizeof *scope);
    scope_init(scope, &of_owner);
    of_owner.scope = scope;
    child = make(wait_in_shield, scope);
    entry.cell = &child->cell;
    atomic_u32_store(&entry.word, ENTRY_TASK, RELEASE);
    model_clock_set(1);
}

static void check_end(void)
{
    model_check(child_ended_ns == SHORT_GRACE && closed == ROUSE_CANCELLED);
    task_release(&owner->cell); /* its life's, and its own queue entry's */
    task_release(&owner->cell);
    model_free(around_owner);
}

TEST(a_child_in_a_shield_ends_with_the_shortest_grace_of_its_scope)
{
    struct model model = {.name = "shield, scope cancelled twice",
                          .setup = setup,
                          .threads = {run_child, close_scope, cancel_scope, cancel_scope_sooner},
                          .finish = check_end,
                          .preemption_bound = (unsigned)test_scale(2, 3)};
    assert_true(model_run(&model).ok);
}

TEST(a_child_in_a_shield_ends_with_the_shortest_grace_of_those_around_it)
{
    struct model model = {.name = "shield, owner cancelled twice",
                          .setup = setup,
                          .threads = {run_child, close_scope, cancel_owner_twice},
                          .finish = check_end,
                          .preemption_bound = (unsigned)test_scale(2, 3)};
    assert_true(model_run(&model).ok);
    model.name = "shield, owner cancelled by two";
    model.threads[2] = cancel_owner;
    model.threads[3] = cancel_owner_sooner;
    model.preemption_bound = (unsigned)test_scale(1, 2); /* 2: a minute each */
    assert_true(model_run(&model).ok);
    model.name = "shield, scope and owner cancelled";
    model.threads[2] = cancel_scope;
    assert_true(model_run(&model).ok);
}
