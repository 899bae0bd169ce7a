/* Tasks: spawning, results, joining, detaching, aborting, dropping. */
#include "support/net.h"
#include "support/runtimes.h"

/* ---- results and alignments ---- */

static void fill(void *memory, int value, size_t bytes)
{
    if (bytes > 0) {
        memset(memory, value, bytes);
    }
}

#define RESULT_OF(bytes)                                                       \
    static int fill_##bytes(void *state, void *result, rouse_context *context) \
    {                                                                          \
        (void)context;                                                         \
        fill(result, *(unsigned char *)state, bytes);                          \
        return bytes % 1000;                                                   \
    }                                                                          \
    static const rouse_task_type type_##bytes = {                              \
        .name = "fill", .poll = fill_##bytes, .state_size = 1, .result_size = bytes};

RESULT_OF(0)
RESULT_OF(1)
RESULT_OF(8)
RESULT_OF(4096)
RESULT_OF(1048576)

static const struct {
    const rouse_task_type *type;
    size_t bytes;
} sizes[] = {{&type_0, 0}, {&type_1, 1}, {&type_8, 8}, {&type_4096, 4096}, {&type_1048576, 1048576}};

static void join_each_size(rouse_runtime *runtime)
{
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t bytes = sizes[i].bytes;
        unsigned char *result = test_memory(bytes + 1), state = (unsigned char)(7 + i);
        rouse_task task;
        memset(result, 0xee, bytes + 1);
        require_int(rouse_spawn_on(runtime, &task, sizes[i].type, &state), ==, ROUSE_OK);
        require_int(rouse_join(&task, result), ==, (int)(bytes % 1000));
        require(task.cell == NULL);
        for (size_t k = 0; k < bytes; k++) {
            require(result[k] == state);
        }
        require(result[bytes] == 0xee);
        free(result);
    }
}

static int join_each_size_in_fiber(void *argument)
{
    join_each_size(argument);
    join_each_size(NULL);
    return 5;
}

static void results_of_each_size(rouse_runtime *runtime)
{
    join_each_size(runtime);
    require_int(test_fiber(runtime, join_each_size_in_fiber, runtime), ==, 5);
}

TEST(results_of_every_size_reach_who_joins_from_a_thread_or_a_fiber)
{
    test_on_each_executor(results_of_each_size);
}

static int check_alignment(void *state, void *result, rouse_context *context)
{
    uintptr_t expected = *(uint16_t *)state;
    (void)context;
    require(((uintptr_t)state & (expected - 1)) == 0);
    require(((uintptr_t)result & (expected - 1)) == 0);
    for (size_t i = 0; i < 40; i++) {
        require(((unsigned char *)result)[i] == 0);
    }
    return ROUSE_OK;
}

static void state_and_result_aligned(rouse_runtime *runtime)
{
    for (uint16_t alignment = 1; alignment <= 4096; alignment = (uint16_t)(alignment * 2)) {
        rouse_task_type type = {.poll = check_alignment,
                                .state_size = sizeof alignment,
                                .state_alignment = alignment,
                                .result_size = 40,
                                .result_alignment = alignment};
        for (int i = 0; i < 3; i++) {
            require_int(rouse_block_on(runtime, &type, &alignment, NULL), ==, ROUSE_OK);
        }
    }
}

TEST(state_and_result_are_aligned_as_the_type_says_and_the_result_is_zeroed)
{
    test_on_each_executor(state_and_result_aligned);
}

static int answer_zero(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    return ROUSE_OK;
}

