/* Fibers: arguments and results, threads and errno, stacks, and what happens when there are none. */
#include "support/faults.h"
#include "support/runtimes.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- arguments, results, values ---- */

struct copied {
    size_t bytes, result_bytes;
    unsigned char first;
};

static int check_copy(void *argument)
{
    struct copied head;
    const unsigned char *bytes = argument;
    unsigned char *result = rouse_result();
    memcpy(&head, argument, sizeof head);
    require(((uintptr_t)argument & 15) == 0);
    for (int wait = 0; wait < 2; wait++) {
        for (size_t i = sizeof head; i < head.bytes; i++) {
            require(bytes[i] == (unsigned char)(head.first + i));
        }
        require((result == NULL) == (head.result_bytes == 0));
        require(rouse_result() == result);
        for (size_t i = 0; i < head.result_bytes; i++) {
            require(result[i] == (wait ? (unsigned char)(head.first ^ i) : 0));
            result[i] = (unsigned char)(head.first ^ i);
        }
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    return head.first;
}

static void copy_sizes(rouse_runtime *runtime)
{
    static const size_t sizes[] = {sizeof(struct copied), 40, 4096, 100000}, results[] = {0, 1, 8, 5000};
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < 4; k++) {
            struct copied head = {sizes[i], results[k], (unsigned char)(3 + 7 * i + k)};
            unsigned char *bytes = test_memory(sizes[i]), *result = test_memory(results[k] + 1);
            rouse_task task;
            for (size_t n = 0; n < sizes[i]; n++) {
                bytes[n] = (unsigned char)(head.first + n);
            }
            memcpy(bytes, &head, sizeof head);
            result[results[k]] = 0xee;
            require_int(rouse_spawn_fiber_at(&task, runtime, check_copy, bytes, sizes[i], results[k], NULL, NULL), ==,
                        ROUSE_OK);
            memset(bytes, 0xdd, sizes[i]);
            free(bytes);
            require_int(rouse_join(&task, result), ==, head.first);
            for (size_t n = 0; n < results[k]; n++) {
                require(result[n] == (unsigned char)(head.first ^ n));
            }
            require(result[results[k]] == 0xee);
            free(result);
        }
    }
}

TEST(arguments_are_copied_in_and_results_moved_out)
{
    test_on_each_executor(copy_sizes);
}

static int answer_argument(void *argument)
{
    require_int(rouse_in_fiber(), ==, 1);
    require(rouse_result() == NULL);
    return *(int *)argument;
}

static void answer_values(rouse_runtime *runtime)
{
    static const int values[] = {0, 1, -1, 5, -2, 126, INT_MAX, INT_MIN, INT_MIN + 2};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        int value = values[i];
        require_int(test_fiber(runtime, answer_argument, &value), ==, value);
    }
    int pending = ROUSE_PENDING; /* the one that means something else */
    require_int(test_fiber(runtime, answer_argument, &pending), ==, ROUSE_INVALID);
}

TEST(values_are_handed_on_untouched)
{
    test_on_each_executor(answer_values);
}

TEST(a_fiber_that_makes_no_sense_is_refused_and_leaves_an_empty_handle)
{
    rouse_runtime *runtime = test_runtime_new(TEST_SINGLE, 1);
    rouse_fiber_options no_size = ROUSE_FIBER_OPTIONS_INIT, odd_flag = ROUSE_FIBER_OPTIONS_INIT,
                        huge = ROUSE_FIBER_OPTIONS_INIT;
    int value = 1;
    no_size.size = 0;
    odd_flag.flags = 64;
    huge.stack_bytes = SIZE_MAX - 100;
    const struct {
        rouse_fiber_function *function;
        void *argument;
        size_t bytes, result_bytes;
        const rouse_fiber_options *options;
        int status;
    } cases[] = {{NULL, &value, 0, 0, NULL, ROUSE_INVALID},
                 {answer_argument, NULL, 4, 0, NULL, ROUSE_INVALID},
                 {answer_argument, &value, 4, 0, &no_size, ROUSE_INVALID},
                 {answer_argument, &value, 4, 0, &odd_flag, ROUSE_INVALID},
                 {answer_argument, &value, 4, 0, &huge, ROUSE_TOO_LARGE},
                 {answer_argument, &value, SIZE_MAX, 0, NULL, ROUSE_TOO_LARGE},
                 {answer_argument, &value, 4, SIZE_MAX, NULL, ROUSE_TOO_LARGE}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rouse_task task = {&task};
        assert_int_equal(rouse_spawn_fiber_at(&task, runtime, cases[i].function, cases[i].argument, cases[i].bytes,
                                              cases[i].result_bytes, cases[i].options, NULL),
                         cases[i].status);
        assert_null(task.cell);
    }
    assert_null(rouse_result());
    assert_int_equal(rouse_in_fiber(), 0);
    test_runtime_end(runtime);
}

