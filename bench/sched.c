/* Scheduler benchmarks, under the names of peers/sched and with its result lines:
 *   runtime  bench  best  median  cpu-median  unit
 *
 * usage: bench_sched REPEATS [filter...]
 *   a bench runs if a filter is part of its name, or all of it and a $; without filters all but mem_ and idle_ run
 *   RT=rouse-1      the single-threaded executor, driven by this thread
 *   RT=rouse-mt2    two workers that steal
 *   RT=rouse-rr2    two workers, round robin
 *   R=1 or R=W      one reactor for all workers, or one for each (the default); without RT all three run
 *   STYLE=poll      poll tasks only; STYLE=fiber: fibers only
 *
 * The label is that of the variant for poll tasks; "-fiber" is added for fibers. There are no channels: ping_pong is played
 * through a mailbox of one slot with a spin lock and a rouse_waker, below; fibers reach it as a stream of their own making.
 * ping_pong_cross plays between two single-threaded runtimes on two threads, as its namesake does. */
#include "peers/bench.h"
#include <rouse/rouse.h>

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/resource.h>
#if defined(__linux__)
#include <sys/epoll.h>
#endif

enum { THOUSAND = 1000, MANY = 100 * 1000, MILLION = 1000 * 1000 };

struct variant {
    const char *name;
    int executor, scheduler;
    unsigned workers;
};

static const struct variant variants[] = {
    {"rouse-1", ROUSE_EXECUTOR_SINGLE, 0, 1},
    {"rouse-mt2", ROUSE_EXECUTOR_MULTI, ROUSE_SCHEDULER_WORK_STEALING, 2},
    {"rouse-rr2", ROUSE_EXECUTOR_MULTI, ROUSE_SCHEDULER_ROUND_ROBIN, 2},
};

static const struct variant *variant;
static rouse_runtime *runtime;
static char label[32], fiber_label[32];
static int repeats;
static char **filters;
static rouse_task *handles; /* MILLION of them */
static uint64_t seed = 88172645463325252u;

static void must(ptrdiff_t status, const char *what)
{
    if (status >= 0)
        return;
    fprintf(stderr, "bench_sched: %s: %s\n", what, rouse_status_text((int)status));
    exit(1);
}

static int is_wanted(const char *bench)
{
    for (char **filter = filters; *filter; filter++) {
        size_t length = strlen(*filter);
        if (length > 0 && (*filter)[length - 1] == '$' ? strncmp(bench, *filter, length - 1) == 0 && !bench[length - 1]
                                                       : strstr(bench, *filter) != NULL)
            return 1;
    }
    return !*filters;
}

static void measure(const char *runtime_label, const char *bench, double operations, void (*once)(size_t), size_t count)
{
    meter m = {.n = 0};
    if (!is_wanted(bench))
        return;
    for (int i = 0; i < repeats; i++) {
        meter_start(&m);
        once(count);
        meter_stop(&m, operations);
    }
    meter_report(&m, runtime_label, bench);
}

static int is_single(void)
{
    return variant->executor == ROUSE_EXECUTOR_SINGLE;
}

static rouse_runtime *make_runtime(const struct variant *kind)
{
    rouse_options options = ROUSE_OPTIONS_INIT;
    rouse_runtime *made;
    const char *reactors = getenv("R");
    options.executor = kind->executor;
    options.scheduler = kind->scheduler;
    options.workers = kind->workers;
    options.reactors = reactors && reactors[0] == '1' ? 1 : 0;
    must(rouse_runtime_new(&made, &options), "runtime");
    return made;
}

static void end_runtime(rouse_runtime *ended)
{
    must(rouse_runtime_shutdown(ended, ROUSE_S(30), NULL, NULL), "shutdown");
}

/* Runs a task, or a fiber, on the runtime and waits for it. */
static void run_task(const rouse_task_type *type, const void *state)
{
    must(rouse_block_on(runtime, type, state, NULL), type->name);
}

static void run_fiber(rouse_fiber_function *function, size_t count)
{
    rouse_task task;
    must(rouse_spawn_fiber_at(&task, runtime, function, &count, sizeof count, 0, NULL, ROUSE_HERE), "fiber");
    must(rouse_join(&task, NULL), "fiber");
}

