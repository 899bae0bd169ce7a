#include "core/runtime.h"

#define MAINTENANCE_POLLS 61 /* as in other schedulers: rare enough to be free, no divisor of round numbers */
#define MAINTENANCE_NS    ROUSE_US(500) /* and at least about this often */
#define SLOT_RUNS_MAX     3           /* tasks that wake each other through the slot must not keep the others waiting */
#define SWEEP_NS          ROUSE_MS(2) /* a stuck worker is noticed at the second look: within twice this */
#define SWEEP_QUIET       3           /* alarms with everybody asleep before the sentinel sleeps for good */
#define INJECT_SHARE      32          /* tasks taken from the shared queue at once, at most */

static void bump(atomic_u64 *counter, uint64_t by)
{
    atomic_u64_store(counter, atomic_u64_load(counter, RELAXED) + by, RELAXED); /* one writer, read for statistics */
}

static void advance_tick(struct worker *worker)
{
    atomic_u32_store(&worker->tick, atomic_u32_load(&worker->tick, RELAXED) + 1, RELAXED); /* a heuristic reads it */
}

void worker_init(struct worker *worker, struct rouse_runtime *runtime, unsigned index, struct reactor *reactor)
{
    *worker = (struct worker){.runtime = runtime, .index = index, .interval = MAINTENANCE_POLLS};
    worker->local = (struct local){&runtime->spawner.scheduler, reactor, NULL, os_now()};
    worker->steals = runtime->scheduler == ROUSE_SCHEDULER_WORK_STEALING && runtime->workers > 1;
    worker->until_maintenance = MAINTENANCE_POLLS;
    worker->maintained_ns = worker->local.now_ns;
    worker->random = os_random() | 1;
    queue_init(&worker->own);
    ring_init(&worker->ring);
    inbox_init(&worker->inbox);
}

void worker_enter(struct worker *worker)
{
    worker->outer = os_current();
    os_current_set(&worker->local);
}

void worker_leave(struct worker *worker)
{
    os_current_set(worker->outer);
}

/* ---- queues ---- */

void worker_notify(struct rouse_runtime *runtime)
{
    uint32_t peer = idle_notify(&runtime->idle);
    if (peer != IDLE_NOBODY)
        parker_unpark(&runtime->worker[peer].parker);
}

static bool is_stealable(const struct worker *worker, const struct task_cell *cell)
{
    /* RELAXED: set by the worker that the task is pinned to, before it is queued again. */
    return worker->steals && !(atomic_size_load(&cell->slot.word, RELAXED) & STATE_PINNED);
}

/* A full ring: half of it, and the new task, go to the shared queue. */
static void overflow(struct worker *worker, struct task_cell *cell)
{
    void *items[RING_SIZE / 2];
    struct queue batch;
    size_t count = ring_take_half(&worker->ring, items);
    if (count == 0) { /* a thief is making room at this moment */
        if (ring_push(&worker->ring, cell))
            return;
        inject_push(&worker->runtime->inject, &cell->slot.link);
        return;
    }
    queue_init(&batch);
    for (size_t i = 0; i < count; i++)
        queue_push(&batch, &((struct task_cell *)items[i])->slot.link);
    queue_push(&batch, &cell->slot.link);
    inject_push_batch(&worker->runtime->inject, &batch);
}

void worker_push(struct worker *worker, struct task_cell *cell)
{
    if (!is_stealable(worker, cell))
        queue_push(&worker->own, &cell->slot.link);
    else if (!ring_push(&worker->ring, cell))
        overflow(worker, cell);
}

/* After a push of a task that peers may take while this worker goes on with what it does. */
static void notify_after_push(struct worker *worker)
{
    if (worker->steals && !worker->dispatching)
        worker_notify(worker->runtime);
}

void worker_push_next(struct worker *worker, struct task_cell *cell)
{
    if (!is_stealable(worker, cell)) {
        queue_push(&worker->own, &cell->slot.link);
        return;
    }
    /* ACQ_REL: the sentinel may take the task at the same time. No notification: it runs next, here. */
    struct task_cell *before = atomic_ptr_exchange(&worker->slot, cell, ACQ_REL);
    if (!before)
        return;
    worker_push(worker, before);
    notify_after_push(worker);
}

void worker_send(struct worker *worker, struct task_cell *cell)
{
    if (inbox_push(&worker->inbox, &cell->slot.link))
        parker_unpark(&worker->parker);
}

