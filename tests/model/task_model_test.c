/* The task word: a wake after the last poll began leads to another one, which sees what was written before the wake;
 * one worker polls at a time, and none after the end; state and result are dropped once, the cell is freed once and
 * by nobody too early; the joiner is woken and gets the result, or drops it. */
#include "model_task.h"

#include "core/join.c"
#include "core/task.c"
#include "core/waker.c"

#include "support/harness.h"

enum { VALUE = 7 };

static struct task_cell *cell;
static rouse_task handle;
static rouse_task_type type;
static atomic_u32 said[MODEL_THREADS]; /* by thread: what it wants the task to know */
static uint32_t wanted;                /* of them, before the task finishes */
static bool single;                    /* there is one worker */
static bool finishes;                  /* it does, ever; else only cancelling ends it */
static bool type_stable;               /* freed cells stay readable, and are used again */
static atomic_u32 returned;            /* if so: 1 once it was freed */
static bool ended;                     /* in the eyes of those who poll */
static unsigned polls, dropped, results_dropped, freed;

struct result {
    uint64_t number;
};

/* ---- what stands below ---- */

void surroundings_init(struct surroundings *around, struct task_cell *of)
{
    *around = (struct surroundings){.cell = of};
    surroundings_begin(around);
}

void timer_disarm(struct timer *timer)
{
    (void)timer;
}

void scope_child_ended(struct origin *child, int value)
{
    (void)child, (void)value;
}

void slab_give(struct slab_cell *slot, bool large)
{
    model_check(!large && STATE_COUNT(slot->word.value) == 0);
    freed++; /* a race with whoever frees it, too, is reported */
    slot->link.next = NULL;
    cell->type = NULL;
    if (type_stable)
        atomic_u32_store(&returned, 1, RELEASE);
    else
        model_free(slot);
}

/* ---- the task ---- */

static int poll(void *state, void *result, rouse_context *context)
{
    uint32_t seen = 0;
    model_check(*(uint32_t *)state == VALUE && !ended);
    polls++;
    model_check(context->waker.data == cell);
    for (unsigned t = 0; t < MODEL_THREADS; t++)
        if (wanted >> t & 1)
            seen |= atomic_u32_load(&said[t], RELAXED) << t;
    if (seen != wanted || !finishes)
        return ROUSE_PENDING;
    ((struct result *)result)->number = VALUE;
    return VALUE;
}

static void drop(void *state)
{
    model_check(*(uint32_t *)state == VALUE);
    *(uint32_t *)state = 0;
    ended = true;
    dropped++;
}

static void drop_result(void *result)
{
    model_check(((struct result *)result)->number == VALUE);
    ((struct result *)result)->number = 0;
    results_dropped++;
}

static const uint32_t initial_state = VALUE;
static _Alignas(64) char stable_memory[256];

/* A task in the queue; in setup, or by a thread that has a cell which nobody uses. */
static void prepare(bool joinable)
{
    type = (rouse_task_type){.poll = poll,
                             .drop = drop,
                             .drop_result = drop_result,
                             .state_size = sizeof(uint32_t),
                             .result_size = sizeof(struct result)};
    task_prepare(cell, &type, &initial_state, joinable, 0, "here");
    entry.cell = cell;
    atomic_u32_store(&entry.word, ENTRY_TASK, RELEASE);
}

static void setup_with(bool joinable)
{
    size_t bytes, alignment;
    model_task_setup();
    type = (rouse_task_type){.poll = poll, .state_size = sizeof(uint32_t), .result_size = sizeof(struct result)};
    task_measure(&type, false, &bytes, &alignment);
    cell = type_stable ? (struct task_cell *)(void *)stable_memory : model_alloc(bytes);
    memset(cell, 0, bytes);
    entry.single = single;
    memset(said, 0, sizeof said);
    atomic_u32_init(&returned, 0);
    ended = false;
    polls = dropped = results_dropped = freed = 0;
    prepare(joinable);
    handle.cell = joinable ? cell : NULL;
}

/* With references for two wakers. */
static void setup_two_wakers(void)
{
    setup_with(false);
    task_acquire(cell);
    task_acquire(cell);
}

static void setup_one_waker(void)
{
    setup_with(false);
    task_acquire(cell);
}

static void setup_joinable(void)
{
    setup_with(true);
}

static void setup_joinable_and_waker(void)
{
    setup_with(true);
    task_acquire(cell);
}

/* ---- threads ---- */

static void worker(void)
{
    struct surroundings around;
    struct task_cell *next;
    model_enter_executor();
    while (!(entry.single && ended) && (next = model_take()))
        task_run(next, &around, local_current());
}

static rouse_waker own_waker(void)
{
    return (rouse_waker){cell, &task_waker_table};
}