#define TASK_TYPE(function, state) \
    static const rouse_task_type function##_type = {.name = #function, .poll = function, .state_size = state}

/* ---- spawning ---- */

static int nothing(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    return ROUSE_OK;
}
TASK_TYPE(nothing, 0);

static int nothing_in_fiber(void *argument)
{
    (void)argument;
    return ROUSE_OK;
}

/* Joins handles[0 .. count) one after the other. */
struct joins {
    size_t count, done;
    int under_way;
    rouse_op op;
};

static int join_all(struct joins *joins, rouse_context *context)
{
    for (; joins->done < joins->count; joins->done++) {
        if (!joins->under_way)
            rouse_join_init(&joins->op, &handles[joins->done], NULL);
        ptrdiff_t status = rouse_op_poll(&joins->op, context);
        joins->under_way = status == ROUSE_PENDING;
        if (joins->under_way)
            return ROUSE_PENDING;
        must(status, "join");
    }
    return ROUSE_OK;
}

static int joiner(void *state, void *result, rouse_context *context)
{
    (void)result;
    return join_all(state, context);
}
TASK_TYPE(joiner, sizeof(struct joins));

/* Spawns copies of one task and joins them. */
struct spawns {
    const rouse_task_type *type;
    const void *state;
    int spawned;
    struct joins joins;
};

static int spawner(void *state, void *result, rouse_context *context)
{
    struct spawns *spawns = state;
    (void)result;
    if (!spawns->spawned)
        for (size_t i = 0; i < spawns->joins.count; i++)
            must(rouse_spawn(&handles[i], spawns->type, spawns->state), "spawn");
    spawns->spawned = 1;
    return join_all(&spawns->joins, context);
}
TASK_TYPE(spawner, sizeof(struct spawns));

static void spawn_and_join(const rouse_task_type *type, const void *state, size_t count)
{
    struct spawns spawns = {.type = type, .state = state, .joins = {.count = count}};
    run_task(&spawner_type, &spawns);
}

static void spawn_in(size_t count)
{
    spawn_and_join(&nothing_type, NULL, count);
}

static void spawn_out(size_t count)
{
    struct joins joins = {.count = count};
    for (size_t i = 0; i < count; i++)
        must(rouse_spawn_on(runtime, &handles[i], &nothing_type, NULL), "spawn");
    run_task(&joiner_type, &joins);
}

static int one_by_one(void *state, void *result, rouse_context *context)
{
    struct joins *joins = state;
    (void)result;
    for (; joins->done < joins->count; joins->done++) {
        if (!joins->under_way) {
            must(rouse_spawn(&handles[0], &nothing_type, NULL), "spawn");
            rouse_join_init(&joins->op, &handles[0], NULL);
        }
        ptrdiff_t status = rouse_op_poll(&joins->op, context);
        joins->under_way = status == ROUSE_PENDING;
        if (joins->under_way)
            return ROUSE_PENDING;
    }
    return ROUSE_OK;
}
TASK_TYPE(one_by_one, sizeof(struct joins));

static void spawn_join_1(size_t count)
{
    struct joins joins = {.count = count};
    run_task(&one_by_one_type, &joins);
}

static int fiber_spawn_in(void *argument)
{
    size_t count = *(size_t *)argument;
    for (size_t i = 0; i < count; i++)
        must(rouse_spawn_fiber(&handles[i], nothing_in_fiber, NULL, 0, 0), "fiber");
    for (size_t i = 0; i < count; i++)
        must(rouse_join(&handles[i], NULL), "join");
    return ROUSE_OK;
}

static void spawn_in_fibers(size_t count)
{
    run_fiber(fiber_spawn_in, count);
}

static int fiber_one_by_one(void *argument)
{
    rouse_task task;
    for (size_t left = *(size_t *)argument; left > 0; left--) {
        must(rouse_spawn_fiber(&task, nothing_in_fiber, NULL, 0, 0), "fiber");
        must(rouse_join(&task, NULL), "join");
    }
    return ROUSE_OK;
}

static void spawn_join_1_fiber(size_t count)
{
    run_fiber(fiber_one_by_one, count);
}

