/* What other systems got wrong in running, waking and ending tasks, where no other file of this folder has the test
 * already: docs/known-failures.md tells of each. */
#include "support/io.h"
#include "support/runtimes.h"

#include "core/task.h"

#include <signal.h>
#include <sys/wait.h>
#if defined(__linux__)
#include <sched.h>
#endif

static int answer_five(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    return 5;
}

static const rouse_task_type five = {.poll = answer_five};

/* Polls again and again until it is told. */
static atomic_bool enough;

static int never_rest(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    if (atomic_load(&enough) || context->cancelled)
        return ROUSE_OK;
    rouse_waker_wake_by_ref(&context->waker);
    return ROUSE_PENDING;
}

static const rouse_task_type restless = {.poll = never_rest};

/* Waits inside of a poll, and keeps its worker, until a flag is set. */
static void hold_until(atomic_bool *flag)
{
    while (!atomic_load(flag))
        sched_yield();
}

/* ---- work meets workers ---- */

static atomic_bool stolen;

static int be_stolen(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    atomic_store(&stolen, true);
    return ROUSE_OK;
}

enum { OWN = 100 };
static struct {
    atomic_uint roots, done;
    atomic_bool began[2];
    pthread_t threads[2]; /* of the roots */
    unsigned own[2];      /* tasks of its own that each of them has run; by root, on its own thread only */
    atomic_uint taken;    /* tasks that a root's worker has run for the other one before all of its own */
} shares;

static int count_share(void *state, void *result, rouse_context *context)
{
    unsigned of = *(unsigned *)state, me = pthread_equal(pthread_self(), shares.threads[0]) ? 0 : 1;
    (void)result;
    (void)context;
    /* Who takes another's task has none left: nobody took one of its own before. */
    if (of == me)
        shares.own[me]++;
    else if (shares.own[me] != OWN)
        atomic_fetch_add(&shares.taken, 1);
    atomic_fetch_add(&shares.done, 1);
    return ROUSE_OK;
}

static int spawn_a_share(void *state, void *result, rouse_context *context)
{
    static const rouse_task_type type = {.poll = count_share, .state_size = sizeof(unsigned)};
    unsigned me = atomic_fetch_add(&shares.roots, 1);
    (void)state;
    (void)result;
    (void)context;
    shares.threads[me] = pthread_self();
    atomic_store(&shares.began[me], true);
    hold_until(&shares.began[1 - me]);
    for (int i = 0; i < OWN; i++)
        require_int(rouse_spawn(NULL, &type, &me), ==, ROUSE_OK);
    return ROUSE_OK;
}

/* hpx#1053: workers robbed others before they looked at their own queue. */
TEST(a_worker_with_tasks_of_its_own_steals_none)
{
    static const rouse_task_type type = {.poll = spawn_a_share};
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    for (uint64_t i = test_scale(30, 3000); i > 0; i--) {
        rouse_task tasks[2];
        memset(&shares, 0, sizeof shares);
        for (int k = 0; k < 2; k++)
            require_int(rouse_spawn_on(runtime, &tasks[k], &type, NULL), ==, ROUSE_OK);
        for (int k = 0; k < 2; k++)
            require_int(rouse_join(&tasks[k], NULL), ==, ROUSE_OK);
        eventually(atomic_load(&shares.done) == 2 * OWN, TEST_SOON);
        /* From a worker that is not let run for some milliseconds the last task it has spawned is taken over, by anybody. */
        require(atomic_load(&shares.taken) <= OWN / 10);
    }
    test_runtime_end(runtime);
}

static int64_t thread_cpu_ns(void)
{
    struct timespec used;
    require(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) == 0);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

static int sleep_for_ever(void *unused)
{
    (void)unused;
    return rouse_sleep(ROUSE_NEVER);
}

/* One worker computes, with fibers behind it that nobody else may run; the other has nothing to do. */
static int compute_before_pinned_fibers(void *unused)
{
    static const rouse_task_type type = {.poll = be_stolen};
    rouse_scope scope;
    (void)unused;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (int i = 0; i < 20; i++)
        require_int(rouse_go(sleep_for_ever, NULL), ==, ROUSE_OK);
    require_int(rouse_sleep(ROUSE_MS(5)), ==, ROUSE_OK);
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK); /* queues them */
    int64_t all = test_cpu_ns(), mine = thread_cpu_ns();
    test_burn(ROUSE_MS(100));
    int64_t others = (test_cpu_ns() - all) - (thread_cpu_ns() - mine);
    if (!test_is_slow())
        require_int(others, <, ROUSE_MS(20));
    rouse_task task;
    atomic_store(&stolen, false);
    require_int(rouse_spawn(&task, &type, NULL), ==, ROUSE_OK);
    hold_until(&stolen);
    require_int(rouse_scope_close(&scope), ==, ROUSE_CANCELLED);
    require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
    return ROUSE_OK;
}

