/* Clock, random numbers, processors, threads, sleeping on a word, forks. */
#include "os/os.h"

#include "support/faults.h"
#include "support/harness.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/os_posix.h"

#if defined(__linux__)
#include <sched.h>
#endif

TEST_FILE_NEEDS(system_layer)

/* ---- clock ---- */

TEST(the_clock_never_goes_back)
{
    int64_t last = os_now();
    assert_true(last > 0);
    for (int i = 0; i < 100000; i++) {
        int64_t now = os_now();
        assert_true(now >= last);
        last = now;
    }
}

TEST(the_clock_never_goes_back_when_that_of_the_system_does)
{
    test_needs("faults");
    static const int64_t steps[] = {-1, -ROUSE_S(1), ROUSE_S(3600), -ROUSE_S(3600), -999999, -1000000, -1000001};
    uint64_t state = 1;
    int64_t last = os_now();
    for (int i = 0; i < 20000; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        if (i % 4 == 0)
            faults_clock_step(steps[(state >> 33) % (sizeof steps / sizeof steps[0])]);
        int64_t now = os_now();
        assert_true(now >= last);
        last = now;
    }
}

TEST(the_clock_goes_on_after_a_large_step_back)
{
    test_needs("faults");
    int64_t before = os_now();
    faults_clock_step(-ROUSE_S(3600));
    assert_true(os_now() - before < ROUSE_S(10));
    int64_t start = os_now();
    int64_t real = test_now_ns();
    while (test_now_ns() - real < ROUSE_MS(20))
        assert_true(os_now() >= start);
    assert_true(os_now() - start >= ROUSE_MS(19));
}

TEST(the_clock_does_not_run_ahead_of_small_steps_back)
{
    test_needs("faults");
    int64_t real = test_now_ns(), start = os_now(); /* in this order: time may pass in between */
    for (int i = 0; i < 1000; i++) {
        faults_clock_step(-100000);
        (void)os_now();
        faults_clock_step(100000);
        (void)os_now();
    }
    int64_t passed = os_now() - start;
    assert_true(passed <= test_now_ns() - real + ROUSE_MS(1));
}

static void read_clock_for_a_while(void *argument)
{
    int64_t last = 0;
    const atomic_bool *stop = argument;
    while (!atomic_load(stop)) {
        int64_t now = os_now();
        require(now >= last);
        last = now;
    }
}

TEST(every_thread_sees_steps_back_as_time_that_goes_on)
{
    test_needs("faults");
    atomic_bool stop = false;
    os_thread threads[3];
    int64_t start = os_now(), steps = (int64_t)test_scale(200, 2000);
    for (int i = 0; i < 3; i++)
        assert_int_equal(os_thread_start(&threads[i], read_clock_for_a_while, &stop, "clock"), ROUSE_OK);
    for (int64_t i = 0; i < steps; i++) {
        faults_clock_step(-ROUSE_S(200) / steps);
        test_sleep_ns(100000);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++)
        os_thread_join(&threads[i]);
    /* Without a shared correction, the 200 s would be made up for by each of the threads. */
    assert_true(os_now() - start < ROUSE_S(20));
}

TEST(the_clock_stands_still_while_the_system_has_none)
{
    test_needs("faults");
    int64_t before = os_now();
    faults_syscall("clock_gettime", 1, EPERM, 10);
    for (int i = 0; i < 10; i++)
        assert_true(os_now() == before);
    assert_true(os_now() > before);
}

/* ---- random numbers and processors ---- */

TEST(random_numbers_differ)
{
    uint64_t seen[256];
    for (size_t i = 0; i < 256; i++) {
        seen[i] = os_random();
        for (size_t k = 0; k < i; k++)
            assert_true(seen[i] != seen[k]);
    }
}

static void send_random(void *argument)
{
    const int *ends = argument;
    uint64_t value = os_random();
    require(write(ends[1], &value, sizeof value) == (ssize_t)sizeof value);
}

