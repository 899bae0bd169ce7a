/* Wakers: of tasks, of users, from everywhere and at every time. */
#include "support/faults.h"
#include "support/net.h"
#include "support/runtimes.h"

/* ---- a task whose waker anybody may take ---- */

struct sleeper {
    pthread_mutex_t lock;
    rouse_waker waker; /* of the last poll */
    bool has_waker;
    atomic_ulong polls;
    atomic_ulong wakes;   /* announced by who wakes, before waking */
    unsigned long wanted; /* the task ends when so many wakes were announced */
    sem_t polled;         /* posted by the first poll */
    atomic_ulong plain;   /* written before waking, relaxed: must be seen by the poll that follows */
};

static void sleeper_init(struct sleeper *sleeper, unsigned long wanted)
{
    memset(sleeper, 0, sizeof *sleeper);
    pthread_mutex_init(&sleeper->lock, NULL);
    sem_init(&sleeper->polled, 0, 0);
    sleeper->wanted = wanted;
}

static rouse_waker sleeper_waker(struct sleeper *sleeper)
{
    pthread_mutex_lock(&sleeper->lock);
    rouse_waker waker = rouse_waker_clone(&sleeper->waker);
    pthread_mutex_unlock(&sleeper->lock);
    return waker;
}

static int sleeper_poll(void *state, void *result, rouse_context *context)
{
    struct sleeper *sleeper = *(struct sleeper **)state;
    (void)result;
    if (!sleeper->has_waker) {
        pthread_mutex_lock(&sleeper->lock);
        sleeper->waker = rouse_waker_clone(&context->waker);
        sleeper->has_waker = true;
        pthread_mutex_unlock(&sleeper->lock);
    }
    if (atomic_fetch_add(&sleeper->polls, 1) == 0) {
        test_post(&sleeper->polled);
    }
    return atomic_load(&sleeper->wakes) >= sleeper->wanted ? ROUSE_OK : ROUSE_PENDING;
}

static const rouse_task_type sleeper_type = {
    .name = "sleeper", .poll = sleeper_poll, .state_size = sizeof(struct sleeper *)};

static rouse_task sleeper_start(rouse_runtime *runtime, struct sleeper *sleeper)
{
    rouse_task task;
    require_int(rouse_spawn_on(runtime, &task, &sleeper_type, &sleeper), ==, ROUSE_OK);
    return task;
}

/* ---- storms ---- */

static void wake_in_many_ways(void *argument)
{
    struct sleeper *sleeper = argument;
    uint64_t count = test_scale(5000, 1000000);
    rouse_waker mine = sleeper_waker(sleeper);
    for (uint64_t i = 0; i < count; i++) {
        rouse_waker other = rouse_waker_clone(&mine);
        require(other.table != NULL);
        atomic_fetch_add(&sleeper->wakes, 1);
        if (i % 3 == 0) {
            rouse_waker_wake(&other);
            require(other.table == NULL);
        } else if (i % 3 == 1) {
            rouse_waker_wake_by_ref(&other);
        }
        rouse_waker_drop(&other);
        require(other.table == NULL);
    }
    rouse_waker_wake(&mine);
}

TEST(wakes_from_many_threads_lead_to_at_most_as_many_polls_and_none_is_lost)
{
    for (int kind = TEST_ROUND_ROBIN; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        struct sleeper sleeper;
        test_thread threads[3];
        size_t count = test_scale(5000, 1000000);
        sleeper_init(&sleeper, (unsigned long)(3 * count));
        rouse_task task = sleeper_start(runtime, &sleeper);
        test_await(&sleeper.polled);
        for (int i = 0; i < 3; i++) {
            test_thread_start(&threads[i], wake_in_many_ways, &sleeper);
        }
        for (int i = 0; i < 3; i++) {
            test_thread_join(&threads[i], ROUSE_S(100));
        }
        require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
        require_int(atomic_load(&sleeper.polls), <=, 3 * count + 4);
        rouse_waker_drop(&sleeper.waker);
        test_runtime_end(runtime);
    }
}

TEST(a_task_that_is_not_woken_is_not_polled)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        struct sleeper sleeper;
        sleeper_init(&sleeper, 1);
        rouse_task task = sleeper_start(runtime, &sleeper);
        for (int i = 0; i < 100; i++) {
            const rouse_task_type type = {.poll = test_bell_task_poll, .state_size = sizeof(void *)};
            struct test_bell rung = {PTHREAD_MUTEX_INITIALIZER, true, {NULL, NULL}}, *state = &rung;
            require_int(rouse_block_on(runtime, &type, &state, NULL), ==, ROUSE_OK);
        }
        test_await(&sleeper.polled);
        require_int(atomic_load(&sleeper.polls), ==, 1);
        atomic_store(&sleeper.wakes, 1);
        rouse_waker_wake(&sleeper.waker);
        require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
        require_int(atomic_load(&sleeper.polls), ==, 2);
        test_runtime_end(runtime);
    }
}