/* alibaba/PhotonLibOS#1245: the search for work hung at a worker from whom nothing may be taken. */
TEST_SERIAL(beside_pinned_fibers_idle_workers_cost_nothing_and_stealing_goes_on)
{
    rouse_options options = test_options(TEST_STEALING, 2);
    assert_int_equal(rouse_run(compute_before_pinned_fibers, NULL, &options), ROUSE_OK);
}

/* ---- fairness ---- */

enum { PARTS = 1000 };
static struct {
    rouse_op ops[PARTS];
    bool done[PARTS];
    int rounds;
} whole;

static int do_parts(void *state, void *result, rouse_context *context)
{
    int left = 0;
    (void)state;
    (void)result;
    whole.rounds++;
    for (int i = 0; i < PARTS; i++) {
        if (!whole.done[i])
            whole.done[i] = rouse_op_poll(&whole.ops[i], context) == ROUSE_OK;
        left += !whole.done[i];
    }
    return left == 0 ? ROUSE_OK : ROUSE_PENDING;
}

static void do_a_whole(rouse_runtime *runtime)
{
    static const rouse_task_type type = {.poll = do_parts};
    memset(&whole, 0, sizeof whole);
    for (int i = 0; i < PARTS; i++)
        rouse_sleep_init(&whole.ops[i], 1);
    require_int(rouse_block_on(runtime, &type, NULL, NULL), ==, ROUSE_OK);
    require_int(whole.rounds, <=, PARTS / 25); /* a round does as many as the budget has room for */
}

/* tokio#4624: the budget of each poll went to the first parts, and the last were never reached. */
TEST(a_task_of_many_parts_gets_to_all_of_them)
{
    test_on_each_executor(do_a_whole);
}

/* ---- turns and queues ---- */

enum { SLEEPERS = 10 };
static int sleeper_polls[SLEEPERS + 1];

struct sleeper {
    rouse_op op;
    int which;
};

static int poll_sleeper(void *state, void *result, rouse_context *context)
{
    struct sleeper *sleeper = state;
    (void)result;
    sleeper_polls[sleeper->which]++;
    return (int)rouse_op_poll(&sleeper->op, context);
}

static void drop_sleeper(void *state)
{
    rouse_op_cancel(&((struct sleeper *)state)->op);
}

/* The clock is moved where it can be: then the span is too long for a slow machine to lose it before it looks. */
enum { SPAN_MS = FAULTS_AVAILABLE ? 100000 : 20 };

static void let_pass(int64_t end)
{
#if FAULTS_AVAILABLE
    faults_clock_step(end - rouse_now());
#else
    while (rouse_now() < end)
        test_sleep_ns(100000);
#endif
}

/* libuv#3686: timers ran twice, or not, when the loop was run once. */
TEST(a_turn_runs_each_expired_timer_once)
{
    static const rouse_task_type type = {
        .poll = poll_sleeper, .drop = drop_sleeper, .state_size = sizeof(struct sleeper)};
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    for (int round = 0; round < 2; round++) {
        int64_t end = rouse_after(ROUSE_MS(SPAN_MS));
        memset(sleeper_polls, 0, sizeof sleeper_polls);
        for (int i = 0; i < SLEEPERS; i++) {
            struct sleeper sleeper = {.which = i};
            rouse_sleep_init(&sleeper.op, end);
            assert_int_equal(rouse_spawn_on(runtime, NULL, &type, &sleeper), ROUSE_OK);
        }
        struct sleeper late = {.which = SLEEPERS};
        rouse_sleep_init(&late.op, rouse_after(ROUSE_S(1000)));
        if (round == 0)
            assert_int_equal(rouse_spawn_on(runtime, NULL, &type, &late), ROUSE_OK);
        assert_int_equal(rouse_runtime_turn(runtime, 0), SLEEPERS + (round == 0));
        assert_int_equal(rouse_runtime_deadline(runtime), end);
        let_pass(end);
        assert_int_equal(rouse_runtime_turn(runtime, 0), SLEEPERS);
        for (int i = 0; i < SLEEPERS; i++)
            assert_int_equal(sleeper_polls[i], 2);
        assert_int_equal(rouse_runtime_turn(runtime, 0), 0);
        assert_int_equal(sleeper_polls[SLEEPERS], round == 0);
    }
    test_runtime_end(runtime);
}