/* ---- threads ---- */

/* Compilers may take a thread's identity for constant within a function. */
static pthread_t (*volatile self)(void) = pthread_self;

static int stay_on_thread(void *argument)
{
    pthread_t first = self();
    unsigned seed = (unsigned)(uintptr_t)argument;
    for (int i = 0; i < 30; i++) {
        require_int(i % 3 ? rouse_yield() : rouse_sleep(ROUSE_US(1 + seed % 50)), ==, ROUSE_OK);
        require(pthread_equal(first, self()));
        seed = seed * 1103515245u + 12345u;
        test_burn(seed % 4000);
    }
    return 0;
}

static int start_many(void *argument)
{
    rouse_scope scope;
    (void)argument;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (uintptr_t i = 0; i < test_scale(100, 2000); i++) {
        require_int(rouse_go(stay_on_thread, (void *)(i * 7919)), ==, ROUSE_OK);
    }
    return rouse_scope_close(&scope);
}

TEST(a_fiber_stays_on_the_thread_of_its_first_run)
{
    for (unsigned workers = 2; workers <= 4; workers += 2) {
        rouse_runtime *runtime = test_runtime_new(TEST_STEALING, workers);
        assert_int_equal(test_fiber(runtime, start_many, NULL), 0);
        test_runtime_end(runtime);
    }
}

struct errors {
    uint64_t rounds;
    atomic_int running;
};

static int read_errno_after_waits(void *argument)
{
    struct errors *errors = argument;
    atomic_fetch_add(&errors->running, 1);
    for (uint64_t i = 0; i < errors->rounds; i++) {
        errno = 0;
        require_int(i % 64 ? rouse_yield() : rouse_sleep(1), ==, ROUSE_OK);
        errno = 0;
        if (fcntl(-1, F_GETFD) == -1) {
            require_int(errno, ==, EBADF);
        }
        int *place = &errno;
        require_int(*place, ==, EBADF);
    }
    return 0;
}

static int read_errno_in_many(void *argument)
{
    rouse_scope scope;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (int i = 0; i < 10; i++) {
        require_int(rouse_go(read_errno_after_waits, argument), ==, ROUSE_OK);
    }
    return rouse_scope_close(&scope);
}

TEST(errno_is_that_of_the_thread_after_each_of_many_waits)
{
    struct errors errors = {.rounds = test_scale(10000, 100000)};
    rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 3);
    assert_int_equal(test_fiber(runtime, read_errno_in_many, &errors), 0);
    assert_int_equal(atomic_load(&errors.running), 10);
    test_runtime_end(runtime);
}

/* Keeps the worker that polls it. */
struct keeper {
    sem_t started, go;
    pthread_t thread;
};

static int keep_worker(void *state, void *result, rouse_context *context)
{
    struct keeper *keeper = *(struct keeper **)state;
    (void)result;
    (void)context;
    keeper->thread = self();
    test_post(&keeper->started);
    test_await(&keeper->go);
    return ROUSE_OK;
}

static const rouse_task_type keeper_type = {
    .name = "keeper", .poll = keep_worker, .state_size = sizeof(struct keeper *)};