TEST(a_type_that_makes_no_sense_is_refused_and_leaves_an_empty_handle)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    const rouse_task_type no_poll = {.name = "none"};
    const rouse_task_type odd_state = {.poll = answer_zero, .state_size = 8, .state_alignment = 24};
    const rouse_task_type odd_result = {.poll = answer_zero, .result_size = 8, .result_alignment = 8192};
    const rouse_task_type huge_state = {.poll = answer_zero, .state_size = SIZE_MAX};
    const rouse_task_type huge_result = {.poll = answer_zero, .result_size = SIZE_MAX - 4096};
    const rouse_task_type huge_sum = {.poll = answer_zero, .state_size = SIZE_MAX / 4, .result_size = SIZE_MAX / 4};
    const struct {
        const rouse_task_type *type;
        int status;
    } cases[] = {{NULL, ROUSE_INVALID},        {&no_poll, ROUSE_INVALID},      {&odd_state, ROUSE_INVALID},
                 {&odd_result, ROUSE_INVALID}, {&huge_state, ROUSE_TOO_LARGE}, {&huge_result, ROUSE_TOO_LARGE},
                 {&huge_sum, ROUSE_TOO_LARGE}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rouse_task task = {&task};
        assert_int_equal(rouse_spawn_on(runtime, &task, cases[i].type, NULL), cases[i].status);
        assert_null(task.cell);
        assert_int_equal(rouse_spawn_on(runtime, NULL, cases[i].type, NULL), cases[i].status);
        assert_int_equal(rouse_block_on(runtime, cases[i].type, NULL, NULL), cases[i].status);
    }
    test_runtime_end(runtime);
}

TEST(an_empty_handle_is_valid_everywhere)
{
    rouse_task none = {NULL};
    rouse_detach(&none);
    rouse_detach(NULL);
    rouse_abort(&none);
    rouse_abort(NULL);
    assert_int_equal(rouse_is_finished(&none), 0);
    assert_int_equal(rouse_is_finished(NULL), 0);
    assert_int_equal(rouse_join(&none, NULL), ROUSE_INVALID);
    assert_int_equal(rouse_join(NULL, NULL), ROUSE_INVALID);
    assert_non_null(rouse_task_name(&none));
}

/* ---- what is dropped, and how often ---- */

static atomic_int polls, drops, result_drops;

struct counted {
    struct test_bell *bell; /* waited for; NULL: nothing */
    sem_t *polled;          /* posted by each poll; NULL: nobody */
    sem_t *go;              /* awaited inside the poll, so that it can be aborted while it runs */
    int answer;
};

static int counted_poll(void *state, void *result, rouse_context *context)
{
    struct counted *counted = state;
    atomic_fetch_add(&polls, 1);
    *(int *)result = 77;
    if (counted->polled != NULL) {
        test_post(counted->polled);
    }
    if (counted->go != NULL) {
        test_await(counted->go);
    }
    if (counted->bell != NULL && test_bell_poll(counted->bell, context) == ROUSE_PENDING) {
        return ROUSE_PENDING;
    }
    return counted->answer;
}

static void counted_drop(void *state)
{
    struct counted *counted = state;
    atomic_fetch_add(&drops, 1);
    if (counted->bell != NULL) {
        test_bell_forget(counted->bell);
    }
}

static void counted_drop_result(void *result)
{
    require_int(*(int *)result, ==, 77);
    atomic_fetch_add(&result_drops, 1);
}

static const rouse_task_type counted_type = {.name = "counted",
                                             .poll = counted_poll,
                                             .drop = counted_drop,
                                             .drop_result = counted_drop_result,
                                             .state_size = sizeof(struct counted),
                                             .result_size = sizeof(int)};

static void reset_counts(void)
{
    atomic_store(&polls, 0);
    atomic_store(&drops, 0);
    atomic_store(&result_drops, 0);
}

static void require_counts(int polled, int dropped, int results_dropped)
{
    if (polled >= 0) {
        require_int(atomic_load(&polls), ==, polled);
    }
    require_int(atomic_load(&drops), ==, dropped);
    require_int(atomic_load(&result_drops), ==, results_dropped);
}

static void join_moves_the_result_out(rouse_runtime *runtime)
{
    struct counted state = {.answer = -5};
    int result = 0;
    reset_counts();
    require_int(rouse_block_on(runtime, &counted_type, &state, &result), ==, -5);
    require_int(result, ==, 77);
    require_counts(1, 1, 0);
    require_int(rouse_block_on(runtime, &counted_type, &state, NULL), ==, -5);
    require_counts(2, 2, 1);
}

TEST(joining_moves_the_result_out_and_without_a_place_for_it_drops_it)
{
    test_on_each_executor(join_moves_the_result_out);
}