static void take_inbox(struct worker *worker)
{
    struct queue received;
    if (inbox_is_empty(&worker->inbox))
        return;
    queue_init(&received);
    inbox_take(&worker->inbox, &received);
    for (struct queue_link *link; (link = queue_pop(&received));)
        queue_push(&worker->own, link);
}

/* The task may keep this worker, and what waits in the ring was announced to nobody if it was to run next. */
static struct task_cell *pop_own(struct worker *worker)
{
    struct queue_link *link = queue_pop(&worker->own);
    if (link && worker->steals && !ring_is_empty(&worker->ring))
        worker_notify(worker->runtime);
    return link ? task_of_link(link) : NULL;
}

static struct task_cell *pop_slot(struct worker *worker)
{
    if (!worker->steals || !atomic_ptr_load(&worker->slot, RELAXED))
        return NULL;
    bool others_wait = !ring_is_empty(&worker->ring) || !queue_is_empty(&worker->own);
    if (worker->slot_runs >= SLOT_RUNS_MAX && others_wait) {
        struct task_cell *cell = atomic_ptr_exchange(&worker->slot, NULL, ACQ_REL);
        worker->slot_runs = 0;
        if (!cell)
            return NULL;
        worker_push(worker, cell);
        notify_after_push(worker); /* it is not the next that runs here */
        return NULL;
    }
    worker->slot_runs++;
    return atomic_ptr_exchange(&worker->slot, NULL, ACQ_REL); /* with worker_push_next and the sentinel */
}

static struct task_cell *pop_ring(struct worker *worker)
{
    return worker->steals ? ring_pop(&worker->ring) : NULL;
}

/* Takes a fair share of the shared queue; the rest of the share goes behind the worker's own tasks. */
static struct task_cell *pop_inject(struct worker *worker)
{
    struct rouse_runtime *runtime = worker->runtime;
    struct queue share;
    size_t length = inject_length(&runtime->inject), limit = length / runtime->workers + 1;
    if (length == 0)
        return NULL;
    queue_init(&share);
    inject_pop_some(&runtime->inject, &share, limit < INJECT_SHARE ? limit : INJECT_SHARE);
    struct queue_link *first = queue_pop(&share);
    for (struct queue_link *link; (link = queue_pop(&share));)
        worker_push(worker, task_of_link(link));
    /* Those who pushed them may have counted on this worker's search, and those who searched meanwhile saw them nowhere. */
    if (length > 1)
        notify_after_push(worker);
    return first ? task_of_link(first) : NULL;
}

bool worker_has_work(struct worker *worker)
{
    return !queue_is_empty(&worker->own) || !inbox_is_empty(&worker->inbox) ||
           !inject_is_empty(&worker->runtime->inject) ||
           (worker->steals && (atomic_ptr_load(&worker->slot, RELAXED) || !ring_is_empty(&worker->ring)));
}

/* ---- the reactor ---- */

/* One turn in a reactor that this worker has locked. Tasks woken by it go to this worker's queues; peers hear of them
 * once, afterwards, unless there is just one and this worker is about to run it. */
static size_t turn(struct worker *worker, struct reactor *reactor, int64_t deadline_ns, bool is_idle)
{
    worker->dispatching = true;
    bump(&worker->counters.turns, 1);
    size_t happened = reactor_turn(reactor, deadline_ns);
    worker->dispatching = false;
    if (worker->steals && happened > 0 && ring_length(&worker->ring) > (is_idle ? 1u : 0u))
        worker_notify(worker->runtime);
    return happened;
}

/* The holder of a reactor's lock that was not there to wait leaves: a worker which found it taken may have gone to sleep
 * elsewhere, and must try again. */
static void leave_reactor(struct rouse_runtime *runtime, struct reactor *reactor, const struct worker *self)
{
    lock_release(&reactor->turn);
    size_t place = (size_t)(reactor - runtime->reactor);
    for (size_t i = place; i < runtime->workers; i += runtime->reactors)
        if (&runtime->worker[i] != self)
            parker_unpark(&runtime->worker[i].parker);
}

static bool polls_itself(const struct worker *worker)
{
    return !worker->runtime->dedicated_poller;
}

void worker_poll_kernel(struct worker *worker)
{
    struct reactor *reactor = worker->local.reactor;
    if (!polls_itself(worker) || !lock_try(&reactor->turn)) {
        worker->local.now_ns = os_now();
        return;
    }
    turn(worker, reactor, 0, false);
    lock_release(&reactor->turn);
}