/* The design that this one descends from went on, and waited for everybody. */
TEST(blocking_on_a_task_returns_although_others_go_on)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 1);
        atomic_store(&enough, false);
        for (int i = 0; i < 5; i++)
            require_int(rouse_spawn_on(runtime, NULL, &restless, NULL), ==, ROUSE_OK);
        for (int i = 0; i < 20; i++)
            require_int(rouse_block_on(runtime, &five, NULL, NULL), ==, 5);
        require_int(test_tasks_alive(runtime), >=, 5);
        atomic_store(&enough, true);
        test_runtime_end(runtime);
    }
}

enum { BELLS = 1500 };
static struct test_bell bells[BELLS];

static int ring_all(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    for (int i = 0; i < BELLS; i++)
        test_bell_ring(&bells[i]);
    return ROUSE_OK;
}

static void wake_many(rouse_runtime *runtime)
{
    static const rouse_task_type type = {.poll = ring_all};
    static rouse_task tasks[BELLS];
    for (int i = 0; i < BELLS; i++) {
        struct test_bell *bell = &bells[i];
        bells[i] = (struct test_bell)TEST_BELL_INIT;
        require_int(rouse_spawn_on(runtime, &tasks[i], &test_bell_task, &bell), ==, ROUSE_OK);
    }
    require_int(rouse_block_on(runtime, &five, NULL, NULL), ==, 5);
    require_int(rouse_block_on(runtime, &type, NULL, NULL), ==, ROUSE_OK);
    for (int i = 0; i < BELLS; i++)
        require_int(rouse_join(&tasks[i], NULL), ==, ROUSE_OK);
}

/* The design that this one descends from had a queue of fixed size, on which a task that woke others waited. */
TEST(a_task_may_wake_more_than_a_queue_holds)
{
    test_on_each_executor(wake_many);
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 1);
    wake_many(runtime);
    test_runtime_end(runtime);
}

#if defined(__linux__)
/* The design that this one descends from subtracted one from the number of processors. */
TEST(with_one_processor_there_is_one_worker)
{
    test_needs("real_threads");
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    size_t first = 0;
    while (!CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    for (int kind = TEST_ROUND_ROBIN; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime_info info = {.size = sizeof info};
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 0);
        assert_int_equal(rouse_runtime_stats(runtime, &info, NULL, 0), ROUSE_OK);
        assert_int_equal(info.workers, 1);
        for (int i = 0; i < 50; i++)
            assert_int_equal(rouse_block_on(runtime, &five, NULL, NULL), 5);
        test_runtime_end(runtime);
    }
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}
#endif

/* ---- waking from outside ---- */

static struct {
    rouse_runtime *runtime;
    rouse_waker waker;
    sem_t stalled;
    atomic_bool go;
    atomic_int spawned_polls;
} stall;

static int stall_once(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    if (stall.waker.table != NULL)
        return ROUSE_OK;
    stall.waker = rouse_waker_clone(&context->waker);
    test_post(&stall.stalled);
    hold_until(&stall.go);
    return ROUSE_PENDING; /* though it was woken a hundred thousand times */
}

static int count_poll(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    atomic_fetch_add(&stall.spawned_polls, 1);
    return ROUSE_OK;
}

enum { SPAWNED = 2000 };

/* The worker runs again only when all of this is done: a wake that blocked would be the end. */
static void wake_the_stalled(void *unused)
{
    static const rouse_task_type type = {.poll = count_poll};
    (void)unused;
    test_await(&stall.stalled);
    for (uint64_t i = test_scale(100000, 1000000); i > 0; i--)
        rouse_waker_wake_by_ref(&stall.waker);
    for (int i = 0; i < SPAWNED; i++)
        require_int(rouse_spawn_on(stall.runtime, NULL, &type, NULL), ==, ROUSE_OK);
    atomic_store(&stall.go, true);
}

/* libevent@17522d2a: waking blocked on a full pipe, with the lock held that the loop needed. */
TEST(waking_a_stalled_runtime_never_blocks)
{
    static const rouse_task_type type = {.poll = stall_once};
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        test_thread thread;
        memset(&stall, 0, sizeof stall);
        sem_init(&stall.stalled, 0, 0);
        stall.runtime = test_runtime_new((enum test_executor)kind, 1);
        test_thread_start(&thread, wake_the_stalled, NULL);
        require_int(rouse_block_on(stall.runtime, &type, NULL, NULL), ==, ROUSE_OK);
        test_thread_join(&thread, ROUSE_S(60));
        rouse_waker_drop(&stall.waker);
        while (kind == TEST_SINGLE && test_tasks_alive(stall.runtime) > 0)
            require_int(rouse_runtime_turn(stall.runtime, ROUSE_NEVER), >=, 0);
        eventually(atomic_load(&stall.spawned_polls) == SPAWNED, TEST_SOON);
        test_runtime_end(stall.runtime);
        sem_destroy(&stall.stalled);
    }
}