/* ---- a mailbox of one slot ---- */

struct mailbox {
    atomic_flag lock;
    int full;
    uint64_t value;
    rouse_waker waiter; /* of the receiver, while it waits */
};
#define MAILBOX_INIT            \
    {                           \
        ATOMIC_FLAG_INIT, 0, 0, \
        {                       \
            NULL, NULL          \
        }                       \
    }

static void lock(struct mailbox *box)
{
    while (atomic_flag_test_and_set_explicit(&box->lock, memory_order_acquire)) {}
}

static void unlock(struct mailbox *box)
{
    atomic_flag_clear_explicit(&box->lock, memory_order_release);
}

/* The players take turns, so the slot is empty. */
static void post(struct mailbox *box, uint64_t value)
{
    lock(box);
    rouse_waker waiter = box->waiter;
    box->waiter = (rouse_waker){NULL, NULL};
    box->value = value;
    box->full = 1;
    unlock(box);
    rouse_waker_wake(&waiter);
}

static int receive(struct mailbox *box, uint64_t *value, const rouse_context *context)
{
    rouse_waker old;
    lock(box);
    int full = box->full;
    if (full) {
        box->full = 0;
        *value = box->value;
        unlock(box);
        return ROUSE_OK;
    }
    old = box->waiter;
    box->waiter = rouse_waker_clone(&context->waker);
    unlock(box);
    rouse_waker_drop(&old);
    return ROUSE_PENDING;
}

static ptrdiff_t stream_read(void *object, void *data, size_t length, rouse_context *context)
{
    uint64_t value = 0;
    int status = receive(object, &value, context);
    memcpy(data, &value, length < sizeof value ? length : sizeof value);
    return status == ROUSE_OK ? (ptrdiff_t)sizeof value : status;
}

static ptrdiff_t stream_write(void *object, const void *data, size_t length, rouse_context *context)
{
    uint64_t value;
    (void)context;
    memcpy(&value, data, sizeof value);
    post(object, value);
    return (ptrdiff_t)length;
}

static const rouse_stream_type mailbox_stream = {
    .name = "mailbox", .poll_read = stream_read, .poll_write = stream_write};

/* ---- chains, yielding, ping-pong ---- */

struct link {
    size_t left;
    struct mailbox *done;
};

static int chain(void *state, void *result, rouse_context *context);
TASK_TYPE(chain, sizeof(struct link));

static int chain(void *state, void *result, rouse_context *context)
{
    struct link *link = state, next = {link->left - 1, link->done};
    (void)result;
    (void)context;
    if (link->left == 0)
        post(link->done, 1);
    else
        must(rouse_spawn(NULL, &chain_type, &next), "spawn");
    return ROUSE_OK;
}

struct chains {
    size_t left;
    int under_way;
    struct mailbox *done;
};

static int chains(void *state, void *result, rouse_context *context)
{
    struct chains *all = state;
    uint64_t value;
    (void)result;
    for (; all->left > 0; all->left--) {
        struct link first = {THOUSAND, all->done};
        if (!all->under_way)
            must(rouse_spawn(NULL, &chain_type, &first), "spawn");
        all->under_way = receive(all->done, &value, context) == ROUSE_PENDING;
        if (all->under_way)
            return ROUSE_PENDING;
    }
    return ROUSE_OK;
}
TASK_TYPE(chains, sizeof(struct chains));

static void chained_spawn(size_t count)
{
    struct mailbox done = MAILBOX_INIT;
    struct chains all = {count, 0, &done};
    run_task(&chains_type, &all);
}

static int yielder(void *state, void *result, rouse_context *context)
{
    size_t *left = state;
    (void)result;
    if ((*left)-- == 0)
        return ROUSE_OK;
    rouse_waker_wake_by_ref(&context->waker);
    return ROUSE_PENDING;
}
TASK_TYPE(yielder, sizeof(size_t));

static void yield_1(size_t count)
{
    run_task(&yielder_type, &count);
}

static void yield_many(size_t tasks)
{
    size_t each = MILLION / tasks;
    spawn_and_join(&yielder_type, &each, tasks);
}