struct migrant {
    sem_t posted;
    rouse_waker waker;
    pthread_t first, second;
};

/* Parks once, and leaves its waker: an operation of its own would need its own thread. */
struct park {
    struct migrant *migrant;
    bool parked;
};

static ptrdiff_t read_once(void *object, void *data, size_t length, rouse_context *context)
{
    struct park *park = object;
    (void)data;
    (void)length;
    if (park->parked) {
        return 1;
    }
    park->parked = true;
    park->migrant->waker = rouse_waker_clone(&context->waker);
    test_post(&park->migrant->posted);
    return ROUSE_PENDING;
}

static ptrdiff_t write_once(void *object, const void *data, size_t length, rouse_context *context)
{
    (void)object;
    (void)data;
    (void)context;
    return (ptrdiff_t)length;
}

static const rouse_stream_type park_type = {"park", read_once, write_once, NULL, NULL, {NULL}};

static int migrate(void *argument)
{
    struct migrant *migrant = argument;
    struct park park = {migrant, false};
    rouse_stream *stream;
    char byte;
    require_int(rouse_stream_new(&stream, &park_type, &park), ==, ROUSE_OK);
    migrant->first = self();
    require_int(rouse_read(stream, &byte, 1), ==, 1);
    migrant->second = self();
    require_int(rouse_close(stream), ==, ROUSE_OK);
    test_post(&migrant->posted);
    return 0;
}

static void keep(rouse_runtime *runtime, struct keeper *keeper)
{
    require_int(rouse_spawn_on(runtime, NULL, &keeper_type, &keeper), ==, ROUSE_OK);
    test_await(&keeper->started);
}

TEST(a_fiber_that_migrates_goes_on_elsewhere_while_its_first_thread_is_kept)
{
    rouse_fiber_options options = ROUSE_FIBER_OPTIONS_INIT;
    options.flags = ROUSE_FIBER_MIGRATES;
    for (uint64_t round = 0; round < test_scale(20, 500); round++) {
        rouse_runtime *runtime = test_runtime_new(TEST_STEALING, 2);
        struct migrant migrant;
        struct keeper keepers[2];
        int there = 0;
        require(sem_init(&migrant.posted, 0, 0) == 0);
        for (int i = 0; i < 2; i++) {
            require(sem_init(&keepers[i].started, 0, 0) == 0 && sem_init(&keepers[i].go, 0, 0) == 0);
        }
        require_int(rouse_go_detached_at(runtime, migrate, &migrant, &options, NULL), ==, ROUSE_OK);
        test_await(&migrant.posted);
        keep(runtime, &keepers[0]);
        if (!pthread_equal(keepers[0].thread, migrant.first)) { /* then the other one is free still */
            keep(runtime, &keepers[1]);
            test_post(&keepers[0].go);
            there = 1;
        }
        require(pthread_equal(keepers[there].thread, migrant.first));
        rouse_waker_wake(&migrant.waker);
        test_await(&migrant.posted);
        require(!pthread_equal(migrant.first, migrant.second));
        test_post(&keepers[there].go);
        test_runtime_end(runtime);
        for (int i = 0; i < 2; i++) {
            sem_destroy(&keepers[i].started);
            sem_destroy(&keepers[i].go);
        }
        sem_destroy(&migrant.posted);
    }
}

/* ---- stacks ---- */

/* Frames of about a hundred bytes down to a depth, waiting at the bottom; then all must be as they were. */
static int go_down(uintptr_t top, size_t bytes, unsigned number)
{
    volatile unsigned char piece[64];
    for (size_t i = 0; i < sizeof piece; i++) {
        piece[i] = (unsigned char)(number + i);
    }
    int waits = 0;
    if (top - (uintptr_t)__builtin_frame_address(0) < bytes) {
        waits = go_down(top, bytes, number + 1);
    } else {
        require_int(rouse_yield(), ==, ROUSE_OK);
        require_int(rouse_sleep(1), ==, ROUSE_OK);
        waits = 2;
    }
    for (size_t i = 0; i < sizeof piece; i++) {
        require(piece[i] == (unsigned char)(number + i));
    }
    return waits;
}