static int wake_itself(void *state, void *result, rouse_context *context)
{
    int *left = state;
    (void)result;
    if (--*left < 0) {
        return ROUSE_OK;
    }
    for (int i = 0; i < 5; i++) {
        rouse_waker_wake_by_ref(&context->waker);
    }
    return ROUSE_PENDING;
}

static void wake_itself_on(rouse_runtime *runtime)
{
    const rouse_task_type type = {.poll = wake_itself, .state_size = sizeof(int)};
    rouse_worker_stats stats[2] = {{0}};
    rouse_runtime_info info = {.size = sizeof info};
    require_int(rouse_block_on(runtime, &type, &(int){1000}, NULL), ==, ROUSE_OK);
    require_int(rouse_runtime_stats(runtime, &info, stats, 2), ==, ROUSE_OK);
    require_int(stats[0].polls + stats[1].polls, ==, 1001);
}

TEST(a_task_that_wakes_itself_five_times_is_polled_once_more)
{
    test_on_each_executor(wake_itself_on);
}

/* ---- visibility: tokio#7622 ---- */

struct litmus {
    struct sleeper sleeper;
    uintptr_t data; /* not atomic: only the wake orders it */
    unsigned polls; /* of the task, which alone counts them */
};

static int litmus_poll(void *state, void *result, rouse_context *context)
{
    struct litmus *litmus = *(struct litmus **)state;
    /* The writer set `plain` before it woke: a poll that the wake caused sees it, before it looks at anything else. The
     * first poll may have come before that, and find the bell rung nevertheless, a moment later. */
    unsigned long seen = atomic_load_explicit(&litmus->sleeper.plain, memory_order_relaxed) == 1;
    bool was_woken = litmus->polls++ > 0;
    int status = test_bell_poll((struct test_bell *)(void *)litmus->data, context);
    *(unsigned long *)result = was_woken ? seen : 1;
    return status;
}

TEST(what_was_written_before_a_wake_is_seen_by_the_poll_that_follows)
{
    const rouse_task_type type = {
        .poll = litmus_poll, .state_size = sizeof(struct litmus *), .result_size = sizeof(unsigned long)};
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    uint64_t count = test_scale(1000, 1000000);
    for (uint64_t i = 0; i < count; i++) {
        struct litmus litmus = {.data = 0}, *state = &litmus;
        struct test_bell bell = TEST_BELL_INIT;
        unsigned long seen = 0;
        rouse_task task;
        atomic_init(&litmus.sleeper.plain, 0);
        litmus.data = (uintptr_t)&bell;
        require_int(rouse_spawn_on(runtime, &task, &type, &state), ==, ROUSE_OK);
        atomic_store_explicit(&litmus.sleeper.plain, 1, memory_order_relaxed);
        test_bell_ring(&bell);
        require_int(rouse_join(&task, &seen), ==, ROUSE_OK);
        require_int(seen, ==, 1);
    }
    test_runtime_end(runtime);
}

/* ---- late wakes ---- */

TEST(waking_what_has_finished_does_nothing)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        struct sleeper sleeper;
        sleeper_init(&sleeper, 0);
        rouse_task task = sleeper_start(runtime, &sleeper);
        require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
        rouse_waker other = rouse_waker_clone(&sleeper.waker);
        rouse_waker_wake_by_ref(&other);
        rouse_waker_wake(&other);
        require_int(atomic_load(&sleeper.polls), ==, 1);
        test_await_no_tasks(runtime);
        test_runtime_end(runtime);
        other = rouse_waker_clone(&sleeper.waker);
        require(other.table != NULL);
        rouse_waker_wake_by_ref(&other);
        rouse_waker_wake(&other);
        rouse_waker_wake_by_ref(&sleeper.waker);
        rouse_waker_drop(&sleeper.waker);
        require_int(atomic_load(&sleeper.polls), ==, 1);
    }
}

static void wake_until_told(void *argument)
{
    struct sleeper *sleeper = argument;
    rouse_waker waker = sleeper_waker(sleeper);
    while (atomic_load(&sleeper->plain) == 0) {
        rouse_waker other = rouse_waker_clone(&waker);
        rouse_waker_wake_by_ref(&waker);
        rouse_waker_wake(&other);
        test_take_turns();
    }
    rouse_waker_wake(&waker);
}