/* mio 0.6.17: nothing kept a count of references from coming round to zero. */
TEST(a_count_of_wakers_near_its_end_is_refused_and_never_comes_round)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    struct test_bell bell = TEST_BELL_INIT, *state = &bell;
    rouse_task task;
    rouse_waker clones[8];
    size_t given = 0, bias;
    assert_int_equal(rouse_spawn_on(runtime, &task, &test_bell_task, &state), ROUSE_OK);
    assert_int_equal(rouse_runtime_turn(runtime, 0), 1);
    struct task_cell *cell = task.cell;
    bias = (STATE_COUNT_MAX - 6) * STATE_REFERENCE; /* as if so many wakers had been cloned */
    atomic_size_add(&cell->slot.word, bias, RELAXED);
    while (given < 8 && (clones[given] = rouse_waker_clone(&bell.waiter)).table != NULL)
        given++;
    assert_true(given > 0 && given < 8);
    for (int i = 0; i < 3; i++)
        assert_null(rouse_waker_clone(&clones[0]).table);
    rouse_waker_wake_by_ref(&clones[0]); /* what there is still works: polled, and refused another clone */
    while (given > 0)
        rouse_waker_drop(&clones[--given]);
    atomic_size_sub(&cell->slot.word, bias, RELAXED);
    test_bell_ring(&bell);
    assert_int_equal(rouse_join(&task, NULL), ROUSE_OK);
    test_runtime_end(runtime);
}

/* ---- the end of a runtime ---- */

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;

struct guarded {
    rouse_waker *waker;
    sem_t *polled;
};

static int poll_guarded(void *state, void *result, rouse_context *context)
{
    struct guarded *guarded = state;
    (void)result;
    if (guarded->waker->table == NULL) {
        *guarded->waker = rouse_waker_clone(&context->waker);
        test_post(guarded->polled);
    }
    return ROUSE_PENDING;
}

static void drop_guarded(void *state)
{
    (void)state;
    pthread_mutex_lock(&guard);
    pthread_mutex_unlock(&guard);
}

static void wake_under_the_lock(void *waker)
{
    rouse_waker mine = rouse_waker_clone(waker);
    while (!atomic_load(&enough)) {
        pthread_mutex_lock(&guard);
        rouse_waker_wake_by_ref(&mine);
        pthread_mutex_unlock(&guard);
        test_take_turns();
    }
    rouse_waker_drop(&mine);
}

/* tokio#1929, tokio#1972: a wake during shutdown dropped the task inside the lock of who woke it. */
TEST(a_wake_under_a_lock_while_the_runtime_ends_does_not_deadlock)
{
    static const rouse_task_type type = {
        .poll = poll_guarded, .drop = drop_guarded, .state_size = sizeof(struct guarded)};
    for (uint64_t i = test_scale(30, 3000); i > 0; i--) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)(i % TEST_EXECUTORS), 2);
        rouse_waker waker = {NULL, NULL};
        sem_t polled;
        test_thread thread;
        sem_init(&polled, 0, 0);
        struct guarded guarded = {&waker, &polled};
        atomic_store(&enough, false);
        require_int(rouse_spawn_on(runtime, NULL, &type, &guarded), ==, ROUSE_OK);
        if (i % TEST_EXECUTORS == TEST_SINGLE)
            require_int(rouse_runtime_turn(runtime, 0), ==, 1);
        test_await(&polled);
        test_thread_start(&thread, wake_under_the_lock, &waker);
        test_runtime_end(runtime);
        atomic_store(&enough, true);
        test_thread_join(&thread, TEST_SOON);
        rouse_waker_drop(&waker);
        sem_destroy(&polled);
    }
}

static int wait_for_the_end(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    return ROUSE_PENDING;
}

static atomic_int buried;

static void look_for_the_runtime(void *state)
{
    require(rouse_runtime_current() == *(rouse_runtime **)state);
    atomic_fetch_add(&buried, 1);
}

static const rouse_task_type mourner = {
    .poll = wait_for_the_end, .drop = look_for_the_runtime, .state_size = sizeof(rouse_runtime *)};

/* tokio#4213: tasks were dropped where no runtime was known. */
TEST(a_drop_function_knows_its_runtime_also_at_the_end)
{
    for (uint64_t i = test_scale(30, 3000); i > 0; i--) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)(i % TEST_EXECUTORS), 2);
        atomic_store(&buried, 0);
        for (int k = 0; k < 5; k++)
            require_int(rouse_spawn_on(runtime, NULL, &mourner, &runtime), ==, ROUSE_OK);
        if (i % 2 == 0) /* polled, or not yet */
            require_int(rouse_block_on(runtime, &five, NULL, NULL), ==, 5);
        test_runtime_end(runtime);
        require_int(atomic_load(&buried), ==, 5);
    }
}