/* ---- sweeping ---- */

/* The owner has not finished a poll, nor begun or ended a sleep, since the last look. (One that sleeps has nothing lying
 * about, and keeps its reactor's lock.) */
static bool is_stuck(struct worker *owner)
{
    uint32_t tick = atomic_u32_load(&owner->tick, RELAXED);
    bool stuck = atomic_u32_load(&owner->swept_tick, RELAXED) == tick;
    atomic_u32_store(&owner->swept_tick, tick, RELAXED);
    return stuck;
}

/* What was sent to a stuck worker and may run anywhere, fibers before their first run, is taken over; the rest goes back. */
static void take_over_inbox(struct worker *worker, struct worker *owner)
{
    struct queue sent;
    queue_init(&sent);
    inbox_take(&owner->inbox, &sent);
    for (struct queue_link *link; (link = queue_pop(&sent));) {
        struct task_cell *cell = task_of_link(link);
        if (is_stealable(worker, cell))
            worker_push(worker, cell);
        else
            worker_send(owner, cell);
    }
}

/* One round: what stuck workers leave lying is taken over. Several of those tasks must not wait for each other. */
static void sweep(struct worker *worker, bool is_idle)
{
    struct rouse_runtime *runtime = worker->runtime;
    for (unsigned i = 0; i < runtime->workers; i++) {
        struct worker *owner = &runtime->worker[i];
        struct reactor *reactor = owner->local.reactor;
        if (owner == worker || !is_stuck(owner))
            continue;
        if (worker->steals) {
            struct task_cell *cell = atomic_ptr_exchange(&owner->slot, NULL, ACQ_REL);
            if (cell)
                worker_push(worker, cell);
            take_over_inbox(worker, owner);
        }
        if (!polls_itself(worker) || reactor == worker->local.reactor || !lock_try(&reactor->turn))
            continue;
        bump(&worker->counters.sweeps, 1);
        turn(worker, reactor, 0, is_idle);
        leave_reactor(runtime, reactor, worker);
    }
    if (worker->steals && ring_length(&worker->ring) > (is_idle ? 1u : 0u))
        worker_notify(runtime);
}

/* One sweep in each interval, whoever makes it: the sentinel, or busy workers if nobody sleeps. A sentinel that is woken more
 * often than that would else begin anew to wait for its alarm each time. RELAXED: the clock, not the order, matters. */
static bool claim_sweep(struct worker *worker, int64_t now_ns)
{
    atomic_i64 *due = &worker->runtime->idle.sweep_ns;
    int64_t due_ns = atomic_i64_load(due, RELAXED);
    return now_ns >= due_ns && atomic_i64_cas(due, &due_ns, now_ns + SWEEP_NS, RELAXED, RELAXED);
}

/* Looks at what only the idle would see otherwise. The interval is fitted to the length of polls, so that the clock need
 * not be read at each. */
static struct task_cell *maintain(struct worker *worker)
{
    worker_poll_kernel(worker);
    int64_t now_ns = worker->local.now_ns, passed_ns = now_ns - worker->maintained_ns;
    worker->maintained_ns = now_ns;
    if (passed_ns < 1)
        passed_ns = 1; /* readings of different threads may differ by a little */
    uint64_t fitting = (uint64_t)(worker->interval * MAINTENANCE_NS / passed_ns);
    worker->interval = fitting < 2 ? 2 : fitting > MAINTENANCE_POLLS ? MAINTENANCE_POLLS : (uint32_t)fitting;
    worker->until_maintenance = worker->interval;
    bool no_sentinel = atomic_u32_load(&worker->runtime->idle.sentinel, RELAXED) == IDLE_NOBODY; /* nobody sleeps */
    if (worker->runtime->workers > 1 && no_sentinel && claim_sweep(worker, now_ns))
        sweep(worker, false);
    take_inbox(worker);
    return pop_inject(worker);
}

/* ---- finding and polling ---- */

/* The two queues take turns, in proportion to what waits in each, as if they were one: a fiber that is always ready, an
 * accept loop under a flood, would else run once for each of the many fibers that it starts, or they all for each of its
 * polls. */