static void spawn_and_detach(rouse_runtime *runtime, struct test_bell *bell)
{
    struct counted state = {.bell = bell};
    rouse_task task;
    reset_counts();
    require_int(rouse_spawn_on(runtime, NULL, &counted_type, &(struct counted){.answer = 1}), ==, ROUSE_OK);
    require_int(rouse_spawn_on(runtime, &task, &counted_type, &state), ==, ROUSE_OK);
    rouse_detach(&task);
    require(task.cell == NULL);
    test_bell_ring(bell);
}

TEST(a_detached_task_goes_on_and_its_result_is_dropped)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        struct test_bell bell = TEST_BELL_INIT;
        spawn_and_detach(runtime, &bell);
        if (kind == TEST_SINGLE) {
            while (test_tasks_alive(runtime) > 0) {
                require_int(rouse_runtime_turn(runtime, ROUSE_NEVER), >, 0);
            }
        }
        test_await_no_tasks(runtime);
        require_counts(-1, 2, 2);
        test_runtime_end(runtime);
        require_counts(-1, 2, 2);
    }
}

static void detach_after_the_end(rouse_runtime *runtime)
{
    rouse_task task;
    reset_counts();
    require_int(rouse_spawn_on(runtime, &task, &counted_type, &(struct counted){.answer = 3}), ==, ROUSE_OK);
    while (!rouse_is_finished(&task)) {
        require_int(rouse_block_on(runtime, &counted_type, &(struct counted){.answer = 0}, &(int){0}), ==, ROUSE_OK);
    }
    require_int(atomic_load(&result_drops), ==, 0);
    rouse_abort(&task);
    require_int(rouse_is_finished(&task), ==, 1);
    rouse_detach(&task);
    require_int(atomic_load(&result_drops), ==, 1);
}

TEST(detaching_a_finished_task_drops_its_result_and_aborting_it_changes_nothing)
{
    test_on_each_executor(detach_after_the_end);
}

TEST(a_finished_task_can_be_joined_after_its_runtime_is_gone)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        rouse_task joined, detached, aborted;
        struct test_bell bell = TEST_BELL_INIT;
        int result = 0;
        reset_counts();
        assert_int_equal(rouse_spawn_on(runtime, &joined, &counted_type, &(struct counted){.answer = 9}), ROUSE_OK);
        assert_int_equal(rouse_spawn_on(runtime, &detached, &counted_type, &(struct counted){.answer = 9}), ROUSE_OK);
        assert_int_equal(rouse_spawn_on(runtime, &aborted, &counted_type, &(struct counted){.bell = &bell}), ROUSE_OK);
        test_runtime_end(runtime);
        assert_int_equal(rouse_is_finished(&joined), 1);
        assert_string_equal(rouse_task_name(&joined), "counted");
        rouse_abort(&joined);
        assert_int_equal(rouse_join(&joined, &result), 9);
        assert_int_equal(result, 77);
        rouse_detach(&detached);
        assert_int_equal(rouse_join(&aborted, NULL), ROUSE_CANCELLED);
        require_counts(-1, 3, 1);
    }
}

/* ---- aborting: tokio#3965, #3752 ---- */

static void abort_while_queued(rouse_runtime *runtime)
{
    struct test_bell bell = TEST_BELL_INIT;
    struct counted state = {.bell = &bell};
    rouse_task task;
    for (int i = 0; i < 20; i++) {
        reset_counts();
        require_int(rouse_spawn_on(runtime, &task, &counted_type, &state), ==, ROUSE_OK);
        rouse_abort(&task);
        rouse_abort(&task);
        require_int(rouse_join(&task, NULL), ==, ROUSE_CANCELLED);
        require_counts(-1, 1, 0);
        require_int(atomic_load(&polls), >=, 1);
        require_int(atomic_load(&polls), <=, 2);
    }
}

TEST(a_task_that_is_aborted_while_queued_is_polled_once_more_and_dropped_once)
{
    test_on_each_executor(abort_while_queued);
}