/* libuv#2226: the waking thread is inside the wake while everything it belongs to is freed. */
TEST(a_runtime_may_end_while_threads_wake_its_tasks)
{
    uint64_t count = test_scale(30, 10000);
    for (uint64_t i = 0; i < count; i++) {
        rouse_runtime *runtime = test_runtime_new(i & 1 ? TEST_STEALING : TEST_SINGLE, 2);
        struct sleeper sleeper;
        test_thread threads[2];
        sleeper_init(&sleeper, 1);
        rouse_task task = sleeper_start(runtime, &sleeper);
        if (!(i & 1)) {
            require_int(rouse_runtime_turn(runtime, 0), ==, 1);
        }
        test_await(&sleeper.polled);
        for (int k = 0; k < 2; k++) {
            test_thread_start(&threads[k], wake_until_told, &sleeper);
        }
        if (i & 2) {
            rouse_detach(&task);
        }
        test_runtime_end(runtime);
        atomic_store(&sleeper.plain, 1);
        for (int k = 0; k < 2; k++) {
            test_thread_join(&threads[k], TEST_SOON);
        }
        if (task.cell != NULL) {
            require_int(rouse_join(&task, NULL), ==, ROUSE_CANCELLED);
        }
        rouse_waker_drop(&sleeper.waker);
    }
}

static void drop_in_thread(void *argument)
{
    rouse_waker_drop(argument);
}

TEST(the_last_reference_to_a_task_may_go_while_its_runtime_ends)
{
    uint64_t count = test_scale(60, 10000);
    for (uint64_t i = 0; i < count; i++) {
        rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
        struct sleeper sleeper;
        test_thread thread;
        sleeper_init(&sleeper, 0);
        rouse_task task = sleeper_start(runtime, &sleeper);
        require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
        test_thread_start(&thread, drop_in_thread, &sleeper.waker);
        test_runtime_end(runtime);
        test_thread_join(&thread, TEST_SOON);
    }
}

/* ---- wakes from drop functions: tokio#2046, #1929 ---- */

struct neighbour {
    struct test_bell *own, *other;
    pthread_mutex_t *mutex; /* the destructor takes it */
};

static int neighbour_poll(void *state, void *result, rouse_context *context)
{
    struct neighbour *neighbour = state;
    (void)result;
    return test_bell_poll(neighbour->own, context);
}

static void neighbour_drop(void *state)
{
    struct neighbour *neighbour = state;
    if (neighbour->mutex != NULL) {
        pthread_mutex_lock(neighbour->mutex);
        pthread_mutex_unlock(neighbour->mutex);
    }
    test_bell_ring(neighbour->other);
    test_bell_forget(neighbour->own);
}

static const rouse_task_type neighbour_type = {
    .poll = neighbour_poll, .drop = neighbour_drop, .state_size = sizeof(struct neighbour)};

TEST(drop_functions_may_wake_each_others_tasks_at_the_end_of_the_runtime)
{
    uint64_t count = test_scale(20, 1000);
    for (uint64_t i = 0; i < count; i++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)(i % TEST_EXECUTORS), 2);
        struct test_bell bells[2] = {TEST_BELL_INIT, TEST_BELL_INIT};
        pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
        for (int k = 0; k < 2; k++) {
            struct neighbour state = {&bells[k], &bells[!k], &mutex};
            require_int(rouse_spawn_on(runtime, NULL, &neighbour_type, &state), ==, ROUSE_OK);
        }
        test_runtime_end(runtime);
        require(bells[0].waiter.table == NULL && bells[1].waiter.table == NULL);
    }
}

TEST(a_wake_under_a_lock_that_the_drop_function_takes_does_not_deadlock)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        struct test_bell bells[2] = {TEST_BELL_INIT, TEST_BELL_INIT};
        pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
        struct neighbour state = {&bells[0], &bells[1], &mutex};
        rouse_task task;
        require_int(rouse_spawn_on(runtime, &task, &neighbour_type, &state), ==, ROUSE_OK);
        pthread_mutex_lock(&mutex);
        rouse_abort(&task);
        test_bell_ring(&bells[0]);
        pthread_mutex_unlock(&mutex);
        int status;
        test_call(status, rouse_join(&task, NULL));
        require(status == ROUSE_OK || status == ROUSE_CANCELLED);
        test_runtime_end(runtime);
    }
}

/* ---- wakers of users ---- */

static atomic_int references, user_wakes;
static rouse_op *re_entered;        /* an operation that every entry cancels and polls again */
static const rouse_task *re_joined; /* a task that every entry asks about */
static atomic_int inside;           /* entries do not re-enter each other */