static int fiber_yielder(void *argument)
{
    for (size_t left = *(size_t *)argument; left > 0; left--)
        must(rouse_yield(), "yield");
    return ROUSE_OK;
}

static void yield_1_fiber(size_t count)
{
    run_fiber(fiber_yielder, count);
}

static int fiber_yield_many(void *argument)
{
    size_t tasks = *(size_t *)argument, each = MILLION / tasks;
    for (size_t i = 0; i < tasks; i++)
        must(rouse_spawn_fiber(&handles[i], fiber_yielder, &each, sizeof each, 0), "fiber");
    for (size_t i = 0; i < tasks; i++)
        must(rouse_join(&handles[i], NULL), "join");
    return ROUSE_OK;
}

static void yield_many_fibers(size_t tasks)
{
    run_fiber(fiber_yield_many, tasks);
}

struct player {
    struct mailbox *in, *out;
    size_t left;
    int serves; /* the first move is its own */
};

static int player(void *state, void *result, rouse_context *context)
{
    struct player *me = state;
    uint64_t value = 0;
    (void)result;
    if (me->serves)
        post(me->out, value);
    me->serves = 0;
    while (me->left > 0) {
        if (receive(me->in, &value, context) == ROUSE_PENDING)
            return ROUSE_PENDING;
        me->left--;
        post(me->out, value + 1);
    }
    return ROUSE_OK;
}
TASK_TYPE(player, sizeof(struct player));

/* One side takes the last ball and does not return it: its counterpart has none left to wait for. */
static void ping_pong(size_t count)
{
    struct mailbox there = MAILBOX_INIT, back = MAILBOX_INIT;
    struct player one = {&back, &there, count, 1}, other = {&there, &back, count, 0};
    rouse_task task;
    must(rouse_spawn_on(runtime, &task, &player_type, &other), "player");
    run_task(&player_type, &one);
    must(rouse_join(&task, NULL), "player");
    rouse_waker_drop(&there.waiter);
    rouse_waker_drop(&back.waiter);
}

struct opponent {
    rouse_runtime *runtime;
    struct player player;
};

static void *play_on_other_thread(void *argument)
{
    struct opponent *opponent = argument;
    must(rouse_block_on(opponent->runtime, &player_type, &opponent->player, NULL), "player");
    return NULL;
}

static void ping_pong_cross(size_t count)
{
    struct mailbox there = MAILBOX_INIT, back = MAILBOX_INIT;
    struct player one = {&back, &there, count, 1};
    struct opponent other = {make_runtime(&variants[0]), {&there, &back, count, 0}};
    pthread_t thread;
    if (pthread_create(&thread, NULL, play_on_other_thread, &other) != 0)
        exit(1);
    run_task(&player_type, &one);
    pthread_join(thread, NULL);
    rouse_waker_drop(&there.waiter);
    rouse_waker_drop(&back.waiter);
    end_runtime(other.runtime);
}

struct fiber_player {
    rouse_stream *in, *out;
    size_t left;
    int serves;
};

static int fiber_player(void *argument)
{
    struct fiber_player *me = argument;
    uint64_t value = 0;
    if (me->serves)
        must(rouse_write(me->out, &value, sizeof value), "write");
    for (; me->left > 0; me->left--) {
        must(rouse_read(me->in, &value, sizeof value), "read");
        must(rouse_write(me->out, &value, sizeof value), "write");
    }
    return ROUSE_OK;
}

static void ping_pong_fibers(size_t count)
{
    struct mailbox boxes[2] = {MAILBOX_INIT, MAILBOX_INIT};
    rouse_stream *there, *back;
    rouse_task one, other;
    must(rouse_stream_new(&there, &mailbox_stream, &boxes[0]), "stream");
    must(rouse_stream_new(&back, &mailbox_stream, &boxes[1]), "stream");
    struct fiber_player server = {back, there, count, 1}, receiver = {there, back, count, 0};
    must(rouse_spawn_fiber_at(&other, runtime, fiber_player, &receiver, sizeof receiver, 0, NULL, ROUSE_HERE), "fiber");
    must(rouse_spawn_fiber_at(&one, runtime, fiber_player, &server, sizeof server, 0, NULL, ROUSE_HERE), "fiber");
    must(rouse_join(&one, NULL), "fiber");
    must(rouse_join(&other, NULL), "fiber");
    rouse_close(there);
    rouse_close(back);
    rouse_waker_drop(&boxes[0].waiter);
    rouse_waker_drop(&boxes[1].waiter);
}