static int abort_idle_in_fiber(void *argument)
{
    struct test_bell bell = TEST_BELL_INIT;
    struct counted state = {.bell = &bell};
    rouse_task task;
    (void)argument;
    reset_counts();
    require_int(rouse_spawn(&task, &counted_type, &state), ==, ROUSE_OK);
    while (atomic_load(&polls) == 0) {
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    require_int(rouse_is_finished(&task), ==, 0);
    rouse_abort(&task);
    require_int(rouse_join(&task, NULL), ==, ROUSE_CANCELLED);
    require_counts(2, 1, 0);
    require(bell.waiter.table == NULL);
    return 0;
}

static void abort_while_idle(rouse_runtime *runtime)
{
    require_int(test_fiber(runtime, abort_idle_in_fiber, NULL), ==, 0);
}

TEST(a_task_that_is_aborted_while_idle_is_polled_once_more_and_dropped_once)
{
    test_on_each_executor(abort_while_idle);
}

static void abort_while_running(bool finishes)
{
    for (int kind = TEST_ROUND_ROBIN; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        struct test_bell bell = TEST_BELL_INIT;
        sem_t polled, go;
        rouse_task task;
        sem_init(&polled, 0, 0);
        sem_init(&go, 0, 0);
        struct counted state = {.bell = finishes ? NULL : &bell, .polled = &polled, .go = &go, .answer = 4};
        reset_counts();
        require_int(rouse_spawn_on(runtime, &task, &counted_type, &state), ==, ROUSE_OK);
        test_await(&polled);
        rouse_abort(&task);
        test_post(&go);
        test_post(&go);
        require_int(rouse_join(&task, NULL), ==, finishes ? 4 : ROUSE_CANCELLED);
        require_counts(finishes ? 1 : 2, 1, finishes ? 1 : 0);
        test_runtime_end(runtime);
        sem_destroy(&polled);
        sem_destroy(&go);
    }
}

TEST(a_task_that_is_aborted_while_it_runs_is_polled_once_more_and_dropped_once)
{
    abort_while_running(false);
}

TEST(a_task_that_finishes_in_the_poll_during_which_it_was_aborted_keeps_its_value)
{
    abort_while_running(true);
}

static int answer_when_cancelled(void *state, void *result, rouse_context *context)
{
    *(int *)result = 77;
    (void)state;
    return context->cancelled ? 12 : ROUSE_PENDING;
}

static void cancelled_answers(rouse_runtime *runtime)
{
    rouse_task_type type = counted_type;
    struct counted state = {.bell = NULL};
    rouse_task task;
    int result = 0;
    type.poll = answer_when_cancelled;
    reset_counts();
    require_int(rouse_spawn_on(runtime, &task, &type, &state), ==, ROUSE_OK);
    rouse_abort(&task);
    require_int(rouse_join(&task, &result), ==, 12);
    require_int(result, ==, 77);
    require_counts(-1, 1, 0);
}

TEST(a_task_may_still_answer_in_the_poll_that_tells_it_of_its_end)
{
    test_on_each_executor(cancelled_answers);
}

/* One worker thread owns what a task is not allowed to share: tokio#3662. */
static pthread_t dropped_on;

static void note_thread(void *state)
{
    (void)state;
    dropped_on = pthread_self();
    require(rouse_runtime_current() != NULL);
}

static int tell_thread(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)context;
    *(pthread_t *)result = pthread_self();
    return ROUSE_OK;
}

TEST(a_task_that_another_thread_aborts_is_dropped_on_a_thread_of_its_runtime)
{
    const rouse_task_type type = {
        .poll = test_bell_task_poll, .drop = note_thread, .state_size = sizeof(struct test_bell *)};
    const rouse_task_type tell = {.poll = tell_thread, .result_size = sizeof(pthread_t)};
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 1);
    struct test_bell bell = TEST_BELL_INIT, *state = &bell;
    pthread_t worker;
    rouse_task task;
    assert_int_equal(rouse_block_on(runtime, &tell, NULL, &worker), ROUSE_OK);
    assert_int_equal(rouse_spawn_on(runtime, &task, &type, &state), ROUSE_OK);
    rouse_abort(&task);
    assert_int_equal(rouse_join(&task, NULL), ROUSE_CANCELLED);
    assert_true(pthread_equal(worker, dropped_on));
    test_bell_forget(&bell);
    test_runtime_end(runtime);
}

/* ---- joining from a task ---- */

struct joining {
    rouse_op op;
    rouse_task task;
    int result;
    bool begun;
    int answer; /* of the plain call inside a poll function */
};