TEST(a_forked_child_has_random_numbers_of_its_own)
{
    test_needs("fork");
    int ends[2];
    uint64_t value;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(test_in_child(send_random, ends, ROUSE_S(5)), 0);
    assert_int_equal(read(ends[0], &value, sizeof value), (ssize_t)sizeof value);
    assert_true(value != os_random());
    close(ends[0]);
    close(ends[1]);
}

TEST(there_is_at_least_one_processor)
{
    assert_true(os_processors() >= 1);
}

#if defined(__linux__)
TEST(processors_are_those_that_the_process_may_use_also_without_memory)
{
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(os_processors(), CPU_COUNT(&before));
    size_t first = 0;
    while (!CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(os_processors(), 1);
    faults_fail_alloc(1, true);
    unsigned without_memory = os_processors();
    faults_fail_alloc(0, false);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(without_memory, 1);
}
#endif

/* ---- threads ---- */

struct report {
    sigset_t mask;
    size_t stack_bytes;
    char name[16];
    int ran;
};

static void fill_report(void *argument)
{
    struct report *report = argument;
    pthread_sigmask(SIG_SETMASK, NULL, &report->mask);
#if defined(__linux__)
    pthread_attr_t attributes;
    void *start;
    require_int(pthread_getattr_np(pthread_self(), &attributes), ==, 0);
    require_int(pthread_attr_getstack(&attributes, &start, &report->stack_bytes), ==, 0);
    pthread_attr_destroy(&attributes);
    require_int(pthread_getname_np(pthread_self(), report->name, sizeof report->name), ==, 0);
#endif
    report->ran++;
}

TEST(a_thread_runs_its_body_once_with_its_argument)
{
    struct report report = {.ran = 0};
    os_thread thread;
    assert_int_equal(os_thread_start(&thread, fill_report, &report, "some"), ROUSE_OK);
    os_thread_join(&thread);
    assert_int_equal(report.ran, 1);
}

TEST(a_thread_starts_with_signals_blocked_but_those_of_faults)
{
    test_needs("signals");
    struct report report;
    os_thread thread;
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    assert_int_equal(os_thread_start(&thread, fill_report, &report, "some"), ROUSE_OK);
    os_thread_join(&thread);
    static const int blocked[] = {SIGINT,  SIGTERM, SIGHUP,  SIGPIPE, SIGUSR1,
                                  SIGUSR2, SIGALRM, SIGCHLD, SIGQUIT, SIGPROF};
    static const int open[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    for (size_t i = 0; i < sizeof blocked / sizeof blocked[0]; i++)
        assert_int_equal(sigismember(&report.mask, blocked[i]), 1);
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++)
        assert_int_equal(sigismember(&report.mask, open[i]), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int i = 1; i < 32; i++)
        assert_int_equal(sigismember(&before, i), sigismember(&after, i));
}

#if defined(__linux__)
TEST(a_thread_has_a_stack_of_some_size_and_its_name)
{
    struct report report;
    os_thread thread;
    assert_int_equal(os_thread_start(&thread, fill_report, &report, "a-name-of-more-than-15"), ROUSE_OK);
    os_thread_join(&thread);
    assert_string_equal(report.name, "a-name-of-more-");
    assert_true(report.stack_bytes >= (size_t)256 * 1024);
    assert_int_equal(os_thread_start(&thread, fill_report, &report, NULL), ROUSE_OK);
    os_thread_join(&thread);
}
#endif

TEST(a_thread_that_the_system_refuses_is_reported_and_leaves_nothing)
{
    test_needs("faults");
    struct report report = {.ran = 0};
    os_thread thread;
    faults_syscall("pthread_create", 1, EAGAIN, 1);
    assert_int_equal(os_thread_start(&thread, fill_report, &report, "some"), ROUSE_NO_THREAD);
    faults_fail_alloc(1, false);
    if (!test_is_sanitized())
        assert_int_equal(os_thread_start(&thread, fill_report, &report, "some"), ROUSE_NO_MEMORY);
    assert_int_equal(report.ran, 0);
}

static void use_current(void *argument)
{
    require(os_current() == NULL);
    os_current_set(argument);
    for (int i = 0; i < 1000; i++) {
        require(os_current() == argument);
        os_thread_yield();
    }
}

TEST(each_thread_has_a_current_pointer_of_its_own)
{
    int values[4];
    os_thread threads[4];
    assert_null(os_current());
    os_current_set(values);
    for (int i = 0; i < 4; i++)
        assert_int_equal(os_thread_start(&threads[i], use_current, &values[i], "current"), ROUSE_OK);
    for (int i = 0; i < 4; i++)
        os_thread_join(&threads[i]);
    assert_ptr_equal(os_current(), values);
    os_current_set(NULL);
}

/* ---- sleeping on a word ---- */

TEST(a_word_that_differs_is_not_slept_on)
{
    uint32_t word = 7;
    os_wait_on(&word, 8, ROUSE_NEVER);
}

TEST(a_deadline_that_has_passed_is_not_slept_for)
{
    uint32_t word = 7;
    os_wait_on(&word, 7, 0);
    os_wait_on(&word, 7, -1);
    os_wait_on(&word, 7, INT64_MIN);
    os_wait_on(&word, 7, os_now() - 1);
}

TEST(sleeping_ends_at_the_deadline_and_not_before_unless_it_is_interrupted)
{
    static const int64_t spans[] = {1, 1000, 100000, 1000000, 20000000};
    uint32_t word = 7;
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++) {
        int64_t deadline = os_now() + spans[i];
        int sleeps = 0;
        while (os_now() < deadline) {
            os_wait_on(&word, 7, deadline);
            sleeps++;
        }
        assert_true(sleeps <= 10); /* it sleeps, it does not spin */
    }
}