static void say(void)
{
    atomic_u32_store(&said[model_self()], 1, RELAXED);
}

static void wake_by_value(void)
{
    rouse_waker waker = own_waker();
    say();
    rouse_waker_wake(&waker);
}

static void wake_by_reference(void)
{
    rouse_waker waker = own_waker();
    say();
    rouse_waker_wake_by_ref(&waker);
    rouse_waker_drop(&waker);
}

static void wake_a_clone(void)
{
    rouse_waker waker = own_waker(), clone = rouse_waker_clone(&waker);
    rouse_waker_drop(&waker);
    say();
    rouse_waker_wake(&clone);
}

static void wake_by_value_inside(void)
{
    model_enter_executor();
    wake_by_value();
}

static void wake_by_reference_inside(void)
{
    model_enter_executor();
    wake_by_reference();
}

/* The scale of the memory model where two threads make it cheap. */
enum { HISTORY = 2 };

static void check_ended(void)
{
    model_check(dropped == 1 && freed == 1 && entry.word.value != ENTRY_TASK);
    signals_check();
}

static void check_result_dropped(void)
{
    check_ended();
    model_check(results_dropped == 1);
}

static void run(struct model *model)
{
    single = model->threads[1] != worker;
    assert_true(model_run(model).ok);
}

static void finishes_after(uint32_t said_by)
{
    wanted = said_by;
    finishes = said_by != 0;
    type_stable = false;
}

/* ---- waking ---- */

TEST(a_wake_from_outside_leads_to_a_poll_that_sees_what_was_written_before)
{
    struct model model = {.name = "task wake",
                          .setup = setup_one_waker,
                          .threads = {worker, wake_by_value},
                          .finish = check_result_dropped,
                          .history = HISTORY,
                          .spurious = 1};
    finishes_after(2);
    run(&model);
    model.threads[1] = wake_by_reference;
    run(&model);
    model.threads[1] = wake_a_clone;
    model.spurious = 0;
    run(&model);
}

TEST(two_wakes_at_once_lead_to_a_poll_that_sees_what_was_written_before_both)
{
    struct model model = {.name = "task wakes",
                          .setup = setup_two_wakers,
                          .threads = {worker, wake_by_value_inside, wake_by_reference_inside},
                          .finish = check_result_dropped,
                          .preemption_bound = (unsigned)test_scale(3, 0)}; /* all of them: minutes */
    finishes_after(2 | 4);
    run(&model);
}

TEST(two_workers_never_poll_at_once)
{
    struct model model = {.name = "task workers",
                          .setup = setup_one_waker,
                          .threads = {worker, worker, wake_by_value_inside},
                          .finish = check_result_dropped,
                          .preemption_bound = (unsigned)test_scale(3, 0)}; /* all of them: minutes */
    finishes_after(4);
    run(&model);
}

/* ---- aborting ---- */

static void check_cancelled(void)
{
    check_ended();
    model_check(results_dropped == 0);
}

static void abort_and_detach(void)
{
    rouse_abort(&handle);
    rouse_detach(&handle);
}

/* As a scope or a shutdown does. */
static void cancel_inside(void)
{
    model_enter_executor();
    task_cancel(cell);
    task_release(cell);
}

static void check_at_most_one_result(void)
{
    check_ended();
    model_check(results_dropped <= 1);
}

TEST(an_aborted_task_ends_once_however_it_is_woken)
{
    struct model model = {.name = "task abort",
                          .setup = setup_joinable,
                          .threads = {worker, abort_and_detach},
                          .finish = check_cancelled,
                          .history = (unsigned)test_scale(1, HISTORY),
                          .spurious = 1};
    finishes_after(0);
    run(&model);
    model = (struct model){.name = "task abort and wake",
                           .setup = setup_two_wakers,
                           .threads = {worker, cancel_inside, wake_by_reference_inside},
                           .finish = check_cancelled,
                           .preemption_bound = (unsigned)test_scale(3, 0), /* all of them: minutes */
                           .history = 0};
    if (test_scale(1, 2) > 1)
        run(&model);
    finishes_after(4);
    model.name = "task abort or end";
    model.finish = check_at_most_one_result;
    run(&model);
}

/* ---- joining ---- */

static struct result joined;
static bool was_joined;

static void setup_join(void)
{
    setup_joinable_and_waker();
    joined = (struct result){0};
    was_joined = false;
}

static ptrdiff_t poll_join(rouse_op *op, unsigned signal)
{
    rouse_waker waker = signal_waker(signal);
    rouse_context context = {waker, 0, {NULL, NULL, NULL}};
    return join_poll(op, &context);
}