static int use_stack(void *argument)
{
    return go_down((uintptr_t)__builtin_frame_address(0), *(size_t *)argument, 0);
}

/* What a fiber's first frames, the wait at the bottom and a tool's frames need. */
static size_t reserve(void)
{
    return test_is_sanitized() ? 32 * 1024 : 6 * 1024;
}

static void use_stacks(size_t given, bool by_fiber)
{
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_options options = test_options((enum test_executor)kind, 2);
        rouse_fiber_options fiber_options = ROUSE_FIBER_OPTIONS_INIT;
        rouse_runtime *runtime;
        size_t used = (given ? given : 64 * 1024) - reserve();
        rouse_task tasks[8];
        if (by_fiber) {
            fiber_options.stack_bytes = given;
        } else {
            options.stack_bytes = given;
        }
        require_int(rouse_runtime_new(&runtime, &options), ==, ROUSE_OK);
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < 8; i++) {
                require_int(rouse_spawn_fiber_at(&tasks[i], runtime, use_stack, &used, 0, 0, &fiber_options, NULL), ==,
                            ROUSE_OK);
            }
            for (int i = 0; i < 8; i++) {
                require_int(rouse_join(&tasks[i], NULL), ==, 2);
            }
        }
        test_runtime_end(runtime);
    }
}

TEST(a_fiber_may_use_its_stack_down_to_the_size_that_was_asked_for)
{
    use_stacks(0, false);
    use_stacks(40 * 1024, false);
    use_stacks(1024 * 1024, false);
    use_stacks(48 * 1024 + 1, true);
    use_stacks(256 * 1024, true);
}

static int use_too_much(void *argument)
{
    size_t bytes = 100 * 1024;
    (void)argument;
    return use_stack(&bytes);
}

static int overflow_in_child(bool report)
{
    rouse_options options = test_options(TEST_STEALING, 1);
    int status = -1;
    options.report_overflow = report;
    fflush(NULL);
    pid_t child = fork();
    require(child >= 0);
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        int null = open("/dev/null", O_WRONLY);
        require(null >= 0 && dup2(null, STDERR_FILENO) == STDERR_FILENO);
        require_int(rouse_run(use_too_much, NULL, &options), ==, 0); /* it does not return */
        _exit(0);
    }
    require(waitpid(child, &status, 0) == child);
    return status;
}

TEST(an_overflow_ends_the_process_with_and_without_a_report)
{
    test_needs("fork");
    for (int report = 0; report < 2; report++) {
        int status = overflow_in_child(report);
        assert_true(WIFSIGNALED(status) || (test_is_sanitized() && WEXITSTATUS(status) != 0));
        if (!test_is_slow()) {
            assert_int_equal(WTERMSIG(status), SIGSEGV);
        }
    }
}

static atomic_int awake;

static int wait_in_crowd(void *argument)
{
    int before = 1;
    atomic_fetch_add(&awake, before);
    require_int(rouse_sleep(ROUSE_NEVER), ==, ROUSE_CANCELLED);
    atomic_fetch_sub(&awake, before);
    (void)argument;
    return 0;
}

static int hold_crowd(void *argument)
{
    int count = *(int *)argument;
    rouse_scope scope;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    for (int i = 0; i < count; i++) {
        require_int(rouse_go(wait_in_crowd, NULL), ==, ROUSE_OK);
    }
    while (atomic_load(&awake) < count) {
        require_int(rouse_yield(), ==, ROUSE_OK);
    }
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    return atomic_load(&awake);
}

TEST(ten_thousand_fibers_wait_at_once)
{
    int count = test_is_slow() ? 500 : 10000;
    for (int kind = 0; kind < TEST_EXECUTORS; kind++) {
        rouse_options options = test_options((enum test_executor)kind, 2);
        require_int(rouse_run(hold_crowd, &count, &options), ==, 0);
    }
}