struct word_test {
    _Atomic(uint32_t) word;
    uint32_t rounds;
};

static void play(struct word_test *test, uint32_t mine)
{
    for (uint32_t i = 0; i < test->rounds; i++) {
        uint32_t turn;
        while ((turn = atomic_load(&test->word)) % 2 != mine)
            os_wait_on((const uint32_t *)&test->word, turn, ROUSE_NEVER);
        atomic_store(&test->word, turn + 1);
        os_wake_one((const uint32_t *)&test->word);
    }
}

static void play_second(void *argument)
{
    play(argument, 1);
}

TEST(two_threads_wake_each_other_without_losing_a_wake)
{
    struct word_test test = {.word = 0, .rounds = (uint32_t)test_scale(50000, 5000000)};
    os_thread second;
    assert_int_equal(os_thread_start(&second, play_second, &test, "second"), ROUSE_OK);
    play(&test, 0);
    os_thread_join(&second);
    assert_int_equal(atomic_load(&test.word), 2 * test.rounds);
}

static void sleep_until_one(void *argument)
{
    struct word_test *test = argument;
    while (atomic_load(&test->word) == 0)
        os_wait_on((const uint32_t *)&test->word, 0, ROUSE_NEVER);
}

TEST(all_sleepers_wake)
{
    for (int round = 0; round < 20; round++) {
        struct word_test test = {.word = 0};
        os_thread threads[4];
        for (int i = 0; i < 4; i++)
            assert_int_equal(os_thread_start(&threads[i], sleep_until_one, &test, "sleeper"), ROUSE_OK);
        if (round % 2)
            test_sleep_ns(1000000);
        atomic_store(&test.word, 1);
        os_wake_all((const uint32_t *)&test.word);
        for (int i = 0; i < 4; i++)
            os_thread_join(&threads[i]);
    }
}

TEST(a_wake_may_name_memory_that_is_gone)
{
    if (test_is_valgrind())
        return; /* which objects, as it should */
    size_t bytes = os_page_bytes();
    void *pages = os_pages_reserve(bytes);
    assert_non_null(pages);
    os_pages_release(pages, bytes);
    os_wake_one(pages);
    os_wake_all(pages);
}

/* ---- forks ---- */

struct fork_seen {
    uint32_t process;
    uint32_t forks;
};