/* A task that owns what it waits for. */
struct owner {
    rouse_op op;
    rouse_stream *stream;     /* owned */
    rouse_listener *listener; /* owned */
    rouse_task task;          /* owned */
    rouse_stream *accepted;
    char data[16];
};

static int poll_owner(void *state, void *result, rouse_context *context)
{
    struct owner *owner = state;
    (void)result;
    return rouse_op_poll(&owner->op, context) == ROUSE_PENDING ? ROUSE_PENDING : ROUSE_OK;
}

static void drop_owner(void *state)
{
    struct owner *owner = state;
    require_int(rouse_op_cancel(&owner->op), ==, ROUSE_OP_IDLE);
    if (owner->stream != NULL)
        require_int(rouse_close(owner->stream), ==, ROUSE_OK);
    if (owner->listener != NULL)
        require_int(rouse_listener_close(owner->listener), ==, ROUSE_OK);
    rouse_detach(&owner->task);
}

/* The state is copied: an operation is prepared where it stays, by the first poll. */
static int begin_owner(void *state, void *result, rouse_context *context)
{
    struct owner *owner = state;
    if (owner->data[0] == 0) {
        owner->data[0] = 1;
        if (owner->stream != NULL)
            rouse_read_init(&owner->op, owner->stream, owner->data + 1, 1);
        else if (owner->listener != NULL)
            rouse_accept_init(&owner->op, owner->listener, &owner->accepted, NULL);
        else if (owner->task.cell != NULL)
            rouse_join_init(&owner->op, &owner->task, NULL);
        else
            rouse_sleep_init(&owner->op, rouse_after(ROUSE_S(1000)));
    }
    return poll_owner(state, result, context);
}

enum { OWNERS = 1000 };

/* swoole#6151, tokio#3477, seastar@7068d03e0: the reactor ended with operations in it, or tasks and what they waited for
 * kept each other. */
TEST(a_runtime_may_end_with_operations_in_flight)
{
    static const rouse_task_type type = {
        .name = "owner", .poll = begin_owner, .drop = drop_owner, .state_size = sizeof(struct owner)};
    static int peers[OWNERS];
    int count = (int)test_scale(200, OWNERS), descriptors = test_descriptor_count();
    for (int round = 0; round < 2 * TEST_EXECUTORS; round++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)(round / 2), 2);
        int open = 0;
        for (int i = 0; i < count; i++) {
            struct owner owner;
            memset(&owner, 0, sizeof owner);
            if (i % 4 == 0)
                owner.stream = unix_stream(&peers[open++]);
            else if (i % 40 == 1)
                require_int(rouse_listen(&owner.listener, "127.0.0.1:0", NULL), ==, ROUSE_OK);
            else if (i % 4 == 2)
                require_int(rouse_spawn_on(runtime, &owner.task, &mourner, &runtime), ==, ROUSE_OK);
            require_int(rouse_spawn_on(runtime, NULL, &type, &owner), ==, ROUSE_OK);
        }
        if (round % 2 == 0) /* all were polled, or some, or none */
            require_int(rouse_block_on(runtime, &five, NULL, NULL), ==, 5);
        test_runtime_end(runtime);
        for (int i = 0; i < open; i++) {
            test_expect_end(peers[i]);
            test_close(peers[i]);
        }
    }
    assert_int_equal(test_descriptor_count(), descriptors);
}

static struct {
    rouse_waker wakers[8];
    atomic_int known;
    int peers[8];
} load;

static int echo_until_cancelled(void *stream)
{
    char data[64];
    ptrdiff_t count;
    while ((count = rouse_read(stream, data, sizeof data)) > 0 &&
           rouse_write_all(stream, data, (size_t)count, NULL) == ROUSE_OK) {}
    return rouse_close(stream);
}

static int doze_until_cancelled(void *unused)
{
    (void)unused;
    while (rouse_sleep(ROUSE_US(20)) == ROUSE_OK) {}
    return ROUSE_OK;
}

static int tell_waker(void *state, void *result, rouse_context *context)
{
    int which = *(int *)state;
    (void)result;
    if (load.wakers[which].table == NULL) {
        load.wakers[which] = rouse_waker_clone(&context->waker);
        atomic_fetch_add(&load.known, 1);
    }
    return ROUSE_PENDING;
}