/* ---- no stacks ---- */

/* Every way to start one fails alike, and the argument stays the caller's. Answers why. */
static int refuse_each_way(const char *call, const char *other)
{
    int value = 5;
    rouse_fiber_options options = ROUSE_FIBER_OPTIONS_INIT;
    rouse_task task = {&task};
    options.stack_bytes = 300 * 1024; /* none of these was ever made */
    faults_syscall(call, 1, ENOMEM, FAULTS_ALWAYS);
    faults_syscall(other, 1, ENOMEM, FAULTS_ALWAYS);
    int status = rouse_go_with(answer_argument, &value, &options);
    require_int(rouse_go_detached_at(NULL, answer_argument, &value, &options, NULL), ==, status);
    require_int(rouse_spawn_fiber_at(&task, NULL, answer_argument, &value, sizeof value, 8, &options, NULL), ==,
                status);
    require(task.cell == NULL);
    faults_syscall(call, 1, 0, 0);
    faults_syscall(other, 1, 0, 0);
    return status;
}

static int refuse_and_recover(void *argument)
{
    rouse_fiber_options options = ROUSE_FIBER_OPTIONS_INIT;
    rouse_scope scope;
    rouse_task task;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    if (FAULTS_AVAILABLE) {
        require_int(refuse_each_way("mmap", "mmap"), ==, ROUSE_NO_MEMORY);
        /* Guards that cut mappings are limited in number, others by memory. */
        int status = refuse_each_way("madvise", "mprotect");
        require(status == ROUSE_LIMIT || status == ROUSE_NO_MEMORY);
    }
    options.stack_bytes = 300 * 1024;
    require_int(rouse_spawn_fiber_at(&task, NULL, answer_argument, argument, 0, 0, &options, NULL), ==, ROUSE_OK);
    require_int(rouse_join(&task, NULL), ==, 3);
    return rouse_scope_close(&scope);
}

static void refuse_stacks(rouse_runtime *runtime)
{
    int value = 3;
    require_int(test_fiber(runtime, refuse_and_recover, &value), ==, 0);
}

TEST(without_memory_or_guards_for_its_stack_a_fiber_is_refused)
{
    test_on_each_executor(refuse_stacks);
}

static int start_until_refused(void *argument)
{
    int status = ROUSE_OK, count = 0;
    rouse_scope scope;
    rouse_fiber_options options = ROUSE_FIBER_OPTIONS_INIT;
    (void)argument;
    options.stack_bytes = 1024 * 1024;
    require_int(rouse_scope_open(&scope), ==, ROUSE_OK);
    while (count < 10000 && (status == ROUSE_OK || (count < 10 && test_may_repeat(status)))) {
        status = rouse_go_with(wait_in_crowd, NULL, &options);
        count += status == ROUSE_OK;
    }
    require(status == ROUSE_NO_MEMORY || status == ROUSE_LIMIT);
    require_int(count, >, 10);
    require_int(rouse_scope_cancel(&scope, 0), ==, ROUSE_OK);
    require_int(rouse_scope_close(&scope), ==, ROUSE_OK);
    return 0;
}

#if !defined(RLIMIT_AS) /* OpenBSD, whose other limit covers mappings as well */
#define RLIMIT_AS RLIMIT_DATA
#endif

static void run_in_little_space(void *argument)
{
    rouse_options options = test_options(TEST_STEALING, 2);
    struct rlimit space = {512u << 20, 512u << 20};
    (void)argument;
    require(setrlimit(RLIMIT_AS, &space) == 0);
    require_int(rouse_run(start_until_refused, NULL, &options), ==, 0);
}

TEST(when_the_address_space_is_used_up_fibers_are_refused_and_the_others_go_on)
{
    test_needs("fork");
    if (test_is_slow()) {
        return; /* tools need more than there is */
    }
    assert_int_equal(test_in_child(run_in_little_space, NULL, ROUSE_S(10)), 0);
}