static void look_in_child(void *argument)
{
    const struct fork_seen *parent = argument;
    require(os_process() != parent->process);
    require(os_process() == os_process());
    require(os_forks() != parent->forks);
    uint32_t forks = os_forks();
    struct fork_seen mine = {os_process(), forks};
    pid_t child = fork();
    if (child == 0)
        _exit(os_process() != mine.process && os_process() != parent->process ? 0 : 1);
    int status = 0;
    require(waitpid(child, &status, 0) == child);
    require_int(status, ==, 0);
    require(os_process() == mine.process);
    require(os_forks() != forks);
}

TEST(a_fork_changes_the_process_of_the_child_and_the_count_of_both)
{
    test_needs("fork");
    struct fork_seen parent = {os_process(), os_forks()};
    assert_int_equal(os_forks(), parent.forks);
    assert_int_equal(test_in_child(look_in_child, &parent, ROUSE_S(10)), 0);
    assert_int_equal(os_process(), parent.process);
    assert_int_not_equal(os_forks(), parent.forks);
    uint32_t forks = os_forks();
    assert_int_equal(os_forks(), forks);
}

/* ---- errors ---- */

TEST(every_error_of_the_system_becomes_one_status)
{
    test_needs("signals");
    static const struct {
        int error;
        int status;
    } pairs[] = {
        {0, ROUSE_OK},
        {EAGAIN, ROUSE_PENDING},
        {ECONNRESET, ROUSE_CONNECTION_RESET},
        {EPROTOTYPE, ROUSE_CONNECTION_RESET},
        {ECONNREFUSED, ROUSE_CONNECTION_REFUSED},
        {ECONNABORTED, ROUSE_CONNECTION_ABORTED},
        {EPIPE, ROUSE_BROKEN_PIPE},
        {ENOTCONN, ROUSE_NOT_CONNECTED},
        {EISCONN, ROUSE_ALREADY_CONNECTED},
        {ETIMEDOUT, ROUSE_TIMED_OUT},
        {EADDRINUSE, ROUSE_ADDRESS_IN_USE},
        {EADDRNOTAVAIL, ROUSE_ADDRESS_NOT_AVAILABLE},
        {EHOSTUNREACH, ROUSE_HOST_UNREACHABLE},
        {ENETUNREACH, ROUSE_NETWORK_UNREACHABLE},
        {ENETDOWN, ROUSE_NETWORK_DOWN},
        {EACCES, ROUSE_PERMISSION_DENIED},
        {EPERM, ROUSE_PERMISSION_DENIED},
        {EMFILE, ROUSE_TOO_MANY_FILES},
        {ENFILE, ROUSE_TOO_MANY_FILES_SYSTEM},
        {ENOBUFS, ROUSE_NO_BUFFERS},
        {ENOMEM, ROUSE_NO_MEMORY},
        {ENOSPC, ROUSE_NO_SPACE},
        {ENOENT, ROUSE_NOT_FOUND},
        {EEXIST, ROUSE_ALREADY_EXISTS},
        {EIO, ROUSE_IO_ERROR},
        {EMSGSIZE, ROUSE_MESSAGE_TOO_LONG},
        {ENAMETOOLONG, ROUSE_NAME_TOO_LONG},
        {EBADF, ROUSE_BAD_DESCRIPTOR},
        {EBUSY, ROUSE_BUSY},
        {EINVAL, ROUSE_INVALID},
        {ENOSYS, ROUSE_NOT_SUPPORTED},
        {EOPNOTSUPP, ROUSE_NOT_SUPPORTED},
        {EAFNOSUPPORT, ROUSE_NOT_SUPPORTED},
        {EPROTO, ROUSE_PROTOCOL_ERROR},
        {EFBIG, ROUSE_TOO_LARGE},
        {EDOM, ROUSE_UNKNOWN},
        {999999, ROUSE_UNKNOWN},
        {-1, ROUSE_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        assert_int_equal(os_status(pairs[i].error), pairs[i].status);
    for (int error = 1; error < 4096; error++)
        assert_true(os_status(error) < 0);
}