static int joining_poll(void *state, void *result, rouse_context *context)
{
    struct joining *joining = state;
    (void)result;
    if (!joining->begun) {
        require_int(rouse_join(&joining->task, NULL), ==, ROUSE_IN_POLL);
        require(joining->task.cell != NULL);
        rouse_join_init(&joining->op, &joining->task, &joining->result);
        joining->begun = true;
    }
    ptrdiff_t answer = rouse_op_poll(&joining->op, context);
    if (answer == ROUSE_PENDING || answer == ROUSE_CANCELLED) {
        return (int)answer;
    }
    require(joining->task.cell == NULL);
    require_int(joining->result, ==, 77);
    require_int(rouse_op_poll(&joining->op, context), ==, ROUSE_INVALID);
    return (int)answer;
}

static void joining_drop(void *state)
{
    struct joining *joining = state;
    rouse_op_cancel(&joining->op);
    rouse_detach(&joining->task);
}

static const rouse_task_type joining_type = {
    .poll = joining_poll, .drop = joining_drop, .state_size = sizeof(struct joining)};

static void join_from_a_task(rouse_runtime *runtime)
{
    struct test_bell bell = TEST_BELL_INIT;
    struct counted joined = {.bell = &bell, .answer = 6};
    struct joining state = {.begun = false};
    rouse_task task;
    reset_counts();
    require_int(rouse_spawn_on(runtime, &state.task, &counted_type, &joined), ==, ROUSE_OK);
    require_int(rouse_spawn_on(runtime, &task, &joining_type, &state), ==, ROUSE_OK);
    test_bell_ring(&bell);
    require_int(rouse_join(&task, NULL), ==, 6);
    require_counts(-1, 1, 0);
}

TEST(a_poll_task_joins_with_the_operation_and_is_refused_the_call)
{
    test_on_each_executor(join_from_a_task);
}

static void abort_who_joins(rouse_runtime *runtime, struct test_bell *bell)
{
    struct counted joined = {.bell = bell, .answer = 6};
    struct joining state = {.begun = false};
    rouse_task task;
    reset_counts();
    require_int(rouse_spawn_on(runtime, &state.task, &counted_type, &joined), ==, ROUSE_OK);
    require_int(rouse_spawn_on(runtime, &task, &joining_type, &state), ==, ROUSE_OK);
    rouse_abort(&task);
    require_int(rouse_join(&task, NULL), ==, ROUSE_CANCELLED);
    test_bell_ring(bell);
}

TEST(a_joiner_that_is_aborted_gives_its_handle_up_and_leaves_the_other_task_alone)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        struct test_bell bell = TEST_BELL_INIT;
        abort_who_joins(runtime, &bell);
        test_runtime_end(runtime);
        require_counts(-1, 1, 1);
    }
}

static int join_itself(void *argument)
{
    rouse_task *task = argument;
    while (task->cell == NULL) {
        rouse_yield();
    }
    return rouse_join(task, NULL);
}

TEST(a_fiber_that_joins_itself_is_refused)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    rouse_task task;
    assert_int_equal(rouse_spawn_fiber_at(&task, runtime, join_itself, &task, 0, 0, NULL, NULL), ROUSE_OK);
    while (!rouse_is_finished(&task)) {
        assert_true(rouse_runtime_turn(runtime, ROUSE_NEVER) >= 0);
    }
    assert_int_equal(rouse_join(&task, NULL), ROUSE_INVALID);
    test_runtime_end(runtime);
}

/* The waker slot of the join is written by the joiner and read by who completes: tokio#2087. */
struct race {
    rouse_task task;
    rouse_runtime *runtime;
};

static void join_in_thread(void *argument)
{
    struct race *race = argument;
    int result = 0;
    require_int(rouse_join(&race->task, &result), ==, 8);
    require_int(result, ==, 77);
}