static struct task_cell *pop_in_turn(struct worker *worker)
{
    struct task_cell *cell = NULL;
    if (!worker->steals)
        return pop_own(worker);
    if (worker->own_turns == 0 && worker->ring_turns == 0) {
        size_t own = worker->own.count, ring = ring_length(&worker->ring);
        worker->own_turns = 1 + own / (ring + 1);
        worker->ring_turns = 1 + ring / (own + 1);
    }
    if (worker->own_turns > 0) {
        worker->own_turns--;
        if ((cell = pop_own(worker)))
            return cell;
        worker->own_turns = 0;
    }
    if (worker->ring_turns > 0)
        worker->ring_turns--;
    cell = pop_ring(worker);
    return cell ? cell : pop_own(worker);
}

static struct task_cell *find_local(struct worker *worker)
{
    struct task_cell *cell = NULL;
    if (--worker->until_maintenance == 0)
        cell = maintain(worker);
    if (!cell)
        cell = pop_slot(worker);
    if (cell)
        return cell;
    worker->slot_runs = 0;
    cell = pop_in_turn(worker);
    if (cell)
        return cell;
    take_inbox(worker);
    if ((cell = pop_own(worker)))
        return cell;
    return pop_inject(worker);
}

static uint32_t next_random(struct worker *worker)
{
    worker->random ^= worker->random << 13;
    worker->random ^= worker->random >> 7;
    worker->random ^= worker->random << 17;
    return (uint32_t)(worker->random >> 32);
}

static struct task_cell *steal(struct worker *worker)
{
    struct rouse_runtime *runtime = worker->runtime;
    uint32_t start = next_random(worker);
    for (unsigned i = 0; i < runtime->workers; i++) {
        struct worker *victim = &runtime->worker[(start + i) % runtime->workers];
        void *first;
        if (victim == worker || ring_is_empty(&victim->ring))
            continue;
        size_t taken = ring_steal(&victim->ring, &worker->ring, &first);
        bump(&worker->counters.steals, taken);
        if (taken)
            return first;
    }
    return pop_inject(worker);
}

static void end_search(struct worker *worker)
{
    if (!worker->searching)
        return;
    worker->searching = false;
    if (idle_end_search(&worker->runtime->idle))
        worker_notify(worker->runtime);
}

static struct task_cell *search(struct worker *worker)
{
    if (!worker->steals)
        return NULL;
    if (!worker->searching)
        worker->searching = idle_begin_search(&worker->runtime->idle);
    return worker->searching ? steal(worker) : NULL;
}

/* A fiber that has run here stays here: its code may keep addresses of this thread. */
static void pin(struct worker *worker, struct task_cell *cell)
{
    const struct task_hooks *hooks = task_hooks(cell);
    if (!hooks || atomic_size_load(&cell->slot.word, RELAXED) & STATE_PINNED)
        return;
    atomic_u32 *home = hooks->home(cell);
    if (!home)
        return;
    atomic_u32_store(home, worker->index, RELAXED);
    atomic_u32_add(&worker->fibers, 1, RELAXED);
    atomic_size_or(&cell->slot.word, STATE_PINNED, RELEASE); /* with ACQUIRE in placement_submit: the home is set */
}

static void run(struct worker *worker, struct task_cell *cell)
{
    end_search(worker);
    advance_tick(worker);
    pin(worker, cell);
    bump(&worker->counters.polls, 1);
    task_run(cell, &worker->around, &worker->local);
    if (worker->around.budget_ended)
        bump(&worker->counters.budget_ends, 1);
}

enum worker_step worker_step(struct worker *worker)
{
    struct task_cell *cell = find_local(worker);
    if (!cell)
        cell = search(worker);
    if (!cell) {
        worker->until_maintenance = worker->interval; /* parking looks at everything */
        return WORKER_IDLE;
    }
    run(worker, cell);
    return WORKER_RAN;
}

/* ---- sleeping ---- */

/* After announcing the sleep: is there anything for this worker, or, if nobody searches, anything to steal? */
static bool sees_work(struct worker *worker, bool nobody_searches)
{
    struct rouse_runtime *runtime = worker->runtime;
    if (worker_has_work(worker))
        return true;
    if (!nobody_searches)
        return false;
    for (unsigned i = 0; i < runtime->workers; i++)
        if (!ring_is_empty(&runtime->worker[i].ring))
            return true;
    return false;
}

static bool is_sentinel(struct worker *worker)
{
    return atomic_u32_load(&worker->runtime->idle.sentinel, RELAXED) == worker->index;
}