static void take_joined(ptrdiff_t value)
{
    was_joined = value == VALUE;
    model_check(was_joined ? joined.number == VALUE : value == ROUSE_CANCELLED && joined.number == 0);
    model_check(!handle.cell && dropped == 1); /* the state is gone before the result is there */
}

static void join(void)
{
    rouse_op op;
    ptrdiff_t value;
    rouse_join_init(&op, &handle, &joined);
    while ((value = poll_join(&op, 0)) == ROUSE_PENDING)
        signal_wait(0);
    take_joined(value);
}

/* Polled with one waker, then with another one: that one counts. */
static void join_with_another_waker(void)
{
    rouse_op op;
    ptrdiff_t value;
    rouse_join_init(&op, &handle, &joined);
    value = poll_join(&op, 0);
    while (value == ROUSE_PENDING && (value = poll_join(&op, 1)) == ROUSE_PENDING)
        signal_wait(1);
    take_joined(value);
}

static void join_cancel_and_detach(void)
{
    rouse_op op;
    rouse_join_init(&op, &handle, &joined);
    ptrdiff_t value = poll_join(&op, 0);
    if (value == ROUSE_PENDING) {
        join_cancel(&op);
        rouse_detach(&handle);
    } else {
        take_joined(value);
    }
}

static void abort_and_join(void)
{
    rouse_abort(&handle);
    join();
}

static void check_joined(void)
{
    check_ended();
    model_check(was_joined && results_dropped == 0);
}

static void check_joined_or_dropped(void)
{
    check_ended();
    model_check(results_dropped == (was_joined ? 0 : 1));
}

static void setup_join_queued(void)
{
    setup_with(true);
    joined = (struct result){0};
    was_joined = false;
}

TEST(a_joiner_is_woken_and_gets_the_result)
{
    struct model model = {.name = "task join",
                          .setup = setup_join,
                          .threads = {worker, join, wake_by_value_inside},
                          .finish = check_joined};
    finishes_after(4);
    run(&model);
    wanted = 0; /* at the first poll */
    model = (struct model){.name = "task join at once",
                           .setup = setup_join_queued,
                           .threads = {worker, join},
                           .finish = check_joined,
                           .history = HISTORY,
                           .spurious = 1};
    run(&model);
    model.name = "task join with another waker";
    model.spurious = 0;
    model.history = (unsigned)test_scale(1, 2);
    model.threads[1] = join_with_another_waker;
    run(&model);
}

TEST(a_join_that_is_taken_back_leaves_the_result_to_be_dropped)
{
    struct model model = {.name = "task join cancel",
                          .setup = setup_join_queued,
                          .threads = {worker, join_cancel_and_detach},
                          .finish = check_joined_or_dropped,
                          .history = (unsigned)test_scale(1, HISTORY),
                          .spurious = 1};
    finishes_after(2);
    wanted = 0;
    run(&model);
}

static void check_only_cancelled(void)
{
    check_cancelled();
    model_check(!was_joined);
}

TEST(the_joiner_of_an_aborted_task_learns_that_it_was_cancelled)
{
    struct model model = {.name = "task abort and join",
                          .setup = setup_join_queued,
                          .threads = {worker, abort_and_join},
                          .finish = check_only_cancelled,
                          .history = (unsigned)test_scale(1, HISTORY)};
    finishes_after(0);
    run(&model);
}

/* ---- a walk ---- */

static bool walked;
static unsigned generation;

static void setup_walk(void)
{
    setup_with(false);
    walked = false;
    generation = 0;
}

/* As cancel_one of spawner.c and report_task of runtime.c do it. */
static void walk(void)
{
    if (!task_acquire_live(&cell->slot))
        return;
    walked = true;
    model_check(cell->type == &type && strcmp(cell->site, "here") == 0);
    task_cancel(cell);
    task_wake_by_ref(cell);
    task_release(cell);
}

/* The worker's next task gets the cell of the last one, if that is free already. */
static void work_and_spawn_again(void)
{
    struct surroundings around;
    model_enter_executor();
    while (!ended)
        task_run(model_take(), &around, local_current());
    if (!atomic_u32_load(&returned, ACQUIRE))
        return;
    ended = false;
    prepare(false);
    while (!ended)
        task_run(model_take(), &around, local_current());
}

static void check_walked(void)
{
    model_check(dropped == freed && freed >= 1 && entry.word.value != ENTRY_TASK);
}

TEST(a_walk_finds_cells_whole_or_not_at_all)
{
    struct model model = {.name = "task walk",
                          .setup = setup_walk,
                          .threads = {work_and_spawn_again, walk},
                          .finish = check_walked,
                          .history = (unsigned)test_scale(1, 2) - 1};
    finishes_after(2);
    wanted = 0;
    type_stable = true;
    run(&model);
}
