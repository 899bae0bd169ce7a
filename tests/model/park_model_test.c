/* Sleeping and being woken: workers look for tasks and go to sleep while tasks come from outside, from the kernel and
 * from each other. No task waits while everybody sleeps, no reactor with something to report is left alone, and a sleep
 * costs one wake-up of the kernel at most. */
#include "model_lock.h"

#include "core/clock.c"
#include "core/idle.c"
#include "core/inbox.c"
#include "core/inject.c"
#include "core/parker.c"
#include "core/placement.c"
#include "core/ring.c"
#include "core/worker.c"

#include "explorer.h"

#include "support/harness.h"

enum { WORKERS = 2, TASKS = 3 };

/* What a reactor waits in. */
enum { WOKEN = 1, EVENT = 2 };

static struct backend {
    atomic_u32 bell; /* bits of why a wait ends */
} backends[WORKERS];

static struct rouse_runtime runtime;
static struct worker workers[WORKERS];
static struct reactor reactors[WORKERS];
static uint16_t sleepers[WORKERS];
static bool listed[WORKERS];
static const rouse_task_type type;
static struct task_cell tasks[TASKS]; /* the last one is woken by the kernel */
static unsigned ran[TASKS];           /* how often */
static unsigned expected;             /* tasks that must run */
static bool first_wakes_others;       /* by being polled */
static bool event_wakes_two;
static unsigned last;                                       /* whoever has polled one of these tasks ends; bits */
static bool polled_last[WORKERS];                           /* by worker */
static unsigned turns[MODEL_THREADS], bells[MODEL_THREADS]; /* by thread */

/* ---- what stands below ---- */

uint64_t os_random(void)
{
    return 1;
}

uint32_t os_process(void)
{
    return 0;
}

void spawner_count_completion(struct spawner *spawner, struct spawn_counts *counts)
{
    (void)spawner, (void)counts;
}

void task_run(struct task_cell *cell, struct surroundings *around, struct local *local)
{
    size_t number = (size_t)(cell - tasks);
    local->around = around;
    model_check(++ran[number] == 1);
    if (last >> number & 1)
        polled_last[model_self()] = true;
    if (number == 0 && first_wakes_others) {
        placement_submit(local->scheduler, &tasks[1]);
        placement_submit(local->scheduler, &tasks[2]);
    }
    local->around = NULL;
}

/* The waiting and waking of reactor.c; timers and slots have models of their own. */
size_t reactor_turn(struct reactor *reactor, int64_t deadline_ns)
{
    struct backend *backend = reactor->backend;
    turns[model_self()]++;
    uint32_t why = atomic_u32_exchange(&backend->bell, 0, ACQ_REL);
    if (!why && deadline_ns > os_now()) {
        os_wait_on(&backend->bell.value, 0, deadline_ns);
        why = atomic_u32_exchange(&backend->bell, 0, ACQ_REL);
    }
    atomic_u32_exchange(&reactor->woken, 0, ACQ_REL);
    if (why & EVENT)
        placement_submit(&runtime.spawner.scheduler, &tasks[TASKS - 1]);
    if (why & EVENT && event_wakes_two)
        placement_submit(&runtime.spawner.scheduler, &tasks[TASKS - 2]);
    return (why & EVENT) / EVENT;
}

static void ring_bell(struct backend *backend, uint32_t why)
{
    atomic_u32_or(&backend->bell, why, ACQ_REL);
    os_wake_one(&backend->bell.value);
}

void reactor_wake(struct reactor *reactor)
{
    if (atomic_u32_exchange(&reactor->woken, 1, ACQ_REL) != 0)
        return;
    bells[model_self()]++;
    ring_bell(reactor->backend, WOKEN);
}

/* ---- threads ---- */

static void work(void)
{
    struct worker *worker = &workers[model_self()];
    worker_enter(worker);
    while (!polled_last[worker->index])
        if (worker_step(worker) == WORKER_IDLE)
            worker_park(worker, ROUSE_NEVER);
}

static void submit(void)
{
    placement_submit(&runtime.spawner.scheduler, &tasks[0]);
}

static void submit_two(void)
{
    placement_submit(&runtime.spawner.scheduler, &tasks[0]);
    placement_submit(&runtime.spawner.scheduler, &tasks[1]);
}

static void make_event(void)
{
    ring_bell(&backends[0], EVENT);
}

/* The last worker, as a sentinel that finds the first one stuck and looks into its reactor; then it is busy. */
static void sweep_once(void)
{
    struct worker *worker = &workers[WORKERS - 1];
    worker_enter(worker);
    sweep(worker, true);
}

/* ---- setup ---- */

static unsigned reactor_count;
static unsigned attended; /* reactors in which somebody must wait at the end */
static int scheduler;
static bool foreign_sentinel; /* the sentinel is somebody else, who sleeps */