TEST(a_join_may_meet_the_end_of_the_task_at_any_moment)
{
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    reset_counts();
    uint64_t count = test_scale(2000, 200000);
    for (uint64_t i = 0; i < count; i++) {
        int result = 0;
        struct counted state = {.answer = (int)(i & 1023)};
        require_int(rouse_block_on(runtime, &counted_type, &state, &result), ==, (int)(i & 1023));
        require_int(result, ==, 77);
    }
    for (uint64_t i = 0; i < count / 20 + 1; i++) {
        struct test_bell bell = TEST_BELL_INIT;
        struct race race = {.runtime = runtime};
        test_thread thread;
        struct counted state = {.bell = &bell, .answer = 8};
        require_int(rouse_spawn_on(runtime, &race.task, &counted_type, &state), ==, ROUSE_OK);
        test_thread_start(&thread, join_in_thread, &race);
        test_bell_ring(&bell);
        test_thread_join(&thread, TEST_SOON);
    }
    test_runtime_end(runtime);
    require_int(atomic_load(&result_drops), ==, 0);
    require_int(atomic_load(&drops), ==, (int)(count + count / 20 + 1));
}

TEST(aborting_may_meet_the_end_of_the_task_at_any_moment)
{
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    uint64_t count = test_scale(2000, 200000);
    reset_counts();
    for (uint64_t i = 0; i < count; i++) {
        struct test_bell bell = TEST_BELL_INIT;
        struct counted state = {.bell = &bell, .answer = 8};
        rouse_task task;
        require_int(rouse_spawn_on(runtime, &task, &counted_type, &state), ==, ROUSE_OK);
        if (i & 1) {
            test_bell_ring(&bell);
        }
        rouse_abort(&task);
        if (!(i & 1)) {
            test_bell_ring(&bell);
        }
        int status;
        test_call(status, rouse_join(&task, NULL));
        require(status == 8 || status == ROUSE_CANCELLED);
        test_bell_forget(&bell);
    }
    test_runtime_end(runtime);
    require_int(atomic_load(&drops), ==, (int)count);
}

/* ---- spawning from everywhere ---- */

static int spawn_three_generations(void *state, void *result, rouse_context *context);

static const rouse_task_type family_type = {
    .name = "family", .poll = spawn_three_generations, .drop = counted_drop, .state_size = sizeof(struct counted)};

static int spawn_three_generations(void *state, void *result, rouse_context *context)
{
    struct counted *counted = state;
    (void)result;
    (void)context;
    atomic_fetch_add(&polls, 1);
    for (int i = 0; counted->answer > 0 && i < 4; i++) {
        require_int(rouse_spawn(NULL, &family_type, &(struct counted){.answer = counted->answer - 1}), ==, ROUSE_OK);
    }
    return ROUSE_OK;
}

TEST(tasks_spawned_by_tasks_run_on_the_same_runtime)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        rouse_runtime_info info = {.size = sizeof info};
        reset_counts();
        require_int(rouse_block_on(runtime, &family_type, &(struct counted){.answer = 3}, NULL), ==, ROUSE_OK);
        while (kind == TEST_SINGLE && test_tasks_alive(runtime) > 0) {
            require_int(rouse_runtime_turn(runtime, ROUSE_NEVER), >=, 0);
        }
        test_await_no_tasks(runtime);
        require_int(rouse_runtime_stats(runtime, &info, NULL, 0), ==, ROUSE_OK);
        require_int(info.spawned, ==, 1 + 4 + 16 + 64);
        test_runtime_end(runtime);
        require_counts(85, 85, 0);
    }
}

/* A runtime without threads of its own is driven by whoever waits for one of its tasks, by whatever call. */
TEST(awaiting_a_join_drives_the_runtime_as_the_call_does)
{
    static const rouse_task_type zero = {.poll = answer_zero};
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    rouse_task task;
    rouse_op op;
    assert_int_equal(rouse_spawn_on(runtime, &task, &zero, NULL), ROUSE_OK);
    rouse_join_init(&op, &task, NULL);
    assert_int_equal(rouse_op_await(&op), ROUSE_OK);
    assert_null(task.cell);
    assert_int_equal(rouse_op_await(&op), ROUSE_INVALID); /* it is over */
    test_runtime_end(runtime);
}