/* ---- timers ---- */

static rouse_op *operations; /* MILLION of them */

static int add_and_cancel(void *state, void *result, rouse_context *context)
{
    size_t count = *(size_t *)state;
    (void)result;
    for (size_t i = 0; i < count; i++) {
        rouse_sleep_init(&operations[i], rouse_after(ROUSE_MS(10000 + (int64_t)(xorshift(&seed) % 50000))));
        if (rouse_op_poll(&operations[i], context) != ROUSE_PENDING)
            must(ROUSE_FAILED, "timer");
    }
    for (size_t i = 0; i < count; i++)
        rouse_op_cancel(&operations[i]);
    return ROUSE_OK;
}
TASK_TYPE(add_and_cancel, sizeof(size_t));

static void timer_add_cancel(size_t count)
{
    run_task(&add_and_cancel_type, &count);
}

struct sleeper {
    int64_t least_ns, spread_ns; /* how long it sleeps */
    int under_way;
    atomic_size_t *started; /* counts the sleepers; may be NULL */
    rouse_op op;
};

static int sleeper(void *state, void *result, rouse_context *context)
{
    struct sleeper *me = state;
    (void)result;
    if (!me->under_way) {
        if (me->started)
            atomic_fetch_add_explicit(me->started, 1, memory_order_relaxed);
        rouse_sleep_init(&me->op, rouse_after(me->least_ns));
    }
    me->under_way = 1;
    return (int)rouse_op_poll(&me->op, context);
}

static void sleeper_drop(void *state)
{
    rouse_op_cancel(&((struct sleeper *)state)->op);
}
static const rouse_task_type sleeper_type = {
    .name = "sleeper", .poll = sleeper, .drop = sleeper_drop, .state_size = sizeof(struct sleeper)};

/* A driver that spawns sleepers of various lengths. */
static int various_sleepers(void *state, void *result, rouse_context *context)
{
    struct joins *joins = state;
    (void)result;
    for (size_t i = 0; joins->done == 0 && !joins->under_way && i < joins->count; i++) {
        struct sleeper one = {.least_ns = ROUSE_US(100 * THOUSAND + (int64_t)(xorshift(&seed) % (200 * THOUSAND)))};
        must(rouse_spawn(&handles[i], &sleeper_type, &one), "spawn");
    }
    return join_all(joins, context);
}
TASK_TYPE(various_sleepers, sizeof(struct joins));

static void timer_fire(size_t count)
{
    struct joins joins = {.count = count};
    run_task(&various_sleepers_type, &joins);
}

enum { SLEEPS = 500 };
static double late_us[SLEEPS];

static void report_lateness(const char *runtime_label, const char *bench)
{
    char name[64];
    qsort(late_us, SLEEPS, sizeof late_us[0], cmp_double);
    snprintf(name, sizeof name, "%s_p50", bench);
    value_report(runtime_label, name, late_us[SLEEPS / 2], late_us[SLEEPS / 2], "us");
    snprintf(name, sizeof name, "%s_p99", bench);
    value_report(runtime_label, name, late_us[SLEEPS * 99 / 100], late_us[SLEEPS * 99 / 100], "us");
}

struct naps {
    int done, under_way;
    uint64_t begun;
    rouse_op op;
};

static int napper(void *state, void *result, rouse_context *context)
{
    struct naps *naps = state;
    (void)result;
    for (; naps->done < SLEEPS; naps->done++) {
        if (!naps->under_way) {
            naps->begun = now_ns();
            rouse_sleep_init(&naps->op, rouse_after(ROUSE_MS(1)));
        }
        naps->under_way = rouse_op_poll(&naps->op, context) == ROUSE_PENDING;
        if (naps->under_way)
            return ROUSE_PENDING;
        late_us[naps->done] = ((double)(now_ns() - naps->begun) - 1e6) / 1000;
    }
    return ROUSE_OK;
}
TASK_TYPE(napper, sizeof(struct naps));