static void setup(void)
{
    memset(backends, 0, sizeof backends);
    memset(&runtime, 0, sizeof runtime);
    memset(ran, 0, sizeof ran);
    memset(polled_last, 0, sizeof polled_last);
    memset(turns, 0, sizeof turns);
    memset(bells, 0, sizeof bells);
    runtime.workers = WORKERS;
    runtime.reactors = reactor_count;
    runtime.scheduler = scheduler;
    runtime.worker = workers;
    runtime.reactor = reactors;
    runtime.spawner.scheduler.submit = placement_submit;
    inject_init(&runtime.inject);
    idle_init(&runtime.idle, WORKERS, sleepers, listed);
    memset(listed, 0, sizeof listed);
    if (foreign_sentinel)
        atomic_u32_init(&runtime.idle.sentinel, WORKERS);
    for (unsigned i = 0; i < WORKERS; i++) {
        struct reactor *reactor = &reactors[i % reactor_count];
        reactor->turn = (struct lock){{0}};
        reactor->backend = &backends[i % reactor_count];
        atomic_u32_init(&reactor->woken, 0);
        memset(workers[i].ring.slots, 0, sizeof workers[i].ring.slots);
        worker_init(&workers[i], &runtime, i, reactor);
        model_cells(&workers[i].counters, sizeof workers[i].counters); /* of no interest to anybody here */
    }
    for (unsigned i = 0; i < TASKS; i++)
        tasks[i] = (struct task_cell){.type = &type};
    if (first_wakes_others)
        worker_push(&workers[0], &tasks[0]);
}

/* All sleep: everything has been done, and, unless workers have ended, somebody waits in each reactor. */
static bool all_done(void)
{
    unsigned all_turns = 0, all_bells = 0;
    for (unsigned i = 0; i < attended; i++)
        if (!reactors[i].turn.word.value || backends[i].bell.value)
            return false;
    for (unsigned i = 0; i < TASKS; i++)
        if (ran[i] != (expected >> i & 1))
            return false;
    for (unsigned t = 0; t < MODEL_THREADS; t++) {
        all_turns += turns[t];
        all_bells += bells[t];
    }
    return all_bells <= all_turns; /* one bell a sleep */
}

static void check_done(void)
{
    model_check(all_done());
}

static void explore(struct model *model, unsigned tasks_that_run, unsigned last_tasks)
{
    model->setup = setup;
    model->finish = check_done;
    model->quiet = all_done;
    model->deadlines_never_pass = true; /* nothing is rescued by an alarm */
    expected = tasks_that_run;
    last = last_tasks;
    assert_true(model_run(model).ok);
}

static void with_reactors(unsigned count, unsigned attended_at_the_end)
{
    reactor_count = count;
    attended = attended_at_the_end;
    scheduler = ROUSE_SCHEDULER_WORK_STEALING;
    foreign_sentinel = true;
    first_wakes_others = event_wakes_two = false;
}

/* ---- tasks ---- */

/* The other worker is busy all the time. */
TEST(a_task_from_outside_is_found_by_a_worker_that_goes_to_sleep)
{
    struct model model = {.name = "park submit", .threads = {work, submit}, .history = 1};
    with_reactors(WORKERS, 0);
    explore(&model, 1, 1);
    model.name = "park submit two";
    model.threads[1] = submit_two;
    model.history = 0;
    explore(&model, 1 | 2, 2);
}

TEST(a_task_sent_to_a_worker_is_found_by_it)
{
    struct model model = {.name = "park send", .threads = {work, submit}, .history = 1};
    with_reactors(WORKERS, 0);
    scheduler = ROUSE_SCHEDULER_ROUND_ROBIN;
    explore(&model, 1, 1);
}

TEST(a_task_from_outside_does_not_wait_while_all_sleep)
{
    struct model model = {.name = "park workers", .threads = {work, work, submit}};
    model.preemption_bound = (unsigned)test_scale(2, 3);
    with_reactors(WORKERS, 0);
    explore(&model, 1, 1);
    with_reactors(1, 0);
    explore(&model, 1, 1);
}

/* A task wakes two others and its worker goes on with something long: one of the two lies in its slot, the other one is
 * there to be stolen. */
TEST(the_last_searcher_looks_once_more_before_it_sleeps)
{
    struct model model = {.name = "park searcher", .threads = {work, work}, .history = 0};
    with_reactors(WORKERS, 0);
    first_wakes_others = true;
    explore(&model, 1 | 2, 1 | 2);
}

TEST(a_worker_that_wakes_up_another_worker_for_a_second_task_does_so_once_it_has_found_the_first)
{
    struct model model = {.name = "park chain", .threads = {work, work, submit_two}};
    model.preemption_bound = (unsigned)test_scale(2, 3);
    with_reactors(WORKERS, 0);
    explore(&model, 1 | 2, 1 | 2);
}

TEST(of_two_tasks_that_one_event_wakes_one_is_left_to_another_worker)
{
    struct model model = {.name = "park event for two", .threads = {work, work, make_event}};
    model.preemption_bound = (unsigned)test_scale(1, 3);
    with_reactors(WORKERS, 0);
    event_wakes_two = true;
    explore(&model, 2 | 4, 2 | 4);
}

/* ---- reactors ---- */

TEST(somebody_waits_in_the_reactor_while_all_sleep)
{
    struct model model = {.name = "park reactor", .threads = {work, work}};
    with_reactors(1, 1);
    foreign_sentinel = false;
    explore(&model, 0, 0);
    model.name = "park event";
    model.threads[2] = make_event;
    model.preemption_bound = (unsigned)test_scale(2, 3);
    explore(&model, 4, 0);
}

TEST(a_worker_that_found_its_reactor_taken_returns_to_it)
{
    struct model model = {.name = "park sweep", .threads = {work, sweep_once}};
    with_reactors(WORKERS, 1);
    explore(&model, 0, 0);
}