static void disturb(void *unused)
{
    (void)unused;
    while (!atomic_load(&enough)) {
        for (int i = 0; i < 8; i++) {
            char data[8];
            rouse_waker_wake_by_ref(&load.wakers[i]);
            (void)send(load.peers[i % 4], "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
            (void)recv(load.peers[i % 4], data, sizeof data, MSG_DONTWAIT);
        }
        test_take_turns();
    }
}

/* tokio#2061, tokio#3228: an event of the last moment queued a task that nobody ran any more. */
TEST(a_runtime_under_load_ends_in_time)
{
    static const rouse_task_type teller = {.poll = tell_waker, .state_size = sizeof(int)};
    for (uint64_t i = test_scale(15, 10000); i > 0; i--) {
        enum test_executor kind = (enum test_executor)(i % TEST_EXECUTORS);
        rouse_runtime *runtime = test_runtime_new(kind, 2);
        test_thread thread;
        memset(&load, 0, sizeof load);
        atomic_store(&enough, false);
        for (int k = 0; k < 8; k++)
            require_int(rouse_spawn_on(runtime, NULL, &teller, &k), ==, ROUSE_OK);
        while (kind == TEST_SINGLE && atomic_load(&load.known) < 8)
            require_int(rouse_runtime_turn(runtime, 0), >=, 0);
        eventually(atomic_load(&load.known) == 8, TEST_SOON);
        for (int k = 0; k < 4; k++) {
            rouse_stream *stream = unix_stream(&load.peers[k]);
            require_int(rouse_go_detached_at(runtime, echo_until_cancelled, stream, NULL, ROUSE_HERE), ==, ROUSE_OK);
            require_int(rouse_go_detached_at(runtime, doze_until_cancelled, NULL, NULL, ROUSE_HERE), ==, ROUSE_OK);
            require_int(rouse_spawn_on(runtime, NULL, &restless, NULL), ==, ROUSE_OK);
        }
        test_thread_start(&thread, disturb, NULL);
        for (int k = 0; k < 10; k++)
            require_int(rouse_block_on(runtime, &five, NULL, NULL), ==, 5);
        test_runtime_end(runtime);
        atomic_store(&enough, true);
        test_thread_join(&thread, TEST_SOON);
        for (int k = 0; k < 8; k++)
            rouse_waker_drop(&load.wakers[k]);
        for (int k = 0; k < 4; k++)
            test_close(load.peers[k]);
    }
}

/* ---- threads and processes that end ---- */

static void use_a_little(void)
{
    int status = rouse_sleep(ROUSE_US(10));
    require(status <= 0);
    status = rouse_block_on(NULL, &five, NULL, NULL);
    require(status == 5 || status < 0);
    require(rouse_now() > 0);
    rouse_stream *none = NULL;
    require_int(rouse_close(none), ==, ROUSE_CLOSED);
}

static void use_at_the_end_of_a_thread(void *value)
{
    (void)value;
    use_a_little();
}

static pthread_key_t key;

static void *live_shortly(void *unused)
{
    (void)unused;
    use_a_little();
    require(pthread_setspecific(key, &key) == 0);
    return NULL;
}

static void live_and_end(void)
{
    pthread_t thread;
    require(atexit(use_a_little) == 0); /* runs after what the library does at exit */
    require(pthread_key_create(&key, use_at_the_end_of_a_thread) == 0);
    use_a_little();
    for (int i = 0; i < 5; i++) {
        require(pthread_create(&thread, NULL, live_shortly, NULL) == 0);
        require(pthread_join(thread, NULL) == 0);
    }
    require(pthread_setspecific(key, &key) == 0);
    require(atexit(use_a_little) == 0); /* runs before */
}

/* ex-actor#265, folly#1969, rust#28129: destructors ran when what they used was gone. */
TEST(destructors_of_threads_and_exit_handlers_may_use_the_library)
{
    test_needs("fork");
    if (FAULTS_THREAD_SANITIZER) /* ends a forked child that starts threads */
        return;
    for (int i = 0; i < 5; i++) {
        int status = -1;
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            test_time_limit(test_is_slow() ? 60 : 10);
            live_and_end();
            exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}

static int wait_idly(void *unused)
{
    rouse_deadline deadline = {{0}};
    (void)unused;
    int64_t cpu = test_cpu_ns();
    require_int(rouse_sleep(ROUSE_MS(30)), ==, ROUSE_OK);
    if (!test_is_slow())
        require_int(test_cpu_ns() - cpu, <, ROUSE_MS(10));
    require(kill(getpid(), SIGHUP) == 0);
    require_int(rouse_signal_wait(ROUSE_SIGNAL_HANG_UP), ==, ROUSE_SIGNAL_HANG_UP);
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(2))), ==, ROUSE_OK);
    require_int(rouse_signal_wait(ROUSE_SIGNAL_HANG_UP), ==, ROUSE_TIMED_OUT);
    return rouse_deadline_leave(&deadline);
}