static void sleep_lateness(void)
{
    struct naps naps = {.done = 0};
    if (!is_wanted("sleep_1ms_late"))
        return;
    run_task(&napper_type, &naps);
    report_lateness(label, "sleep_1ms_late");
#if defined(__linux__) /* what the kernel itself does in the same minute */
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event;
    struct timespec ms = {0, 1000000};
    for (int i = 0; i < SLEEPS; i++) {
        uint64_t begun = now_ns();
        epoll_pwait2(epoll, &event, 1, &ms, NULL);
        late_us[i] = ((double)(now_ns() - begun) - 1e6) / 1000;
    }
    close(epoll);
    report_lateness("raw", "sleep_1ms_late_epoll_pwait2");
#endif
}

/* ---- spreading work ---- */

static int burner(void *state, void *result, rouse_context *context)
{
    uint64_t end = now_ns() + *(uint64_t *)state;
    (void)result;
    (void)context;
    while (now_ns() < end) {}
    return ROUSE_OK;
}
TASK_TYPE(burner, sizeof(uint64_t));

static void fan_out_10us(size_t count)
{
    uint64_t span_ns = 10000;
    spawn_and_join(&burner_type, &span_ns, count);
}

static void fan_out_1us(size_t count)
{
    uint64_t span_ns = 1000;
    spawn_and_join(&burner_type, &span_ns, count);
}

/* ---- memory and idleness: on runtimes of their own, and only if asked for ---- */

static int is_asked_for(const char *bench)
{
    return *filters && is_wanted(bench);
}

static void report_bytes(const char *runtime_label, const char *bench, long bytes, size_t count)
{
    double each = (double)bytes / (double)count;
    value_report(runtime_label, bench, each, each, "bytes");
}

struct started {
    atomic_size_t *counter;
    size_t count;
};

static int wait_for_started(void *state, void *result, rouse_context *context)
{
    struct started *started = state;
    (void)result;
    if (atomic_load(started->counter) >= started->count)
        return ROUSE_OK;
    rouse_waker_wake_by_ref(&context->waker);
    return ROUSE_PENDING;
}
TASK_TYPE(wait_for_started, sizeof(struct started));

static void sleep_for_an_hour(size_t count)
{
    static atomic_size_t counter;
    struct sleeper one = {.least_ns = ROUSE_S(3600), .started = &counter};
    struct started started = {&counter, count};
    atomic_store(&counter, 0);
    for (size_t i = 0; i < count; i++)
        must(rouse_spawn_on(runtime, NULL, &sleeper_type, &one), "spawn");
    run_task(&wait_for_started_type, &started);
}

static void memory_of_tasks(void)
{
    if (!is_asked_for("mem_task_sleeping_1m"))
        return;
    runtime = make_runtime(variant);
    long before = rss_bytes();
    sleep_for_an_hour(MILLION);
    report_bytes(label, "mem_task_sleeping_1m", rss_bytes() - before, MILLION);
    end_runtime(runtime);
}

static int fiber_sleeper(void *argument)
{
    atomic_fetch_add((atomic_size_t *)argument, 1);
    return rouse_sleep(ROUSE_S(3600));
}

static void memory_of_fibers(void)
{
    static atomic_size_t counter;
    struct started started = {&counter, MANY};
    if (!is_asked_for("mem_fiber_parked_100k"))
        return;
    runtime = make_runtime(variant);
    long before = rss_bytes();
    for (size_t i = 0; i < MANY; i++)
        must(rouse_go_detached_at(runtime, fiber_sleeper, &counter, NULL, ROUSE_HERE), "fiber");
    run_task(&wait_for_started_type, &started);
    report_bytes(fiber_label, "mem_fiber_parked_100k", rss_bytes() - before, MANY);
    end_runtime(runtime);
}

static double switches(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_nvcsw + usage.ru_nivcsw);
}

