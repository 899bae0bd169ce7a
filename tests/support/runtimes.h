/* Runtimes of each kind, and things that tests of tasks and fibers wait for. */
#ifndef TEST_SUPPORT_RUNTIMES_H
#define TEST_SUPPORT_RUNTIMES_H

#include <rouse/rouse.h>

#include "support/harness.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

/* ---- runtimes ---- */

enum test_executor { TEST_SINGLE, TEST_ROUND_ROBIN, TEST_STEALING, TEST_EXECUTORS };

static inline rouse_options test_options(enum test_executor kind, unsigned workers)
{
    rouse_options options = ROUSE_OPTIONS_INIT;
    options.executor = kind == TEST_SINGLE ? ROUSE_EXECUTOR_SINGLE : ROUSE_EXECUTOR_MULTI;
    options.scheduler = kind == TEST_ROUND_ROBIN ? ROUSE_SCHEDULER_ROUND_ROBIN : ROUSE_SCHEDULER_WORK_STEALING;
    options.workers = kind == TEST_SINGLE ? 1 : workers;
    return options;
}

static inline void test_no_leftover(void *context, const rouse_leftover *leftover)
{
    (void)context;
    fprintf(stderr, "left: %s %s %s\n", leftover->kind, leftover->name, leftover->site ? leftover->site : "-");
    test_require_failed("nothing is left", __FILE__, __LINE__);
}

/* Ends a runtime that must have nothing left. */
static inline void test_runtime_end(rouse_runtime *runtime)
{
    require_int(rouse_runtime_shutdown(runtime, ROUSE_S(10), test_no_leftover, NULL), ==, ROUSE_OK);
}

/* A runtime with as many workers as the options say. Where one cannot be started, there are fewer: such a runtime works,
 * but is not what the test is about. */
static inline rouse_runtime *test_runtime_make(const rouse_options *options)
{
    rouse_runtime_info info = {.size = sizeof info};
    rouse_runtime *runtime = NULL;
    require_int(rouse_runtime_new(&runtime, options), ==, ROUSE_OK);
    require_int(rouse_runtime_stats(runtime, &info, NULL, 0), ==, ROUSE_OK);
    if (info.workers < options->workers && test_may_repeat(ROUSE_NO_MEMORY)) {
        test_runtime_end(runtime);
        require_int(rouse_runtime_new(&runtime, options), ==, ROUSE_OK);
    }
    return runtime;
}

static inline rouse_runtime *test_runtime_new(enum test_executor kind, unsigned workers)
{
    rouse_options options = test_options(kind, workers);
    return test_runtime_make(&options);
}

/* Runs a body on a runtime of each kind, with two workers where it has workers of its own. */
static inline void test_on_each_executor(void (*body)(rouse_runtime *runtime))
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_runtime *runtime = test_runtime_new((enum test_executor)kind, 2);
        body(runtime);
        test_runtime_end(runtime);
    }
}

/* Runs a fiber from this plain thread and answers what it returned. */
static inline int test_fiber(rouse_runtime *runtime, rouse_fiber_function *function, void *argument)
{
    rouse_task task;
    require_int(rouse_spawn_fiber_at(&task, runtime, function, argument, 0, 0, NULL, ROUSE_HERE), ==, ROUSE_OK);
    int value = rouse_join(&task, NULL);
    if (task.cell != NULL && test_may_repeat(value)) { /* the wait failed, not the fiber */
        value = rouse_join(&task, NULL);
    }
    return value;
}

static inline size_t test_tasks_alive(rouse_runtime *runtime)
{
    rouse_runtime_info info = {.size = sizeof info};
    require_int(rouse_runtime_stats(runtime, &info, NULL, 0), ==, ROUSE_OK);
    return info.tasks;
}

/* Waits until no task is counted any more. A join answers a little before: the worker still has to leave the task, and
 * nobody announces that it has. */
static inline void test_await_no_tasks(rouse_runtime *runtime)
{
    eventually(test_tasks_alive(runtime) == 0, ROUSE_S(test_is_slow() ? 60 : 10));
}

/* ---- threads that wait for tasks ---- */

static inline void test_post(sem_t *semaphore)
{
    require(sem_post(semaphore) == 0);
}

/* Ends the process if nobody posts within ten seconds, or more under slow tools. */
static inline void test_await(sem_t *semaphore)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += test_is_slow() ? 60 : 10;
    int status;
    while ((status = sem_timedwait(semaphore, &end)) != 0 && errno == EINTR) {}
    require(status == 0 && "posted in time");
}

/* ---- tasks that wait for threads and for each other ---- */

/* Rung once; one task at a time waits for it. */
struct test_bell {
    pthread_mutex_t lock;
    bool rung;
    rouse_waker waiter;
};
#define TEST_BELL_INIT                    \
    {                                     \
        PTHREAD_MUTEX_INITIALIZER, false, \
        {                                 \
            NULL, NULL                    \
        }                                 \
    }

static inline int test_bell_poll(struct test_bell *bell, rouse_context *context)
{
    rouse_waker old = {NULL, NULL};
    pthread_mutex_lock(&bell->lock);
    bool rung = bell->rung;
    if (!rung) {
        old = bell->waiter;
        bell->waiter = rouse_waker_clone(&context->waker);
    }
    pthread_mutex_unlock(&bell->lock);
    rouse_waker_drop(&old);
    return rung ? ROUSE_OK : ROUSE_PENDING;
}

static inline void test_bell_ring(struct test_bell *bell)
{
    pthread_mutex_lock(&bell->lock);
    rouse_waker waiter = bell->waiter;
    bell->waiter = (rouse_waker){NULL, NULL};
    bell->rung = true;
    pthread_mutex_unlock(&bell->lock);
    rouse_waker_wake(&waiter);
}

/* Drops the waker that a waiter has left behind. */
static inline void test_bell_forget(struct test_bell *bell)
{
    pthread_mutex_lock(&bell->lock);
    rouse_waker waiter = bell->waiter;
    bell->waiter = (rouse_waker){NULL, NULL};
    pthread_mutex_unlock(&bell->lock);
    rouse_waker_drop(&waiter);
}

static inline int test_bell_task_poll(void *state, void *result, rouse_context *context)
{
    (void)result;
    return test_bell_poll(*(struct test_bell **)state, context);
}

static const rouse_task_type test_bell_task = {
    .name = "bell", .poll = test_bell_task_poll, .state_size = sizeof(struct test_bell *)};

/* Waits in a fiber. */
static inline int test_bell_wait(struct test_bell *bell)
{
    return rouse_block_on(NULL, &test_bell_task, &bell, NULL);
}

/* Uses the processor for a span of time. */
static inline void test_burn(int64_t span_ns)
{
    int64_t end = test_now_ns() + span_ns;
    while (test_now_ns() < end) {}
}

#endif