static void re_enter(void)
{
    if (re_entered == NULL || atomic_exchange(&inside, 1)) {
        return;
    }
    rouse_context context;
    rouse_waker waker = rouse_waker_clone(&(rouse_waker){NULL, NULL});
    require(waker.table == NULL);
    rouse_op op;
    rouse_context_init(&context, &waker);
    rouse_sleep_init(&op, rouse_now() - 1);
    require_int(rouse_op_poll(&op, &context), ==, ROUSE_OK);
    if (re_joined != NULL) {
        rouse_is_finished(re_joined);
        rouse_abort(re_joined);
    }
    rouse_op_cancel(re_entered);
    rouse_sleep_init(re_entered, rouse_after(ROUSE_S(1000)));
    atomic_store(&inside, 0);
}

static rouse_waker user_clone(void *data);

static void user_wake_by_ref(void *data)
{
    (void)data;
    atomic_fetch_add(&user_wakes, 1);
    re_enter();
}

static void user_drop(void *data)
{
    (void)data;
    require_int(atomic_fetch_sub(&references, 1), >, 0);
    re_enter();
}

static void user_wake(void *data)
{
    user_wake_by_ref(data);
    user_drop(data);
}

static const rouse_waker_table user_table = {user_clone, user_wake, user_wake_by_ref, user_drop};

static rouse_waker user_clone(void *data)
{
    atomic_fetch_add(&references, 1);
    re_enter();
    return (rouse_waker){data, &user_table};
}

static rouse_context user_context(void *data)
{
    rouse_context context;
    rouse_waker waker = {data, &user_table};
    rouse_context_init(&context, &waker);
    return context;
}

/* tokio#1648: the waker of an earlier poll is let go. */
TEST(an_operation_holds_one_waker_and_none_once_it_is_done_or_cancelled)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    struct test_bell bell = TEST_BELL_INIT, *state = &bell;
    rouse_context one = user_context(&bell), two = user_context(&runtime);
    rouse_task task;
    rouse_op op;
    assert_int_equal(rouse_spawn_on(runtime, &task, &test_bell_task, &state), ROUSE_OK);
    for (int round = 0; round < 3; round++) {
        rouse_join_init(&op, &task, NULL);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(rouse_op_poll(&op, &one), ROUSE_PENDING);
            assert_int_equal(atomic_load(&references), 1);
            assert_int_equal(rouse_op_poll(&op, &two), ROUSE_PENDING);
            assert_int_equal(rouse_op_poll(&op, &two), ROUSE_PENDING);
            assert_int_equal(atomic_load(&references), 1);
        }
        assert_int_equal(rouse_op_cancel(&op), ROUSE_OP_IDLE);
        assert_int_equal(rouse_op_cancel(&op), ROUSE_OP_IDLE);
        assert_int_equal(atomic_load(&references), 0);
        assert_int_equal(rouse_op_poll(&op, &one), ROUSE_INVALID);
    }
    rouse_join_init(&op, &task, NULL);
    assert_int_equal(rouse_op_poll(&op, &one), ROUSE_PENDING);
    test_bell_ring(&bell);
    while (!rouse_is_finished(&task)) {
        assert_true(rouse_runtime_turn(runtime, ROUSE_NEVER) >= 0);
    }
    assert_int_equal(atomic_load(&user_wakes), 1);
    assert_int_equal(atomic_load(&references), 0);
    assert_int_equal(rouse_op_poll(&op, &two), ROUSE_OK);
    assert_null(task.cell);
    test_runtime_end(runtime);
    assert_int_equal(atomic_load(&user_wakes), 1);
}

TEST(a_timer_holds_one_waker_and_none_once_it_is_done_or_cancelled)
{
    rouse_context one = user_context(&references), two = user_context(&user_wakes);
    rouse_op op;
    for (int i = 0; i < 3; i++) {
        rouse_sleep_init(&op, rouse_after(ROUSE_S(1000)));
        assert_int_equal(rouse_op_poll(&op, &one), ROUSE_PENDING);
        assert_int_equal(rouse_op_poll(&op, &two), ROUSE_PENDING);
        assert_int_equal(rouse_op_poll(&op, &two), ROUSE_PENDING);
        assert_int_equal(atomic_load(&references), 1);
        rouse_op_cancel(&op);
        assert_int_equal(atomic_load(&references), 0);
    }
    rouse_sleep_init(&op, rouse_after(ROUSE_MS(1)));
    assert_int_equal(rouse_op_poll(&op, &one), ROUSE_PENDING);
    eventually(atomic_load(&user_wakes) == 1, TEST_SOON);
    assert_int_equal(rouse_op_poll(&op, &one), ROUSE_OK);
    eventually(atomic_load(&references) == 0, TEST_SOON);
    assert_int_equal(rouse_default_shutdown(ROUSE_S(10)), ROUSE_OK);
}

