/* What a forked child may do with its parent's runtime: give it up, and nothing else. */
#include "support/faults.h"
#include "support/runtimes.h"

#include <sys/wait.h>
#include <unistd.h>

#if defined(__unix__)

/* ThreadSanitizer ends a forked child that starts threads. */
#define FORK_THREADS (!FAULTS_THREAD_SANITIZER)

struct family {
    rouse_runtime *runtime;
    rouse_task waiting, finished;
    rouse_stream *stream;
};

static int answer_three(void *state, void *result, rouse_context *context)
{
    (void)state;
    (void)result;
    (void)context;
    return 3;
}

static const rouse_task_type three = {.poll = answer_three};

static int nothing(void *argument)
{
    (void)argument;
    return 0;
}

static void try_everything(void *argument)
{
    struct family *family = argument;
    rouse_runtime *runtime = family->runtime;
    rouse_runtime_info info = {.size = sizeof info};
    rouse_task task;
    intptr_t descriptor;
    require_int(rouse_spawn_on(runtime, NULL, &three, NULL), ==, ROUSE_FORKED);
    require_int(rouse_spawn_on(runtime, &task, &three, NULL), ==, ROUSE_FORKED);
    require_int(rouse_block_on(runtime, &three, NULL, NULL), ==, ROUSE_FORKED);
    require_int(rouse_spawn_fiber_at(&task, runtime, nothing, NULL, 0, 0, NULL, NULL), ==, ROUSE_FORKED);
    require_int(rouse_go_detached_at(runtime, nothing, NULL, NULL, NULL), ==, ROUSE_FORKED);
    require_int(rouse_runtime_shutdown(runtime, 0, NULL, NULL), ==, ROUSE_FORKED);
    require_int(rouse_runtime_stats(runtime, &info, NULL, 0), ==, ROUSE_FORKED);
    require_int(rouse_join(&family->waiting, NULL), ==, ROUSE_FORKED);
    require(family->waiting.cell != NULL);
    require_int(rouse_join(&family->finished, NULL), ==, 3);
    int turned = rouse_runtime_turn(runtime, 0), told = rouse_runtime_descriptor(runtime, &descriptor);
    require(turned == ROUSE_FORKED || turned == ROUSE_INVALID);
    require(told == ROUSE_FORKED || told == ROUSE_INVALID);
    rouse_runtime_abandon(runtime);
    require_int(rouse_spawn_on(runtime, NULL, &three, NULL), ==, ROUSE_FORKED);
    require_int(rouse_runtime_shutdown(runtime, 0, NULL, NULL), ==, ROUSE_FORKED);
    rouse_runtime_abandon(runtime);
    /* A runtime of the child's own works. */
    runtime = test_runtime_new(FORK_THREADS ? TEST_STEALING : TEST_SINGLE, 2);
    require_int(rouse_block_on(runtime, &three, NULL, NULL), ==, 3);
    test_runtime_end(runtime);
}

static int in_child(void (*body)(void *argument), void *argument)
{
    int verdict[2], status = -1;
    char done = 0;
    require(pipe(verdict) == 0);
    fflush(NULL);
    pid_t child = fork();
    require(child >= 0);
    if (child == 0) {
        test_time_limit(test_is_slow() ? 60 : 10);
        body(argument);
        require(write(verdict[1], "d", 1) == 1);
        _exit(0); /* what the parent's runtime had taken is not to be counted */
    }
    require(waitpid(child, &status, 0) == child);
    require(close(verdict[1]) == 0);
    /* Under valgrind the exit status tells of what belongs to the parent, too. */
    bool finished = read(verdict[0], &done, 1) == 1;
    require(close(verdict[0]) == 0);
    return finished && (status == 0 || test_is_valgrind()) ? 0 : -1;
}

TEST(in_a_forked_child_every_call_on_the_parents_runtime_says_so)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        struct test_bell bell = TEST_BELL_INIT, *state = &bell;
        struct family family = {.runtime = test_runtime_new((enum test_executor)kind, 2)};
        assert_int_equal(rouse_spawn_on(family.runtime, &family.waiting, &test_bell_task, &state), ROUSE_OK);
        assert_int_equal(rouse_spawn_on(family.runtime, &family.finished, &three, NULL), ROUSE_OK);
        while (!rouse_is_finished(&family.finished)) {
            require_int(rouse_block_on(family.runtime, &three, NULL, NULL), ==, 3);
        }
        assert_int_equal(in_child(try_everything, &family), 0);
        /* The parent goes on as if nothing had happened. */
        assert_int_equal(rouse_block_on(family.runtime, &three, NULL, NULL), 3);
        test_bell_ring(&bell);
        assert_int_equal(rouse_join(&family.waiting, NULL), ROUSE_OK);
        assert_int_equal(rouse_join(&family.finished, NULL), 3);
        test_runtime_end(family.runtime);
    }
}

static void use_default_in_child(void *argument)
{
    rouse_task task;
    (void)argument;
    require_int(rouse_spawn(&task, &three, NULL), ==, ROUSE_FORKED);
    require_int(rouse_block_on(NULL, &three, NULL, NULL), ==, ROUSE_FORKED);
    require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_FORKED);
    require_int(rouse_default_shutdown(0), ==, ROUSE_OK);
    if (FORK_THREADS) {
        require_int(rouse_block_on(NULL, &three, NULL, NULL), ==, 3);
        require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
        require_int(rouse_default_shutdown(ROUSE_S(10)), ==, ROUSE_OK);
    }
}

TEST(a_forked_child_gives_the_default_runtime_up_and_gets_its_own)
{
    assert_int_equal(rouse_block_on(NULL, &three, NULL, NULL), 3);
    assert_int_equal(in_child(use_default_in_child, NULL), 0);
    assert_int_equal(rouse_block_on(NULL, &three, NULL, NULL), 3);
    assert_int_equal(rouse_sleep(ROUSE_MS(1)), ROUSE_OK);
    assert_int_equal(rouse_default_shutdown(ROUSE_S(10)), ROUSE_OK);
}

static void wait_in_child(void *argument)
{
    rouse_task task;
    require_int(rouse_yield(), ==, ROUSE_FORKED);
    require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_FORKED);
    require_int(rouse_go(nothing, NULL), ==, ROUSE_FORKED);
    require_int(rouse_spawn(&task, &three, NULL), ==, ROUSE_FORKED);
    require_int(rouse_block_on(NULL, &three, NULL, NULL), ==, ROUSE_FORKED);
    require_int(rouse_runtime_shutdown(argument, 0, NULL, NULL), ==, ROUSE_FORKED);
}

static int fork_in_fiber(void *argument)
{
    require_int(in_child(wait_in_child, argument), ==, 0);
    require_int(rouse_sleep(ROUSE_MS(1)), ==, ROUSE_OK);
    return 4;
}

static int fork_in_scope(void *argument)
{
    rouse_scope scope;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    int value = fork_in_fiber(argument);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    return value;
}

static void fork_in_task(rouse_runtime *runtime)
{
    require_int(test_fiber(runtime, fork_in_scope, runtime), ==, 4);
}

TEST(a_child_forked_by_a_fiber_is_refused_every_wait)
{
    test_on_each_executor(fork_in_task);
}

TEST(abandoning_in_the_parent_does_nothing)
{
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
    rouse_runtime_abandon(runtime);
    rouse_runtime_abandon(NULL);
    assert_int_equal(rouse_block_on(runtime, &three, NULL, NULL), 3);
    test_runtime_end(runtime);
}

#endif