static void idle_cost(void)
{
    enum { SECONDS = 5 };
    if (!is_asked_for("idle_10k"))
        return;
    runtime = make_runtime(variant);
    sleep_for_an_hour(10 * THOUSAND);
    struct sleeper wait = {.least_ns = ROUSE_S(SECONDS)};
    double switches_before = switches(), cpu_before = (double)cpu_ns();
    run_task(&sleeper_type, &wait);
    double cpu_us = ((double)cpu_ns() - cpu_before) / 1000 / (double)SECONDS;
    double switched = (switches() - switches_before) / (double)SECONDS;
    value_report(label, "idle_10k_cpu", cpu_us, cpu_us, "us of CPU a second");
    value_report(label, "idle_10k_switches", switched, switched, "context switches a second");
    end_runtime(runtime);
}

/* ---- all of it ---- */

static void run_tasks(void)
{
    measure(label, "spawn_in_100k", MANY, spawn_in, MANY);
    measure(label, "spawn_in_1m", MILLION, spawn_in, MILLION);
    measure(label, "spawn_out_100k", MANY, spawn_out, MANY);
    measure(label, "spawn_join_1", 2 * MANY, spawn_join_1, 2 * MANY);
    measure(label, "chained_spawn_1k", 2 * MANY, chained_spawn, 200);
    measure(label, "yield_1", MILLION, yield_1, MILLION);
    measure(label, "yield_2", MILLION, yield_many, 2);
    measure(label, "yield_1000", MILLION, yield_many, THOUSAND);
    measure(label, "ping_pong", 2 * MANY, ping_pong, 2 * MANY);
    if (is_single())
        measure(label, "ping_pong_cross", 20 * THOUSAND, ping_pong_cross, 20 * THOUSAND);
    measure(label, "timer_add_cancel_1m", MILLION, timer_add_cancel, MILLION);
    measure(label, "timer_fire_100k_cpu", MANY, timer_fire, MANY);
    sleep_lateness();
    if (!is_single()) {
        measure(label, "fan_out_10us", 20 * THOUSAND, fan_out_10us, 20 * THOUSAND);
        measure(label, "fan_out_1us", MANY, fan_out_1us, MANY);
    }
}

static void run_fibers(void)
{
    measure(fiber_label, "spawn_in_10k", 10 * THOUSAND, spawn_in_fibers, 10 * THOUSAND);
    measure(fiber_label, "spawn_join_1", 2 * MANY, spawn_join_1_fiber, 2 * MANY);
    measure(fiber_label, "yield_1", MILLION, yield_1_fiber, MILLION);
    measure(fiber_label, "yield_2", MILLION, yield_many_fibers, 2);
    measure(fiber_label, "yield_1000", MILLION, yield_many_fibers, THOUSAND);
    measure(fiber_label, "ping_pong", 2 * MANY, ping_pong_fibers, 2 * MANY);
}

/* So that the pages are no part of what is measured. */
static void touch(void *memory, size_t bytes)
{
    for (volatile char *at = memory; at < (volatile char *)memory + bytes; at += 4096)
        *at = 0;
}

int main(int argc, char **argv)
{
    static char *none[] = {NULL};
    const char *only = getenv("RT"), *style = getenv("STYLE");
    repeats = argc > 1 ? atoi(argv[1]) : 5;
    filters = argc > 2 ? argv + 2 : none;
    if (repeats < 1 || repeats > MAX_REPEATS) {
        fprintf(stderr, "usage: bench_sched REPEATS [filter...]\n");
        return 2;
    }
    handles = calloc(MILLION, sizeof *handles);
    operations = calloc(MILLION, sizeof *operations);
    if (!handles || !operations)
        return 1;
    touch(handles, MILLION * sizeof *handles);
    touch(operations, MILLION * sizeof *operations);
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        variant = &variants[i];
        if (only && strcmp(only, variant->name) != 0)
            continue;
        snprintf(label, sizeof label, "%s", variant->name);
        snprintf(fiber_label, sizeof fiber_label, "%s-fiber", variant->name);
        runtime = make_runtime(variant);
        if (!style || strcmp(style, "poll") == 0)
            run_tasks();
        if (!style || strcmp(style, "fiber") == 0)
            run_fibers();
        end_runtime(runtime);
        memory_of_tasks();
        memory_of_fibers();
        idle_cost();
    }
    free(handles);
    free(operations);
    return 0;
}