/* tokio#4129, #5471: wakers are called and dropped with no lock held. */
TEST(the_entries_of_a_waker_may_use_the_very_thing_that_calls_them)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    uint64_t count = test_scale(100, 10000);
    for (uint64_t i = 0; i < count; i++) {
        struct test_bell bell = TEST_BELL_INIT, *state = &bell;
        rouse_context one = user_context(&bell), two = user_context(&runtime);
        rouse_task task;
        rouse_op join, sleep, other;
        assert_int_equal(rouse_spawn_on(runtime, &task, &test_bell_task, &state), ROUSE_OK);
        rouse_sleep_init(&other, ROUSE_NEVER);
        re_joined = &task;
        re_entered = &other;
        rouse_sleep_init(&sleep, rouse_after(ROUSE_S(1000)));
        assert_int_equal(rouse_op_poll(&sleep, &one), ROUSE_PENDING);
        assert_int_equal(rouse_op_poll(&sleep, &two), ROUSE_PENDING);
        rouse_op_cancel(&sleep);
        rouse_task copy = task; /* what the entries look at while the join empties the handle */
        re_joined = &copy;
        rouse_join_init(&join, &task, NULL);
        ptrdiff_t status;
        while ((status = rouse_op_poll(&join, i & 1 ? &one : &two)) == ROUSE_PENDING) {
            if (i & 2) {
                test_bell_ring(&bell);
            }
            require_int(rouse_runtime_turn(runtime, 0), >=, 0);
        }
        re_joined = NULL;
        re_entered = NULL;
        assert_true(status == ROUSE_OK || status == ROUSE_CANCELLED);
        assert_int_equal(atomic_load(&references), 0);
        test_bell_forget(&bell);
    }
    test_runtime_end(runtime);
    assert_int_equal(rouse_default_shutdown(ROUSE_S(10)), ROUSE_OK);
}

TEST(a_waker_without_a_table_is_ignored)
{
    rouse_waker none = {&none, NULL};
    rouse_waker copy = rouse_waker_clone(&none);
    assert_null(copy.table);
    rouse_waker_wake_by_ref(&none);
    rouse_waker_wake(&none);
    rouse_waker_drop(&none);
    copy = rouse_waker_clone(NULL);
    assert_null(copy.table);
}

static rouse_waker refuse_clone(void *data)
{
    (void)data;
    return (rouse_waker){NULL, NULL};
}

TEST(an_operation_whose_waker_cannot_be_cloned_answers_limit)
{
    static const rouse_waker_table table = {refuse_clone, user_wake, user_wake_by_ref, user_drop};
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    struct test_bell bell = TEST_BELL_INIT, *state = &bell;
    rouse_waker waker = {NULL, &table};
    rouse_context context;
    rouse_task task;
    rouse_op op;
    rouse_context_init(&context, &waker);
    assert_int_equal(rouse_spawn_on(runtime, &task, &test_bell_task, &state), ROUSE_OK);
    rouse_join_init(&op, &task, NULL);
    assert_int_equal(rouse_op_poll(&op, &context), ROUSE_LIMIT);
    assert_non_null(task.cell);
    rouse_sleep_init(&op, rouse_after(ROUSE_S(1000)));
    assert_int_equal(rouse_op_poll(&op, &context), ROUSE_LIMIT);
    rouse_detach(&task);
    test_runtime_end(runtime);
    test_bell_forget(&bell);
    assert_int_equal(rouse_default_shutdown(ROUSE_S(10)), ROUSE_OK);
}

/* ---- nothing here takes memory ---- */

TEST(waking_cloning_and_dropping_take_no_memory)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    struct sleeper sleeper;
    sleeper_init(&sleeper, 100);
    rouse_task task = sleeper_start(runtime, &sleeper);
    assert_int_equal(rouse_runtime_turn(runtime, 0), 1);
    faults_forbid_alloc(true);
    for (int i = 0; i < 100; i++) {
        rouse_waker other = rouse_waker_clone(&sleeper.waker);
        atomic_fetch_add(&sleeper.wakes, 1);
        rouse_waker_wake_by_ref(&other);
        rouse_waker_wake(&other);
        require_int(rouse_runtime_turn(runtime, 0), ==, 1);
    }
    rouse_waker_drop(&sleeper.waker);
    require_int(rouse_is_finished(&task), ==, 1);
    require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
    faults_forbid_alloc(false);
    test_runtime_end(runtime);
}