static int wait_for_what_was_kept(void *unused)
{
    rouse_deadline deadline = {{0}};
    (void)unused;
    require_int(rouse_signal_wait(ROUSE_SIGNAL_TERMINATE), ==, ROUSE_SIGNAL_TERMINATE);
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(2))), ==, ROUSE_OK);
    require_int(rouse_signal_wait(ROUSE_SIGNAL_HANG_UP), ==, ROUSE_TIMED_OUT);
    return rouse_deadline_leave(&deadline);
}

/* libuv#3483, libevent#307: after a signal just before the fork the child span, or it heard no signal any more. */
TEST(a_forked_child_is_idle_and_hears_its_own_signals_only)
{
    test_needs("fork");
    test_needs("handlers");
    for (int kind = 0; kind < (FAULTS_THREAD_SANITIZER ? 1 : TEST_EXECUTORS); kind++) {
        rouse_options options = test_options((enum test_executor)kind, 2);
        int status = -1;
        assert_int_equal(rouse_signal_catch(ROUSE_SIGNAL_HANG_UP | ROUSE_SIGNAL_TERMINATE), ROUSE_OK);
        assert_int_equal(raise(SIGTERM), 0);
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            test_time_limit(test_is_slow() ? 60 : 10);
            require_int(rouse_run(wait_idly, NULL, &options), ==, ROUSE_OK);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        assert_int_equal(rouse_run(wait_for_what_was_kept, NULL, &options), ROUSE_OK);
        rouse_signal_restore();
    }
}

static void send_signals(void *unused)
{
    (void)unused;
    while (!atomic_load(&enough)) {
        require(kill(getpid(), SIGHUP) == 0);
        test_take_turns();
    }
}

/* libuv#2398, libuv#2415: a handle was closed with signals on their way to it. */
TEST(signals_on_their_way_do_no_harm_when_they_are_not_caught_any_more)
{
    test_needs("handlers");
    test_needs("hang_up");
    struct sigaction before, ignoring = {.sa_handler = SIG_IGN}, found;
    test_thread thread;
    struct hand waiting;
    hand_init(&waiting);
    assert_int_equal(sigaction(SIGHUP, &ignoring, &before), 0);
    int descriptors = test_descriptor_count();
    atomic_store(&enough, false);
    test_thread_start(&thread, send_signals, NULL);
    for (uint64_t i = test_scale(500, 50000); i > 0; i--) {
        rouse_signal_wait_init(&waiting.op, ROUSE_SIGNAL_HANG_UP);
        ptrdiff_t status = hand_poll(&waiting);
        if (status != ROUSE_SIGNAL_HANG_UP)
            require_int(status, ==, ROUSE_PENDING);
        if (i % 2 == 0)
            rouse_op_cancel(&waiting.op);
        rouse_signal_restore();
        status = i % 2 == 0 || status != ROUSE_PENDING ? ROUSE_CLOSED : hand_finish(&waiting);
        require(status == ROUSE_CLOSED || status == ROUSE_SIGNAL_HANG_UP);
        assert_int_equal(sigaction(SIGHUP, NULL, &found), 0);
        assert_true(found.sa_handler == SIG_IGN);
    }
    atomic_store(&enough, true);
    test_thread_join(&thread, TEST_SOON);
    hand_fini(&waiting);
    end_default_runtime();
    assert_int_equal(test_descriptor_count(), descriptors);
    assert_int_equal(sigaction(SIGHUP, &before, NULL), 0);
}

/* ---- fibers ---- */

static _Thread_local int of_this_thread;

static int look_at_the_thread(void *unused)
{
    (void)unused;
    pthread_t thread = pthread_self();
    int *mine = &of_this_thread, *error = &errno;
    for (int i = 0; i < 100; i++) {
        int before = ++of_this_thread;
        errno = 0;
        require_int(i % 3 == 0 ? rouse_sleep(ROUSE_US(10)) : rouse_yield(), ==, ROUSE_OK);
        require(close(-1) == -1 && errno == EBADF);
        require(*error == EBADF);
        require(pthread_equal(thread, pthread_self()));
        require(&of_this_thread == mine && of_this_thread >= before);
    }
    return ROUSE_OK;
}

static int look_often(void *unused)
{
    (void)unused;
    for (int i = 0; i < 40; i++)
        require_int(rouse_go(look_at_the_thread, NULL), ==, ROUSE_OK);
    return ROUSE_OK;
}

/* mozy/mordor#18, llvm#49257, ClickHouse/silk#66: compilers keep the addresses of errno and of other thread-local
 * variables, and the fiber had moved. */
