/* Scopes: children end, are added and cancelled while their owner waits for them. The owner is woken by the last one, every
 * child is cancelled, and the scope's memory is left alone once the owner knows that it is empty. */
#include "model_lock.h"

#include "model_task.h"

#include "core/scope.c"
#include "core/wait.c"
#include "core/waker.c"

#include "support/harness.h"

enum { CHILDREN = 3, LIMIT = 5 };

/* As a cell with its origin lies in memory. */
static struct child {
    struct task_cell cell;
    struct origin origin;
    unsigned number;
} * children[CHILDREN];

static struct scope *scope;
static atomic_u32 submitted[CHILDREN]; /* 1: woken by being cancelled; what its thread sleeps on */
static struct surroundings owner;
static int first_error;
static bool refused;

void slab_give(struct slab_cell *cell, bool large)
{
    (void)large;
    model_free(cell);
}

static void submit(struct task_scheduler *scheduler, struct task_cell *cell)
{
    (void)scheduler;
    unsigned number = ((struct child *)(void *)cell)->number;
    atomic_u32_store(&submitted[number], 1, RELEASE);
    os_wake_one(&submitted[number].value);
    task_release(cell); /* the queue's: nothing polls here */
}

/* A child that waits for something; the caller is what runs it. */
static void make_child(unsigned number)
{
    struct child *child = model_alloc(sizeof *child);
    memset(child, 0, sizeof *child);
    atomic_size_init(&child->cell.slot.word, STATE_SURROUNDED + STATE_REFERENCE);
    child->number = number;
    children[number] = child;
}

/* What completing does with a scope. */
static void end_child(unsigned number, int value)
{
    struct task_cell *cell = &children[number]->cell;
    atomic_size_or(&cell->slot.word, STATE_COMPLETE, ACQ_REL);
    scope_child_ended(&children[number]->origin, value);
    task_release(cell);
}

static void sleep_until_cancelled(unsigned number)
{
    while (!atomic_u32_load(&submitted[number], ACQUIRE))
        os_wait_on(&submitted[number].value, 0, ROUSE_NEVER);
    model_check(task_is_cancelled(&children[number]->cell) && scope_limit(scope) == LIMIT);
}

/* ---- threads ---- */

static void close_scope(void)
{
    unsigned number = 0;
    rouse_waker waker = signal_waker(number);
    while (scope_poll_empty(scope, &waker) == ROUSE_PENDING)
        signal_wait(number);
    first_error = scope->first_error;
    model_free(scope);
}

/* Looks again with another waker, for no reason: the last one counts. */
static void close_scope_impatiently(void)
{
    rouse_waker waker = signal_waker(1);
    if (scope_poll_empty(scope, &waker) == ROUSE_OK)
        model_free(scope);
    else
        close_scope();
}

static void first_child(void)
{
    end_child(0, ROUSE_OK);
}

static void second_child(void)
{
    end_child(1, ROUSE_IO_ERROR);
}

static void second_child_until_cancelled(void)
{
    sleep_until_cancelled(1);
    end_child(1, ROUSE_CANCELLED);
}

static void first_child_cancels(void)
{
    scope_cancel(scope, LIMIT);
    end_child(0, ROUSE_OK);
}

/* Cancelled or not, its child is in the scope before itself has left it, or not at all. */
static void first_child_adds(void)
{
    make_child(2);
    refused = scope_add(scope, &children[2]->origin) != ROUSE_OK;
    end_child(0, ROUSE_OK);
    if (refused)
        task_release(&children[2]->cell);
    else
        end_child(2, ROUSE_OK);
}

static void first_child_adds_one_that_waits(void)
{
    make_child(2);
    refused = scope_add(scope, &children[2]->origin) != ROUSE_OK;
    end_child(0, ROUSE_OK);
    if (refused) {
        task_release(&children[2]->cell);
        return;
    }
    sleep_until_cancelled(2);
    end_child(2, ROUSE_OK);
}

static void second_child_cancels(void)
{
    scope_cancel(scope, LIMIT);
    end_child(1, ROUSE_OK);
}

static void stranger_cancels(void)
{
    model_check(scope_cancel(scope, LIMIT) == ROUSE_OK);
}

/* Both end by the cancel alone, so the scope is open when it begins. */
static void children_until_cancelled(void)
{
    sleep_until_cancelled(0);
    end_child(0, ROUSE_OK);
    sleep_until_cancelled(1);
    end_child(1, ROUSE_OK);
}

/* ---- setup ---- */

static void setup(void)
{
    model_task_setup();
    model_scheduler.submit = submit;
    memset(submitted, 0, sizeof submitted);
    memset(children, 0, sizeof children);
    first_error = ROUSE_OK;
    refused = false;
    owner = (struct surroundings){.scope = NULL};
    scope = model_alloc(sizeof *scope);
    scope_init(scope, &owner);
    for (unsigned i = 0; i < 2; i++) {
        make_child(i);
        scope_add(scope, &children[i]->origin);
    }
}

static void check_error(void)
{
    model_check(first_error == ROUSE_IO_ERROR);
    signals_check();
}

TEST(the_owner_is_woken_by_the_last_child)
{
    struct model model = {.name = "scope close",
                          .setup = setup,
                          .threads = {close_scope, first_child, second_child},
                          .finish = check_error};
    assert_true(model_run(&model).ok);
    model.name = "scope close impatiently";
    model.threads[0] = close_scope_impatiently;
    model.finish = signals_check;
    assert_true(model_run(&model).ok);
}

TEST(a_child_that_is_added_is_waited_for)
{
    struct model model = {.name = "scope add",
                          .setup = setup,
                          .threads = {close_scope, first_child_adds, second_child},
                          .finish = check_error};
    assert_true(model_run(&model).ok);
}

TEST(every_child_is_cancelled)
{
    struct model model = {.name = "scope cancel",
                          .setup = setup,
                          .threads = {close_scope, first_child_cancels, second_child_until_cancelled},
                          .finish = signals_check};
    assert_true(model_run(&model).ok);
    model.name = "scope cancel twice";
    model.preemption_bound = (unsigned)test_scale(2, 0);
    model.threads[2] = second_child_cancels;
    assert_true(model_run(&model).ok);
    model.name = "scope cancel or add";
    model.preemption_bound = 0;
    model.threads[1] = first_child_adds_one_that_waits;
    assert_true(model_run(&model).ok);
}

TEST(a_scope_stays_open_for_a_stranger_that_cancels_it)
{
    struct model model = {.name = "scope cancelled by a stranger",
                          .setup = setup,
                          .threads = {close_scope, stranger_cancels, children_until_cancelled},
                          .finish = signals_check};
    assert_true(model_run(&model).ok);
}