static void names(rouse_runtime *runtime)
{
    const rouse_task_type nameless = {.poll = answer_zero};
    rouse_fiber_options options = ROUSE_FIBER_OPTIONS_INIT;
    rouse_task task;
    require_int(rouse_spawn_on(runtime, &task, &nameless, NULL), ==, ROUSE_OK);
    require(strcmp(rouse_task_name(&task), "task") == 0);
    require_int(rouse_join(&task, NULL), ==, ROUSE_OK);
    require_int(rouse_spawn_fiber_at(&task, runtime, join_itself, &task, 0, 0, NULL, NULL), ==, ROUSE_OK);
    require(strcmp(rouse_task_name(&task), "fiber") == 0);
    require_int(rouse_join(&task, NULL), ==, ROUSE_INVALID);
    options.name = "baker";
    require_int(rouse_spawn_fiber_at(&task, runtime, join_itself, &task, 0, 0, &options, NULL), ==, ROUSE_OK);
    require(strcmp(rouse_task_name(&task), "baker") == 0);
    require_int(rouse_join(&task, NULL), ==, ROUSE_INVALID);
}

TEST(tasks_have_names)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    names(runtime);
    test_runtime_end(runtime);
}

/* ---- the value ---- */

static int answer_its_state(void *state, void *result, rouse_context *context)
{
    (void)result;
    (void)context;
    return *(int *)state;
}

static void any_value(rouse_runtime *runtime)
{
    const rouse_task_type type = {.poll = answer_its_state, .state_size = sizeof(int)};
    static const int values[] = {0, 1, -1, 5, -2, INT32_MAX, INT32_MIN, -199};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        require_int(rouse_block_on(runtime, &type, &values[i], NULL), ==, values[i]);
    }
}

TEST(every_value_but_pending_is_handed_to_who_joins)
{
    test_on_each_executor(any_value);
}

/* A frame that lies in the state and is left open by a poll. */
struct unbalanced {
    rouse_deadline frame;
};

static int leave_open(void *state, void *result, rouse_context *context)
{
    struct unbalanced *unbalanced = state;
    (void)result;
    (void)context;
    require_int(rouse_deadline_enter(&unbalanced->frame, rouse_after(ROUSE_S(100))), ==, ROUSE_OK);
    return 3;
}

static void drop_unbalanced(void *state)
{
    rouse_deadline_cancel(&((struct unbalanced *)state)->frame);
}

static void unbalanced(rouse_runtime *runtime)
{
    const rouse_task_type type = {.poll = leave_open, .drop = drop_unbalanced, .state_size = sizeof(struct unbalanced)};
    require_int(rouse_block_on(runtime, &type, NULL, NULL), ==, ROUSE_UNBALANCED);
    require_int(rouse_block_on(runtime, &type, NULL, NULL), ==, ROUSE_UNBALANCED);
}

TEST(a_poll_that_leaves_a_deadline_open_ends_its_task_as_unbalanced)
{
    test_on_each_executor(unbalanced);
}

/* ---- a wait that a fiber gives up ---- */

struct lent {
    int value; /* in the frame of whoever waits */
    int64_t until_ns;
};

static int write_late(void *state, void *result, rouse_context *context)
{
    struct lent *lent = *(struct lent **)state;
    (void)result;
    (void)context;
    while (rouse_now() < lent->until_ns) {}
    lent->value = 42;
    return ROUSE_OK;
}

static const rouse_task_type late_type = {.name = "late", .poll = write_late, .state_size = sizeof(struct lent *)};

static int give_up_waiting(void *elsewhere)
{
    struct lent lent = {7, rouse_after(ROUSE_MS(40))}, *state = &lent;
    rouse_deadline deadline;
    require_int(rouse_deadline_enter(&deadline, rouse_after(ROUSE_MS(5))), ==, ROUSE_OK);
    /* If the task has begun it is waited for, else it never does. */
    require_int(rouse_block_on(elsewhere, &late_type, &state, NULL), ==, ROUSE_TIMED_OUT);
    int value = lent.value;
    require_int(value == 42 ? rouse_now() >= lent.until_ns : value == 7, ==, 1);
    require_int(rouse_deadline_leave(&deadline), ==, ROUSE_OK);
    require_int(rouse_sleep(ROUSE_MS(60)), ==, ROUSE_OK);
    require_int(lent.value, ==, value);
    return value;
}

TEST(a_task_that_a_fiber_gave_up_waiting_for_has_ended_when_block_on_returns)
{
    rouse_runtime *elsewhere = test_runtime_new(TEST_STEALING, 1);
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        int value = test_fiber(runtime, give_up_waiting, elsewhere);
        require(value == 42 || value == 7);
        test_runtime_end(runtime);
    }
    test_runtime_end(elsewhere);
}