/* Takes the sentinel's place if it is free and somebody is awake. */
static bool become_sentinel(struct worker *worker)
{
    struct idle *idle = &worker->runtime->idle;
    uint32_t nobody = IDLE_NOBODY;
    if (is_sentinel(worker))
        return true;
    if (idle_awake(atomic_u32_load(&idle->state, RELAXED)) == 0)
        return false;
    if (!atomic_u32_cas(&idle->sentinel, &nobody, worker->index, RELAXED, RELAXED))
        return false;
    worker->sweep_quiet = 0;
    return true;
}

static void resign_as_sentinel(struct worker *worker)
{
    if (is_sentinel(worker))
        atomic_u32_store(&worker->runtime->idle.sentinel, IDLE_NOBODY, RELAXED);
}

/* The alarm: look round, or be sentinel no longer. */
static void ring_alarm(struct worker *worker, int64_t now_ns)
{
    struct idle *idle = &worker->runtime->idle;
    bool all_asleep = idle_awake(atomic_u32_load(&idle->state, RELAXED)) == 0;
    worker->sweep_quiet = all_asleep ? worker->sweep_quiet + 1 : 0;
    if (worker->sweep_quiet >= SWEEP_QUIET) {
        resign_as_sentinel(worker);
        return;
    }
    if (claim_sweep(worker, now_ns))
        sweep(worker, true);
}

/* One sleep, in the reactor if it is free, else on the parker's word. */
static void sleep_once(struct worker *worker, int64_t deadline_ns)
{
    struct reactor *reactor = worker->local.reactor;
    bump(&worker->counters.parks, 1);
    if (!polls_itself(worker) || !lock_try(&reactor->turn)) {
        parker_park(&worker->parker, deadline_ns);
    } else {
        if (parker_enter_poll(&worker->parker, reactor)) {
            turn(worker, reactor, deadline_ns, true);
            parker_leave_poll(&worker->parker);
        }
        lock_release(&reactor->turn);
    }
}

static bool is_stopping(const struct worker *worker)
{
    return atomic_u32_load(&worker->runtime->stopping, ACQUIRE) != 0; /* pairs with the store in executor_multi_stop */
}

/* Somebody must keep an eye on this worker once it is busy: wakes a sleeper to be the sentinel if there is none. */
static void nudge_sentinel(struct worker *worker)
{
    struct idle *idle = &worker->runtime->idle;
    if (atomic_u32_load(&idle->sentinel, RELAXED) != IDLE_NOBODY)
        return;
    uint32_t sleeper = idle_any_sleeper(idle);
    if (sleeper != IDLE_NOBODY)
        parker_unpark(&worker->runtime->worker[sleeper].parker);
}

void worker_park(struct worker *worker, int64_t deadline_ns)
{
    struct rouse_runtime *runtime = worker->runtime;
    struct idle *idle = &runtime->idle;
    bool was_searching = worker->searching;
    worker->searching = false;
    advance_tick(worker);
    bool nobody_searches = idle_sleep(idle, worker->index, was_searching);
    bool sees = sees_work(worker, nobody_searches), ended = sees || is_stopping(worker);
    while (!ended) {
        bool sentinel = runtime->workers > 1 && become_sentinel(worker);
        int64_t alarm_ns = sentinel ? atomic_i64_load(&idle->sweep_ns, RELAXED) : ROUSE_NEVER;
        sleep_once(worker, alarm_ns < deadline_ns ? alarm_ns : deadline_ns);
        int64_t now_ns = os_now();
        worker->local.now_ns = now_ns;
        if (sentinel && now_ns >= alarm_ns)
            ring_alarm(worker, now_ns);
        /* Without peers every wake-up is meant for this worker, or for the thread that drives it. */
        ended = runtime->workers == 1 || worker_has_work(worker) || is_stopping(worker) || now_ns >= deadline_ns ||
                idle_was_notified(idle, worker->index);
    }
    /* A sleep looks at everything, and is no part of how long polls take. */
    worker->maintained_ns = worker->local.now_ns;
    advance_tick(worker);
    resign_as_sentinel(worker);
    worker->searching = idle_wake(idle, worker->index);
    /* The last searcher has found something after all: those who pushed it, and what else there is, woke nobody because of
     * this worker. It searches on, so that it wakes the next one when it runs what it finds. If it may not, others search. */
    if (sees && was_searching && nobody_searches && !worker->searching)
        worker->searching = idle_begin_search(idle);
    if (runtime->workers > 1)
        nudge_sentinel(worker);
}