TEST(a_fiber_stays_on_its_thread_and_finds_its_errno)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_options options = test_options((enum test_executor)kind, 4);
        for (uint64_t i = test_scale(2, 500); i > 0; i--)
            assert_int_equal(rouse_run(look_often, NULL, &options), ROUSE_OK);
    }
}

static int doze_a_while(void *unused)
{
    (void)unused;
    require_int(rouse_sleep(ROUSE_US(100)), ==, ROUSE_OK);
    return 7;
}

static void *run_on_a_small_stack(void *unused)
{
    (void)unused;
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_options options = test_options((enum test_executor)kind, 2);
        rouse_runtime *runtime;
        require_int(rouse_runtime_new(&runtime, &options), ==, ROUSE_OK);
        require_int(rouse_go_detached_at(runtime, doze_until_cancelled, NULL, NULL, ROUSE_HERE), ==, ROUSE_OK);
        require_int(test_fiber(runtime, doze_a_while, NULL), ==, 7);
        require_int(rouse_block_on(runtime, &five, NULL, NULL), ==, 5);
        require_int(rouse_runtime_shutdown(runtime, ROUSE_S(10), NULL, NULL), ==, ROUSE_OK);
    }
    return NULL;
}

/* tokio#8093: making a runtime took more stack than there was. */
TEST(a_runtime_can_be_made_and_used_on_a_small_stack)
{
    pthread_attr_t attributes;
    pthread_t thread;
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, test_is_slow() ? 512 * 1024 : 64 * 1024), 0);
    assert_int_equal(pthread_create(&thread, &attributes, run_on_a_small_stack, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(pthread_attr_destroy(&attributes), 0);
}

/* ---- spans ---- */

static const int64_t long_spans[] = {ROUSE_NEVER, ROUSE_NEVER - 1, ROUSE_NEVER - ROUSE_S(1), ROUSE_NEVER / 2};
enum { SPANS = 4 };

static int wait_for_long(void *unused)
{
    (void)unused;
    for (int i = 0; i < SPANS * SPANS; i++) {
        rouse_deadline outer = {{0}}, inner = {{0}};
        rouse_shield shield = {{0}};
        rouse_interval interval;
        rouse_scope scope;
        rouse_task task;
        int64_t one = long_spans[i % SPANS], two = long_spans[i / SPANS];
        require_int(rouse_deadline_enter(&outer, rouse_after(one)), ==, ROUSE_OK);
        require_int(rouse_shield_enter(&shield, two), ==, ROUSE_OK);
        require_int(rouse_sleep(1), ==, ROUSE_OK);
        require_int(rouse_deadline_enter(&inner, rouse_after(ROUSE_US(50))), ==, ROUSE_OK);
        require_int(rouse_sleep(two), ==, ROUSE_TIMED_OUT);
        require_int(rouse_sleep_until(one), ==, ROUSE_TIMED_OUT);
        require_int(rouse_interval_init(&interval, two, one, ROUSE_MISSED_SKIP), ==, ROUSE_OK);
        require_int(rouse_interval_tick(&interval), ==, ROUSE_TIMED_OUT);
        require_int(rouse_deadline_leave(&inner), ==, ROUSE_OK);
        require_int(rouse_spawn(&task, &five, NULL), ==, ROUSE_OK);
        require_int(rouse_join(&task, NULL), ==, 5);
        require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
        require_int(rouse_go(sleep_for_ever, NULL), ==, ROUSE_OK);
        require_int(rouse_scope_cancel(&scope, one), ==, ROUSE_OK);
        require_int(rouse_scope_close(&scope), ==, ROUSE_CANCELLED);
        require_int(rouse_shield_leave(&shield), ==, ROUSE_OK);
        require_int(rouse_deadline_leave(&outer), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

/* tokio#3551, tokio#5710, async-io#87, crossbeam#798, mio#1657: each call that takes a span overflowed in its own way. */
TEST(the_longest_spans_are_for_ever_everywhere)
{
    on_each_executor(wait_for_long, NULL);
    for (int i = 0; i < SPANS; i++) {
        rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
        assert_int_equal(rouse_spawn_on(runtime, NULL, &five, NULL), ROUSE_OK);
        assert_int_equal(rouse_runtime_turn(runtime, long_spans[i]), 1);
        assert_int_equal(rouse_runtime_shutdown(runtime, long_spans[i], NULL, NULL), ROUSE_OK);
        assert_int_equal(rouse_block_on(NULL, &five, NULL, NULL), 5);
        assert_int_equal(rouse_default_shutdown(long_spans[i]), ROUSE_OK);
    }
}
